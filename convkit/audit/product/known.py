"""What is known of one tensor of a network, as a function of the input."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convkit.normalization.folding import with_gain
from convkit.operators.operator import ConvOperator

CONVERGED = 1e-9  # relative: what a norm that was converged to tolerance may lack
ROUNDING = 1e-12  # relative: what sums in float64 may lack


class Linear:
    """The map that gave a tensor, up to a constant: an operator on a tensor of which a Lipschitz bound is known.

    Its norm is computed when it is needed, since a BatchNorm behind it may need that of the folded kernel alone.
    """

    def __init__(self, slope: float, A: ConvOperator, axis: int, norm: Callable[[ConvOperator], float]) -> None:
        self.source, self.A, self.norm = slope, A, norm
        self.axis = axis  # of the tensor, along which the output channels lie

    @functools.cached_property
    def slope(self) -> float:
        return self.source * self.norm(self.A) if self.source else 0.0

    def with_gain(self, gain: Tensor) -> "Linear":
        """Return the map with the output channels multiplied by ``gain``."""
        return Linear(self.source, with_gain(self.A, gain), self.axis, self.norm)


@dataclass(frozen=True, eq=False)
class Padded:
    """What was padded with zeros: its Lipschitz bound, its size, and the pads ``(before, after)`` of each axis."""

    slope: float
    size: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


class Bound:
    """What is known of a tensor as a function of the network's input.

    Attributes:
        slope: Its Lipschitz constant is at most this; infinite where none is known, and ``why`` says why.
        low, high: Its entries lie between, for all inputs of the domain; ``None`` where nothing is known.
        root: The Lipschitz constant of its square root is at most this, where it is a sum of squares.
        row, column: The 2-norm of its entries along the last axis, and along the last but one, is at most this.
        linear, padded: How it was made, where a later step can make use of it.
        sorted_of: What it holds the extremes of, and which: the two are parts of one sorted tensor.
    """

    def __init__(
        self,
        slope: float | None,
        low: Tensor | None = None,
        high: Tensor | None = None,
        why: str = "",
        root: float = math.inf,
        linear: Linear | None = None,
        padded: Padded | None = None,
        sorted_of: tuple[Any, str] | None = None,
        row: float = math.inf,
        column: float = math.inf,
    ) -> None:
        self._slope, self.why, self.root, self.linear, self.padded = slope, why, root, linear, padded
        self.sorted_of, self.row, self.column = sorted_of, row, column
        self.low = self.high = None
        if low is not None and high is not None:
            self.low = torch.where(low.isnan(), -math.inf, low)
            self.high = torch.where(high.isnan(), math.inf, high)
            if (self.low == -math.inf).all() and (self.high == math.inf).all():
                self.low = self.high = None

    @property
    def slope(self) -> float:
        if self._slope is None:
            assert self.linear is not None
            return self.linear.slope
        return self._slope

    @property
    def unbounded(self) -> bool:
        """Return whether no Lipschitz bound is known."""
        return math.inf in (self._slope, self.linear and self.linear.source)

    @property
    def size(self) -> Tensor | None:
        """Return the largest absolute value of each entry."""
        if self.low is None or self.high is None:
            return None
        return torch.maximum(self.low.abs(), self.high.abs()) * (1 + CONVERGED)

    def times(self, factor: float) -> float:
        """Return the slope times a factor, where nothing times infinity is nothing."""
        return self.slope * factor if self.slope and factor else 0.0
