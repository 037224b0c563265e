"""What pytest-timeout leaves open: its clock stops at a test's first failure, and fixtures may hang after that.

A run that hangs ends with the name of the test, in two steps that pyproject.toml sets for every test and every cell:

- after ten minutes pytest-timeout raises in the test, by a signal (on Windows by a thread, which ends the process).
  The test fails, its fixtures end, and the others go on. So pages, servers and kernels are closed.
- after fifteen minutes pytest's faulthandler ends the process with the stacks of all threads, for code in which that
  exception is lost: an event loop logs it and goes on, compiled code never looks. pytest-xdist then names the test.
"""

import pytest

CLOCK = pytest.StashKey()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item, settings):
    """Remembers how long this test may take."""
    item.stash[CLOCK] = settings


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    """Gives the fixtures of a test as long again to end, whatever became of the test."""
    if CLOCK in item.stash:
        item.ihook.pytest_timeout_cancel_timer(item=item)
        item.ihook.pytest_timeout_set_timer(item=item, settings=item.stash[CLOCK])
