"""Penalties against dense matrices: norms of layers, and rows that are orthonormal."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from convkit.operators.geometry import checked_at_once
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.penalties import mean_norm, orthogonality, reshaped_spectral_penalty, spectral_penalty
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, network
from tests.helpers.unchanged import unchanged


def conv(kernel: torch.Tensor, stride=1, dilation=1, groups=1, **options) -> nn.Module:
    """A torch layer with this kernel."""
    kind = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[kernel.ndim]
    layer = kind(kernel.shape[1] * groups, len(kernel), tuple(kernel.shape[2:]), stride, 0, dilation, groups, **options)
    layer.weight = nn.Parameter(kernel.clone())
    return layer.to(kernel)


def large_torus(layer) -> ConvOperator:
    """The layer on a circular image so large that two of its windows meet no more than once around it."""
    spans = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    sizes = tuple(s * (2 * span // s + 2) for s, span in zip(layer.stride, spans, strict=True))
    return ConvOperator(layer.weight.detach(), sizes, layer.stride, "same", layer.dilation, layer.groups)


@st.composite
def convolutions(draw) -> tuple:
    spatial = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 4)) for _ in range(spatial)]
    kernel = (groups * draw(st.integers(1, 3)), draw(st.integers(1, 3)), *sizes)
    stride, dilation = (tuple(draw(st.integers(1, 4)) for _ in range(spatial)) for _ in range(2))
    return kernel, stride, dilation, groups


# ---- norms ---------------------------------------------------------------------------------------------------------
def assert_penalty(penalty, model: nn.Module, wanted: torch.Tensor, power: int) -> None:
    """The penalty and its gradient are those of the dense matrices, and it grows with this power of the weights."""
    weights = [m.weight for m in model if hasattr(m, "weight")]
    assert_close(penalty(model), wanted)
    assert_close(torch.autograd.grad(penalty(model), weights), torch.autograd.grad(wanted, weights))
    with torch.no_grad():
        for p in model.parameters():
            p *= -3
    assert_close(penalty(model), 3**power * wanted.detach())


@pytest.mark.parametrize("ord", [1, 2, math.inf])
def test_mean_norm_is_the_mean_of_the_dense_norms_and_scales(device, ord):
    model, x = network(device, torch.float64), batch(device, torch.float64)
    norms = [torch.linalg.matrix_norm(A.matrix(), ord) for A in conv_operators(model, x).values()]
    assert_penalty(partial(mean_norm, shapes=input_shapes(model, x), ord=ord), model, sum(norms) / 5, 1)


def half_the_squares(matrices) -> torch.Tensor:
    return sum(torch.linalg.matrix_norm(M, 2).square() for M in matrices) / 2


def test_spectral_penalty_is_half_the_squared_norms_of_the_tori_and_scales(device):
    model, x = network(device, torch.float64), batch(device, torch.float64)
    operators = conv_operators(model, x).values()
    wanted = half_the_squares(A.torus().matrix() for A in operators)
    assert wanted > half_the_squares(A.matrix() for A in operators)
    assert_penalty(partial(spectral_penalty, shapes=input_shapes(model, x)), model, wanted, 2)


def test_reshaped_penalty_is_half_the_squared_norms_of_the_flattened_kernels_and_scales(device):
    model = network(device, torch.float64)
    assert reshaped_spectral_penalty(model) < spectral_penalty(model, input_shapes(model, batch(device, torch.float64)))
    parts = [m.weight.chunk(getattr(m, "groups", 1)) for m in model if hasattr(m, "weight")]
    norms = [max(torch.linalg.matrix_norm(part.flatten(1), 2) for part in of_layer) for of_layer in parts]
    assert_penalty(reshaped_spectral_penalty, model, sum(norm.square() for norm in norms) / 2, 2)


# ---- orthogonality -------------------------------------------------------------------------------------------------
@given(geometry=convolutions(), seed=st.integers(0, 9))
def test_orthogonality_is_the_dense_defect_of_the_rows_for_each_output_position(device, geometry, seed):
    shape, stride, dilation, groups = geometry
    layer = conv(normal(*shape, device=device, seed=seed), stride, dilation, groups)
    A = large_torus(layer)
    M = A.matrix()
    identity = torch.eye(len(M), dtype=M.dtype, device=device)
    positions = math.prod(A.out_shape[1:])
    assert_close(orthogonality(layer).detach(), (M @ M.T - identity).square().sum() / positions)


def test_orthogonality_sums_over_convolutions_alone_and_has_the_dense_gradient(device):
    model = network(device, torch.float64)
    convs = [m for m in model if isinstance(m, nn.Conv2d)]
    assert_close(orthogonality(model), sum(orthogonality(m) for m in convs))
    orthogonality(model).backward()
    assert all(m.weight.grad.norm() > 0 for m in convs)
    assert model[8].weight.grad is None
    with torch.no_grad():
        convs[0].weight *= 0
    assert_close(orthogonality(convs[0]).item(), 4.0)  # ||-I||^2 of 4 rows


@pytest.mark.parametrize("stride, dilation, groups", [(1, 1, 1), (2, 1, 1), ((2, 3), (3, 2), 2), (4, 2, 1)])
def test_gradcheck(device, stride, dilation, groups):
    def penalty(kernel: torch.Tensor) -> torch.Tensor:
        layer = conv(kernel, stride, dilation, groups)
        del layer.weight
        layer.weight = kernel
        return orthogonality(layer)

    kernel = normal(4, 2, 3, 2, device=device).requires_grad_()
    assert torch.autograd.gradcheck(penalty, kernel, nondet_tol=1e-9 if device.type == "cuda" else 0.0)


# ---- parametrized layers, and what is refused ----------------------------------------------------------------------
def test_parametrized_weights_are_read_as_they_are_now_and_take_no_step(device):
    layer = parametrizations.spectral_norm(nn.Conv2d(3, 2, 3), n_power_iterations=1).to(device, torch.float64)
    plain = conv(layer.eval().weight.detach())
    measures = [partial(penalty, shapes={"": (5, 6)}) for penalty in (mean_norm, spectral_penalty)]
    for penalty in (*measures, reshaped_spectral_penalty, orthogonality):
        layer.train().zero_grad()
        with unchanged(layer):
            assert_close(penalty(layer), penalty(plain))
        penalty(layer).backward()
        assert layer.parametrizations.weight.original.grad.norm() > 0


def test_layers_that_have_no_such_penalty_are_refused_by_name(device):
    model = network(device)
    shapes = input_shapes(model, batch(device))
    for penalty in (mean_norm, spectral_penalty):
        refused("'nine', which Sequential does not have", penalty, model, shapes | {"nine": (3, 3)})
        refused("at least one layer", penalty, model, {})
    refused(r"ord must be 1, 2 or torch.inf, got 3", mean_norm, model, shapes, 3)
    circular = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1, padding_mode="circular")).to(device)
    words = r"layer '0': torus needs .* stride \(2, 2\) on \(5, 5\)"
    refused(words, spectral_penalty, circular, {"0": (5, 5)})
    transposed = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ConvTranspose2d(2, 2, 3))
    for penalty in (orthogonality, reshaped_spectral_penalty):
        refused("weight describes, got '1', a ConvTranspose2d", penalty, transposed)
        refused("with convolutions, got ReLU without any", penalty, nn.ReLU())
    with torch.no_grad():
        model[4].weight[0] = math.nan
    for penalty in (partial(mean_norm, shapes=shapes), reshaped_spectral_penalty, orthogonality):
        refused("layer '4': kernel must be finite", penalty, model)


def test_kernels_whose_squares_overflow_are_no_error_and_kernels_are_checked_one_by_one_again_afterwards(device):
    kernel = torch.full((2, 1, 3), 1e30, device=device)
    assert orthogonality(conv(kernel)).item() == math.inf
    kernel[1, 0, 2] = -math.inf
    refused("layer '': kernel must be finite, got 1 NaN", orthogonality, conv(kernel))
    refused("kernel must be finite, got 1 NaN", ConvOperator, kernel, 4)
    with pytest.raises(ZeroDivisionError):
        checked_at_once(lambda: kernel / (1 // 0))
    refused("kernel must be finite, got 1 NaN", ConvOperator, kernel, 4)
