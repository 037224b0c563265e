"""The records that define a training method: `Method`, `Knob` and the protocols of a method's functions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from convkit.checks import described, number, plain, whole
from convkit.constraints.handle import Handle
from convkit.models.activations import MakeActivation
from convkit.models.layers import LayerFactory

Shapes = Mapping[str, tuple[int, ...]]  # input shape (channels, height, width) of each layer, by name
KnobValue = float | str  # truth values and whole numbers are floats to a type checker
Settings = Mapping[str, KnobValue]  # the values of all knobs of a method


class MakeLayer(Protocol):
    """Return the layer factory of a method for these knobs."""

    def __call__(self, knobs: Settings, /) -> LayerFactory: ...


class ReadKnobs(Protocol):
    """Return the knobs that shaped a network, read from its layers."""

    def __call__(self, model: nn.Module, /) -> Settings: ...


class Finish(Protocol):
    """Change a new network where its layers depend on the shapes of their inputs; ``x`` is a batch of images."""

    def __call__(self, model: nn.Module, shapes: Shapes, x: Tensor, knobs: Settings, /) -> None: ...


class MakeOptimizer(Protocol):
    """Return the optimizer of a network's parameters, whose groups have a learning rate and a weight decay."""

    def __call__(self, model: nn.Module, shapes: Shapes, knobs: Settings, /) -> Optimizer: ...


class Constrain(Protocol):
    """Attach a constraint to the optimizer and return its handle; ``None`` if there is nothing to constrain."""

    def __call__(self, optimizer: Optimizer, model: nn.Module, shapes: Shapes, knobs: Settings, /) -> Handle | None: ...


class Steer(Protocol):
    """Write the knobs that live in a network's layers into them."""

    def __call__(self, model: nn.Module, knobs: Settings, /) -> None: ...


class Penalty(Protocol):
    """Return the term, a scalar with a gradient, that a method adds to the loss."""

    def __call__(self, model: nn.Module, shapes: Shapes, knobs: Settings, /) -> Tensor: ...


class Unsettles(Protocol):
    """Return whether the constraint changed the weights so much at this step that BatchNorm must be recalibrated."""

    def __call__(self, step: int, knobs: Settings, /) -> bool: ...


@dataclass(frozen=True)
class Knob:
    """One setting of a method: a number within limits, or one of several choices.

    Args:
        default: The value unless another is given. A knob whose default is an ``int`` takes whole numbers only.
        words: The label that panels and tables show.
        low, high: The limits of a number, both included.
        choices: The possible values; empty for a number.
        options: Words for the choices, in their order, where the values themselves say too little.
        live: Whether the value may change while a network trains.
    """

    default: KnobValue
    words: str
    low: float = 0.0
    high: float = math.inf
    choices: tuple[KnobValue, ...] = ()
    live: bool = True
    options: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> KnobValue:
        """Return the value as plain Python; raise ``ValueError`` if it is not one that the knob can have."""
        if self.choices:
            found = plain(value)
            chosen = [choice for choice in self.choices if choice == found]
            if not chosen:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, self.choices))}, got {described(value)}")
            return chosen[0]
        return (whole if isinstance(self.default, int) else number)(name, value, self.low, self.high)


@dataclass(frozen=True)
class Method:
    """One training method: its layers, its constraint on the optimizer, its penalty on the loss, and its knobs.

    Args:
        name: The name in ``METHODS``.
        words: The name in words, which panels and tables show.
        source: The paper that proposed the method, or its letter (see ``METHODS``).
        layer: Returns the layer factory for the knobs.
        knobs: The settings by name, with the defaults of the kit (see ``METHODS``).
        layers: Classes of modules, besides convolutions, that every network of the method has. By them ``fit`` tells
            the networks of one method from those of another.
        optional: Classes of modules that a network has only where the knob of that name is True.
        read: Returns the other knobs that shaped a network, read from its layers.
        activation: Makes the activations of its networks in place of ``nn.ReLU``; ``None`` for ReLU.
        finish: Changes a new network where its layers depend on the shapes of their inputs.
        optimizer: Makes the optimizer; ``None`` for SGD with momentum.
        constrain: Attaches the constraint to the optimizer. At each step its handle gets the knobs that it declares
            live.
        steer: Writes, at each step, the other knobs that live in the network's layers.
        penalty: Returns the term that is added to the loss.
        unsettles: Returns whether BatchNorm's running statistics must be computed anew after this step, since the
            constraint changed the weights too much for the old ones.
    """

    name: str
    words: str
    source: str
    layer: MakeLayer
    knobs: Mapping[str, Knob]
    layers: tuple[type[nn.Module], ...] = ()
    optional: Mapping[str, type[nn.Module]] = field(default_factory=dict)
    read: ReadKnobs | None = None
    activation: MakeActivation | None = None
    finish: Finish | None = None
    optimizer: MakeOptimizer | None = None
    constrain: Constrain | None = None
    steer: Steer | None = None
    penalty: Penalty | None = None
    unsettles: Unsettles | None = None
    short: str = ""

    @property
    def label(self) -> str:
        """Return the name in letters, where there are some, and in words."""
        return f"{self.short}: {self.words}" if self.short else self.words

    def settings(self, knobs: Mapping[str, object] | None = None) -> dict[str, KnobValue]:
        """Return the values of all knobs: those of ``knobs``, and the defaults for the others.

        Raises ``ValueError`` for a knob that the method does not have and for a value that a knob cannot have.
        """
        knobs = dict(knobs or {})
        for name in knobs:
            if name not in self.knobs:
                raise ValueError(f"{self.name} has no knob {name!r}; it has {', '.join(self.knobs)}")
        return {name: knob.check(name, knobs.get(name, knob.default)) for name, knob in self.knobs.items()}
