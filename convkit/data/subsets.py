"""Stratified subsets of a data set: fewer images, scarce data and hold-out sets."""

from dataclasses import replace

import torch
from torch import Tensor

from convkit.checks import number, seed_number, whole
from convkit.data.dataset import Data

MANY = "; there are no other images to choose from"


def subset(data: Data, count: int, seed: int = 0, test_count: int | None = None) -> Data:
    """Return the data with ``count`` training images, as evenly distributed over the classes as possible.

    With the same seed a smaller subset is part of a larger one.

    Args:
        data: The data set.
        count: Number of training images.
        seed: Determines which images are chosen.
        test_count: Number of test images, chosen in the same way; ``None`` keeps all of them.

    Raises ``ValueError`` for more images than there are.
    """
    count, seed = whole("count", count, 1, len(data), MANY), seed_number(seed)
    if test_count is not None:
        test_count = whole("test_count", test_count, 1, len(data.test_images), MANY)
    chosen = _evenly(data.clean_labels, data.classes, seed)[:count].sort().values
    if test_count is not None:
        some = _evenly(data.test_labels, data.classes, seed)[:test_count].sort().values
        data = replace(data, test_images=data.test_images[some], test_labels=data.test_labels[some])
    return _part(data, chosen, f"subset of {count}")


def unused(data: Data, count: int, seed: int = 0, most: int = 1000) -> Data:
    """Return ``subset(data, count, seed)`` with other training images, clean labels, as its test part.

    So rates and the like can be chosen without the test images, and without giving up some of few training images.

    Args:
        data: The data set.
        count: Number of training images.
        seed: Determines which images are chosen.
        most: The largest number of images in the test part.

    Raises ``ValueError`` where no image would be left for the test part.
    """
    count, seed = whole("count", count, 1, len(data) - 1, MANY), seed_number(seed)
    order = _evenly(data.clean_labels, data.classes, seed)
    chosen, others = order[:count].sort().values, order[count : count + whole("most", most)].sort().values
    data = replace(data, test_images=data.images[others], test_labels=data.clean_labels[others])
    return _part(data, chosen, f"subset of {count}")


def scarce(data: Data, share: float, seed: int = 0) -> Data:
    """Return the data with ``share * len(data) / classes`` training images of each class, chosen at random.

    The scarce data of Liu et al. 2021, section 4.1. A class that has fewer images keeps all of them.

    Args:
        data: The data set.
        share: Fraction of the training images, in (0, 1].
        seed: Determines which images are chosen.

    Raises ``ValueError`` for a share outside of (0, 1] and for one that leaves no image of a class.
    """
    share, seed = number("share", share, 0, 1, "; 0.1 is a tenth"), seed_number(seed)
    each = int(share * len(data) / data.classes + 1e-9)  # 1e-9: 0.3 * 1000 / 10 is 30, not 29
    if each < 1:
        raise ValueError(f"scarce needs an image of each class, and share={share} of {len(data)} leaves none; raise it")
    place = _places(data.clean_labels, data.classes, seed).to(data.device)
    return _part(data, (place < each).nonzero().flatten(), f"{share:g} of each class")


def holdout(data: Data, fraction: float = 0.1, seed: int = 0) -> Data:
    """Return the training images split in two, for choosing learning rates and the like; the test part is not used.

    Args:
        data: The data set.
        fraction: Fraction of each class that becomes the test part of the result, with clean labels, in (0, 1).
        seed: Determines which images are held out.

    Raises ``ValueError`` for a fraction outside of (0, 1) and for one that leaves a part empty.
    """
    fraction, seed = number("fraction", fraction, 0, 1, "; 0.1 is a tenth"), seed_number(seed)
    count = whole("fraction * len(data)", round(fraction * len(data)), 1, len(data) - 1, MANY)
    order = proportionally(data.clean_labels, data.classes, seed)
    held_out, remaining = order[:count].sort().values, order[count:].sort().values
    data = replace(data, test_images=data.images[held_out], test_labels=data.clean_labels[held_out])
    return _part(data, remaining, f"held out {fraction:g}")


def _part(data: Data, chosen: Tensor, remark: str) -> Data:
    """Return the data with the training images at these indices; ``remark`` becomes part of the name."""
    return replace(
        data,
        name=f"{data.name}, {remark}",
        images=data.images[chosen],
        labels=data.labels[chosen],
        _clean=None if data._clean is None else data._clean[chosen],
    )


def _places(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Return for each image its place, from 0 on, in a random order of its class."""
    labels = labels.cpu()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=classes)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    places = torch.empty_like(by_class)
    places[by_class] = torch.arange(len(labels), device="cpu") - first
    return places


def _evenly(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Return all indices in an order in which every beginning has as equal numbers of the classes as possible."""
    shuffled = torch.randperm(classes, generator=torch.Generator().manual_seed(seed), device="cpu")
    return (_places(labels, classes, seed) * classes + shuffled[labels.cpu()]).argsort().to(labels.device)


def proportionally(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Return all indices in a random order in which every beginning has the classes in proportion."""
    counts = torch.bincount(labels.cpu(), minlength=classes)[labels.cpu()]
    return ((_places(labels, classes, seed).double() + 0.5) / counts).argsort(stable=True).to(labels.device)
