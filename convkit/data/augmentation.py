"""Random augmentation of batches of images: crops, flips, Cutout and a random policy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convkit.checks import Registry, whole
from convkit.data.dataset import Data

# Random numbers are drawn in float32 on the generator's device and then moved to that of the images, so that one seed
# of a generator on the CPU gives the same changes on every device.


def random_crop(x: Tensor, padding: int, generator: Generator | None = None) -> Tensor:
    """Return each image shifted by up to ``padding`` pixels along both axes, with black where nothing is left.

    Args:
        x: Images ``(n, channels, height, width)`` in [0, 1]; they are not changed.
        padding: The largest shift in pixels.
        generator: Source of the random numbers; torch's global one if ``None``.

    Raises ``ValueError`` for a ``padding`` that is not a whole number of at least 0 and for a batch of another shape.
    """
    padding = whole("random_crop's padding", padding, 0)
    if x.ndim != 4:
        raise ValueError(
            f"random_crop needs images (n, channels, height, width), got shape {tuple(x.shape)}; for clouds of points "
            "use the augmentation 'turn+jitter'"
        )
    n, _, height, width = x.shape
    down, right = integers(0, 2 * padding + 1, (2, n), x, generator)
    windows = F.pad(x, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view of every possible crop
    return windows[torch.arange(n, device=x.device), :, down, right]


def random_flip(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Return each image, or its mirror image from left to right, with probability one half.

    Args:
        x: Images ``(n, channels, height, width)``; they are not changed.
        generator: Source of the random numbers; torch's global one if ``None``.
    """
    return torch.where(_chance(x, generator), x.flip(-1), x)


def cutout(
    x: Tensor, size: int, generator: Generator | None = None, fill: Tensor | Sequence[float] | None = None
) -> Tensor:
    """Return each image with a square of ``size`` by ``size`` pixels replaced by one color.

    Cutout (DeVries & Taylor 2017) writes zeros into normalized images, which is the mean color of the *data set*, the
    same for every image: ``fill=data.mean``. By default it is the mean color of the image itself, which in a dark or a
    bright image is closer to what it covers, and so hides less. The center of the square is any pixel; parts of it may
    lie outside of the image.

    Args:
        x: Images ``(n, channels, height, width)`` in [0, 1]; they are not changed.
        size: Side of the square in pixels.
        generator: Source of the random numbers; torch's global one if ``None``.
        fill: The color, one number per channel; the mean color of each image if ``None``.

    Raises ``ValueError`` for a ``size`` that is not a whole number of at least 1 and a ``fill`` of other channels.
    """
    size = whole("cutout's size", size, 1, advice="; leave cutout out instead", floats=True)
    n, channels, height, width = x.shape
    color = x.mean((2, 3), keepdim=True) if fill is None else torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    if fill is not None and color.shape != (channels,):
        raise ValueError(f"cutout's fill must have one number per channel, {channels}, got shape {tuple(color.shape)}")
    top = integers(0, height, (n, 1, 1, 1), x, generator) - size // 2
    left = integers(0, width, (n, 1, 1, 1), x, generator) - size // 2
    row, column = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    inside = (row >= top) & (row < top + size) & (column >= left) & (column < left + size)
    return torch.where(inside, color.view(-1, channels, 1, 1), x)


def auto_augment(x: Tensor, generator: Generator | None = None, rounds: int = 2) -> Tensor:
    """Return each image after ``rounds`` operations, drawn uniformly, each with a uniform strength.

    The operations are those of AutoAugment (Cubuk et al. 2019), but nothing is searched: these are not the policies
    that AutoAugment or Fast AutoAugment found, and results should not be reported under their names.

    Args:
        x: Images ``(n, channels, height, width)`` in [0, 1]; they are not changed.
        generator: Source of the random numbers; torch's global one if ``None``.
        rounds: Number of operations per image.

    Raises ``ValueError`` for ``rounds`` that are not a whole number of at least 0.
    """
    kinds = len(OPERATIONS)
    draws = []
    for _ in range(whole("auto_augment's rounds", rounds, 0)):
        choice = integers(0, kinds, (len(x),), x, generator)
        draws.append((choice, uniform((len(x), 1, 1, 1), x, generator) * 2 - 1))
    if not draws:
        return x
    chosen = torch.stack([choice for choice, _ in draws])
    counts = (chosen[..., None] == torch.arange(kinds, device=x.device)).sum(1).tolist()  # a GPU is waited for once
    for (_, strength), order, sizes in zip(draws, chosen.argsort(dim=1, stable=True), counts, strict=True):
        changed = torch.empty_like(x)
        for operation, some in zip(OPERATIONS.values(), order.split(sizes), strict=True):
            if len(some):
                changed[some] = operation(x[some], strength[some].to(x.dtype)).clamp(0, 1)
        x = changed
    return x


# ---- by name -------------------------------------------------------------------------------------------------------
Augmentation = Callable[[Tensor, Generator | None], Tensor]


@dataclass(frozen=True)
class ForData:
    """A step of an augmentation that depends on the data set: ``make(data)`` returns the step."""

    make: Callable[[Data], Augmentation]


def crop(x: Tensor, generator: Generator | None) -> Tensor:
    """Crop by up to an eighth of the width."""
    return random_crop(x, max(1, x.shape[-1] // 8), generator)


def _cutout(x: Tensor, generator: Generator | None) -> Tensor:
    """Cut out a square of half the width."""
    return cutout(x, x.shape[-1] // 2, generator)


def _published_cutout(data: Data) -> Augmentation:
    """Return Cutout with a square of half the width and the mean color of the data."""
    mean = torch.tensor(data.mean, dtype=torch.float32, device=data.device)
    return lambda x, generator: cutout(x, x.shape[-1] // 2, generator, mean)


PUBLISHED_CUTOUT = ForData(_published_cutout)

AUGMENTATIONS: Registry[Sequence[Augmentation | ForData]] = Registry(  # the steps of each, in order
    "AUGMENTATIONS",
    {
        "none": (),
        "crop": (crop,),
        "crop+flip": (crop, random_flip),
        "crop+flip+cutout": (crop, random_flip, _cutout),
        "crop+flip+published cutout": (crop, random_flip, PUBLISHED_CUTOUT),
        "auto": (crop, random_flip, auto_augment, _cutout),
    },
)


def augment(name: str, data: Data | None = None) -> Augmentation:
    """Return the augmentation of this name in ``AUGMENTATIONS``: a function of a batch and a generator.

    A name such as ``"crop+flip"`` lists the steps in order. Crops shift by up to an eighth of the width and ``cutout``
    takes half of it: the usual 4 and 16 pixels of 32. ``"cutout"`` writes the mean color of each image, ``"published
    cutout"`` that of ``data``, which is 0 after normalization. ``"auto"`` is crop, flip, ``auto_augment`` and
    ``cutout``. The searched policies of Fast AutoAugment come from a file: see ``with_policy``.

    Raises ``UnknownNameError``, a ``ValueError``, for an unknown name and ``ValueError`` where a step needs ``data``.
    """
    steps: list[Augmentation] = []
    for step in AUGMENTATIONS[name]:
        if isinstance(step, ForData) and data is None:
            raise ValueError(f"the augmentation {name!r} needs the mean color of the data; use augment({name!r}, data)")
        steps.append(step.make(data) if isinstance(step, ForData) and data is not None else step)  # pyright: ignore

    def augmented(x: Tensor, generator: Generator | None = None) -> Tensor:
        for step in steps:
            x = step(x, generator)
        return x

    return augmented


# ---- the operations of auto_augment: images and strengths (n, 1, 1, 1) in [-1, 1] to images, clamped by the caller -
def _affine(x: Tensor, rows: list[list[Tensor | float]]) -> Tensor:
    """Return the images sampled at ``rows @ (x, y, 1)``, coordinates in [-1, 1]; black outside."""
    one = torch.ones_like(x[:, 0, 0, 0])
    theta = torch.stack([torch.stack([one * entry for entry in row], -1) for row in rows], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _shear_x(x: Tensor, s: Tensor) -> Tensor:
    return _affine(x, [[1, 0.3 * s.flatten(), 0], [0, 1, 0]])


def _shear_y(x: Tensor, s: Tensor) -> Tensor:
    return _affine(x, [[1, 0, 0], [0.3 * s.flatten(), 1, 0]])


def _shift_x(x: Tensor, s: Tensor) -> Tensor:
    return _affine(x, [[1, 0, 0.6 * s.flatten()], [0, 1, 0]])


def _shift_y(x: Tensor, s: Tensor) -> Tensor:
    return _affine(x, [[1, 0, 0], [0, 1, 0.6 * s.flatten()]])


def _rotate(x: Tensor, s: Tensor) -> Tensor:
    angle = math.pi / 6 * s.flatten()
    return _affine(x, [[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])


def _brightness(x: Tensor, s: Tensor) -> Tensor:
    return (1 + 0.9 * s) * x


def _contrast(x: Tensor, s: Tensor) -> Tensor:
    gray = _gray(x).mean((2, 3), keepdim=True)
    return gray + (1 + 0.9 * s) * (x - gray)


def _saturation(x: Tensor, s: Tensor) -> Tensor:
    gray = _gray(x)
    return gray + (1 + 0.9 * s) * (x - gray)


def _sharpness(x: Tensor, s: Tensor) -> Tensor:
    smooth = F.avg_pool2d(F.pad(x, [1] * 4, mode="replicate"), 3, stride=1)
    return smooth + (1 + 0.9 * s) * (x - smooth)


def _posterize(x: Tensor, s: Tensor) -> Tensor:
    """Round to 2 to 5 bits per channel."""
    levels = 2.0 ** (3.5 + 1.5 * s).round() - 1
    return (x * levels).round() / levels


def _solarize(x: Tensor, s: Tensor) -> Tensor:
    return torch.where(x >= (1 + s) / 2, 1 - x, x)


def _autocontrast(x: Tensor, s: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


def _equalize(x: Tensor, s: Tensor) -> Tensor:
    """Replace each value by the fraction of pixels of its channel that are not brighter; the darkest becomes 0."""
    values = x.flatten(2).contiguous()
    rank = torch.searchsorted(values.sort(-1).values, values, right=True)
    rank = rank.to(torch.promote_types(x.dtype, torch.float32))  # holds the number of any pixel
    lowest = rank.amin(-1, keepdim=True)
    span = values.shape[-1] - lowest
    return torch.where(span > 0, (rank - lowest) / span.clamp(min=1), values).to(x.dtype).view_as(x)


def _identity(x: Tensor, s: Tensor) -> Tensor:
    return x


def _gray(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        **{"identity": _identity, "shear x": _shear_x, "shear y": _shear_y, "shift x": _shift_x, "shift y": _shift_y},
        **{"rotate": _rotate, "brightness": _brightness, "contrast": _contrast, "saturation": _saturation},
        **{"sharpness": _sharpness, "posterize": _posterize, "solarize": _solarize},
        **{"autocontrast": _autocontrast, "equalize": _equalize},
    }
)


# ---- random numbers ------------------------------------------------------------------------------------------------
def integers(low: int, high: int, shape: tuple[int, ...], like: Tensor | None, generator: Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    drawn = torch.randint(low, high, shape, generator=generator, device=device)
    return drawn if like is None else drawn.to(like.device)


def uniform(shape: tuple[int, ...], like: Tensor | None, generator: Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    drawn = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    return drawn if like is None else drawn.to(like.device)


def _chance(x: Tensor, generator: Generator | None) -> Tensor:
    return uniform((len(x), 1, 1, 1), x, generator) < 0.5
