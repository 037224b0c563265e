"""Judges of notebook 12: a product bound, BatchNorm folded in, a bound in one line, a chain, norms that multiply."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convkit.teaching.checks import Feedback, hints
from convkit.teaching.judges.numbers import array, number, whole

_NEAR = 1e-6  # what a reader may lose by rounding
_POWERS = math.log10(2.882e9 / 114.5)  # of ten between product bound and steepest slope; notebooks/results has both


@hints(
    "Think of 20 layers, one after the other. By which factor is the bound of each too large?",
    "Factors multiply: write them as powers of ten, and the powers add up.",
)
def bet(powers: Any) -> str | None:
    """Judge how many powers of ten lie between the product bound and the steepest slope found."""
    found = number(powers, "one number, the powers of ten")
    if found < 0:
        return "then a slope would have been found above the bound, and no bound allows that"
    if found <= 2:
        return (
            "this is the tempting belief, that the product tells the constant; think of 20 layers, each a bit too large"
        )
    if found > 9.5:
        return "then the steepest slope would be below 1: nothing a network with an opinion could live on"
    if abs(found - _POWERS) < 1:
        return None
    return f"it is {'more' if found < _POWERS else 'fewer'} than that; the picture shows it"


@hints(
    "Write down what BatchNorm does to one number of channel i in evaluation mode. By what is it multiplied?",
    "BatchNorm holds weight, running_var and eps. One of them stands under a root together with another one.",
    "The gain of channel i multiplies everything that leads to output channel i: which axis of the kernel is that?",
)
def fold(answer: Callable[[Tensor, nn.BatchNorm2d], Any]) -> str | None:
    """Judge a function that should return the kernel of a convolution with the BatchNorm after it folded in."""
    norm = nn.BatchNorm2d(3, eps=0.05).double().eval()
    kernel = torch.arange(1.0, 82.0, dtype=torch.float64).view(3, 3, 3, 3)
    norm.weight.data = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    norm.running_mean = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
    norm.running_var = torch.tensor([0.25, 4.0, 1.0], dtype=torch.float64)
    weight, mean, variance, eps = norm.weight.data, norm.running_mean, norm.running_var, norm.eps

    def by(gain: Tensor, axis: int = 0) -> Tensor:
        return kernel * gain.view([-1 if i == axis else 1 for i in range(4)])

    gain = weight / (variance + eps).sqrt()
    known = [
        (by(gain), None),
        (by(weight), "the weight alone is not the gain: BatchNorm divides, too"),
        (by(1 / (variance + eps).sqrt()), "BatchNorm also multiplies by its own weight"),
        (by(weight / (variance + eps)), "it divides by the deviation, and the running variance is its square"),
        (by(weight / variance.sqrt()), "eps is missing: it stands under the root, with the variance"),
        (by(weight / (variance.sqrt() + eps)), "eps is added to the variance, before the root"),
        (by(weight * (variance + eps).sqrt()), "it divides by the deviation, you multiply"),
        (by(gain.abs()), "a negative weight turns the sign of its channel"),
        (by(gain) - mean.view(-1, 1, 1, 1), "the mean moves the outputs, it does not change the kernel"),
        (by(gain, 1), "gains belong to output channels: which axis of the kernel is that?"),
        (by(gain, 2), "this multiplies rows of taps; gains belong to output channels"),
        (by(gain, 3), "this multiplies columns of taps; gains belong to output channels"),
    ]
    found = array(answer(kernel.clone(), norm), "a kernel of finite numbers")
    if found.shape != kernel.shape:
        return f"a kernel of shape {tuple(kernel.shape)} is needed, got {tuple(found.shape)}"
    for right, sentence in known:
        if (found - right).abs().max() < _NEAR * right.abs().max():
            return sentence
    return "conv followed by norm does something else than this kernel: compare the two on an image"


@hints(
    "What is the bound of one block, x plus F(x)? And of two blocks, one after the other?",
    "The mean over p pixels is a row of p numbers, each 1/p. How long is that row?",
)
def bound_of(answer: Callable[[list[float], int], Any]) -> str | None:
    """Judge a function that should bound blocks x + F(x), one after another, and then a mean over p pixels."""
    for branches, pixels in (([0.5, 2.0, 0.1], 16), ([1.0] * 10, 64), ([3.0], 1), ([0.25, 0.5], 9)):
        found = number(answer(list(branches), pixels), "a function that gives one number")
        blocks, root = math.prod(1 + b for b in branches), math.sqrt(pixels)
        if abs(found - blocks / root) < _NEAR * blocks:
            continue
        mistakes = {
            "the skip is missing": math.prod(branches) / root,
            "one block comes after the other: their bounds multiply": (1 + sum(branches)) / root,
            "a sum over blocks is for branches side by side": sum(1 + b for b in branches) / root,
            "the norm of a mean of p pixels is not 1/p": blocks / pixels,
            "the pooling at the end is missing": blocks,
            "the mean makes things smaller, not larger": blocks * root,
        }
        for sentence, mistake in mistakes.items():
            if abs(found - mistake) < _NEAR * abs(mistake):
                return sentence
        return f"for branches {branches} and {pixels} pixels {found:.4g} is not the bound"
    return None


@hints(
    "Write a loop over seeds, and take the mean of the logarithms of chain_loss(depth, 16, seed).",
    "The factor grows by nearly the same ratio with every further matrix. Begin with 6, and go on until it is enough.",
)
def deep(depth: Any) -> str | None:
    """Judge the number of random matrices of size 16 whose norms multiply to a thousand times that of the product."""
    found = whole(depth, "one whole number, of matrices")
    if found < 2:
        return "one matrix alone loses nothing: its product is itself"
    if found > 100:
        return "so many are not needed"
    here, before, after = (_lost(count) for count in (found, found - 1, found + 1))
    if before <= 1000 <= after:
        return None
    return f"with {found} matrices the factor is {here:.3g}: too {'many' if here > 1000 else 'few'}"


def _lost(depth: int) -> float:
    """Return the product of the norms over the norm of the product, in the geometric mean over ten seeds."""
    logs = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        chain = torch.randn(depth, 16, 16, dtype=torch.float64, generator=generator) / 4
        whole_chain = chain[0]
        for matrix in chain[1:]:
            whole_chain = matrix @ whole_chain
        logs.append(math.log(math.prod(map(_norm, chain)) / _norm(whole_chain)))
    return math.exp(sum(logs) / len(logs))


@hints(
    "Which direction leaves A most stretched, and which direction does B stretch most? The SVDs of A and B have them.",
    "Q has to turn the first of these directions into the second. An orthogonal matrix can turn a whole basis.",
    "torch.linalg.svd(A) gives U, S, Vh. The columns of U are what comes out of A, the rows of Vh what goes in.",
)
def meet(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Judge an orthogonal Q for which the norms of B and A should multiply."""
    generator = torch.Generator().manual_seed(3)
    for size in (5, 3):
        A, B = torch.randn(2, size, size, dtype=torch.float64, generator=generator)
        Q = array(answer(A.clone(), B.clone()), "a matrix of finite numbers")
        if Q.shape != A.shape:
            raise Feedback(f"a {size} × {size} matrix is needed, got one of shape {tuple(Q.shape)}")
        if (Q @ Q.T - torch.eye(size)).abs().max() > _NEAR:
            return "this one is not orthogonal: Q Qᵀ is not the identity"
        share = _norm(B @ Q @ A) / (_norm(A) * _norm(B))
        if abs(share - 1) < _NEAR:
            continue
        if abs(_norm(B @ Q.T @ A) / (_norm(A) * _norm(B)) - 1) < _NEAR:
            return "it is the other way round: Q takes what comes out of A to what B stretches"
        (U, _, Wh), (X, _, Vh) = torch.linalg.svd(A), torch.linalg.svd(B)
        if any((Q - wrong).abs().max() < _NEAR for wrong in (Wh.T @ X.T, X @ Wh, Wh.T @ Vh, X @ U.T)):
            return "left and right are exchanged: ask what comes out of A and what goes into B"
        return f"orthogonal, but the product reaches {share:.0%} only"
    return None


def _norm(M: Tensor) -> float:
    return torch.linalg.matrix_norm(M, 2).item()
