"""Batch-independent normalization: layers, weight parametrizations, and a converter for existing networks."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.normalization.conversion import Conversion as Conversion
    from convkit.normalization.conversion import convert as convert
    from convkit.normalization.convnorm import ConvNorm2d as ConvNorm2d
    from convkit.normalization.layer_polar import LayerPolar2d as LayerPolar2d
    from convkit.normalization.noisy_affine import NoisyAffine as NoisyAffine
    from convkit.normalization.operator_norm import OperatorNorm as OperatorNorm
    from convkit.normalization.weights import CenteredWeightNorm as CenteredWeightNorm
    from convkit.normalization.weights import NewtonOrthogonal as NewtonOrthogonal
    from convkit.normalization.weights import WeightStandardization as WeightStandardization
    from convkit.normalization.weights import parametrized as parametrized

__getattr__, __dir__, __all__ = face(__name__)
