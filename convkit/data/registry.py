"""The data sets of the kit, by name: two that come with it, three that are read from their official files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convkit.checks import Registry, whole
from convkit.data.catalog import CIFAR10, CIFAR100, DIGITS, MNIST
from convkit.data.dataset import Data
from convkit.data.figures import FIGURES, draw
from convkit.data.files import load_source
from convkit.data.subsets import proportionally
from convkit.loading import needs


def digits() -> Data:
    """scikit-learn's handwritten digits: 1437 training and 360 test images, 1 × 8 × 8, always the same split, offline.

    A fifth of each class is the test part, drawn with seed 0. The 17 gray levels 0 .. 16 become k / 16 in float32.
    """
    with needs("kit", "the data set digits"):
        from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images, labels = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y)
    order = proportionally(labels, 10, seed=0)
    test, training = order[:360].sort().values, order[360:].sort().values
    return Data("digits", images[training], labels[training], images[test], labels[test], DIGITS)


def shapes(count: int = 4000, test_count: int = 1000, seed: int = 0) -> Data:
    """Drawn figures, 3 × 32 × 32: disc, ring, crescent, heart, triangle, square, star, cross, arrow, stripes; offline.

    As many of each class, at any place, size, slant, direction and color, among strokes, blotches and noise. The images
    depend on the seed alone, and with the same seed fewer are the first of more.
    """
    count, test_count = whole("count", count), whole("test_count", test_count)
    seed = whole("seed", seed, 0)
    return Data("shapes", *draw(count, (seed, 0)), *draw(test_count, (seed, 1)), FIGURES)


def mnist(folder: str | Path | None = None, name: str | None = None) -> Data:
    """MNIST, 1 × 28 × 28, from its IDX files (plain or .gz) in ``folder`` or in mnist inside it, or downloaded.

    Other data in the same files (Fashion-MNIST) take a ``name`` of their own. Names and errors: ``load_source``.
    """
    return load_source(MNIST, folder, name)


def cifar10(folder: str | Path | None = None, name: str | None = None) -> Data:
    """CIFAR-10, 3 × 32 × 32, from the official binary files, or the archive of them, in ``folder``, or downloaded.

    The files lie in ``folder`` or in cifar-10-batches-bin inside it. A copy that is not byte for byte the official one
    takes a ``name`` of its own, as in ``cifar10(folder, name="cifar10-jpeg")``. Names and errors: ``load_source``.
    """
    return load_source(CIFAR10, folder, name)


def cifar100(folder: str | Path | None = None, name: str | None = None) -> Data:
    """CIFAR-100 with its hundred fine labels, read as ``cifar10`` is; the files may lie in cifar-100-binary."""
    return load_source(CIFAR100, folder, name)


@dataclass(frozen=True)
class Loader:
    """An entry of ``DATA``: the function that returns the data set.

    Its first argument is a folder of files, unless the data set is ``offline``: then it needs none.
    """

    load: Callable[..., Data]
    offline: bool = False


DATA: Registry[Loader] = Registry(
    "DATA",
    {
        **{"digits": Loader(digits, offline=True), "shapes": Loader(shapes, offline=True)},
        **{"mnist": Loader(mnist), "cifar10": Loader(cifar10), "cifar100": Loader(cifar100)},
    },
)


def load(name: str, /, folder: str | Path | None = None, **options: Any) -> Data:
    """The data set of this name, from ``folder`` where it is one of files; ``options`` go to the function of that name,
    as in ``load("cifar10", folder, name="cifar10-jpeg")``.

    Raises ``ValueError`` for an unknown name, with the nearest ones.
    """
    loader = DATA[name]
    if not loader.offline:
        return loader.load(folder, **options)
    if folder is not None:
        raise ValueError(f"{name} needs no files and takes no folder, got {str(folder)!r}; leave it out")
    return loader.load(**options)
