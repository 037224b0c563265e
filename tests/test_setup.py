"""The set-up needs nothing but Python, says so to an old one, and asks for the same versions everywhere."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import convkit
import convkit.__main__ as commands
from tests import ROOT


# ---- nothing but Python ----------------------------------------------------------------------------------------------
def bare_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without any installed package (-S), in the clone."""
    command = [sys.executable, "-S", "-E", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


BOOTSTRAP = ("convkit.commands.environment", "convkit.loading")


def test_the_bootstrap_imports_the_standard_library_alone():
    for name in ("convkit.__init__", "convkit.__main__", *BOOTSTRAP):
        tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in tree.body:  # at the top; the functions that run in .venv may import more
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.split(".")[0] in sys.stdlib_module_names or module in BOOTSTRAP


def test_the_usage_comes_without_torch_and_lists_every_command():
    result = bare_python("-m", "convkit", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert listed == [name for name in commands.COMMANDS if name != "experiments"]  # an older name of `papers`
    assert bare_python("-m", "convkit").stdout == result.stdout
    assert bare_python("-m", "convkit", "lab", "--help").stdout == result.stdout
    result = bare_python("-m", "convkit", "labb")
    assert (result.returncode, result.stdout) == (2, "")
    assert "no command 'labb'" in result.stderr
    assert result.stderr.endswith(commands.USAGE)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.10"])
def test_an_old_python_is_told_which_one_is_needed(version):
    numbers = (*map(int, version.split(".")), 0, "final", 0)
    run = f"import sys, runpy; sys.version_info = {numbers}; runpy.run_module('convkit', run_name='__main__')"
    result = bare_python("-c", run)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"Python 3.11 or newer is needed and this is {version}:" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_an_old_python_reads_before_that_is_within_its_grammar():
    for name in ("__init__", "__main__"):
        source = (ROOT / "convkit" / f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(source, feature_version=(3, 6))
        assert "from __future__" not in source  # annotations: unknown to 3.6
        if name == "__init__":  # runs whole; in __main__ the check comes before the first function
            hints = [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            hints += [node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign)]
            for hint in filter(None, hints):
                assert isinstance(hint, ast.Name | ast.Constant), f"{ast.unparse(hint)} is evaluated by Python 3.8"
        else:
            check = next(number for number, node in enumerate(tree.body) if isinstance(node, ast.If))
            for node in tree.body[:check]:
                assert isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)
                assert not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("convkit")


# ---- versions --------------------------------------------------------------------------------------------------------
CONDA_NAMES = {"torch": "pytorch", "build": "python-build"}
BY_PIP = {"pyright", "playwright", "pyautoattack", "adversarial-robustness-toolbox"}  # in a conda environment, too


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def requirements(project) -> dict[str, SpecifierSet]:
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["kit"] + extras["test"]
    parsed = [Requirement(line) for line in lines]
    return {requirement.name: requirement.specifier for requirement in parsed if requirement.name != "convkit"}


def test_environment_yml_has_the_names_and_bounds_of_pyproject(project, requirements):
    yaml = pytest.importorskip("yaml")
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    *specs, last = conda["dependencies"]
    assert last == {"pip": ["-e .[test]"]}
    bounds = {name: SpecifierSet(bound) for name, _, bound in (spec.partition(" ") for spec in specs)}
    assert len(bounds) == len(specs)
    assert bounds.pop("python") == SpecifierSet(project["requires-python"])
    assert bounds.pop("pip") == SpecifierSet()
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in requirements.items() if name not in BY_PIP}
    assert bounds == expected


@pytest.mark.parametrize(
    "name, within, without",
    [
        ("torch", ["2.11.0", "2.13.0", "2.14.1", "3.0.0"], ["2.10.0"]),  # no upper bound: it would replace a user's own
        # Widgets must answer while a cell runs: 6.x has no subshells for that, 7.0 freezes widgets in threads,
        # 7.1 to 7.3 lose requests of a new kernel.
        ("ipykernel", ["7.4.0", "7.5.0"], ["6.31.0", "7.0.1", "7.3.0"]),
    ],
)
def test_the_pins_hold_and_are_met(requirements, name, within, without):
    assert all(version in requirements[name] for version in within)
    assert not any(version in requirements[name] for version in without)
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert installed.split("+")[0] in requirements[name]


def test_the_citation_names_this_version(project):
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"] == convkit.__version__
    assert [author["name"].lower() for author in citation["authors"]] == [one["name"] for one in project["authors"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Version {project['version']}" in readme
    assert citation["title"] in readme


def test_the_constraints_name_one_version_each_of_what_the_kit_requires(requirements):
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert len({pin.name for pin in pins}) == len(pins)
    assert "torch" in {pin.name for pin in pins}
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert version.version in requirements[pin.name]
        assert pin.marker
        for python, applies in (("3.11", True), ("3.14", True), ("3.15", False)):  # a newer Python has no such files
            assert pin.marker.evaluate({"python_version": python}) == applies
