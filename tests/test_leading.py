"""The leading singular values equal the dense matrix's in every geometry, by both of the function's branches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from convkit.engine.lanczos import DENSE_LIMIT
from convkit.operators.operator import ConvOperator
from convkit.spectra import leading_singular_values, singular_values
from tests.helpers.geometries import EVERYTHING, OTHERS, Geometry, geometries, normal, scaled

everything = pytest.mark.parametrize("geometry", EVERYTHING.values(), ids=EVERYTHING)
LARGE = {  # more than DENSE_LIMIT rows and columns: iterated without any help
    "circular": Geometry((3, 2, 3, 2), (7, 8)),
    "zeros, strided": Geometry((4, 3, 3, 2), (9, 11), stride=(1, 2), padding=(1, 2), padding_mode="zeros"),
    "grouped": Geometry((6, 1, 2, 3), (5, 6), padding=(0, 2), dilation=(2, 1), groups=3, padding_mode="zeros"),
    "1-D": Geometry((3, 2, 9), (50,), padding="valid", padding_mode="zeros"),
    "3-D": Geometry((2, 3, 2, 3, 1), (4, 3, 5), padding_mode="zeros"),
    "stride does not divide": Geometry((5, 2, 3, 4), (9, 11), stride=(2, 2)),
}
large = pytest.mark.parametrize("geometry", LARGE.values(), ids=LARGE)


@contextmanager
def iterating() -> Iterator[None]:
    """Small operators are iterated, too: nothing but matrices with fewer than 4 k rows or columns is dense."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convkit.engine.lanczos.DENSE_LIMIT", 0)
        yield


def dense(A: ConvOperator, k: int) -> torch.Tensor:
    return torch.linalg.svdvals(A.matrix())[:k]


# ---- values --------------------------------------------------------------------------------------------------------
@given(geometry=geometries(), data=st.data())
def test_small_operators_have_the_dense_values(device, geometry, data):
    A = geometry.operator(device)
    k = data.draw(st.integers(1, min(A.matrix().shape)), label="k")
    assert_close(leading_singular_values(A, k), dense(A, k))


@given(geometry=geometries(), data=st.data())
def test_iteration_has_the_dense_values(device, geometry, data):
    A = geometry.operator(device)
    k = data.draw(st.integers(1, max(1, min(A.matrix().shape) // 4)), label="k")
    with iterating():
        values = leading_singular_values(A, k)
    # the squares are promised to 1e-10 of the largest: that is what can be seen of a value near 0
    assert_close(values**2, dense(A, k) ** 2, rtol=1e-9, atol=1e-9 * float(dense(A, 1) ** 2))


@large
@pytest.mark.parametrize("k", [1, 5, 12])
def test_large_operators_have_the_dense_values(device, geometry, k):
    A = geometry.operator(device)
    assert min(A.matrix().shape) > DENSE_LIMIT
    assert_close(leading_singular_values(A, k), dense(A, k))


@large
def test_values_scale_with_the_kernel_and_are_the_same_in_two_calls_and_in_float32_to_its_rounding(device, geometry):
    A = geometry.operator(device)
    exactly = leading_singular_values(A, 5)
    if device.type == "cpu":
        assert torch.equal(leading_singular_values(A, 5), exactly)
    assert_close(leading_singular_values(scaled(A, -3.0), 5), 3 * exactly)
    assert_close(leading_singular_values(scaled(A, 1e-9), 5), 1e-9 * exactly, rtol=1e-7, atol=0)
    values = leading_singular_values(geometry.operator(device, torch.float32), 5)
    assert values.dtype == torch.float32
    # the iteration runs in float64 on a kernel rounded by eps; the last step, u* A v, in float32
    assert (values.double() - exactly).abs().max() <= 10 * torch.finfo(torch.float32).eps * exactly[0]


# ---- repeated values and zeros: a Krylov space sees one copy --------------------------------------------------------
@pytest.mark.parametrize("k", [1, 2, 3, 8, 11])
def test_circular_pairs_are_found_twice_and_the_identity_has_as_many_ones_as_are_asked_for(device, k):
    A = Geometry((3, 2, 3, 2), (7, 9)).operator(device)
    assert_close(leading_singular_values(A, k), singular_values(A)[:k])
    A = ConvOperator(torch.eye(2, dtype=torch.float64, device=device)[..., None, None], (5, 7), padding_mode="zeros")
    assert_close(leading_singular_values(A, k), torch.ones(k, dtype=torch.float64, device=device))


@pytest.mark.parametrize("seed", [0, 4, 6, 23, 32, 75, 91])
def test_no_copy_of_a_value_is_lost_to_a_smaller_one_close_by(device, seed):
    A = LARGE["zeros, strided"].operator(device, seed=seed)  # windows of equal rows: each value comes five times
    assert_close(leading_singular_values(A, 5), dense(A, 5))
    assert_close(leading_singular_values(A, 8), dense(A, 8))


@pytest.mark.parametrize("k", [11, 12, 13, 20])
def test_a_full_cluster_comes_before_the_next(device, k):
    gains = 1 - 1e-3 * torch.arange(10, dtype=torch.float64, device=device)
    A = ConvOperator(torch.diag(gains)[..., None, None], (3, 4), padding_mode="zeros")
    assert_close(leading_singular_values(A, k), gains.repeat_interleave(12)[:k])


@pytest.mark.parametrize("k", [1, 9, 60])
def test_the_zero_operator_has_zeros(device, k):
    kernel = torch.zeros(3, 2, 3, 2, dtype=torch.float64, device=device)
    A = ConvOperator(kernel, (7, 9), padding_mode="zeros")
    assert torch.equal(leading_singular_values(A, k), torch.zeros(k, dtype=torch.float64, device=device))


def test_values_beyond_the_rank_are_zeros_and_a_tiny_gap_is_resolved(device):
    kernel = torch.zeros(8, 10, 2, 1, dtype=torch.float64, device=device)
    kernel[:, 0] = normal(8, 2, 1, device=device)  # one channel of ten is read: rank 12 of 96
    A = ConvOperator(kernel, (4, 3), padding_mode="zeros")
    values = leading_singular_values(A, 20)
    assert_close(values[:12], dense(A, 12))
    assert (values[12:] ** 2 <= 1e-10 * values[0] ** 2).all()
    kernel = torch.diag(torch.tensor([1.0, 1.0 - 1e-4], dtype=torch.float64, device=device))[..., None, None]
    A = ConvOperator(kernel, (6, 6), padding_mode="zeros")
    assert_close(leading_singular_values(A, 16), torch.ones(16, dtype=torch.float64, device=device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(5, 7), (16, 12)])
def test_values_that_lie_together_converge_as_those_of_orthogonal_layers_do(device, dtype, size):
    Q, _ = torch.linalg.qr(normal(8, 8, device=device))
    P = Q[:, :3] @ Q[:, :3].mT  # P and 1 - P on two taps: circular, all singular values are 1
    rotation, _ = torch.linalg.qr(normal(8, 8, device=device, seed=1))
    kernel = torch.stack([P, torch.eye(8).to(P) - P], dim=-1)[:, :, None]
    kernel = (rotation @ kernel.flatten(1)).view_as(kernel).to(dtype)
    A = ConvOperator(kernel, size)
    near = {"rtol": 4e-7 if dtype == torch.float32 else 1e-10, "atol": 0}
    assert_close(singular_values(A), torch.ones(8 * size[0] * size[1]).to(kernel), rtol=1e-6, atol=0)
    for padding in (((0, 0), (0, 0)), ((0, 0), (0, 1)), ((0, 0), (1, 0))):
        B = replace(A, padding=padding, padding_mode="zeros")
        exactly = dense(replace(B, kernel=kernel.double()), 5).to(dtype)
        assert_close(leading_singular_values(B, 1), exactly[:1], **near)
        assert_close(leading_singular_values(B, 5), exactly, **near)


# ---- derivatives, precision, purity --------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("geometry", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("branch", ["dense", "iterated"])
def test_both_branches_are_differentiable(device, geometry, branch):
    kernel = geometry.operator(device).kernel.requires_grad_()
    noise = 1e-9 if device.type == "cuda" else 0.0  # sums in no fixed order on the GPU turn the last digits

    def values(kernel: torch.Tensor) -> torch.Tensor:
        A = geometry.with_kernel(kernel)
        if branch == "dense":
            return leading_singular_values(A, 2)
        assert min(A.matrix().shape) > 4
        with iterating():
            return leading_singular_values(A, 1)

    assert gradcheck(values, (kernel,), nondet_tol=noise)


def test_the_derivatives_of_both_branches_agree_and_are_finite_for_the_zero_operator(device):
    geometry = LARGE["zeros, strided"]
    kernel = geometry.operator(device).kernel.requires_grad_()
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, device=device)
    A = geometry.with_kernel(kernel)
    iterated = torch.autograd.grad((weights * leading_singular_values(A, 3)).sum(), kernel)
    assert_close(iterated, torch.autograd.grad((weights * dense(A, 3)).sum(), kernel))
    for n in ((2, 3), (7, 9)):  # the dense and the iterated branch
        kernel = torch.zeros(3, 2, 3, 2, dtype=torch.float64, device=device, requires_grad=True)
        values = leading_singular_values(ConvOperator(kernel, n, padding_mode="zeros"), 2)
        assert torch.autograd.grad(values.sum(), kernel)[0].isfinite().all()


@everything
def test_the_kernel_and_the_random_states_are_left_alone(device, geometry):
    A = geometry.operator(device)
    kernel, state = A.kernel.clone(), torch.get_rng_state()
    with iterating():
        leading_singular_values(A, 1)
    assert torch.equal(A.kernel, kernel)
    assert torch.equal(torch.get_rng_state(), state)
