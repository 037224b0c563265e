"""Norm decay: an optimizer hook that adds the smoothed gradient of the layers' norms before each step."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from convkit.checks import described, number, plain, real
from convkit.constraints.handle import Handle
from convkit.norms import operator_norm
from convkit.operators.evaluation import evaluation_copy
from convkit.operators.geometry import Size, checked_at_once
from convkit.operators.layers import LAYERS, TRANSPOSED
from convkit.operators.network import layer_operator, named_layers

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, which torch's optimizers use: one launch for many tensors


def norm_decay(
    optimizer: Optimizer,
    model: nn.Module,
    shapes: Mapping[str, Size],
    beta: float,
    ord: float = 1,
    momentum: float = 0.5,
    mean: bool = True,
) -> "NormDecay":
    """Add ``beta`` times the smoothed gradient of the layers' mean norm to ``.grad`` before each optimizer step.

    Algorithm 1 of Liang & Huang 2021: ``h <- momentum h + (1 - momentum) p``, then ``.grad += beta / N h``, where p is
    the gradient of the sum of the norms (``ord`` 1 or inf, exact) of the N layers of ``shapes``. That is
    ``input_shapes(model, x)`` or a part of it; any stride, padding, dilation, groups. ``mean=False`` adds ``beta h``,
    the factor in the authors' program. Where several rows attain the maximum, p is the mean of their gradients.
    Through a parametrization p reaches the parameters behind it. As with weight decay, a parameter without ``.grad`` is
    not touched, and a frozen one has no p, although N counts its layer.

    Returns a handle whose ``beta`` may be changed between steps. Works with ``torch.amp.GradScaler``, fused optimizers
    and ``maximize`` without further settings.

    Raises ``ValueError`` for ``beta < 0``, ``momentum`` outside [0, 1), another norm, layers that the model does not
    have, and, with the layer's name, for weights that the optimizer does not step or that are not finite, before any
    gradient is changed; and for ``optimizer.step(closure)``, whose gradients come too late.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> optimizer = torch.optim.SGD([nn.init.eye_(layer.weight)], lr=1.0)
    >>> handle = norm_decay(optimizer, nn.Sequential(layer), {"0": (1, 1)}, beta=0.1, momentum=0.0)
    >>> (0 * layer.weight).sum().backward()
    >>> optimizer.step(); layer.weight.diag().detach()
    tensor([0.9500, 0.9500])
    """
    ord, smoothing = plain(ord), real(momentum)
    if isinstance(ord, bool) or ord not in (1, math.inf):
        raise ValueError(
            f"norm_decay needs ord 1 or torch.inf, got {described(ord)}; for 2 add spectral_penalty to the loss"
        )
    if smoothing is None or not 0 <= smoothing < 1:
        raise ValueError(f"norm_decay needs a momentum in [0, 1), got {described(momentum)}; 0.5 is the paper's")
    layers = named_layers("norm_decay", model, shapes)
    return NormDecay(optimizer, layers, dict(shapes), beta, ord, smoothing, mean)


class NormDecay(Handle):
    """The handle of ``norm_decay``; ``beta`` may be changed between steps."""

    kind, live = "norm_decay", ("beta",)

    def __init__(
        self,
        optimizer: Optimizer,
        layers: dict[str, nn.Module],
        shapes: dict[str, Size],
        beta: float,
        ord: float,
        momentum: float,
        mean: bool,
    ) -> None:
        self.beta, self.ord, self.momentum, self.mean = beta, ord, momentum, mean
        self._check_beta()
        self._layers, self._shapes, self._modules = layers, shapes, nn.ModuleList(layers.values())
        self._parameters: dict[str, Tensor] = {}
        for name, layer in layers.items():
            seen = {id(p) for p in self._parameters.values()}  # of a shared weight there is one gradient
            own = {f"{name}.{of}" if name else of: p for of, p in layer.named_parameters() if id(p) not in seen}
            self._parameters |= own
        self._smoothed: dict[str, Tensor] = {}
        weights = {name: self._parameters[name] for name in self._gradients()}
        if not weights:
            raise ValueError("norm_decay needs a weight with requires_grad among its layers, got none; unfreeze one")
        super().__init__(optimizer, layers, weights, before=True)

    def state_dict(self) -> dict[str, object]:
        """Return the hook's state without the model and the arguments; ``h`` holds the smoothed gradients by name."""
        return super().state_dict() | {"h": {name: h.clone() for name, h in self._smoothed.items()}}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Continue from a saved state; raise ``ValueError`` for the state of another kind of hook or other layers."""
        self._check_state(state_dict)
        smoothed: Any = state_dict["h"]
        for name, h in smoothed.items():
            if name not in self._parameters or h.shape != self._parameters[name].shape:
                raise ValueError(f"needed h for the parameters of these layers, got {name!r} of shape {tuple(h.shape)}")
        super().load_state_dict(state_dict)
        self._smoothed = {name: h.to(self._parameters[name], copy=True) for name, h in smoothed.items()}

    def _apply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(callable(argument) for argument in (*args[1:], *kwargs.values())):
            raise ValueError(
                "norm_decay needs the gradients before the step, got a closure that computes them during it; call it "
                "first, then optimizer.step(), or add mean_norm to the loss"
            )
        self._check_beta()
        gradients = self._gradients()
        for name, p in gradients.items():
            if name not in self._smoothed:
                self._smoothed[name] = torch.zeros_like(p)
        stepped = [self._smoothed[name] for name in gradients]
        torch._foreach_mul_(stepped, self.momentum)
        torch._foreach_add_(stepped, list(gradients.values()), alpha=1 - self.momentum)
        factor = self.beta / (len(self._layers) if self.mean else 1)
        scale = getattr(self._optimizer, "grad_scale", None)  # what GradScaler leaves a fused optimizer to divide by
        descend = {id(p): not group.get("maximize") for group in self._optimizer.param_groups for p in group["params"]}
        for down, alpha in ((True, factor), (False, -factor)):
            grads, steps = list[Tensor](), list[Tensor]()
            for name, h in self._smoothed.items():
                weight = self._parameters[name]
                if weight.grad is not None and descend.get(id(weight)) is down:
                    grads.append(weight.grad)
                    steps.append(h if scale is None else h * scale)
            if grads:
                torch._foreach_add_(grads, steps, alpha=alpha)

    def _gradients(self) -> dict[str, Tensor]:
        """Return the gradient of the sum of the norms, by the name of the parameter."""
        weights = {name: p for name, p in self._parameters.items() if p.requires_grad}
        plain = all(type(layer) in LAYERS + TRANSPOSED for layer in self._modules)
        # some parametrizations step when read in training, but a copy takes longer than all norms of plain layers
        with torch.enable_grad(), nullcontext(self._modules) if plain else evaluation_copy(self._modules) as copies:
            pairs = list(zip(self._layers, copies, strict=True))
            norms = checked_at_once(lambda: torch.stack([self._norm(name, copy) for name, copy in pairs]))
            if not norms.requires_grad:
                return {}
            gradients = torch.autograd.grad(norms.sum(), list(weights.values()), allow_unused=True)
        return {name: p for name, p in zip(weights, gradients, strict=True) if p is not None}

    def _norm(self, name: str, layer: nn.Module) -> Tensor:
        return operator_norm(layer_operator(name, layer, self._shapes[name]), self.ord)

    def _check_beta(self) -> None:
        number("norm_decay's beta", self.beta, 0, advice="; the paper has 1e-5 .. 1e-2")
