"""Penalties to add to the loss: the norms of layers, and the distance of kernels from orthogonality."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.bounds import flattened_norm
from convkit.norms import operator_norm
from convkit.operators.evaluation import evaluation_copy
from convkit.operators.geometry import Size, check_kernel, checked_at_once
from convkit.operators.layers import LAYERS, TRANSPOSED, has_operator
from convkit.operators.network import layer_operator, named_layers, naming
from convkit.operators.operator import ConvOperator

__all__ = ["mean_norm", "orthogonality", "reshaped_spectral_penalty", "spectral_penalty"]

_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def mean_norm(model: nn.Module, shapes: Mapping[str, Size], ord: float = 1) -> Tensor:
    """Return the mean of the layers' operator norms, ``(1/N) sum ||theta_i||``: a scalar with gradient.

    ``shapes`` is ``input_shapes(model, x)``, or a part of it: only its layers count. ``ord`` is 1, 2 or inf. Exact
    where ``operator_norm`` is; 2 is converged, matrix-free, for layers without Fourier blocks. The gradient goes
    through parametrizations. Liang & Huang 2021, eq. 5; at momentum 0 ``norm_decay`` adds ``beta`` times its gradient.
    Raises ``ValueError`` with the layer's name for layers that the model does not have and weights that are not finite.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    >>> _ = nn.init.ones_(layer.weight)
    >>> mean_norm(nn.Sequential(layer), {"0": 4}).item()
    3.0
    """
    return torch.stack([operator_norm(A, ord) for _, A in _operators("mean_norm", model, shapes)]).mean()


def spectral_penalty(model: nn.Module, shapes: Mapping[str, Size]) -> Tensor:
    """Return ``1/2 sum ||A||_2^2`` over the layers, with the norms of the convolutions: a scalar with gradient.

    ``shapes`` is ``input_shapes(model, x)``, or a part of it: only its layers count. Exact for circular layers whose
    stride divides their input; for zero padding the norm is that of ``A.torus()``, an upper bound. Raises
    ``ValueError`` with the layer's name for other circular layers, layers that the model does not have and weights that
    are not finite.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    >>> _ = nn.init.ones_(layer.weight)
    >>> round(spectral_penalty(nn.Sequential(layer), {"0": 4}).item(), 3)
    4.5
    """
    norms = []
    for name, A in _operators("spectral_penalty", model, shapes):
        with naming(name):
            norms.append(operator_norm(A.torus(), 2))
    return torch.stack(norms).square().sum() / 2


def reshaped_spectral_penalty(model: nn.Module) -> Tensor:
    """Return ``1/2 sum ||W||_2^2`` over all convolution and linear layers, with W the reshaped kernel.

    W is the matrix ``(c_out, c_in * prod(kernel_size))``, whose norm is not the layer's; with groups, the largest norm
    among them. A scalar with gradient, exact where Yoshida & Miyato 2017 use power iteration. Raises ``ValueError`` for
    a model without such layers, transposed convolutions, and layers that compute their weight in their own way.

    >>> layer = nn.Conv1d(1, 1, 3)
    >>> _ = nn.init.ones_(layer.weight)
    >>> round(reshaped_spectral_penalty(nn.Sequential(layer)).item(), 3)
    1.5
    """
    norms = []
    for name, layer in _layers("reshaped_spectral_penalty", model, LAYERS):
        with naming(name), evaluation_copy(layer) as copy:
            weight = copy.weight
            kernel = weight[..., None] if weight.ndim == 2 else weight
            groups = getattr(layer, "groups", 1)
            norms.append(flattened_norm(ConvOperator(kernel, tuple(kernel.shape[2:]), groups=groups)))
    return torch.stack(norms).square().sum() / 2


def orthogonality(model: nn.Module) -> Tensor:
    """Return the sum over all convolutions of ``||conv(K, K) - I||^2``, which is 0 for orthonormal rows (OCNN).

    A scalar with gradient, exact. ``conv(K, K)`` holds the inner products of all overlapping rows for one output
    position: K is both image and filter, with the layer's stride and ``floor((k - 1) / stride) * stride`` pixels of
    padding per axis. This is ``||A A^T - I||^2`` per output position, for A with circular padding on any size
    on which two windows meet at most once; the layer's own boundary does not matter. Dilation d counts as stride ``s /
    gcd(s, d)``; different groups are orthogonal anyway.

    Wang et al. 2020, who take the rows for every shape: where there are more rows than columns, 0 cannot be reached,
    but the penalty on the columns, ``||A^T A - I||^2``, differs from this one by a constant. Linear layers do not
    count. Raises ``ValueError`` with the layer's name for transposed convolutions and layers that compute their weight
    in their own way, and for a model without convolutions.

    >>> layer = nn.Conv1d(1, 1, 3)
    >>> _ = nn.init.dirac_(layer.weight)
    >>> orthogonality(nn.Sequential(layer)).item()
    0.0
    """
    layers = _layers("orthogonality", model, _CONVOLUTIONS)
    return checked_at_once(lambda: torch.stack([_defect(name, layer) for name, layer in layers]).sum())


# ---- private -------------------------------------------------------------------------------------------------------
def _defect(name: str, layer: Any) -> Tensor:
    plain = type(layer) in _CONVOLUTIONS  # a parametrization may step when it is read in training
    with naming(name), nullcontext(layer) if plain else evaluation_copy(layer) as copy:
        groups, kernel = copy.groups, copy.weight
        check_kernel(kernel)
    axes = zip(kernel.shape[2:], layer.stride, layer.dilation, strict=True)
    strides, pads = [], []
    for k, s, d in axes:
        strides.append(s // math.gcd(s, d))  # windows s apart share taps that lie d apart: every s / gcd-th of them
        pads.append((k - 1) // strides[-1] * strides[-1])
    images = kernel.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)  # (c_out / groups, c_in, *k): K, by group
    products = _CONV[kernel.ndim - 2](images, kernel, None, strides, pads, 1, groups)
    products = products.unflatten(1, (groups, -1)).transpose(1, 2)  # (row, row, group, *shifts)
    identity = torch.zeros_like(products)
    center = tuple(pad // s for pad, s in zip(pads, strides, strict=True))
    rows = torch.arange(len(images), device=kernel.device)
    identity[(rows, rows, slice(None), *center)] = 1
    return (products - identity).square().sum()


def _operators(kind: str, model: nn.Module, shapes: Mapping[str, Size]) -> list[tuple[str, ConvOperator]]:
    layers = named_layers(kind, model, shapes)
    with evaluation_copy(nn.ModuleList(layers.values())) as copies:  # some parametrizations step when read in training
        pairs = zip(layers, copies, strict=True)
        return [(name, layer_operator(name, copy, shapes[name])) for name, copy in pairs]


def _layers(kind: str, model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, Any]]:
    """Return the layers of these kinds by name; raise ``ValueError`` for none and for layers that are more."""
    layers = []
    for name, layer in model.named_modules():
        if has_operator(layer) or isinstance(layer, TRANSPOSED):
            raise ValueError(
                f"{kind} needs layers that their weight describes, got {name!r}, a {type(layer).__name__}; take "
                "spectral_penalty, or penalize the other layers' modules alone"
            )
        if isinstance(layer, kinds):
            layers.append((name, layer))
    if not layers:
        raise ValueError(f"{kind} needs a model with convolutions, got {type(model).__name__} without any")
    return layers
