"""What adversarial training minimizes: objectives for ``fit``, each a function of network, images and labels."""

from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.attacks import pgd
from convkit.modes import evaluation_mode
from convkit.running import Objective
from convkit.training import cross_entropy


def pgd_training(eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10) -> Objective:
    """PGD-AT: the cross-entropy of the images that ``pgd`` finds, ``CE(f(x'), y)`` (Madry et al. 2018).

    The attack sees the network in evaluation mode. The logits are those of ``x'``.
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(pgd(model, x, y, eps, step, steps))
        return F.cross_entropy(logits, y), logits

    return _named(objective, "pgd_training", eps=eps, step=step, steps=steps)


def alp(eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10, weight: float = 1.0) -> Objective:
    """Adversarial logit pairing: ``(CE(f(x), y) + CE(f(x'), y)) / 2 + weight |f(x) - f(x')|^2`` (Kannan et al. 2018).

    The square is the mean over images and classes, as Liang & Huang ran it. The logits are those of ``x'``.
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        both = model(torch.cat([x, pgd(model, x, y, eps, step, steps)]))
        clean, attacked = both.chunk(2)
        loss = (F.cross_entropy(clean, y) + F.cross_entropy(attacked, y)) / 2
        return loss + weight * F.mse_loss(clean, attacked), attacked

    return _named(objective, "alp", eps=eps, step=step, steps=steps, weight=weight)


def trades(eps: float = 8 / 255, step: float = 2 / 255, steps: int = 10, beta: float = 6.0) -> Objective:
    """TRADES: ``CE(f(x), y) + beta KL(f(x) || f(x'))``, x' by ascent on that divergence (Zhang et al. 2019).

    The ascent begins at ``x + 0.001 N(0, 1)``, in evaluation mode, within ``eps`` in every pixel and in [0, 1]. The
    published beta is 6; Liang & Huang took 1. The logits are those of ``x``.
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with evaluation_mode(model):
            with torch.no_grad():
                target = model(x).softmax(1)
            at = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
            for _ in range(steps):
                at.requires_grad_()
                (slope,) = torch.autograd.grad(_divergence(target, model(at)), at)
                at = at.detach() + step * slope.sign()
                at = torch.minimum(torch.maximum(at, x - eps), x + eps).clamp(0, 1)
        both = model(torch.cat([x, at]))
        clean, attacked = both.chunk(2)
        return F.cross_entropy(clean, y) + beta * _divergence(clean.softmax(1), attacked), clean

    return _named(objective, "trades", eps=eps, step=step, steps=steps, beta=beta)


class FreeTraining:
    """*Free* adversarial training: each batch ``replays`` times, weights and noise both step (Shafahi et al. 2019).

    One step of ``fit`` is one replay: ``CE(f(x + noise), y)``, whose gradient also moves the noise by ``eps`` along
    its sign, clipped at ``eps``. Between batches the noise is kept, as published; ``reset=True`` begins each batch at
    zero. It is saved with the run's checkpoint. Liu et al. take 4 replays.
    """

    def __init__(self, eps: float = 8 / 255, replays: int = 4, reset: bool = False) -> None:
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
        self.replay += 1
        self._seen = (x + self.noise.to(x)).clamp(0, 1).requires_grad_()
        logits = model(self._seen)
        return F.cross_entropy(logits, y), logits

    def _move(self) -> None:
        """The noise's step, by the gradient that the last backward pass left on the images."""
        if self._seen is not None and self._seen.grad is not None and self.noise is not None:
            self.noise = (self.noise + self.eps * self._seen.grad.sign()).clamp(-self.eps, self.eps)
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
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be from 0 to 1, a part of the way from black to white, got {eps}")
    if name == "free":
        return FreeTraining(eps)
    attacked = {"pgd": pgd_training, "alp": alp, "trades": trades}
    return attacked[name](eps, eps / 4) if name in attacked else cross_entropy


def _named(objective: Any, name: str, **numbers: float) -> Any:
    """The objective, with a name that says its numbers: a checkpoint is refused where they differ."""
    objective.__qualname__ = f"{name}({', '.join(f'{key}={value}' for key, value in numbers.items())})"
    return objective


def _divergence(target: Tensor, logits: Tensor) -> Tensor:
    """``KL(target || softmax(logits))``, the mean over images."""
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
