"""What acts on weights at each step: hooks (rows on a sphere, clipped singular values, norm decay) and an optimizer."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.constraints.clip import clip_operator_norm as clip_operator_norm
    from convkit.constraints.clip import clip_reshaped_norm as clip_reshaped_norm
    from convkit.constraints.decay import norm_decay as norm_decay
    from convkit.constraints.handle import Handle as Handle
    from convkit.constraints.muon import ConvMuon as ConvMuon
    from convkit.constraints.sphere import centered_sphere as centered_sphere

__getattr__, __dir__, __all__ = face(__name__)
