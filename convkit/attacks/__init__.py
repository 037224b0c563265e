"""Adversarial attacks: small perturbations of images that change a network's prediction."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.attacks.blackbox import simba as simba
    from convkit.attacks.ensemble import STANDARD as STANDARD
    from convkit.attacks.ensemble import autoattack as autoattack
    from convkit.attacks.evaluation import RobustAccuracy as RobustAccuracy
    from convkit.attacks.evaluation import robust_accuracy as robust_accuracy
    from convkit.attacks.gradient import fgsm as fgsm
    from convkit.attacks.gradient import pgd as pgd
    from convkit.attacks.registry import ATTACKS as ATTACKS
    from convkit.attacks.registry import Published as Published

__getattr__, __dir__, __all__ = face(__name__)
