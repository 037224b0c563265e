"""Judges of notebook 01: the entries of a layer's matrix, circ(a), the shift of torch's output, a kernel from its
matrix, how often a test misses a mistake.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convkit.operators.circulants import circulant
from convkit.operators.operator import ConvOperator
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number

_PIXELS = 32 * 32
_NEAR = 0.1  # a bet need not hit the last digit


@hints(
    "A matrix multiplies one vector and gives another. Which two vectors are these here, and how long are they?",
    "Think of one single row of M. Which output number does it make, and from how many numbers of the image?",
    "The cell above the bet prints how many numbers go into the layer and how many come out.",
)
def bet(entries: Any) -> str | None:
    """Judge the number of entries of the matrix of a layer from 3 to 16 channels on 32 × 32 pixels."""
    count = number(entries, "one number, how many entries M has")
    right = (16 * _PIXELS) * (3 * _PIXELS)
    tempting = {
        16 * 27: "this is the weight, laid out as a table; but M takes a whole image, not one window",
        16 * 27 * _PIXELS: "this counts what the windows read; M has an entry for what a window skips, too: a zero",
        (3 * _PIXELS) ** 2: "this M would be square; but this layer gives more numbers than it takes",
        (16 * _PIXELS) ** 2: "this M would be square; but this layer takes fewer numbers than it gives",
        _PIXELS**2: "this would be enough for one channel in and one channel out; the layer has more of both",
        3 * _PIXELS: "so many numbers go into the layer; that is one side of M, not all of it",
        16 * _PIXELS: "so many numbers come out of the layer; that is one side of M, not all of it",
    }
    if abs(count - right) <= _NEAR * right:
        return None
    for wrong, sentence in tempting.items():
        if abs(count - wrong) <= 0.05 * wrong:  # also without the zeros that padding brings
            return sentence
    return "M has more entries than that" if count < right else "M has fewer entries than that"


@hints(
    "Write down the rows for a = 1 2 3 by hand. What does the window that begins one place later read?",
    "torch.roll moves the entries of a vector and brings in at one end what leaves at the other.",
    "Make one row for each place where the window can begin, and put them on top of each other with torch.stack.",
)
def circ(answer: Callable[[Tensor], Any]) -> str | None:
    """Judge a function that should return circ(a) of S: a in the first row, each further row shifted to the right."""
    a = torch.arange(1.0, 6.0, dtype=torch.float64)
    found = array(answer(a.clone()), "a 5 × 5 matrix for a vector of 5 numbers", (5, 5))
    right = circulant(a)
    if not torch.allclose(found, right, atol=1e-6):
        return _wrong_circulant(found, right, a)
    other = torch.tensor([7.0, -2.0, 9.0, 4.0], dtype=torch.float64)
    found = array(answer(other.clone()), "a 4 × 4 matrix for a vector of 4 numbers", (4, 4))
    if not torch.allclose(found, circulant(other), atol=1e-6):
        return "for a = 1 2 3 4 5 this is right, but not for a = 7 -2 9 4: it must work for every vector"
    return None


def _moved_left(a: Tensor) -> Tensor:
    return torch.stack([a.roll(-i) for i in range(len(a))])


def _wrong_circulant(found: Tensor, right: Tensor, a: Tensor) -> str:
    """Return what is wrong with a matrix that is not ``right``, the circulant of ``a``."""
    known = [
        (right.T, "this is the transposed matrix, the one that SciPy's circulant makes; S lets a row read the kernel"),
        (_moved_left(a), "your rows move to the left; the window moves to the right, and its row with it"),
        (right.triu(), "this is the Toeplitz matrix of zeros beyond the end; here the padding is circular"),
        (right.tril(), "one half of the matrix is missing; which windows cross the end of the signal?"),
        (a.diag(), "a diagonal matrix only multiplies each place by a number; here a window reads several places"),
    ]
    known += [
        (right.roll(step, 0), "the rows are right, but the first one belongs to a window that begins elsewhere")
        for step in range(1, len(a))
    ]
    for matrix, sentence in known:
        if torch.allclose(found, matrix, atol=1e-6):
            return sentence
    if torch.allclose(found, found[:1].expand_as(found)):
        return "all rows are the same, but every window begins at a place of its own"
    if torch.allclose(found, found[:, :1].expand_as(found)):
        return "in each row all numbers are the same, but a row holds the kernel"
    row = int((found - right).abs().amax(1).gt(1e-6).nonzero()[0])
    numbers = " ".join(f"{value:g}" for value in found[row].tolist())
    return f"row {row} is the first wrong one: for a = 1 2 3 4 5 yours is {numbers}"


@hints(
    "How many pixels does torch pad before the image, in each direction? Section 4 says it.",
    "A window that begins earlier meets the same pixels at a later output. Does the output move up or down then?",
    "Do rows and columns one at a time, and for an even number of taps look up how torch rounds.",
)
def shift(answer: Any) -> str | None:
    """Judge by how much torch's centered output is shifted against that of S, for a kernel of 5 rows and 4 columns."""
    pair = array(answer, "two whole numbers, (rows, columns)", (2,))
    if not torch.equal(pair, pair.round()):
        return "an output can only be moved by whole pixels"
    rows, columns = (int(steps) for steps in pair)
    right = (2, 1)
    if (rows, columns) == right:
        return None
    if (rows, columns) == (-right[0], -right[1]):
        return "the sizes are right, the direction is not: torch pads before the image, so where does its output go?"
    if (rows, columns) == right[::-1]:
        return "both numbers are right, but in the other order: rows first"
    if rows == right[0]:
        return "the rows are right, the columns are not: 4 taps have no middle one, so see how torch rounds"
    if columns == right[1]:
        return "the columns are right, the rows are not"
    if (abs(rows), abs(columns)) == (4, 3):
        return "this is all the padding; torch puts only a part of it before the image"
    if (abs(rows), abs(columns)) == (5, 4):
        return "this is the size of the kernel; by how much does its window begin earlier?"
    return "neither the rows nor the columns are right"


@hints(
    "One row of M holds the whole kernel of one output channel, if its window does not cross the edge.",
    "Choose an output pixel away from the edge. Which pixels does its window cover? Read only these off the row.",
    "A row of M, with the axes of the question, is an image for each input channel: cut the window out of it.",
)
def read_kernel(answer: Callable[[Tensor], Any]) -> str | None:
    """Judge a function that should read the kernel of a zero-padded layer (3 to 2 channels, 4 × 5 pixels) off its
    matrix.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        kernel = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=generator)
        M = ConvOperator(kernel, (4, 5), padding_mode="zeros").matrix()
        found = array(answer(M.clone()), "a kernel of shape (2, 3, 3, 3)")
        sentence = _wrong_kernel(found, kernel)
        if sentence is not None:
            return sentence
    return None


def _wrong_kernel(found: Tensor, kernel: Tensor) -> str | None:
    """Return what is wrong with a kernel; ``None`` if it is right."""
    if found.shape == (3, 2, 3, 3):
        return "the channels are exchanged: torch has the output channel first"
    if found.shape == (2, 3, 4, 5):
        return "these are whole images, one for each pair of channels; the kernel is only the window in them"
    if found.shape != kernel.shape:
        return f"this needs a kernel of shape (2, 3, 3, 3), got shape {tuple(found.shape)}"
    if torch.allclose(found, kernel, atol=1e-6):
        return None
    known = [
        (kernel.flip(2, 3), "this is the kernel turned by 180°: you have read a column of the matrix, take a row"),
        (kernel.mT, "rows and columns of the kernel are exchanged"),
        (kernel.flip(0), "the two output channels are exchanged"),
        (kernel.flip(1), "the input channels are in the opposite order"),
    ]
    for wrong, sentence in known:
        if torch.allclose(found, wrong, atol=1e-6):
            return sentence
    if (found == 0).any():
        return "some taps are zero: that window reaches over the edge, or you cut the row beside its window"
    if (found - kernel).abs().amin() < 1e-6:
        return "some taps are right, but not all: do all channels come from windows at the same place?"
    if set(found.flatten().tolist()) <= set(kernel.flatten().tolist()):
        return "these are taps of the kernel, but not in their places"
    return "these are not the taps of the kernel: each of them stands in the matrix as it is"


@hints(
    "sum() over passes(seed) counts, because True counts as 1.",
    "For the second count change the line that draws the taps, and nothing else; the image is drawn after them.",
)
def hidden(answer: Any) -> str | None:
    """Judge for how many of 200 kernels stacked columns pass a test: with taps of 0 and 1, and with taps by randn."""
    counts = array(answer, "two whole numbers, one for each kind of kernel", (2,))
    if not torch.equal(counts, counts.round()) or counts.min() < 0 or counts.max() > 200:
        return "these are counts among 200 kernels: whole numbers from 0 to 200"
    drawn = [torch.randint(0, 2, (2, 2), generator=torch.Generator().manual_seed(seed)) for seed in range(200)]
    symmetric = sum(torch.equal(taps, taps.T) for taps in drawn)  # columns pass for these alone
    first, second = (int(count) for count in counts)
    if (first, second) == (symmetric, 0):
        return None
    if first == 200 - symmetric:
        return "you have counted the kernels that find the mistake; asked for are those that miss it"
    if first == second:
        return "the two counts differ: draw the taps of the second by torch.randn"
    if first == symmetric:
        return "the first count is right, the second is not: have you rounded the taps?"
    return "the first count is not right: seeds 0 to 199, each with a generator of its own"
