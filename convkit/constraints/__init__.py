"""Hooks on an optimizer that keep or push weights where they should be: rows on a sphere, norms clipped or decayed."""

from convkit.constraints.clip import clip_operator_norm, clip_reshaped_norm
from convkit.constraints.decay import norm_decay
from convkit.constraints.handle import Handle
from convkit.constraints.sphere import centered_sphere

__all__ = ["Handle", "centered_sphere", "clip_operator_norm", "clip_reshaped_norm", "norm_decay"]
