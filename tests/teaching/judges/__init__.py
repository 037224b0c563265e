"""Answers to the exercises of each notebook: what their judges take, and what they tell about the others."""

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

from convkit.teaching import exercise


class Case(NamedTuple):
    """An exercise: the key of a table {words: answers that are told these words}, with None for the right answers."""

    judge: Callable[[Any], str | None]
    needs: str = ""  # what the judge says it needs when it gets no numbers; empty if it does not ask for numbers alone
    secret: str = ""  # no sentence or hint may contain this


def said(judge: Callable[[Any], str | None], answer: Any) -> str | None:
    """What a reader is told, without the hint below it: None for a right answer, "○" for one not given yet."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exercise("it", answer, judge)
    line = out.getvalue().splitlines()[0]
    if line == "✓ it":
        return None
    return "○" if line.startswith("○ it: ") else line.removeprefix("✗ it: ")
