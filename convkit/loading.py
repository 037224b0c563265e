"""Lazy loading: the names of a folder on first use, and optional packages with a sentence if they are missing."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CORE = {"convkit", "torch", "numpy", "scipy"}  # without these nothing runs, and Python's own message says enough


def face(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names are loaded on first use (PEP 562).

    The names are those that the package's ``__init__.py`` imports below ``if TYPE_CHECKING:``, where editors and type
    checkers read them.
    """
    module = sys.modules[package]
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    listed = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname or alias.name: str(node.module) for node in listed for alias in node.names}
    names = sorted({*homes, *(name for name in vars(module) if name == "__version__")})

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *names}), names


def require(extra: str, what: str, *packages: str) -> None:
    """Raise ``MissingExtraError`` if one of the packages is not installed, without importing any of them."""
    with needs(extra, what):
        for package in packages:
            if find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)


class MissingExtraError(ModuleNotFoundError):
    """Raised when a package is missing that an extra of convkit installs."""


def installed() -> bool:
    """Return whether convkit is installed in the Python that runs this."""
    return any(Path(sysconfig.get_path("purelib")).glob("convkit-*.dist-info"))


def pip_install(extra: str) -> str:
    """Return the command that adds an extra to this copy of convkit.

    A clone that is not installed is named by its folder, because the package index has another project of this name.
    """
    if (ROOT / "pyproject.toml").exists() and not installed():
        return f'pip install --editable "{ROOT}[{extra}]"'
    return f'pip install "convkit[{extra}]"'


@contextmanager
def needs(extra: str, what: str, otherwise: str = "") -> Iterator[None]:
    """Context manager in which an import that fails raises ``MissingExtraError``, which says how to install the
    package.

    ``with needs("kit", "convkit.plots"): import matplotlib``. ``otherwise`` names another way out than installing.
    """
    try:
        yield
    except MissingExtraError:
        raise  # the inner block has worded it
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in CORE:
            raise
        raise MissingExtraError(
            f"{what} needs {package}, which is not installed: {pip_install(extra)}{otherwise}", name=package
        ) from error


class _NoBar:
    """Stand-in for a progress bar where tqdm is not installed: it shows nothing."""

    def __init__(self, iterable: Any = (), **_: Any) -> None:
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self.iterable)

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *_: Any, **__: Any) -> None:
        pass

    set_postfix = set_postfix_str = update


def progress_bar(iterable: Any = None, **options: Any) -> Any:
    """Return ``tqdm(iterable, **options)``, or a stand-in that shows nothing if tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        return _NoBar(iterable, **options)
    return tqdm(iterable, **options)
