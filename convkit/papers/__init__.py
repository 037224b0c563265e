"""The papers' tables and figures, as data and at several scales, and other experiments; they can be resumed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.papers.protocols import PAPERS as PAPERS
    from convkit.papers.runs import EXPERIMENTS as EXPERIMENTS
    from convkit.papers.scoreboard import claims as claims

PLACES = {"EXPERIMENTS": "runs", "PAPERS": "protocols", "claims": "scoreboard"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.runs").load_experiments()  # the rows register themselves
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
