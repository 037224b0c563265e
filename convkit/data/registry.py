"""`DATA`: the registry of data sets, three that come with the kit and four that are read from their official files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from convkit.checks import Registry, whole
from convkit.data.catalog import CIFAR10, CIFAR100, DIGITS, MNIST
from convkit.data.clouds import modelnet40, solids
from convkit.data.dataset import Data
from convkit.data.figures import FIGURES, draw
from convkit.data.files import load_source
from convkit.data.subsets import proportionally
from convkit.loading import needs


def digits() -> Data:
    """Return scikit-learn's handwritten digits: 1437 training and 360 test images, 1 × 8 × 8, without any download.

    The split is always the same: a fifth of each class, drawn with seed 0, is the test part. The 17 gray levels 0 .. 16
    become k / 16 in float32. Raises ``ModuleNotFoundError`` without scikit-learn.
    """
    with needs("kit", "the data set digits"):
        from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images, labels = (
        torch.tensor(x, dtype=torch.float32, device="cpu").view(-1, 1, 8, 8) / 16,
        torch.tensor(y, device="cpu"),
    )
    order = proportionally(labels, 10, seed=0)
    test, training = order[:360].sort().values, order[360:].sort().values
    return Data("digits", images[training], labels[training], images[test], labels[test], DIGITS)


def shapes(count: int = 4000, test_count: int = 1000, seed: int = 0) -> Data:
    """Return images of drawn figures in ten classes, 3 × 32 × 32, without any download.

    The classes are disc, ring, crescent, heart, triangle, square, star, cross, arrow and stripes, all equally frequent.
    Each figure has a random place, size, slant, direction and color, on a background of strokes, blotches and noise.
    The images depend on the seed alone, and with the same seed a smaller set is the beginning of a larger one.

    Args:
        count, test_count: Number of training and of test images.
        seed: Determines the images.

    Raises ``ValueError`` for a count below 1 or a seed below 0.
    """
    count, test_count = whole("count", count), whole("test_count", test_count)
    seed = whole("seed", seed, 0)
    return Data("shapes", *draw(count, (seed, 0)), *draw(test_count, (seed, 1)), FIGURES)


def mnist(folder: str | Path | None = None, name: str | None = None) -> Data:
    """Return MNIST, 1 × 28 × 28, from its IDX files (plain or .gz).

    Args:
        folder: The folder with the files, or with a folder ``mnist`` that has them; ``None`` downloads them.
        name: Another name for other data in the same format, such as Fashion-MNIST.

    Raises ``ValueError`` for damaged files or the name ``"mnist"`` on other files, ``FileNotFoundError`` for missing
    files and ``ConnectionError`` if the download fails.
    """
    return load_source(MNIST, folder, name)


def cifar10(folder: str | Path | None = None, name: str | None = None) -> Data:
    """Return CIFAR-10, 3 × 32 × 32, from its official binary files or the archive of them.

    Args:
        folder: The folder with the files, or with a folder ``cifar-10-batches-bin`` that has them; ``None`` downloads
            them.
        name: Another name for a copy that differs from the official files, as in ``cifar10(folder,
            name="cifar10-jpeg")``.

    Raises ``ValueError`` for damaged files or the name ``"cifar10"`` on other files, ``FileNotFoundError`` for missing
    files and ``ConnectionError`` if the download fails.
    """
    return load_source(CIFAR10, folder, name)


def cifar100(folder: str | Path | None = None, name: str | None = None) -> Data:
    """Return CIFAR-100 with its hundred fine labels, 3 × 32 × 32, from its official binary files or their archive.

    Args:
        folder: The folder with the files, or with a folder ``cifar-100-binary`` that has them; ``None`` downloads them.
        name: Another name for a copy that differs from the official files.

    Raises ``ValueError`` for damaged files or the name ``"cifar100"`` on other files, ``FileNotFoundError`` for missing
    files and ``ConnectionError`` if the download fails.
    """
    return load_source(CIFAR100, folder, name)


@dataclass(frozen=True)
class Loader:
    """An entry of ``DATA``: a function that returns a data set, and whether it works without files.

    Args:
        load: Returns the data. Its first argument is a folder of files, unless the data set is ``offline``.
        offline: Whether the data set needs neither files nor a network.
        clouds: Whether it holds point clouds, for which a network of images does not do.
    """

    load: Callable[..., Data]
    offline: bool = False
    clouds: bool = False


DATA: Registry[Loader] = Registry(
    "DATA",
    {
        **{"digits": Loader(digits, offline=True), "shapes": Loader(shapes, offline=True)},
        **{"mnist": Loader(mnist), "cifar10": Loader(cifar10), "cifar100": Loader(cifar100)},
        **{"solids": Loader(solids, offline=True, clouds=True), "modelnet40": Loader(modelnet40, clouds=True)},
    },
)


def load(name: str, /, folder: str | Path | None = None, **options: object) -> Data:
    """Return the data set of this name in ``DATA``.

    Args:
        name: A name in ``DATA``, such as ``"digits"``.
        folder: The folder with the files, for data sets that are read from files; ``None`` downloads them.
        options: Further arguments of the function of that name, as in ``load("cifar10", folder, name="cifar10-jpeg")``.

    Raises ``UnknownNameError``, a ``ValueError`` that holds the nearest names, for an unknown name, and ``ValueError``
    for a folder that the data set does not need.
    """
    loader = DATA[name]
    if not loader.offline:
        return loader.load(folder, **options)
    if folder is not None:
        raise ValueError(f"{name} needs no files and takes no folder, got {str(folder)!r}; leave it out")
    return loader.load(**options)
