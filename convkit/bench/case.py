"""`Case`: one line of the benchmark, and what its baselines take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convkit.operators.operator import ConvOperator

Task = Callable[[], Any]


@dataclass
class Case:
    """A case of the benchmark: an operation, our implementation, and the baselines.

    ``targets`` holds, by the name of a baseline, how many times faster than it ours should be; ``limit`` says what
    keeps ours from being faster, for the table of a run that misses a target.
    """

    question: str
    inputs: str
    ours: Task
    baselines: dict[str, Task]
    targets: Mapping[str, float] = field(default_factory=dict)
    limit: str = ""


def numpy_kernel(A: ConvOperator) -> np.ndarray:
    return A.kernel.detach().cpu().permute(2, 3, 0, 1).numpy()
