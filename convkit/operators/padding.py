"""Padding around the images of a batch, with zeros or with pixels of the image, and its adjoint."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.operators.geometry import PaddingMode, pixels_at, sum_by_place

Pads = Sequence[tuple[int, int]]  # pixels (before, after) on each spatial axis


def pad(x: Tensor, pads: Pads, padding_mode: PaddingMode) -> Tensor:
    """Return the batch with each image padded; its pixels are repeated as often as the pads need."""
    if padding_mode == "zeros":
        return F.pad(x, [amount for sides in reversed(pads) for amount in sides])
    for axis, (before, after) in enumerate(pads, start=2):
        n = x.shape[axis]
        x = x.index_select(axis, pixels_at(torch.arange(-before, n + after, device=x.device), n, padding_mode))
    return x


def unpad(x: Tensor, sizes: Sequence[int], pads: Pads, padding_mode: PaddingMode) -> Tensor:
    """Apply the adjoint of ``pad`` for images of these sizes; pixels that x lacks at its end count as zero."""
    for axis, (n, (before, after)) in enumerate(zip(sizes, pads, strict=True), start=2):
        missing = n + before + after - x.shape[axis]
        x = F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, missing])
        if padding_mode == "zeros":
            x = x.narrow(axis, before, n)
        else:  # each padded copy of a pixel sends its share back to that pixel
            pixels = pixels_at(torch.arange(-before, n + after, device=x.device), n, padding_mode)
            x = sum_by_place(x, axis, pixels, n)
    return x
