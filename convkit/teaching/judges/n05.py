"""Judges of notebook 05: the norm after one round, the clip of blocks, the bound to ask for, a norm after a clip, how
many rounds.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from convkit.data.trained import trained_kernels
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop, clip_reshaped_kernel, clip_singular_values
from convkit.spectra import singular_values, symbol
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-6  # what a reader may lose by rounding


def _norm(A: ConvOperator) -> float:
    return singular_values(A)[0].item()


def bet(percent: Any) -> str | None:
    """Judge by how many percent the norm exceeds the bound after one clip and one crop at 0.3 of the norm."""
    excess = number(percent, "one number, the percent above the bound")
    if excess == 0:
        return "this is the tempting belief: clip, crop, done; open the picture below"
    if excess < 0:
        return "the crop undoes a part of the clip, so the norm does not fall below the bound here"
    if excess >= 233:
        return "the norm was 233 percent above the bound before anything was done; one round does help"
    if excess < 36:
        part = "you gave a fraction; the bet is in percent, and " if excess < 1 else ""
        return f"{part}it is more than that: what the crop throws away was needed to keep the clipped waves down"
    return "it is less than that: one round takes away most of so large an excess" if excess > 60 else None


@hints(
    "The function clip_matrix above does this for one matrix. torch.linalg.svd takes all blocks at once.",
    "The singular values come as an array of shape (h, w, r), the U as (h, w, c_out, r). Multiply column i of U by "
    "value i: along which axis must the values lie for that?",
)
def clip(answer: Callable[[Tensor, float], Any]) -> str | None:
    """Judge a function that should clip all singular values of a stack of blocks at a bound."""
    generator = torch.Generator().manual_seed(0)
    for shape, part in (((3, 2, 3, 2), 0.5), ((2, 4, 2, 3), 0.3)):
        A = ConvOperator(torch.randn(*shape, dtype=torch.float64, generator=generator), (6, 5))
        blocks, bound = symbol(A), part * _norm(A)
        sentence = _wrong_clip(answer(blocks.clone(), bound), blocks, bound, symbol(clip_singular_values(A, bound)))
        if sentence:
            return sentence
    return None


def _wrong_clip(answer: Any, blocks: Tensor, bound: float, right: Tensor) -> str | None:
    if not isinstance(answer, Tensor):
        return f"a tensor of blocks is needed, got {type(answer).__name__}"
    if answer.ndim < blocks.ndim:
        return "these are not blocks: put U and Vh around the clipped values, in every block"
    if answer.shape != blocks.shape:
        return f"the blocks have shape {tuple(blocks.shape)}, yours {tuple(answer.shape)}: full_matrices=False helps"
    if not answer.isfinite().all():
        return "some entries are NaN or infinite"
    if not answer.is_complex():
        return "these blocks are real, those of a layer are complex: use Vh and U as torch returns them"
    if (answer - right).abs().max() < _NEAR:
        return None
    S = torch.linalg.svdvals(blocks)
    if (torch.linalg.svdvals(answer) - S.clamp(max=bound)).abs().max() < _NEAR:
        return "the singular values are right, the vectors are not: torch returns Vh, which is to be used as it is"
    if (answer - blocks * bound / S.max()).abs().max() < _NEAR:
        return "you rescaled all blocks: values below the bound must stay as they are"
    if torch.linalg.svdvals(answer).max() <= bound + _NEAR:
        return "the bound is kept, but this is not the nearest point: only singular values above the bound may change"
    return "a singular value is above the bound: clip the S of the SVD, not the entries of the blocks"


@hints(
    "Try a few numbers below one half, and look at how the result follows what was asked for.",
    "The more you ask for, the larger the result: halve an interval again and again, as in a search for a root.",
)
def asked(part: Any) -> str | None:
    """Judge the bound to ask for, as a part of the norm, so that one round ends just below one half of the norm."""
    share = number(part, "one number, the bound as a part of norm(A)")
    if not 0 < share <= 1:
        return "the bound is asked for as a part of the norm, between 0 and 1"
    A = ConvOperator(trained_kernels()["64 to 64"][:6, :6].double(), (10, 10))
    reached = _norm(clip_and_crop(A, share * _norm(A))) / _norm(A)
    if reached > 0.5:
        belief = "this is the belief of the bet; " if share == 0.5 else ""
        return f"{belief}the round ends at {reached:.3f} times the norm, above a half: ask for less"
    if reached < 0.49:
        return f"the round ends at {reached:.3f} times the norm, lower than it has to be: ask for more"
    return None


@hints(
    "Flatten the kernel. How many rows has it, and what is its norm before the clip? Does the clip change it at all?",
    "After the clip all taps are still equal. Which image does a kernel of equal positive taps stretch most?",
)
def true_norm(answer: Callable[[float, int, int, float], Any]) -> str | None:
    """Judge the norm of a layer of equal taps after the clip of its flattened kernel."""
    for t, kh, kw, c in [(1.0, 3, 3, 0.5), (0.2, 3, 5, 0.4), (0.1, 2, 3, 1.0), (0.7, 4, 1, 0.9)]:
        A = ConvOperator(torch.full((1, 1, kh, kw), t, dtype=torch.float64), (9, 10))
        found = array(answer(t, kh, kw, c), "a function that gives one number").flatten()
        if found.numel() != 1:
            return "the function should give one number"
        value, right, flat, taps = found.item(), _norm(clip_reshaped_kernel(A, c)), t * (kh * kw) ** 0.5, kh * kw
        if abs(value - right) < _NEAR:
            continue
        case = f"for t = {t}, {kh} × {kw} taps and c = {c} this is not the norm"
        if min(abs(value - c), abs(value - min(c, flat))) < _NEAR:
            return f"{case}: it is that of the flattened kernel, and a constant image is stretched by more"
        if abs(value - c * taps) < _NEAR:
            return f"{case}: the flattened norm adds up squares, so think of its root"
        if abs(value - c * taps**0.5) < _NEAR:
            return f"{case}: the flattened norm {flat:.3f} is below the bound here, so what does the clip do?"
        if abs(value - t * taps) < _NEAR:
            return f"{case}: it is the norm before the clip"
        return f"{case}: it is too {'large' if value > right else 'small'}"
    return None


@hints(
    "clip_and_crop takes a layer and returns one, so its result can go into it again.",
    "The bound stays where it is: 0.4 times the norm of the layer that you began with, on the same image.",
)
def rounds(answer: Any) -> str | None:
    """Judge after how many rounds of clip and crop the excess is below 1 percent, on 10 × 10 and 20 × 20 pixels."""
    pair = array(answer, "two whole numbers of rounds", (2,))
    if not torch.equal(pair, pair.round()) or pair.min() < 1:
        return "rounds are counted: this needs whole numbers from 1 on"
    right = [_rounds(side) for side in (10, 20)]
    found = [int(count) for count in pair]
    if found == right:
        return None
    if found == right[::-1]:
        return "both numbers are right, but in the other order"
    side, count, needed = next(case for case in zip((10, 20), found, right, strict=True) if case[1] != case[2])
    few = "the excess is still 1 percent or more" if count < needed else "the excess was below 1 percent earlier"
    return f"on {side} × {side} pixels after {count} rounds: {few}"


@functools.cache
def _rounds(side: int) -> int:
    A = ConvOperator(trained_kernels()["64 to 64"][:6, :6].double(), (side, side))
    bound, count = 0.4 * _norm(A), 0
    while _norm(A) >= 1.01 * bound:
        A, count = replace(A, kernel=clip_and_crop(A, bound).kernel), count + 1
    return count
