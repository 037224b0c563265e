"""What the command knows of an experiment, and how its numbers are kept."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Experiment:
    """A table or figure by name: ``run(folder, keep)`` gives what its file of results holds, ``show`` says it in words.

    ``folder`` is where the reader has the data, for data that is not in the kit; ``keep`` is the file of finished runs.
    """

    words: str
    minutes: float  # on two cores
    run: Callable[[str | None, Path], dict[str, Any]]
    show: Callable[[dict[str, Any]], str]
    needs_folder: bool = False


def short(value: float | Tensor, digits: int = 4) -> float:
    """The number with so many digits: files of results are small, and say no more than their spread allows."""
    return float(f"{float(value):.{digits}g}")


def rounded(value: Any) -> Any:
    """As JSON holds it: four digits, and ``None`` for a number that is not finite."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, Tensor):
        return rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return (short(value) if math.isfinite(value) else None) if isinstance(value, float) else value


def percents(values: Sequence[float | None], mean: bool = False) -> str:
    """Accuracies of several seeds in percent, and their mean if asked and none was lost (``None``)."""
    text = " ".join(" lost" if value is None else f"{100 * value:5.1f}" for value in values)
    kept = [value for value in values if value is not None]
    return f"{text}   mean {100 * statistics.mean(kept):5.1f}" if mean and len(kept) == len(values) else text
