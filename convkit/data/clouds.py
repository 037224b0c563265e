"""Point clouds: the data set `Clouds`, random turns and jitter, and ModelNet40 from its official HDF5 files."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from convkit.checks import few, number, whole
from convkit.data.augmentation import AUGMENTATIONS
from convkit.data.dataset import Data, check_labels
from convkit.data.surfaces import SOLIDS, sample
from convkit.loading import needs

STORED = 2048  # points of a cloud in the files of ModelNet40
MODELNET40 = {  # MD5 sums of the official files, as public readers of them list them
    "train": {
        "ply_data_train0.h5": "3176385ffc31a7b6b5af22191fd920d1",
        "ply_data_train1.h5": "e3f613fb500559403b34925112754dc4",
        "ply_data_train2.h5": "0c56e233a090ff87c3049d4ce08e7d8b",
        "ply_data_train3.h5": "9d2af465adfa33a3285c369f3ca66c45",
        "ply_data_train4.h5": "dff38de489b2c41bfaeded86c2208984",
    },
    "test": {
        "ply_data_test0.h5": "e9732e6d83b09e79e9a7617df058adee",
        "ply_data_test1.h5": "aba4b12a67c34391cc3c015a6f08ed4b",
    },
}
_CLASSES = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser flower_pot "
    "glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio range_hood sink sofa "
    "stairs stool table tent toilet tv_stand vase wardrobe xbox"
)
MODELNET40_CLASSES = tuple(_CLASSES.split())


@dataclass(frozen=True, eq=False, repr=False)
class Clouds(Data):
    """A data set of labeled point clouds in memory, used like ``Data``: for ``network``, ``fit`` and ``evaluate``.

    Args:
        name: The name, which goes into checkpoints and tables.
        images, test_images: The clouds, ``(N, axes, points)``, float32 and finite. The order of the points means
            nothing.
        labels, test_labels: ``(N,)``, int64, from 0 on.
        class_names: One name per class, in the order of the labels.

    ``in_channels`` is the number of axes and ``image_size`` the number of points. ``mean`` is 0 and ``std`` 1 on every
    axis, since clouds are scaled one by one, and all axes alike. Raises ``ValueError`` for anything else.

    >>> points = torch.rand(4, 3, 16)
    >>> data = Clouds("noise", points, torch.tensor([0, 1, 0, 1]), points[:2], torch.tensor([0, 1]), ("a", "b"))
    >>> data
    Clouds(noise: 4 training and 2 test clouds, 16 points in 3 axes, 2 classes, on cpu)
    """

    def _check(self) -> None:
        for part, clouds, labels in (
            ("training", self.images, self.labels),
            ("test", self.test_images, self.test_labels),
        ):
            words = f"{self.name}: the {part} part needs"
            if clouds.ndim != 3 or not clouds.numel() or clouds.dtype != torch.float32:
                came = f"{clouds.dtype} of shape {tuple(clouds.shape)}"
                raise ValueError(f"{words} float32 clouds (N, axes, points), got {came}; convert or transpose them")
            broken = (~clouds.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
            if broken:
                which = few([f"cloud {index}" for index in broken])
                raise ValueError(f"{words} finite points, got NaN or infinity in {which}; mend these or leave them out")
            check_labels(self, part, clouds, labels)
        if self.images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"{self.name} needs training and test clouds of one shape, got {tuple(self.images.shape[1:])} and "
                f"{tuple(self.test_images.shape[1:])}; keep as many points of both"
            )

    @property
    def mean(self) -> list[float]:
        """Return 0 for each axis."""
        return [0.0] * self.in_channels

    @property
    def std(self) -> list[float]:
        """Return 1 for each axis."""
        return [1.0] * self.in_channels

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name}: {len(self):,} training and {len(self.test_images):,} test clouds, "
            f"{self.image_size} points in {self.in_channels} axes, {self.classes} classes, on {self.device})"
        )


def solids(count: int = 2000, test_count: int = 400, points: int = 128, jitter: float = 0.02, seed: int = 0) -> Clouds:
    """Return clouds of points on eight solids, ``(N, 3, points)``, without any download.

    Sphere, cube, cylinder, cone, torus, tetrahedron, octahedron and prism are equally frequent. The points are drawn
    uniformly by area; each cloud is turned at random about the second axis, which points up, moved so that its mean is
    0, and scaled so that its farthest point has norm 1; then each coordinate is moved by ``jitter * N(0, 1)``. The
    clouds depend on the seed alone, and with the same seed a smaller set is the beginning of a larger one.

    Args:
        count, test_count: Number of training and of test clouds.
        points: Number of points of a cloud.
        jitter: Standard deviation of the noise on each coordinate.
        seed: Determines the clouds.

    Raises ``ValueError`` for a count or a number of points below 1, and for a negative jitter or seed.

    >>> solids(16, 8, points=32)
    Clouds(solids: 16 training and 8 test clouds, 32 points in 3 axes, 8 classes, on cpu)
    """
    count, test_count = whole("count", count, 1), whole("test_count", test_count, 1)
    points, jitter, seed = whole("points", points, 1), number("jitter", jitter, 0), whole("seed", seed, 0)
    parts = (sample(many, points, jitter, (seed, part)) for part, many in enumerate((count, test_count)))
    (clouds, labels), (test_clouds, test_labels) = parts
    return Clouds("solids", clouds, labels, test_clouds, test_labels, SOLIDS)


# ---- ModelNet40 ------------------------------------------------------------------------------------------------------
def modelnet40(folder: str | Path | None = None, name: str | None = None, points: int = 1024) -> Clouds:
    """Return ModelNet40, clouds ``(N, 3, points)`` of 40 kinds of objects, from its official HDF5 files.

    The files are those of ``modelnet40_ply_hdf5_2048.zip`` (Qi et al. 2017), unpacked: 9840 training and 2468 test
    objects of Wu et al. 2015, each with 2048 points drawn uniformly by area and scaled into the unit ball. The first
    ``points`` are taken. The kit does not download them.

    Args:
        folder: The folder with the files, or with a folder ``modelnet40_ply_hdf5_2048`` that has them.
        name: Another name for other data in the same format.
        points: Number of points, at most 2048; the papers use 1024.

    Raises ``ValueError`` for damaged files and, without a ``name``, for files other than the official ones (by MD5
    sum); ``FileNotFoundError`` for missing files; ``ModuleNotFoundError`` without h5py.
    """
    points = whole("points", points, 1, STORED)
    if folder is None:
        raise ValueError(
            "modelnet40 needs the folder of its files, got none; unpack modelnet40_ply_hdf5_2048.zip and name the "
            "folder, as in modelnet40(folder)"
        )
    place = next((p for p in (Path(folder) / "modelnet40_ply_hdf5_2048", Path(folder)) if p.is_dir()), Path(folder))
    files = [file for part in MODELNET40.values() for file in part]
    if missing := [file for file in files if not (place / file).is_file()]:
        raise FileNotFoundError(f"modelnet40 needs {few(missing)}, not found in {place}; name the folder that has them")
    if name is None:
        _check_sums(place)
    training, test = (_read_part(place, part, points) for part in MODELNET40.values())
    return Clouds(name or "modelnet40", *training, *test, MODELNET40_CLASSES)


def _check_sums(place: Path) -> None:
    """Raise ``ValueError`` unless all files are the official ones."""
    known = {file: known for part in MODELNET40.values() for file, known in part.items()}
    sums = {file: hashlib.md5((place / file).read_bytes(), usedforsecurity=False).hexdigest() for file in known}
    if foreign := [file for file in known if sums[file] != known[file]]:
        raise ValueError(
            f"{few(foreign)} is not the official file of modelnet40 (its MD5 sum differs): it is truncated or "
            "damaged; unpack the archive again, or give other data another name, as in name='mine'"
        )


def _read_part(place: Path, files: Mapping[str, str], points: int) -> tuple[Tensor, Tensor]:
    """Return the clouds and the labels of some files."""
    with needs("clouds", "the data set modelnet40"):
        import h5py
    clouds, labels = [], []
    for file in files:
        try:
            with h5py.File(place / file, "r") as opened:
                content: Any = opened
                data, label = content["data"][:, :points], content["label"][:]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{place / file} cannot be read ({type(error).__name__}): it is truncated or of another layout; unpack "
                "the archive again"
            ) from error
        if data.shape[1:] != (points, 3) or label.size != len(data):
            raise ValueError(
                f"{place / file} needs data (N, at least {points}, 3) and N labels, got data {data.shape} and labels "
                f"{label.shape}; it is of another layout"
            )
        clouds.append(torch.from_numpy(np.ascontiguousarray(data.transpose(0, 2, 1), np.float32)))
        labels.append(torch.from_numpy(label.reshape(-1).astype(np.int64)))
    return torch.cat(clouds), torch.cat(labels)


# ---- augmentation ----------------------------------------------------------------------------------------------------
def turn(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Return each cloud turned by an angle of its own about the second axis, which points up in ModelNet40.

    Args:
        x: Clouds ``(n, 3, points)``; they are not changed.
        generator: Source of the random numbers; torch's global one if ``None``.

    Raises ``ValueError`` for another shape.

    >>> bool(torch.allclose(turn(torch.ones(2, 3, 1)).norm(dim=1), torch.tensor(3.0).sqrt()))
    True
    """
    if x.ndim != 3 or x.shape[1] != 3:
        raise ValueError(f"turn needs clouds (n, 3, points), got shape {tuple(x.shape)}; for images use 'crop+flip'")
    device = "cpu" if generator is None else generator.device
    drawn = torch.rand(len(x), generator=generator, device=device, dtype=torch.float32).to(x.device)
    angle = (2 * math.pi * drawn).to(x.dtype)[:, None]
    cos, sin, (a, up, b) = angle.cos(), angle.sin(), x.unbind(1)
    return torch.stack([cos * a + sin * b, up, cos * b - sin * a], 1)


def jittered(x: Tensor, generator: Generator | None = None, std: float = 0.01, most: float = 0.05) -> Tensor:
    """Return clouds with each coordinate moved by ``std * N(0, 1)``, by at most ``most`` (Qi et al. 2017).

    Args:
        x: Clouds ``(n, axes, points)``; they are not changed.
        generator: Source of the random numbers; torch's global one if ``None``.
        std, most: Size and limit of the moves.

    >>> float(jittered(torch.zeros(2, 3, 100)).abs().max()) <= 0.05
    True
    """
    device = "cpu" if generator is None else generator.device
    noise = torch.randn(x.shape, generator=generator, device=device, dtype=torch.float32)
    return x + (std * noise).clamp(-most, most).to(x)


AUGMENTATIONS.register("turn+jitter", (turn, jittered))  # of clouds
