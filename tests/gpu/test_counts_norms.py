"""How often the host waits for a GPU, and how many operators norms, spectra and clips launch, on the pretended one."""

from collections.abc import Callable

import pytest
import torch

from convkit.data.trained import trained_kernels
from convkit.norms import certify, operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop
from convkit.spectra import leading_singular_values, singular_values
from tests.helpers.geometries import Geometry, normal

fakecuda = pytest.importorskip(
    "fakecuda", reason="needs the pretended CUDA device: python3 -m convkit test --pretend-gpu"
)


def counts(task: Callable[[], object]):
    """Counts of a second call: the first one fills the tables."""
    task()
    with fakecuda.counted() as found:
        task()
    return found


def operator(channels: int, size: int, **geometry) -> ConvOperator:
    kernel = normal(channels, channels, 3, 3, device="cuda", dtype=torch.float32)
    return ConvOperator(kernel, (size, size), **geometry)


def test_a_new_operator_reads_its_kernel_once_and_its_relatives_do_not():
    A = operator(4, 8, padding=1, padding_mode="zeros")
    assert counts(lambda: ConvOperator(A.kernel, A.input_shape)).waited == 1
    for relative in (lambda: A.T, A.torus, A.circular):
        assert counts(relative).waited == 0


@pytest.mark.parametrize("channels, size", [(16, 12), (64, 8)])
def test_the_norm_of_a_circular_operator_waits_twice(channels, size):
    A = operator(channels, size)
    # the kernel's scale, and the decomposition's success
    assert counts(lambda: operator_norm(A, 2)).waited <= 2
    kernel = A.kernel.clone().requires_grad_()
    B = ConvOperator(kernel, A.input_shape)
    # ... and where the largest value is, and the success of its block's decomposition
    assert counts(lambda: torch.autograd.grad(operator_norm(B, 2), kernel)).waited <= 4


def test_the_norm_of_many_channels_is_searched_with_few_waits(monkeypatch):
    monkeypatch.setattr("convkit.engine.largest.DENSE_SIDE_ON_GPU", 16)
    A = ConvOperator(trained_kernels()["128 to 128"].cuda(), (8, 8))
    assert counts(lambda: operator_norm(A, 2)).waited <= 8


@pytest.mark.parametrize("k", [1, 4])
def test_lanczos_waits_once_a_restart_and_twice_more(monkeypatch, k):
    from convkit.engine import lanczos

    restarts, extended = [], lanczos._extended
    monkeypatch.setattr(lanczos, "_extended", lambda *args: restarts.append(1) or extended(*args))
    A = Geometry((16, 16, 3, 3), (9, 12), padding=1, padding_mode="zeros").operator("cuda", torch.float32)
    leading_singular_values(A, k)
    once = len(restarts)
    assert once > 1
    assert counts(lambda: leading_singular_values(A, k)).waited <= once + 2


def test_spectra_clips_and_certificates_wait_a_few_times_and_the_norms_1_and_infinity_never():
    A = operator(16, 12)
    assert counts(lambda: singular_values(A)).waited <= 4
    bound = 0.9 * float(operator_norm(A, 2))
    assert counts(lambda: clip_and_crop(A, bound)).waited <= 7
    assert counts(lambda: certify(A, 1e3)).waited <= 2
    for order in (1, torch.inf):
        found = counts(lambda order=order: operator_norm(A, order))
        assert (found.waited, found.launches <= 8) == (0, True)
