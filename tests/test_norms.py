"""The three operator norms equal the dense matrix's in every geometry; power iteration stays below."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from convkit.engine import largest
from convkit.engine.blocks import Blocks, Gram
from convkit.engine.largest import DENSE_SIDE, top_frequency
from convkit.norms import operator_norm, power_iteration
from convkit.operators.operator import ConvOperator
from convkit.spectra import spectrum, symbol
from tests.helpers.geometries import (
    EVERYTHING,
    Geometry,
    exact_geometries,
    geometries,
    normal,
    patch_geometries,
    scaled,
)

everything = pytest.mark.parametrize("geometry", EVERYTHING.values(), ids=EVERYTHING)
orders = pytest.mark.parametrize("ord", [1, 2, math.inf])
any_geometry = st.one_of(geometries(), exact_geometries(), patch_geometries())


def dense_norm(A: ConvOperator, ord: float) -> torch.Tensor:
    return torch.linalg.matrix_norm(A.matrix(), ord)


# ---- operator norm -------------------------------------------------------------------------------------------------
@orders
@given(geometry=any_geometry)
def test_norm_equals_dense_norm_and_scales(device, ord, geometry):
    A = geometry.operator(device)
    assert_close(operator_norm(A, ord), dense_norm(A, ord))
    assert_close(operator_norm(scaled(A, -3.0), ord), 3 * dense_norm(A, ord))


@pytest.mark.parametrize("ord", [1, math.inf])
@pytest.mark.parametrize("n, dilation, stride", [(3, 1, 1), (4, 2, 1), (6, 4, 2), (4, 1, 3), (6, 9, 5)])
def test_taps_that_meet_on_a_pixel_are_summed_before_the_absolute_value(device, ord, n, dilation, stride):
    kernel = normal(2, 3, 7, device=device)
    A = ConvOperator(kernel, n, stride, dilation=dilation)
    assert_close(operator_norm(A, ord), dense_norm(A, ord))
    period = n // math.gcd(n, dilation)  # taps so far apart meet on a pixel: neighbors of a group get different signs
    signs = 1 - 2 * (torch.arange(7, device=device) // period % 2)
    A = replace(A, kernel=kernel.abs() * signs)
    assert_close(operator_norm(A, ord), dense_norm(A, ord))
    assert operator_norm(A, ord) < dense_norm(replace(A, kernel=kernel.abs()), ord)  # absolute values first: too large


@orders
@everything
def test_norms_are_differentiable_scalars_and_in_float32_right_to_its_rounding(device, ord, geometry):
    kernel = geometry.operator(device).kernel.requires_grad_()
    noise = 1e-11 if device.type == "cuda" else 0.0  # index_add sums in no fixed order on the GPU
    exactly = operator_norm(geometry.with_kernel(kernel), ord)
    assert exactly.shape == ()
    assert gradcheck(lambda kernel: operator_norm(geometry.with_kernel(kernel), ord), (kernel,), nondet_tol=noise)
    norm = operator_norm(geometry.operator(device, torch.float32), ord)
    assert (norm.dtype, norm.device.type) == (torch.float32, device.type)
    # sums of at most 50 terms, an FFT and a small SVD: a small multiple of eps
    assert abs(norm.double() - exactly) <= 20 * torch.finfo(torch.float32).eps * exactly


@orders
def test_the_norm_of_a_zero_kernel_is_zero_with_a_finite_derivative(device, ord):
    for mode in ("zeros", "circular"):
        kernel = torch.zeros(3, 2, 3, 2, dtype=torch.float64, device=device, requires_grad=True)
        norm = operator_norm(ConvOperator(kernel, (4, 5), padding_mode=mode), ord)
        norm.backward()
        assert norm.item() == 0
        assert kernel.grad is not None
        assert kernel.grad.isfinite().all()


@everything
def test_norms_change_neither_the_kernel_nor_the_random_state(device, geometry):
    A = geometry.operator(device)
    kernel, state = A.kernel.clone(), torch.get_rng_state()
    for ord in (1, 2, math.inf):
        operator_norm(A, ord)
    power_iteration(A, 2, torch.Generator().manual_seed(3))
    assert torch.equal(A.kernel, kernel)
    assert torch.equal(torch.get_rng_state(), state)


# ---- norm 2 by blocks ----------------------------------------------------------------------------------------------
def largest_of_symbol(A: ConvOperator) -> torch.Tensor:
    return torch.linalg.svdvals(symbol(A).cpu()).amax().to(A.kernel)  # a GPU's float32 values are wrong by 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((40, 31, 3, 3), (12, 10)),
        Geometry((31, 40, 3, 2), (9, 12), stride=(1, 2)),
        Geometry((64, 32, 3, 3), (8, 6), groups=2),
        Geometry((30, 33, 5), (40,), dilation=2),
        Geometry((28, 28, 2, 3, 2), (4, 3, 4)),
    ],
    ids=str,
)
def test_operator_norm_of_many_channels_is_the_plain_maximum(device, dtype, geometry, monkeypatch):
    monkeypatch.setattr("convkit.engine.largest.DENSE_SIDE_ON_GPU", DENSE_SIDE)
    near = {"atol": 0, "rtol": 1e-12 if dtype == torch.float64 else 2e-6}
    for seed in range(5):
        A = geometry.operator(device, dtype, seed)
        # later rows are weaker, so that the values are spread as in trained kernels
        weaker = torch.linspace(1, 0.1, len(A.kernel)).to(A.kernel).view(-1, *[1] * (A.kernel.ndim - 1))
        A = replace(A, kernel=A.kernel * weaker)
        assert_close(operator_norm(A, 2), largest_of_symbol(A), **near)
        assert min(Blocks(A).taps.shape[2:]) > DENSE_SIDE  # the Krylov path was what ran


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.99, 1.0, 1.2, 100.0])
def test_operator_norm_is_right_also_where_the_iterations_are_not(device, monkeypatch, groups, factor):
    A = Geometry((30 * groups, 28, 3, 3), (8, 7), groups=groups).operator(device)
    blocks = Blocks(A)
    top = max(float(torch.linalg.eigvalsh(blocks.gram().at(blocks.frequencies)).max()), 0)
    monkeypatch.setattr("convkit.engine.largest._reached", lambda *_: factor * top)  # 1.2: more than any block reaches
    assert_close(operator_norm(A, 2), largest_of_symbol(A), atol=0, rtol=1e-12)


def test_only_blocks_near_the_largest_are_decomposed(device, monkeypatch):
    taken = []
    decompose = largest._largest_eigenvalues

    def counted(gram, some, pool):
        taken.append(len(some))
        return decompose(gram, some, pool)

    monkeypatch.setattr(largest, "_largest_eigenvalues", counted)
    for seed in range(5):
        A = Geometry((30, 28, 3, 3), (20, 22)).operator(device, seed=seed)
        assert_close(operator_norm(A, 2), largest_of_symbol(A), atol=0, rtol=1e-12)
    assert sum(taken) <= 5 * 10  # of 222 each


def test_float32_products_of_few_digits_are_noticed(device, monkeypatch):
    """As TF32 would leave them, which a user may have allowed for the whole process."""

    class Coarse(Gram):
        def at(self, frequencies, real=False):
            blocks = super().at(frequencies, real)
            if self.dtype != torch.float32:
                return blocks
            noise = normal(*blocks.shape, device=device, dtype=torch.float32, seed=int(frequencies.sum()))
            return blocks * (1 + 1e-3 * noise)

    monkeypatch.setattr("convkit.engine.blocks.Gram", Coarse)
    for seed in range(5):
        A = Geometry((40, 36, 3, 3), (8, 7)).operator(device, seed=seed)
        assert largest._rough_gram(Blocks(A)).dtype == torch.float64
        assert_close(operator_norm(A, 2), largest_of_symbol(A), atol=0, rtol=1e-12)


def test_gradient_of_operator_norm_is_that_of_the_plain_maximum(device):
    for geometry in (
        Geometry((30, 28, 3, 3), (8, 7)),
        Geometry((4, 3, 3, 2), (6, 4), stride=2),
        Geometry((4, 2, 3), (9,), groups=2),
    ):
        A = geometry.operator(device)
        A = replace(A, kernel=A.kernel.requires_grad_())
        fast = torch.autograd.grad(operator_norm(A, 2), A.kernel)[0]
        plain = torch.autograd.grad(largest_of_symbol(A), A.kernel)[0]
        assert_close(fast, plain)


def test_top_frequency_is_where_the_largest_value_is(device):
    A = Geometry((30, 26, 3, 3), (10, 12)).operator(device)
    frequency, group = top_frequency(Blocks(A))
    assert group == 0
    assert_close(spectrum(A)[tuple(frequency[0].tolist())][0], largest_of_symbol(A))


# ---- power iteration -----------------------------------------------------------------------------------------------
@given(geometry=any_geometry, steps=st.integers(1, 20))
def test_power_iteration_never_exceeds_the_norm(device, geometry, steps):
    A = geometry.operator(device)
    estimate = power_iteration(A, steps, torch.Generator().manual_seed(steps))
    assert 0 <= estimate <= dense_norm(A, 2) * (1 + 1e-12)
    assert (estimate > 0) == (dense_norm(A, 2) > 0)


@pytest.mark.slow
@everything
def test_power_iteration_converges_to_the_norm_scales_and_is_differentiable(device, geometry):
    def estimate(kernel: torch.Tensor, steps: int = 3) -> torch.Tensor:
        return power_iteration(geometry.with_kernel(kernel), steps, torch.Generator().manual_seed(0))

    kernel = geometry.operator(device).kernel
    converged = estimate(kernel, 600)  # the gap between the values decides how fast
    assert_close(converged, dense_norm(geometry.with_kernel(kernel), 2), rtol=1e-3, atol=0)
    assert_close(estimate(-3 * kernel, 600), 3 * converged)
    noise = 1e-11 if device.type == "cuda" else 0.0
    assert gradcheck(estimate, (kernel.requires_grad_(),), nondet_tol=noise)


def test_power_iteration_draws_its_start_from_the_generator_and_from_torchs_without_one(device):
    A = Geometry((3, 2, 3, 2), (4, 5), padding_mode="zeros").operator(device)
    one, two = (power_iteration(A, 1, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert one != two
    assert torch.equal(one, power_iteration(A, 1, torch.Generator().manual_seed(1)))
    torch.manual_seed(5)
    first = power_iteration(A, 1)
    assert first != power_iteration(A, 1)
    torch.manual_seed(5)
    assert torch.equal(first, power_iteration(A, 1))
    assert power_iteration(A, 3, torch.Generator(device).manual_seed(0)).device.type == device.type


def test_power_iteration_comes_closer_with_more_steps_is_zero_for_the_zero_operator_and_keeps_float32(device):
    A = Geometry((3, 2, 3, 2), (4, 5), padding_mode="zeros").operator(device)
    estimates = [power_iteration(A, steps, torch.Generator().manual_seed(0)) for steps in (1, 3, 9, 27)]
    assert estimates == sorted(estimates)
    assert power_iteration(scaled(A, 0.0), 5).item() == 0
    assert power_iteration(replace(A, kernel=A.kernel.float()), 3).dtype == torch.float32
