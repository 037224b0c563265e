"""Weights that are functions of other weights: modules for ``torch.nn.utils.parametrize``.

Weight normalization is torch's own, ``torch.nn.utils.parametrizations.weight_norm(layer, dim=0)``, and so is the norm
of the reshaped kernel, ``torch.nn.utils.parametrizations.spectral_norm(layer)``: both do here what their papers say.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.checks import plain, real, said, whole
from convkit.engine.blocks import half_set, reduced_taps
from convkit.engine.largest import top_frequency
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator

Layer = TypeVar("Layer", bound=nn.Module)
CONSTANT = 1e-6  # of a row's norm: a row that varies by less cannot be standardized


def parametrized(layer: Layer, parametrization: nn.Module) -> Layer:
    """The layer, its ``weight`` now a function of a weight that is trained in its place.

    Takes convolutions and linear layers, whose weights have one row an output: ``(outputs, ...)``. The trained one is
    ``layer.parametrizations.weight.original``. Raises ``ValueError`` for other layers and for weights that the
    parametrization cannot take.
    """
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        raise ValueError(
            f"parametrized needs a convolution or a linear layer, got {type(layer).__name__}; register the "
            "parametrization by torch.nn.utils.parametrize where the weight has one row an output"
        )
    return parametrize.register_parametrization(layer, "weight", parametrization)  # pyright: ignore[reportReturnType]


class WeightStandardization(nn.Module):
    """Rows of mean 0 and norm ``gain``: eq. 15-17 of Ikami et al. 2022, Qiao et al. 2019.

    A row is the weight of one output. ``gain=None`` is eq. 15 as printed: standard deviation 1, which is norm
    ``sqrt(fan-in)``; a deep network without a normalization of its activations then starts with outputs of 1e6 and is
    lost. So the default is ``sqrt(2)``, He's norm for ReLU, the one of the sphere constraint that it is compared with;
    before a BatchNorm or GroupNorm the scale makes no difference. A row that varies by less than ``eps`` (in norm) is
    divided by ``eps``; no other row knows of it. Raises ``ValueError`` for rows of one number and constant rows.
    """

    def __init__(self, gain: float | None = 2**0.5, eps: float = 1e-12) -> None:
        super().__init__()
        self.gain = None if gain is None else _positive(gain, "gain")
        self.eps = _positive(eps, "eps")

    def forward(self, weight: Tensor) -> Tensor:
        gain = math.sqrt(weight[0].numel()) if self.gain is None else self.gain
        return gain * _unit(_centered(weight), self.eps)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: it is what is trained. Its mean and norm do not show in the layer."""
        _check_rows(weight, "WeightStandardization")
        return weight

    def extra_repr(self) -> str:
        return f"gain={self.gain}, eps={self.eps}"


class CenteredWeightNorm(nn.Module):
    """Rows of mean 0 and of a learnable norm: ``g (w - mean w) / |w - mean w|`` (Huang et al. 2017).

    ``original0`` is g, one number a row, ``original1`` is w. g starts at the norm of the centered row, so that the
    layer starts as it was but for its rows' means. Raises ``ValueError`` for rows of one number and constant rows.
    """

    def forward(self, g: Tensor, w: Tensor) -> Tensor:
        return g * _unit(_centered(w), 1e-12)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """g and w for a layer whose rows have this weight's directions and centered norms."""
        _check_rows(weight, "CenteredWeightNorm")
        return _norms(_centered(weight)), weight


class NewtonOrthogonal(nn.Module):
    """Nearly orthogonal rows (or columns, if there are more rows) of norm ``scale`` by Newton's iteration: ONI.

    The kernel as a matrix Z, ``(outputs, fan-in)``, centered row by row where ``center``; ``W = Z / |Z Z^T|_F^(1/2)``;
    ``W <- (3 W - W W^T W) / 2``, ``iterations`` times; the weight is ``scale W`` (Huang et al. 2020, with its compact
    bound; they iterate B in ``W = B V``, which is the same but for rounding errors that grow like ``1.5^iterations``
    and more). Singular values go to ``scale`` from below, small ones like ``1.5^iterations``: five iterations leave
    some behind. With more rows than columns the same is done to the columns (``V^T V``, scaled alike); centered rows
    have at most ``fan-in - 1`` independent columns. Groups have matrices of their own. Zero rows stay zero. Orthogonal
    as a matrix, which does not make the convolution so.
    """

    def __init__(self, iterations: int = 5, scale: float = 2**0.5, center: bool = True, groups: int = 1) -> None:
        super().__init__()
        iterations, groups = whole("iterations", iterations), whole("groups", groups)
        if iterations < 1 or groups < 1:
            raise ValueError(
                f"iterations and groups must be at least 1, got {iterations} and {groups}; 5 and 1 are usual"
            )
        self.iterations, self.scale, self.center, self.groups = iterations, _positive(scale, "scale"), center, groups

    def forward(self, weight: Tensor) -> Tensor:
        rows = _centered(weight) if self.center else weight
        Z = rows.flatten(1).unflatten(0, (self.groups, -1))
        wide = Z.shape[1] <= Z.shape[2]
        Z = Z if wide else Z.mT
        Z = Z / _floored(Z.detach().abs().amax((1, 2), keepdim=True))  # squares of squares neither overflow nor vanish
        W = Z / _floored(torch.linalg.matrix_norm(Z @ Z.mT, keepdim=True)).sqrt()
        for _ in range(self.iterations):
            W = 1.5 * W - 0.5 * (W @ W.mT) @ W
        return self.scale * (W if wide else W.mT).reshape(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: it is what is trained."""
        if weight.shape[0] % self.groups:
            raise ValueError(
                f"groups must divide the weight's {weight.shape[0]} rows, got {self.groups}; give the layer's groups"
            )
        if self.center:
            _check_rows(weight, "NewtonOrthogonal with center=True", zero=True)
        return weight

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}, scale={self.scale:g}, center={self.center}, groups={self.groups}"


class OperatorNorm(nn.Module):
    """The weight scaled so that the convolution's operator norm 2 on images of ``input_shape`` is ``bound``.

    The norm is that of the layer's torus (``ConvOperator.torus``): the layer's own for circular padding, an upper bound
    for zero padding, so that the layer's is ``bound`` at most. It is exact, by Fourier (``operator_norm``), at each
    reading of the weight; the gradient goes through the norm, by its top pair of singular vectors. With ``every`` > 1
    it is exact at every so-many-th reading in training and always in evaluation; in between, it is the norm of the one
    block whose frequency was on top at the last exact reading: below the true norm by as much as another has overtaken
    it. Zero weights stay zero. Raises ``ValueError`` for geometries without a torus.
    """

    frequency: Tensor
    group: Tensor
    readings: Tensor

    def __init__(
        self,
        input_shape: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Any = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "circular",
        bound: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.geometry = (input_shape, stride, padding, dilation, groups, padding_mode)
        self.bound = _positive(bound, "bound")
        self.every = whole("every", every, floats=True)
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {every}; 1 is exact at each reading")
        axes = len(sizes) if isinstance(sizes := plain(input_shape), Sequence) else 1
        self.register_buffer("frequency", torch.zeros(1, axes, dtype=torch.long))
        self.register_buffer("group", torch.zeros((), dtype=torch.long))
        self.register_buffer("readings", torch.zeros((), dtype=torch.long))

    def forward(self, weight: Tensor) -> Tensor:
        if not weight.isfinite().all():
            return weight  # a diverged training shows in its loss, not here
        kind = weight.device.type
        # a backward pass may run under autocast, whatever the forward pass forbids: it leaves float64 alone
        kernel = weight.double() if torch.is_autocast_enabled(kind) else weight
        with torch.autocast(kind, enabled=False):
            norm = self._norm(ConvOperator(kernel, *self.geometry).torus()).to(weight.dtype)
            return self.bound * weight / _floored(norm)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: it is what is trained."""
        ConvOperator(weight, *self.geometry).torus()  # raises for what has none
        self.readings.zero_()
        return weight

    def extra_repr(self) -> str:
        names = ("input_shape", "stride", "padding", "dilation", "groups", "padding_mode")
        text = ", ".join(f"{name}={value!r}" for name, value in zip(names, self.geometry, strict=True))
        return f"{text}, bound={self.bound:g}, every={self.every}"

    def _norm(self, A: ConvOperator) -> Tensor:
        if self.every == 1 or not self.training:
            return operator_norm(A, 2)
        taps = reduced_taps(A)
        if int(self.readings) % self.every == 0:
            frequency, group = top_frequency(taps, half_set(taps.size))
            self.frequency.copy_(frequency)
            self.group.fill_(group)
        self.readings += 1
        block = taps.blocks(self.frequency.cpu())[0, int(self.group)]
        U, _, Vh = torch.linalg.svd(block.detach(), full_matrices=False)
        return (U[:, 0].conj() @ block @ Vh[0].conj()).real


# ---- private -------------------------------------------------------------------------------------------------------
def _positive(value: float, name: str) -> float:
    found = real(value)
    if found is None or found <= 0:
        raise ValueError(f"{name} must be a positive number, got {said(value)}; leave it out for the usual one")
    return found


def _floored(size: Tensor) -> Tensor:
    return size.clamp_min(torch.finfo(size.dtype).tiny)  # 0 / tiny = 0


def _centered(weight: Tensor) -> Tensor:
    return weight - weight.mean(tuple(range(1, weight.ndim)), keepdim=True)


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=tuple(range(1, rows.ndim)), keepdim=True)


def _unit(rows: Tensor, eps: float) -> Tensor:
    return rows / _norms(rows).clamp_min(eps)


def _check_rows(weight: Tensor, name: str, zero: bool = False) -> None:
    if weight.ndim < 2 or weight[0].numel() < 2:
        raise ValueError(
            f"{name} needs rows of at least two numbers (a fan-in of 2), got a weight of shape {tuple(weight.shape)}: "
            "a centered row of one number is zero; leave this layer as it is"
        )
    if zero:
        return
    norms = _norms(weight.detach())
    flat = (_norms(_centered(weight.detach())) <= CONSTANT * norms).flatten().nonzero().flatten().tolist()
    if flat:
        raise ValueError(
            f"{name} needs rows that vary, got {len(flat)} constant ones (the first is row {flat[0]}), which are zero "
            "once centered; start them at random"
        )
