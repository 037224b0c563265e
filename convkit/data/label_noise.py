"""Label noise: training labels replaced at a given rate, uniformly, by other classes or by look-alike classes."""

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
    """Return the data with ``round(rate * len(data))`` training labels replaced, stratified by class.

    Args:
        data: Data without label noise.
        rate: Fraction of the labels that are replaced, in [0, 1].
        kind: How a label is replaced, see below.
        seed: Determines which labels are replaced, and by what.

    The kinds:

    - ``"uniform"``: by a class drawn from all of them, so that only ``rate * (1 - 1 / classes)`` become wrong (as in
      Figure 3 of Liu et al. 2021).
    - ``"flip"``: by a class drawn from all others, so that ``rate`` become wrong.
    - ``"asymmetric"``: for CIFAR-10 by the class that looks alike (truck to automobile, bird to airplane, deer to
      horse, cat to dog and dog to cat; the other classes keep their labels), for other data by the next class.

    Test labels stay right, and ``clean_labels`` of the result are the right training labels. Raises ``ValueError`` for
    a rate outside of [0, 1], an unknown kind, a single class, and data that have label noise already.
    """
    rate, seed = number("rate", rate, 0, 1, "; 0.4 replaces 40 % of the labels"), seed_number(seed)
    if kind not in KINDS:
        raise ValueError(f"noisy_labels knows the kinds {', '.join(KINDS)}; got {kind!r}")
    if data.labels is not data.clean_labels:
        raise ValueError(f"noisy_labels needs right labels, and those of {data.name!r} are not; begin with clean data")
    if data.classes < 2:
        raise ValueError(f"noisy_labels needs two classes or more, and {data.name!r} has one")
    generator = torch.Generator().manual_seed(seed)
    order = proportionally(data.labels, data.classes, int(torch.randint(2**31, (), generator=generator, device="cpu")))
    chosen = order[: round(rate * len(data))]
    right = data.labels[chosen]
    if kind == "asymmetric":
        wrong = _look_alikes(data.class_names).to(right.device)[right]
    else:
        lowest = 1 if kind == "flip" else 0
        shift = torch.randint(lowest, data.classes, right.shape, generator=generator, device="cpu").to(right.device)
        wrong = (right + shift) % data.classes
    labels = data.labels.clone()
    labels[chosen] = wrong
    return replace(data, name=f"{data.name}, {kind} label noise {rate:g}", labels=labels, _clean=data.labels)


def _look_alikes(names: Sequence[str]) -> Tensor:
    """Return, for each class, the class that replaces it."""
    if names == CIFAR10.class_names:
        return torch.tensor([names.index(LOOK_ALIKES.get(name, name)) for name in names], device="cpu")
    return (torch.arange(len(names), device="cpu") + 1) % len(names)
