"""`OBJECTIVES`: what training against changed images minimizes, as objectives for ``fit``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.attacks.checks import borrowed, gaussian, own_copy
from convkit.attacks.gradient import Result, Start, check_result, check_start, pgd
from convkit.checks import Registry, described, number, real, whole
from convkit.training.loop import cross_entropy
from convkit.training.margin import Margin
from convkit.training.run import Objective

LATER = ("start", "result", "clamp_start", "through_clamp")  # options that older checkpoints do not know


class Words:
    """An objective whose ``repr``, by which checkpoints know it, shows the options in ``LATER`` only where changed."""

    def __repr__(self) -> str:
        known: Any = self
        shown = [f for f in fields(known) if f.repr and (f.name not in LATER or getattr(self, f.name) != f.default)]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


@dataclass(frozen=True, repr=False)
class PGDTraining(Words):
    """PGD adversarial training: the objective ``CE(f(x'), y)`` with ``x'`` found by ``pgd`` (Madry et al. 2018).

    The attack sees the network in evaluation mode. The logits that are returned are those of ``x'``.

    Args:
        eps: The largest change of a pixel; images are in [0, 1].
        step: Size of one step of the attack.
        steps: Number of steps of the attack.
        start: Where the attack begins: ``"uniform"``, ``"normal"`` (``x + 0.001 N(0, 1)``) or ``"clean"``; see ``pgd``.
        result: Whether ``x'`` is the ``"worst"`` image that the attack visits, for ``steps + 2`` passes through the
            network, or the ``"last"`` one, for ``steps``.

    Raises ``ValueError`` for numbers that are not in range.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    start: Start = "uniform"
    result: Result = "worst"

    def __post_init__(self) -> None:
        _make_plain(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(_attacked(self, model, x, y))
        return F.cross_entropy(logits, y), logits


@dataclass(frozen=True, repr=False)
class ALP(Words):
    """Adversarial logit pairing: ``(CE(f(x), y) + CE(f(x'), y)) / 2 + weight |f(x) - f(x')|^2`` (Kannan et al. 2018).

    The square is the mean over images and classes, as Liang & Huang 2021 ran it. The attack ``pgd`` finds ``x'`` and
    sees the network in evaluation mode. The logits that are returned are those of ``x'``.

    Args:
        eps: The largest change of a pixel; images are in [0, 1].
        step: Size of one step of the attack.
        steps: Number of steps of the attack.
        weight: Factor of the squared difference.
        joint: Whether the network sees ``x`` and ``x'`` in one batch instead of one after the other (see ``TRADES``).
        start, result: Where the attack begins and which image it returns (see ``PGDTraining``).

    Raises ``ValueError`` for numbers that are not in range.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    weight: float = 1.0
    joint: bool = False
    start: Start = "uniform"
    result: Result = "worst"

    def __post_init__(self) -> None:
        _make_plain(self)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        clean, attacked = _answers(model, x, _attacked(self, model, x, y), self.joint)
        loss = (F.cross_entropy(clean, y) + F.cross_entropy(attacked, y)) / 2
        return loss + self.weight * F.mse_loss(clean, attacked), attacked


@dataclass(frozen=True, repr=False)
class TRADES(Words):
    """TRADES: the objective ``CE(f(x), y) + beta KL(f(x) || f(x'))`` (Zhang et al. 2019).

    Gradient ascent on that divergence finds ``x'``: from ``x + 0.001 N(0, 1)``, in evaluation mode, within ``eps`` in
    every pixel and in [0, 1]. The logits that are returned are those of ``x``.

    By default the network sees ``x`` and ``x'`` one after the other, as in the code of Liang & Huang 2021 (that of
    Zhang et al. evaluates ``x`` twice). BatchNorm then normalizes each of them by its own statistics, and its running
    statistics take two steps, the first to those of ``x``. With ``joint`` both are one batch, normalized by the
    statistics of the mixture, to which the running ones take one step. Without BatchNorm and without noise the two
    differ by rounding alone.

    Args:
        eps: The largest change of a pixel; images are in [0, 1].
        step: Size of one step of the ascent.
        steps: Number of steps of the ascent.
        beta: Factor of the divergence; 6 as published, 1 in Liang & Huang 2021.
        joint: Whether the network sees ``x`` and ``x'`` in one batch.
        clamp_start: Whether the start is clamped to [0, 1]; in the code of both papers only the first step does that.

    Raises ``ValueError`` for numbers that are not in range.
    """

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    joint: bool = False
    clamp_start: bool = True

    def __post_init__(self) -> None:
        _make_plain(self, least=0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        at = _far_in_divergence(model, x, self.eps, self.step, self.steps, self.clamp_start)
        clean, attacked = _answers(model, x, at, self.joint)
        return F.cross_entropy(clean, y) + self.beta * _divergence(clean, attacked), clean


@dataclass
class _FreeState:
    """The state of free adversarial training between two replays; ``leaf`` gets the gradient that moves the noise."""

    noise: Tensor | None = None
    replay: int = 0
    leaf: Tensor | None = None


@dataclass(frozen=True, repr=False)
class FreeTraining(Words):
    """Free adversarial training: each batch is replayed, and noise and weights step together (Shafahi et al. 2019).

    One step of ``fit`` is one replay. It minimizes ``CE(f(x + noise), y)``, and the same gradient moves the noise by
    ``eps`` along its sign, clipped to [-eps, eps]. The next batch starts with the noise of the last one, as published.
    A checkpoint of the run holds the noise.

    Args:
        eps: The largest change of a pixel, and the step of the noise; images are in [0, 1].
        replays: Number of steps with the same batch; Liu et al. 2021 take 4.
        reset: Whether each batch starts with noise 0 instead.
        through_clamp: Whether the noise moves along the gradient with respect to itself, which is 0 for a pixel whose
            sum with it leaves [0, 1] and is clamped. By default it moves along the gradient with respect to the
            clamped image, which brings such a pixel back.

    Raises ``ValueError`` for numbers that are not in range.
    """

    eps: float = 8 / 255
    replays: int = 4
    reset: bool = False
    through_clamp: bool = False
    _state: _FreeState = field(default_factory=_FreeState, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        eps, replays = number("eps", self.eps), whole("replays", self.replays)
        if replays < 1 or not eps >= 0:
            raise ValueError(
                f"needed at least 1 replay and eps of 0 or more, got {replays} and {eps}; 4 and 8/255 are usual"
            )
        own = {"eps": eps, "replays": replays, "reset": bool(self.reset), "through_clamp": bool(self.through_clamp)}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def noise(self) -> Tensor | None:
        """Return the noise that is added to the images, in their shape; ``None`` before the first step."""
        return self._state.noise

    @property
    def replay(self) -> int:
        """Return the number of steps so far."""
        return self._state.replay

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._move()
        state = self._state
        if state.noise is None or state.noise.shape != x.shape or (self.reset and state.replay % self.replays == 0):
            state.noise = torch.zeros_like(x)
        state.noise = state.noise.to(x)  # the noise of a checkpoint is on the CPU
        state.replay += 1
        if self.through_clamp:
            state.leaf = state.noise.clone().requires_grad_()
            logits = model((x + state.leaf).clamp(0, 1))
        else:
            state.leaf = (x + state.noise).clamp(0, 1).requires_grad_()
            logits = model(state.leaf)
        return F.cross_entropy(logits, y), logits

    def _move(self) -> None:
        """Move the noise along the sign of the gradient that the last backward pass left."""
        state = self._state
        if state.leaf is not None and state.leaf.grad is not None and state.noise is not None:
            signs = state.leaf.grad.sign().nan_to_num()  # a gradient that float16 could not hold moves nothing
            state.noise = (state.noise + self.eps * signs).clamp(-self.eps, self.eps)
        state.leaf = None

    def state_dict(self) -> dict[str, object]:
        """Return the noise and the number of steps, for a checkpoint."""
        self._move()
        return {"noise": self._state.noise, "replay": self._state.replay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        own = self._state
        own.noise, own.replay, own.leaf = state["noise"], int(state["replay"]), None


@dataclass(frozen=True)
class Goal:
    """An entry of ``OBJECTIVES``.

    Args:
        words: The label that panels and tables show.
        make: ``make(eps)`` returns a new objective for one run, against changes of at most ``eps`` per pixel.
        eps: The published ``eps``, for a run that names none.
    """

    words: str
    make: Callable[[float], Objective]
    eps: float = 8 / 255


LIANG = 0.031  # the eps of Liang & Huang, whose steps are 0.007


def _liang(objective: Callable[..., Objective], eps: float, **options: Any) -> Objective:
    return objective(eps, 0.007 * (eps / LIANG), **options)


# attacks take 10 steps of eps / 4, as PGD-AT was published for 8/255
OBJECTIVES: Registry[Goal] = Registry("OBJECTIVES")
"""Objectives by name. What they minimize is told by the classes; ``eps`` may be left out.

"clean" is the usual cross-entropy, "margin" a ``Margin``. In the others an attack takes 10 steps of ``eps / 4``, from a
uniform start, to the worst image that it visits ("pgd", "alp"); "trades" starts at clamped normal noise; "free" carries
the noise from batch to batch. These names stand for what papers ran, by their released code:

===========  =====  =================  ======================  =======================================================
name         eps    start              steps                   else
===========  =====  =================  ======================  =======================================================
"c-free"     8/255  0 at each batch    4 replays, of ``eps``   Liu et al. 2021, Table 1; the noise moves along the
                                                               gradient with respect to itself
"l-pgd-at"   0.031  x + 0.001 N(0, 1)  10 of 0.007, last one   Liang & Huang 2021, Figure 2
"l-alp"      0.031  x + 0.001 N(0, 1)  10 of 0.007, last one   the same; weight 1, two passes
"l-trades"   0.031  x + 0.001 N(0, 1)  10 of 0.007, last one   the same; beta 1, two passes
===========  =====  =================  ======================  =======================================================

The normal start is taken as it is drawn, outside of [0, 1], too. For another ``eps`` the steps grow in proportion. The
code of Liang & Huang evaluates the clean images at each step of TRADES, to the same logits; here that is done once.

>>> get_objective("l-trades")
TRADES(eps=0.031, step=0.007, steps=10, beta=1.0, joint=False, clamp_start=False)
"""
OBJECTIVES.register("clean", Goal("the images as they are", lambda eps: cross_entropy))
OBJECTIVES.register("free", Goal("free adversarial training", FreeTraining))
OBJECTIVES.register("pgd", Goal("PGD-AT", lambda eps: PGDTraining(eps, eps / 4)))
OBJECTIVES.register("alp", Goal("adversarial logit pairing", lambda eps: ALP(eps, eps / 4)))
OBJECTIVES.register("trades", Goal("TRADES", lambda eps: TRADES(eps, eps / 4)))
OBJECTIVES.register("margin", Goal("margins, ε in 2-norm", Margin))
OBJECTIVES.register("c-free", Goal("free training, Liu et al.", partial(FreeTraining, reset=True, through_clamp=True)))
for _name, _words, _objective in (
    ("l-pgd-at", "PGD-AT, Liang & Huang", partial(PGDTraining, start="normal", result="last")),
    ("l-alp", "logit pairing, Liang & Huang", partial(ALP, start="normal", result="last")),
    ("l-trades", "TRADES, Liang & Huang", partial(TRADES, beta=1.0, clamp_start=False)),
):
    OBJECTIVES.register(_name, Goal(_words, partial(_liang, _objective), LIANG))


def get_objective(name: str, eps: float | None = None) -> Objective:
    """Return a new objective of this name in ``OBJECTIVES``.

    Make one per run: ``"free"`` keeps noise from step to step.

    Args:
        name: A name in ``OBJECTIVES``, such as ``"pgd"``; ``"clean"`` does not attack.
        eps: The largest change of a pixel, in [0, 1]; by default the published one, 8/255 for most. For ``"margin"``
            the 2-norm of the change.

    Raises ``UnknownNameError``, a ``ValueError``, for an unknown name and ``ValueError`` for ``eps`` outside of [0, 1].
    """
    goal = OBJECTIVES[name]
    size = goal.eps if eps is None else real(eps)
    if size is None or not 0 <= size <= 1:
        raise ValueError(f"eps must be from 0 to 1, a part of the way from black to white, got {described(eps)}")
    return goal.make(size)


def _make_plain(objective: Any, least: int = 1) -> None:
    """Convert the numbers of an objective to plain Python, since ``repr(objective)`` identifies it in a checkpoint."""
    numbers: dict[str, Any] = {"eps": number("eps", objective.eps, 0), "step": number("step", objective.step, 0)}
    numbers["steps"] = whole("steps", objective.steps, least)
    for name in ("weight", "beta"):
        if hasattr(objective, name):
            numbers[name] = number(name, getattr(objective, name))
    for name in ("joint", "clamp_start"):
        if hasattr(objective, name):
            numbers[name] = bool(getattr(objective, name))
    if hasattr(objective, "start"):
        numbers |= {"start": check_start(objective.start), "result": check_result(objective.result)}
    for name, value in numbers.items():
        object.__setattr__(objective, name, value)


def _answers(model: nn.Module, x: Tensor, at: Tensor, joint: bool) -> tuple[Tensor, Tensor]:
    """Return the logits of clean and of attacked images, by one pass or by two."""
    if joint:
        clean, attacked = model(torch.cat([x, at])).chunk(2)
        return clean, attacked
    return model(x), model(at)


def _attacked(goal: PGDTraining | ALP, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the images that the attack of an objective finds."""
    return pgd(model, x, y, goal.eps, goal.step, goal.steps, start=goal.start, result=goal.result)


def _far_in_divergence(model: nn.Module, x: Tensor, eps: float, step: float, steps: int, clamp_start: bool) -> Tensor:
    """Return images within ``eps`` of ``x`` whose logits diverge much from those of ``x``."""
    with borrowed(model, x) as copy, torch.enable_grad():
        x = own_copy(x)
        with torch.no_grad():
            clean = copy(x.clone())  # a copy, since the network's first step may work in place
        at = x + 0.001 * gaussian(x, None)
        at = at.clamp(0, 1) if clamp_start or not steps else at
        for _ in range(steps):
            at.requires_grad_()
            (slope,) = torch.autograd.grad(_divergence(clean, copy(at.clone())), at)
            at = at.detach() + step * slope.sign()
            at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
    return at.detach()


def _divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """Return ``KL(softmax(clean) || softmax(attacked))``, the mean over images.

    The derivative by a probability contains its logarithm: a probability that has underflowed to 0 counts as a
    constant, so that the gradient stays finite.
    """
    wide = torch.promote_types(clean.dtype, torch.float32)
    target = clean.softmax(1, dtype=wide).clamp_min(torch.finfo(wide).tiny)
    return F.kl_div(attacked.log_softmax(1, dtype=wide), target, reduction="batchmean")
