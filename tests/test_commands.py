"""The commands: they make the environment and go on in it, end in one sentence, and run what they should."""

import itertools
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import convkit.__main__ as commands
import convkit.commands.testing as testing
from convkit.commands.environment import PYTHON, SentenceError, explain
from tests import NOTEBOOKS, RESULTS, ROOT
from tests.helpers.refusals import refused

posix = pytest.mark.skipif(os.name == "nt", reason="needs the signals and users of Unix")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The Python of these tests, in the clone."""
    command = [sys.executable, "-X", "utf8", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)


def environment(monkeypatch, own, inside):
    """Play such an environment; the list gets an entry when one is made."""
    made = []
    monkeypatch.setattr(commands, "in_own_environment", lambda: own)
    monkeypatch.setattr(commands, "in_venv", lambda: inside)
    monkeypatch.setattr(commands, "make_environment", lambda: made.append(True))
    monkeypatch.chdir(ROOT)
    return made


def test_a_command_goes_on_in_the_environment_with_its_arguments(monkeypatch):
    made = environment(monkeypatch, own=False, inside=False)
    monkeypatch.setattr(commands, "hand_over", lambda command: command)
    expected = [str(PYTHON), "-m", "convkit", "test", "-k", "spectra"]
    assert commands.main(["test", "-k", "spectra"]) == expected
    assert made == [True]


@pytest.mark.parametrize("own, inside, made", [(True, False, []), (False, True, [True])])
def test_a_command_runs_at_once_in_an_environment_that_stands(monkeypatch, own, inside, made):
    calls = environment(monkeypatch, own, inside)
    monkeypatch.setitem(commands.COMMANDS, "build", lambda extra: len(extra) + 40)
    assert commands.main(["build", "a", "b"]) == 42
    assert calls == made


def test_hand_over_returns_the_exit_code():
    code = "import sys; from convkit.__main__ import hand_over; print('before')\n"
    code += "sys.exit(hand_over([sys.executable, '-c', 'print(\"after\"); raise SystemExit(3)']))"
    result = python("-c", code)
    assert (result.returncode, result.stdout.split()) == (3, ["before", "after"])


@posix
def test_ctrl_c_ends_a_running_notebook_without_a_traceback():
    code = "import signal, time; from convkit.__main__ import run_aside\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore Ctrl-C
    code += "run_aside(lambda: (print('on', flush=True), time.sleep(3600)))"
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "\nconvkit: stopped.\n")


def test_a_copy_without_pyproject_is_told_to_clone_and_what_runs_aside_raises_is_raised(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(commands, "PROJECT", tmp_path / "pyproject.toml")
    assert commands.main(["lab"]) == 1
    assert "clone the repository" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        commands.run_aside(lambda: 1 / 0)


def test_a_sentence_is_the_whole_output_and_the_exit_code_is_1(monkeypatch, capsys):
    def fail():
        raise SentenceError(explain("[Errno 28] No space left on device"))

    monkeypatch.setattr(commands, "in_own_environment", lambda: False)
    monkeypatch.setattr(commands, "make_environment", fail)
    assert commands.main(["test"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("convkit: the disk is full")
    assert len(err.splitlines()) == 1


# ---- lab -------------------------------------------------------------------------------------------------------------
def test_lab_opens_the_first_notebook_for_this_machine_alone_and_passes_arguments_on():
    command = commands.lab_command(["--port", "9000"], browser=True)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    place = {"--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={ROOT}"}
    assert place | {"--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"} <= set(command)
    assert command[-2:] == ["--port", "9000"]
    assert "--no-browser" not in command
    assert "--no-browser" in commands.lab_command([], browser=False)


def test_lab_in_a_codespace_lets_its_own_pages_in_and_no_others(monkeypatch):
    assert not [word for word in commands.lab_command([], browser=False) if "origin" in word]
    for name, value in zip(commands.CODESPACE, ("bold-space", "app.host.dev"), strict=True):
        monkeypatch.setenv(name, value)
    [word] = [word for word in commands.lab_command([], browser=False) if "origin" in word]
    pattern = word.removeprefix("--ServerApp.allow_origin_pat=")
    assert re.match(pattern, "https://bold-space-8889.app.host.dev")
    for other in (
        "https://bold-space-8888.appxhost.dev",
        "https://bold-space-8888.app.host.dev.other",
        "https://old-space-8888.app.host.dev",
        "http://a.dev",
    ):
        assert not re.match(pattern, other)


@posix
@pytest.mark.parametrize("user", [0, 1000])
def test_lab_allows_root_for_root_alone(monkeypatch, user):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("--allow-root" in commands.lab_command([], browser=False)) == (user == 0)


@pytest.mark.parametrize("missing", ["", "terminal", "display", "browser"])
def test_a_browser_opens_where_there_are_a_terminal_a_display_and_a_browser(monkeypatch, missing):
    def get():
        if missing == "browser":
            raise commands.webbrowser.Error("could not locate runnable browser")

    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if missing != "display":
        monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(commands.webbrowser, "get", get)
    stream = SimpleNamespace(isatty=lambda: missing != "terminal")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "linux")
        patch.setattr(sys, "stdin", stream)
        patch.setattr(sys, "stdout", stream)
        found = commands.can_open_browser()
    assert found == (not missing)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["x = 1", "raise ValueError('no good\\nat all')"])
def test_lab_runs_the_first_notebook_and_prints_its_check_marks(tmp_path, last):
    nbformat = pytest.importorskip("nbformat")
    cells = ["print('hello')", "print('✓ one is one')\nprint('and ✓ not this')", last]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    first = tmp_path / "00_start_here.ipynb"
    nbformat.write(notebook, first)
    before = first.read_bytes()
    code = f"""
import pathlib, sys
import convkit.__main__ as commands
commands.FIRST = pathlib.Path({str(first)!r})
try:
    commands.run_first_notebook()
except commands.SentenceError as error:
    sys.exit(str(error))
"""
    result = python("-c", code)
    announced, *printed = result.stdout.splitlines()
    assert "00_start_here.ipynb" in announced
    assert printed == ["  ✓ one is one"]
    if last == "x = 1":
        assert (result.returncode, result.stderr) == (0, "")
    else:
        assert result.returncode == 1
        assert result.stderr.endswith("00_start_here.ipynb fails on this machine: ValueError: no good\n")
    assert first.read_bytes() == before


# ---- test and build --------------------------------------------------------------------------------------------------
def test_the_test_command_follows_the_policy_for_notebooks():
    command = testing.test_command(["-x"])
    assert command[:3] == [sys.executable, "-m", "pytest"]
    assert {"--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"} <= set(command)
    assert command[command.index("--dist") + 1] == "loadfile"
    assert 1 <= int(command[command.index("-n") + 1]) <= 8
    assert command[command.index("-p") + 1] == "tests.notebooks.plugin"
    assert "--max-worker-restart=0" in command
    assert command[command.index("-m", 3) + 1] == "not full"
    assert command[-1] == "-x"


@pytest.mark.parametrize("more, marks", [([], "not full"), (["--quick"], "not slow and not full"), (["--all"], "")])
def test_the_pretended_gpu_runs_tests_alone_with_its_plugin(more, marks):
    command = testing.test_command(["--pretend-gpu", *more, "-x"])
    assert "testpaths=tests" in command
    assert command[command.index("-p") + 1] == "tests.gpu.pretended.fakecuda_quick"
    assert "--ignore=tests/browser" in command
    assert not [word for word in command if "nbval" in word or "pretend-gpu" in word]
    chosen = [marked for word, marked in itertools.pairwise(command[3:]) if word == "-m"]
    assert chosen == ([marks] if marks else [])
    assert command[-1] == "-x"


class Compiler:
    """A compiler in whose place another command runs; ``calls`` counts."""

    def __init__(self, folder, monkeypatch) -> None:
        torch = pytest.importorskip("torch")
        for name in ("build.sh", "fakecuda.cpp"):
            (folder / name).write_text("first")
        self.calls, self.status, self.folder = 0, 0, folder
        self.path: str | None = "/usr/bin/g++"
        monkeypatch.setattr(testing, "PRETENDED", folder)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for name in ("cuda", "hip"):
            monkeypatch.setattr(torch.version, name, None)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(testing.shutil, "which", lambda name: self.path)
        monkeypatch.setattr(testing.subprocess, "run", self.run)

    def run(self, command, stdout, **_):
        assert command == ["sh", str(self.folder / "build.sh"), sys.executable]
        self.calls += 1
        stdout.write(b"what the compiler says")
        return SimpleNamespace(returncode=self.status)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    return Compiler(tmp_path, monkeypatch)


def test_the_pretended_gpu_is_compiled_once_for_each_torch_and_source(compiler, monkeypatch):
    torch = pytest.importorskip("torch")
    for calls in (1, 1):
        assert testing.missing_gpu() == ""
        assert compiler.calls == calls
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert testing.missing_gpu() == ""
    (compiler.folder / "fakecuda.cpp").write_text("second")
    assert testing.missing_gpu() == ""
    assert compiler.calls == 3
    compiler.path = None  # no longer needed
    assert testing.missing_gpu() == ""


def test_without_a_pretended_gpu_a_line_says_why_and_the_status_is_0(compiler, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(commands, "hand_over", lambda command: 7)

    def said():
        assert commands.test(["--pretend-gpu"]) == 0
        return capsys.readouterr().out

    compiler.status = 1
    for calls in (1, 2):  # a failure is no stamp
        first, second = said().splitlines()
        assert first.startswith("Compiling")
        assert second.endswith(f"does not compile with this torch, as {compiler.folder / 'out' / 'build.log'} shows.")
        assert compiler.calls == calls
    assert (compiler.folder / "out" / "build.log").read_text() == "what the compiler says"
    compiler.path = None
    assert said() == "No test ran on a GPU: a pretended GPU needs the compiler g++, which is not there.\n"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert said() == "No test ran on a GPU: a pretended GPU needs Linux and a CPU build of torch.\n"
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert said() == "No test ran on a GPU: a pretended GPU needs Linux and a CPU build of torch.\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a real one
    assert commands.test(["--pretend-gpu"]) == 7
    assert compiler.calls == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, collected",
    [
        ([], ["alpha", "slow", "beta", "Cell 0", "Cell 0"]),
        (["--quick"], ["alpha", "beta", "Cell 0"]),
        (["--all"], ["alpha", "slow", "full", "beta", "Cell 0", "Cell 0"]),
        (["-k", "notebooks"], ["Cell 0", "Cell 0"]),  # a word, though it is the name of a folder, too
        (["tests/test_b.py"], ["beta"]),
    ],
)
def test_named_paths_are_tested_alone_and_else_tests_and_notebooks(tmp_path, arguments, collected):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbval")
    for folder in ("tests", "notebooks"):
        (tmp_path / folder).mkdir()
    options = "[tool.pytest.ini_options]\ntestpaths = ['tests']\nmarkers = ['slow', 'full']\n"
    (tmp_path / "pyproject.toml").write_text(options, encoding="utf-8")
    (tmp_path / "tests" / "notebooks").mkdir()
    for name in ("__init__", "notebooks/__init__", "notebooks/plugin"):
        (tmp_path / "tests" / f"{name}.py").touch()
    marked = [f"@pytest.mark.{mark}\ndef test_{mark}(): pass\n" for mark in ("slow", "full")]
    alpha = "\n".join(["import pytest\n\ndef test_alpha(): pass\n", *marked])
    (tmp_path / "tests" / "test_a.py").write_text(alpha, encoding="utf-8")
    (tmp_path / "tests" / "test_b.py").write_text("def test_beta(): pass\n", encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    for name in ("00_start_here", "01_next"):
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    command = testing.test_command([*arguments, "-n", "0", "--collect-only", "-q"])
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line.split("::")[-1].removeprefix("test_") for line in result.stdout.splitlines() if "::" in line]
    assert found == collected, result.stdout + result.stderr


def test_workers_get_one_thread_each_unless_the_user_says_otherwise(monkeypatch):
    pytest.importorskip("matplotlib")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(commands, "hand_over", lambda command: 0)
    for name in names:
        monkeypatch.setenv(name, "7")  # so that the value set by `test` does not outlive this test
    for name in names[1:]:
        monkeypatch.delenv(name)
    assert commands.test([]) == 0
    assert [os.environ[name] for name in names] == ["7", "1", "1"]


def test_build_takes_the_named_notebooks_or_all_in_order(monkeypatch, tmp_path):
    teaching = pytest.importorskip("convkit.teaching.notebooks")
    built = []
    monkeypatch.setattr(teaching, "build", built.extend)
    monkeypatch.setattr(commands, "FIRST", tmp_path / "00_start_here.ipynb")
    paths = [tmp_path / f"{name}.ipynb" for name in ("00_start_here", "01_next", "02_last")]
    for path in reversed(paths):
        path.touch()
    assert commands.build([]) == 0
    assert built == paths
    built.clear()
    assert commands.build([str(paths[2]), str(paths[0])]) == 0
    assert built == [paths[2], paths[0]]
    refused(r"there is no notebook nowhere\.ipynb", commands.build, ["nowhere.ipynb"], error=SentenceError)


# ---- notebooks and audit ---------------------------------------------------------------------------------------------
def test_notebooks_are_copied_to_a_new_folder_of_where_the_command_is_typed(monkeypatch, tmp_path, capsys):
    environment(monkeypatch, own=True, inside=False)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["notebooks", "course"]) == 0
    names = [path.relative_to(ROOT) for path in (*NOTEBOOKS, *RESULTS.rglob("*.json"), ROOT / "notebooks" / "LICENSE")]
    for name in names:
        copy = tmp_path / "course" / name.relative_to("notebooks")
        assert copy.read_bytes() == (ROOT / name).read_bytes()
    assert "notebooks are in course; open them by `jupyter lab course`" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert commands.main(["notebooks", "empty"]) == 0
    for words, told in [
        (["course"], "course has files in it"),
        ([], "needs the folder"),
        (["a", "b"], "needs the folder"),
    ]:
        assert commands.main(["notebooks", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_audit_is_handed_its_arguments(monkeypatch):
    report = pytest.importorskip("convkit.methods.report")
    environment(monkeypatch, own=True, inside=False)
    monkeypatch.setattr(report, "main", lambda extra: len(extra) + 40)
    assert commands.main(["audit", "file", "--help"]) == 42
