"""What adversarial training minimizes: objectives for ``fit``, each a function of network, images and labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.attacks.checks import borrowed, gaussian, own_copy
from convkit.attacks.gradient import pgd
from convkit.checks import Registry, number, real, said, whole
from convkit.training.loop import cross_entropy
from convkit.training.run import Objective


@dataclass(frozen=True)
class PGDTraining:
    """PGD-AT: the cross-entropy of the images that ``pgd`` finds, ``CE(f(x'), y)`` (Madry et al. 2018).

    The attack sees the network in evaluation mode. The logits are those of ``x'``.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10

    def __post_init__(self) -> None:
        _make_plain(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(pgd(model, x, y, self.eps, self.step, self.steps))
        return F.cross_entropy(logits, y), logits


@dataclass(frozen=True)
class ALP:
    """Adversarial logit pairing: ``(CE(f(x), y) + CE(f(x'), y)) / 2 + weight |f(x) - f(x')|^2`` (Kannan et al. 2018).

    The square is the mean over images and classes, as Liang & Huang ran it. The network sees ``x``, then ``x'``; with
    ``joint`` both in one batch, as in ``TRADES``. The logits are those of ``x'``.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    weight: float = 1.0
    joint: bool = False

    def __post_init__(self) -> None:
        _make_plain(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        clean, attacked = _answers(model, x, pgd(model, x, y, self.eps, self.step, self.steps), self.joint)
        loss = (F.cross_entropy(clean, y) + F.cross_entropy(attacked, y)) / 2
        return loss + self.weight * F.mse_loss(clean, attacked), attacked


@dataclass(frozen=True)
class TRADES:
    """TRADES: ``CE(f(x), y) + beta KL(f(x) || f(x'))``, x' by ascent on that divergence (Zhang et al. 2019).

    The ascent begins at ``x + 0.001 N(0, 1)``, in evaluation mode, within ``eps`` in every pixel and in [0, 1]. The
    published beta is 6; Liang & Huang took 1. The logits are those of ``x``.

    The network then sees ``x`` and ``x'`` in two passes, as in Liang & Huang's code (Zhang et al. ask a second time
    about ``x``). So BatchNorm normalizes each of them by its own statistics, and its running ones take two steps, first
    to those of ``x``. With ``joint`` both are one batch: a single pass, normalized by the statistics of the mixture, to
    which the running ones take one step. Without such layers, and without noise, the two differ by rounding only.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    joint: bool = False

    def __post_init__(self) -> None:
        _make_plain(self, least=0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        at = _far_in_divergence(model, x, self.eps, self.step, self.steps)
        clean, attacked = _answers(model, x, at, self.joint)
        return F.cross_entropy(clean, y) + self.beta * _divergence(clean, attacked), clean


@dataclass
class _Noise:
    """What free training keeps from one replay to the next."""

    noise: Tensor | None = None
    replay: int = 0
    seen: Tensor | None = None


@dataclass(frozen=True)
class FreeTraining:
    """*Free* adversarial training: each batch ``replays`` times, weights and noise both step (Shafahi et al. 2019).

    One step of ``fit`` is one replay: ``CE(f(x + noise), y)``, whose gradient also moves the noise by ``eps`` along
    its sign, clipped at ``eps``. Between batches the noise is kept, as published; ``reset=True`` begins each batch at
    zero. It is saved with the run's checkpoint. Liu et al. take 4 replays.
    """

    eps: float = 8 / 255
    replays: int = 4
    reset: bool = False
    _kept: _Noise = field(default_factory=_Noise, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        eps, replays = number("eps", self.eps), whole("replays", self.replays)
        if replays < 1 or not eps >= 0:
            raise ValueError(
                f"needed at least 1 replay and eps of 0 or more, got {replays} and {eps}; 4 and 8/255 are usual"
            )
        for name, value in (("eps", eps), ("replays", replays), ("reset", bool(self.reset))):
            object.__setattr__(self, name, value)

    @property
    def noise(self) -> Tensor | None:
        """What is added to the images of the present batch."""
        return self._kept.noise

    @property
    def replay(self) -> int:
        """How many replays there were."""
        return self._kept.replay

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._move()
        kept = self._kept
        if kept.noise is None or kept.noise.shape != x.shape or (self.reset and kept.replay % self.replays == 0):
            kept.noise = torch.zeros_like(x)
        kept.noise = kept.noise.to(x)  # that of a checkpoint is on the CPU
        kept.replay += 1
        kept.seen = (x + kept.noise).clamp(0, 1).requires_grad_()
        logits = model(kept.seen)
        return F.cross_entropy(logits, y), logits

    def _move(self) -> None:
        """The noise's step, by the gradient that the last backward pass left on the images."""
        kept = self._kept
        if kept.seen is not None and kept.seen.grad is not None and kept.noise is not None:
            signs = kept.seen.grad.sign().nan_to_num()  # a gradient that float16 could not hold moves nothing
            kept.noise = (kept.noise + self.eps * signs).clamp(-self.eps, self.eps)
        kept.seen = None

    def state_dict(self) -> dict[str, Any]:
        self._move()
        return {"noise": self._kept.noise, "replay": self._kept.replay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        kept = self._kept
        kept.noise, kept.replay, kept.seen = state["noise"], int(state["replay"]), None


@dataclass(frozen=True)
class Goal:
    """An entry of ``OBJECTIVES``: what it is called, and ``make(eps)``, which returns an objective for one run."""

    words: str
    make: Callable[[float], Objective]


# attacks take 10 steps of eps / 4, as PGD-AT was published for 8/255
OBJECTIVES: Registry[Goal] = Registry("OBJECTIVES")
OBJECTIVES.register("clean", Goal("the images as they are", lambda eps: cross_entropy))
OBJECTIVES.register("free", Goal("free adversarial training", FreeTraining))
OBJECTIVES.register("pgd", Goal("PGD-AT", lambda eps: PGDTraining(eps, eps / 4)))
OBJECTIVES.register("alp", Goal("adversarial logit pairing", lambda eps: ALP(eps, eps / 4)))
OBJECTIVES.register("trades", Goal("TRADES", lambda eps: TRADES(eps, eps / 4)))


def get_objective(name: str, eps: float = 8 / 255) -> Objective:
    """The objective of this name in ``OBJECTIVES``, against changes of at most ``eps`` in every pixel.

    Attacks take 10 steps of ``eps / 4``; ``"clean"`` has none. A new one for each run, since ``"free"`` keeps its
    noise. Raises ``ValueError`` for an unknown name and for an ``eps`` outside [0, 1].
    """
    goal, size = OBJECTIVES[name], real(eps)
    if size is None or not 0 <= size <= 1:
        raise ValueError(f"eps must be from 0 to 1, a part of the way from black to white, got {said(eps)}")
    return goal.make(size)


def _make_plain(objective: Any, least: int = 1) -> None:
    """Make the numbers plain, since they become part of a checkpoint: ``repr(objective)`` says whose it is."""
    numbers = {"eps": number("eps", objective.eps, 0), "step": number("step", objective.step, 0)}
    numbers["steps"] = whole("steps", objective.steps, least)
    for name in ("weight", "beta"):
        if hasattr(objective, name):
            numbers[name] = number(name, getattr(objective, name))
    if hasattr(objective, "joint"):
        numbers["joint"] = bool(objective.joint)
    for name, value in numbers.items():
        object.__setattr__(objective, name, value)


def _answers(model: nn.Module, x: Tensor, at: Tensor, joint: bool) -> tuple[Tensor, Tensor]:
    """The logits of clean and of attacked images, by one pass or by two."""
    if joint:
        clean, attacked = model(torch.cat([x, at])).chunk(2)
        return clean, attacked
    return model(x), model(at)


def _far_in_divergence(model: nn.Module, x: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """Images within ``eps`` whose answers are far from those of ``x``, in evaluation mode."""
    with borrowed(model, x) as copy, torch.enable_grad():
        x = own_copy(x)
        with torch.no_grad():
            clean = copy(x.clone())  # a first step may be in place
        at = (x + 0.001 * gaussian(x, None)).clamp(0, 1)
        for _ in range(steps):
            at.requires_grad_()
            (slope,) = torch.autograd.grad(_divergence(clean, copy(at.clone())), at)
            at = at.detach() + step * slope.sign()
            at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
    return at.detach()


def _divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """``KL(softmax(clean) || softmax(attacked))``, the mean over images, with a gradient that is finite where it is.

    The derivative by a probability has its logarithm in it: where one has become 0, it is a constant here.
    """
    wide = torch.promote_types(clean.dtype, torch.float32)
    target = clean.softmax(1, dtype=wide).clamp_min(torch.finfo(wide).tiny)
    return F.kl_div(attacked.log_softmax(1, dtype=wide), target, reduction="batchmean")
