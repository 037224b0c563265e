"""Learn, check and use the spectral theory of convolutional networks."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "operators": ("ConvOperator", "conv_operators", "input_shapes"),
    "spectra": (
        "condition_number",
        "from_symbol",
        "leading_singular_values",
        "singular_values",
        "spectrum",
        "symbol",
    ),
    "norms": ("operator_norm", "power_iteration"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "ConvOperator",
    "__version__",
    "condition_number",
    "conv_operators",
    "from_symbol",
    "input_shapes",
    "leading_singular_values",
    "operator_norm",
    "power_iteration",
    "singular_values",
    "spectrum",
    "symbol",
]

if TYPE_CHECKING:  # editors read this; at run time a name is loaded on first use, so that the bootstrap needs no torch
    from convkit.norms import operator_norm, power_iteration
    from convkit.operators import ConvOperator, conv_operators, input_shapes
    from convkit.spectra import (
        condition_number,
        from_symbol,
        leading_singular_values,
        singular_values,
        spectrum,
        symbol,
    )


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'convkit' has no attribute {name!r}")
    return getattr(import_module(f"convkit.{_HOME[name]}"), name)


def __dir__() -> "list[str]":  # quoted: an old Python must come as far as its one sentence
    return sorted({*globals(), *__all__})
