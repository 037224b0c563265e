"""The environment of a clone: what makes .venv, what keeps it, and the one sentence in which a failure is told."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import convkit.commands.environment as environment
from convkit.commands.environment import PinError, SentenceError, make_environment
from tests import ROOT
from tests.helpers.refusals import refused

OTHER = "[project]\nname = 'other'\n"  # of a changed pyproject.toml


class Clone:
    """A clone in which venv and pip are played: they leave the files they would leave, or fail as told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.steps: list[str] = []
        self.pip_fails: BaseException | None = None
        self.move_to(folder)
        monkeypatch.setattr(environment, "run_step", self.run_step)
        self.uv: str | None = None
        self.uv_fails = False
        monkeypatch.setattr(shutil, "which", lambda name: self.uv)
        monkeypatch.setattr(environment, "DRIVERS", (str(folder),))  # there is one

    def move_to(self, folder: Path) -> None:
        places = {"ROOT": folder, "PROJECT": folder / "pyproject.toml", "VENV": folder / ".venv"}
        places |= {"PYTHON": folder / ".venv" / "bin" / "python", "STAMP": folder / ".venv" / "convkit-stamp.txt"}
        places |= {"CONSTRAINTS": folder / ".ci" / "constraints.txt"}
        for name, place in places.items():
            self.monkeypatch.setattr(environment, name, place)
        self.folder, self.venv, self.python = folder, places["VENV"], places["PYTHON"]
        self.constraints, self.project = places["CONSTRAINTS"], places["PROJECT"]
        if not places["PROJECT"].exists():
            places["PROJECT"].write_text("[project]\n", encoding="utf-8")
            self.constraints.parent.mkdir()
            self.constraints.write_text("torch==2.13.0\n", encoding="utf-8")

    def run_step(self, command: list[object]) -> None:
        words = [str(word) for word in command]
        if words[1:3] == ["-m", "venv"]:
            self.steps.append("venv")
            assert words[3:] == [str(self.venv)]
            self.python.parent.mkdir(parents=True)
            if os.name == "nt":
                self.python.touch()
            else:
                self.python.symlink_to(words[0])
        elif words[0] == self.uv:
            self.steps.append("uv")
            pinned = ["--constraint", str(self.constraints), "--editable", f"{self.folder}[test]"]
            assert words[1:] == ["pip", "install", "--python", str(self.python), "--torch-backend=auto", *pinned]
            assert not environment.environment_stands()
            if self.uv_fails:
                raise SentenceError("uv: no network.")
        else:
            pinned = ["--constraint", str(self.constraints)] == words[5:7]
            self.steps.append("pip" if pinned else "pip without pins")
            assert words[:4] == [str(self.python), "-m", "pip", "install"]
            assert words[-2:] == ["--editable", f"{self.folder}[test]"]
            assert not environment.environment_stands()  # killed now, it would not pass for finished
            if self.pip_fails and (pinned or not isinstance(self.pip_fails, PinError)):
                raise self.pip_fails

    def make(self) -> list[str]:
        """The steps that `make_environment` takes."""
        self.steps = []
        make_environment()
        return self.steps


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Clone:
    (tmp_path / "clone").mkdir()
    return Clone(tmp_path / "clone", monkeypatch)


def test_a_changed_pyproject_installs_into_the_same_venv_also_where_pip_refuses_at_first(clone):
    clone.make()
    (clone.venv / "kept").touch()
    clone.project.write_text(OTHER, encoding="utf-8")
    clone.pip_fails = SentenceError("no network")
    refused("no network", clone.make, error=SentenceError)
    assert not environment.environment_stands()
    clone.pip_fails = None
    assert clone.make() == ["pip"]
    assert (clone.venv / "kept").exists()
    assert clone.make() == []


@pytest.mark.parametrize("change", ["changed", "gone", "new"])
def test_the_first_start_makes_venv_and_changed_constraints_install_into_it(clone, change):
    if change == "new":  # a copy that had no such file, as a source archive, gets one
        clone.constraints.unlink()
    assert clone.make() == ["venv", "pip without pins" if change == "new" else "pip"]
    assert clone.make() == []
    (clone.venv / "kept").touch()
    if change == "gone":
        clone.constraints.unlink()
    else:
        clone.constraints.write_text("torch==2.14.1\n", encoding="utf-8")
    assert clone.make() == ["pip without pins" if change == "gone" else "pip"]
    assert (clone.venv / "kept").exists()
    assert clone.make() == []


def test_where_pip_cannot_have_the_pinned_versions_it_takes_others_and_says_so(clone, capsys):
    clone.pip_fails = PinError("no such version")
    assert clone.make() == ["venv", "pip", "pip without pins"]
    assert "versions of .ci/constraints.txt" in capsys.readouterr().out
    assert clone.make() == []  # the stamp is that of these constraints: others are tried when they change
    clone.constraints.write_text("torch==2.14.1\n", encoding="utf-8")
    clone.pip_fails = None
    assert clone.make() == ["pip"]


def test_a_moved_clone_is_made_anew(clone, tmp_path):
    clone.make()
    (clone.venv / "old").touch()
    clone.move_to(clone.folder.rename(tmp_path / "moved"))
    assert clone.make() == ["venv", "pip"]
    assert not (clone.venv / "old").exists()
    assert clone.make() == []


def test_a_venv_whose_python_is_gone_or_has_become_another_is_made_anew(clone, tmp_path):
    clone.make()
    clone.python.unlink()
    assert clone.make() == ["venv", "pip"]
    if os.name != "nt":  # there the link to the system's Python leads elsewhere after an upgrade
        (tmp_path / "python3.99").touch()
        clone.python.unlink()
        clone.python.symlink_to(tmp_path / "python3.99")
        assert clone.make() == ["venv", "pip"]
    assert clone.make() == []


def test_an_interrupted_installation_leaves_no_valid_stamp_and_is_made_anew(clone):
    clone.pip_fails = KeyboardInterrupt()
    refused("", clone.make, error=KeyboardInterrupt)
    assert not environment.environment_stands()
    clone.pip_fails = None
    assert clone.make() == ["venv", "pip"]


def test_an_interrupted_venv_is_made_anew(clone, monkeypatch):
    def interrupted(command):
        clone.run_step(command)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "run_step", interrupted)
        refused("", clone.make, error=KeyboardInterrupt)
    assert clone.make() == ["venv", "pip"]


@pytest.mark.parametrize("failure", [SentenceError("no network"), KeyboardInterrupt(), None])
def test_a_venv_made_by_somebody_else_is_used_and_never_deleted_and_keeps_its_versions(clone, failure, tmp_path):
    def make_after_a_failure():
        clone.pip_fails = failure
        if failure:
            refused(str(failure), clone.make, error=type(failure))
        clone.pip_fails = None
        return clone.make()

    clone.python.parent.mkdir(parents=True)
    clone.python.touch()
    (clone.venv / "theirs").touch()
    assert make_after_a_failure() == ["pip without pins"]  # their torch stays
    assert clone.make() == []
    clone.constraints.write_text("torch==2.14.1\n", encoding="utf-8")
    assert clone.make() == []
    clone.project.write_text(OTHER, encoding="utf-8")
    assert make_after_a_failure() == ["pip without pins"]
    clone.move_to(clone.folder.rename(tmp_path / "moved"))
    assert clone.make() == ["pip without pins"]
    assert (clone.venv / "theirs").exists()


@pytest.mark.parametrize("name", ["lib/python3.12/site-packages", "Lib/site-packages"])
@pytest.mark.parametrize(
    "torch, refuses", [("2.10.1+cu128", True), ("1.13.0", True), ("2.11.0", False), ("3.0", False)]
)
def test_an_older_torch_in_somebody_elses_venv_is_named_and_not_replaced(clone, name, torch, refuses):
    clone.project.write_text('[project]\ndependencies = [\n    "torch>=2.11",\n]\n', encoding="utf-8")
    clone.python.parent.mkdir(parents=True)
    clone.python.touch()
    (clone.venv / name / f"torch-{torch}.dist-info").mkdir(parents=True)
    if refuses:
        has = ".".join(torch.split(".")[:2])
        refused(rf"torch 2\.11 or newer is needed, and \.venv, .* has {has}: update", clone.make, error=SentenceError)
        assert clone.steps == []
    else:
        assert clone.make() == ["pip without pins"]


# ---- a torch without CUDA --------------------------------------------------------------------------------------------
@pytest.fixture
def without_driver(clone, monkeypatch) -> Clone:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(environment, "DRIVERS", (str(clone.folder / "none"),))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return clone


def test_uv_takes_a_torch_without_cuda_where_there_is_no_driver(without_driver, capsys):
    without_driver.uv = "/somewhere/uv"
    assert without_driver.make() == ["venv", "uv"]
    assert "CUDA with it" not in capsys.readouterr().out
    assert without_driver.make() == []
    without_driver.constraints.write_text("torch==2.14.1\n", encoding="utf-8")
    without_driver.uv_fails = True
    assert without_driver.make() == ["uv", "pip"]
    assert "so pip installs: uv: no network." in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["driver", "system", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"])
def test_pip_installs_where_there_is_a_driver_or_the_user_has_chosen_an_index(without_driver, monkeypatch, reason):
    without_driver.uv = "/somewhere/uv"
    if reason == "driver":
        monkeypatch.setattr(environment, "DRIVERS", (str(without_driver.folder),))
    elif reason == "system":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setenv(reason, "an address")
    assert without_driver.make() == ["venv", "pip"]


def test_without_uv_one_line_says_how_to_avoid_cuda_before_torch_is_there(without_driver, capsys):
    assert without_driver.make() == ["venv", "pip"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "CUDA with it" in line]
    assert "`pip install uv`" in line
    (without_driver.venv / "lib" / "python3" / "site-packages" / "torch").mkdir(parents=True)
    without_driver.project.write_text(OTHER, encoding="utf-8")
    assert without_driver.make() == ["pip"]
    assert "CUDA with it" not in capsys.readouterr().out


def test_an_own_environment_counts_when_the_kit_is_installed_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != missing)
    missing = ""
    assert not environment.in_own_environment()
    (tmp_path / "convkit-0.1.0.dist-info").mkdir()
    assert environment.in_own_environment()
    missing = "nbval"  # the library alone: the commands need .venv
    assert not environment.in_own_environment()
    missing = ""
    monkeypatch.setattr(environment, "VENV", Path(sys.prefix))  # in .venv the stamp decides
    assert not environment.in_own_environment()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_two_terminals_make_the_environment_one_after_the_other(tmp_path):
    code = f"""
import pathlib, sys, time
import convkit.commands.environment as environment
environment.ROOT = pathlib.Path({str(tmp_path)!r})
with environment.one_at_a_time():
    print("in", flush=True)
    sys.stdin.readline()
    print("out", flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as first,
        subprocess.Popen([sys.executable, "-c", "input()\n" + code], cwd=ROOT, **pipes) as second,
    ):
        assert all((first.stdin, first.stdout, second.stdin, second.stdout))
        assert first.stdout.readline() == "in\n"
        second.stdin.write("go\n")
        second.stdin.flush()
        assert second.stdout.readline().startswith("Another convkit command")
        time.sleep(0.2)
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.stdout.readline() == "out\n"
        assert second.stdout.readline() == "in\n"
        second.stdin.write("\n")


# ---- one sentence ----------------------------------------------------------------------------------------------------
FAILURES = {
    "the disk is full": [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
        "ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded: '/home/a/x'",
        "OSError: [WinError 112] There is not enough space on the disk",
    ],
    "cannot be written": [
        "[Errno 30] Read-only file system: '/media/cd/convkit/.venv'",
        "[Errno 13] Permission denied: '/srv/convkit/.venv'",
        "[WinError 5] Access is denied: 'C:\\convkit\\.venv'",
    ],
    "cannot reach the package index": [
        "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection "
        "broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object>: Failed to establish "
        "a new connection: [Errno -3] Temporary failure in name resolution')': /simple/setuptools/\n"
        "ERROR: Could not find a version that satisfies the requirement setuptools>=77 (from versions: none)\n"
        "ERROR: No matching distribution found for setuptools>=77\n",
        "pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='a', port=443): Read timed out.",
    ],
    "the pip in .venv is too old": [
        "ERROR: File 'setup.py' not found. Directory cannot be installed in editable mode: /home/a/convkit\n"
        "(A 'pyproject.toml' file was found, but editable mode currently requires a setuptools-based build.)\n",
    ],
    "pip finds no torch>=2.11": [
        "ERROR: Could not find a version that satisfies the requirement torch>=2.11 (from versions: 2.2.2)\n"
        "ERROR: No matching distribution found for torch>=2.11\n",
    ],
}


@pytest.mark.parametrize("expected, output", [(key, text) for key, texts in FAILURES.items() for text in texts])
def test_a_failing_step_ends_in_one_sentence_that_says_what_to_do(expected, output):
    code = f"import sys; print('Collecting torch'); sys.stderr.write({output!r}); sys.exit(1)"
    with pytest.raises(SentenceError, match=expected) as raised:
        environment.run_step([sys.executable, "-c", code])
    sentence = str(raised.value)
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")
    assert ": " in sentence  # what happened: what to do


# what pip 23 and 26 said of a pin that has no file for the system, and of one that another constraint contradicts
CONFLICTS = [
    "ERROR: Cannot install convkit==0.1.0 because these package versions have conflicting dependencies.\n\n"
    "The conflict is caused by:\n    convkit 0.1.0 depends on torch>=2.11\n"
    "    The user requested (constraint) torch==2.13.0\n\n"
    "Additionally, some packages in these conflicts have no matching distributions available for your environment:\n"
    "    torch\n\nERROR: ResolutionImpossible: for help visit the documentation\n",
    "The conflict is caused by:\n    convkit 0.1.0 depends on torch>=2.11\n"
    "    The user requested (constraint) torch==2.13.0,==2.14.1\n\nERROR: ResolutionImpossible: for help visit ...\n",
]


@pytest.mark.parametrize("output", CONFLICTS)
@pytest.mark.parametrize("network", [True, False])
def test_only_a_conflict_with_the_constraints_is_told_apart(output, network):
    output += "" if network else "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
    code = f"import sys; sys.stderr.write({output!r}); sys.exit(1)"
    with pytest.raises(SentenceError) as raised:
        environment.run_step([sys.executable, "-c", code])
    assert isinstance(raised.value, PinError) == network


def test_an_unknown_failure_shows_the_last_lines_after_its_sentence():
    code = "import sys; print(*range(100), sep='\\n', flush=True); sys.exit('error: the compiler is on strike')"
    with pytest.raises(SentenceError, match=r"mend what these last lines name") as raised:
        environment.run_step([sys.executable, "-c", code])
    lines = str(raised.value).splitlines()
    assert lines[-1] == "error: the compiler is on strike"
    assert 5 < len(lines) < 20


def test_a_step_that_works_prints_nothing_and_one_that_fails_silently_on_a_full_disk_says_so(monkeypatch, capfd):
    environment.run_step([sys.executable, "-c", "print('Collecting torch')"])
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    silent = [sys.executable, "-c", "raise SystemExit(1)"]
    refused("the disk is full", environment.run_step, silent, error=SentenceError)


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_told_which_package_to_install(clone, monkeypatch, missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    refused(rf"lacks {missing}: .*apt install python{version}-venv", clone.make, error=SentenceError)
    assert not clone.venv.exists()


def test_a_folder_that_cannot_be_written_is_named(clone, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(r"\.venv cannot be written", clone.make, error=SentenceError)
