"""What a way of training is: its layers, its constraints, its penalty, its knobs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convkit.checks import number, plain, said, whole
from convkit.constraints.handle import Handle

Shapes = dict[str, tuple[int, ...]]
Layer = Callable[..., nn.Module]  # (c_in, c_out, kernel_size, stride, padding, dilation, groups, depth)
Settings = Mapping[str, Any]  # all knobs of a method
Layers = Callable[[Settings], Layer]
Constrain = Callable[[torch.optim.Optimizer, nn.Module, Shapes, Settings], Handle | None]


@dataclass(frozen=True)
class Knob:
    """A number (or one of ``choices``) that a method can be set by; ``live`` ones may change while it trains.

    A knob whose default is an ``int`` takes whole numbers only.
    """

    default: Any
    words: str
    low: float = 0.0
    high: float = math.inf
    choices: tuple[Any, ...] = ()
    live: bool = True

    def check(self, name: str, value: Any) -> Any:
        """The value as plain Python, or a ``ValueError`` that says what is possible."""
        if self.choices:
            found = plain(value)
            chosen = [choice for choice in self.choices if choice == found]
            if not chosen:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, self.choices))}, got {said(value)}")
            return chosen[0]
        return (whole if isinstance(self.default, int) else number)(name, value, self.low, self.high)


@dataclass(frozen=True)
class Method:
    """One way to train: what its layers are, what acts on the optimizer, what is added to the loss.

    - ``layer(knobs)`` is the layer factory.
    - ``knobs`` holds the kit's defaults (see ``METHODS``).
    - ``layers`` are the classes of modules that the method puts into a network, besides convolutions. By them ``fit``
      sees that a network is one of this method, and not of another.
    - ``optional`` has those that are there only where a knob is True, by that knob.
    - ``read(model)`` returns the other knobs that shaped a network, read from its layers.
    - ``finish(model, shapes, knobs)`` changes the finished network where layers need the sizes of their inputs.
    - ``constrain(optimizer, model, shapes, knobs)`` returns the hook's handle. At each step it gets the knobs that it
      declares live.
    - ``steer(model, knobs)`` sets, at each step, what else of the knobs lives in the network.
    - ``penalty(model, shapes, knobs)`` is added to the loss.
    - ``unsettles(step, knobs)`` says whether the constraint changed the weights so much at this step that BatchNorm's
      running statistics have to be taken anew.
    """

    name: str
    words: str
    source: str
    layer: Layers
    knobs: Mapping[str, Knob]
    layers: tuple[type[nn.Module], ...] = ()
    optional: Mapping[str, type[nn.Module]] = field(default_factory=dict)
    read: Callable[[nn.Module], Mapping[str, Any]] | None = None
    finish: Callable[[nn.Module, Shapes, Settings], None] | None = None
    constrain: Constrain | None = None
    steer: Callable[[nn.Module, Settings], None] | None = None
    penalty: Callable[[nn.Module, Shapes, Settings], Tensor] | None = None
    unsettles: Callable[[int, Settings], bool] | None = None

    def settings(self, knobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All knobs: the method's defaults, and the given ones in their place; ``ValueError`` for what it cannot be."""
        knobs = dict(knobs or {})
        for name in knobs:
            if name not in self.knobs:
                raise ValueError(f"{self.name} has no knob {name!r}; it has {', '.join(self.knobs)}")
        return {name: knob.check(name, knobs.get(name, knob.default)) for name, knob in self.knobs.items()}
