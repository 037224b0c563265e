"""A copy of convkit installed without its extras: everything imports or says in one sentence what is missing."""

import ast
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit import loading as extras
from convkit.loading import CORE, MissingExtraError, needs, progress_bar
from tests import ROOT
from tests.helpers.refusals import refused

BROUGHT = [  # the packages that the extras bring, and what these bring in turn
    *("matplotlib", "PIL", "jupyterlab", "ipykernel", "IPython", "nbclient", "nbformat", "jupyter_client"),
    *("ipywidgets", "traitlets", "comm", "sklearn", "joblib", "tqdm", "pooch", "pyautoattack", "art"),
]
BLOCK = f"""
import importlib.machinery
import sys

absent, find = {BROUGHT!r}, importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *at: None if name.split(".")[0] in absent else find(name, *at)
"""


# ---- the sentence ----------------------------------------------------------------------------------------------------
def test_a_missing_package_is_named_with_who_needs_it_and_the_extra_that_brings_it(monkeypatch):
    def load(*needed):
        with contextlib.ExitStack() as stack:
            for who in needed:
                stack.enter_context(needs(*who))
            import matplotlib.axes  # noqa: F401

    monkeypatch.setattr(extras, "installed", lambda: True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as raised:
        load(("kit", "convkit.plots"))
    assert str(raised.value) == 'convkit.plots needs matplotlib, which is not installed: pip install "convkit[kit]"'
    assert raised.value.name == "matplotlib"
    refused(r"\[attacks\]\", or do without$", load, ("attacks", "it", ", or do without"), error=MissingExtraError)
    within = ("kit", "a set"), ("kit", "a download")
    refused("^a download needs", load, *within, error=MissingExtraError)  # the innermost


@pytest.mark.parametrize(
    "error",
    [
        *(ModuleNotFoundError("No module named", name=name) for name in ("torch", "convkit.no_such_file", None)),
        ImportError("DLL load failed"),  # of a package that is there and broken
    ],
    ids=repr,
)
def test_what_no_extra_brings_stays_pythons_own_error(error):
    with pytest.raises(ImportError) as raised, needs("kit", "convkit.plots"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("clone, installed", [(True, True), (True, False), (False, True), (False, False)])
def test_the_command_never_sends_pip_to_the_index_for_the_name_convkit(monkeypatch, tmp_path, clone, installed):
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    monkeypatch.setattr(extras.sysconfig, "get_path", lambda name: str(tmp_path))
    assert not extras.installed()
    if installed:
        (tmp_path / "convkit-0.1.0.dist-info").mkdir()
    assert extras.installed() == installed
    if clone:
        (tmp_path / "pyproject.toml").touch()
    by_folder = clone and not installed
    expected = f'pip install --editable "{tmp_path}[kit]"' if by_folder else 'pip install "convkit[kit]"'
    assert extras.pip_install("kit") == expected


def test_without_tqdm_a_run_has_no_bar_and_is_otherwise_the_same(monkeypatch):
    def run() -> list[int]:
        with progress_bar([1, 2, 3], desc="run", unit="step", disable=True) as bar:
            seen = list(bar)
            bar.set_postfix({"loss": 1}, refresh=False)
            bar.set_postfix_str("last")
            bar.update()
        with progress_bar(total=3, initial=1, disable=True) as bar:
            bar.update(2)
        return seen

    with_tqdm = run()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert run() == with_tqdm == [1, 2, 3]
    assert list(progress_bar([1, 2])) == [1, 2]


# ---- every import ----------------------------------------------------------------------------------------------------
WHOLE = {"plots", "widgets"}  # folders whose __init__ tells what is missing before any of their files is read
FALLS_BACK = {  # files that go on without a package, each in its own way
    "engine/workers.py": {"threadpoolctl"},  # with one worker
    "bench/cases.py": {"art"},  # without that baseline
    "loading.py": {"tqdm"},  # without a bar
    "__main__.py": {"nbclient"},  # `lab` and `test`, which run in the clone's environment alone
    "commands/testing.py": {"matplotlib"},
}


def bare_imports(node: ast.AST) -> Iterator[str]:
    """The packages that are imported outside of ``with needs(...)`` and of ``if TYPE_CHECKING``."""
    if isinstance(node, ast.With) and any("needs(" in ast.unparse(item) for item in node.items):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield (node.module or "").split(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from bare_imports(child)


def test_every_import_from_an_extra_stands_in_a_block_that_names_it():
    found = {}
    for file in sorted((ROOT / "convkit").rglob("*.py")):
        path = file.relative_to(ROOT / "convkit")
        if path.parts[0] not in WHOLE or path.name == "__init__.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found[path.as_posix()] = set(bare_imports(tree)) - sys.stdlib_module_names - CORE
    assert {path: foreign for path, foreign in found.items() if foreign} == FALLS_BACK
    bare = "def f():\n    if True:\n        from tqdm.auto import tqdm\n"
    named = 'with needs("kit", "it"):\n    import tqdm\nif TYPE_CHECKING:\n    import pooch\n'
    assert list(bare_imports(ast.parse(bare))) == ["tqdm"]
    assert list(bare_imports(ast.parse(named))) == []


# ---- an installed copy, with torch, numpy and scipy and nothing else -------------------------------------------------
@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A folder with the package alone, as pip lays it among the packages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "convkit", folder / "convkit", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def alone(copy: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs the code in that folder, where no package of an extra can be imported."""
    command = [sys.executable, "-W", "error", "-c", BLOCK + code]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_every_module_imports_or_names_its_extra(copy):
    code = """
import importlib, pkgutil
import convkit
from convkit.loading import MissingExtraError
for module in pkgutil.walk_packages(convkit.__path__, "convkit."):
    try:
        importlib.import_module(module.name)
    except MissingExtraError as error:
        print(module.name, "|", error)
"""
    result = alone(copy, code)
    assert (result.returncode, result.stderr) == (0, "")
    told = dict(line.split(" | ") for line in result.stdout.splitlines())
    assert {name.split(".")[1] for name in told} == WHOLE
    assert len(set(told.values())) == len(WHOLE)
    for sentence in told.values():
        assert sentence.endswith('which is not installed: pip install "convkit[kit]"')


CALLS = {  # what somebody calls, and how the sentence begins and ends
    "load('digits')": ("the data set digits needs sklearn", '[kit]"'),
    "train()": ("training on handwritten digits needs sklearn", '[kit]"'),
    "mnist()": ("downloading mnist needs pooch", '[kit]", or name the folder that holds the files'),
    "autoattack(flat, images, labels, 0.1)": ("autoattack needs pyautoattack", '[attacks]"'),
    "show(None, 'a figure')": ("convkit.teaching.show needs IPython", '[kit]"'),
}


@pytest.mark.slow
def test_what_needs_an_extra_says_so_when_it_is_called(copy):
    code = f"""
import torch
from convkit.attacks import autoattack
from convkit.data import load, mnist
from convkit.loading import MissingExtraError
from convkit.teaching import show
from convkit.data.trained import train
flat, images, labels = torch.nn.Flatten(), torch.rand(1, 1, 2, 2), torch.zeros(1, dtype=torch.long)
for call in {list(CALLS)!r}:
    try:
        eval(call)
    except MissingExtraError as error:
        print(call, "|", error)
"""
    result = alone(copy, code)
    assert result.returncode == 0, result.stderr
    told = dict(line.split(" | ") for line in result.stdout.splitlines())
    for call, (begins, ends) in CALLS.items():
        assert told[call] == f'{begins}, which is not installed: pip install "convkit{ends}'


@pytest.mark.slow
def test_training_and_attacks_run_without_any_extra(copy):
    code = """
from functools import partial
from convkit.attacks import fgsm, robust_accuracy
from convkit.data import shapes
from convkit.methods import network
from convkit.training import fit
data = shapes(64, 16)
model = network("cnn9", data, "sphere", seed=0, widths=(4, 4, 4))
for record in fit(model, data, "sphere", steps=2, seed=0, batch_size=16):
    pass
found = robust_accuracy(model.eval(), [data.train_batch(range(8))], partial(fgsm, eps=0.01))
print(record.step, found.images)
"""
    result = alone(copy, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["2", "8"]


# ---- its commands ----------------------------------------------------------------------------------------------------
def command(copy: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return alone(copy, f"{before}\nimport convkit.__main__ as commands\nsys.exit(commands.main({list(arguments)!r}))")


def test_commands_that_need_the_repository_say_so(copy):
    every = "import convkit.__main__ as commands\nfor name in ('lab', 'test', 'build', 'setup'):\n"
    result = alone(copy, every + "    print(name, commands.main([name]), file=sys.stderr)")
    assert (result.returncode, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[1::2] == ["lab 1", "test 1", "build 1", "setup 1"]
    for sentence, code in zip(lines[::2], lines[1::2], strict=True):
        assert sentence.startswith(f"convkit: `{code.split()[0]}` needs the repository")
    assert not (copy / ".venv").exists()


@pytest.mark.slow
def test_bench_runs_without_a_bar_and_says_before_it_measures_that_it_cannot_draw(copy):
    small = """
import convkit.bench.timing as bench
from convkit.bench.case import Case
bench.cases = lambda device, quick: iter([Case("a question", "a case", lambda: 1, {"another": lambda: 2})])
bench.growth = lambda *_: {}
bench.main(["--quick", "--json", "numbers.json"])
"""
    result = command(copy, "bench", "--quick", "--plot", "picture.png", before=small)
    assert result.returncode == 2
    assert result.stdout.count("a question: a case") == 1
    assert (copy / "numbers.json").exists()
    assert result.stderr.splitlines()[-1].endswith(
        '--plot cannot draw here: convkit.plots needs matplotlib, which is not installed: pip install "convkit[kit]"'
    )


@pytest.mark.slow
def test_experiments_are_listed_and_leave_their_results_where_one_stands(copy):
    toys = """
import convkit.papers.command as command
from convkit.data import digits
from convkit.papers.runs import experiment
experiment("toy", "a toy", 0, lambda results: "shown")(lambda runs: {"rows": [1]})
experiment("written", "needs digits", 0, str)(lambda runs: digits())
assert [command.main(words) for words in ([], ["toy"])] == [0, 0]
"""
    result = command(copy, "papers", "written", before=toys)
    assert result.returncode == 1
    assert "written to " + str((copy / "toy.json").resolve()) in result.stdout
    assert (copy / "toy.json").exists()
    assert result.stderr.startswith("convkit papers: the data set digits needs sklearn")
    assert len(result.stderr.splitlines()) == 1
