"""Changes of images, small ones, that a network answers wrongly."""

from convkit.attacks.blackbox import simba
from convkit.attacks.ensemble import STANDARD, autoattack
from convkit.attacks.evaluation import RobustAccuracy, robust_accuracy
from convkit.attacks.gradient import fgsm, pgd

__all__ = ["STANDARD", "RobustAccuracy", "autoattack", "fgsm", "pgd", "robust_accuracy", "simba"]
