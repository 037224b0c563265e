"""Judges of notebook 02: the largest gain, the two lines in torch, a blur that removes a wave, an all-pass kernel, and
how often a bound fails.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fft import fft2, fftn, rfft2
from torch.linalg import svdvals

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import spectrum
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number


@hints(
    "An input pixel is not read once: several windows reach it. What does that do to the output?",
    "The length is the root of a sum of squares. Compare the squares of all windows together with those of the image.",
    "Try a kernel whose taps are all alike, on an image whose pixels are all alike.",
)
def bet(factor: Any) -> str | None:
    """Judge the factor by which a 3 × 3 layer can lengthen an image when its flattened kernel has norm 1."""
    value = number(factor, "one number, the largest factor")
    right = 9**0.5
    if abs(value - right) <= 0.01:
        return None
    if value < 0:
        return "a length is never negative, and no factor between two lengths is"
    if value < 1:
        return "an image with one bright patch can keep its length already, so the factor is larger"
    if value == 1:
        return "this is what the flattened kernel does to one patch; but patches overlap"
    return "there are layers that do more" if value < right else "no layer does as much as that"


@hints(
    "fft2 and svdvals both work on the last two axes. Which two axes should each of them see?",
    "The image has more frequencies than the kernel has taps: fft2 can be told how many to compute.",
    "Between the two calls the axes must change places: see torch.Tensor.permute.",
)
def two_lines(answer: Callable[[Tensor, tuple[int, int]], Any]) -> str | None:
    """Judge a function that should return all singular values of a circular layer from a kernel in torch's order."""
    generator = torch.Generator().manual_seed(1)
    cases = [((3, 2, 2, 5), (4, 6)), ((2, 3, 3, 2), (5, 3)), ((4, 4, 1, 3), (2, 7))]
    for number_of_case, (shape, size) in enumerate(cases):
        kernel = torch.randn(shape, dtype=torch.float64, generator=generator)
        found = _read_values(answer(kernel.clone(), size))
        if isinstance(found, str):
            return found
        right = _sorted(svdvals(_blocks(kernel, size)))
        if not _same(found, right):
            if number_of_case:
                return f"right for one layer, but not for a kernel of shape {shape} on {size[0]} × {size[1]} pixels"
            return _wrong_values(found, right, kernel, size)
    return None


def _read_values(answer: Any) -> Tensor | str:
    """Return the answer as one sorted row of real numbers, or a sentence that says why it is none."""
    if isinstance(answer, tuple) and len(answer) == 3:
        return "return the singular values only: svdvals gives them without U and Vh"
    if "complex" in str(getattr(answer, "dtype", "")):
        return "singular values are real numbers: these are coefficients, and their SVD is still to come"
    return _sorted(array(answer, "the singular values, as one tensor or array"))


def _blocks(kernel: Tensor, size: Sequence[int]) -> Tensor:
    return fft2(kernel, s=tuple(size)).permute(2, 3, 0, 1)


def _sorted(values: Tensor) -> Tensor:
    return values.flatten().sort(descending=True).values


def _same(found: Tensor, right: Tensor) -> bool:
    return found.shape == right.shape and torch.allclose(found, right, rtol=1e-5, atol=1e-5 * float(right[0]))


def _mistakes(kernel: Tensor, size: Sequence[int]) -> Iterator[tuple[Tensor, str]]:
    """Return the results of common mistakes, and what is wrong with each of them."""
    coefficients, small = fft2(kernel, s=tuple(size)), fft2(kernel)
    no_size = "the FFT was not told how large the image is, so it has only as many frequencies as the kernel has taps"
    wrong_axes = "the SVD ran over the two frequency axes; there must be one matrix of channels for each frequency"
    yield svdvals(small), f"two things are wrong: {no_size}; and {wrong_axes}"
    yield svdvals(small.permute(2, 3, 0, 1)), no_size
    yield svdvals(coefficients), wrong_axes
    yield svdvals(fft2(kernel, s=tuple(size[::-1])).permute(2, 3, 0, 1)), "height and width of the image are exchanged"
    half = "rfft2 leaves out the opposite frequencies, but their values count, too"
    yield svdvals(rfft2(kernel, s=tuple(size)).permute(2, 3, 0, 1)), half
    yield svdvals(rfft2(kernel, s=tuple(size))), f"two things are wrong: {half}; and {wrong_axes}"
    channels = "the FFT ran over the channels; they are the first two axes of torch's order"
    yield svdvals(fft2(kernel, s=tuple(size), dim=(0, 1))), channels
    yield svdvals(fft2(kernel, s=tuple(size), dim=(0, 1)).permute(2, 3, 0, 1)), channels
    yield svdvals(fftn(kernel)), channels
    yield svdvals(fftn(kernel).permute(2, 3, 0, 1)), channels
    yield svdvals(kernel.flatten(1)), "these are the singular values of the flattened kernel, not of the layer"
    yield svdvals(kernel), "these come from the kernel itself: where is the Fourier transform?"
    yield svdvals(kernel.permute(2, 3, 0, 1)), "these come from the taps one by one: where is the Fourier transform?"
    sizes = "sizes of coefficients are singular values only where one channel meets one; here take an SVD"
    yield coefficients.abs(), sizes
    yield small.abs(), sizes
    blocks = _blocks(kernel, size)
    yield svdvals(blocks.real), "the imaginary parts were dropped before the SVD"
    yield svdvals(blocks.abs()), "the sizes of the coefficients were taken before the SVD, which needs their phases"
    yield svdvals(blocks) ** 2, "these are the squares of the singular values"


def _wrong_values(found: Tensor, right: Tensor, kernel: Tensor, size: Sequence[int]) -> str:
    for values, sentence in _mistakes(kernel, size):
        if _same(found, _sorted(values)):
            return sentence
    if len(found) == len(right):
        factor = float(found[0] / right[0])
        if factor > 0 and _same(found, factor * right):
            return (
                f"all values are too {'large' if factor > 1 else 'small'} by the same factor: was the FFT normalized?"
            )
        return "there are as many values as there should be, but not the right ones"
    channels = min(kernel.shape[:2])
    return (
        f"{size[0]} × {size[1]} frequencies with {channels} values each make {len(right)}, yours are {len(found)}: "
        "over which axes did the FFT run, and over which the SVD?"
    )


@hints(
    "Look at three neighboring pixels of a wave. What must they add up to if the blur is to remove it?",
    "Draw the three values as arrows of length 1, each turned by the same angle against the one before. When do they "
    "close to a triangle?",
    "After how many pixels has a wave with that angle turned around once? It must fit into the signal a whole number "
    "of times.",
)
def blur(answer: Any) -> str | None:
    """Judge a size from 10 to 20 and a frequency that the blur of three equal taps should remove."""
    pair = array(answer, "two whole numbers, the size and the frequency", (2,))
    if not torch.equal(pair, pair.round()):
        return "this needs whole numbers: a size in pixels, and a number of periods"
    n, v = (int(part) for part in pair)
    if not 10 <= n <= 20:
        return f"the size must lie between 10 and 20, got {n}"
    if not 0 <= v < n:
        return f"on {n} pixels the frequencies are 0 to {n - 1}, got {v}"
    if v == 0:
        return "frequency 0 is the constant signal, and this blur keeps it as it is"
    if 2 * v == n:
        return "this is the fastest wave, +1, -1, +1, ...: three neighbors add up to 1 or -1, and something is left"
    factor = spectrum(ConvOperator(torch.full((1, 1, 3), 1 / 3, dtype=torch.float64), n))[v, 0].item()
    return f"on {n} pixels a wave of frequency {v} is left with {factor:.0%} of its size" if factor > 1e-10 else None


@hints(
    "Equation (1) works backwards, too: the Fourier transform leads from the taps to the eigenvalues.",
    "Choose eigenvalues of size 1, and transform back. Their phases are yours to choose.",
    "A real kernel has conjugate eigenvalues at opposite frequencies: torch.fft.irfft takes care of that.",
)
def all_pass(answer: Any) -> str | None:
    """Judge eight taps that should multiply all frequencies by numbers of size 1 without being a shift."""
    if "complex" in str(getattr(answer, "dtype", "")):
        return "the taps of a kernel are real numbers: are the values at opposite frequencies conjugate?"
    taps = array(answer, "eight numbers, a tensor of shape (8,)", (8,))
    factors = spectrum(ConvOperator(taps[None, None], 8))[:, 0]
    misses = (factors - 1).abs()
    if misses.max() > 1e-5:
        v = int((misses > (1 - 1e-9) * misses.max()).nonzero()[0])  # the first of those that rounding alone tells apart
        length = "the taps have length 1, as they must, but that is not enough: " if abs(taps.norm() - 1) < 1e-5 else ""
        return f"{length}frequency {v} is multiplied by a number of size {factors[v]:.3g}, it should be 1"
    if taps.abs().max() > 0.999:
        return "all singular values are 1, but a single tap only moves the signal (and may turn its sign)"
    return None


@hints(
    "Write a function of seed and size that says whether the norm is below the flattened norm, then count.",
    "One channel in and one out: the flattened kernel is a single row. What is the norm of a row?",
    "The norm of the layer is operator_norm(ConvOperator(kernel, (n, n)), 2). Leave room for rounding, such as 1e-9.",
)
def failures(answer: Any) -> str | None:
    """Judge how many of 100 random kernels have a layer norm below the flattened one, on 1, 2 and 3 pixels a side."""
    counts = array(answer, "three whole numbers, one for each size of the image", (3,))
    if not torch.equal(counts, counts.round()) or counts.min() < 0 or counts.max() > 100:
        return "these are counts among 100 kernels: whole numbers from 0 to 100"
    right = [_below(pixels) for pixels in (1, 2, 3)]
    wrong = [f"{n} × {n}" for n, found, count in zip((1, 2, 3), counts.tolist(), right, strict=True) if found != count]
    if not wrong:
        return None
    if counts.tolist() == [100 - count for count in right]:
        return "you have counted the kernels for which the bound holds"
    if counts.tolist() == right[::-1]:
        return "the three numbers are right, but in the opposite order"
    if wrong == ["3 × 3"]:
        return "on 3 × 3 pixels the window fits: what does (14) promise then? Leave room for rounding"
    return f"not right on {' and on '.join(wrong)} pixels"


@functools.cache
def _below(pixels: int) -> int:
    kernels = [
        torch.randn(1, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in range(100)
    ]
    norms = [operator_norm(ConvOperator(taps, (pixels, pixels)), 2) for taps in kernels]
    return sum(bool(norm < taps.norm() - 1e-9) for norm, taps in zip(norms, kernels, strict=True))
