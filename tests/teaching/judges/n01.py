"""Notebook 01: the entries of a layer's matrix, circ(a), where torch puts the output, a kernel read back."""

import numpy as np
import scipy.linalg
import torch
from torch.fft import fft, ifft

from convkit.operators.circulants import circulant
from convkit.teaching.judges.n01 import bet, circ, hidden, read_kernel, shift
from tests.teaching.judges import Case

ENTRIES = 50_331_648


def rolled(step):
    return lambda a: torch.stack([a.roll(step(i)) for i in range(len(a))])


def grid(M):
    return M.reshape(2, 4, 5, 3, 4, 5)


def cut(i, j, top=0, left=0):
    """The function that reads the window at (top, left) in the rows of output pixel (i, j)."""
    return lambda M: grid(M)[:, i, j, :, top : top + 3, left : left + 3]


def column(M):
    return grid(M)[:, :, :, :, 2, 2].permute(0, 3, 1, 2)[:, :, 1:4, 1:4]


row = cut(1, 1)
CASES = {
    Case(bet, "one number, how many entries M has", r"50[ ,.]?331|5e7|50 million|3[ ,]?072|16[ ,]?384"): {
        **{None: [ENTRIES, np.int64(ENTRIES), 5e7, 48e6], "the weight": [432, 16 * 27.0], "go into the layer": [3072]},
        **{"what the windows read": [442_368, 424_128], "more numbers than it takes": [3072**2]},
        **{"fewer numbers than it gives": [16384**2], "one channel in and": [1024**2], "fewer entries": [1e30, 56e6]},
        **{"come out of the layer": [16384], "more entries": [0, -ENTRIES, 1, 45e6, 16384 + 3072]},
    },
    Case(circ, "a 5 × 5 matrix", r"5 1 2 3 4|%|a\.roll\(|j - i|for i in"): {
        None: [circulant, rolled(lambda i: i), lambda a: ifft(fft(circulant(a))).real],
        "transposed": [lambda a: circulant(a).T, lambda a: scipy.linalg.circulant(a.numpy())],
        **{"move to the left": [rolled(lambda i: -i)], "in each row all": [lambda a: a[:, None].expand(-1, len(a))]},
        "^all rows are the same": [rolled(lambda i: 0), rolled(lambda i: 1), lambda a: torch.zeros(len(a), len(a))],
        "but the first one": [rolled(lambda i: i + 1), rolled(lambda i: i - 1)],
        "^row 1 is the first wrong one: for a = 1 2 3 4 5 yours is 4 5 1 2 3$": [rolled(lambda i: 2 * i)],
        **{"^row 0 is": [lambda a: circulant(a.flip(0))], "Toeplitz": [lambda a: circulant(a).triu()]},
        **{"a diagonal matrix": [lambda a: a.diag()], "one half": [lambda a: circulant(a).tril()]},
        "not for a = 7 -2 9 4": [lambda a: circulant(torch.arange(1.0, 6.0))[: len(a), : len(a)]],
        "a 5 × 5 matrix": [lambda a: circulant(a)[:-1], lambda a: circulant(a).flatten(), lambda a: a],
    },
    Case(shift, r"two whole numbers, \(rows, columns\)", r"\b[12]\b|\(k|// 2"): {
        **{None: [(2, 1), (2.0, 1), (np.int64(2), torch.tensor(1))], "the direction is not": [(-2, -1)]},
        **{"in the other order": [(1, 2)], "the columns are not": [(2, 2), (2, -1), (2, 0), (2, 12)]},
        **{"all the padding": [(4, 3), (-4, -3)], "the rows are not": [(1, 1), (-2, 1), (3, 1), (11, 1)]},
        **{"the size of the kernel": [(5, 4)], "neither the rows": [(-2, -2), (0, 0), (-7, -10)]},
        **{"whole pixels": [(2.5, 1)], "two whole numbers": [(2, 1, 0), ((2, 1),)]},
    },
    Case(read_kernel, "a kernel of shape", r"\(1, 1|rows 0|:3|\[:"): {
        None: [row, cut(2, 3, 1, 2), cut(1, 2, 0, 1), lambda M: column(M).flip(2, 3)],
        r"a kernel of shape \(2, 3, 3, 3\), got": [lambda M: row(M)[0], lambda M: row(M).flatten(), lambda M: M],
        "turned by 180°: you have read a column": [column, lambda M: row(M).flip(2, 3)],
        "rows and columns of the kernel are exchanged": [lambda M: row(M).mT],
        "^the channels are exchanged": [lambda M: row(M).transpose(0, 1)],
        **{"two output channels": [lambda M: row(M).flip(0)], "in the opposite order": [lambda M: row(M).flip(1)]},
        **{"whole images": [lambda M: grid(M)[:, 1, 1]], "not in their places": [lambda M: row(M).roll(1, 3)]},
        "but not all: do": [lambda M: M[M != 0].unique().reshape(2, 3, 3, 3)],
        "not the taps": [lambda M: 2 * row(M), lambda M: grid(M).sum((1, 2))[:, :, :3, :3]],
        "over the edge, or you cut the row beside": [cut(1, 0), cut(1, 1, 1)],
    },
    Case(hidden, "two whole numbers|counts among 200", r"\b(97|103)\b"): {
        **{None: [(97, 0), [97, 0.0]], "those that miss it": [(103, 200), (103, 0)]},
        "the two counts differ": [(97, 97), (0, 0)],
        "the second is not": [(97, 3), (97, 200)],
        "the first count is not right": [(0, 97), (100, 0), (96, 0), (200, 199)],
        "counts among 200": [(-1, 0), (97, 201), (0.485, 0)],
        "two whole numbers, one for each": [97, (97,), (97, 0, 0), "97", ("97", "0")],
    },
}
