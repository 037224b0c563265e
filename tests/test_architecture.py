"""Imports go down the list of rooms, the theory needs torch, numpy and scipy alone, and names load on first use."""

import ast
import functools
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import convkit
from tests import ROOT

# A room is a file or a folder of the package. It imports only from rooms that stand above it.
LAYERS = {
    "ground": ("checks", "loading", "randomness", "provenance", "statistics"),
    "object": ("operators",),
    "engine": ("engine",),
    "theory": ("spectra", "norms", "bounds", "projections"),
    "steering": ("normalization", "constraints", "penalties", "audit"),
    "networks": ("attacks", "robustness", "data", "models", "methods", "training", "papers"),
    "looking": ("plots", "teaching", "widgets"),
    "doors": ("bench", "commands", "__main__"),
}
ORDER = [name for names in LAYERS.values() for name in names]
PURE = [name for layer in ("ground", "object", "engine", "theory", "steering") for name in LAYERS[layer]]
CORE = ORDER[ORDER.index("operators") : ORDER.index("audit") + 1]
OPTIONAL = {"engine": {"threadpoolctl"}, "loading": {"tqdm"}}  # without them: one worker, no progress bar
MOST_ROOMS, MOST_DEPTH = 30, 12
MOST_LINES = {"core": 6_600, "package": 25_000}
MOST_TESTS = 1.15  # lines of tests for a line of the package
BESIDE = (
    "architecture",
    "bad_questions",
    "checks",
    "derivatives",
    "leading",
    "peers_cases",
    "statements",
    "torus",
)  # tests of more than one room
LIBRARY_TESTS = [  # these run where only torch, numpy, scipy, pytest and hypothesis are installed
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if path.parent.name in CORE or (path.parent.name == "tests" and path.stem.removeprefix("test_") in (*CORE, *BESIDE))
]
ABSENT = ["matplotlib", "ipywidgets", "sklearn", "jupyterlab", "IPython", "nbval", "playwright", "tqdm", "pooch"]
ABSENT += ["threadpoolctl"]
FILES = {path.relative_to(ROOT / "convkit"): path for path in sorted((ROOT / "convkit").rglob("*.py"))}
MODULES = {path: file.read_text("utf-8") for path, file in FILES.items() if str(path) != "__init__.py"}
FACES = [path.parent for path, source in MODULES.items() if path.name == "__init__.py" and "face(" in source]


def room(path: Path) -> str:
    """The room that a file belongs to: its own name, or that of its folder."""
    return path.parts[0].removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports when it runs, by its full name; a relative import begins with a dot."""
    tree = ast.parse(source)
    listed = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    apart = {inner for node in listed for inner in ast.walk(node)}  # the names of a face, loaded on first use
    for node in ast.walk(tree):
        if node in apart:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def upward_imports(name: str, source: str) -> list[str]:
    """The imports of this package that the room ``name`` must not have: the root, relative ones, those below it."""
    allowed = {f"convkit.{other}" for other in ORDER[: ORDER.index(name) + 1]}
    ours = [module for module in imports(source) if module.split(".")[0] in ("convkit", "")]
    return [module for module in ours if ".".join(module.split(".")[:2]) not in allowed]


def through_faces(source: str) -> list[str]:
    """The imports that take a name from the face of a folder instead of the module that defines it."""
    folders = {".".join(("convkit", *path.parent.parts)) for path in FILES if path.name == "__init__.py"}
    return [
        f"from {node.module} import {alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module in folders
        for alias in node.names
        if f"{node.module}.{alias.name}" not in folders
        and Path(*f"{node.module}.{alias.name}.py".split(".")[1:-1]).with_suffix(".py") not in FILES
        and alias.name not in defined(FILES[Path(*node.module.split(".")[1:], "__init__.py")].read_text("utf-8"))
    ]


def defined(source: str) -> set[str]:
    """The names that a source itself defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return names


def foreign_imports(source: str) -> set[str]:
    """The packages outside the standard library that a source imports."""
    return {module.split(".")[0] for module in imports(source)} - sys.stdlib_module_names - {"convkit", ""}


def lines_of_code(source: str) -> int:
    """Lines without docstrings, comments and blank lines."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                prose |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    kinds = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({n for t in tokens if t.type not in kinds for n in range(t.start[0], t.end[0] + 1)} - prose)


# ---- directions ----------------------------------------------------------------------------------------------------
def test_every_file_has_its_room_and_imports_only_from_rooms_above():
    assert {room(path) for path in MODULES} == set(ORDER)
    up = {str(path): found for path, source in MODULES.items() if (found := upward_imports(room(path), source))}
    assert not up


def test_no_file_imports_in_a_circle():
    names = {
        ".".join(("convkit", *path.with_suffix("").parts)).removesuffix(".__init__"): s for path, s in MODULES.items()
    }
    state: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != "open", f"a circle: {' -> '.join((*trail, name))}"
        if name in names and name not in state:
            state[name] = "open"
            for other in imports(names[name]):
                visit(other, (*trail, name))
            state[name] = "done"

    for name in names:
        visit(name, ())


def test_library_files_import_a_name_from_the_module_that_defines_it():
    found = {str(path): through_faces(source) for path, source in MODULES.items() if path.parent not in FACES}
    inside = {str(path): through_faces(source) for path, source in MODULES.items() if path.name != "__init__.py"}
    assert {path: names for path, names in (found | inside).items() if names and "__init__" not in path} == {}


def test_rooms_are_few_and_not_deep():
    entries = [path for path in (ROOT / "convkit").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ROOMS
    needs = {name: set() for name in ORDER}
    for path, source in MODULES.items():
        ours = (module.split(".")[1] for module in imports(source) if module.startswith("convkit."))
        needs[room(path)] |= set(ours) - {room(path)}

    @functools.cache
    def depth(name: str) -> int:
        return 1 + max(map(depth, needs[name]), default=0)

    assert max(map(depth, ORDER)) <= MOST_DEPTH


def test_core_package_and_tests_stay_small():
    lines = {path: lines_of_code(file.read_text("utf-8")) for path, file in FILES.items()}
    assert sum(count for path, count in lines.items() if room(path) in CORE) <= MOST_LINES["core"]
    assert sum(lines.values()) <= MOST_LINES["package"]
    equipment = ROOT / "tests" / "gpu"  # a pretended device, and measurements
    tests = [path for path in (ROOT / "tests").rglob("*.py") if not path.is_relative_to(equipment)]
    assert sum(lines_of_code(path.read_text("utf-8")) for path in tests) <= MOST_TESTS * sum(lines.values())


def test_theory_names_the_device_of_each_tensor_that_it_makes():  # the user's default device may be another
    makers = {"arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "tensor", "zeros"}
    rooms = {*LAYERS["object"], *LAYERS["engine"], *LAYERS["theory"], "penalties", "audit", "attacks", "robustness"}
    found = [
        f"{path}:{node.lineno}"
        for path, source in MODULES.items()
        if room(path) in rooms
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in makers}
        if not {keyword.arg for keyword in node.keywords} & {"device", None}
    ]
    assert not found


def test_theory_and_steering_need_torch_numpy_and_scipy_alone():
    for path, source in MODULES.items():
        if room(path) in PURE:
            assert foreign_imports(source) <= {"torch", "numpy", "scipy", *OPTIONAL.get(room(path), ())}, path


def test_only_the_widgets_import_ipywidgets():
    assert {room(path) for path, source in MODULES.items() if "ipywidgets" in foreign_imports(source)} == {"widgets"}


def test_the_checks_themselves_see_what_they_forbid():
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
    assert upward_imports("spectra", "from convkit.operators.operator import ConvOperator\nimport torch") == []
    assert upward_imports("widgets", "from convkit.widgets.panel import Panel") == []
    assert foreign_imports("import os\nfrom convkit.norms import x\nimport tqdm.auto") == {"tqdm"}
    assert through_faces("from convkit.operators import ConvOperator")
    assert not through_faces("from convkit.operators.operator import ConvOperator")
    assert lines_of_code('"""Two\nlines."""\n\n# one\nx = 1  # two\ny = """a\nb"""\n') == 3


# ---- faces ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", [Path(), *FACES], ids=lambda path: path.as_posix())
def test_every_name_of_a_face_is_what_its_module_defines_also_after_all_modules_are_loaded(folder):
    pytest.importorskip("matplotlib")
    package = ".".join(("convkit", *folder.parts))
    face = import_module(package)
    for path in MODULES:
        if path.parent == folder and path.name not in ("__init__.py", "__main__.py"):
            import_module(f"{package}.{path.stem}")
    names = [name for name in face.__all__ if name != "__version__"]
    assert names == sorted(set(names))
    assert set(names) <= set(dir(face))
    for name in names:
        value = getattr(face, name)
        assert not isinstance(value, ModuleType), f"{package}.{name} is the module, not what it defines"
        assert value is getattr(sys.modules.get(getattr(value, "__module__", package), face), name, value)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'spectral_norm'"):
        _ = face.spectral_norm


def test_every_public_name_of_the_theory_is_exported():
    for path, source in MODULES.items():
        if room(path) in LAYERS["theory"] and path.name != "__init__.py":
            assert {n for n in defined(source) if not n.startswith("_") and not n.isupper()} <= set(convkit.__all__)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_faces_load_neither_torch_nor_numpy():
    faces = [".".join(("convkit", *folder.parts)) for folder in FACES]
    code = f"""
import importlib, sys, convkit
for name in {faces!r}:
    if not name.startswith("convkit.widgets"):
        dir(importlib.import_module(name))
dir(convkit)
assert not {{"torch", "numpy", "scipy"}} & set(sys.modules)
from convkit import ConvOperator
assert "torch" in sys.modules
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_library_and_its_tests_load_where_nothing_else_is_installed():
    pure = [".".join(("convkit", *path.with_suffix("").parts)) for path in MODULES if room(path) in PURE]
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
