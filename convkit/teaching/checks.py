"""Checked claims, and exercises that are judged at once, with hints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Judge = Callable[[Any], str | None]
_wrong: dict[Judge, int] = {}  # judge -> how many wrong answers it has seen in this kernel


def check(claim: str, error: Any, tolerance: float) -> None:
    """Print ``✓ claim: error ≤ tolerance``, or raise ``AssertionError`` if the error is larger or NaN.

    Args:
        claim: A sentence.
        error: The size of the error, at least 0: a float, a 0-d tensor (with or without a gradient) or a 0-d array.
        tolerance: The largest error that is accepted.

    Raises ``TypeError`` for a bool (use ``check_that``) and ``ValueError`` for a negative error.
    """
    if isinstance(error, bool) or "bool" in str(getattr(error, "dtype", "")):
        raise TypeError(
            f"check({claim!r}) needs the size of an error, got a bool; use check_that(claim, holds) instead"
        )
    size = float(error.detach() if hasattr(error, "detach") else error)
    if size < 0:
        raise ValueError(f"check({claim!r}) needs an error of at least 0, got {size:g}; take its absolute value first")
    if not size <= tolerance:  # NaN is not <= anything
        raise AssertionError(f"{claim}: error {size:g} is not ≤ {tolerance:g}")
    print(f"✓ {claim}: error ≤ {tolerance:g}")


def check_that(claim: str, holds: Any) -> None:
    """Print ``✓ claim``, or raise ``AssertionError`` if it does not hold.

    Args:
        claim: A sentence.
        holds: A bool, a 0-d tensor or a 0-d array of bools.

    Raises ``TypeError`` for anything but a bool (use ``check`` for the size of an error).
    """
    if not (isinstance(holds, bool) or "bool" in str(getattr(holds, "dtype", ""))):
        raise TypeError(
            f"check_that({claim!r}) needs a bool, got {holds!r}; use check(claim, error, tolerance) instead"
        )
    if not bool(holds):
        raise AssertionError(f"{claim}: this does not hold")
    print(f"✓ {claim}")


class Feedback(BaseException):
    """Raised in a judge to end it at once with a sentence for the reader.

    It is no ``Exception``, so that it passes a judge's own ``except Exception``.

    Args:
        sentence: What is wrong with the answer.
        waiting: Whether the answer is still blank (``...``).
    """

    def __init__(self, sentence: str, waiting: bool = False) -> None:
        super().__init__(sentence)
        self.waiting = waiting


def _blank(answer: Any) -> bool:
    """Return whether an answer is ``...``, or contains it."""
    return answer is ... or (isinstance(answer, (tuple, list)) and any(map(_blank, answer)))


def _line(error: Exception) -> str:
    """Return an exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hints(*steps: str) -> Callable[[Judge], Judge]:
    """Return a decorator that attaches hints to a judge; each wrong answer shows the next hint.

    A hint points the way and never contains the answer; the folded solution does.

    Args:
        steps: The hints, in the order in which they are shown.
    """

    def attach(judge: Judge) -> Judge:
        judge.hints = steps  # pyright: ignore[reportFunctionMemberAccess]
        return judge

    return attach


def _hint(judge: Judge) -> str:
    """Return the line with the next hint of this judge; ``""`` for a judge without hints."""
    steps: tuple[str, ...] = getattr(judge, "hints", ())
    _wrong[judge] = _wrong.get(judge, 0) + 1
    place = min(_wrong[judge], len(steps))
    return f"\n  Hint {place} of {len(steps)}: {steps[place - 1]}" if steps else ""


def exercise(name: str, answer: Any, judge: Judge) -> None:
    """Print whether an answer is right (✓), wrong and why (✗), or still blank (○); never raise.

    A wrong answer also shows the judge's next hint (see ``hints``). If the answer is a function, an exception in it
    counts as a wrong answer and is printed as a sentence, and returning ``...`` counts as blank.

    Args:
        name: The name of the exercise.
        answer: What the reader wrote; ``...`` is a blank.
        judge: ``judge(answer)`` returns ``None`` for a right answer, else a sentence that says what is wrong. Those of
            the notebooks are in ``convkit.teaching.judges``.
    """
    waiting = f"○ {name}: replace the ... above by your answer, then run this cell again"

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            result = answer(*args, **kwargs)
        except Exception as error:
            # a blank inside a sum or a call: "unsupported operand type(s) for +: 'int' and 'ellipsis'"
            blank = "ellipsis" in str(error)
            raise Feedback(waiting if blank else f"your function raised {_line(error)}", blank) from None
        if _blank(result):
            raise Feedback(waiting, True)
        return result

    if _blank(answer):
        print(waiting)
        return
    is_function = callable(answer) and hasattr(answer, "__name__") and not isinstance(answer, type)
    try:
        sentence = judge(functools.wraps(answer)(watched) if is_function else answer)
    except Feedback as feedback:
        if feedback.waiting:
            print(waiting)
            return
        sentence = str(feedback)
    except Exception as error:
        sentence = f"this answer cannot be judged ({_line(error)})"
    print(f"✓ {name}" if sentence is None else f"✗ {name}: {sentence}{_hint(judge)}")
