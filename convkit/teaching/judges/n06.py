"""Judges of notebook 06: the bet on a jump, BatchNorm after a shorter kernel, a rate, test images, a kept bound."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.data.registry import digits
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop, dykstra
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number
from convkit.training.loop import fit

_NEAR = 1e-6  # what a reader may lose by rounding
_SLACK = 1e-5  # relative, of a bound that is kept up to rounding
_LONGER = 1.1  # in how many times Dykstra's distance the bound may be reached


@hints(
    "BatchNorm makes the network blind to the length of a kernel. What does this do to the gradient of a short one?",
    "Compare the length of the next step with the length of the kernel: both have changed.",
)
def bet(norm: Any) -> str | None:
    """What is the largest norm of a convolution 30 steps after all were clipped at 0.5?"""
    found = number(norm, "one number, the largest norm of a convolution")
    if found <= 0:
        return "a norm is positive, unless all weights are 0"
    if found < 0.75:
        return "one round leaves it above the bound (notebook 05), and then thirty steps of training follow"
    if found < 4.2:
        return "this is the tempting belief: it creeps back to where it was, and no farther; open the picture below"
    if found < 5:
        return "it is more than that: not only a little above what it was without a clip"
    return None if found <= 14 else "it is less than that: it was not so large in any run of ours"


@hints(
    "What does the convolution give for one image when every weight is multiplied by the same number?",
    "The mean of many numbers and their variance: how does each change when all the numbers are doubled?",
)
def statistics(answer: Callable[[Tensor, Tensor, float], Any]) -> str | None:
    """The running mean and variance with which BatchNorm gives the same after its kernel was multiplied by a factor."""
    generator = torch.Generator().manual_seed(0)
    for factor, channels in ((0.25, 3), (0.6, 4), (2.0, 5)):
        mean = torch.randn(channels, dtype=torch.float64, generator=generator)
        variance = 0.5 + torch.rand(channels, dtype=torch.float64, generator=generator)
        wanted = "the mean and the variance, a number for each channel in both"
        found = array(answer(mean.clone(), variance.clone(), factor), wanted, (2, channels))
        new_mean, new_variance = found
        right = factor * mean, factor**2 * variance
        wrong = [_far(new, old) for new, old in zip(found, right, strict=True)]
        if not any(wrong):
            continue
        case = f"for a factor of {factor:g}"
        if not _far(new_mean, right[1]) and not _far(new_variance, right[0]):
            return f"{case} the order is wrong: first the mean, then the variance"
        if not _far(new_mean, mean) and not _far(new_variance, variance):
            return f"{case} these are the old statistics, and those are the trouble"
        if not _far(new_mean, mean / factor) or not _far(new_variance, variance / factor**2):
            return f"{case} this goes the wrong way: a shorter kernel makes smaller outputs"
        if wrong[0]:
            return f"{case} the mean is wrong: every output has changed in the same way"
        if not _far(new_variance, factor * variance):
            return f"{case} the variance is wrong: it is a mean of squares"
        return f"{case} the variance is wrong: how far do the outputs lie from their mean now?"
    return None


def _far(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _NEAR)


@hints(
    "After the clip the weights are shorter and the gradient is longer. Make up for both.",
    "Divide 0.1 by ten, and by ten again, and look at the norms in between.",
)
def calm(rate: Any) -> str | None:
    """Judge a learning rate after a clip at 0.5 with which the norms stay below three times the bound for 30 steps."""
    found = number(rate, "one number, the learning rate")
    if found < 0.001:
        return "the rate should be 0.001 or more: with less the weights hardly move"
    if found > 1:
        return "a rate of at most 1 is meant"
    for seed in range(3):
        norm = _after_a_clip(found, seed)
        if norm > 1.5:
            return f"with this rate and seed {seed} the largest norm is {norm:.2f} after 30 steps"
    return None


@cache
def _after_a_clip(rate: float, seed: int) -> float:
    """Return the largest norm of a convolution 30 steps after a clip at 0.5, as in section 2."""
    few, clip = subset(digits(), 200), {"bound": 0.5, "every": 45}
    net = network("cnn9", few, "norm_clip", seed=seed, knobs=clip, widths=(8, 16, 32))
    plan: dict[str, Any] = {"batch_size": 50, "seed": seed, "schedule": "constant"}
    for _ in fit(net, few, "norm_clip", steps=45, knobs={"lr": 0.1, **clip}, **plan):
        pass
    for _ in fit(net, few, "batchnorm", steps=30, knobs={"lr": rate}, **plan):
        pass
    norms, _ = measure(net, few.train_batch([0])[0])
    return max(norm for name, norm in norms.items() if isinstance(net.get_submodule(name), nn.Conv2d))


@hints(
    "Write the standard deviation in percent, set it equal to a third of the gain, and solve for n.",
    "n stands under a root. Square both sides first.",
)
def images(answer: Callable[[float, float], Any]) -> str | None:
    """The number of test images on which an accuracy has a third of the gain as its standard deviation."""
    for accuracy, gain in ((90.0, 1.5), (97.0, 0.6), (94.0, 0.5)):
        found = number(answer(accuracy, gain), "a function that gives one number")
        variance = accuracy * (100 - accuracy)  # of one image, in points squared
        right = variance / (gain / 3) ** 2
        if abs(found - right) <= 1 + _NEAR:  # whole numbers are welcome
            continue
        case = f"for {accuracy:g} percent and a gain of {gain:g} it is not {found:.5g}"
        known = {
            variance / gain**2: "there the standard deviation is the whole gain, not a third of it",
            2 * right: "that would be for the difference of two accuracies; the question is about one",
            right / 1e4: "accuracy and gain are both in percent: do not mix them with parts of 1",
            right * 1e4: "accuracy and gain are both in percent: do not mix them with parts of 1",
            variance**0.5 / (gain / 3): "twice the images do not halve the deviation: n stands under a root",
            variance / (gain / 3): "the gain has to be squared, too",
        }
        for value, sentence in known.items():
            if math.isclose(found, value, rel_tol=0.01):
                return f"{case}: {sentence}"
        return f"{case}: it is too {'many' if found > right else 'few'}"
    return None


@hints(
    "The layer has zeros around its image. Which circular layer has the same kernel and at least the same norm?",
    "Section 8 of notebook 05 projects such a layer; look at how it gets its kernel back.",
)
def kept(answer: Callable[[ConvOperator, float], Any]) -> str | None:
    """A kernel near the old one with which the zero-padded layer is within the bound."""
    generator = torch.Generator().manual_seed(0)
    kernels = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((3, 2, 3, 3), (2, 4, 3, 3))]
    line = torch.tensor([[[[1.0, -2, 1]]]], dtype=torch.float64)  # circular norm 3 on three pixels, zero-padded 3.414
    cases = [(kernels[0], (6, 5), 0.5), (line, (4, 3), 0.88), (kernels[1], (5, 7), 0.3), (kernels[1], (5, 7), 1.2)]
    for kernel, shape, part in cases:
        layer = ConvOperator(kernel, shape, padding_mode="zeros")
        bound = part * _norm(layer)
        sentence = _not_kept(answer(layer, bound), layer, bound)
        if sentence:
            return sentence
    return None


def _norm(layer: ConvOperator) -> float:
    return torch.linalg.matrix_norm(layer.matrix(), 2).item()


def _not_kept(answer: Any, layer: ConvOperator, bound: float) -> str | None:
    kernel = layer.kernel
    found = array(answer.kernel if isinstance(answer, ConvOperator) else answer, "a kernel of finite numbers")
    size = " × ".join(map(str, kernel.shape[2:]))
    if found.shape != kernel.shape:
        if found.ndim == 4 and found.shape[:2] == kernel.shape[:2] and found[0, 0].numel() > kernel[0, 0].numel():
            return f"this kernel is too large: it has to keep its {size} taps"
        return f"this needs a kernel of finite numbers of shape {tuple(kernel.shape)}, got {tuple(found.shape)}"
    norm, torus = _norm(replace(layer, kernel=found)), layer.torus()
    if norm > bound * (1 + _SLACK):
        case = f"a {size} layer has norm {norm:.3f} now, and the bound is {bound:.3f}"
        if operator_norm(replace(layer, kernel=found).circular(), 2) <= bound * (1 + _SLACK):
            return f"{case}: with circular padding it would be kept, and this layer has zero padding"
        if any(not _far(found, clip_and_crop(A, bound).kernel) for A in (torus, layer.circular())):
            return f"{case}: one round is not enough"
        return f"{case}: nothing has changed" if not _far(found, kernel) else case
    moved, nearest = (found - kernel).norm(), (dykstra(torus, bound).kernel - kernel).norm()
    if moved > _LONGER * nearest + _NEAR:
        if nearest < _NEAR:
            return "one of the layers was within its bound from the start: its kernel has to stay as it is"
        rescaled = not _far(found, kernel * (found.norm() / kernel.norm()))
        how = ": a plain rescale, which moves every singular value" if rescaled else ""
        return f"the bound is kept, but the kernel has moved {moved / nearest:.1f} times as far as it must{how}"
    return None
