"""The torus bounds zero-padded singular values index by index; the circular relative on the same size does not."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from tests.helpers.geometries import exact_geometries, geometries, patch_geometries


def assert_bounds(A: ConvOperator) -> None:
    small, large = torch.linalg.svdvals(A.matrix()), singular_values(A.torus())
    # padding beyond the span adds rows of zeros, and so more values than the torus has: they are zeros
    large = torch.cat([large, large.new_zeros(max(0, len(small) - len(large)))])
    assert (small <= large[: len(small)] + 1e-10 * large[0]).all()


@given(geometry=geometries(padding_modes=("zeros",)))
def test_torus_bounds_every_singular_value_index_by_index(device, geometry):
    assert_bounds(geometry.operator(device))


def test_torus_has_the_size_plus_padding_rounded_up_to_the_stride(device):
    cases = [  # padding, stride, size of the torus for n = 7 and a span of 4
        (1, 1, 8),
        (((1, 3),), 1, 10),
        (((3, 1),), 1, 10),
        (9, 1, 11),
        ("same", 1, 9),
        ("valid", 1, 7),
        (1, 3, 9),
        (2, 3, 9),
        (3, 3, 12),
    ]
    for padding, stride, n in cases:
        A = ConvOperator(torch.ones(1, 1, 5, device=device), 7, stride, padding, padding_mode="zeros")
        B = A.torus()
        assert B.input_shape == (n,)
        assert (B.padding, B.padding_mode, B.stride) == ("same", "circular", A.stride)
        assert B.kernel is A.kernel


@given(geometry=st.one_of(exact_geometries(), patch_geometries()))
def test_an_operator_with_blocks_is_its_own_torus(device, geometry):
    A = geometry.operator(device)
    assert A.torus() is A


def test_the_second_difference_on_three_pixels_escapes_its_circular_relative(device):
    kernel = torch.tensor([[[1.0, -2.0, 1.0]]], dtype=torch.float64, device=device)
    A = ConvOperator(kernel, 3, padding_mode="zeros")
    assert_close(operator_norm(A.circular(), 2).item(), 3.0)
    assert_close(operator_norm(A, 2).item(), 2 + 2**0.5)
    assert_close(operator_norm(A.torus(), 2).item(), 4.0)
