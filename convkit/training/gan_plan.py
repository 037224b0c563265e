"""`GanPlan`: the settings of a run of `fit_gan`; `GanRecord`: the result of one step."""

from dataclasses import dataclass, field
from typing import Any, TypedDict

from torch import Tensor

from convkit.checks import number, seed_number, whole


class GanOptions(TypedDict, total=False):
    """The fields of ``GanPlan`` besides ``steps``, as keyword arguments of ``fit_gan``."""

    seed: int
    batch_size: int
    schedule: str
    ema: float
    measure_every: int
    sample_every: int
    samples: int
    record_every: int


@dataclass(frozen=True)
class GanPlan:
    """The settings of a run besides its networks, data and method. A checkpoint belongs to one plan.

    Args:
        steps: Number of steps of the generator.
        seed: Determines the batches and every random number of a step.
        batch_size: Real and made images per step of the discriminator, and made images per step of the generator.
        schedule: ``"linear"`` (both rates fall to 0 at the end) or ``"constant"``.
        ema: The decay of the mean of the generator's weights; smaller in the first steps.
        measure_every: Number of steps between two measurements of the discriminator; 0 for none at all.
        sample_every: Number of steps between two records with samples; 0 for none at all.
        samples: Number of images of such a record, from the same z each time.
        record_every: Number of steps between two records. A GPU is waited for at a record alone, and divergence and
            collapse are noticed there.

    Raises ``ValueError`` for numbers that are out of range; a batch needs two images.
    """

    steps: int
    seed: int = 0
    batch_size: int = 64
    schedule: str = "linear"
    ema: float = 0.999
    measure_every: int = 0
    sample_every: int = 0
    samples: int = 64
    record_every: int = 1

    def __post_init__(self) -> None:
        own: dict[str, Any] = {"seed": seed_number(self.seed), "ema": number("ema", self.ema, 0, 1)}
        own |= {name: whole(name, getattr(self, name), 1) for name in ("steps", "samples", "record_every")}
        own |= {name: whole(name, getattr(self, name), 0) for name in ("measure_every", "sample_every")}
        advice = ": BatchNorm and the spread of the made images need two or more"
        own["batch_size"] = whole("batch_size", self.batch_size, 2, advice=advice)
        if self.schedule not in ("linear", "constant"):
            raise ValueError(f"schedule must be 'linear' or 'constant', got {self.schedule!r}")
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def rate(self, step: int) -> float:
        """Return the factor of the learning rates at a step, counted from 0."""
        return 1 - step / self.steps if self.schedule == "linear" else 1.0


@dataclass(frozen=True)
class GanRecord:
    """The result of one step of the generator.

    Attributes:
        step: The number of the step, counted from 1.
        loss: The generator's loss, minus the mean output of the discriminator for made images.
        discriminator_loss: The hinge loss of the discriminator's last batch: 2 for one that says 0, 0 for one that is
            right by a margin of 1 everywhere.
        real, made: The discriminator's mean outputs for that batch.
        spread: The standard deviation of made images over a batch, mean over the pixels, divided by that of real ones.
        lr: The generator's learning rate.
        norms: For each layer of the discriminator, the operator norm on its torus (see ``measure``); ``None`` if not
            measured.
        lipschitz: The discriminator's ``lipschitz_between`` real and made images; ``None`` if not measured.
        diverged: Why the run ended early; ``None`` unless it did.
        samples: Images of the averaged generator, if there is one, else of the generator; ``None`` unless asked for,
            and for steps that a checkpoint holds.
        seconds: Seconds spent in the steps of the run so far.
    """

    step: int
    loss: float
    discriminator_loss: float
    real: float
    made: float
    spread: float
    lr: float
    norms: dict[str, float] | None = None
    lipschitz: float | None = None
    diverged: str | None = None
    samples: Tensor | None = field(default=None, compare=False, repr=False)
    seconds: float = field(default=0.0, compare=False)
