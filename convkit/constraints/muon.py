"""``ConvMuon``: an optimizer whose steps have a known operator norm as convolutions, not as flattened kernels."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from convkit.checks import number, whole
from convkit.engine.blocks import Blocks
from convkit.engine.largest import largest_by_group
from convkit.operators.geometry import Size
from convkit.operators.layers import LAYERS, TRANSPOSED
from convkit.operators.network import layer_operator, named_layers, naming
from convkit.operators.operator import ConvOperator
from convkit.projections.polar_factors import _by_group

Geometry = tuple[Any, ...]  # of a layer's torus, as the arguments of ConvOperator
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al. 2024: brings singular values up to between 0.7 and 1.2
SETTLED = (1.875, -1.25, 0.375)  # of Newton and Schulz: from there to between 0.94 and 1.03
TINY = 1e-7
ROUNDS = 5  # of linear layers, as in torch.optim.Muon
SPARE = 1  # pixels of the torus beyond the kernel, along each axis: with none, a step is an eighth less steep


class ConvMuon(Optimizer):
    """Muon for convolutions: momentum, then a step along the polar factor of the layer's operator, of norm ``lr``.

    Muon (Jordan et al. 2024) turns the momentum of a matrix into its polar factor, the steepest step per unit of the
    norm 2. Applied to a flattened kernel it measures the wrong norm: a step of 1 changes the layer by up to
    ``sqrt(prod(kernel_size))``. Here the polar factor is that of the convolution on a small torus, by the same
    iteration of matrix products, cropped to the kernel (``polar_step``), and divided by its operator norm on the
    layer's torus. So every step changes a convolution by ``lr`` in the operator norm, and

    ``|W_t| <= |W_0| + sum of the rates``

    holds for each convolution (of its torus, hence also of the layer with zero padding), whatever the gradients are.
    With weight decay, ``|W_t| <= max(|W_0|, 1 / weight_decay)`` holds as well, however many steps are taken, as long as
    ``lr * weight_decay <= 1``. Each group of a layer steps by ``lr``, so a depthwise layer, whose channels never meet,
    steps as so many filters. Linear layers step exactly as in ``torch.optim.Muon``, all other parameters (biases,
    gains, layers that are not in ``shapes``) by SGD with the same momentum, at ``rest_lr``. Weight decay is decoupled,
    for the layers alone.

    ``shapes`` is ``input_shapes(model, x)``, or a part of it. Parameter groups are named by their ``kind``:
    ``"convolutions"``, ``"matrices"``, ``"rest"``; schedulers, hooks, ``GradScaler`` and ``state_dict`` work as with
    every optimizer of torch.

    Args:
        flattened: Whether to treat each kernel as the matrix ``(c_out, c_in prod(k))``, as users of Muon do: the
            baseline, without the certificate.
        lr: Operator norm of a convolution's step, and Muon's rate of linear layers.
        rest_lr: Rate of the other parameters.
        momentum, nesterov: As in ``torch.optim.Muon``.
        rounds: Rounds of the iteration of matrix products for convolutions, the last of which evens the values out.

    Raises ``ValueError`` with the layer's name for layers without a plain weight and geometries without a torus.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    >>> _ = nn.init.zeros_(layer.weight)
    >>> optimizer = ConvMuon(nn.Sequential(layer), {"0": 8}, lr=0.25)
    >>> layer(torch.ones(1, 1, 8)).sum().backward()
    >>> optimizer.step()
    >>> norm = torch.linalg.matrix_norm(ConvOperator.from_layer(layer, 8).matrix(), 2)  # 0.25
    """

    def __init__(
        self,
        model: nn.Module,
        shapes: Mapping[str, Size],
        lr: float = 0.02,
        *,
        rest_lr: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        rounds: int = 4,
        flattened: bool = False,
    ) -> None:
        layers = named_layers("ConvMuon", model, shapes)
        self._layers: dict[Tensor, Geometry] = {}
        kinds: dict[str, list[Tensor]] = {"convolutions": [], "matrices": [], "rest": []}
        for name, layer in layers.items():
            weight = getattr(layer, "weight", None)
            if not isinstance(layer, LAYERS + TRANSPOSED) or not isinstance(weight, nn.Parameter):
                raise ValueError(
                    f"ConvMuon needs layers whose weight is a plain parameter, got {name!r}, a {type(layer).__name__}; "
                    "leave it out of shapes, or take the parametrization off"
                )
            if not weight.requires_grad or weight in self._layers:
                continue
            A = layer_operator(name, layer, shapes[name])
            with naming(name):
                torus = (A.T if A.transposed else A).torus()
            self._layers[weight] = (torus.input_shape, torus.stride, torus.padding, torus.dilation, torus.groups)
            kinds["matrices" if flattened or isinstance(layer, nn.Linear) else "convolutions"].append(weight)
        kinds["rest"] = [p for p in model.parameters() if p.requires_grad and p not in self._layers]
        defaults = {
            "kind": "rest",
            "lr": number("ConvMuon's lr", lr, 0),
            "momentum": number("ConvMuon's momentum", momentum, 0, 1),
            "nesterov": bool(nesterov),
            "weight_decay": number("ConvMuon's weight_decay", weight_decay, 0),
            "rounds": whole("ConvMuon's rounds", rounds, 1, advice="; 4 are usual"),
        }
        rates = {"rest": {"lr": number("ConvMuon's rest_lr", rest_lr, 0), "weight_decay": 0.0}}
        groups = [{"params": params, "kind": kind, **rates.get(kind, {})} for kind, params in kinds.items() if params]
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; with a closure, return what it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight, update in self._updates(group):
                rate = group["lr"]
                if group["kind"] == "rest":
                    weight.add_(update, alpha=-rate)
                    continue
                weight.mul_(1 - rate * group["weight_decay"])
                if group["kind"] == "convolutions":
                    step = self._of_norm_1(self._layers[weight], update, group["rounds"])
                else:
                    matrix = update.flatten(1)
                    step = orthogonalized(matrix, [QUINTIC] * ROUNDS).view_as(weight)
                    rate = rate * math.sqrt(max(1, len(matrix) / matrix.shape[1]))
                weight.add_(step, alpha=-rate)
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_layers": self._layers}  # a copy of the optimizer steps, too

    def _updates(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each weight with a gradient and what the momentum makes of it."""
        for weight in group["params"]:
            grad = weight.grad
            if grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(grad)
            buffer = state["momentum_buffer"]
            if group["kind"] == "rest":
                buffer.mul_(group["momentum"]).add_(grad)
                yield weight, grad + group["momentum"] * buffer if group["nesterov"] else buffer
            else:
                buffer.lerp_(grad, 1 - group["momentum"])
                yield weight, grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer

    def _of_norm_1(self, geometry: Geometry, update: Tensor, rounds: int) -> Tensor:
        """Return the cropped polar factor of the update, each group divided by its norm on the layer's torus."""
        _, stride, _, _, groups = geometry
        kind = torch.promote_types(update.dtype, torch.float32)
        kernel = update.to(kind)
        kernel = kernel / kernel.abs().amax().clamp_min(torch.finfo(kind).tiny)
        # dilation does not matter here: it orders the same blocks in another way
        sizes = [s * math.ceil((k + SPARE * (k > 1)) / s) for k, s in zip(kernel.shape[2:], stride, strict=True)]
        small = ConvOperator(kernel, sizes, stride, groups=groups)
        blocks = Blocks(small, 1)
        taps, alone = torch.zeros_like(blocks.taps), blocks.self_conjugate
        for which, real in ((alone, True), (~alone, False)):
            some = which.nonzero().flatten()
            if len(some):
                matrices = blocks.at(blocks.frequencies[some]).flatten(0, 1)
                factors = orthogonalized(matrices.real if real else matrices, [*[QUINTIC] * (rounds - 1), SETTLED])
                factors = factors.to(matrices.dtype).unflatten(0, (-1, small.groups))
                taps = taps + blocks.to_taps(factors, some)
        kernel = blocks.to_kernel(taps)
        return _by_group(kernel, largest_by_group(ConvOperator(kernel, *geometry))).to(update.dtype)


def orthogonalized(matrices: Tensor, rounds: list[tuple[float, float, float]]) -> Tensor:
    """Return about ``U V*`` for matrices ``U S V*``, ``(..., r, c)``, by products of matrices in bfloat16.

    ``X <- a X + (b G + c G G) X`` with ``G = X X*``, from ``X / |X|_F``, for the coefficients of each round. Complex
    matrices are multiplied by parts, three real products for each complex one.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    X = matrices.mH if tall else matrices
    if X.is_complex():
        sizes = (torch.linalg.matrix_norm(part, keepdim=True) for part in (X.real, X.imag))
        size = torch.hypot(*sizes).clamp_min(TINY)
        X = torch.complex(*_by_parts((X.real / size).bfloat16(), (X.imag / size).bfloat16(), rounds))
    else:
        X = X.bfloat16()
        X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp_min(TINY)
        for a, b, c in rounds:
            gram = X @ X.mT
            if X.ndim == 2:  # bit for bit what torch.optim.Muon does
                X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
            else:
                X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mH if tall else X


def _by_parts(real: Tensor, imag: Tensor, rounds: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor]:
    """Return the real and imaginary parts, in float32, after the rounds of ``orthogonalized``."""
    for a, b, c in rounds:
        grams = _hermitian(real, imag, imag @ real.mT)
        squares = _hermitian(*grams, grams[0] @ grams[1])
        p, q = (torch.add(b * gram, square, alpha=c) for gram, square in zip(grams, squares, strict=True))
        both = (p + q) @ real
        real, imag = a * real + both - q @ (real + imag), a * imag + both + p @ (imag - real)
    return real.float(), imag.float()


def _hermitian(real: Tensor, imag: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the parts of a Hermitian product: a sum of two squares, and a product minus its transpose."""
    parts = torch.cat([real, imag], dim=-1)
    return parts @ parts.mT, mixed - mixed.mT
