"""Judges of notebook 04: the norm 1 at stride 2, a blur of equal column sums, the norm 1 in two lines, signs far from
Hölder, and where two bounds change their order.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from convkit.bounds import flattened_bound, holder_bound
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-4  # relative: answers may be computed in float32


@hints(
    "A pixel is read by every window that covers it, and by each through another tap.",
    "Draw windows of 3 × 3 pixels whose corners lie two pixels apart. Mark a pixel that many of them cover.",
    "Do one axis first: how many windows of three pixels, two apart, can cover one pixel? There are two axes.",
)
def bet(largest: Any) -> str | None:
    """Judge the largest column sum of a 3 × 3 kernel of ones on 7 × 7 pixels at stride 2."""
    given = number(largest, "one number, the largest column sum")
    if abs(given - 4) <= _NEAR:
        return None
    known = {
        9.0: "this is the tempting answer; but at stride 2 most of the windows around a pixel are skipped",
        9 / 4: "this is about what an average pixel has; the norm 1 is the largest column sum, and pixels differ",
        1.0: "at stride 3 each pixel would be read by one window alone; at stride 2 windows still overlap",
        2.0: "this is right along one axis; the image has two",
        3.0: "three windows in one direction would need a stride of 1",
        81.0: "this is the square of the sum of all taps; a column holds each tap at most once",
    }
    for wrong, sentence in known.items():
        if abs(given - wrong) <= _NEAR:
            return sentence
    if given < 0:
        return "a sum of absolute values is never negative"
    if given != round(given):
        return "all taps are 1, so every column sum is a whole number"
    return "no pixel has as many windows" if given > 9 else "not this: draw the windows and count those over one pixel"


@hints(
    "At stride 2 the nine taps fall into four residue classes, and a pixel meets one of them.",
    "The four classes share a sum of 1. When is the largest of the four sums as small as it can be?",
    "The classes have four, two, two and one taps. How large must a tap be in a class of few?",
)
def fair(answer: Any) -> str | None:
    """Judge a blur of 3 × 3 taps that should have the smallest norm 1 at stride 2."""
    taps = array(answer, "3 × 3 numbers")
    if taps.shape != (3, 3):
        return f"3 × 3 taps are needed, got shape {tuple(taps.shape)}"
    if taps.min() < -1e-9:
        return "a blur has no negative taps"
    if abs(taps.sum() - 1) > _NEAR:
        return f"the taps must add up to 1, and these add up to {taps.sum():.3f}"
    classes = {f"{a}, {b}": taps[a::2, b::2].sum().item() for a in (0, 1) for b in (0, 1)}
    most = max(classes, key=lambda name: classes[name])
    if classes[most] <= 0.25 + _NEAR:
        return None
    start = "nine equal taps are unfair" if taps.max() - taps.min() < _NEAR else "this can be made smaller"
    return f"{start}: the class that begins at tap ({most}) adds up to {classes[most]:.3f}, and another class to less"


_LAYERS = [  # kernel, image, stride, padding: nothing square, so that no swapped index can hide
    ((3, 2, 3, 5), (6, 9), (1, 1), (1, 2)),
    ((3, 2, 3, 5), (6, 9), (2, 3), (1, 2)),
    ((2, 4, 4, 3), (7, 5), (3, 2), (0, 1)),
    ((5, 1, 2, 5), (8, 11), (1, 4), (1, 3)),
    ((2, 3, 2, 2), (2, 3), (1, 1), (0, 0)),
]


@hints(
    "The second half of (8) has four parts: absolute values, an image of ones, the adjoint, the maximum.",
    "The image of ones has the size of the output, because the adjoint takes an output.",
    "F.conv_transpose2d takes stride and padding as F.conv2d does, and the weight with the same axes.",
)
def norm_1(answer: Callable[..., Any]) -> str | None:
    """Judge a function that should return the norm 1 of a zero-padded layer by a transposed convolution."""
    for place, (shape, image, stride, padding) in enumerate(_LAYERS):
        kernel = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        found = answer(kernel.clone(), image, stride, padding)
        if getattr(found, "shape", ()) and max(found.shape) > 1:
            return "the norm is one number: the largest of the column sums"
        value = number(found, "one number, the norm 1")
        M = ConvOperator(kernel.double(), image, stride, padding, padding_mode="zeros").matrix()
        right = float(torch.linalg.matrix_norm(M, 1))
        if abs(value - right) <= _NEAR * right:
            continue
        if place == len(_LAYERS) - 1:
            return "right on large images, but not on 2 × 3 pixels with a 2 × 2 kernel: how many outputs are there?"
        for wrong, sentence in _mistakes(M, kernel.double()):
            if abs(value - wrong) <= _NEAR * right:
                return sentence
        layer = f"a kernel of shape {shape} on {image} pixels, stride {stride}, padding {padding}"
        return f"for {layer} the norm 1 is {right:.3f}, and yours is {value:.3f}"
    return None


def _mistakes(M: Tensor, kernel: Tensor) -> Iterator[tuple[float, str]]:
    """Return the results of common mistakes, and what is wrong with each of them."""
    yield float(torch.linalg.matrix_norm(M, torch.inf)), "these are row sums, the norm ∞: columns belong to the adjoint"
    signs = "the signs of the taps cancel: where must the absolute values be taken?"
    yield float(M.sum(0).max()), signs
    yield float(M.sum(0).abs().max()), signs
    yield float(torch.linalg.matrix_norm(M, 2)), "this is the norm 2, and the norm 1 is asked for"
    yield float(M.abs().sum()), "this adds up all columns, and the norm is the largest of them"
    yield float(M.abs().sum(0).mean()), "this is the average over the pixels, and the norm is the largest column sum"
    yield float(M.abs().max()), "this is the largest entry: a column holds several"
    belief = "this is the sum of all taps of one input channel, the belief of the bet: where is the stride?"
    yield float(kernel.abs().sum((0, 2, 3)).max()), belief
    yield float(kernel.abs().sum()), "this is the sum of all taps, and a pixel has one channel"


@hints(
    "Hölder is exact where some image agrees with every sign at once: a constant image, stripes, a chessboard.",
    "Signs that repeat with a period of one or two pixels suit such an image. Break the rhythm.",
    "Find signs for three taps on a line first, then use them down and across.",
)
def signs(answer: Any) -> str | None:
    """Judge nine signs for which Hölder's bound should be at least 1.75 times the norm 2 on 8 × 8 circular pixels."""
    taps = array(answer, "3 × 3 signs, each +1 or -1")
    if taps.shape != (3, 3) or (taps.abs() != 1).any():
        return "nine taps are needed, 3 × 3, each +1 or -1"
    A = ConvOperator(taps[None, None], (8, 8))
    ratio = float(holder_bound(A) / operator_norm(A, 2))
    if ratio >= 1.75:
        return None
    if ratio < 1 + 1e-9:
        image = "a constant image" if _all_alike(taps) else "an image of stripes or a chessboard"
        return f"here Hölder is exact: {image} meets every tap with the tap's own sign"
    return f"the ratio is {ratio:.2f}: some wave still agrees with most of the signs"


def _all_alike(taps: Tensor) -> bool:
    return bool((taps == taps[0, 0]).all())


@hints(
    "Print both bounds for some t between 0 and 1 first. Between which two of them does the order change?",
    "Halve that interval again and again: keep the half at whose ends the order differs.",
)
def equal_at(answer: Any) -> str | None:
    """Judge for how much noise Hölder's bound and the flattened one of a noisy identity are equal."""
    t = number(answer, "one number, the t that the noise is multiplied by")
    if t < 0:
        return "look between 0 and 1: there is no noise at 0, and hardly anything else at 1"
    if t == 0:
        return "at 0 Hölder's bound is the norm, 1, and the flattened one is 3"
    below, above = (_difference(t + step) for step in (-1.01e-3, 1.01e-3))
    if below < 0 < above:
        return None
    first, move = ("the flattened bound", "smaller") if below > 0 else ("Hölder's bound", "larger")
    return f"here {first} is the smaller one: take a {move} t"


def _difference(t: float) -> float:
    """Return Hölder's bound minus the flattened one for the exercise's layer, seed 0."""
    taps = t * torch.randn(16, 16, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    taps[:, :, 1, 1] += torch.eye(16, dtype=torch.float64)
    A = ConvOperator(taps, (8, 8))
    return float(holder_bound(A) - flattened_bound(A))
