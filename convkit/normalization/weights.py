"""Weight parametrizations: modules for ``torch.nn.utils.parametrize`` that compute a weight from another one.

Weight normalization is torch's ``torch.nn.utils.parametrizations.weight_norm(layer, dim=0)``, and division by the norm
of the reshaped kernel is ``torch.nn.utils.parametrizations.spectral_norm(layer)``: both follow their papers.
"""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.checks import positive, whole
from convkit.operators.dtypes import without_autocast

Layer = TypeVar("Layer", bound=nn.Module)
USUAL = "; leave it out for the usual one"
CONSTANT = 1e-6  # of a row's norm: a row that varies by less cannot be standardized


def parametrized(layer: Layer, parametrization: nn.Module) -> Layer:
    """Return the layer with its ``weight`` made a function of another weight, which is trained in its place.

    Takes convolutions and linear layers, whose weights have one row per output: ``(outputs, ...)``. The trained one is
    ``layer.parametrizations.weight.original``. Raises ``ValueError`` for other layers and for weights that the
    parametrization cannot take.

    >>> layer = parametrized(nn.Linear(3, 2), WeightStandardization(gain=2.0))
    >>> layer.weight.detach().norm(dim=1).round(decimals=3)
    tensor([2., 2.])
    """
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        raise ValueError(
            f"parametrized needs a convolution or a linear layer, got {type(layer).__name__}; register the "
            "parametrization by torch.nn.utils.parametrize where the weight has one row per output channel"
        )
    return parametrize.register_parametrization(layer, "weight", parametrization)  # pyright: ignore[reportReturnType]


class WeightStandardization(nn.Module):
    """Weight standardization: rows of mean 0 and norm ``gain`` (Qiao et al. 2019; eq. 15-17 of Ikami et al. 2021).

    A row is the weight of one output. ``gain=None`` is eq. 15 as printed: standard deviation 1, which is norm
    ``sqrt(fan-in)``; a deep network without a normalization of its activations then starts with outputs of 1e6 and is
    lost. So the default is ``sqrt(2)``, He's norm for ReLU, the one of the sphere constraint that it is compared with;
    before a BatchNorm or GroupNorm the scale makes no difference. A row that varies by less than ``eps`` (in norm) is
    divided by ``eps``. Raises ``ValueError`` for rows of one number and constant rows.

    >>> WeightStandardization()(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=3)
    tensor([[-1.,  0.,  1.]])
    """

    def __init__(self, gain: float | None = 2**0.5, eps: float = 1e-12) -> None:
        super().__init__()
        self.gain = None if gain is None else positive("gain", gain, USUAL)
        self.eps = positive("eps", eps, USUAL)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with centered rows of norm ``gain``."""
        gain = math.sqrt(weight[0].numel()) if self.gain is None else self.gain
        return gain * _unit(_centered(weight), self.eps)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight itself, which is what is trained. Its mean and norm do not show in the layer."""
        _check_rows(weight, "WeightStandardization")
        return weight

    def extra_repr(self) -> str:
        return f"gain={self.gain}, eps={self.eps}"


class CenteredWeightNorm(nn.Module):
    """Centered weight normalization: ``g (w - mean w) / |w - mean w|`` for each row w (Huang et al. 2017).

    ``original0`` is g, a learnable norm per row, ``original1`` is w. g starts at the norm of the centered row, so that
    only the means of the rows change at the start. Raises ``ValueError`` for rows of one number and constant rows.

    >>> CenteredWeightNorm()(torch.tensor([[2.0]]), torch.tensor([[-5.0, 5.0, 5.0, -5.0]]))
    tensor([[-1.,  1.,  1., -1.]])
    """

    def forward(self, g: Tensor, w: Tensor) -> Tensor:
        """Return the weight whose rows have directions ``w - mean w`` and norms g."""
        return g * _unit(_centered(w), 1e-12)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and w for a layer whose rows have this weight's directions and centered norms."""
        _check_rows(weight, "CenteredWeightNorm")
        return _norms(_centered(weight)), weight


class NewtonOrthogonal(nn.Module):
    """Orthogonalization by Newton's iteration (ONI): nearly orthogonal rows, or columns, of norm ``scale``.

    The kernel as a matrix Z, ``(outputs, fan-in)``, centered row by row where ``center``; ``W = Z / |Z Z^T|_F^(1/2)``;
    ``W <- (3 W - W W^T W) / 2``, ``iterations`` times; the weight is ``scale W`` (Huang et al. 2020, with its compact
    bound; they iterate B in ``W = B V``, which is the same but for rounding errors that grow like ``1.5^iterations``
    and more). Singular values go to ``scale`` from below, small ones like ``1.5^iterations``: five iterations leave
    some far away. With more rows than columns the same is done to the columns (``V^T V``, scaled alike); centered rows
    have at most ``fan-in - 1`` independent columns. Groups have matrices of their own. Zero rows stay zero. Orthogonal
    as a matrix, which does not make the convolution so. Autocast changes nothing: bfloat16 would leave singular values
    of ``1.004 scale``.

    >>> NewtonOrthogonal(20, scale=1.0, center=False)(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).round(decimals=3)
    tensor([[1., 0.],
            [0., 1.]])
    """

    def __init__(self, iterations: int = 5, scale: float = 2**0.5, center: bool = True, groups: int = 1) -> None:
        super().__init__()
        self.iterations, self.groups = whole("iterations", iterations, 1, advice=USUAL), whole("groups", groups, 1)
        self.scale, self.center = positive("scale", scale, USUAL), center

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``scale`` times the weight after Newton's iterations."""
        rows = _centered(weight) if self.center else weight
        Z = rows.flatten(1).unflatten(0, (self.groups, -1))
        wide = Z.shape[1] <= Z.shape[2]
        Z = Z if wide else Z.mT
        Z = Z / _floored(Z.detach().abs().amax((1, 2), keepdim=True))  # squares of squares neither overflow nor vanish
        with without_autocast(weight):
            if _few_operators(weight):
                W: Tensor = _Newton.apply(Z, self.iterations)[0]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
            else:
                W = Z / _floored(torch.linalg.matrix_norm(Z @ Z.mT, keepdim=True)).sqrt()
                for _ in range(self.iterations):
                    W = 1.5 * W - 0.5 * (W @ W.mT) @ W
        return self.scale * (W if wide else W.mT).reshape(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight itself, which is what is trained."""
        if weight.shape[0] % self.groups:
            raise ValueError(
                f"groups must divide the weight's {weight.shape[0]} rows, got {self.groups}; give the layer's groups"
            )
        if self.center:
            _check_rows(weight, "NewtonOrthogonal with center=True", zero=True)
        return weight

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}, scale={self.scale:g}, center={self.center}, groups={self.groups}"


# ---- private -------------------------------------------------------------------------------------------------------
def _few_operators(weight: Tensor) -> bool:
    """Return whether derivatives written by hand save time: a GPU waits for each operator, a compiler has its own."""
    return weight.is_cuda and not torch.compiler.is_compiling()


class _Newton(torch.autograd.Function):
    """Newton's iterations from ``Z / |Z Z^T|_F^(1/2)`` with as few operators as they need, for a GPU.

    Returns the last matrix, then what its derivative needs: all matrices ``W``, ``W W^T`` of each but the last, and the
    divisor of Z. A derivative of the derivative derives these, too, so they are computed again from Z.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(Z: Tensor, iterations: int) -> tuple[Tensor, ...]:
        """Return ``W <- (3 W - W W^T W) / 2`` after all iterations, and the values on the way."""
        divisor = _floored(torch.linalg.matrix_norm(Z @ Z.mT, keepdim=True)).sqrt()
        matrices, squares = [Z / divisor], []
        for _ in range(iterations):
            W = matrices[-1]
            squares.append(W @ W.mT)
            matrices.append(torch.baddbmm(W, squares[-1], W, beta=1.5, alpha=-0.5))
        return matrices[-1], *matrices[:-1], *squares, divisor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep Z and the values on the way, which have no gradients of their own."""
        Z, ctx.iterations = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(Z, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> Any:
        """Apply the adjoint of each step: of ``3 W - W W^T W`` it is ``3 G - W W^T G - (G W^T + W G^T) W``."""
        if grad is None:
            return None, None
        Z, *values = ctx.saved_tensors
        with torch.autocast(Z.device.type, enabled=False):
            if torch.is_grad_enabled():
                values = _Newton.forward(Z, ctx.iterations)[1:]
            matrices, squares, divisor = values[: ctx.iterations], values[ctx.iterations : -1], values[-1]
            for W, square in zip(reversed(matrices), reversed(squares), strict=True):
                mixed = grad @ W.mT
                grad = torch.baddbmm(grad, square, grad, beta=1.5, alpha=-0.5)
                grad = torch.baddbmm(grad, mixed + mixed.mT, W, alpha=-0.5)
            W, square = matrices[0], squares[0]
            along = (grad * W).sum((1, 2), keepdim=True)
            return (grad - along * (square @ W)) / divisor, None


def _floored(size: Tensor) -> Tensor:
    """Return sizes to divide by, at least the smallest normal number, so that zeros stay zeros."""
    return size.clamp_min(torch.finfo(size.dtype).tiny)


def _centered(weight: Tensor) -> Tensor:
    """Return the weight with the mean of each row subtracted."""
    return weight - weight.mean(tuple(range(1, weight.ndim)), keepdim=True)


def _norms(rows: Tensor) -> Tensor:
    """Return the norm of each row, with the axes of the rows kept."""
    return torch.linalg.vector_norm(rows, dim=tuple(range(1, rows.ndim)), keepdim=True)


def _unit(rows: Tensor, eps: float) -> Tensor:
    """Return the rows divided by their norms, or by ``eps`` where these are smaller."""
    return rows / _norms(rows).clamp_min(eps)


def _check_rows(weight: Tensor, name: str, zero: bool = False) -> None:
    """Raise ``ValueError`` for rows of one number and, unless they may be ``zero`` once centered, constant rows."""
    if weight.ndim < 2 or weight[0].numel() < 2:
        raise ValueError(
            f"{name} needs rows of at least two numbers (a fan-in of 2), got a weight of shape {tuple(weight.shape)}: "
            "a centered row of one number is zero; leave this layer as it is"
        )
    if zero or weight.is_meta:
        return
    norms = _norms(weight.detach())
    flat = (_norms(_centered(weight.detach())) <= CONSTANT * norms).flatten().nonzero().flatten().tolist()
    if flat:
        raise ValueError(
            f"{name} needs rows that vary, got {len(flat)} constant ones (the first is row {flat[0]}), which are zero "
            "once centered; start them at random"
        )
