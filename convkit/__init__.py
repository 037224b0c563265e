"""Learn, check and use the spectral theory of convolutional networks."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "operators": ("ConvOperator", "conv_operators", "input_shapes"),
    "spectra": (
        "channel_condition_numbers",
        "condition_number",
        "from_symbol",
        "leading_singular_values",
        "singular_values",
        "spectrum",
        "symbol",
    ),
    "norms": ("certify", "operator_norm", "power_iteration"),
    "bounds": (
        "flattened_bound",
        "flattened_norm",
        "frobenius_bound",
        "gram_iteration_bound",
        "grid_bound",
        "holder_bound",
        "reshaped_bound",
        "torus_bound",
    ),
    "projections": (
        "alternating_projections",
        "clip_and_crop",
        "clip_reshaped_kernel",
        "clip_singular_values",
        "dykstra",
        "project_centered_sphere",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [
    "ConvOperator",
    "__version__",
    "alternating_projections",
    "certify",
    "channel_condition_numbers",
    "clip_and_crop",
    "clip_reshaped_kernel",
    "clip_singular_values",
    "condition_number",
    "conv_operators",
    "dykstra",
    "flattened_bound",
    "flattened_norm",
    "frobenius_bound",
    "from_symbol",
    "gram_iteration_bound",
    "grid_bound",
    "holder_bound",
    "input_shapes",
    "leading_singular_values",
    "operator_norm",
    "power_iteration",
    "project_centered_sphere",
    "reshaped_bound",
    "singular_values",
    "spectrum",
    "symbol",
    "torus_bound",
]

if TYPE_CHECKING:  # editors read this; at run time a name is loaded on first use, so that the bootstrap needs no torch
    from convkit.bounds import (
        flattened_bound,
        flattened_norm,
        frobenius_bound,
        gram_iteration_bound,
        grid_bound,
        holder_bound,
        reshaped_bound,
        torus_bound,
    )
    from convkit.norms import certify, operator_norm, power_iteration
    from convkit.operators import ConvOperator, conv_operators, input_shapes
    from convkit.projections import (
        alternating_projections,
        clip_and_crop,
        clip_reshaped_kernel,
        clip_singular_values,
        dykstra,
        project_centered_sphere,
    )
    from convkit.spectra import (
        channel_condition_numbers,
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
