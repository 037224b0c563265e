"""Learn, check and use the spectral theory of convolutional networks."""

from typing import TYPE_CHECKING

from convkit.loading import face

__version__ = "0.2.0"

if TYPE_CHECKING:
    from convkit.bounds import flattened_bound as flattened_bound
    from convkit.bounds import flattened_norm as flattened_norm
    from convkit.bounds import frobenius_bound as frobenius_bound
    from convkit.bounds import gram_iteration_bound as gram_iteration_bound
    from convkit.bounds import grid_bound as grid_bound
    from convkit.bounds import holder_bound as holder_bound
    from convkit.bounds import reshaped_bound as reshaped_bound
    from convkit.bounds import torus_bound as torus_bound
    from convkit.norms import certify as certify
    from convkit.norms import operator_norm as operator_norm
    from convkit.norms import power_iteration as power_iteration
    from convkit.operators.geometry import NoFourierBlocks as NoFourierBlocks
    from convkit.operators.network import conv_operators as conv_operators
    from convkit.operators.network import input_shapes as input_shapes
    from convkit.operators.operator import ConvOperator as ConvOperator
    from convkit.projections.clipping import alternating_projections as alternating_projections
    from convkit.projections.clipping import clip_and_crop as clip_and_crop
    from convkit.projections.clipping import clip_reshaped_kernel as clip_reshaped_kernel
    from convkit.projections.clipping import clip_singular_values as clip_singular_values
    from convkit.projections.clipping import dykstra as dykstra
    from convkit.projections.clipping import project_centered_sphere as project_centered_sphere
    from convkit.projections.polar_factors import Steepest as Steepest
    from convkit.projections.polar_factors import polar as polar
    from convkit.projections.polar_factors import polar_step as polar_step
    from convkit.projections.polar_factors import steepest as steepest
    from convkit.spectra import channel_condition_numbers as channel_condition_numbers
    from convkit.spectra import condition_number as condition_number
    from convkit.spectra import from_symbol as from_symbol
    from convkit.spectra import leading_singular_values as leading_singular_values
    from convkit.spectra import singular_values as singular_values
    from convkit.spectra import spectrum as spectrum
    from convkit.spectra import symbol as symbol

__getattr__, __dir__, __all__ = face(__name__)
