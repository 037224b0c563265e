"""The constraints of the methods, each a function that attaches a hook to the optimizer."""

from torch import nn
from torch.optim import Optimizer

from convkit.constraints.clip import clip_operator_norm, clip_reshaped_norm
from convkit.constraints.decay import norm_decay
from convkit.constraints.handle import Handle
from convkit.constraints.sphere import centered_sphere
from convkit.methods.method import Constrain, Settings, Shapes

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def sphere(center: bool, scale: bool) -> Constrain:
    """Return the constraint of Ikami et al. 2021: rows of mean 0 (``center``) and of norm ``radius`` (``scale``)."""

    def constrain(optimizer: Optimizer, model: nn.Module, shapes: Shapes, knobs: Settings) -> Handle:
        kernels = {name: m.weight for name, m in model.named_modules() if isinstance(m, CONVOLUTIONS)}
        return centered_sphere(optimizer, kernels, float(knobs.get("radius", 1.0)), center=center, scale=scale)

    return constrain


def after_each_clip(step: int, knobs: Settings) -> bool:
    """Return whether the weights are clipped at this step."""
    return step % int(knobs["every"]) == 0


def clip(optimizer: Optimizer, model: nn.Module, shapes: Shapes, knobs: Settings) -> Handle:
    """Clip the operator norms of the convolutions, but not of the linear head, as Sedghi et al. 2019 do."""
    convolutions = {name: shapes[name] for name in shapes if isinstance(model.get_submodule(name), CONVOLUTIONS)}
    bound, every, rounds = float(knobs["bound"]), int(knobs["every"]), int(knobs["rounds"])
    return clip_operator_norm(optimizer, model, convolutions, bound, every, rounds)


def clip_reshaped(optimizer: Optimizer, model: nn.Module, shapes: Shapes, knobs: Settings) -> Handle:
    """Clip the norms of the convolutions' kernels, reshaped to matrices ``(c_out, c_in * kh * kw)``."""
    convolutions = [name for name in shapes if isinstance(model.get_submodule(name), CONVOLUTIONS)]
    return clip_reshaped_norm(optimizer, model, float(knobs["bound"]), int(knobs["every"]), layers=convolutions)


def decay(ord: float) -> Constrain:
    """Return the norm decay of Liang & Huang 2021 for the operator norm ``ord``, 1 or inf."""

    def constrain(optimizer: Optimizer, model: nn.Module, shapes: Shapes, knobs: Settings) -> Handle:
        beta, smoothing = float(knobs["beta"]), float(knobs["smoothing"])
        return norm_decay(optimizer, model, shapes, beta, ord, smoothing, mean=bool(knobs["mean"]))

    return constrain
