"""`Margin`: the objective that asks for margins which a Lipschitz bound can certify."""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from convkit.checks import number, positive
from convkit.methods.lipschitz import read_bound


@dataclass(frozen=True)
class Margin:
    """Cross-entropy with offset and temperature, ``t CE((f(x) / bound - sqrt(2) eps e_y) / t)``, without an attack.

    The label's logit counts less by what a change of 2-norm ``eps`` can take from its lead, so that the loss asks for a
    certificate of radius ``eps`` (see ``certified_accuracy``). The smaller the temperature t, the nearer it is to the
    hinge loss ``max(0, sqrt(2) eps - margin / bound)``, its limit (offset: Tsuzuku et al. 2018; with temperature: Prach
    & Lampert 2022). The logits that are returned are those of ``x``.

    Args:
        eps: The radius to certify, in 2-norm; images are in [0, 1].
        temperature: The temperature t; small ones look at the nearest rival alone.
        bound: The Lipschitz bound of the network; ``None`` reads it from a network of the method ``"lipschitz"`` and is
            1 for others.

    Raises ``ValueError`` for numbers that are not in range.
    """

    eps: float = 0.5
    temperature: float = 0.1
    bound: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", number("eps", self.eps, 0))
        object.__setattr__(self, "temperature", positive("temperature", self.temperature, "; 0.1 is usual"))
        if self.bound is not None:
            object.__setattr__(self, "bound", positive("bound", self.bound, "; product_bound(model, x) gives one"))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        bound = float(read_bound(model).get("bound", 1.0)) if self.bound is None else self.bound
        own = F.one_hot(y, logits.shape[1])
        wanted = logits.float() if logits.dtype.itemsize < 4 else logits
        ahead = (wanted / bound - math.sqrt(2) * self.eps * own) / self.temperature
        return self.temperature * F.cross_entropy(ahead, y), logits
