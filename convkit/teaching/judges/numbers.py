"""Conversion of a reader's answer to finite numbers; anything else ends the judge with one sentence."""

from __future__ import annotations

import reprlib
from numbers import Number, Real
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from convkit.teaching.checks import Feedback


def number(answer: Any, wanted: str = "one number") -> float:
    """Return the answer as a finite float: a real number of Python, NumPy or torch, or an array of one entry.

    ``wanted`` says what is asked for. Anything else (text, True, NaN, infinity, several numbers, complex ones, ...)
    ends the judge, and `exercise` prints "✗ name: this needs {wanted}, got ...".
    """
    found = _read(answer)
    if found is None or found.numel() != 1 or not found.isfinite().all():
        _refuse(answer, wanted)
    return found.item()


def whole(answer: Any, wanted: str = "one whole number") -> int:
    """Return the answer as an int: 3 and 3.0 are whole numbers, 2.5 is not."""
    found = number(answer, wanted)
    if found != round(found):
        _refuse(answer, wanted)
    return round(found)


def array(answer: Any, wanted: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return the answer as a float64 tensor of finite numbers: a tensor, an array, or nested lists and tuples.

    With ``shape`` nothing else is taken; a pair has shape ``(2,)``.
    """
    found = _read(answer)
    if found is None or not found.isfinite().all() or shape not in (None, tuple(found.shape)):
        _refuse(answer, wanted)
    return found


def _read(answer: Any) -> Tensor | None:
    """Return real numbers as a float64 tensor; ``None`` for text, booleans, sets, complex numbers and ragged lists."""
    if isinstance(answer, Tensor):
        return None if answer.dtype == torch.bool or answer.is_complex() else answer.detach().cpu().double().clone()
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if isinstance(answer, (list, tuple, range)):
        parts = [part for part in map(_read, answer) if part is not None]
        even = len(parts) == len(answer) and len({part.shape for part in parts}) == 1
        return torch.stack(parts) if even else None
    if isinstance(answer, Real) and not isinstance(answer, (bool, np.bool_)):
        try:
            return torch.tensor(float(answer), dtype=torch.float64)
        except OverflowError:
            return None
    return None


def _refuse(answer: Any, wanted: str) -> NoReturn:
    """End the judge with a sentence that says what is needed and what came."""
    raise Feedback(f"this needs {wanted}, got {_named(answer)}")


def _named(answer: Any) -> str:
    """Return a few words that describe the answer."""
    if isinstance(answer, str):
        return f"the text {reprlib.repr(answer)}"
    shape = getattr(answer, "shape", None)
    if shape is not None and tuple(shape):
        kind = "complex numbers" if "complex" in str(answer.dtype) else str(answer.dtype).removeprefix("torch.")
        found = _read(answer)
        kind += " with NaN or infinity" if found is not None and not found.isfinite().all() else ""
        return f"an array of shape {tuple(shape)} ({kind})"
    if shape is not None:
        answer = answer.item()
    if answer is None or isinstance(answer, (Number, list, tuple, range, set, dict)):
        return " ".join(reprlib.repr(answer).split())
    return "a function" if callable(answer) else f"an object of type {type(answer).__name__}"
