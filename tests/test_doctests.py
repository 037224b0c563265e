"""The examples in the docstrings print what they say, and every name that needs an example has one."""

import ast
import doctest
import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tests import ROOT

FACES = ("convkit", *(f"convkit.{name}" for name in ("normalization", "constraints", "penalties", "audit", "attacks")))
PATHS = sorted((ROOT / "convkit").rglob("*.py"))
WITH_EXAMPLES = [path for path in PATHS if ">>> " in path.read_text("utf-8")]
KNOWN = {  # in every example
    "torch": torch,
    "nn": nn,
    **{name: getattr(module, name) for module in map(import_module, FACES) for name in module.__all__},
}


def module_of(path: Path) -> ModuleType:
    """Return the module of a file."""
    return import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def documented_values(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the names of a module's values with a docstring below them, which Python itself does not keep."""
    body = ast.parse(inspect.getsource(module)).body
    for node, below in pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and isinstance(below.value, ast.Constant):
                yield target.id, str(below.value.value)


def examples(module: ModuleType) -> Iterator[doctest.DocTest]:
    """Yield the examples of a module, one test per docstring."""
    names = KNOWN | vars(module)
    yield from doctest.DocTestFinder(exclude_empty=True).find(module, globs=names)
    for name, text in documented_values(module):
        yield doctest.DocTestParser().get_doctest(text, dict(names), f"{module.__name__}.{name}", None, None)


def doc_of(name: str, value: object) -> str:
    """Return the docstring of an exported name: a function, a class, or a value with a docstring below it."""
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__doc__ or ""
    modules = map(module_of, WITH_EXAMPLES)
    return next((text for module in modules for found, text in documented_values(module) if found == name), "")


@pytest.fixture(autouse=True)
def _printing() -> Iterator[None]:
    """Print tensors as torch does by default, and leave the random state and what else an example sets as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.set_printoptions(profile="default")
        yield
        torch.set_printoptions(profile="default")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_print_what_the_docstrings_say(path: Path) -> None:
    for test in examples(module_of(path)):
        written: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(test, out=written.append)
        assert not written, "".join(written)


@pytest.mark.parametrize("face", FACES)
def test_each_exported_name_has_a_short_example(face: str) -> None:
    module = import_module(face)
    for name in module.__all__:
        if name != "__version__":
            lines = doc_of(name, getattr(module, name)).splitlines()
            starts = [number for number, line in enumerate(lines) if line.strip().startswith(">>> ")]
            assert starts, f"{face}.{name} has no example"
            assert len([line for line in lines[starts[0] :] if line.strip()]) <= 6, f"the example of {name} is long"
