"""Convolutions as linear maps: `ConvOperator`, the operators of a network's layers, and dense circulant matrices."""

from typing import TYPE_CHECKING

from convkit.loading import face

if TYPE_CHECKING:
    from convkit.operators.circulants import circulant as circulant
    from convkit.operators.circulants import doubly_block_circulant as doubly_block_circulant
    from convkit.operators.geometry import NoFourierBlocks as NoFourierBlocks
    from convkit.operators.layers import HasOperator as HasOperator
    from convkit.operators.network import conv_operators as conv_operators
    from convkit.operators.network import input_shapes as input_shapes
    from convkit.operators.operator import ConvOperator as ConvOperator

__getattr__, __dir__, __all__ = face(__name__)
