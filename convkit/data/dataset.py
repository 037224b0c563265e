"""`Data`: training and test images with labels, as tensors, checked once."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NoReturn

import torch
from torch import Tensor

from convkit.checks import described, plain


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set of labeled images in memory, with a training and a test part.

    Args:
        name: The name, which goes into checkpoints and tables.
        images, test_images: ``(N, channels, size, size)``, uint8, or float32 in [0, 1].
        labels, test_labels: ``(N,)``, int64, from 0 on.
        class_names: One name per class, in the order of the labels.

    All tensors are on one device. Raises ``ValueError`` for anything else.
    """

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: Sequence[str]
    _clean: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))  # it goes into checkpoints
        object.__setattr__(self, "class_names", tuple(plain(self.class_names)))
        if not isinstance(self.name, str):
            raise ValueError(f"a data set needs a name, a word, got {described(self.name)}")
        self._check()

    def _check(self) -> None:
        """Raise ``ValueError`` unless images and labels fit each other."""
        _check_images(self, "training", self.images)
        check_labels(self, "training", self.images, self.labels)
        _check_images(self, "test", self.test_images)
        check_labels(self, "test", self.test_images, self.test_labels)
        if self.images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"{self.name} needs training and test images of one shape, got {tuple(self.images.shape[1:])} "
                f"and {tuple(self.test_images.shape[1:])}; crop or resize one of them"
            )

    @property
    def clean_labels(self) -> Tensor:
        """Return the training labels without label noise, ``(N,)``; ``labels`` unless ``noisy_labels`` changed them."""
        return self.labels if self._clean is None else self._clean

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Return the number of channels of an image."""
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        """Return the height, which is the width, of an image in pixels."""
        return self.images.shape[2]

    @property
    def device(self) -> torch.device:
        """Return the device of the images and labels."""
        return self.labels.device

    @property
    def mean(self) -> list[float]:
        """Return the mean of each channel over the training images, in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> list[float]:
        """Return the standard deviation of each channel over the training images, in [0, 1]; 1 if it is constant."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[list[float], list[float]]:
        means, stds = [], []
        for channel in self.images.unbind(1):
            if channel.dtype == torch.uint8:  # from the histogram: exact, and no copy of all images in floating point
                shares = torch.bincount(channel.flatten(), minlength=256).cpu().double() / channel.numel()
                values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
                mean = (shares * values).sum()
                variance = (shares * (values - mean).square()).sum()
            else:
                variance, mean = torch.var_mean(channel.double(), correction=0)
            means.append(mean.item())
            stds.append(variance.sqrt().item() if variance > 1e-12 else 1.0)  # so that dividing by it is safe
        return means, stds

    def train_batch(self, indices: Tensor | Sequence[int] | slice, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the training images at ``indices``, float32 in [0, 1], and their labels, as copies.

        ``seed`` determines the random crops of data that are cropped as they are read (``FolderData``). Images in
        memory are always returned as they are.
        """
        return _batch(self.images, self.labels, indices)

    def test_batch(self, indices: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Return the test images at ``indices``, float32 in [0, 1], and their labels, as copies."""
        return _batch(self.test_images, self.test_labels, indices)

    def to(self, device: torch.device | str) -> "Data":
        """Return the same data on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = self.image_size
        return (
            f"{type(self).__name__}({self.name}: {len(self):,} training and {len(self.test_images):,} test images, "
            f"{self.in_channels} × {size} × {size}, {self.classes} classes, on {self.device})"
        )


def _batch(images: Tensor, labels: Tensor, indices: Tensor | Sequence[int] | slice) -> tuple[Tensor, Tensor]:
    """Return copies of the images at ``indices``, float32 in [0, 1], and of their labels."""
    if isinstance(indices, slice):  # not as a view: a change of the batch must not reach the data
        indices = torch.arange(len(images), device=images.device)[indices]
    where = torch.as_tensor(indices, device=images.device)
    x = images[where]
    return (x.float() / 255 if x.dtype == torch.uint8 else x), labels[where]


def check_labels(data: Data, part: str, images: Sized, labels: Tensor) -> None:
    """Raise ``ValueError`` unless the labels of one part are as many as its images and numbers of classes."""
    if labels.shape != (len(images),) or labels.dtype != torch.int64:
        came = f"{labels.dtype} {tuple(labels.shape)}"
        _refuse(data, part, f"{len(images)} int64 labels", came, "give one label to each image")
    devices = [getattr(images, "device", labels.device), labels.device]
    if any(device != data.labels.device for device in devices):
        _refuse(data, part, "everything on one device", f"{devices[0]} and {devices[1]}", "move it")
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= data.classes:
        came = f"{low} .. {high}"
        _refuse(data, part, f"labels 0 .. {data.classes - 1}", came, "check the file, or name all classes")


def _check_images(data: Data, part: str, images: Tensor) -> None:
    """Raise ``ValueError`` unless the images of one part have a shape, a dtype and numbers that can be used."""
    if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.numel():
        _refuse(data, part, "images (N, channels, size, size)", tuple(images.shape), "reshape, crop or pad them")
    if images.dtype not in (torch.uint8, torch.float32):
        _refuse(data, part, "uint8 or float32 images", images.dtype, "convert them")
    if images.dtype == torch.float32:
        darkest, brightest = (float(end) for end in images.aminmax())
        if not (darkest >= 0 and brightest <= 1):  # also if one is NaN
            came = f"{darkest:g} .. {brightest:g}"
            _refuse(data, part, "images in [0, 1]", came, "normalization is the model's first step")


def _refuse(data: Data, part: str, needed: str, came: object, remedy: str) -> NoReturn:
    raise ValueError(f"{data.name}: the {part} part needs {needed}, got {came}; {remedy}")
