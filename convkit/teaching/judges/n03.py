"""Judges of notebook 03: circular against zero padding, a counterexample, a spectrum at stride 2, dilations, a law."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, whole

_BETS = ("smaller", "equal", "larger")


@hints(
    "The norm is the most that a matrix can lengthen an input. Think of an input that suits this kernel.",
    "Write down what each of the two matrices makes of the input (1, -1, 1), and compare the lengths.",
)
def bet(word: Any) -> str | None:
    """Judge how the norm of [1, -2, 1] on three zero-padded pixels compares with the circular one."""
    bet = word.strip().strip("'\"").lower() if isinstance(word, str) else None
    if bet not in _BETS:
        got = f"the text {word!r}" if isinstance(word, str) else f"something of type {type(word).__name__}"
        return f"this needs one of the words 'smaller', 'equal' and 'larger', got {got}"
    if bet == "smaller":
        return "the tempting answer; but an entry of a matrix can also work against the others. See the picture above"
    if bet == "equal":
        return "two entries have changed, and the norm has changed with them. See the picture above"
    return None


@hints(
    "On n pixels the circular norm knows only n frequencies. Where may the symbol be large and none of them lie?",
    "A kernel that answers most strongly to alternating signs is a good start. Which numbers of pixels have no such "
    "wave?",
    "Two taps are enough.",
)
def kernel(answer: Any) -> str | None:
    """Judge taps and a number of pixels for which the circular norm should be below the zero-padded one."""
    taps, size = answer
    taps = array(taps, "a list of 2 to 5 numbers as taps")
    n = whole(size, "a whole number of pixels")
    if taps.ndim != 1 or not 2 <= len(taps) <= 5:
        return f"this needs a list of 2 to 5 taps, got an array of shape {tuple(taps.shape)}"
    if not len(taps) <= n <= 100:
        return f"this needs at least as many pixels as taps ({len(taps)}), and at most 100, got {n}"
    if not taps.any():
        return "a kernel of zeros has norm 0 with every boundary"
    taps = taps / taps.abs().amax()
    places = taps.nonzero().flatten()
    inner = taps[places[0] : places[-1] + 1]
    if len(inner) == 3 and (inner - inner[0] * torch.tensor([1.0, -2.0, 1.0])).abs().amax() < 1e-6:
        return "this is a multiple of [1, -2, 1], which we know already. Move the top of the symbol elsewhere"
    A = ConvOperator(taps[None, None], n, padding_mode="zeros")
    exact = float(torch.linalg.matrix_norm(A.matrix(), 2))
    circular = float(operator_norm(A.circular(), 2))
    if circular < exact * (1 - 1e-9):
        return None
    if len(inner) == 1:
        return "a single tap only moves the image: its circular norm is never too small"
    top = float(operator_norm(replace(A.circular(), input_shape=960), 2))
    if abs(taps.sum()) >= top - 1e-6:
        return "the top of this symbol lies at frequency 0, which every size has. Use taps of both signs"
    return f"here the circular norm is {circular / exact:.3f} times the exact one, a bound. Another n may miss the top"


@hints(
    "The DFT is unitary only when it is divided by the root of its length, and input and output differ in length.",
    "By (6) an output frequency listens to two input frequencies: a row with two entries.",
    "What is the singular value of a matrix that has one row?",
)
def stride(answer: Callable[[Tensor], Any]) -> str | None:
    """Judge a function that should return the singular values at stride 2 from the symbol H at stride 1, for one
    channel.
    """
    generator = torch.Generator().manual_seed(0)
    for n in (12, 10):
        taps = torch.randn(1, 1, 5, dtype=torch.float64, generator=generator)
        layer = ConvOperator(taps, n, stride=2)
        H = torch.fft.fft(replace(layer, stride=1).kernel_on_image()[0, 0]).conj()
        found = answer(H.clone())
        if "complex" in str(getattr(found, "dtype", "")):
            return "a singular value is a real number, and these are complex"
        found = array(found, f"{n // 2} singular values for {n} frequencies")
        sentence = _wrong_values(found.flatten().sort().values, singular_values(layer).sort().values, H)
        if sentence is not None:
            return sentence
    return None


def _wrong_values(found: Tensor, right: Tensor, H: Tensor) -> str | None:
    half = len(right)
    if len(found) != half:
        return f"{2 * half} frequencies fold onto {half}, so {half} values are needed, got {len(found)}"

    def equal(values: Tensor) -> bool:
        return torch.allclose(found, values.sort().values, rtol=1e-5)

    if equal(right):
        return None
    sizes, root = H.abs(), math.sqrt(2)
    pairs = (sizes[::2] ** 2 + sizes[1::2] ** 2).sqrt()
    known = [
        ((root * right, 2 * right), "all values are too large by one factor: are both of your DFTs unitary?"),
        ((right / root, right / 2), "all values are too small by one factor: are both of your DFTs unitary?"),
        (
            [(H[:half] + H[half:]).abs() / c for c in (1, root, 2)],
            "the two numbers are not added: they act on two different input waves",
        ),
        (
            [(sizes[:half] + sizes[half:]) / c for c in (1, root, 2)],
            "the two magnitudes are not added: how long is a row with two entries?",
        ),
        (
            [torch.maximum(sizes[:half], sizes[half:]) / c for c in (1, root)],
            "the larger of the two is not all: both input waves reach this output frequency",
        ),
        (
            (sizes[:half], sizes[half:], sizes[::2], sizes[1::2]),
            "half of the frequencies are dropped: a stride drops pixels, and frequencies fold onto each other",
        ),
        ((pairs, pairs / root), "neighbors are paired: look at (6) for the frequencies that fold together"),
        ([right**2 * c for c in (1, 2)], "these are squares of singular values, up to a factor"),
    ]
    for wrong, sentence in known:
        if any(equal(values) for values in wrong):
            return sentence
    return "there are as many values as there should be, but not the right ones"


@hints(
    "A dilation d reads the symbol at d f mod n. When does f -> d f mod n visit every frequency?",
    "Write down the frequencies that dilation 2 reads on 12 pixels, and those that dilation 3 reads. What goes wrong?",
    "It depends on the factors that the dilation shares with the number of pixels.",
)
def dilations(answer: Any) -> str | None:
    """Judge the dilations from 1 to 12 that leave the singular values on 12 pixels unchanged, for every kernel."""
    if isinstance(answer, (set, frozenset)):
        answer = list(answer)
    found = array(answer, "a list of whole numbers from 1 to 12").flatten()
    if len(found) == 0 or not torch.equal(found, found.round()):
        return "this needs a list of whole numbers from 1 to 12"
    chosen = {int(d) for d in found}
    if chosen - set(range(1, 13)):
        return "only numbers from 1 to 12 are asked for"
    if len(chosen) == 12:
        return "not all of them: look again at the picture of dilation 4"
    if chosen == {1, 3, 5, 7, 9, 11}:
        return "to be odd is not enough: one of these odd numbers reads only every third frequency"
    if chosen == {2, 3, 5, 7, 11}:
        return "to be a prime number is neither needed nor enough: what do n and the dilation have in common?"
    if chosen == {d for d in range(1, 13) if 12 % d == 0}:
        return "these are the divisors of 12, and most of them do the most harm"
    for d in sorted(chosen):
        q = math.gcd(d, 12)
        if q > 1:
            return f"dilation {d} reads {12 // q} of the 12 frequencies, each {q} times"
    missing = 4 - len(chosen)
    return f"right so far, but {missing} {'is' if missing == 1 else 'are'} missing" if missing else None


@hints(
    "One loop is enough: raise the number of pixels until the norm is large enough.",
    "The supremum is the circular norm on very many pixels, not that on as many pixels as the layer has.",
    "The law says that the gap falls with the square of the number of pixels. What makes it four times smaller?",
)
def enough(answer: Any) -> str | None:
    """Judge from how many pixels on a zero-padded norm is less than 1 and less than 0.25 percent below the supremum."""
    pair = array(answer, "two whole numbers of pixels", (2,))
    if not torch.equal(pair, pair.round()):
        return "this needs whole numbers of pixels"
    K = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    most = float(operator_norm(ConvOperator(K, 4096), 2))
    for n, share, words in zip((int(n) for n in pair), (0.01, 0.0025), ("1 percent", "a quarter"), strict=True):
        if not 5 <= n <= 300:
            return f"for {words}: take between 5 pixels, as many as the taps, and 300, got {n}"
        missing = 1 - _padded(K, n) / most
        if missing >= share:
            return f"for {words}: on {n} pixels the norm is still {missing:.2%} below the supremum"
        if n > 5 and 1 - _padded(K, n - 1) / most < share:
            return f"for {words}: {n} pixels are enough, but fewer are enough, too"
    return None


def _padded(K: Tensor, n: int) -> float:
    M = ConvOperator(K, n, padding_mode="zeros").matrix()
    return float(torch.linalg.matrix_norm(M, 2))
