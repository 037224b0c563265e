"""Wrong labels in a known share: uniform redraws, true flips, and the confusions of look-alike classes."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from convkit.checks import number, seed_number
from convkit.data.catalog import CIFAR10
from convkit.data.dataset import Data
from convkit.data.subsets import proportionally

KINDS = ("uniform", "flip", "asymmetric")
LOOK_ALIKES = {  # of CIFAR-10 (Patrini et al. 2017)
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}


def noisy_labels(data: Data, rate: float, kind: str = "uniform", seed: int = 0) -> Data:
    """The same images with ``round(rate * len(data))`` of the training labels, the same share of every class, replaced.

    - "uniform": drawn anew over all classes, the right one among them: only ``rate * (1 - 1 / classes)`` become wrong
      (this is how Liu et al. 2021, Figure 3, were run).
    - "flip": drawn over all other classes: ``rate`` become wrong.
    - "asymmetric": CIFAR-10's look-alikes, truck to automobile, bird to airplane, deer to horse, cat to dog and dog to
      cat: ``rate`` of these five become wrong, the others stay; in every other data set each class to the next one.

    Test labels stay right, and ``clean_labels`` of the result are the right training labels. Raises ``ValueError`` for
    a rate outside [0, 1], an unknown kind, and labels that are noisy already.
    """
    rate, seed = number("rate", rate, 0, 1, "; 0.4 replaces 40 % of the labels"), seed_number(seed)
    if kind not in KINDS:
        raise ValueError(f"noisy_labels knows the kinds {', '.join(KINDS)}; got {kind!r}")
    if data.labels is not data.clean_labels:
        raise ValueError(f"noisy_labels needs right labels, and those of {data.name!r} are not; begin with clean data")
    if data.classes < 2:
        raise ValueError(f"noisy_labels needs two classes or more, and {data.name!r} has one")
    generator = torch.Generator().manual_seed(seed)
    order = proportionally(data.labels, data.classes, int(torch.randint(2**31, (), generator=generator)))
    chosen = order[: round(rate * len(data))]
    right = data.labels[chosen]
    if kind == "asymmetric":
        wrong = _look_alikes(data.class_names).to(right.device)[right]
    else:
        lowest = 1 if kind == "flip" else 0
        shift = torch.randint(lowest, data.classes, right.shape, generator=generator).to(right.device)
        wrong = (right + shift) % data.classes
    labels = data.labels.clone()
    labels[chosen] = wrong
    return replace(data, name=f"{data.name}, {kind} label noise {rate:g}", labels=labels, _clean=data.labels)


def _look_alikes(names: Sequence[str]) -> Tensor:
    if names == CIFAR10.class_names:
        return torch.tensor([names.index(LOOK_ALIKES.get(name, name)) for name in names])
    return (torch.arange(len(names)) + 1) % len(names)
