"""What adversarial training minimizes: objectives for ``fit``, each a function of network, images and labels."""

from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.attacks.checks import borrowed, gaussian, own_copy
from convkit.attacks.gradient import pgd
from convkit.checks import number, real, said, whole
from convkit.training.loop import cross_entropy
from convkit.training.run import Objective


def pgd_training(eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10) -> Objective:
    """PGD-AT: the cross-entropy of the images that ``pgd`` finds, ``CE(f(x'), y)`` (Madry et al. 2018).

    The attack sees the network in evaluation mode. The logits are those of ``x'``.
    """
    eps, step, steps = _ascent(eps, step, steps)

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(pgd(model, x, y, eps, step, steps))
        return F.cross_entropy(logits, y), logits

    return _named(objective, "pgd_training", eps=eps, step=step, steps=steps)


def alp(
    eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10, weight: float = 1.0, joint: bool = False
) -> Objective:
    """Adversarial logit pairing: ``(CE(f(x), y) + CE(f(x'), y)) / 2 + weight |f(x) - f(x')|^2`` (Kannan et al. 2018).

    The square is the mean over images and classes, as Liang & Huang ran it. The network sees ``x``, then ``x'``; with
    ``joint`` both in one batch, as in ``trades``. The logits are those of ``x'``.
    """
    (eps, step, steps), weight = _ascent(eps, step, steps), number("weight", weight)

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        clean, attacked = _answers(model, x, pgd(model, x, y, eps, step, steps), joint)
        loss = (F.cross_entropy(clean, y) + F.cross_entropy(attacked, y)) / 2
        return loss + weight * F.mse_loss(clean, attacked), attacked

    return _named(objective, "alp", eps=eps, step=step, steps=steps, weight=weight, joint=bool(joint))


def trades(
    eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10, beta: float = 6.0, joint: bool = False
) -> Objective:
    """TRADES: ``CE(f(x), y) + beta KL(f(x) || f(x'))``, x' by ascent on that divergence (Zhang et al. 2019).

    The ascent begins at ``x + 0.001 N(0, 1)``, in evaluation mode, within ``eps`` in every pixel and in [0, 1]. The
    published beta is 6; Liang & Huang took 1. The logits are those of ``x``.

    The network then sees ``x`` and ``x'`` in two passes, as in Liang & Huang's code (Zhang et al. ask a second time
    about ``x``). So BatchNorm normalizes each of them by its own statistics, and its running ones take two steps, first
    to those of ``x``. With ``joint`` both are one batch: a single pass, normalized by the statistics of the mixture, to
    which the running ones take one step. Without such layers, and without noise, the two differ by rounding only.
    """
    (eps, step, steps), beta = _ascent(eps, step, steps, least=0), number("beta", beta)

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        clean, attacked = _answers(model, x, _far_in_divergence(model, x, eps, step, steps), joint)
        return F.cross_entropy(clean, y) + beta * _divergence(clean, attacked), clean

    return _named(objective, "trades", eps=eps, step=step, steps=steps, beta=beta, joint=bool(joint))


class FreeTraining:
    """*Free* adversarial training: each batch ``replays`` times, weights and noise both step (Shafahi et al. 2019).

    One step of ``fit`` is one replay: ``CE(f(x + noise), y)``, whose gradient also moves the noise by ``eps`` along
    its sign, clipped at ``eps``. Between batches the noise is kept, as published; ``reset=True`` begins each batch at
    zero. It is saved with the run's checkpoint. Liu et al. take 4 replays.
    """

    def __init__(self, eps: float = 8 / 255, replays: int = 4, reset: bool = False) -> None:
        eps, replays = number("eps", eps), whole("replays", replays)
        if replays < 1 or not eps >= 0:
            raise ValueError(
                f"needed at least 1 replay and eps of 0 or more, got {replays} and {eps}; 4 and 8/255 are usual"
            )
        self.eps, self.replays, self.reset = eps, replays, reset
        self.noise: Tensor | None = None
        self.replay = 0
        self._seen: Tensor | None = None
        _named(self, "FreeTraining", eps=eps, replays=replays, reset=reset)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._move()
        if self.noise is None or self.noise.shape != x.shape or (self.reset and self.replay % self.replays == 0):
            self.noise = torch.zeros_like(x)
        self.noise = self.noise.to(x)  # that of a checkpoint is on the CPU
        self.replay += 1
        self._seen = (x + self.noise).clamp(0, 1).requires_grad_()
        logits = model(self._seen)
        return F.cross_entropy(logits, y), logits

    def _move(self) -> None:
        """The noise's step, by the gradient that the last backward pass left on the images."""
        if self._seen is not None and self._seen.grad is not None and self.noise is not None:
            signs = self._seen.grad.sign().nan_to_num()  # a gradient that float16 could not hold moves nothing
            self.noise = (self.noise + self.eps * signs).clamp(-self.eps, self.eps)
        self._seen = None

    def state_dict(self) -> dict[str, Any]:
        self._move()
        return {"noise": self.noise, "replay": self.replay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.noise, self.replay, self._seen = state["noise"], int(state["replay"]), None


OBJECTIVES = MappingProxyType(
    {
        "clean": "the images as they are",
        "free": "free adversarial training",
        "pgd": "PGD-AT",
        "alp": "adversarial logit pairing",
        "trades": "TRADES",
    }
)


def get_objective(name: str, eps: float = 8 / 255) -> Objective:
    """The objective of this name in ``OBJECTIVES``, against changes of at most ``eps`` in every pixel.

    Attacks take 10 steps of ``eps / 4``, as PGD-AT was published for 8/255; ``"clean"`` has none. A new one for each
    run, since ``"free"`` keeps its noise. Raises ``ValueError`` for another name and for an ``eps`` outside [0, 1].
    """
    if name not in OBJECTIVES:
        raise ValueError(f"needed one of {', '.join(OBJECTIVES)}, got {name!r}")
    size = real(eps)
    if size is None or not 0 <= size <= 1:
        raise ValueError(f"eps must be from 0 to 1, a part of the way from black to white, got {said(eps)}")
    if name == "free":
        return FreeTraining(size)
    attacked = {"pgd": pgd_training, "alp": alp, "trades": trades}
    return attacked[name](size, size / 4) if name in attacked else cross_entropy


def _ascent(eps: float, step: float, steps: int, least: int = 1) -> tuple[float, float, int]:
    """The numbers of an attack, plain, since they become part of a checkpoint."""
    return number("eps", eps, 0), number("step", step, 0), whole("steps", steps, least)


def _named(objective: Any, name: str, **numbers: float) -> Any:
    """The objective, with a name that says its numbers: a checkpoint is refused where they differ."""
    objective.__qualname__ = f"{name}({', '.join(f'{key}={value}' for key, value in numbers.items())})"
    return objective


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
