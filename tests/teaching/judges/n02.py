"""Notebook 02: the longest image, the two lines in torch, a blur that loses a wave, a spectrum of ones."""

import math

import numpy as np
import torch
from torch.fft import fft2, fftn, ifft, ifft2, irfft, rfft2
from torch.linalg import svdvals

from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from convkit.teaching.judges.n02 import all_pass, bet, blur, failures, two_lines
from tests.teaching.judges import Case


def blocks(kernel, size, transform=fft2, **options):
    return transform(kernel, s=size, **options).permute(2, 3, 0, 1)


def values(kernel, size):
    return singular_values(ConvOperator(kernel, size))


def from_phases(*phases):
    return irfft(torch.exp(1j * torch.tensor(phases, dtype=torch.float64)), n=8)


TAPS = from_phases(0, 1, 2.5, -0.7, 0)
CASES = {
    Case(bet, "one number, the largest factor", r"\b(3|three|9|nine)\b|sqrt|√"): {
        **{None: [3, np.sqrt(9), 2.995], "never negative": [-3, -5, -1e9], "one bright patch": [0, 0.5]},
        **{"patches overlap": [1, 1.0], "layers that do more": [1.001, 1.73, 2, 2.9]},
        "no layer does as much": [3.1, 6, 9, 81, 27, 1e3, 1e300],
    },
    Case(two_lines, "this needs the singular values|real numbers|make 48", r"\(2, 3, 0, 1\)|s=|fft2\(|svdvals\("): {
        None: [lambda k, n: svdvals(blocks(k, n)), values, lambda k, n: values(k, n).flip(0)],
        "too small": [lambda k, n: svdvals(blocks(k, n, norm="ortho")), lambda k, n: svdvals(blocks(k, n, ifft2))],
        "^two things are wrong: .* how large the image is.* frequency axes": [lambda k, n: svdvals(fft2(k))],
        **{"^the FFT was not told how large": [lambda k, n: svdvals(blocks(k, None))], "real numbers": [blocks]},
        "^the SVD ran over the two frequency axes": [lambda k, n: svdvals(fft2(k, s=n))],
        **{"height and width": [lambda k, n: svdvals(blocks(k, n[::-1]))], "squares": [lambda k, n: values(k, n) ** 2]},
        "^rfft2 leaves out the opposite": [lambda k, n: svdvals(blocks(k, n, rfft2))],
        "^two things are wrong: rfft2 .* frequency axes": [lambda k, n: svdvals(rfft2(k, s=n))],
        "over the channels": [lambda k, n: svdvals(fft2(k, n, (0, 1))), lambda k, n: svdvals(fftn(k))],
        "flattened kernel": [lambda k, n: svdvals(k.flatten(1))],
        "kernel itself: where is the Fourier": [lambda k, n: svdvals(k)],
        "one by one: where is the Fourier": [lambda k, n: svdvals(k.permute(2, 3, 0, 1))],
        "one channel meets one": [lambda k, n: fft2(k, s=n).abs(), lambda k, n: fft2(k).abs()],
        "imaginary parts": [lambda k, n: svdvals(blocks(k, n).real)],
        "needs their phases": [lambda k, n: svdvals(blocks(k, n).abs())],
        "without U and Vh": [lambda k, n: torch.linalg.svd(blocks(k, n))],
        "not the right ones": [lambda k, n: torch.zeros(48), lambda k, n: 1 + values(k, n)],
        "make 48, yours are 1:": [lambda k, n: values(k, n)[0], lambda k, n: 48],
        "make 48, yours are 14:": [lambda k, n: values(k, n).unique()[::2]],
        "right for one layer": [lambda k, n: svdvals(blocks(k, (4, 6))), lambda k, n: svdvals(blocks(k, (n[0], 6)))],
    },
    Case(blur, "two whole numbers, the size", r"(?<!on )\b(12|15|18)\b|\b(multiple|n / 3|period of)\b"): {
        **{None: [(12, 4), (12, 8), (15, 5), (15, 10), (18, 6), (18, 12), (12.0, 4)], "frequency 0": [(12, 0)]},
        **{"the fastest wave": [(12, 6), (16, 8)], "between 10 and 20": [(9, 3), (21, 7), (-5, 1e9), (1e300, 1)]},
        "is left with [1-9].*% of its size": [(12, 3), (12, 5), (11, 4), (10, 3), (20, 7)],
        **{"two whole numbers, the size": [(12, 4, 0)], "this needs whole numbers": [(12.5, 4), (12, 4.5)]},
        "the frequencies are 0 to": [(12, -4), (12, 16), (15, 15), (11, 11)],
    },
    Case(all_pass, "eight numbers|real numbers", r"irfft\(|exp\(|-0\.7|0 or π"): {
        None: [TAPS, -TAPS, from_phases(math.pi, 1, 2, 3, 0), torch.tensor([0.5, 0.5, 0, 0, 0.5, -0.5, 0, 0])],
        **{"^frequency 0 .* of size 2,": [2 * TAPS], "^the taps have length 1": [torch.full((8,), 8**-0.5)]},
        "^frequency 0 .* of size (0|28),": [torch.zeros(8), torch.arange(8.0)],
        "real numbers": [torch.exp(1j * torch.arange(8.0)), ifft(torch.exp(1j * torch.arange(8.0) ** 2))],
        "eight numbers": [TAPS[:5], TAPS[:, None], TAPS[None, None]],
        "single tap": [*torch.eye(8)[[0, 3]], -torch.eye(8)[5], from_phases(0, 0.01, 0, 0, 0)],
    },
    Case(failures, "three whole numbers|counts among 100", r"\b(64|16)\b"): {
        **{None: [(64, 16, 0), [64.0, 16, 0]], "for which the bound holds": [(36, 84, 100)]},
        "in the opposite order": [(0, 16, 64)],
        "what does \\(14\\) promise then": [(64, 16, 1), (64, 16, 100)],
        "not right on": [(64, 17, 0), (0, 0, 0), (63, 16, 0), (100, 50, 25)],
        "counts among 100": [(-1, 0, 0), (0.64, 0.16, 0), (101, 0, 0)],
        "three whole numbers, one for each": [64, (64, 16), "64", None, (64, 16, 0, 0)],
    },
}
