"""Rows centered and scaled to one norm, for ``project_centered_sphere`` and the constraint ``centered_sphere``."""

import math

import torch
from torch import Tensor


def constrained_rows(rows: Tensor, radius: float | None, center: bool = True) -> tuple[Tensor, Tensor]:
    """Return rows centered and scaled to ``radius`` (``None``: not scaled), and which rows allow it, ``(rows, 1)``.

    Those allow it that are finite and, to be scaled, still above rounding once centered.
    """
    info = torch.finfo(rows.dtype)
    largest = torch.linalg.vector_norm(rows, math.inf, dim=1, keepdim=True)
    # in units of the largest entry, squares neither overflow nor vanish
    units = rows / largest.clamp_min(info.tiny) if radius is not None else rows
    if center:
        units = units - units.mean(1, keepdim=True)
        units = units - units.mean(1, keepdim=True)  # a mean large beside the rest leaves its rounding behind
    if radius is None:
        return units, units.isfinite().all(1, keepdim=True)
    norms = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    rounding = 8 * info.eps * math.sqrt(rows.shape[1])
    fine = norms.isfinite() & (norms > rounding) & (largest > info.tiny / info.eps)
    return units / norms * radius, fine
