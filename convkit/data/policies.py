"""Policies of Fast AutoAugment: read from the user's file, and carried out by Pillow on the CPU."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from convkit.checks import described, plain, real
from convkit.data.augmentation import PUBLISHED_CUTOUT, Augmentation, ForData, crop, random_flip, uniform
from convkit.loading import needs

if TYPE_CHECKING:
    from PIL.Image import Image

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **{"ShearX": (-0.3, 0.3), "ShearY": (-0.3, 0.3), "TranslateX": (-0.45, 0.45), "TranslateY": (-0.45, 0.45)},
        **{"Rotate": (-30, 30), "AutoContrast": (0, 1), "Invert": (0, 1), "Equalize": (0, 1), "Solarize": (0, 256)},
        **{"Posterize": (4, 8), "Contrast": (0.1, 1.9), "Color": (0.1, 1.9), "Brightness": (0.1, 1.9)},
        **{"Sharpness": (0.1, 1.9), "Cutout": (0, 0.2)},
    }
)
"""The operations, and the strengths to which the levels 0 and 1 of a policy belong (Lim et al. 2019, released code)."""

MIRRORED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")  # the sign of their strength is drawn
CUTOUT_COLOR = (125, 123, 114)
Step = tuple[str, float, float]  # operation, probability, level


@dataclass(frozen=True)
class Policy:
    """A policy of Fast AutoAugment (Lim et al. 2019): an augmentation, which draws one sub-policy for each image.

    Calling it with images ``(n, channels, height, width)`` in [0, 1], one channel or three, and a generator returns the
    changed images. The operations of the sub-policy follow one another, each with its probability and its level from 0
    to 1 in ``RANGES``; those in ``MIRRORED`` change the sign of their strength with probability one half. They are
    Pillow's, on 8-bit images: an image that is changed is rounded to multiples of 1/255 first, and one channel counts
    as three equal ones. This runs on the CPU, one image after another, in about 0.1 ms for 32 × 32 pixels; a GPU is
    waited for twice a batch. A seed of a generator on the CPU gives the same images on every device.

    Args:
        choices: The sub-policies, each a sequence of ``(operation, probability, level)``.

    Raises ``ValueError`` for an operation that is not in ``RANGES``, numbers outside of [0, 1], and images of other
    channels; ``MissingExtraError`` without Pillow.

    >>> policy = Policy([[("Invert", 1.0, 0.5), ("Solarize", 1.0, 0.5)]])
    >>> (255 * policy(torch.tensor([0, 100, 255]).view(1, 1, 1, 3) / 255)).round().int().flatten().tolist()
    [0, 100, 0]
    """

    choices: Sequence[Sequence[Step]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", _checked(self.choices, "a policy"))

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"a policy needs images (n, channels, height, width) of 1 or 3 channels, got {tuple(x.shape)}"
            )
        most = max(map(len, self.choices))
        draws = uniform((len(x), 1 + 4 * most), None, generator).tolist()
        arrays = (x.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        rows: list[int] = []
        changed: list[np.ndarray[Any, Any]] = []
        for row, (which, *numbers) in enumerate(draws):
            steps = self.choices[int(which * len(self.choices))]
            drawn = zip(steps, (numbers[4 * i : 4 * i + 4] for i in range(len(steps))), strict=True)
            happens = [(step, rest) for step, (chance, *rest) in drawn if chance < step[1]]
            if happens:
                rows.append(row)
                changed.append(_carried_out(arrays[row], happens))
        if not rows:
            return x
        images = torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(x.device)
        return x.index_copy(0, torch.tensor(rows).to(x.device), (images.float() / 255).to(x.dtype))


def read_policy(path: str | PathLike[str]) -> Policy:
    """Return the policy in a file: a list of sub-policies, each a list of ``[operation, probability, level]``.

    The file holds the list alone, as JSON or as Python writes it; in the released code of Fast AutoAugment it is what
    the functions of ``archive.py`` assign to ``p``. Raises ``ValueError`` for anything else, with the first entry that
    does not fit, and ``FileNotFoundError`` where there is no such file.
    """
    text = Path(path).read_text("utf-8")
    try:
        found = ast.literal_eval(text.strip())  # a list of words and numbers in JSON is one in Python
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        start = described(text[:40])
        raise ValueError(
            f"{path} must hold a list of sub-policies alone, as [[['Invert', 0.1, 0.5], ['Color', 0.9, 0.2]]], in JSON "
            f"or as Python writes it, got a file that begins with {start}; leave out what stands around the list"
        ) from None
    return Policy(_checked(found, str(path)))


def with_policy(policy: Policy) -> tuple[Augmentation | ForData, ...]:
    """Return the steps policy, crop, flip, Cutout for ``AUGMENTATIONS``, in the order of Fast AutoAugment's code.

    The crop shifts by up to an eighth of the width. Cutout writes the mean color of the data set into a square of half
    the width, which is 0 after normalization. ``AUGMENTATIONS.register("my policy", with_policy(read_policy(path)))``
    makes them an augmentation by that name, for ``fit(..., augmentation="my policy")``; a process of its own has to
    register it again. Checkpoints know the name alone: give another policy another name.
    """
    return policy, crop, random_flip, PUBLISHED_CUTOUT


def apply_operation(
    image: "Image", operation: str, level: float, mirrored: bool = False, center: tuple[float, float] = (0.5, 0.5)
) -> "Image":
    """Return an RGB image of Pillow after one operation of ``RANGES`` at a level from 0 to 1.

    Args:
        image: An image of mode ``"RGB"``.
        operation: A name in ``RANGES``.
        level: Its strength is that far on the way from the lower to the upper end of its range.
        mirrored: Whether the sign of the strength changes.
        center: The center of the square of "Cutout", as parts of width and height. The square ends early at the lower
            and the right side, and never begins before the others, as in the released code.

    The geometric operations take the nearest pixel and leave black; "Posterize" keeps the whole part of its strength as
    bits. Strengths have no effect on "AutoContrast", "Invert" and "Equalize".
    """
    with needs("kit", "a policy of Fast AutoAugment"):
        from PIL import Image as pillow
        from PIL import ImageDraw, ImageEnhance, ImageOps
    low, high = RANGES[operation]
    value = low + level * (high - low)
    value = -value if mirrored else value
    width, height = image.size
    if operation == "Rotate":
        return image.rotate(value)
    if operation in MIRRORED:
        sheared = {"ShearX": (1, value, 0, 0, 1, 0), "ShearY": (1, 0, 0, value, 1, 0)}
        moved = {"TranslateX": (1, 0, value * width, 0, 1, 0), "TranslateY": (1, 0, 0, 0, 1, value * height)}
        return image.transform(image.size, pillow.Transform.AFFINE, {**sheared, **moved}[operation])
    if operation == "Cutout":
        side, image = value * width, image.copy()
        if side > 0:
            left, top = (int(max(0, part * n - side / 2)) for part, n in zip(center, (width, height), strict=True))
            ends = min(width, left + side), min(height, top + side)
            ImageDraw.Draw(image).rectangle((left, top, *ends), CUTOUT_COLOR)
        return image
    if operation in ("Contrast", "Color", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, operation)(image).enhance(value)
    strength = {"Solarize": (value,), "Posterize": (int(value),)}.get(operation, ())
    return getattr(ImageOps, operation.lower())(image, *strength)


# ---- private ---------------------------------------------------------------------------------------------------------
def _carried_out(array: np.ndarray[Any, Any], steps: Iterable[tuple[Step, Sequence[float]]]) -> np.ndarray[Any, Any]:
    """Return an image ``(height, width, channels)`` of bytes after these operations."""
    with needs("kit", "a policy of Fast AutoAugment"):
        from PIL import Image as pillow
    single = array.shape[2] == 1
    image = pillow.fromarray(array[..., 0] if single else array).convert("RGB")
    for (operation, _, level), (sign, across, down) in steps:
        image = apply_operation(image, operation, level, operation in MIRRORED and sign > 0.5, (across, down))
    return np.asarray(image.convert("L"))[..., None] if single else np.asarray(image)


def _checked(choices: Any, where: str) -> tuple[tuple[Step, ...], ...]:
    """Return the sub-policies as tuples; raise ``ValueError`` for the first entry that does not fit."""
    choices = plain(choices)
    if not _several(choices) or not all(map(_several, choices)):
        raise ValueError(
            f"{where} must be a list of sub-policies, each a list of [operation, probability, level], at least one of "
            f"each, got {described(choices)}; a single sub-policy is [[...]]"
        )
    for number, steps in enumerate(choices):
        for step in steps:
            fits = isinstance(step, list | tuple) and len(step) == 3 and isinstance(step[0], str)
            parts = [real(part) for part in step[1:]] if fits else []
            if not fits or step[0] not in RANGES or any(part is None or not 0 <= part <= 1 for part in parts):
                raise ValueError(
                    f"{where} must have [operation, probability, level] everywhere, with numbers from 0 to 1 and one "
                    f"of {', '.join(RANGES)}, got {described(step)} in sub-policy {number}"
                )
    return tuple(tuple((name, float(chance), float(level)) for name, chance, level in steps) for steps in choices)


def _several(entries: Any) -> bool:
    return isinstance(entries, list | tuple) and len(entries) > 0
