"""The exact spectral functions equal the dense matrix's, in every geometry that the Fourier transform diagonalizes."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from convkit.operators.operator import ConvOperator
from convkit.spectra import channel_condition_numbers, condition_number, from_symbol, singular_values, spectrum, symbol
from tests.helpers.geometries import (
    CIRCULAR,
    Geometry,
    exact_geometries,
    geometries,
    inputs,
    normal,
    patch_geometries,
    scaled,
)
from tests.helpers.refusals import refused

TIGHT = {"rtol": 1e-11, "atol": 1e-11}  # a Gram matrix would leave 1e-8 where a singular value is 0
exact = st.one_of(exact_geometries(), patch_geometries())
circular = pytest.mark.parametrize("geometry", CIRCULAR.values(), ids=CIRCULAR)


def fold(transform: torch.Tensor, A: ConvOperator) -> torch.Tensor:
    """Of a batch of transforms of inputs: for each group and coarse frequency g, those at ``g + r n / s`` side by side.

    Shape ``(*coarse, groups, prod(stride) * c_in / groups, batch)``, r before the channel, by the definition.
    """
    d = len(A.stride)
    folded = transform.unflatten(1, (A.groups, -1))
    for axis, s in enumerate(A.stride):
        folded = folded.unflatten(3 + 2 * axis, (s, -1))  # r before g
    r, g = range(3, 3 + 2 * d, 2), range(4, 4 + 2 * d, 2)
    return folded.permute(*g, 1, *r, 2, 0).flatten(d + 1, -2)


def blocks_of(A: ConvOperator) -> torch.Tensor:
    """The symbol with an axis for the groups, also where there is one group."""
    return symbol(A) if A.groups > 1 else symbol(A).unsqueeze(-3)


# ---- symbol --------------------------------------------------------------------------------------------------------
@given(geometry=exact)
def test_symbol_multiplies_the_orthonormal_transform_of_the_input(device, geometry):
    A = geometry.operator(device)
    assert_close(symbol(A.T), symbol(A).mH)
    A = replace(A, transposed=False)
    dims = tuple(range(2, 2 + len(A.input_shape)))
    x = inputs(A)
    y = torch.fft.fftn(A(x), dim=dims, norm="ortho")
    product = blocks_of(A) @ fold(torch.fft.fftn(x, dim=dims, norm="ortho"), A)  # (*coarse, groups, rows, batch)
    assert_close(product.flatten(-3, -2).movedim((-1, -2), (0, 1)), y)


@pytest.mark.parametrize("groups", [1, 2])
def test_symbol_has_the_stated_shape(device, groups):
    A = Geometry((4, 3, 2, 5), (6, 10), stride=(3, 2), groups=groups).operator(device)
    wanted = (2, 5, 4, 18) if groups == 1 else (2, 5, 2, 2, 18)
    assert symbol(A).shape == wanted
    assert symbol(A).dtype == torch.complex128
    assert symbol(replace(A, kernel=A.kernel.float())).dtype == torch.complex64


# ---- singular values -----------------------------------------------------------------------------------------------
@given(geometry=exact)
def test_singular_values_are_those_of_the_dense_matrix_and_scale_with_the_kernel(device, geometry):
    A = geometry.operator(device)
    assert_close(singular_values(A), torch.linalg.svdvals(A.matrix()), **TIGHT)
    assert_close(singular_values(scaled(A, -3.0)), 3 * singular_values(A))
    assert_close(spectrum(scaled(A, -3.0)), 3 * spectrum(A))


@given(geometry=exact)
def test_spectrum_holds_the_singular_values_of_each_block(device, geometry):
    A = geometry.operator(device)
    blocks = blocks_of(A)
    values = torch.linalg.svdvals(blocks).flatten(-2).sort(descending=True).values
    assert_close(spectrum(A), values, **TIGHT)
    assert_close(spectrum(replace(A, kernel=A.kernel.requires_grad_())).detach(), values)
    size = min(len(A.kernel), A.kernel.shape[1] * A.groups * math.prod(A.stride))
    assert spectrum(A).shape == (*blocks.shape[:-3], size)


@pytest.mark.parametrize("n, dilation", [(12, 5), (12, 2), (12, 3), (12, 8), (7, 7), (9, 6), (5, 1)])
def test_dilation_repeats_the_spectrum_of_the_undilated_kernel_on_n_over_gcd_axis_by_axis(device, n, dilation):
    kernel = normal(2, 3, 3, 2, device=device)
    times = math.gcd(n, dilation)
    repeated = singular_values(ConvOperator(kernel, (n // times, 5))).repeat_interleave(times)
    assert_close(singular_values(ConvOperator(kernel, (n, 5), dilation=(dilation, 4))), repeated, **TIGHT)


def test_the_channels_of_a_large_kernel_are_measured_in_parts(device, monkeypatch):
    for geometry in (
        Geometry((7, 3, 3, 3), (6, 4), stride=2),
        Geometry((5, 4, 3), (7,)),
        Geometry((4, 6, 1, 1), (1, 1)),
    ):
        A = geometry.operator(device)
        whole = channel_condition_numbers(A)
        rows = A.matrix().reshape(len(whole), -1, A.matrix().shape[1])
        assert_close(whole, torch.stack([torch.linalg.cond(row) for row in rows]))
        with monkeypatch.context() as patch:
            patch.setattr("convkit.spectra.LARGE_KERNEL", A.kernel.numel() // 3)
            assert_close(channel_condition_numbers(A), whole, atol=0, rtol=1e-13)


# ---- condition number ----------------------------------------------------------------------------------------------
@circular
def test_condition_number_is_that_of_the_dense_matrix_and_does_not_scale(device, geometry):
    A = geometry.operator(device)
    assert_close(condition_number(A), torch.linalg.cond(A.matrix()))
    assert_close(condition_number(scaled(A, -3.0)), condition_number(A))


def test_condition_number_is_1_for_an_orthogonal_operator_infinite_for_a_singular_and_undefined_for_the_zero_one(
    device,
):
    shift = torch.zeros(1, 1, 3, device=device, dtype=torch.float64)
    shift[0, 0, 2] = -2
    assert_close(condition_number(ConvOperator(shift, 5)).item(), 1.0)
    one_channel_ignored = torch.zeros(2, 2, 1, device=device, dtype=torch.float64)
    assert condition_number(ConvOperator(one_channel_ignored, 4)).isnan()  # as torch.linalg.cond of its matrix
    one_channel_ignored[0, 0] = 3
    assert condition_number(ConvOperator(one_channel_ignored, 4)) > 1e15  # the SVD need not find 0 exactly


# ---- from_symbol ---------------------------------------------------------------------------------------------------
@given(geometry=exact)
def test_from_symbol_gives_back_the_operator(device, geometry):
    A = replace(geometry.operator(device), transposed=False)
    B = from_symbol(symbol(A), A.stride, A.groups)
    assert_close(B.matrix(), A.matrix())
    assert B.kernel.shape[2:] == A.input_shape
    assert (B.stride, B.groups, B.kernel.dtype) == (A.stride, A.groups, A.kernel.dtype)
    assert_close(symbol(B), symbol(A))


def test_from_symbol_keeps_float32_and_takes_an_int_stride(device):
    A = Geometry((2, 3, 3, 2), (4, 6), stride=(2, 2)).operator(device, torch.float32)
    B = from_symbol(symbol(A), stride=2)
    assert B.kernel.dtype == torch.float32
    assert_close(B.matrix(), A.matrix(), rtol=0, atol=1e-5)  # 24 products of size 3 at eps 1.2e-7


# ---- derivatives, precision, purity --------------------------------------------------------------------------------
@circular
def test_spectral_functions_are_differentiable(device, geometry):
    kernel = geometry.operator(device).kernel.requires_grad_()
    noise = 1e-11 if device.type == "cuda" else 0.0  # index_add sums in no fixed order on the GPU
    for function in (symbol, spectrum, singular_values, condition_number):
        assert gradcheck(lambda kernel, f=function: f(geometry.with_kernel(kernel)), (kernel,), nondet_tol=noise)


def test_from_symbol_is_differentiable(device):
    A = Geometry((2, 1, 2, 3), (2, 4), stride=(1, 2), groups=2).operator(device)
    kernel = A.kernel.requires_grad_()

    def there_and_back(kernel):
        return from_symbol(symbol(replace(A, kernel=kernel)), A.stride, A.groups).kernel

    assert gradcheck(there_and_back, (kernel,), nondet_tol=1e-12 if device.type == "cuda" else 0.0)


@circular
def test_float32_is_right_to_its_rounding_of_the_largest_value(device, geometry):
    values = singular_values(geometry.operator(device, torch.float32))
    exactly = singular_values(geometry.operator(device))
    assert values.dtype == torch.float32
    # rounding in the FFT and the SVD moves each value by a small multiple of eps times the largest
    assert (values.double() - exactly).abs().max() <= 20 * torch.finfo(torch.float32).eps * exactly[0]


@circular
def test_spectral_functions_change_nothing(device, geometry):
    A = replace(geometry.operator(device), transposed=False)
    kernel = A.kernel.clone()
    blocks = symbol(A)
    copy = blocks.clone()
    for function in (spectrum, singular_values, condition_number):
        function(A)
    from_symbol(blocks, A.stride, A.groups)
    assert torch.equal(A.kernel, kernel)
    assert torch.equal(blocks, copy)


# ---- boundaries ----------------------------------------------------------------------------------------------------
@given(geometry=geometries())
def test_blocks_exist_exactly_where_the_operator_says_so(device, geometry):
    A = geometry.operator(device)
    if A.is_block_circulant:
        assert_close(singular_values(A), torch.linalg.svdvals(A.matrix()), **TIGHT)
    else:
        refused("singular_values needs", singular_values, A)
