"""Optimizer hooks that clip the singular values of layers after every so many steps."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import Optimizer

from convkit.bounds import flattened_norm
from convkit.checks import positive, whole
from convkit.constraints.handle import Handle
from convkit.engine.blocks import Blocks
from convkit.normalization.folding import channel_gain, followers, with_gain
from convkit.norms import operator_norm
from convkit.operators.geometry import Size
from convkit.operators.layers import LAYERS, TRANSPOSED, has_operator
from convkit.operators.network import layer_operator, named_layers, naming
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop, clip_reshaped_kernel

Geometry = Literal["exact", "torus", "reshaped"]
WITHOUT = "; take the hook off to do without"


def clip_operator_norm(
    optimizer: Optimizer,
    model: nn.Module,
    shapes: Mapping[str, Size],
    bound: float,
    every: int = 100,
    rounds: int = 1,
    folded: bool | Tensor = False,
) -> "NormClip":
    """Clip the singular values of a network's layers at ``bound`` after each ``every``-th step of the optimizer.

    ``shapes`` is ``input_shapes(model, x)``, or a part of it: only its layers are clipped. ``rounds=1`` is Sedghi et
    al. 2019, section 3: clip, then crop to the kernel's size, which leaves the norm above the bound (see
    ``clip_and_crop``): of a fresh ResNet-18 on 64 x 64 pixels and a bound of 1, by up to 1.35 times after the first
    clip and 1.11 after the third, since each starts from the last. More rounds alternate the two; nothing is scaled at
    the end.
    Returns a handle whose ``bound`` may be changed between steps. ``handle.record`` holds, by layer, the ``norm`` after
    the last clip, its ``step``, and the ``geometry`` of both: ``"exact"`` for the layer's own operator where it has
    Fourier blocks, ``"torus"`` for zero padding: that is ``A.torus()``, whose norm is an upper bound of the layer's.

    With ``folded`` the composition of a layer with the gains of the BatchNorm or ``NoisyAffine`` behind it is clipped
    (Boroojeny et al. 2024), in evaluation mode, and the gains are divided out again: the layer's weight alone changes.
    An output channel whose gain is 0, or so small that its part of the composition is lost in rounding, keeps its
    weight. ``True`` folds the next module in an ``nn.Sequential``, a batch of inputs x the one to which the outputs go
    when ``model(x)`` runs, in residual blocks, too (see ``followers``). Layers without such a module are clipped alone;
    ``handle.behind`` tells what stands behind which layer.

    Raises ``ValueError`` with the layer's name, before any weight is changed: for layers that the model or the
    optimizer does not have, parametrized weights, circular layers whose stride does not divide the input (make the
    size fit, or leave the layer out of ``shapes``), and after a step that left weights or gains that are not finite.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    >>> optimizer = torch.optim.SGD([nn.init.ones_(layer.weight)], lr=0.1)
    >>> handle = clip_operator_norm(optimizer, nn.Sequential(layer), {"0": 4}, bound=2.0, every=1, rounds=50)
    >>> optimizer.step()
    >>> round(handle.record["0"]["norm"], 2)
    2.0
    """
    rounds = whole("clip_operator_norm's rounds", rounds, 1, advice="; 1 is the paper's")
    layers = named_layers("clip_operator_norm", model, shapes)
    behind = {} if folded is False else followers(model, None if folded is True else folded)
    behind = {name: model.get_submodule(behind[name]) for name in layers if name in behind}
    return NormClip(optimizer, layers, bound, every, dict(shapes), rounds, behind)


def clip_reshaped_norm(
    optimizer: Optimizer, model: nn.Module, bound: float, every: int = 100, layers: Iterable[str] | None = None
) -> "ReshapedClip":
    """Clip the singular values of the reshaped kernels at ``bound`` after each ``every``-th step of the optimizer.

    A reshaped kernel is the matrix ``(c_out, c_in * prod(kernel_size))``, one per group. All convolution and linear
    layers are clipped, or those named in ``layers``; Sedghi et al. 2019, section 4.4, compare with this. The bound
    holds exactly, but not for the layer's norm, which is at most ``sqrt(prod(kernel_size))`` times as large. Returns a
    handle whose ``bound`` may be changed between steps; ``handle.record`` holds, by layer, the ``norm`` of the reshaped
    kernel after the last clip, its ``step``, and the ``geometry`` ``"reshaped"``.

    Raises ``ValueError`` with the layer's name, before any weight is changed: for layers that the model or the
    optimizer does not have, transposed convolutions, parametrized weights, and after a step that left weights that are
    not finite.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> optimizer = torch.optim.SGD([nn.init.eye_(layer.weight)], lr=0.1)
    >>> handle = clip_reshaped_norm(optimizer, nn.Sequential(layer), bound=0.5, every=1)
    >>> optimizer.step()
    >>> layer.weight.diag().tolist()
    [0.5, 0.5]
    """
    if layers is None:
        layers = [name for name, m in model.named_modules() if isinstance(m, LAYERS + TRANSPOSED)]
    return ReshapedClip(optimizer, named_layers("clip_reshaped_norm", model, layers), bound, every)


class ClipRecord(TypedDict):
    """The last clip of one layer: the norm after it, the optimizer step, and which operator's norm it is."""

    norm: float
    step: int
    geometry: Geometry


class Clip(Handle):
    """Base class of the two clips: ``bound`` may be changed between steps, ``record`` describes the last clip."""

    live = ("bound",)

    def __init__(self, optimizer: Optimizer, layers: dict[str, nn.Module], bound: float, every: int) -> None:
        self.bound, self._layers = positive(f"{self.kind}'s bound", bound, WITHOUT), layers
        self.every = whole(f"{self.kind}'s every", every, 1, advice="; 100 is the paper's")
        self.record: dict[str, ClipRecord] = {}
        self._weights = {name: _plain_weight(self.kind, name, layer) for name, layer in layers.items()}
        if len({id(weight) for weight in self._weights.values()}) < len(layers):
            raise ValueError(f"{self.kind} needs a weight for each layer, got some that share one among {list(layers)}")
        for name in layers:
            self._operator(name)  # what has none is refused now
        super().__init__(optimizer, layers, self._weights)

    def state_dict(self) -> dict[str, object]:
        """Return the hook's state without the model and the arguments: numbers and names only."""
        return super().state_dict() | {"record": {name: dict(entry) for name, entry in self.record.items()}}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Continue from a saved state; raise ``ValueError`` for the state of another kind of hook or other layers."""
        super().load_state_dict(state_dict)
        record: Any = state_dict["record"]
        self.record = {name: ClipRecord(**entry) for name, entry in record.items()}

    def _apply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if (self.steps + 1) % self.every:
            return
        positive(f"{self.kind}'s bound", self.bound, WITHOUT)
        new, record = {}, {}
        for name in self._weights:
            A, geometry = self._operator(name)
            A, norm = self._clipped(self._composed(name, A))
            record[name] = {"norm": float(norm), "step": self.steps + 1, "geometry": geometry}
            new[name] = self._weight(name, A)
        for name, kernel in new.items():  # all are known: none has raised
            self._weights[name].copy_(kernel)
        self.record = record

    def _operator(self, name: str) -> tuple[ConvOperator, Geometry]:
        raise NotImplementedError

    def _composed(self, name: str, A: ConvOperator) -> ConvOperator:
        return A

    def _clipped(self, A: ConvOperator) -> tuple[ConvOperator, Tensor]:
        raise NotImplementedError

    def _weight(self, name: str, A: ConvOperator) -> Tensor:
        return A.kernel.reshape(self._weights[name].shape)


class NormClip(Clip):
    """The handle of ``clip_operator_norm``."""

    kind = "clip_operator_norm"

    def __init__(
        self,
        optimizer: Optimizer,
        layers: dict[str, nn.Module],
        bound: float,
        every: int,
        shapes: dict[str, Size],
        rounds: int,
        behind: dict[str, nn.Module],
    ) -> None:
        self._shapes, self.rounds, self.behind = shapes, rounds, behind
        super().__init__(optimizer, layers, bound, every)

    def _operator(self, name: str) -> tuple[ConvOperator, Geometry]:
        A = layer_operator(name, self._layers[name], self._shapes[name])
        with naming(name):
            return A.torus(), "exact" if A.is_block_circulant else "torus"

    def _gain(self, name: str) -> Tensor | None:
        return channel_gain(self.behind[name]) if name in self.behind else None

    def _composed(self, name: str, A: ConvOperator) -> ConvOperator:
        gain = self._gain(name)
        with naming(name):
            return A if gain is None else with_gain(A, gain)

    def _weight(self, name: str, A: ConvOperator) -> Tensor:
        gain, old = self._gain(name), self._weights[name]
        if gain is None:
            return super()._weight(name, A)
        before, _ = self._operator(name)
        sizes = _rows(with_gain(before, gain)).norm(dim=1)
        lost = sizes <= 100 * torch.finfo(sizes.dtype).eps * sizes.max()
        inverse = torch.where(lost, 0, 1 / torch.where(lost, 1, gain.to(sizes)))
        kept = with_gain(before, lost.to(sizes)).kernel
        return (with_gain(A, inverse).kernel + kept).reshape(old.shape)

    def _clipped(self, A: ConvOperator) -> tuple[ConvOperator, Tensor]:
        B = A
        for _ in range(self.rounds):
            B, A = A, clip_and_crop(A, self.bound)
            if A is B:  # nothing is above the bound
                break
        if A is not B and _has_all_taps(A):
            return A, torch.tensor(self.bound, dtype=torch.float64, device="cpu")
        return A, operator_norm(A, 2)


class ReshapedClip(Clip):
    """The handle of ``clip_reshaped_norm``."""

    kind = "clip_reshaped_norm"

    def _operator(self, name: str) -> tuple[ConvOperator, Geometry]:
        layer = self._layers[name]
        kernel, groups = self._weights[name], getattr(layer, "groups", 1)
        if not isinstance(layer, LAYERS):
            raise ValueError(f"clip_reshaped_norm needs Conv1d, Conv2d, Conv3d or Linear, got {name!r}; leave it out")
        with naming(name):
            kernel = kernel[..., None] if kernel.ndim == 2 else kernel
            return ConvOperator(kernel, tuple(kernel.shape[2:]), groups=groups), "reshaped"  # of any size: not used

    def _clipped(self, A: ConvOperator) -> tuple[ConvOperator, Tensor]:
        A = clip_reshaped_kernel(A, self.bound)
        return A, flattened_norm(A)


def _has_all_taps(A: ConvOperator) -> bool:
    """Return whether the kernel has a tap at every pixel of a period of the torus: a clip leaves nothing to crop."""
    axes = zip(A.input_shape, A.kernel.shape[2:], A.dilation, A.stride, Blocks(A).period, strict=True)
    return all(len({d * tap % n for tap in range(k)}) == s * period for n, k, d, s, period in axes)


def _plain_weight(kind: str, name: str, layer: nn.Module) -> Tensor:
    computed = has_operator(layer) or parametrize.is_parametrized(layer, "weight")
    weight = getattr(layer, "weight", None)
    if computed or not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"{kind} needs a layer whose weight is a plain parameter, got {name!r}, a {type(layer).__name__} that "
            "computes its own or has none; leave it out, or take the parametrization off"
        )
    return weight


def _rows(A: ConvOperator) -> Tensor:
    """Return the kernel's numbers by output channel, ``(c_out, ...)``."""
    if not A.transposed:
        return A.kernel.flatten(1)
    return A.kernel.unflatten(0, (A.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
