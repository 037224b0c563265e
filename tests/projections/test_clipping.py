"""Projections against dense projections: nearest points, bounds that hold, and kernels that keep their size."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from convkit.bench.baselines import two_lines_clip
from convkit.engine.blocks import Blocks
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import (
    alternating_projections,
    clip_and_crop,
    clip_reshaped_kernel,
    clip_singular_values,
    dykstra,
)
from convkit.spectra import singular_values
from tests.helpers.geometries import CIRCULAR, Geometry, exact_geometries, normal, patch_geometries, scaled
from tests.helpers.refusals import refused

exact = st.one_of(exact_geometries(), patch_geometries())
relative_bounds = st.floats(0.15, 1.2)
BOUNDED = (alternating_projections, dykstra)
ALL = (*BOUNDED, clip_singular_values, clip_and_crop, clip_reshaped_kernel)


def dense_clip(M: torch.Tensor, bound: float) -> torch.Tensor:
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U * S.clamp(max=bound)[..., None, :]) @ Vh


def dense_crop(A: ConvOperator, M: torch.Tensor) -> torch.Tensor:
    """The matrix nearest to M among those of kernels of A's geometry: least squares on a basis of kernels."""
    basis = torch.eye(A.kernel.numel()).to(A.kernel)
    columns = torch.stack([replace(A, kernel=e.view_as(A.kernel)).matrix().flatten() for e in basis], 1)
    return (columns @ torch.linalg.pinv(columns) @ M.flatten()).view_as(M)


@given(geometry=exact, relative=relative_bounds)
def test_clip_is_the_dense_projection_on_the_ball(device, geometry, relative):
    A = geometry.operator(device)
    M = A.matrix()
    bound = relative * float(torch.linalg.matrix_norm(M, 2))
    assert_close(clip_singular_values(A, bound).matrix(), dense_clip(M, bound))


@pytest.mark.slow
@given(geometry=exact, relative=relative_bounds)
def test_clip_and_crop_is_the_nearest_kernel_of_that_size_to_the_clip(device, geometry, relative):
    A = geometry.operator(device)
    bound = relative * float(operator_norm(A, 2))
    B = clip_and_crop(A, bound)
    assert B.kernel.shape == A.kernel.shape
    assert_close(B.matrix(), dense_crop(A, dense_clip(A.matrix(), bound)), atol=1e-9, rtol=1e-7)


def test_clip_and_crop_is_the_papers_listing(device):
    A = Geometry((5, 3, 3, 2), (7, 6)).operator(device)
    bound = 0.6 * float(operator_norm(A, 2))
    listing = two_lines_clip(A.kernel.permute(2, 3, 0, 1).cpu().numpy(), A.input_shape, bound)
    assert_close(clip_and_crop(A, bound).kernel.cpu(), torch.from_numpy(listing).permute(2, 3, 0, 1))


@pytest.mark.parametrize("project", BOUNDED)
@given(geometry=exact, relative=relative_bounds)
def test_the_bound_holds_on_return_and_a_kernel_inside_stays(device, project, geometry, relative):
    A = geometry.operator(device)
    norm = float(torch.linalg.matrix_norm(A.matrix(), 2))
    B = project(A, relative * norm, rounds=7)
    assert B.kernel.shape == A.kernel.shape
    assert float(torch.linalg.matrix_norm(B.matrix(), 2)) <= relative * norm * (1 + 1e-12)
    if relative > 1.001:
        assert_close(B.kernel, A.kernel)


@pytest.mark.parametrize("project", BOUNDED)
def test_the_bound_holds_in_float32(device, project):
    A = Geometry((30, 28, 3, 3), (9, 8)).operator(device, torch.float32)
    B = project(A, 3.0, rounds=5)
    assert float(operator_norm(replace(B, kernel=B.kernel.double()), 2)) <= 3.0 * (1 + 1e-6)


def plain_dykstra(A: ConvOperator, bound: float, rounds: int) -> ConvOperator:
    """Boyle & Dykstra 1986 on kernels as large as the image, without acceleration: its limit is the nearest point."""
    (kh, kw), (h, w) = A.kernel.shape[2:], A.input_shape
    x, p = torch.nn.functional.pad(A.kernel, (0, w - kw, 0, h - kh)), 0.0
    for _ in range(rounds):
        blocks = torch.fft.fft2(x + p).permute(2, 3, 0, 1)
        y = torch.fft.ifft2(dense_clip(blocks, bound).permute(2, 3, 0, 1)).real
        p = x + p - y
        x = torch.zeros_like(y)
        x[..., :kh, :kw] = y[..., :kh, :kw]
    B = replace(A, kernel=x[..., :kh, :kw])
    return scaled(B, min(1.0, float(bound / operator_norm(B, 2))))


@pytest.mark.slow
def test_dykstra_has_the_limit_of_the_plain_algorithm_and_gets_there_sooner_and_alternating_does_not(device):
    A = ConvOperator(normal(5, 4, 3, 2, device=device), (8, 7))
    bound = 0.5 * float(operator_norm(A, 2))
    limit = plain_dykstra(A, bound, 3000)
    assert_close(dykstra(A, bound, 1000).kernel, limit.kernel, atol=2e-3, rtol=0)
    distance = [float((project(A, bound, 60).kernel - limit.kernel).norm()) for project in (dykstra, plain_dykstra)]
    assert distance[0] < 0.5 * distance[1]
    near = [float((dykstra(A, bound, rounds).kernel - A.kernel).norm()) for rounds in (3, 30, 300)]
    assert near[0] > near[1] > near[2]
    assert float((alternating_projections(A, bound, rounds=400).kernel - A.kernel).norm()) > 1.002 * near[2]


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("geometry", CIRCULAR.values(), ids=CIRCULAR)
def test_projections_scale(device, geometry, factor):
    A = geometry.operator(device)
    bound = 0.6 * float(operator_norm(A, 2))
    near = {"atol": 1e-9 * factor, "rtol": 1e-6}
    for project in ALL:
        kernel = project(scaled(A, factor), factor * bound).kernel
        assert_close(kernel, factor * project(A, bound).kernel, **near)


def test_reshaped_clip_bounds_the_flattened_kernel_of_each_group_only(device):
    A = Geometry((6, 4, 3, 3), (5, 7), groups=2, padding_mode="zeros").operator(device)
    B = clip_reshaped_kernel(A, 1.0)
    norms = torch.linalg.matrix_norm(B.kernel.view(2, 3, -1), 2)
    assert_close(norms, torch.ones_like(norms))
    assert 1.0 < float(operator_norm(B, 2)) <= 3.0


def test_clip_is_differentiable_where_values_are_distinct(device):
    kernel = normal(2, 3, 2, 2, device=device).requires_grad_()

    def clipped(kernel: torch.Tensor) -> torch.Tensor:
        return clip_singular_values(ConvOperator(kernel, (3, 3)), 1.5).kernel

    assert torch.autograd.gradcheck(clipped, kernel, nondet_tol=1e-9)


def test_projections_change_nothing_and_repeat_themselves(device):
    A = CIRCULAR["2-D strided"].operator(device)
    before = A.kernel.clone()
    for project in ALL:
        assert torch.equal(project(A, 0.7).kernel, project(A, 0.7).kernel)
    assert torch.equal(A.kernel, before)


@pytest.mark.parametrize("project", ALL)
def test_bounds_that_are_none_and_no_rounds_are_refused(device, project):
    A = CIRCULAR["2-D"].operator(device)
    for bound in (0.0, -1.0, float("nan"), float("inf")):
        refused(f"{project.__name__}'s bound must be a positive number, got", project, A, bound)
    if project in BOUNDED:
        refused("rounds must be a whole number of at least 1, got 0", project, A, 1.0, rounds=0)


@pytest.mark.parametrize("shape", [(24, 12, 1, 1), (40, 6, 1, 1), (10, 4, 1, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_that_a_stride_steps_over_are_clipped_without_the_columns_that_no_tap_reads(device, shape, dtype):
    A = Geometry(shape, (4, 6), stride=(4, 3), padding="valid" if shape[-1] == 1 else 0).operator(device, dtype)
    assert Blocks(A).taps.shape[-1] == shape[1] * shape[3]
    bound = 0.5 * float(operator_norm(A, 2))
    clipped = clip_and_crop(A, bound)
    U, S, Vh = torch.linalg.svd(A.matrix().double(), full_matrices=False)
    truth = (U * S.clamp(max=bound)) @ Vh
    assert_close(clipped.matrix().double(), truth, rtol=1e-5, atol=1e-5)  # a patch for each output: nothing to crop
    assert_close(singular_values(A).double(), S, rtol=1e-5, atol=1e-4 if dtype == torch.float32 else 1e-12)
