"""Judges of notebook 07: the norm of normalized channels, a blur, one input channel, the inverse root, a scale."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.randomness import seeded
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-6  # what a reader may lose by rounding


@hints(
    "Each channel keeps some images and removes the others. Can several channels keep the same image?",
    "At one frequency the layer is a matrix of random rows of length 1. How large is its largest singular value?",
)
def bet(norm: Any) -> str | None:
    """Judge the norm of a layer of 16 random channels of norm 1."""
    found = number(norm, "one number, the norm of the layer")
    if found == 1:
        return "this is the tempting belief: each channel has norm 1, so the layer has; open the picture below"
    if found < 1:
        return "a layer has at least the norm of each of its channels, and that is 1"
    if abs(found - 4) < 1e-3:
        return "this is the root of 16, which equal channels reach; random channels do not all stretch the same image"
    if found > 2.3:
        return "it is less than that: 16 random channels do not all stretch the same image"
    return None if found >= 1.7 else "it is more than that: one image can be stretched by several channels at once"


@hints(
    "Look at (3): what is left of the transform of a, once it has been divided by its absolute value?",
    "The transform of this blur is given. Can it be negative or complex at any of the nine frequencies?",
)
def blur(answer: Any) -> str | None:
    """Judge the kernel of the normalization of the blur (1/2, 1/4, 0, ..., 0, 1/4) on nine pixels."""
    g = array(answer, "nine numbers, one for each pixel", (9,))
    kernel = torch.zeros(9, dtype=torch.float64)
    kernel[0], kernel[1], kernel[8] = 0.5, 0.25, 0.25
    spectrum = torch.fft.fft(kernel)
    known = [
        (torch.fft.ifft(spectrum / spectrum.abs()).real, None),
        (kernel, "this is the blur itself, whose strengths are not all 1"),
        (
            torch.ones(9, dtype=torch.float64),
            "these are the values of g-hat, frequency by frequency; transform them back",
        ),
        (torch.fft.ifft(1 / spectrum.abs()).real, "this is v; g is v convolved with a"),
        (1 / spectrum.abs(), "this is v-hat, and it has to be multiplied by a-hat and transformed back"),
    ]
    for right, sentence in known:
        if (g - right).abs().max() < _NEAR:
            return sentence
    strengths = torch.fft.fft(g).abs()
    if (strengths - 1).abs().max() < _NEAR:
        return "all strengths are 1, but the phases are not those that the blur has"
    return f"the strength at one of the frequencies is {strengths[(strengths - 1).abs().argmax()]:.2f}, and not 1"


@hints(
    "Each output channel is an all-pass filter of the same image here. What is the block at a frequency?",
    "A block is a column of as many numbers as there are channels out. What do you know of the size of each?",
)
def one_channel(answer: Callable[[int], Any]) -> str | None:
    """Judge the smallest and the largest norm of a normalized layer with one input channel."""
    for c_out in (3, 16, 2):
        low, high = array(answer(c_out), "two numbers, the smallest norm and the largest", (2,)).tolist()
        root = c_out**0.5
        if max(abs(low - root), abs(high - root)) < _NEAR:
            continue
        if low > high + _NEAR:
            return "the first number must be the smallest norm, the second the largest"
        if abs(low - 1) < _NEAR:
            return "a single channel has norm 1, but each of the others keeps the strength of the same image, too"
        if abs(high - c_out) < _NEAR:
            return "what adds up over the channels is the squares of lengths, not the lengths"
        if abs(high - (1 + root)) < _NEAR:
            return "1 + root(c_out / c_in) describes random layers with many channels in; a block is one column here"
        if abs(low) < _NEAR:
            return "a norm of 0 would mean that every image becomes 0"
        wrong = "smallest" if abs(low - root) >= _NEAR else "largest"
        return f"for {c_out} channels out the {wrong} norm is another one"
    return None


@hints(
    "Transform the weight with fft2 and s=(n, n). What has to be summed, and over which axis of (c_out, c_in, n, n)?",
    "(5) sums squares of absolute values over the inputs i; then comes a power with a negative exponent.",
)
def inverse_root(answer: Callable[[Tensor, int], Any]) -> str | None:
    """Judge a function that should return v-hat of a kernel with circular padding on n × n pixels."""
    generator = torch.Generator().manual_seed(0)
    for shape, n in (((4, 2, 3, 3), 7), ((2, 3, 5, 5), 8)):
        weight = torch.randn(*shape, dtype=torch.float64, generator=generator)
        spectrum = torch.fft.fft2(weight, s=(n, n)).abs()
        sentence = _wrong_root(answer(weight.clone(), n), spectrum, spectrum.square().sum(1).rsqrt())
        if sentence:
            return sentence
    return None


def _wrong_root(answer: Any, spectrum: Tensor, right: Tensor) -> str | None:
    if isinstance(answer, Tensor) and answer.is_complex():
        return "the result is real: use the absolute values of the transform"
    found = array(answer, "a tensor of finite numbers of shape (c_out, n, n)")
    if found.shape != right.shape:
        if found.shape == spectrum.shape[1:]:
            return "you summed over the output channels; each output channel has a v of its own"
        if found.shape == spectrum.shape:
            return "one v for each output channel: sum over its inputs before you take the root"
        return f"needed shape {tuple(right.shape)}, got {tuple(found.shape)}"
    known = [
        (right, None),
        (1 / right, "this is the strength of the channel; v is its inverse"),
        (right**2, "you forgot the root: the power is not -1"),
        (spectrum.sum(1).rsqrt(), "add up the squares of the absolute values, not the absolute values"),
        (1 / spectrum.sum(1), "add up the squares of the absolute values, not the absolute values"),
        ((spectrum**2).mean(1).rsqrt(), "(5) has the sum over the inputs, not the mean"),
    ]
    for other, sentence in known:
        if (found - other).abs().max() < _NEAR * other.abs().max():
            return sentence
    return "the shape is right, the numbers are not: compare them with (5), step by step"


@hints(
    "Run before_and_after(0, 1.0), and compare the two norms. Which of them moves when you change the scale?",
    "The norm before is proportional to the scale, the norm after is not. So one division gives the scale.",
)
def turning(scale: Any) -> str | None:
    """Judge the scale of torch's start at which ConvNorm leaves the norm of a layer as it is."""
    found = number(scale, "one number, a factor on the start")
    if found <= 0:
        return "the scale is positive: a factor of 0 leaves no kernel, and a sign changes no norm"
    before, after = zip(*map(_norms, range(5)), strict=True)
    ratio = sum(after) / (found * sum(before))
    if abs(ratio - 1) <= 0.03:
        return None
    return f"at this scale ConvNorm still {'raises' if ratio > 1 else 'lowers'} the norm"


def _norms(seed: int) -> tuple[float, float]:
    """Return the norm of a layer of torch's start on its torus, without and with ConvNorm."""
    with seeded(seed):
        layer = ConvNorm2d(16, 16, 3, padding=1, affine=False).double().requires_grad_(False).eval()
    pair = ConvOperator(layer.weight, (10, 10)), layer.operator((8, 8))
    before, after = (operator_norm(A, 2).item() for A in pair)
    return before, after
