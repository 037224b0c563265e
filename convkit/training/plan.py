"""`Plan`: the settings of a training run; `Record`: the result of one step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

import torch

from convkit.checks import number, plain, positive, seed_number, sequence, whole
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
    factor: float
    factor_steps: float | None
    decay_gains: bool


@dataclass(frozen=True)
class Plan:
    """The settings of a training run besides its network, data and method. A checkpoint belongs to one plan.

    Numbers of NumPy and 0-d tensors are converted to plain numbers.

    Args:
        steps: Number of optimizer steps.
        seed: Determines the batches and every random number of a step.
        batch_size: Images per step.
        schedule: ``"constant"``, ``"cosine"`` (to 0 at the end), ``"steps"`` (times 0.1 at each milestone) or
            ``"exponential"`` (times ``factor`` after every ``factor_steps`` steps).
        milestones: Parts of the run, in [0, 1], after which the schedule ``"steps"`` lowers the learning rate. Epoch 60
            of 200 is ``60 / 200``.
        reference_batch: The batch size for which the learning rate is meant: it is scaled in proportion to
            ``batch_size``. ``None`` leaves it as it is.
        augmentation: A name in ``AUGMENTATIONS``.
        evaluate_every: Number of steps between two test accuracies; 0 for none at all.
        measure_every: Number of steps between two measurements of the layers' norms; 0 for none at all.
        precision: ``"float32"``, or autocast to ``"bfloat16"`` or ``"float16"`` (with scaled gradients).
        record_every: Number of steps between two records. There is also one after the last step and after each that is
            evaluated or measured. A GPU is waited for at a record alone, and divergence is noticed there.
        factor, factor_steps: Of the schedule ``"exponential"``. The number of steps may be a fraction.
        decay_gains: Whether weight decay also acts on biases and gains, as in the code of Liu et al. 2021.

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
    factor: float = 0.95
    factor_steps: float | None = None
    decay_gains: bool = False

    @classmethod
    def of(
        cls,
        images: int,
        *,
        steps: int | None = None,
        epochs: float | None = None,
        factor_epochs: float | None = None,
        **options: Any,
    ) -> "Plan":
        """Return a plan for so many training images, whose numbers of steps may be given as epochs.

        An epoch is ``images / batch_size`` steps, and a replay of free adversarial training counts as a step.

        Args:
            images: Number of training images.
            steps, epochs: Number of optimizer steps, or how often all images are shown, which is rounded to steps.
            factor_epochs: In place of ``factor_steps``, the number of epochs.
            options: The other fields.

        >>> Plan.of(50_000, epochs=90, batch_size=128, schedule="exponential", factor_epochs=2).steps
        35156
        """
        if (steps is None) == (epochs is None):
            raise ValueError(f"give either steps or epochs, got steps={steps!r} and epochs={epochs!r}")
        per_epoch = images / max(1, whole("batch_size", options.get("batch_size", cls.batch_size)))
        if epochs is not None:
            steps = max(1, round(positive("epochs", epochs) * per_epoch))
        if factor_epochs is not None:
            options["factor_steps"] = positive("factor_epochs", factor_epochs) * per_epoch
        return cls(cast(int, steps), **options)

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
        if self.factor_steps is not None:
            own["factor_steps"] = positive("factor_steps", self.factor_steps)
        own |= {"factor": positive("factor", self.factor), "decay_gains": bool(self.decay_gains)}
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
            ("schedule", self.schedule, ("constant", "cosine", "steps", "exponential")),
            ("precision", self.precision, tuple(PRECISIONS)),
        ):
            if value not in possible:
                raise ValueError(f"{name} must be one of {', '.join(possible)}, got {value!r}")
        if self.schedule == "exponential" and self.factor_steps is None:
            raise ValueError(
                "the schedule 'exponential' needs factor_steps or factor_epochs, the number of steps or epochs between "
                f"two changes by the factor {self.factor:g}"
            )
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
        if self.schedule == "exponential" and self.factor_steps is not None:
            return scale * self.factor ** (step // self.factor_steps)
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
