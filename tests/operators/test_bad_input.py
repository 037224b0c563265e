"""Kernels, sizes and batches that are none: what was needed, what came, and after a semicolon what to do instead."""

import numpy as np
import pytest
import torch
from torch import nn

from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import Geometry, inputs, outputs
from tests.helpers.refusals import refused

ONE, TWO = torch.ones(2, 3, 2), torch.ones(4, 3, 3, 2)  # kernels for one and for two axes


def operator(kernel, *args, **kwargs):
    return lambda: ConvOperator(kernel, *args, **kwargs)


KERNELS = [  # what is done, the error, and its words
    (operator(np.ones((2, 3, 2)), 4), TypeError, "must be a torch tensor, got ndarray; use torch.as_tensor"),
    (operator(ONE.long(), 4), TypeError, "must be float32 or float64, got torch.int64; use kernel.double"),
    (operator(ONE.half(), 4), TypeError, "must be float32 or float64, got torch.float16; use kernel.double"),
    (operator(ONE.cfloat(), 4), TypeError, "must be .*, got torch.complex64; .* real and imaginary parts as channels"),
    (operator(torch.ones(3), 4), ValueError, r"must have shape \(c_out, .* got \(3,\); .* is kernel\[None, None\]"),
    (operator(torch.ones(2, 3), 4), ValueError, r"must have .*1, 2 or 3 spatial axes .* got \(2, 3\); "),
    (operator(TWO[None, None], 4), ValueError, r"must have .*1, 2 or 3 spatial axes .* got \(1, 1, 4, 3, 3, 2\); "),
    (operator(torch.ones(2, 0, 2), 4), ValueError, r"must have .* no axis of size 0, got \(2, 0, 2\); "),
    (operator(ONE * torch.nan, 4), ValueError, "must be finite, got 12 NaN or infinite entries; look for where"),
    (operator(ONE.index_fill(0, torch.tensor(1), -torch.inf), 4), ValueError, "must be finite, got 6 NaN or infinite"),
    (operator(nn.LazyConv1d(2, 3).weight, 4), ValueError, "must have its numbers, got a lazy parameter; run the"),
]
SIZES = [
    (operator(TWO, (4, 0)), ValueError, "input_shape must be a whole number of at least 1, got 0; "),
    (operator(TWO, (4, 5, 6)), ValueError, r"input_shape must be .* 2 of them, .* got \(4, 5, 6\); "),
    (operator(TWO, np.array([4.0, 5.0])), ValueError, "input_shape must be a whole number of at least 1, got "),
    (operator(TWO, (4, True)), ValueError, "input_shape must be a whole number of at least 1, got True; "),
    (operator(TWO, "ab"), ValueError, "input_shape must be a whole number of at least 1, got 'ab'; "),
    (operator(ONE, 4, stride=0), ValueError, "stride must be a whole .*, got 0; give one number, or one per axis"),
    (operator(TWO, 4, stride=(1,)), ValueError, r"stride must be .* 2 of them, .* got \(1,\); "),
    (operator(ONE, 4, stride=None), ValueError, "stride must be a whole number of at least 1, got None; "),
    (operator(ONE, 4, dilation=0), ValueError, "dilation must be a whole number of at least 1, got 0; "),
    (operator(TWO, 5, padding=-1), ValueError, "padding must be a whole number of at least 0, got -1; "),
    (operator(TWO, 5, padding=((0, 1), (2, -1))), ValueError, "padding must be a whole number of at least 0, got -1; "),
    (operator(TWO, 5, padding="full"), ValueError, "padding must be .*, got 'full'; .* 'same' or 'valid', .* k - 1"),
    (operator(TWO, 5, padding=(1, 2, 3)), ValueError, r"padding must be .* 2 of them, .* got \(1, 2, 3\); "),
    (operator(TWO, 5, padding=(1, (2, 1))), ValueError, r"padding must be one pair .*, got \(1, \(2, 1\)\); "),
    (operator(TWO, 5, padding=((1, 1), (1, 1, 1))), ValueError, r"padding must .*, got .*\(1, 1, 1\).*; "),
    (operator(TWO, 5, padding=0.5), ValueError, "padding must be a whole number of at least 0, got 0.5; "),
    (operator(TWO, 5, groups=3), ValueError, r"groups must divide .*, got groups=3 and .*\(4, 3, 3, 2\); "),
    (operator(TWO, 5, groups=0), ValueError, "groups must be a whole number of at least 1, got 0; "),
    (operator(TWO, 5, padding_mode="mirror"), ValueError, "must be one of .*, got 'mirror'; take the one nearest"),
    (operator(TWO, 5, transposed=1), TypeError, "transposed must be True or False, got 1; A.T is the transpose"),
    (operator(TWO, (2, 5), padding=0), ValueError, r"must fit .*, got .*\(3, 2\) .*\(2, 5\).*; use a larger input"),
    (operator(TWO, 4, dilation=2, padding=0), ValueError, r"must fit .*, got .* dilation \(2, 2\) .*; use a larger"),
]


@pytest.mark.parametrize("call, error, words", KERNELS + SIZES, ids=[case[-1] for case in KERNELS + SIZES])
def test_what_describes_no_operator_is_refused_at_the_door(call, error, words):
    refused(words, call, error=error)


# ---- batches -------------------------------------------------------------------------------------------------------
BATCHES = [
    (lambda x: x.cpu().numpy(), TypeError, r"needed a tensor of shape \(batch, {0}\), got ndarray; use torch.as_ten"),
    (lambda x: x[0], ValueError, r"needed .* \(batch, {0}\), got \({0}\); a single input needs x.unsqueeze\(0\)"),
    (lambda x: x[:, :2], ValueError, r"needed .* \(batch, {0}\), got \(3, 2, .*; .* of another size another operator"),
    (lambda x: x[..., :-1], ValueError, r"needed .* \(batch, {0}\), got .*; .* of another size another operator"),
    (lambda x: x[None], ValueError, r"needed .* \(batch, {0}\), got \(1, 3, {0}\); "),
    (lambda x: x[:0], ValueError, r"needed a batch of at least one input, got shape \(0, {0}\); skip empty batches"),
    (lambda x: x.double(), ValueError, r"needed .* torch.float32 on .*, got torch.float64 on .*; use x.to\(A.kernel\)"),
    (lambda x: x.to("meta"), ValueError, r"needed .*, got torch.float32 on meta; use x.to\(A.kernel\)"),
]


@pytest.mark.parametrize("change, error, words", BATCHES, ids=[case[-1] for case in BATCHES])
def test_what_is_no_batch_is_refused_by_the_operator_and_by_its_adjoint(device, change, error, words):
    A = Geometry((4, 3, 3, 2), (5, 6), stride=2).operator(device, torch.float32)
    for apply, x in ((A, inputs(A)), (A.adjoint, outputs(A))):
        shape = ", ".join(map(str, x.shape[1:]))
        refused(words.format(shape), apply, change(x), error=error)


# ---- matrices that would not fit in memory -------------------------------------------------------------------------
def test_a_matrix_is_made_up_to_the_limit_and_refused_above_with_its_size(device, monkeypatch):
    A = ConvOperator(torch.ones(2, 1, 1, dtype=torch.float64, device=device), 20000)
    refused(r"must take at most 1 GiB, got 40000 x 20000 .* = 6.0 GiB; use A\(x\)", A.matrix)
    A = Geometry((4, 3, 3, 2), (5, 6), stride=2).operator(device, torch.float32)
    size = 4 * 36 * 90  # bytes: (4, 3, 3) outputs, (3, 5, 6) inputs
    monkeypatch.setattr("convkit.operators.operator.MATRIX_LIMIT", size)
    assert A.matrix().numel() * 4 == size
    monkeypatch.setattr("convkit.operators.operator.MATRIX_LIMIT", size - 1)
    refused("got 36 x 90 entries", A.matrix)
