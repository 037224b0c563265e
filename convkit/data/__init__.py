"""Labeled images to train on: the data sets of the kit, parts of them, and wrong labels in a known share."""

from convkit.data.dataset import Data
from convkit.data.noise import noisy_labels
from convkit.data.parts import holdout, scarce, subset
from convkit.data.sets import DATA, cifar10, cifar100, digits, load, mnist, shapes

__all__ = [
    "DATA",
    "Data",
    "cifar10",
    "cifar100",
    "digits",
    "holdout",
    "load",
    "mnist",
    "noisy_labels",
    "scarce",
    "shapes",
    "subset",
]
