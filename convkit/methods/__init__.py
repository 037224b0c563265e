"""The ways of training that are compared: each one its layers, constraints, penalty and knobs, by name."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.methods.build import network as network
    from convkit.methods.method import Knob as Knob
    from convkit.methods.method import Method as Method
    from convkit.methods.registry import METHODS as METHODS
    from convkit.methods.registry import get_method as get_method

__getattr__, __dir__, __all__ = face(__name__)
