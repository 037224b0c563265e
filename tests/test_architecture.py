"""Imports go down the layers, the theory needs torch, numpy and scipy alone, and the package loads on first use."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import convkit

ROOT = Path(__file__).parent.parent
# A file (or folder) imports only what stands above it.
LAYERS = {
    "object": ("checks", "dtypes", "geometry", "boundary", "modes", "randomness", "circulant", "operators"),
    "engine": ("fourier", "eigenvalues", "krylov"),
    "theory": ("spectra", "norms", "bounds", "projections"),
    "steering": (
        *("filters", "filtered_convolution", "parametrizations", "normalization", "conversion", "constraints"),
        *("penalties", "audit", "tracker", "product_bound"),
    ),
    "experiments": (
        *("extras", "trained", "augment", "data", "models", "attacks", "lipschitz", "constructions"),
        *("factories", "methods", "plan", "checkpoint", "running", "training", "adversarial", "sweeps"),
    ),
    "looking": ("plots", "teaching", "widgets"),
    "doors": ("rivals", "contests", "bench", "experiments", "environment", "__main__"),
}
ORDER = [name for names in LAYERS.values() for name in names]
PURE = {*LAYERS["object"], *LAYERS["engine"], *LAYERS["theory"], *LAYERS["steering"]}
OPTIONAL = {"eigenvalues": {"threadpoolctl"}}  # without it the CPU has one worker
LIBRARY_TESTS = [  # these run where only torch, numpy, scipy, pytest and hypothesis are installed
    f"tests/test_{name}.py"
    for name in (
        "architecture",
        "bad_input",
        "bad_questions",
        "audit",
        "bounds",
        "checks",
        "circulant",
        "clip_constraints",
        "constraints",
        "conversion",
        "convnorm",
        "convnorm_derivatives",
        "convnorm_evaluation",
        "engine",
        "layers",
        "leading",
        "norm_decay",
        "normalization",
        "norms",
        "operators",
        "optimizer_hooks",
        "papers",
        "parametrizations",
        "penalties",
        "product_bound",
        "projections",
        "spectra",
        "torus",
        "tracker",
    )
]
ABSENT = ["matplotlib", "ipywidgets", "sklearn", "jupyterlab", "IPython", "nbval", "playwright", "tqdm", "pooch"]
ABSENT += ["threadpoolctl"]
FILES = {path.relative_to(ROOT / "convkit"): path for path in sorted((ROOT / "convkit").rglob("*.py"))}
MODULES = {path: file for path, file in FILES.items() if str(path) != "__init__.py"}  # its names are tested below
modules = pytest.mark.parametrize("path", MODULES, ids=str)


def unit(path: Path) -> str:
    """The entry of the list that a file belongs to: its own name, or that of its folder."""
    return path.parts[0].removesuffix(".py")


def known(name: str) -> bool:
    """Whether the entry of the list exists yet."""
    return Path(f"{name}.py") in FILES


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports anywhere, by its full name; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def upward_imports(name: str, source: str) -> list[str]:
    """The imports of this package that the entry ``name`` must not have: the root, relative ones, those below it."""
    allowed = {f"convkit.{other}" for other in ORDER[: ORDER.index(name)]} | {f"convkit.{name}"}
    ours = [module for module in imports(source) if module.split(".")[0] in ("convkit", "")]
    return [module for module in ours if ".".join(module.split(".")[:2]) not in allowed]


def foreign_imports(source: str) -> set[str]:
    """The packages outside the standard library that a source imports."""
    return {module.split(".")[0] for module in imports(source)} - sys.stdlib_module_names - {"convkit", ""}


# ---- directions ----------------------------------------------------------------------------------------------------
@modules
def test_every_file_has_its_place_and_imports_only_files_above_it(path):
    assert unit(path) in ORDER, f"{path} needs a place in the order of layers"
    assert upward_imports(unit(path), MODULES[path].read_text(encoding="utf-8")) == []


@modules
def test_theory_and_steering_need_torch_numpy_and_scipy_alone(path):
    if unit(path) in PURE:
        assert foreign_imports(MODULES[path].read_text(encoding="utf-8")) <= {
            *("torch", "numpy", "scipy"),
            *OPTIONAL.get(unit(path), ()),
        }


@modules
def test_only_the_widgets_import_ipywidgets(path):
    if unit(path) != "widgets":
        assert "ipywidgets" not in foreign_imports(MODULES[path].read_text(encoding="utf-8"))


def test_the_check_itself_sees_what_it_forbids():
    forbidden = [
        "from convkit.norms import operator_norm",  # below spectra
        "def f():\n    import convkit.teaching",  # inside a function
        "from convkit import ConvOperator",  # the package root
        "import convkit",
        "from .operators import ConvOperator",
        "from . import operators",
    ]
    for source in forbidden:
        assert upward_imports("spectra", source), source
    assert upward_imports("spectra", "from convkit.operators import ConvOperator\nimport torch") == []
    assert upward_imports("widgets", "from convkit.widgets.panel import Panel") == []
    assert foreign_imports("import os\nfrom convkit.norms import x\nimport tqdm.auto") == {"tqdm"}


# ---- the package root ----------------------------------------------------------------------------------------------
def test_every_exported_name_is_the_defining_modules_also_after_that_is_imported():
    homes = [import_module(f"convkit.{name}") for name in LAYERS["object"] + LAYERS["theory"] if known(name)]
    assert sorted(set(convkit.__all__)) == sorted(convkit.__all__)
    for name in set(convkit.__all__) - {"__version__"}:
        value = getattr(convkit, name)
        assert not isinstance(value, ModuleType), f"convkit.{name} is the module, not what it defines"
        assert value in [vars(home).get(name) for home in homes]


def test_every_public_name_of_operators_and_theory_is_exported():
    for name in ("operators", *LAYERS["theory"]):
        if known(name):
            tree = ast.parse(FILES[Path(f"{name}.py")].read_text(encoding="utf-8"))
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert {n for n in defined if not n.startswith("_")} <= set(convkit.__all__)


def test_dir_lists_every_name_and_an_unknown_one_is_an_attribute_error():
    assert set(convkit.__all__) <= set(dir(convkit))
    with pytest.raises(AttributeError, match="module 'convkit' has no attribute 'spectral_norm'"):
        _ = convkit.spectral_norm


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_package_alone_loads_neither_torch_nor_numpy():
    code = """
import sys, convkit
dir(convkit)
assert not {"torch", "numpy", "scipy"} & set(sys.modules)
from convkit import ConvOperator
assert "torch" in sys.modules
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_the_library_and_its_tests_load_where_nothing_else_is_installed():
    pure = [f"convkit.{unit(path)}" for path in MODULES if unit(path) in PURE]
    code = f"""
import importlib, os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
for name in {pure!r}:
    importlib.import_module(name)
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *{LIBRARY_TESTS!r}]))
"""
    result = python(code)
    assert result.returncode == 0, result.stdout + result.stderr
    for file in LIBRARY_TESTS:
        assert file in result.stdout
