"""The papers' own statements, written anew in tests/helpers/reference.py, beside what the library says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.circulants import doubly_block_circulant
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values, spectrum
from tests.helpers import reference
from tests.helpers.geometries import Geometry, normal


# ---- S: Sedghi, Gupta, Long 2019 -----------------------------------------------------------------------------------
@given(
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    data=st.data(),
)
def test_sedghis_two_lines_give_our_singular_values_frequency_by_frequency(device, channels, size, data):
    k = tuple(data.draw(st.integers(1, n)) for n in size)
    A = Geometry((*channels, *k), size).operator(device)
    listing = reference.sedghi_singular_values(A.kernel.permute(2, 3, 0, 1).cpu().numpy(), size)  # (k, k, c, d)
    assert_close(spectrum(A).cpu(), torch.as_tensor(listing))
    assert_close(singular_values(A).cpu(), torch.as_tensor(np.sort(listing, axis=None)[::-1].copy()))


def test_sedghis_two_lines_crop_a_kernel_larger_than_the_image_and_ours_folds_it(device):
    A = Geometry((3, 2, 5, 4), (3, 2)).operator(device)
    exactly = torch.linalg.svdvals(A.matrix())
    listing = reference.sedghi_singular_values(A.kernel.permute(2, 3, 0, 1).cpu().numpy(), (3, 2))
    assert_close(singular_values(A), exactly)
    assert abs(listing.max() - exactly[0].item()) > 0.5


@pytest.mark.parametrize("n", [(3, 5), (4, 2)])
def test_each_pair_of_channels_is_a_doubly_block_circulant_matrix(device, n):
    A = ConvOperator(normal(3, 2, *n, device=device), n, padding=((0, n[0] - 1), (0, n[1] - 1)))
    blocks = A.matrix().unflatten(0, (3, -1)).unflatten(-1, (2, -1))
    for c in range(3):
        for d in range(2):
            assert_close(blocks[c, :, d], doubly_block_circulant(A.kernel[c, d]))


# ---- L: Liang, Huang 2021 ------------------------------------------------------------------------------------------
@st.composite
def zero_padded_2d(draw):
    kernel_size, stride, padding = (draw(st.tuples(*[st.integers(low, low + 3)] * 2)) for low in (1, 1, 0))
    size = tuple(draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel_size, padding, strict=True))
    channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Geometry((*channels, *kernel_size), size, stride, padding, padding_mode="zeros")


def theorem_1(A: ConvOperator, geometry: Geometry) -> tuple[float, float]:
    return reference.theorem_1(A.kernel.cpu().numpy(), A.input_shape, A.stride, geometry.padding)


@given(geometry=zero_padded_2d())
def test_theorem_1_and_equation_3_never_underestimate_and_theorem_1_is_exact_under_assumption_1(device, geometry):
    A = geometry.operator(device)
    l1, linf = theorem_1(A, geometry)
    place = (geometry.input_shape, geometry.kernel_shape[2:], geometry.stride, geometry.padding)
    if reference.assumption_1(*place):
        assert_close(operator_norm(A, 1).item(), l1)
        assert_close(operator_norm(A, math.inf).item(), linf)
    assert operator_norm(A, 1) <= l1 + 1e-12
    assert operator_norm(A, math.inf) <= linf + 1e-12
    assert operator_norm(A, 2) <= reference.theorem_1_bound(A.kernel.cpu().numpy(), A.out_shape[1:]) + 1e-12


def test_theorem_1_overestimates_where_assumption_1_fails(device):
    geometry = Geometry((3, 2, 4, 4), (1, 1), (1, 4), (2, 3), padding_mode="zeros")
    assert not reference.assumption_1(geometry.input_shape, (4, 4), geometry.stride, geometry.padding)
    kernel = normal(*geometry.kernel_shape, device=device)
    kernel[..., :2] *= 5  # taps that never meet the only pixel
    A = geometry.with_kernel(kernel)
    M = A.matrix()
    for ord, printed in zip((1, math.inf), theorem_1(A, geometry), strict=True):
        exactly = torch.linalg.matrix_norm(M, ord)
        assert_close(operator_norm(A, ord), exactly)
        assert printed > 2 * exactly


def test_the_index_sets_are_those_of_a_case_worked_by_hand(device):
    kernel = torch.tensor([[[[1.0, 2.0, 4.0]]]], dtype=torch.float64, device=device)
    # stride 2: a pixel is read by the first and the last tap, or by the middle one
    assert reference.theorem_1(kernel.cpu().numpy(), (1, 7), (1, 2), (0, 0)) == (5.0, 7.0)
    assert reference.assumption_1((1, 7), (1, 3), (1, 2), (0, 0)) is False  # one row: 1 + 1 > 1
    A = ConvOperator(kernel, (1, 7), (1, 2), 0, padding_mode="zeros")
    assert (operator_norm(A, 1).item(), operator_norm(A, math.inf).item()) == (5.0, 7.0)
