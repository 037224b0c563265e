"""Notebook 07: the bet on a norm, a normalized blur, the norms with one channel in, the inverse root."""

import numpy as np
import torch
from torch.fft import fft, fft2, ifft

from convkit.teaching.judges.n07 import bet, blur, inverse_root, one_channel, turning
from tests.teaching.judges import Case

BLUR = torch.tensor([0.5, 0.25, 0, 0, 0, 0, 0, 0, 0.25])
DELTA = torch.eye(9)[0]


def sizes(weight, n):
    return fft2(weight, s=(n, n)).abs()


def root(weight, n):
    return sizes(weight, n).square().sum(1).rsqrt()


CASES = {
    Case(bet, "one number, the norm of the layer", r"\b(2|two|1\.7|2\.3)\b"): {
        **{None: [2, 1.7, 2.3, 1.9], "the tempting belief": [1, 1.0], "at least the norm": [0, -2, 0.5]},
        **{"it is more than that": [1.2, 1.69], "it is less than that": [2.31, 3, 16, 1e9], "the root of 16": [4, 4.0]},
    },
    Case(blur, "nine numbers, one for each pixel", "identity|itself is|1, 0|delta|single tap"): {
        **{None: [DELTA, DELTA.half(), DELTA.int()], "nine numbers, one for each pixel": [[1, 0, 0], DELTA.view(3, 3)]},
        **{"this is the blur itself": [BLUR], "the values of g-hat": [[1] * 9]},
        "one of the frequencies is (33.16|81.00)": [ifft(1 / fft(BLUR).abs()).real, 1 / fft(BLUR).abs()],
        **{"the phases are not": [torch.eye(9)[1], -DELTA], "one of the frequencies is 2.00": [2 * DELTA]},
        "one of the frequencies is 0.00": [[0] * 9, [1 / 3, 1 / 3, *[0] * 6, 1 / 3]],
    },
    Case(one_channel, "two numbers, the smallest norm and the largest"): {
        **{None: [lambda c: (c**0.5, c**0.5)], "each of the others keeps": [lambda c: (1, c**0.5), lambda c: (1, 1)]},
        **{"the squares of lengths": [lambda c: (c**0.5, c)], "every image becomes 0": [lambda c: (0, c**0.5)]},
        **{"random layers": [lambda c: (c**0.5, 1 + c**0.5)], "the first number": [lambda c: (c**0.5, 1)]},
        **{"for 16 channels": [lambda c: (3**0.5, 3**0.5)], "for 3 channels": [lambda c: (-(c**0.5), c**0.5)]},
        "two numbers": [lambda c: c**0.5, lambda c: (c**0.5,) * 3],
    },
    Case(inverse_root, "a tensor of finite numbers|the result is real|needed shape"): {
        None: [root, lambda w, n: np.linalg.norm(np.fft.fft2(w, s=(n, n)), axis=1) ** -1.0],
        **{"the strength of the": [lambda w, n: 1 / root(w, n)], "you forgot the root": [lambda w, n: root(w, n) ** 2]},
        "add up the squares": [lambda w, n: sizes(w, n).sum(1).rsqrt(), lambda w, n: 1 / sizes(w, n).sum(1)],
        "not the mean": [lambda w, n: sizes(w, n).square().mean(1).rsqrt()],
        "over the output channels": [lambda w, n: sizes(w, n).square().sum(0).rsqrt()],
        "sum over its inputs": [lambda w, n: 1 / sizes(w, n)],
        "the result is real": [lambda w, n: fft2(w, s=(n, n)).sum(1)],
        r"needed shape \(4, 7, 7\)": [lambda w, n: fft2(w).abs().square().sum(1).rsqrt()],
        "the numbers are not": [lambda w, n: torch.ones(len(w), n, n), lambda w, n: 2 * root(w, n)],
    },
    Case(turning, "one number, a factor on the start", r"1\.[67]"): {
        **{None: [1.6875, 1.65, np.float64(1.7)], "the scale is positive": [0, -1.7]},
        **{"ConvNorm still raises": [1, 1.5, 0.01], "ConvNorm still lowers": [2, 6**0.5, 1e6]},
    },
}
