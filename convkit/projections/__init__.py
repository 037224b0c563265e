"""Nearest convolutions: with a bounded operator norm, with a kernel of some size, with all singular values 1."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.projections.clipping import alternating_projections as alternating_projections
    from convkit.projections.clipping import clip_and_crop as clip_and_crop
    from convkit.projections.clipping import clip_reshaped_kernel as clip_reshaped_kernel
    from convkit.projections.clipping import clip_singular_values as clip_singular_values
    from convkit.projections.clipping import dykstra as dykstra
    from convkit.projections.clipping import project_centered_sphere as project_centered_sphere
    from convkit.projections.polar_factors import polar as polar
    from convkit.projections.polar_factors import polar_step as polar_step
    from convkit.projections.polar_factors import steepest as steepest

__getattr__, __dir__, __all__ = face(__name__)
