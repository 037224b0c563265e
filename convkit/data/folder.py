"""`FolderData`: images in class folders on disk, such as ImageNet, which are read when a batch needs them."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convkit.checks import few, number, positive, seed_number, sequence, whole
from convkit.data.dataset import Data, check_labels
from convkit.loading import needs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as public networks use them
SUFFIXES = (".jpeg", ".jpg", ".png")
AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of random crops: parts of the image, and width over height
TRIALS = 10  # random crops are drawn so often until one fits into the image
Box = tuple[int, int, int, int]  # left, top, right, bottom, as Pillow counts pixels
Reader = Callable[[Any, int], np.ndarray]  # from an opened image and its number to (size, size, 3), uint8


class Files:
    """The paths of images, indexed as a tensor of the images would be."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor | Sequence[int] | slice) -> "Files":
        if isinstance(indices, slice):
            return Files(self.paths[indices])
        return Files([self.paths[index] for index in torch.as_tensor(indices).tolist()])


@dataclass(frozen=True, eq=False, repr=False)
class FolderData(Data):
    """A data set of labeled images in files, used like ``Data``; ``FolderData.read`` makes it from a folder.

    Files are read when a batch needs them, by threads, so that only the batch is in memory. Images are converted to
    RGB (an orientation noted in the file is ignored) and resized by Pillow's bilinear filter:

    - ``test_batch(indices)`` and ``train_batch(indices)`` resize the shorter side to ``resize`` pixels and crop the
      center of ``size`` by ``size`` pixels.
    - ``train_batch(indices, seed)`` crops a random part of the image, resizes it to ``size`` by ``size`` pixels and
      mirrors it with probability one half. As usual for ImageNet (Szegedy et al. 2015), the area is 8 to 100 % of the
      image and width over height 3/4 to 4/3. Each crop depends on the seed and the number of the image alone: not on
      the other images of the batch, the device, or the number of threads. ``fit`` gives each step its own seed.

    ``subset``, ``scarce``, ``holdout`` and ``noisy_labels`` work as for ``Data``. With ``fit``, leave ``augmentation``
    out: images are cropped and mirrored already.

    Args:
        name: The name, which goes into checkpoints and tables.
        images, test_images: ``Files``, the paths of the images.
        labels, test_labels: ``(N,)``, int64, from 0 on.
        class_names: One name per class, in the order of the labels.
        mean, std: One number per channel, for the first step of a network; those of ImageNet unless given.
        size: Height and width of the images in pixels.
        resize: The shorter side of an image before its center is cropped, at least ``size``.

    Raises ``ValueError`` for arguments that do not fit each other, and, with a batch, for a file that cannot be read.
    """

    # the paths in place of the images, and fields in place of properties
    images: Files  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    test_images: Files  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    mean: Sequence[float] = MEAN  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]
    std: Sequence[float] = STD  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]
    size: int = 224
    resize: int = 256

    @classmethod
    def read(
        cls,
        folder: str | Path,
        name: str | None = None,
        *,
        size: int = 224,
        resize: int = 256,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> "FolderData":
        """Return the data of a folder with the images ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test/CLASS/*``).

        This is how ImageNet is unpacked. Files that end with .jpg, .jpeg or .png, in either case, are images; others
        are left out. Classes are the names of the folders, in alphabetical order. Only names are read here.

        To load it by name, as panels and experiments do: ``DATA.register("imagenet", Loader(FolderData.read))``, then
        ``load("imagenet", folder)``. ``DATA`` has no entry for it, since a folder may hold any data set.

        Args:
            folder: The folder.
            name: The name of the data set; ``None`` for that of the folder with the size of the images.
            size, resize, mean, std: See ``FolderData``.

        Raises ``FileNotFoundError`` for a folder without these parts or without images in a class, and ``ValueError``
        for classes that differ between the parts.
        """
        folder = Path(folder)
        training, test = _classes(folder, "train"), _classes(folder, "val", "test")
        names = [[path.name for path in part] for part in (training, test)]
        if names[0] != names[1]:
            alone = [
                f"{few(only)} in {part[0].parent} alone"
                for part, ours, others in ((training, *names), (test, *reversed(names)))
                if (only := [name for name in ours if name not in others])
            ]
            raise ValueError(
                f"training and test images need the same classes, got {' and '.join(alone)}; "
                "add the missing folders or remove those without a counterpart"
            )
        (images, labels), (test_images, test_labels) = _files(training), _files(test)
        size = whole("size", size, 1)
        name = name or f"{folder.resolve().name}, {size} × {size}"
        return cls(name, images, labels, test_images, test_labels, names[0], None, mean, std, size, resize)

    def _check(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            object.__setattr__(self, name, list(sequence(name, values)))
        if len(self.mean) != 3 or len(self.std) != 3:
            came = f"{len(self.mean)} and {len(self.std)}"
            raise ValueError(f"mean and std need one number for each of 3 channels, got {came}; give three of each")
        for m, deviation in zip(self.mean, self.std, strict=True):
            number("each number of mean", m)
            positive("each number of std", deviation)
        object.__setattr__(self, "size", whole("size", self.size, 1))
        object.__setattr__(self, "resize", whole("resize", self.resize, self.size, advice="; size is cropped from it"))
        for part, images, labels in (
            ("training", self.images, self.labels),
            ("test", self.test_images, self.test_labels),
        ):
            if not isinstance(images, Files) or not len(images):
                raise ValueError(f"{self.name}: the {part} part needs Files, at least one; use FolderData.read(folder)")
            check_labels(self, part, images, labels)

    @property
    def in_channels(self) -> int:
        """Return the number of channels of an image, 3."""
        return 3

    @property
    def image_size(self) -> int:
        """Return the height, which is the width, of an image in pixels."""
        return self.size

    def train_batch(self, indices: Tensor | Sequence[int] | slice, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the training images at ``indices``, float32 in [0, 1], and their labels.

        With a ``seed``, random crops of the images, some mirrored; without, they are read as test images are.
        """
        if seed is None:
            return self._batch(self.images, self.labels, indices, self._center)
        seed = seed_number(seed) % 2**64  # which NumPy takes, too

        def cropped(image: Any, place: int) -> np.ndarray:
            random = np.random.default_rng((seed, place))
            part = image.crop(random_box(image.width, image.height, random)).resize((self.size, self.size), _bilinear())
            pixels = np.asarray(part)
            return pixels[:, ::-1] if random.random() < 0.5 else pixels

        return self._batch(self.images, self.labels, indices, cropped)

    def test_batch(self, indices: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return the test images at ``indices``, float32 in [0, 1], and their labels."""
        return self._batch(self.test_images, self.test_labels, indices, self._center)

    def _center(self, image: Any, place: int) -> np.ndarray:
        """Return the center of the image after its shorter side was resized."""
        width, height = (int(self.resize * side / min(image.size)) for side in image.size)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        resized = image.resize((width, height), _bilinear())
        return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))

    def _batch(
        self, files: Files, labels: Tensor, indices: Tensor | Sequence[int] | slice, read: Reader
    ) -> tuple[Tensor, Tensor]:
        """Return the images of these files, read by threads, and their labels."""
        where = torch.arange(len(files))[indices] if isinstance(indices, slice) else torch.as_tensor(indices)
        places = [range(len(files))[place] for place in where.tolist()]  # also -1, for the last
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(lambda place: _opened(files.paths[place], read, place), places))
        x = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())
        return x.to(self.device).float() / 255, labels[where.to(self.device)]


def random_box(width: int, height: int, random: np.random.Generator) -> Box:
    """Return a random part of an image of this size for training: left, top, right and bottom.

    Its area and the logarithm of width over height are uniform in ``AREAS`` and ``RATIOS``, its place is uniform. After
    ``TRIALS`` parts that do not fit into the image it is the largest central one whose ratio is within ``RATIOS``.
    """
    for _ in range(TRIALS):
        area = random.uniform(AREAS[0], AREAS[1]) * width * height
        ratio = math.exp(random.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(random.integers(0, room + 1)) for room in (width - w, height - h))
            return left, top, left + w, top + h
    w, h = min(width, round(height * RATIOS[1])), min(height, round(width / RATIOS[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


# ---- files -----------------------------------------------------------------------------------------------------------
def _bilinear() -> Any:
    with needs("kit", "reading images"):
        from PIL import Image

    return Image.Resampling.BILINEAR


def _opened(path: str, read: Reader, place: int) -> np.ndarray:
    """Return the pixels that ``read`` takes from an image; raise ``ValueError`` for a file that is none."""
    with needs("kit", "reading images"):
        from PIL import Image
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"its numbers of mode {image.mode} have more than 8 bits")
            rgb = image.convert("RGB")
    except Exception as error:  # whatever Pillow meets in a damaged or foreign file
        raise ValueError(
            f"the image {path} cannot be read ({error or type(error).__name__}): it is missing, damaged or no image; "
            "fetch it again, or remove it from the folder"
        ) from error
    return read(rgb, place)


def _classes(folder: Path, *names: str) -> list[Path]:
    """Return the class folders of the first of these parts that is there, by name."""
    for name in names:
        found = [path for inside in _listed(folder / name) if (path := folder / name / inside).is_dir()]
        if found:
            return found
    wanted = " or ".join(f"{folder / name}" for name in names)
    part = next((folder / name for name in names if (folder / name).is_dir()), folder)
    there = few(_listed(part)) if part.is_dir() else "no such folder"
    raise FileNotFoundError(
        f"needed {wanted} with a folder of images for each class, got {there} in {part}; name the folder that holds "
        "train and val"
    )


def _files(classes: Sequence[Path]) -> tuple[Files, Tensor]:
    """Return the images of all classes, in the order of their names, and their labels."""
    paths, counts = [], []
    for folder in classes:
        found = [os.path.join(folder, name) for name in _listed(folder) if name.lower().endswith(SUFFIXES)]
        if not found:
            raise FileNotFoundError(
                f"needed images ({', '.join(SUFFIXES)}) in {folder}, got {few(_listed(folder))}; add them, or remove "
                "the folder"
            )
        paths += found
        counts.append(len(found))
    return Files(paths), torch.arange(len(counts), device="cpu").repeat_interleave(torch.tensor(counts, device="cpu"))


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, sorted, without hidden ones; none if it is not there."""
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []
