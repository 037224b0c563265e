"""Judges of notebook 00: a kernel that stops constant images, the norm of a layer, an all-pass kernel, the largest
norm.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_LAYERS, _LEFT = 30, 1e-6
_ROWS = "three rows of three numbers"


@hints(
    "On an image of ones, each entry of the kernel meets a 1. What does the window then add up?",
    "Positive and negative entries must cancel. Start from any kernel, and change its middle entry.",
)
def stops_constants(kernel: Any) -> str | None:
    """Judge a 3 × 3 kernel that should turn every constant image into zero."""
    total = float(array(kernel, _ROWS, (3, 3)).sum())
    return None if abs(total) < 1e-6 else f"an image of ones becomes {total:.3g} everywhere, not 0"


@hints(
    "Each layer multiplies the norm by the same factor. What do two of them do together, what do three?",
    "Equation (3) says what is left after thirty layers of norm c. Now what is left is known, and c is not.",
)
def norm_of_thirty(answer: Any) -> str | None:
    """Judge the norm of each of thirty all-pass layers that together leave a millionth of an image."""
    norm = number(answer, "one number, the norm of each layer")
    right = _LEFT ** (1 / _LAYERS)
    if abs(norm / right - 1) <= 2e-3:
        return None
    if norm < 0:
        return "a norm is never negative; perhaps this is a logarithm of it"
    if norm == 0:
        return "a layer of norm 0 leaves nothing at all"
    if norm >= 1:
        return "with such layers, nothing gets smaller"
    if norm <= 2 * _LEFT:
        return "a single layer of this norm leaves that little already; here thirty of them follow one another"
    if abs(norm * _LAYERS - 1) < 0.02:
        return "thirty layers one after the other multiply; they do not share out a sum"
    return f"thirty such layers leave too {'much' if norm > right else 'little'}: {norm**_LAYERS:.1e}"


@hints(
    "No wave may become weaker or stronger. What can you do to a photograph without changing the value of a pixel?",
    "Each output pixel is a sum over its window. How many pixels of the window may go into that sum, if no image may"
    " be blurred?",
)
def all_pass(kernel: Any) -> str | None:
    """Judge a 3 × 3 kernel, other than the identity, all of whose singular values should be 1."""
    k = array(kernel, _ROWS, (3, 3))
    values = singular_values(ConvOperator(k[None, None], (8, 8)))
    smallest, largest = float(values[-1]), float(values[0])
    if max(abs(smallest - 1), abs(largest - 1)) < 1e-6:
        identity = abs(k[1, 1] - 1) < 1e-6
        return "this is the identity, which hands every image on as it is; find another one" if identity else None
    if largest < 1e-12:
        return "this kernel turns every image into zero"
    if largest - smallest < 1e-6:
        return f"all singular values are equal, but they are {largest:.3g} and not 1"
    if abs(largest - 1) < 1e-6:
        return f"the largest singular value is 1, but the smallest is {smallest:.2g}: some wave becomes weaker"
    return f"on images of 8 × 8 pixels, the singular values run from {smallest:.2g} to {largest:.2g}; all should be 1"


@hints(
    "Section 1 takes a network of three layers and prints the norms of each. Which lines of it do you need?",
    "`conv_operators` gives a dictionary from names to operators. Ask each operator for its norm 2, and keep the name"
    " that belongs to the largest.",
)
def loudest(answer: Callable[[nn.Module, torch.Tensor], Any]) -> str | None:
    """Judge a function that should return the name of the layer with the largest operator norm 2 of a network."""
    if not callable(answer):
        return "this needs a function loudest(model, x) that returns the name of a layer"
    for model, x, sentence in _networks():
        norms = {name: operator_norm(A, 2).item() for name, A in conv_operators(model, x).items()}
        name = answer(model, x)
        if isinstance(name, int) and not isinstance(name, bool) and str(name) in norms:
            return f"it returned the number {name}; the name of that layer is the text {str(name)!r}"
        if not isinstance(name, str) or name not in norms:
            return (
                f"it should return the name of a layer, here one of {', '.join(map(repr, norms))}, not {_short(name)}"
            )
        if norms[name] < max(norms.values()):
            return sentence
    return None


def _networks() -> Iterator[tuple[nn.Module, torch.Tensor, str]]:
    """Return networks, an input for each, and what to tell a reader whose function misses the layer."""
    wide, point, loud = _constant(1, 1, 5, 0.2), _constant(1, 1, 1, 2), _constant(1, 1, 1, 4.7)  # wide: flattened 1
    image = torch.zeros(1, 1, 12, 12)
    doubles = "it named a layer that doubles every image and missed one that makes some of them 4 times larger"
    yield nn.Sequential(wide, point), image, doubles
    yield nn.Sequential(point, wide), image, doubles
    turn = _constant(16, 16, 1, 0)  # 1.5 times a rotation of the channels: norm 2 is 1.5
    random = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    turn.weight.data = 1.5 * torch.linalg.qr(random)[0][..., None, None]
    many = "it named a layer with more entries, or with larger sums of them; that alone does not make images larger"
    head = nn.Linear(16 * 144, 4, bias=False, device="meta").to_empty(device="cpu")
    nn.init.constant_(head.weight, 0.001)
    yield nn.Sequential(_constant(1, 16, 1, 0.5), turn, nn.Flatten(), head), image, many
    yield nn.Sequential(turn, _constant(16, 1, 1, 0.5)), image.expand(1, 16, 12, 12), many
    yield nn.Sequential(loud, wide), image, "two layers come close, and it named the smaller one: compare exact norms"


def _constant(c_in: int, c_out: int, size: int, value: float) -> nn.Conv2d:
    """Return a convolution whose weights are all ``value``; on "meta" it draws nothing of torch's global generator."""
    layer = nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False, device="meta").to_empty(device="cpu")
    nn.init.constant_(layer.weight, value)
    return layer


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"an object of type {type(value).__name__}"
