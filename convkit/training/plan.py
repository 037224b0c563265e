"""`Plan`: the settings of a training run; `Record`: the result of one step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch

from convkit.checks import number, plain, seed_number, sequence, whole
from convkit.data.augmentation import augment
from convkit.data.dataset import Data

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PlanOptions(TypedDict, total=False):
    """The fields of ``Plan`` besides ``steps``, as keyword arguments of ``fit``."""

    seed: int
    batch_size: int
    schedule: str
    milestones: Sequence[float]
    reference_batch: float | None
    augmentation: str
    evaluate_every: int
    measure_every: int
    precision: str
    record_every: int


@dataclass(frozen=True)
class Plan:
    """The settings of a training run besides its network, data and method. A checkpoint belongs to one plan.

    Numbers of NumPy and 0-d tensors are converted to plain numbers.

    Args:
        steps: Number of optimizer steps.
        seed: Determines the batches and every random number of a step.
        batch_size: Images per step.
        schedule: ``"constant"``, ``"cosine"`` (to 0 at the end) or ``"steps"`` (times 0.1 at each milestone).
        milestones: Parts of the run, in [0, 1], after which the schedule ``"steps"`` lowers the learning rate.
        reference_batch: The batch size for which the learning rate is meant: it is scaled in proportion to
            ``batch_size``. ``None`` leaves it as it is.
        augmentation: A name in ``AUGMENTATIONS``.
        evaluate_every: Number of steps between two test accuracies; 0 for none at all.
        measure_every: Number of steps between two measurements of the layers' norms; 0 for none at all.
        precision: ``"float32"``, or autocast to ``"bfloat16"`` or ``"float16"`` (with scaled gradients).
        record_every: Number of steps between two records. There is also one after the last step and after each that is
            evaluated or measured. A GPU is waited for at a record alone, and divergence is noticed there.

    Raises ``ValueError`` for a value that is not a number, is NaN or infinite, or is a fraction of a count.
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
    record_every: int = 1

    def __post_init__(self) -> None:
        own: dict[str, Any] = {name: plain(getattr(self, name)) for name in ("schedule", "augmentation", "precision")}
        own |= {"steps": whole("steps", self.steps, floats=True), "seed": seed_number(self.seed)}
        own["batch_size"] = whole("batch_size", self.batch_size)
        own |= {name: whole(name, getattr(self, name), 0, floats=True) for name in ("evaluate_every", "measure_every")}
        own["record_every"] = whole("record_every", self.record_every, 1, floats=True)
        fractions = sequence("milestones", self.milestones)
        remedy = ": a part of the run, as 0.5 for its half"
        own["milestones"] = tuple(number("each of milestones", part, 0, 1, remedy) for part in fractions)
        if self.reference_batch is not None:
            own["reference_batch"] = number("reference_batch", self.reference_batch)
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def check(self, data: Data) -> None:
        """Raise ``ValueError`` for a plan that cannot be carried out on the data."""
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
        augment(self.augmentation, data)

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0."""
        scale = 1.0 if self.reference_batch is None else self.batch_size / self.reference_batch
        part = step / self.steps
        if self.schedule == "cosine":
            return scale * (1 + math.cos(math.pi * part)) / 2
        if self.schedule == "steps":
            return scale * 0.1 ** sum(part >= milestone for milestone in self.milestones)
        return scale


@dataclass(frozen=True)
class Record:
    """The result of one training step: of each, or of every ``record_every``-th.

    Attributes:
        step: The number of the step, counted from 1.
        loss, accuracy: Loss and accuracy of the batch, before the step.
        lr: The learning rate.
        test_accuracy: Accuracy on the test images after the step; ``None`` if it was not measured.
        norms: For each layer, the operator norm on its torus after the step: the layer's own for circular padding, an
            upper bound for zero padding. BatchNorm and gains after the layer do not count. ``None`` if not measured.
        conditions: For each layer, the median condition number of its channels on the torus. ``None`` if not measured.
        diverged: Why the run ended early; ``None`` unless it did.
        seconds: Seconds spent in the steps of the run so far.
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
