"""Polar factors against the dense SVD, steps of norm 1, and the steepest direction against its certificate."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import operator_norm
from convkit.operators.geometry import NoFourierBlocks
from convkit.operators.operator import ConvOperator
from convkit.projections import polar, polar_step, steepest
from convkit.spectra import singular_values
from tests.helpers.geometries import CIRCULAR, Geometry, exact_geometries, normal, patch_geometries, scaled
from tests.helpers.refusals import refused

exact = st.one_of(exact_geometries(), patch_geometries())


def dense_polar(M: torch.Tensor) -> torch.Tensor:
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    return U @ Vh


def inner(A: ConvOperator, B: ConvOperator) -> float:
    return float((A.matrix() * B.matrix()).sum())


def is_regular(A: ConvOperator) -> bool:
    values = singular_values(A)
    return float(values[-1]) > 1e-6 * float(values[0]) > 0


# ---- polar ---------------------------------------------------------------------------------------------------------
@given(geometry=exact)
def test_polar_is_the_dense_polar_factor(device, geometry):
    A = geometry.operator(device)
    Q = polar(A)
    assert (Q.in_shape, Q.out_shape) == (A.in_shape, A.out_shape)
    values = torch.linalg.svdvals(Q.matrix())
    assert_close(values, torch.ones_like(values))
    if is_regular(A):
        assert_close(Q.matrix(), dense_polar(A.matrix()), atol=1e-8, rtol=0)


@pytest.mark.parametrize("geometry", CIRCULAR.values(), ids=CIRCULAR)
def test_polar_is_the_nearest_operator_with_values_1_whatever_the_scale(device, geometry):
    A = geometry.operator(device)
    Q, M = polar(A), A.matrix()
    distance = torch.linalg.matrix_norm(Q.matrix() - M)
    assert_close(distance.square(), (singular_values(A) - 1).square().sum())
    for factor in (1e-150, 1e150):
        assert_close(polar(scaled(A, factor)).kernel, Q.kernel, atol=1e-9, rtol=0)
    assert_close(polar(scaled(A, -1)).kernel, -Q.kernel, atol=1e-9, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("c_out", "c_in"), [(2, 3), (3, 2), (12, 3)])
def test_polar_of_centered_taps_has_all_values_1_and_repeats_itself(device, stride, c_out, c_in):
    kernel = normal(c_out, c_in, 3, 3, device=device)
    kernel = kernel - kernel.mean((1, 2, 3), keepdim=True)
    kernel[1] = 0  # a dead channel: rank is lost at every frequency
    A = ConvOperator(kernel, (6, 4), stride)
    Q = polar(A)
    values = torch.linalg.svdvals(Q.matrix())
    assert_close(values, torch.ones_like(values))
    assert torch.equal(polar(A).kernel, Q.kernel)
    # as near as any operator with values 1 can be
    distance = torch.linalg.matrix_norm(Q.matrix() - A.matrix()).square()
    assert_close(distance, (torch.linalg.svdvals(A.matrix()) - 1).square().sum())


def test_polar_of_zeros_and_of_repeated_values(device):
    A = ConvOperator(torch.zeros(2, 3, 3, dtype=torch.float64, device=device), 5)
    assert_close(singular_values(polar(A)), torch.ones(10, dtype=torch.float64, device=device))
    delta = torch.zeros(3, 3, 3, 3, dtype=torch.float64, device=device)
    delta[:, :, 1, 1] = 7 * torch.linalg.qr(normal(3, 3, device=device)).Q
    assert_close(polar(ConvOperator(delta, (4, 5))).matrix(), ConvOperator(delta / 7, (4, 5)).matrix())


def test_polar_in_float32_is_that_in_float64_rounded(device):
    A = Geometry((5, 4, 3, 2), (7, 6)).operator(device, torch.float32)
    Q = polar(A)
    assert Q.kernel.dtype == torch.float32
    assert_close(Q.kernel.double(), polar(replace(A, kernel=A.kernel.double())).kernel, atol=1e-6, rtol=0)


def test_one_output_channel_is_normalized_as_convnorm_does(device):
    layer = ConvNorm2d(3, 1, 3, padding="same", padding_mode="circular", affine=False, device=device).double()
    A = ConvOperator(layer.weight.detach(), (6, 5))
    assert_close(polar(A).matrix(), layer.operator((6, 5)).matrix().detach(), atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch itself
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("c_out", "c_in"), [(2, 3), (3, 2)])
def test_derivatives_of_the_polar_factor_and_the_step(device, stride, c_out, c_in):
    kernel = normal(c_out, c_in, 3, 2, device=device).requires_grad_()
    for function in (polar, polar_step):

        def found(kernel: torch.Tensor, function=function) -> torch.Tensor:
            return function(ConvOperator(kernel, (4, 4), stride)).kernel

        assert torch.autograd.gradcheck(found, kernel, nondet_tol=1e-9)
        tangent = normal(*kernel.shape, device=device)
        with forward_ad.dual_level():
            forward = forward_ad.unpack_dual(found(forward_ad.make_dual(kernel.detach(), tangent))).tangent
        weights = normal(*forward.shape, device=device, seed=1)
        (grad,) = torch.autograd.grad((found(kernel) * weights).sum(), kernel)
        assert_close((forward * weights).sum(), (grad * tangent).sum())


def test_derivatives_at_repeated_values_are_finite_and_at_zeros_and_twice_refused(device):
    delta = torch.zeros(2, 2, 3, dtype=torch.float64, device=device)
    delta[:, :, 1] = torch.eye(2)
    delta.requires_grad_()
    (gradient,) = torch.autograd.grad(polar(ConvOperator(delta, 4)).kernel[0, 1, 1], delta, create_graph=True)
    assert_close(gradient[:, :, 1], torch.tensor([[0.0, 0.5], [-0.5, 0.0]]).to(gradient))
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(gradient.sum(), delta)
    kernel = normal(2, 2, 3, device=device)
    centered = (kernel - kernel.mean((1, 2), keepdim=True)).requires_grad_()
    refused("singular values above 0", polar, ConvOperator(centered, 5))


def test_polar_takes_transposed_operators_and_refuses_zero_padding(device):
    A = Geometry((4, 3, 3, 3), (6, 4), stride=2).operator(device)
    assert_close(polar(A.T).matrix(), dense_polar(A.matrix().T), atol=1e-8, rtol=0)
    for function in (polar, polar_step, steepest):
        with pytest.raises(NoFourierBlocks, match=function.__name__):
            function(ConvOperator(normal(2, 3, 3, 3, device=device), (5, 4), padding_mode="zeros"))


# ---- steps ---------------------------------------------------------------------------------------------------------
@given(geometry=exact)
def test_a_step_has_norm_1_and_is_the_polar_factor_on_the_taps(device, geometry):
    A = geometry.operator(device)
    if not is_regular(A):
        return
    D = polar_step(A)
    assert D.kernel.shape == A.kernel.shape
    assert_close(torch.linalg.matrix_norm(D.matrix(), 2), torch.ones((), dtype=torch.float64, device=device))
    # the nearest kernel with these taps: what is missing is orthogonal to each of them
    basis = torch.eye(A.kernel.numel()).to(A.kernel)
    rows = torch.stack([replace(A, kernel=e.view_as(A.kernel)).matrix().flatten() for e in basis])
    nearest = torch.linalg.pinv(rows @ rows.T) @ rows @ polar(A).matrix().flatten()
    M = (nearest @ rows).view_as(A.matrix())
    by_group = [part / torch.linalg.matrix_norm(part, 2) for part in M.chunk(A.groups)]
    assert_close(D.matrix(), torch.cat(by_group), atol=1e-7, rtol=0)


def test_the_groups_of_a_step_have_norm_1_each_so_that_a_depthwise_step_is_steeper(device):
    """Channels that never meet have nothing to share: scaled together, all but one would step by less than they may."""
    sizes = torch.arange(1, 7, device=device).view(-1, 1, 1, 1)
    A = ConvOperator(normal(6, 1, 3, 3, device=device) * sizes, (8, 7), groups=6)
    step, channels = polar_step(A), [replace(A, kernel=part, groups=1) for part in A.kernel.chunk(6)]
    assert_close(step.kernel, torch.cat([polar_step(channel).kernel for channel in channels]))
    slope = float((step.matrix() * A.matrix()).sum())
    most = sum(steepest(channel, 200).slope for channel in channels)
    assert 0.75 * most < slope < most
    U, _, Vh = torch.linalg.svd(A.kernel.flatten(1), full_matrices=False)
    flattened = replace(A, kernel=(U @ Vh).view_as(A.kernel))  # Muon's, which mixes the channels
    assert float((flattened.matrix() * A.matrix()).sum() / operator_norm(flattened, 2)) < 0.7 * slope


def test_a_kernel_of_size_1_steps_as_its_matrix(device):
    matrix = normal(3, 5, device=device)
    for shape in (torch.Size([1, 1]), torch.Size([4, 3])):
        step = polar_step(ConvOperator(matrix[..., None, None], tuple(shape)))
        assert_close(step.kernel[..., 0, 0], dense_polar(matrix))


# ---- steepest ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("geometry", CIRCULAR.values(), ids=CIRCULAR)
def test_steepest_has_norm_1_its_slope_and_a_certified_gap(device, geometry):
    A = geometry.operator(device)
    found = steepest(A, 400)
    D = found.direction
    assert D.kernel.shape == A.kernel.shape
    assert_close(torch.linalg.matrix_norm(D.matrix(), 2), torch.ones((), dtype=torch.float64, device=device))
    assert math.isclose(found.slope, inner(D, A), rel_tol=1e-9)
    assert 0 <= found.gap < 0.02
    assert found.slope <= float(singular_values(A).sum()) * (1 + 1e-9)
    gradient = A.kernel / operator_norm(A, 2)
    for other in (polar_step(A), replace(A, kernel=gradient)):
        assert inner(other, A) <= found.slope * (1 + found.gap) * (1 + 1e-9)
    for rounds in (1, 3):  # far from the end, the gap still covers what is left to gain
        early = steepest(A, rounds)
        assert found.slope <= early.slope * (1 + early.gap) * (1 + 1e-9)
    large = steepest(scaled(A, 1e30), 400)
    assert_close(large.direction.kernel, D.kernel, atol=1e-6, rtol=0)
    assert math.isclose(large.slope, 1e30 * found.slope, rel_tol=1e-6)


def test_steepest_is_the_polar_factor_where_the_taps_leave_it_room(device):
    A = ConvOperator(normal(3, 2, 5, 4, device=device), (5, 4))  # taps everywhere
    found = steepest(A, 200)
    assert_close(found.slope, float(singular_values(A).sum()), rtol=1e-4, atol=0)
    assert_close(found.direction.kernel, polar(A).kernel, atol=1e-3, rtol=0)


def test_steepest_refuses_zeros_and_no_rounds(device):
    refused("other than 0", steepest, ConvOperator(torch.zeros(2, 2, 3, device=device), 4))
    refused("rounds", steepest, ConvOperator(normal(2, 2, 3, device=device), 4), 0)
