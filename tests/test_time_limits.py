"""A run that hangs ends with the name of the test: tried on small projects with the options of this one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from convkit.commands import testing as commands
from tests import ROOT

pytest.importorskip("nbval")
pytestmark = [
    pytest.mark.slow,  # what waits for its limit
    pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal: there the process ends"),
]

WAITS = """
import threading, time
import pytest

forever = threading.Event()

@pytest.fixture
def never_closes():
    yield
    forever.wait()

def test_before(): pass

@pytest.mark.timeout(1)
def test_waits(): forever.wait()

@pytest.mark.timeout(1)
def test_fails_and_never_closes(never_closes): assert False

def test_after(): pass
"""
STUBBORN = """
import time

def test_stubborn():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def test_behind(): pass
"""


@pytest.fixture
def project(tmp_path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("__init__", "helpers/__init__", "helpers/time_limits", "notebooks/__init__", "notebooks/plugin"):
        place = tmp_path / "tests" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / f"{name}.py", place)
    (tmp_path / "tests" / "conftest.py").write_text("from tests.helpers.time_limits import *\n", encoding="utf-8")
    return tmp_path


def run(project: Path, *options: str) -> str:
    """What such a run prints; it must end by itself, and fail."""
    command = commands.test_command(["--tb=line", "-rfE", *options])
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.full)])
def test_a_test_and_a_fixture_that_wait_forever_fail_and_the_others_run(project, workers):
    (project / "tests" / "test_waits.py").write_text(WAITS, encoding="utf-8")
    printed = run(project, "-n", workers, "tests/test_waits.py")
    assert "timeout: 600" in printed  # what holds where a test says nothing
    assert "FAILED tests/test_waits.py::test_waits - Failed: Timeout" in printed
    assert "FAILED tests/test_waits.py::test_fails_and_never_closes" in printed
    assert "ERROR tests/test_waits.py::test_fails_and_never_closes - Failed: Timeout" in printed
    assert "2 failed, 2 passed, 1 error" in printed


def test_one_that_ignores_this_ends_its_worker_and_is_not_begun_again(project):
    (project / "tests" / "test_stubborn.py").write_text(STUBBORN, encoding="utf-8")
    limits = ("-o", "timeout=1", "-o", "faulthandler_timeout=4")
    printed = run(project, "-n", "1", *limits, "tests/test_stubborn.py")
    assert "crashed while running 'tests/test_stubborn.py::test_stubborn'" in printed
    assert " 1 failed in " in printed.splitlines()[-1]


def test_a_cell_that_never_ends_fails_with_its_notebook_and_number(project):
    nbformat = pytest.importorskip("nbformat")
    cell = nbformat.v4.new_code_cell("import threading\nthreading.Event().wait()", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), project / "00_waits.ipynb")
    printed = run(project, "-n", "0", "-o", "timeout=8", "00_waits.ipynb")
    assert "00_waits.ipynb::Cell 0" in printed.split("short test summary")[1]
    assert "Timeout (>8.0s)" in printed
