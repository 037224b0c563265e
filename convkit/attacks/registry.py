"""The attacks of the kit, by name."""

from collections.abc import Callable
from typing import Any, Concatenate

from torch import Tensor, nn

from convkit.attacks.blackbox import simba
from convkit.attacks.ensemble import autoattack
from convkit.attacks.gradient import fgsm, pgd
from convkit.checks import Registry


def _pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    step: float | Tensor | None = None,
    steps: int = 10,
    until_wrong: bool = False,
    **options: Any,
) -> Tensor:
    size = eps / 4 if step is None else step
    return pgd(model, x, y, eps, size, steps, until_wrong=until_wrong, **options)


def _simba(model: nn.Module, x: Tensor, y: Tensor, eps: float, **options: Any) -> Tensor:
    return simba(model, x, y, eps, **options)[0]


ATTACKS: Registry[Callable[Concatenate[nn.Module, Tensor, Tensor, float, ...], Tensor]] = Registry(
    "ATTACKS", {"fgsm": fgsm, "pgd": _pgd, "simba": _simba, "autoattack": autoattack}
)
"""Attacks by name, each a function ``(model, x, y, eps, ...)`` that returns the changed images alone.

Further arguments are those of the functions of the same names. "pgd" takes 10 steps of ``eps / 4`` by default. "simba"
takes steps of ``eps``, so that its images stay within ``eps`` in every pixel as long as each is tried once, which is
the default. ``ATTACKS.register(name, attack)`` adds one.

>>> list(ATTACKS)[:3]
['fgsm', 'pgd', 'simba']
"""
