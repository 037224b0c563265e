"""The fast bodies against the plain ones they replaced, and against the dense matrix."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from convkit.engine import largest
from convkit.engine.blocks import Blocks, half_set
from convkit.engine.hermitian import eigh, eigvalsh, positive_definite
from convkit.engine.workers import thread_pool
from convkit.norms import certify, operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop, clip_singular_values, dykstra
from convkit.spectra import singular_values, spectrum, symbol
from tests.helpers.geometries import Geometry, exact_geometries, normal, patch_geometries

exact = st.one_of(exact_geometries(), patch_geometries())


def plain_spectrum(A: ConvOperator) -> torch.Tensor:
    """The body that the theorem gives: decompose the blocks of all frequencies."""
    values = torch.linalg.svdvals(symbol(A)).flatten(len(A.input_shape))
    return values.sort(descending=True).values


@given(geometry=exact)
def test_blocks_of_one_period_repeat_those_of_the_symbol(device, geometry):
    A = geometry.operator(device)
    blocks = Blocks(A)
    everywhere = torch.cartesian_prod(*(torch.arange(n) for n in blocks.period)).reshape(-1, len(blocks.period))
    copies = math.prod(blocks.grid) // math.prod(blocks.period)
    values = blocks.scale * torch.linalg.svdvals(blocks.at(everywhere)).flatten().repeat(copies)
    truth = plain_spectrum(A).flatten().sort().values
    zeros = values.new_zeros(len(truth) - len(values))  # of columns that no tap reads, which the blocks leave out
    assert_close(torch.cat([zeros, values.sort().values]), truth)
    of_groups = [blocks.group(number).at(everywhere) for number in range(A.groups)]
    assert_close(torch.cat(of_groups, dim=1), blocks.at(everywhere))


@given(geometry=exact)
def test_taps_come_back_from_their_blocks_and_to_the_kernel(device, geometry):
    A = geometry.operator(device)
    blocks = Blocks(A)
    values = blocks.at(blocks.frequencies)
    again = blocks.to_taps(values)
    assert_close(again, blocks.taps)
    parts = torch.arange(len(values)).split(2)
    assert_close(sum(blocks.to_taps(values[some], some) for some in parts), again)
    assert_close(replace(A, kernel=blocks.to_kernel(again)).matrix(), A.matrix())


@given(geometry=exact)
def test_gram_blocks_are_the_products_of_the_blocks_by_lags_and_directly(device, geometry):
    blocks = Blocks(geometry.operator(device))
    values, real = blocks.at(blocks.frequencies), blocks.self_conjugate
    wide = values.shape[-2] <= values.shape[-1]
    products = values @ values.mH if wide else values.mH @ values
    for expected in (10**9, 1):  # many frequencies make the lags pay, one does not
        gram = blocks.gram(expected)
        assert_close(gram.at(blocks.frequencies), products)
        assert_close(gram.at(blocks.frequencies[real], real=True), products[real.to(device)].real)


def test_half_set_holds_one_of_each_pair_and_counts_all_also_on_a_grid_of_copies():
    for size in [(1,), (2,), (7,), (8,), (3, 4), (4, 6), (5, 3), (2, 3, 4), (4, 4)]:
        half = half_set(size, size)
        assert int(half.times.sum()) == math.prod(size)
        assert len(half.index.unique()) == len(half.frequencies)
    assert len(half_set((4, 4), (4, 4)).frequencies) == 10  # an rfft2 has 12, two of them twice
    assert int(half_set((32, 32), (32, 32)).self_conjugate.sum()) == 4
    period, grid = (3, 4), (6, 12)
    half = half_set(period, grid)
    assert int(half.times.sum()) == math.prod(grid)
    everywhere = torch.cartesian_prod(*map(torch.arange, grid))
    difference, total = half.frequencies[half.index] - everywhere, half.frequencies[half.index] + everywhere
    size = torch.tensor(period)
    assert ((difference % size == 0).all(1) | (total % size == 0).all(1)).all()


def test_a_kernel_of_size_1_and_a_dilation_shrink_the_period():
    assert Blocks(ConvOperator(torch.ones(3, 2, 1, 1), (32, 32))).period == (1, 1)
    assert Blocks(ConvOperator(torch.ones(3, 2, 3, 3), (32, 32), dilation=2)).period == (16, 16)
    assert Blocks(ConvOperator(torch.ones(3, 2, 3, 3), (9, 9), dilation=2)).period == (9, 9)
    assert Blocks(ConvOperator(torch.ones(3, 2, 3, 3), (12, 8), stride=2)).period == (6, 4)
    assert Blocks(ConvOperator(torch.ones(3, 2, 4, 4), (12, 8), stride=4)).period == (1, 1)  # flattened kernel


def test_blocks_are_live_where_gradients_are_recorded_and_in_units_of_a_power_of_two(device):
    kernel = normal(3, 2, 3, 2, device=device).mul(1e-3).requires_grad_()
    A = ConvOperator(kernel, (5, 4))
    blocks = Blocks(A)
    assert math.frexp(blocks.scale)[0] == 0.5
    assert 1 <= float(blocks.taps.detach().abs().max()) < 2
    assert_close(Blocks(A, 1.0).taps, blocks.scale * blocks.taps)
    (gradient,) = torch.autograd.grad(blocks.at(torch.tensor([[0, 0]])).real.sum(), kernel)
    assert_close(gradient, torch.full_like(kernel, 1 / blocks.scale))
    with torch.no_grad():
        assert not Blocks(A).taps.requires_grad


def degenerate(device: torch.device, c: int = 30) -> dict[str, torch.Tensor]:
    delta = torch.zeros(c, c, 3, 3, dtype=torch.float64, device=device)
    delta[range(c), range(c), 1, 1] = 1
    low_rank = torch.zeros_like(delta)
    low_rank[:3, :2] = normal(3, 2, 3, 3, device=device)
    blur = torch.ones_like(delta)
    return {"identity": delta, "zero": 0 * delta, "blur": blur, "low rank": low_rank, "scaled": 1e-3 * delta}


@pytest.mark.parametrize("kind", degenerate(torch.device("cpu")))
def test_degenerate_spectra(device, kind):
    A = ConvOperator(degenerate(device)[kind], (5, 4))
    assert_close(spectrum(A), plain_spectrum(A), atol=1e-11, rtol=1e-9)
    assert_close(operator_norm(A, 2), plain_spectrum(A).amax(), atol=1e-12, rtol=1e-10)
    gradient = torch.autograd.grad(operator_norm(B := replace(A, kernel=A.kernel.requires_grad_()), 2), B.kernel)[0]
    assert gradient.isfinite().all()


@given(geometry=exact, seed=st.integers(0, 99))
def test_bounds_of_gram_blocks_are_their_frobenius_norms(device, geometry, seed):
    blocks = Blocks(geometry.operator(device, seed=seed))
    frequencies, gram = blocks.frequencies, blocks.gram(10**9)
    assert_close(gram.bounds(frequencies), torch.linalg.matrix_norm(gram.at(frequencies)), atol=1e-6, rtol=1e-6)
    assert blocks.gram(1).bounds(frequencies).min() >= gram.bounds(frequencies).min()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("side", [30, 101, 250])
def test_matrices_are_told_definite_or_not_whatever_part_decides(device, side, dtype):
    noise = torch.complex(normal(side, side, device=device), normal(side, side, device=device, seed=1))
    basis = torch.linalg.qr(noise)[0]
    for place in (0, side // 2, side - 1):
        values = torch.linspace(1, 2, side, dtype=torch.float64, device=device).repeat(3, 1)
        values[1, place] = -1e-3
        for Q in (basis, torch.eye(side, device=device).to(basis)):
            matrices = (Q * values[:, None].to(Q)) @ Q.mH
            assert positive_definite(matrices.to(dtype)).tolist() == [True, False, True]


@given(geometry=exact)
def test_certificate_accepts_just_above_and_refuses_just_below(device, geometry):
    A = geometry.operator(device)
    norm = float(torch.linalg.matrix_norm(A.matrix(), 2))
    found = [certify(A, norm * factor) for factor in (1 + 1e-4, 1 - 1e-4, 1)]
    assert found == [True, False, False]  # equality leaves no room for rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certificate_on_many_channels(device, dtype):
    A = Geometry((70, 60, 3, 3), (12, 9)).operator(device, dtype)
    norm = float(plain_spectrum(replace(A, kernel=A.kernel.double())).amax())
    assert [certify(A, norm * factor) for factor in (1 + 1e-6, 1 - 1e-6)] == [True, False]


def test_small_values_of_a_float64_kernel_keep_their_digits(device):
    kernel = normal(6, 6, 3, 3, device=device)
    kernel[0] *= 1e-7
    A = ConvOperator(kernel, (8, 6))
    assert float(plain_spectrum(A).amin() / plain_spectrum(A).amax()) < 1e-7
    assert_close(singular_values(A), plain_spectrum(A).flatten().sort(descending=True).values, atol=0, rtol=1e-6)


def hard(rows: int, columns: int, device: torch.device) -> dict[str, torch.Tensor]:
    random = normal(rows, columns, device=device)
    basis = torch.linalg.qr(random if rows >= columns else random.mT)[0]
    return {
        "random": random,
        "orthogonal": basis if rows >= columns else basis.mT,
        "low rank": normal(rows, 2, device=device) @ normal(2, columns, device=device, seed=1),
        "zero": 0 * random,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "orthogonal", "low rank", "zero"])
@pytest.mark.parametrize("shape", [(40, 53), (47, 30)])
@pytest.mark.parametrize("proved", [True, False])
def test_the_norm_of_a_large_matrix_is_iterated(device, monkeypatch, shape, kind, dtype, proved):
    monkeypatch.setattr(largest, "ITERATED_SIDE", 8)
    monkeypatch.setattr(largest, "PROVED_SIDE", 2048 if proved else 0)
    matrix = hard(*shape, device)[kind].to(dtype).requires_grad_()
    norm = operator_norm(ConvOperator(matrix[..., None, None], (1, 1)), 2)
    near = {"rtol": 2e-7 if dtype == torch.float32 else 2e-10, "atol": 1e-300}
    assert_close(norm.detach(), torch.linalg.svdvals(matrix.detach().double())[0].to(dtype), **near)
    (gradient,) = torch.autograd.grad(norm, matrix)
    assert gradient.isfinite().all()
    if kind == "random":
        u, _, v = torch.linalg.svd(matrix.detach().double())
        assert_close(
            gradient.double(), torch.outer(u[:, 0], v[0]), rtol=0, atol=1e-3 if dtype == torch.float32 else 1e-6
        )


@pytest.mark.parametrize("found", ["nothing", "another"])
def test_a_large_matrix_is_decomposed_where_the_iteration_fails(device, monkeypatch, found):
    def fail(product, start, *_):
        if found == "nothing":
            raise RuntimeError("no convergence")
        return start / start.norm()

    monkeypatch.setattr(largest, "ITERATED_SIDE", 8)
    monkeypatch.setattr(largest, "leading_eigenvectors", fail)
    A = Geometry((30, 28, 3, 3), (8, 7)).operator(device)
    assert_close(operator_norm(A, 2), plain_spectrum(A).amax(), rtol=1e-12, atol=0)


def test_large_complex_blocks_are_iterated(device, monkeypatch):
    monkeypatch.setattr(largest, "ITERATED_SIDE", 8)
    for shape in ((30, 28, 3, 3), (26, 40, 3, 3)):
        A = Geometry(shape, (8, 7)).operator(device)
        assert_close(operator_norm(A, 2), plain_spectrum(A).amax(), rtol=2e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-7])
def test_all_values_of_a_large_matrix_come_from_its_gram_matrix_but_small_ones(device, monkeypatch, smallest, dtype):
    monkeypatch.setattr("convkit.engine.values.GRAM_SIDE", 4)
    monkeypatch.setattr("convkit.engine.values.COLUMNS", 7)
    for shape in ((20, 33), (33, 20)):
        matrix = normal(*shape, device=device)
        matrix[0] *= smallest
        exactly = torch.linalg.svdvals(matrix.to(dtype).double())
        values = singular_values(ConvOperator(matrix.to(dtype)[..., None], (1,)))
        assert_close(values.double(), exactly, rtol=1e-9 if dtype == torch.float64 else 1e-6, atol=0)


def test_pieces_shared_among_workers_are_all_done_and_the_threads_given_back(monkeypatch):
    A = Geometry((7, 6, 3, 3), (12, 9)).operator("cpu")
    alone = singular_values(A), clip_and_crop(A, 4.0).kernel
    before = torch.get_num_threads()
    monkeypatch.setattr("convkit.engine.workers.WORK", 1e-3)
    try:
        torch.set_num_threads(3)
        with thread_pool(A.kernel.device) as map_pieces:
            pieces = map_pieces(lambda some: (some, torch.get_num_threads()), torch.arange(100), 50, 1.0)
        assert torch.equal(torch.cat([some for some, _ in pieces]), torch.arange(100))
        assert len(pieces) > 10
        assert {threads for _, threads in pieces} == {1}
        assert_close((singular_values(A), clip_and_crop(A, 4.0).kernel), alone)
        with torch.inference_mode():  # which the workers' threads do not know of
            assert_close((singular_values(A), clip_and_crop(A, 4.0).kernel), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("side", [5, 60])
def test_eigenvalues_are_those_of_torch_whichever_library_finds_them(side):
    matrices = torch.complex(normal(4, side, side, device="cpu"), normal(4, side, side, device="cpu", seed=1))
    matrices = matrices @ matrices.mH
    assert_close(eigvalsh(matrices), torch.linalg.eigvalsh(matrices))
    values, vectors = eigh(matrices)
    assert_close((vectors * values[:, None, :].to(vectors.dtype)) @ vectors.mH, matrices)


POWERS = [(torch.float32, -100), (torch.float32, 90), (torch.float64, -900), (torch.float64, 700)]


@pytest.mark.parametrize("dtype, power", POWERS)
@pytest.mark.parametrize("geometry", [Geometry((3, 2, 3), (5,)), Geometry((30, 28, 3, 3), (8, 7))], ids=str)
def test_kernels_of_extreme_scale_lose_nothing(device, geometry, dtype, power):
    A, scale = geometry.operator(device, dtype), 2.0**power
    B = replace(A, kernel=scale * A.kernel)
    rounding = {"atol": 0, "rtol": 50 * torch.finfo(dtype).eps}
    near = {"atol": 50 * torch.finfo(dtype).eps * float(A.kernel.abs().max()), "rtol": 0}
    norm, bound = float(operator_norm(A, 2)), 0.5 * float(operator_norm(A, 2))
    assert_close(operator_norm(B, 2) / scale, operator_norm(A, 2), **rounding)
    assert_close(singular_values(B) / scale, singular_values(A), **rounding)
    assert_close(clip_and_crop(B, bound * scale).kernel / scale, clip_and_crop(A, bound).kernel, **rounding)
    assert_close(clip_singular_values(B, bound * scale).kernel / scale, clip_singular_values(A, bound).kernel, **near)
    assert_close(dykstra(B, bound * scale, 3).kernel / scale, dykstra(A, bound, 3).kernel, **near)
    assert certify(B, 1.001 * norm * scale)
    assert not certify(B, 0.999 * norm * scale)


def test_the_largest_float64_is_no_obstacle_and_two_runs_give_the_same_bits(device):
    A = ConvOperator(torch.full((1, 1, 1), 1.5e308, dtype=torch.float64, device=device), (3,))
    for found in (float(operator_norm(A, 2)), float(singular_values(A)[0])):
        assert found == (pytest.approx(1.5e308, rel=1e-15, abs=0) if device.type == "cuda" else 1.5e308)
    A = Geometry((40, 31, 3, 3), (12, 10)).operator(device, torch.float32)
    assert operator_norm(A, 2) == operator_norm(A, 2)
    assert torch.equal(singular_values(A), singular_values(A))


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_dtype_makes_no_difference(device, default, dtype):
    A = Geometry((30, 28, 3, 3), (8, 7)).operator(device, dtype)
    expected = operator_norm(A, 2), singular_values(A), dykstra(A, 1.0, 2).kernel
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        assert_close((operator_norm(A, 2), singular_values(A), dykstra(A, 1.0, 2).kernel), expected, rtol=0, atol=0)
        assert certify(A, 2 * float(expected[0]))
    finally:
        torch.set_default_dtype(before)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its own peak")
def test_large_layers_stay_within_a_gibibyte():
    """512 channels on 32 x 32 pixels, whose blocks alone would take 4 GiB: the peak of a process of its own."""
    code = """
from pathlib import Path
import torch
from convkit.engine.blocks import Blocks
from convkit.norms import operator_norm
from convkit.operators import ConvOperator
from convkit.projections.clipping import clip_and_crop, clip_singular_values, dykstra
A = ConvOperator(torch.randn(512, 512, 3, 3), (32, 32))
operator_norm(A, 2)
gram = (blocks := Blocks(A)).gram()
for some in blocks.frequencies.split(gram.chunk)[:3]:  # the whole spectrum is more of the same
    torch.linalg.eigvalsh(gram.at(some)[:2])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) / 2**20 < 1


@pytest.mark.parametrize("n", [4, 9, 16])
def test_groups_of_very_different_sizes_have_the_norm_of_the_largest(device, n):
    kernel = normal(150, 50, 3, 3, device=device, dtype=torch.float32)
    kernel[:50] *= 0.1
    kernel[100:] = 0
    one = operator_norm(ConvOperator(kernel[50:100], (n, n)), 2)
    assert_close(operator_norm(ConvOperator(kernel, (n, n), groups=3), 2), one)
    strided = operator_norm(ConvOperator(kernel[50:100], (n + n % 2,) * 2, 2), 2)
    assert_close(operator_norm(ConvOperator(kernel, (n + n % 2,) * 2, 2, groups=3), 2), strided)
