"""The judges of the exercises: what they accept, and what they say to a wrong answer."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

from convkit.teaching import exercise


def said(judge: Callable[[Any], str | None], answer: Any) -> str | None:
    """What a reader is told, without the hint below it: None for a right answer, "○" for one not given yet."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exercise("it", answer, judge)
    line = out.getvalue().splitlines()[0]
    if line == "✓ it":
        return None
    return "○" if line.startswith("○ it: ") else line.removeprefix("✗ it: ")


def spoken(judge: Callable[[Any], str | None], wrong: list[Any]) -> str:
    """Everything that a reader can be told on the way: the sentences for these wrong answers, and all hints."""
    return "\n".join([*(str(said(judge, answer)) for answer in wrong), *getattr(judge, "hints", ())])
