"""What a run of training is meant to do, and what each of its steps did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from convkit.checks import number, plain, seed_number, sequence, whole
from convkit.data.augmentation import augment
from convkit.data.dataset import Data

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """What a run is besides its network, data and method; a checkpoint belongs to one plan.

    Numbers of any kind (NumPy's, 0-d tensors) are made plain; ``ValueError`` for what is none, NaN and infinity.
    """

    steps: int
    seed: int = 0
    batch_size: int = 64
    schedule: str = "cosine"
    milestones: Sequence[float] = (0.5, 0.75)
    reference_batch: float | None = None
    augmentation: str = "none"
    evaluate_every: int = 0
    measure_every: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        made: dict[str, Any] = {name: plain(getattr(self, name)) for name in ("schedule", "augmentation", "precision")}
        made |= {"steps": whole("steps", self.steps, floats=True), "seed": seed_number(self.seed)}
        made["batch_size"] = whole("batch_size", self.batch_size)
        made |= {name: whole(name, getattr(self, name), 0, floats=True) for name in ("evaluate_every", "measure_every")}
        parts = sequence("milestones", self.milestones)
        remedy = ": a part of the run, as 0.5 for its half"
        made["milestones"] = tuple(number("each of milestones", part, 0, 1, remedy) for part in parts)
        if self.reference_batch is not None:
            made["reference_batch"] = number("reference_batch", self.reference_batch)
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def check(self, data: Data) -> None:
        """``ValueError`` for a plan that cannot be carried out on the data."""
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 1 <= self.batch_size <= len(data):
            raise ValueError(
                f"batch_size must be from 1 to the {len(data)} training images of {data.name}, got {self.batch_size}"
            )
        for name, value, possible in (
            ("schedule", self.schedule, ("constant", "cosine", "steps")),
            ("precision", self.precision, tuple(PRECISIONS)),
        ):
            if value not in possible:
                raise ValueError(f"{name} must be one of {', '.join(possible)}, got {value!r}")
        if self.reference_batch is not None and self.reference_batch < 1:
            raise ValueError(
                f"reference_batch must be a batch size, at least 1, got {self.reference_batch}; 128 is usual"
            )
        augment(self.augmentation)

    def rate(self, step: int) -> float:
        """What the learning rate is multiplied by at a step, counted from 0."""
        scale = 1.0 if self.reference_batch is None else self.batch_size / self.reference_batch
        part = step / self.steps
        if self.schedule == "cosine":
            return scale * (1 + math.cos(math.pi * part)) / 2
        if self.schedule == "steps":
            return scale * 0.1 ** sum(part >= milestone for milestone in self.milestones)
        return scale


@dataclass(frozen=True)
class Record:
    """What one step did: ``loss`` and ``accuracy`` are those of its batch, before the step.

    ``test_accuracy``, ``norms`` and ``conditions`` are those after the step, or ``None`` where they were not asked for.
    ``norms`` holds the norm 2 of each layer's torus (the layer's own for circular ones, else an upper bound),
    ``conditions`` the median condition number of its channels there; BatchNorm and scales behind a layer are not in
    them. ``diverged`` says why the run ended early, else it is ``None``. ``seconds`` were spent in this run's steps.
    """

    step: int
    loss: float
    accuracy: float
    lr: float
    test_accuracy: float | None = None
    norms: dict[str, float] | None = None
    conditions: dict[str, float] | None = None
    diverged: str | None = None
    seconds: float = field(default=0.0, compare=False)
