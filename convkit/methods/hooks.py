"""The constraints of the methods: what acts on the optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from convkit.constraints.clip import clip_operator_norm, clip_reshaped_norm
from convkit.constraints.decay import norm_decay
from convkit.constraints.handle import Handle
from convkit.constraints.sphere import centered_sphere
from convkit.methods.method import Shapes


def sphere(center: bool, scale: bool) -> Any:
    def constrain(
        optimizer: torch.optim.Optimizer, model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]
    ) -> Handle:
        kernels = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
        return centered_sphere(optimizer, kernels, knobs.get("radius", 1.0), center=center, scale=scale)

    return constrain


def after_each_clip(step: int, knobs: Mapping[str, Any]) -> bool:
    return step % knobs["every"] == 0


def clip(optimizer: torch.optim.Optimizer, model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]) -> Handle:
    """S clips convolutions, not the linear head."""
    convolutions = {name: shapes[name] for name in shapes if isinstance(model.get_submodule(name), nn.Conv2d)}
    return clip_operator_norm(optimizer, model, convolutions, knobs["bound"], knobs["every"], knobs["rounds"])


def clip_reshaped(
    optimizer: torch.optim.Optimizer, model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]
) -> Handle:
    convolutions = [name for name in shapes if isinstance(model.get_submodule(name), nn.Conv2d)]
    return clip_reshaped_norm(optimizer, model, knobs["bound"], knobs["every"], layers=convolutions)


def decay(ord: float) -> Any:
    def constrain(
        optimizer: torch.optim.Optimizer, model: nn.Module, shapes: Shapes, knobs: Mapping[str, Any]
    ) -> Handle:
        return norm_decay(optimizer, model, shapes, knobs["beta"], ord, knobs["smoothing"], mean=knobs["mean"])

    return constrain
