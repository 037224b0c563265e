"""The cases that other libraries of layer norms test or show, stated anew and held against dense matrices.

They are conv-sv and practical_svd_conv (singular values and clips), lip4conv (Gram iteration), orthogonium
(orthogonal, grouped and transposed layers), deel-torchlip (a coefficient for zero padding) and FastClip (its target).
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from convkit.bounds import flattened_bound, flattened_norm, gram_iteration_bound, reshaped_bound, torus_bound
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections import clip_singular_values, dykstra
from convkit.spectra import leading_singular_values, singular_values
from tests.helpers.geometries import Geometry, normal

CLIPPED = {  # conv-sv, then practical_svd_conv with its strides
    "1-D": Geometry((3, 2, 3), (10,)),
    "2-D": Geometry((2, 2, 3, 3), (6, 6)),
    "rectangular": Geometry((2, 3, 3, 5), (7, 10)),
    "3 x 4 channels": Geometry((4, 3, 3, 3), (5, 6)),
    "stride 2": Geometry((6, 3, 3, 3), (8, 6), stride=2),
    "stride 2, few outputs": Geometry((2, 5, 4, 4), (6, 8), stride=2),
    "patches": Geometry((5, 3, 2, 2), (6, 8), stride=2, padding="valid", padding_mode="zeros"),
    "1 x 1, stride 3": Geometry((6, 4, 1, 1), (6, 9), stride=3, padding=0),
}


@pytest.mark.parametrize("geometry", CLIPPED.values(), ids=CLIPPED)
def test_values_are_cut_at_each_of_several_clips_and_a_clip_of_a_clip_is_the_lower_one(device, geometry):
    A = geometry.operator(device)
    values = torch.linalg.svdvals(A.matrix())
    assert_close(singular_values(A), values)
    B = A
    for share in (0.9, 0.6, 0.6, 0.3):
        bound = share * float(values[0])
        B = clip_singular_values(B, bound)
        assert_close(singular_values(B), values.clamp(max=bound))
        assert_close(B.matrix(), clip_singular_values(A, bound).matrix())


def test_64_channels_and_256_have_the_values_of_their_blocks(device):
    A = Geometry((256, 64, 3, 3), (4, 3)).operator(device)
    values = torch.linalg.svdvals(torch.fft.fft2(A.kernel, (4, 3)).permute(2, 3, 0, 1))
    assert_close(singular_values(A), values.flatten().sort(descending=True).values)


def test_five_gram_iterations_of_64_channels_are_nearly_exact_and_so_is_their_gradient(device):
    kernel = normal(64, 64, 5, 5, device=device).requires_grad_()
    A = ConvOperator(kernel, (12, 12))
    bound, norm = gram_iteration_bound(A, steps=5), operator_norm(A, 2)
    assert 0 <= bound / norm - 1 < 1e-3
    (rough,), (exact,) = torch.autograd.grad(bound, kernel), torch.autograd.grad(norm, kernel)
    assert torch.cosine_similarity(rough.flatten(), exact.flatten(), dim=0) > 0.9


def orthogonal_kernel(groups: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A kernel of 4 channels per group and 2 x 2 taps that is orthogonal on the circle: a projection for each axis."""
    parts = []
    for seed in range(groups):
        first, second = (torch.linalg.qr(normal(4, 4, device=device, seed=10 * seed + i))[0][:, :2] for i in (0, 1))
        P, Q = first @ first.mT, second @ second.mT
        one = torch.eye(4).to(P)
        parts.append(torch.stack([torch.stack([p @ q for q in (Q, one - Q)], -1) for p in (P, one - P)], -2))
    return torch.cat(parts).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_orthogonal_layers_have_norm_1_circular_and_at_most_1_with_zeros(device, dtype, groups, transposed):
    kernel = orthogonal_kernel(groups, device, dtype)
    A = ConvOperator(kernel, (8, 7), groups=groups, transposed=transposed)
    assert_close(singular_values(A), torch.ones(4 * groups * 56).to(kernel))
    for padding in (0, ((1, 0), (0, 1)), 1):
        B = replace(A, padding=padding, padding_mode="zeros")
        values = torch.linalg.svdvals(B.matrix().double())
        assert_close(float(operator_norm(B, 2)), float(values[0]), rtol=1e-6, atol=0)
        assert_close(leading_singular_values(B, 5).double(), values[:5], rtol=1e-6, atol=0)
        assert values[0] < 1 + 1e-6


def test_the_mean_number_of_windows_of_a_pixel_is_no_bound_and_the_greatest_is(device):
    """torchlip divides by the root of the mean number, which a blur exceeds: its energy lies in the middle."""
    A = ConvOperator(torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64, device=device), 8, 1, 1, padding_mode="zeros")
    norm, mean = float(operator_norm(A, 2)), float(flattened_norm(A)) * (3 * 8 - 2) / 8
    assert_close(norm, ((1 + 2 * math.cos(math.pi / 9)) / 3) ** 2)
    assert mean < norm < float(torus_bound(A)) <= float(flattened_bound(A)) * (1 + 1e-9)
    B = Geometry((5, 3, 3, 3), (8, 8), padding=1, padding_mode="zeros").operator(device)
    assert operator_norm(B, 2) < torus_bound(B) < reshaped_bound(B) <= flattened_bound(B)


@pytest.mark.parametrize("channels", [(1, 64), (16, 16)])
def test_a_clip_that_keeps_the_kernel_size_reaches_its_target_and_stays_below(device, channels):
    kernel = normal(*reversed(channels), 3, 3, device=device)
    A = ConvOperator(kernel, 8)
    target = 0.5 * float(operator_norm(A, 2))
    reached = float(operator_norm(dykstra(A, target), 2))
    assert 0.999 * target < reached <= target * (1 + 1e-9)
