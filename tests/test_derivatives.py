"""Derivatives of theory beyond the first, in forward mode, and where singular values repeat; theory inside autocast."""

from dataclasses import replace

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.testing import assert_close

from convkit import bounds, norms, projections, spectra
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import CIRCULAR, Geometry, normal
from tests.helpers.refusals import refused

ZEROS = Geometry((3, 2, 3, 3), (7, 8), padding=1, padding_mode="zeros")
nondeterministic = {"nondet_tol": 1e-9}  # sums in no fixed order on a GPU


# ---- second derivatives --------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("geometry", CIRCULAR.values(), ids=CIRCULAR)
def test_the_norm_of_a_block_circulant_operator_has_a_second_derivative(device, geometry):
    kernel = geometry.operator(device).kernel.requires_grad_()
    assert gradgradcheck(lambda k: norms.operator_norm(geometry.with_kernel(k), 2), (kernel,), **nondeterministic)


@pytest.mark.parametrize("compute", [spectra.leading_singular_values, norms.operator_norm])
def test_iterated_values_refuse_a_second_derivative_and_keep_the_first(device, compute):
    kernel = ZEROS.operator(device).kernel.requires_grad_()
    (grad,) = torch.autograd.grad(compute(ZEROS.with_kernel(kernel), 2).sum(), kernel, create_graph=True)
    weights = normal(*kernel.shape, device=device, seed=1)
    refused("a first derivative only.*; use", torch.autograd.grad, (grad * weights).sum(), kernel, error=RuntimeError)
    # not even beside a term that has one
    penalized = (grad * weights).sum() + kernel.pow(2).sum()
    refused("a first derivative only.*; use", penalized.backward, error=RuntimeError)


# ---- forward mode --------------------------------------------------------------------------------------------------
LARGE = Geometry((140, 150, 1, 1), (2, 2))
FORWARD = {
    "norm 1": lambda A: norms.operator_norm(A, 1),
    "norm 2": lambda A: norms.operator_norm(A, 2),
    "leading": lambda A: spectra.leading_singular_values(A, 2),
    "all": spectra.singular_values,
    "large": lambda A: norms.operator_norm(A, 2),
    "bound": bounds.torus_bound,
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch itself
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_the_directional_derivative(device, name):
    geometry = {"all": Geometry((5, 4, 3, 2), (6, 5)), "large": LARGE}.get(name, ZEROS)
    kernel = geometry.operator(device).kernel
    direction = normal(*kernel.shape, device=device, seed=1)
    with forward_ad.dual_level():
        found = FORWARD[name](geometry.with_kernel(forward_ad.make_dual(kernel, direction)))
        tangent = forward_ad.unpack_dual(found).tangent
    kernel.requires_grad_()
    values = FORWARD[name](geometry.with_kernel(kernel))
    for value, part in zip(values.reshape(-1)[:4], tangent.reshape(-1)[:4], strict=True):
        (grad,) = torch.autograd.grad(value, kernel, retain_graph=True)
        assert_close(part, (grad * direction).sum())


# ---- torch.func ----------------------------------------------------------------------------------------------------
TABLES = {  # sizes that no other test has: their tables are made inside the transform
    "norm 1": (lambda A: norms.operator_norm(A, 1), Geometry((3, 2, 3, 2), (17, 13), padding_mode="zeros", padding=1)),
    "norm inf": (lambda A: norms.operator_norm(A, torch.inf), Geometry((3, 2, 3, 2), (19, 13))),
    "reflecting": (
        lambda A: norms.operator_norm(A, torch.inf),
        Geometry((3, 2, 3, 2), (23, 13), padding_mode="reflect", padding=1),
    ),
    "Gram iteration": (bounds.gram_iteration_bound, Geometry((3, 2, 3, 2), (29, 3))),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_made_inside_a_transform_serve_after_it(device, name):
    compute, geometry = TABLES[name]
    kernel = geometry.operator(device).kernel

    def first(k: torch.Tensor) -> torch.Tensor:
        return compute(geometry.with_kernel(k)).flatten()[0]

    hessians = [torch.func.jacrev(torch.func.jacrev(lambda k: first(k) ** 2))(kernel) for _ in range(2)]
    assert_close(*hessians)
    jacobian = torch.func.jacrev(first)(kernel)
    kernel.requires_grad_()
    assert_close(torch.autograd.grad(first(kernel), kernel)[0], jacobian)


# ---- repeated singular values --------------------------------------------------------------------------------------
CLIPS = {
    "clip": projections.clip_singular_values,
    "clip and crop": projections.clip_and_crop,
    "alternating": lambda A, bound: projections.alternating_projections(A, bound, 2),
    "dykstra": lambda A, bound: projections.dykstra(A, bound, 2),
    "reshaped": projections.clip_reshaped_kernel,
}


def repeated(device) -> dict[str, torch.Tensor]:
    identity = torch.zeros(3, 3, 3, 3, dtype=torch.float64, device=device)
    identity[range(3), range(3), 1, 1] = 2.0
    rotation = torch.linalg.qr(normal(4, 4, device=device))[0][..., None, None] * 2
    rank_one = torch.ones(3, 3, 3, 3, dtype=torch.float64, device=device)
    return {"identity": identity, "rotation": rotation, "constant": rank_one, "zero": 0 * rank_one}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("kind", ["identity", "rotation", "constant", "zero"])
def test_gradients_of_clips_are_finite_where_singular_values_repeat(device, name, kind):
    kernel = repeated(device)[kind].requires_grad_()
    found = CLIPS[name](ConvOperator(kernel, (5, 6)), 1.0).kernel
    (grad,) = torch.autograd.grad((found * normal(*found.shape, device=device)).sum(), kernel)
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", ["clip", "clip and crop", "reshaped"])
@pytest.mark.parametrize("kind", ["identity", "rotation"])
def test_gradients_of_clips_are_right_where_singular_values_repeat(device, name, kind):
    kernel = repeated(device)[kind].requires_grad_()
    assert gradcheck(lambda k: CLIPS[name](ConvOperator(k, (4, 3)), 1.0).kernel, (kernel,), **nondeterministic)


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_the_same_with_and_without_a_gradient(device, name):
    A = Geometry((4, 6, 3, 2), (5, 6)).operator(device)
    bound = 0.4 * float(norms.operator_norm(A, 2))
    with_gradient = CLIPS[name](replace(A, kernel=A.kernel.clone().requires_grad_()), bound)
    assert with_gradient.kernel.requires_grad
    assert_close(with_gradient.kernel.detach(), CLIPS[name](A, bound).kernel)


# ---- autocast ------------------------------------------------------------------------------------------------------
ANYWHERE = {
    "norm 1": lambda A: norms.operator_norm(A, 1),
    "norm 2": lambda A: norms.operator_norm(A, 2),
    "power iteration": lambda A: norms.power_iteration(A, 9, torch.Generator().manual_seed(0)),
    "leading": lambda A: spectra.leading_singular_values(A, 3),
    "matrix": ConvOperator.matrix,
    "reshaped": lambda A: projections.clip_reshaped_kernel(A, 1.0).kernel,
    **{name: getattr(bounds, name) for name in ("frobenius_bound", "holder_bound", "torus_bound", "flattened_bound")},
}
BLOCKS = {
    "spectrum": spectra.spectrum,
    "values": spectra.singular_values,
    "conditions": spectra.channel_condition_numbers,
    "symbol": spectra.symbol,
    "gram iteration": bounds.gram_iteration_bound,
    "grid": bounds.grid_bound,
    "certify": lambda A: norms.certify(A, 1.0001 * float(norms.operator_norm(A, 2))),
    **{name: lambda A, clip=clip: clip(A, 2.0).kernel for name, clip in CLIPS.items()},
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [3, 30])
def test_theory_inside_autocast_is_that_outside(device, dtype, channels):
    circular = Geometry((channels, channels, 3, 2), (6, 7)).operator(device, torch.float32)
    zeros = replace(circular, padding=1, padding_mode="zeros")
    cases = [(name, f, A) for A in (circular, zeros) for name, f in ANYWHERE.items()]
    cases += [(name, f, circular) for name, f in BLOCKS.items()]
    for name, compute, A in cases:
        outside = compute(A)
        with torch.autocast(device.type, dtype):
            inside = compute(A)
        near = {"rtol": 0, "atol": 0 if device.type == "cpu" else 1e-5}
        assert_close(inside, outside, **near, msg=lambda m, name=name: f"{name}: {m}")
        with torch.autocast(device.type, dtype):
            assert A(torch.ones(1, *A.in_shape, device=device)).dtype == dtype  # the layer itself follows autocast


def test_a_gradient_taken_outside_autocast_is_that_of_the_exact_norm(device):
    kernel = ZEROS.operator(device, torch.float32).kernel.requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        inside = norms.operator_norm(ZEROS.with_kernel(kernel), 2)
    outside = norms.operator_norm(ZEROS.with_kernel(kernel), 2)
    assert_close(*(torch.autograd.grad(norm, kernel)[0] for norm in (inside, outside)), rtol=1e-5, atol=1e-6)
