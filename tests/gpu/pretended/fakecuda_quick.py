"""Fewer examples of hypothesis, and only the tests on the pretended device: ``-p fakecuda_quick``."""

import fakecuda  # noqa: F401


def pytest_configure(config):
    from hypothesis import settings

    settings.register_profile("quick", deadline=None, derandomize=True, database=None, max_examples=5)
    settings.load_profile("quick")


def pytest_collection_modifyitems(config, items):
    items[:] = [item for item in items if "cuda" in item.nodeid]
