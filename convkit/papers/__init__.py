"""The papers' tables and figures at small scale, as named experiments that can be interrupted and resumed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.papers.runs import EXPERIMENTS as EXPERIMENTS


def __getattr__(name: str) -> Any:
    if name == "EXPERIMENTS":  # loaded when it is first asked for
        return import_module(f"{__name__}.runs").load_experiments()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
