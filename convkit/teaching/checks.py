"""Checked claims, and exercises that are judged at once and helped on by hints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Judge = Callable[[Any], str | None]
_wrong: dict[Judge, int] = {}  # judge -> how many wrong answers it has seen in this kernel


def check(claim: str, error: Any, tolerance: float) -> None:
    """Print ``✓ claim: error ≤ tolerance``, or raise ``AssertionError`` when ``error`` is larger or NaN.

    ``error`` is a number of any kind (float, 0-d tensor, 0-d array) that measures a distance. A tensor may need a
    gradient: only its value counts.
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
    """Print ``✓ claim``, or raise ``AssertionError`` when ``holds`` is not true."""
    if not (isinstance(holds, bool) or "bool" in str(getattr(holds, "dtype", ""))):
        raise TypeError(
            f"check_that({claim!r}) needs a bool, got {holds!r}; use check(claim, error, tolerance) instead"
        )
    if not bool(holds):
        raise AssertionError(f"{claim}: this does not hold")
    print(f"✓ {claim}")


class Told(BaseException):
    """Raised in a judge: leaves it at once, past its own ``except Exception``, with the sentence for the reader.

    ``waiting`` where the answer is not given yet.
    """

    def __init__(self, sentence: str, waiting: bool = False) -> None:
        super().__init__(sentence)
        self.waiting = waiting


def _blank(answer: Any) -> bool:
    return answer is ... or (isinstance(answer, (tuple, list)) and any(map(_blank, answer)))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hints(*steps: str) -> Callable[[Judge], Judge]:
    """Attach hints to a judge: the first wrong answer brings the first one, the next wrong answer the next one.

    A hint points the way and never holds the answer; the folded solution has that.
    """

    def attach(judge: Judge) -> Judge:
        judge.hints = steps  # pyright: ignore[reportFunctionMemberAccess]
        return judge

    return attach


def _hint(judge: Judge) -> str:
    """The line with the next hint of this judge, or nothing where it has none."""
    steps: tuple[str, ...] = getattr(judge, "hints", ())
    _wrong[judge] = _wrong.get(judge, 0) + 1
    place = min(_wrong[judge], len(steps))
    return f"\n  Hint {place} of {len(steps)}: {steps[place - 1]}" if steps else ""


def exercise(name: str, answer: Any, judge: Judge) -> None:
    """Print whether ``answer`` is right (✓), wrong and why (✗), or not given yet (○); never raise.

    ``judge(answer)`` returns None for a right answer, else one sentence that says what is wrong; below it stands the
    judge's next hint (see `hints`). An answer that is a function reaches the judge wrapped: what it raises is told as
    a sentence, and returning ``...`` counts as not given. The judges of the notebooks are in `convkit.teaching.judges`.
    """
    waiting = f"○ {name}: replace the ... above by your answer, then run this cell again"

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            result = answer(*args, **kwargs)
        except Exception as error:
            # a blank inside a sum or a call: "unsupported operand type(s) for +: 'int' and 'ellipsis'"
            blank = "ellipsis" in str(error)
            raise Told(waiting if blank else f"your function raised {_line(error)}", blank) from None
        if _blank(result):
            raise Told(waiting, True)
        return result

    if _blank(answer):
        print(waiting)
        return
    is_function = callable(answer) and hasattr(answer, "__name__") and not isinstance(answer, type)
    try:
        sentence = judge(functools.wraps(answer)(watched) if is_function else answer)
    except Told as told:
        if told.waiting:
            print(waiting)
            return
        sentence = str(told)
    except Exception as error:
        sentence = f"this answer cannot be judged ({_line(error)})"
    print(f"✓ {name}" if sentence is None else f"✗ {name}: {sentence}{_hint(judge)}")
