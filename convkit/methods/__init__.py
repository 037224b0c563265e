"""The training methods that are compared, by name: layers, constraints, penalties and knobs."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.methods.build import network as network
    from convkit.methods.method import Knob as Knob
    from convkit.methods.method import Method as Method
    from convkit.methods.method import Settings as Settings
    from convkit.methods.method import Shapes as Shapes
    from convkit.methods.pair import gan_pair as gan_pair
    from convkit.methods.registry import METHODS as METHODS
    from convkit.methods.registry import get_method as get_method

__getattr__, __dir__, __all__ = face(__name__)
