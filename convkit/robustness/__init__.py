"""Robustness of networks: Lipschitz constants and radii, and constructions that tell these notions apart."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.robustness.certificates import CertifiedAccuracy as CertifiedAccuracy
    from convkit.robustness.certificates import certified_accuracy as certified_accuracy
    from convkit.robustness.constructions import Separation as Separation
    from convkit.robustness.constructions import certify_balls as certify_balls
    from convkit.robustness.constructions import constant_network as constant_network
    from convkit.robustness.constructions import lipschitz_fit as lipschitz_fit
    from convkit.robustness.constructions import reciprocal_error as reciprocal_error
    from convkit.robustness.constructions import robust_network as robust_network
    from convkit.robustness.constructions import separation as separation
    from convkit.robustness.constructions import steep_robust_network as steep_robust_network
    from convkit.robustness.lipschitz import certified_radius as certified_radius
    from convkit.robustness.lipschitz import empirical_radius as empirical_radius
    from convkit.robustness.lipschitz import jacobian_norm as jacobian_norm
    from convkit.robustness.lipschitz import local_lipschitz as local_lipschitz
    from convkit.robustness.lipschitz import margins as margins
    from convkit.robustness.ruling import Ruling as Ruling
    from convkit.robustness.ruling import referee as referee

__getattr__, __dir__, __all__ = face(__name__)
