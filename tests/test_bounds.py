"""Each bound is at least the dense norm, in both dtypes and at every scale, and equal to it where it says so."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from convkit.bounds import (
    flattened_bound,
    flattened_norm,
    frobenius_bound,
    gram_iteration_bound,
    grid_bound,
    holder_bound,
    reshaped_bound,
    torus_bound,
)
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import (
    CIRCULAR,
    EVERYTHING,
    Geometry,
    exact_geometries,
    geometries,
    normal,
    patch_geometries,
    scaled,
)

BOUNDS = [frobenius_bound, holder_bound, torus_bound, flattened_bound, reshaped_bound, grid_bound]
GRAM_BOUNDS = [partial(gram_iteration_bound, steps=steps) for steps in (1, 2, 5, 20)]  # where there are blocks
everything = pytest.mark.parametrize("geometry", EVERYTHING.values(), ids=EVERYTHING)
bounds = pytest.mark.parametrize("bound", [*BOUNDS, gram_iteration_bound])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def dense_norm(A: ConvOperator) -> Tensor:
    """In float64, less what the dense decomposition itself may be off by."""
    M = replace(A, kernel=A.kernel.double()).matrix()
    return torch.linalg.matrix_norm(M, 2) * (1 - 1e-15 * sum(M.shape))


def kernels(normal_kernel: Tensor) -> dict[str, Tensor]:
    """Kernels of one shape that hurt: degenerate spectra, extreme scales, bounds that are equalities."""
    delta = torch.zeros_like(normal_kernel)
    delta[(0, 0, *(k // 2 for k in delta.shape[2:]))] = 1
    big = 1e30 if delta.dtype == torch.float32 else 1e200
    return {
        "normal": normal_kernel,
        "zero": torch.zeros_like(normal_kernel),
        "identity": delta,
        "blur": torch.full_like(normal_kernel, 1 / normal_kernel[0, 0].numel()),
        "rank one": normal_kernel[:1] * normal_kernel.flatten(1)[:, :1].reshape(-1, *[1] * (delta.ndim - 1)),
        "sparse": normal_kernel * (normal_kernel > 0.8),
        "huge": normal_kernel * big,
        "tiny": normal_kernel / big,
    }


# ---- bounds --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@dtypes
@given(geometry=st.one_of(geometries(), exact_geometries(), patch_geometries()), seed=st.integers(0, 99))
def test_no_bound_is_below_the_dense_norm(device, dtype, geometry, seed):
    A = geometry.operator(device, dtype, seed)
    for name, kernel in kernels(A.kernel).items():
        B = replace(A, kernel=kernel)
        norm = dense_norm(B)
        for bound in BOUNDS + GRAM_BOUNDS * B.is_block_circulant:
            assert bound(B).double() >= norm, (bound, name)


def test_gram_iteration_survives_more_steps_than_an_exponent_has_digits(device):
    for kernel in kernels(normal(3, 2, 3, device=device)).values():
        A = ConvOperator(kernel, 5)
        assert_close(gram_iteration_bound(A, 1200), torch.linalg.matrix_norm(A.matrix(), 2), atol=0.0, rtol=1e-12)


@dtypes
@bounds
@everything
def test_bounds_scale_with_the_kernel(device, dtype, bound, geometry):
    A = geometry.operator(device, dtype)
    if bound is gram_iteration_bound and not A.is_block_circulant:
        return
    assert_close(bound(scaled(A, -3.0)), 3 * bound(A))
    assert_close(bound(scaled(A, 1e-25)), 1e-25 * bound(A), atol=0, rtol=1e-5)
    assert bound(scaled(A, 0.0)) == 0
    assert bound(A).dtype == dtype
    assert bound(A).shape == ()


@pytest.mark.slow
@bounds
@everything
def test_bounds_are_differentiable_also_at_a_zero_kernel_and_change_nothing(device, bound, geometry):
    A = geometry.operator(device)
    if bound is gram_iteration_bound and not A.is_block_circulant:
        return
    before, kernel = A.kernel.clone(), A.kernel.requires_grad_()
    noise = 1e-11 if device.type == "cuda" else 0.0  # index_add sums in no fixed order on the GPU
    assert gradcheck(lambda kernel: bound(geometry.with_kernel(kernel)), (kernel,), nondet_tol=noise)
    assert_close(kernel.detach(), before, rtol=0, atol=0)
    zero = torch.zeros_like(kernel, requires_grad=True)
    (gradient,) = torch.autograd.grad(bound(geometry.with_kernel(zero)), zero)
    assert gradient.isfinite().all()


# ---- how tight -----------------------------------------------------------------------------------------------------


@given(geometry=st.one_of(geometries(), exact_geometries(), patch_geometries()), seed=st.integers(0, 99))
def test_frobenius_bound_and_its_gradient_are_those_of_the_dense_matrix_to_rounding(device, geometry, seed):
    """1e-13: the bound is rounded up by as many roundings as the kernel has entries, a few dozen here."""
    A = geometry.operator(device, torch.float64, seed)
    A.kernel.requires_grad_()
    bound, dense = frobenius_bound(A), torch.linalg.matrix_norm(A.matrix())
    assert_close(bound, dense, rtol=1e-13, atol=0)
    gradients = [torch.autograd.grad(norm, A.kernel)[0] for norm in (bound, dense)]
    assert_close(*gradients, rtol=1e-12, atol=1e-13)


class Largest(TorchDispatchMode):
    """Remembers the entries of the largest tensor that an operation made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            self.entries = max(self.entries, made.numel() if isinstance(made, Tensor) else 0)
        return result


@pytest.mark.parametrize("image", [(12, 11), (96, 95)])
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_frobenius_bound_makes_nothing_larger_than_the_kernel(device, mode, image):
    A = ConvOperator(normal(16, 12, 5, 4, device=device), image, 2, 2, padding_mode=mode)
    with Largest() as seen:
        frobenius_bound(A)
    assert seen.entries == A.kernel.numel()


def test_holder_bound_is_the_norm_of_a_blur(device):
    for shape in ((3, 2, 3, 2), (1, 4, 5)):
        A = ConvOperator(torch.rand(shape, dtype=torch.float64, device=device)[:1, :1], (7, 6)[: len(shape) - 2])
        assert_close(holder_bound(A), operator_norm(A, 2))


@given(geometry=st.one_of(exact_geometries(), patch_geometries()))
def test_torus_bound_is_the_norm_where_the_norm_is_exact(device, geometry):
    A = geometry.operator(device)
    assert_close(torus_bound(A), operator_norm(A, 2))


def test_torus_bound_of_a_zero_padded_blur_is_what_its_norm_grows_to_with_the_image(device):
    """The norm of [1, 2, 1] on n pixels is ``2 + 2 cos(pi / (n + 1))``, and 4 on every torus."""
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64, device=device)
    for size in ((4, 5), (8, 7), (16, 19)):
        A = ConvOperator(taps.outer(taps)[None, None], size, padding_mode="zeros")
        norm = math.prod(2 + 2 * math.cos(math.pi / (n + 1)) for n in size)
        assert_close(operator_norm(A, 2), taps.new_tensor(norm))
        assert_close(torus_bound(A), taps.new_tensor(16.0))


@pytest.mark.parametrize("taps, norm", [([3.0], 3.0), ([1.0, 1.0], 2.0), ([1.0, 2.0, 1.0], 4.0)])
def test_bounds_count_outputs_that_circular_padding_repeats(device, taps, norm):
    kernel = torch.tensor([[taps]], dtype=torch.float64, device=device)
    A = ConvOperator(kernel, 4, padding=((0, len(taps) + 3),))
    assert A.out_shape == (1, 8)
    assert_close(torus_bound(A), kernel.new_tensor(norm * math.sqrt(2)))
    for bound in (grid_bound, flattened_bound, reshaped_bound):
        assert bound(A) >= norm * math.sqrt(2)
    kernel = normal(3, 2, 3, device=device)
    A = ConvOperator(kernel, 6, 2, padding=((0, 8),))  # the stride divides: no need to leave it
    assert_close(torus_bound(A), math.sqrt(2) * operator_norm(A.circular(), 2))


def test_flattened_kernel_has_the_norm_where_windows_do_not_overlap(device):
    for geometry in (
        Geometry((5, 2, 2, 3), (4, 6), (2, 3), "valid", padding_mode="zeros"),
        Geometry((5, 2, 2, 3), (6, 9), (3, 3)),
        Geometry((4, 3, 2), (9,), 4, ((0, 1),), groups=2, padding_mode="zeros"),
    ):
        A = geometry.operator(device)
        norm = torch.linalg.matrix_norm(A.matrix(), 2)
        assert_close(flattened_norm(A), norm)
        assert_close(flattened_bound(A), norm)
        assert reshaped_bound(A) <= flattened_bound(A)


def test_flattened_bound_is_above_the_norm_where_no_window_lies_inside_or_a_box_is_longer_than_the_circle(device):
    no_window_inside = ConvOperator(torch.tensor([[[1.0, 2.0, 1.0]]], device=device), 1, 3, 1, padding_mode="zeros")
    long_box = ConvOperator(torch.ones(1, 1, 5, device=device), 3)
    for A, bound, norm in ((no_window_inside, 6**0.5, 2.0), (long_box, 27**0.5, 5.0)):
        assert float(flattened_bound(A)) == pytest.approx(bound, rel=1e-5)
        assert float(operator_norm(A, 2)) == pytest.approx(norm, rel=1e-5)


def test_flattened_norm_lies_below_the_norm_and_the_factor_counts_the_windows_of_a_pixel(device):
    kernel = normal(3, 2, 3, 4, device=device)
    cases = [  # stride, dilation, windows that read one pixel
        ((1, 1), (1, 1), 12),
        ((1, 1), (2, 3), 12),
        ((2, 3), (1, 1), 4),
        ((2, 2), (2, 1), 6),  # the taps of a dilated kernel stay on every second pixel, as the windows do
        ((3, 4), (1, 1), 1),
    ]
    for stride, dilation, windows in cases:
        A = ConvOperator(kernel, (12, 24), stride, dilation=dilation)
        assert_close(flattened_bound(A), math.sqrt(windows) * flattened_norm(A))
        assert flattened_norm(A) <= operator_norm(A, 2) * (1 + 1e-12)


def test_folding_makes_the_reshaped_bounds_those_of_what_the_circle_sees(device):
    kernel = torch.tensor([[[1.0, 2.0, -1.0, -2.0]]], dtype=torch.float64, device=device)
    assert flattened_bound(ConvOperator(kernel, 2)) == reshaped_bound(ConvOperator(kernel, 2)) == 0
    kernel = normal(2, 3, 5, 2, device=device)  # the short axis keeps its two taps
    folded = torch.cat([kernel[:, :, :2] + kernel[:, :, 3:], kernel[:, :, 2:3]], 2)
    expected = math.sqrt(6) * torch.linalg.matrix_norm(folded.flatten(1), 2)
    assert_close(flattened_bound(ConvOperator(kernel, (3, 7))), expected)


RESHAPINGS = [("o", "ihw"), ("oh", "iw"), ("ow", "ih"), ("ohw", "i")]  # axes of the rows and of the columns


@pytest.mark.parametrize("mode", ["circular", "zeros"])
@pytest.mark.parametrize("number", range(4))
def test_reshaped_bound_is_the_least_of_the_four_of_singla_and_feizi(device, number, mode):
    sizes = {"o": 5, "i": 4, "h": 2, "w": 3}
    rows, columns = ([sizes[axis] for axis in side] for side in RESHAPINGS[number])
    U, _, Vh = torch.linalg.svd(normal(math.prod(rows), math.prod(columns), device=device), full_matrices=False)
    kernel = torch.einsum("".join(RESHAPINGS[number]) + "->oihw", (U @ Vh).view(*rows, *columns))
    four = [torch.einsum(f"oihw->{r}{c}", kernel).flatten(len(r)).flatten(0, -2) for r, c in RESHAPINGS]
    norms = torch.stack([torch.linalg.matrix_norm(matrix, 2) for matrix in four])
    assert norms.argmin() == number  # it has norm 1
    bound = reshaped_bound(ConvOperator(kernel, (9, 8), padding_mode=mode))
    assert_close(bound, math.sqrt(2 * 3) * norms[number])


def test_gram_iteration_comes_down_to_the_norm(device):
    for geometry in CIRCULAR.values():
        A = geometry.operator(device)
        norm = operator_norm(A, 2)
        excess = [float(gram_iteration_bound(A, steps) / norm - 1) for steps in range(1, 13)]
        side = min(A.kernel.shape[0] // A.groups, A.kernel.shape[1] * math.prod(A.stride))
        for steps, (more, less) in enumerate(zip(excess, [*excess[1:], 0.0], strict=True), start=1):
            assert less <= more + 1e-12
            assert more <= side**0.5 ** (steps + 1) - 1 + 1e-12
        assert excess[-1] < 1e-3


def test_gram_iteration_of_a_constant_spectrum_has_the_stated_excess(device):
    A = ConvOperator(torch.eye(4, dtype=torch.float64, device=device)[:, :, None, None], (3, 5))
    for steps in (1, 2, 5):
        assert_close(gram_iteration_bound(A, steps), A.kernel.new_tensor(4**0.5 ** (steps + 1)))


@pytest.mark.slow
@given(geometry=exact_geometries(), density=st.integers(2, 6))
def test_grid_bound_holds_on_every_size_and_boundary(device, geometry, density):
    A = geometry.operator(device)
    bound = grid_bound(A, density)
    for more in (0, 1, 3):
        sizes = tuple(n + more * s for n, s in zip(A.input_shape, A.stride, strict=True))
        B = replace(A, input_shape=sizes, padding="same")
        assert bound >= operator_norm(B, 2)
        assert bound >= operator_norm(replace(B, padding_mode="zeros"), 2) * (1 - 1e-9)


@pytest.mark.parametrize("k, stride", [(2, 1), (3, 1), (4, 1), (5, 1), (5, 2), (6, 3)])
def test_grid_bound_lies_within_its_factor_of_the_largest_block(device, k, stride):
    for seed in range(20):
        kernel = normal(3, 2, k, device=device, seed=seed)
        fine = operator_norm(ConvOperator(kernel, 960, stride), 2)
        for density in (2, 3, 16):
            bound = grid_bound(ConvOperator(kernel, 6, stride, padding_mode="zeros"), density)
            assert fine <= bound <= fine * (1.0001 / math.cos(math.pi / (2 * density)))


def test_grid_bound_is_the_norm_where_windows_do_not_overlap_and_needs_its_factor(device):
    A = ConvOperator(normal(3, 2, 3, 2, device=device), (7, 9), (3, 4), 1, padding_mode="zeros")
    assert_close(grid_bound(A), flattened_norm(A))
    # between the points of a coarse grid the blocks of an even kernel rise as the proof says they may
    kernel = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64, device=device)  # the largest, 2, at half a turn
    A = ConvOperator(kernel, 3)
    assert_close(operator_norm(A, 2) / math.cos(math.pi / 6), grid_bound(A, 3))
    assert_close(grid_bound(A, 3), kernel.new_tensor(2.0))
