"""The call of cuSOLVER's batched eigensolver, on a stand-in that reads the arguments as the library's headers say.

The stand-in works on the pretended device, whose memory is the host's. A real GPU runs the library itself.
"""

import ctypes
import threading

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.engine import cusolver
from convkit.engine.hermitian import CUDA_SIDE, eigh, eigvalsh, svdvals
from tests.helpers.geometries import normal

pytest.importorskip("fakecuda", reason="needs the pretended CUDA device: python3 -m convkit test --pretend-gpu")
KINDS = {0: np.float32, 1: np.float64, 4: np.complex64, 5: np.complex128}


def entries(pointer, shape, kind):
    """The numbers that lie at a pointer."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer.value), kind).reshape(shape)


class StandIn:
    """Decomposes column-major Hermitian matrices from their upper triangles, in place, as cuSOLVER does."""

    def __init__(self, most=7, status=0, failed=0):
        self.most, self.status, self.failed, self.calls = most, status, failed, []

    def cusolverDnSetStream(self, handle, stream):
        return 0

    def cusolverDnXsyevBatched_bufferSize(self, handle, params, jobz, uplo, n, kind, a, lda, w_kind, w, compute, *rest):
        on_device, on_host, _ = rest
        assert (uplo.value, lda.value, compute.value) == (1, n.value, kind.value)
        on_device._obj.value, on_host._obj.value = 64, 0
        return 0

    def cusolverDnXsyevBatched(self, handle, params, jobz, uplo, n, kind, a, lda, w_kind, w, compute, *rest):
        _, on_device, _, _, info, count = rest
        self.calls.append(count.value)
        if self.status:
            return self.status
        assert count.value <= self.most
        assert on_device.value == 64
        n, count = n.value, count.value
        matrices, values = entries(a, (count, n, n), KINDS[kind.value]), entries(w, (count, n), KINDS[w_kind.value])
        upper = np.triu(np.swapaxes(matrices, 1, 2))  # column-major: what lies in memory is the transpose
        full = upper + np.conj(np.swapaxes(np.triu(upper, 1), 1, 2))
        found, vectors = np.linalg.eigh(full)
        values[:] = found
        matrices[:] = np.swapaxes(vectors, 1, 2) if jobz.value else 7  # overwritten in any case
        entries(info, (count,), np.int32)[:] = self.failed
        return 0


@pytest.fixture
def device():
    return torch.device("cuda")


@pytest.fixture
def library(monkeypatch):
    """A stand-in of the library, which takes seven matrices a call."""
    stand_in = StandIn()
    handle = ctypes.c_void_p(1)
    solver = cusolver._Solver(stand_in, handle, handle, threading.Lock())
    monkeypatch.setattr(cusolver, "_solver", lambda device: solver)
    monkeypatch.setattr(cusolver, "MOST", 7)
    return stand_in


def hermitian(device, dtype, *shape):
    B = normal(*shape, device=device).to(dtype)
    B = B + 1j * normal(*shape, device=device, seed=1).to(dtype) if dtype.is_complex else B
    return B @ B.mH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(9, 33, 33), (3, 5, 40, 40)], ids=str)
def test_values_and_vectors_are_those_of_the_matrices(library, device, dtype, shape):
    G = hermitian(device, dtype, *shape)
    before = G.clone()
    values, vectors = eigh(G)
    assert_close(
        values,
        torch.linalg.eigvalsh(G),
        rtol=1e-4 if dtype.itemsize // (1 + dtype.is_complex) == 4 else 1e-10,
        atol=1e-3,
    )
    assert_close(G @ vectors, vectors * values[..., None, :].to(dtype), rtol=1e-4, atol=1e-3)
    assert_close(eigvalsh(G), values)
    assert torch.equal(G, before)
    assert library.calls == 2 * [7, 2] if len(G) == 9 else 2 * [7, 7, 1]


def test_what_does_not_converge_goes_to_the_host_and_what_is_refused_is_named(library, device):
    G = hermitian(device, torch.complex128, 3, 40, 40)
    library.failed = 1
    assert_close(eigvalsh(G), torch.linalg.eigvalsh(G))
    library.status = 3
    with pytest.raises(RuntimeError, match="XsyevBatched failed with status 3; "):
        eigvalsh(G)


def test_small_and_single_matrices_are_left_to_torch(library, device):
    for shape in ((5, CUDA_SIDE, CUDA_SIDE), (1, 50, 50), (50, 50)):
        G = hermitian(device, torch.complex128, *shape)
        assert_close(eigvalsh(G), torch.linalg.eigvalsh(G))
    assert not library.calls


@pytest.mark.parametrize("shape", [(4, 20, 30), (4, 30, 20)], ids=str)
def test_singular_values_and_their_derivative_are_torch_s(library, device, shape):
    M = torch.complex(normal(*shape, device=device), normal(*shape, device=device, seed=1)).requires_grad_()
    weights = normal(4, 20, device=device, seed=2)
    found, truth = svdvals(M), torch.linalg.svdvals(M)
    assert_close(found, truth)
    (ours,) = torch.autograd.grad((weights * found).sum(), M)
    assert_close(ours, torch.autograd.grad((weights * truth).sum(), M)[0])
    assert library.calls
    (grad,) = torch.autograd.grad(svdvals(M).square().sum(), M, create_graph=True)
    with pytest.raises(RuntimeError, match="a first derivative only on a GPU"):
        (grad.abs() + M.abs()).sum().backward()
