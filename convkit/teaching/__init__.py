"""What a notebook says to its reader: checked claims, judged exercises, described pictures, and outputs built once."""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "checks": ("check", "check_that", "exercise", "hints"),
    "notebooks": ("build", "execute", "read_notebook", "stored"),
    "pictures": ("show",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["build", "check", "check_that", "execute", "exercise", "hints", "read_notebook", "show", "stored"]

if TYPE_CHECKING:  # editors read this; at run time a name is loaded on first use
    from convkit.teaching.checks import check, check_that, exercise, hints
    from convkit.teaching.notebooks import build, execute, read_notebook, stored
    from convkit.teaching.pictures import show


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'convkit.teaching' has no attribute {name!r}")
    return getattr(import_module(f"convkit.teaching.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
