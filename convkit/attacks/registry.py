"""The attacks of the kit, by name, and those that the papers ran."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate

import torch
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


def _fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator | None = None) -> Tensor:
    """Run FGSM, which draws no random numbers."""
    return fgsm(model, x, y, eps, result="last")


@dataclass(frozen=True)
class Published:
    """An attack as a paper ran it: a function ``(model, x, y, eps, generator=...)`` that returns the changed images.

    ``words`` says where it is from and what is particular to it. ``eps`` is the published size, which is taken if none
    is given, and ``images`` the number of test images that were attacked: the first ones, all of them if ``None``.

    >>> ATTACKS["c-pgd-20"]
    Published(words='Liu et al. 2021, Table 1: PGD-20', eps=0.03137254901960784, images=None)
    """

    words: str
    attack: Callable[..., Tensor]
    eps: float
    images: int | None = None

    def __repr__(self) -> str:
        return f"Published(words={self.words!r}, eps={self.eps}, images={self.images})"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: float | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        return self.attack(model, x, y, self.eps if eps is None else eps, generator=generator, **options)


ATTACKS: Registry[Callable[Concatenate[nn.Module, Tensor, Tensor, float, ...], Tensor]] = Registry(
    "ATTACKS", {"fgsm": fgsm, "pgd": _pgd, "simba": _simba, "autoattack": autoattack}
)
"""Attacks by name, each a function ``(model, x, y, eps, ...)`` that returns the changed images alone.

Further arguments are those of the functions of the same names. "pgd" takes 10 steps of ``eps / 4`` by default. "simba"
takes steps of ``eps``, so that its images stay within ``eps`` in every pixel as long as each is tried once, which is
the default. ``ATTACKS.register(name, attack)`` adds one.

The others are ``Published``: what Liu et al. 2021 ("c-") and Liang & Huang 2021 ("l-") ran, by their released code
where the paper leaves it open. Their ``eps`` may be left out.

=========================  =======  =========  ============  ==========  ===========================================
name                       eps      start      steps         image       images
=========================  =======  =========  ============  ==========  ===========================================
"c-fgsm" (Table 1)         8 / 255  clean      1 of eps      last        all test images
"c-pgd-10" (Table 1)       8 / 255  uniform    10 of eps/4   last        all test images
"c-pgd-20" (Table 1)       8 / 255  uniform    20 of eps/4   last        all test images
"c-simba" (Table 2)        0.2      clean      each pixel    first       all test images; 0.2 is the step, and so is
                                               once          wrong one   the "pixel" basis, of SimBA's own code
"l-autoattack-table2"      1 / 255  AutoAttack's own                     1024 in one batch: apgd-ce, then apgd-t
"l-autoattack-figure2"     8 / 255  AutoAttack's own                     1024 in one batch: apgd-ce alone
=========================  =======  =========  ============  ==========  ===========================================

"Last" is the image after the last step, whatever its loss: ``"fgsm"`` and ``"pgd"`` return the worst one that was
visited, the clean one included, which is a stronger attack. The scripts of Liu et al. attack all images and count those
that are right afterwards: ``robust_accuracy(..., attack_all=True)``. The table of Liang & Huang names the standard
AutoAttack of four attacks; their scripts run these.

>>> list(ATTACKS)[:3]
['fgsm', 'pgd', 'simba']
"""

EIGHT = 8 / 255
for _name, _entry in {
    "c-fgsm": Published("Liu et al. 2021, Table 1: FGSM", _fgsm, EIGHT),
    "c-pgd-10": Published("Liu et al. 2021, Table 1: PGD-10", partial(_pgd, steps=10, result="last"), EIGHT),
    "c-pgd-20": Published("Liu et al. 2021, Table 1: PGD-20", partial(_pgd, steps=20, result="last"), EIGHT),
    "c-simba": Published("Liu et al. 2021, Table 2: SimBA", _simba, 0.2),
    "l-autoattack-table2": Published(
        "Liang & Huang 2021, Table 2: APGD-CE and APGD-T",
        partial(autoattack, attacks=("apgd-ce", "apgd-t"), batch_size=1024),
        1 / 255,
        1024,
    ),
    "l-autoattack-figure2": Published(
        "Liang & Huang 2021, Figure 2: APGD-CE", partial(autoattack, attacks=("apgd-ce",), batch_size=1024), EIGHT, 1024
    ),
}.items():
    ATTACKS.register(_name, _entry)
