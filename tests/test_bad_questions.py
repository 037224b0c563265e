"""Questions without an answer: what was needed, what came, and after a semicolon what to do instead."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from convkit.bounds import gram_iteration_bound, grid_bound
from convkit.norms import certify, operator_norm, power_iteration
from convkit.operators.circulants import circulant, doubly_block_circulant
from convkit.operators.geometry import NoFourierBlocks
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import alternating_projections, clip_and_crop, clip_singular_values, dykstra
from convkit.spectra import (
    channel_condition_numbers,
    condition_number,
    from_symbol,
    leading_singular_values,
    singular_values,
    spectrum,
    symbol,
)
from tests.helpers.geometries import Geometry
from tests.helpers.refusals import refused

KERNEL = torch.ones(4, 3, 3, 2)
A = ConvOperator(torch.ones(2, 3, 2), 4)  # eight singular values
BLOCKS = torch.ones(4, 2, 3).cfloat()


def cases(*found):
    return pytest.mark.parametrize("call, error, words", found, ids=[case[-1] for case in found])


# ---- boundaries without blocks -------------------------------------------------------------------------------------
WAYS_OUT = r"; use A.matrix\(\) .*, leading_singular_values\(A, k\) .*, "


@pytest.mark.parametrize(
    "function",
    [
        *(symbol, spectrum, singular_values, condition_number, channel_condition_numbers, gram_iteration_bound),
        *(partial(f, bound=0.5) for f in (certify, clip_singular_values, clip_and_crop)),
        *(partial(f, bound=0.5) for f in (alternating_projections, dykstra)),
    ],
    ids=lambda f: getattr(f, "func", f).__name__,
)
@pytest.mark.parametrize(
    "geometry, words",
    [
        (
            {"padding": 1, "padding_mode": "zeros"},
            r"circular 'same' padding, got zero padding \(\(1, 1\), .*" + WAYS_OUT + r"A.torus\(\) .*A.circular\(\)",
        ),
        (
            {"stride": 2},
            r"a stride that divides the size, got stride \(2, 2\) on \(5, 6\), .*" + WAYS_OUT + "or stride 1",
        ),
        ({"padding": 1}, r"circular padding of \(2, 1\) .*, got \(\(1, 1\), .*" + WAYS_OUT + r"or A.circular\(\)"),
        (
            {"padding": 1, "padding_mode": "reflect"},
            r"circular 'same' padding, got 'reflect' padding \(\(1, 1\), .*" + WAYS_OUT + r"torus_bound\(A\) for",
        ),
    ],
    ids=("zeros", "stride", "padding", "reflect"),
)
def test_a_boundary_without_blocks_is_named_with_the_ways_out(function, geometry, words):
    name = getattr(function, "func", function).__name__
    refused(f"^{name} needs {words}", function, ConvOperator(KERNEL, (5, 6), **geometry), error=NoFourierBlocks)


@pytest.mark.parametrize("geometry", [{"padding": 1}, {"stride": 2}])
def test_a_circular_operator_without_blocks_has_no_torus(geometry):
    words = r"torus needs zero padding, or .*, got circular padding .* and stride .*; use A.circular\(\)"
    words += r" .*leading_singular_values\(A, k\) or A.matrix\(\)"
    refused(words, ConvOperator(KERNEL, (5, 6), **geometry).torus, error=NoFourierBlocks)
    words = r"torus needs zero or circular padding, got 'replicate', .*; use torus_bound\(A\) .*leading_singular_values"
    refused(words, ConvOperator(KERNEL, (5, 6), padding=1, padding_mode="replicate").torus, error=NoFourierBlocks)


# ---- layers and networks -------------------------------------------------------------------------------------------
class Own(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


@cases(
    (nn.ConvTranspose2d(2, 3, 2, output_padding=1, dilation=2), ValueError, "needs output_padding below padding "),
    (nn.BatchNorm2d(3), ValueError, "needs Conv1d, Conv2d, .* Linear or .*, got BatchNorm2d; give the layer"),
    (Own(2, 3, 3), ValueError, "needs a layer that its weight describes, got Own, .*; give it a method operator"),
    (nn.LazyConv2d(3, 2), ValueError, "must have its numbers, got a lazy parameter; run the network once first"),
    (
        prune.identity(nn.Conv2d(2, 3, 2), "weight"),
        ValueError,
        "with torch's old hook BasePruning.*; use torch.nn.utils",
    ),
    (nn.Conv2d(2, 3, 2, device="meta"), ValueError, "must have its numbers, got a tensor on the meta device; load"),
    (nn.Conv2d(2, 3, 2).half(), TypeError, r"must be float32 .*, got torch.float16; use kernel.double\(\)"),
)
def test_a_layer_without_an_operator_is_answered_by_name(call, error, words):
    refused(words, ConvOperator.from_layer, call, (5, 6), error=error)


@pytest.mark.parametrize("function", [input_shapes, conv_operators])
def test_a_network_without_layers_is_refused(function):
    words = "needed a model with convolutions or linear layers, got ReLU without any; "
    refused(words, function, nn.ReLU(), torch.ones(1, 2))


def test_an_error_inside_the_network_is_its_own():
    refused("channels", conv_operators, nn.Conv1d(2, 3, 2), torch.ones(1, 5, 4), error=RuntimeError)


# ---- numbers out of range, symbols and matrices that are none ------------------------------------------------------
@cases(
    (lambda: leading_singular_values(A, 0), ValueError, "k must be between 1 and the 8 .*, got 0; "),
    (lambda: leading_singular_values(A, 9), ValueError, "k must be between 1 and the 8 .*, got 9; "),
    (lambda: operator_norm(A, 3), ValueError, "ord must be 1, 2 or torch.inf, got 3; .* matrix_norm of A.matrix"),
    (lambda: operator_norm(A, "fro"), ValueError, "ord must be 1, 2 or torch.inf, got 'fro'; .* matrix_norm"),
    (lambda: power_iteration(A, 0), ValueError, "steps must be at least 1, got 0; "),
    (lambda: gram_iteration_bound(A, 0), ValueError, "steps must be at least 1, got 0"),
    (lambda: grid_bound(A, 1), ValueError, "density must be at least 2 .* got 1"),
    (lambda: from_symbol([[[1j]]]), TypeError, "needs .*, got list; "),
    (lambda: from_symbol(BLOCKS.real), ValueError, r"needs complex blocks .*, got \(4, 2, 3\) torch.float32.*; "),
    (lambda: from_symbol(BLOCKS[0]), ValueError, r"needs complex blocks .*, got \(2, 3\) torch.complex64.*; "),
    (lambda: from_symbol(BLOCKS[None, None, None]), ValueError, r"needs complex .*, got \(1, 1, 1, 4, 2, 3\).*; "),
    (lambda: from_symbol(BLOCKS, 2), ValueError, r"multiple of prod\(stride\) = 2 .*, got \(4, 2, 3\).*; "),
    (lambda: from_symbol(BLOCKS, 0), ValueError, "stride must be a whole number of at least 1, got 0; "),
    (lambda: from_symbol(BLOCKS, 1, 0), ValueError, "groups must be a whole number of at least 1, got 0; "),
    (lambda: from_symbol(BLOCKS[None], 1, 3), ValueError, r"an axis of 3 groups, got \(1, 4, 2, 3\).*; "),
    (lambda: from_symbol(BLOCKS * torch.nan), ValueError, "must be finite, got .* NaN or infinite entries; "),
    (lambda: circulant([1, 2]), TypeError, "circulant needs .*, got list; "),
    (lambda: circulant(torch.ones(2, 3)), ValueError, r"circulant needs a vector .*, got shape \(2, 3\); "),
    (lambda: circulant(torch.ones(0)), ValueError, r"circulant needs a vector .*, got shape \(0,\); "),
    (lambda: doubly_block_circulant(np.ones((2, 2))), TypeError, "doubly_block_circulant needs .*, got ndarray; "),
    (lambda: doubly_block_circulant(torch.ones(3)), ValueError, r"circulant needs a matrix.*, got shape \(3,\); "),
    (lambda: doubly_block_circulant(torch.ones(0, 3)), ValueError, r"circulant needs a matrix.*, got shape \(0, 3\); "),
)
def test_numbers_out_of_range_and_what_is_no_symbol_no_row_and_no_image_are_refused(call, error, words):
    refused(words, call, error=error)


def test_blocks_that_differ_from_conjugate_ones_by_more_than_rounding_are_refused(device):
    B = Geometry((2, 3, 3, 2), (4, 5)).operator(device)
    blocks = symbol(B)
    blocks[1, 2, 0, 0] += 1e-3
    refused(r"needs conjugate blocks at \+f and -f.* got .*; ", from_symbol, blocks)


# ---- iterations that do not converge -------------------------------------------------------------------------------
def test_an_iteration_that_does_not_converge_is_an_error_with_the_operator(monkeypatch):
    monkeypatch.setattr("convkit.engine.lanczos.MOST", 1)
    words = r"leading singular values of ConvOperator\(kernel .* did not converge: after 1 restarts the residual is \d"
    refused(words, leading_singular_values, Geometry((3, 2, 3, 2), (7, 8)).operator("cpu"), 2, error=RuntimeError)
