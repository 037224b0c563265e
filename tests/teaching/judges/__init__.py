"""The judges of the exercises: what they accept, and what they say to a wrong answer."""

import contextlib
import io
import re
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
    """All that a reader can be told: the sentences for these wrong answers (without the answer), and all hints."""
    sentences = [str(said(judge, answer)).partition(", got ")[0] for answer in wrong]
    return "\n".join([*sentences, *getattr(judge, "hints", ())])


def shown(answer: Any) -> str:
    """A name for a test: the answer as Python writes it, without the place in memory that differs from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(answer))
