"""The numbers that describe a convolution, checked where they enter."""

from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from convkit.checks import plain


def check_kernel(kernel: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless this is a finite real kernel ``(c_out, c_in // groups, *size)``."""
    if not isinstance(kernel, Tensor):
        raise TypeError(f"kernel must be a torch tensor, got {type(kernel).__name__}; use torch.as_tensor(kernel)")
    if is_lazy(kernel):
        raise ValueError("kernel must have its numbers, got a lazy parameter; run the network once first")
    if kernel.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"kernel must be float32 or float64, got {kernel.dtype}; use kernel.double(), or for a complex kernel "
            "treat its real and imaginary parts as channels"
        )
    if not 3 <= kernel.ndim <= 5 or 0 in kernel.shape:
        raise ValueError(
            "kernel must have shape (c_out, c_in // groups, *kernel_size) with 1, 2 or 3 spatial axes and no axis "
            f"of size 0, got {tuple(kernel.shape)}; one filter of one channel is kernel[None, None]"
        )
    if not kernel.isfinite().all():
        bad = int((~kernel.isfinite()).sum())
        raise ValueError(f"kernel must be finite, got {bad} NaN or infinite entries; look for where training diverged")


def positive_ints(value: Any, axes: int, name: str) -> tuple[int, ...]:
    """An int or a sequence of ints as one positive int an axis; ``ValueError`` or ``TypeError`` otherwise."""
    numbers = _ints(value, axes, name)
    if min(numbers) < 1:
        raise ValueError(f"{name} must be positive, got {value}; every axis needs at least 1")
    return numbers


def padding_pairs(padding: Any, axes: int) -> Any:
    """``"same"`` as it is, every other padding as pairs ``(before, after)``, one an axis."""
    if padding == "same":
        return padding
    if isinstance(padding, str) and padding != "valid":
        raise ValueError(
            f"padding must be 'same', 'valid' or numbers of pixels, got {padding!r}; for all overlaps give k - 1"
        )
    if padding == "valid":
        padding = 0
    if isinstance(padding, Sequence) and any(isinstance(side, Sequence) for side in padding):
        if len(padding) != axes or any(not isinstance(side, Sequence) for side in padding):
            raise ValueError(
                f"padding must give one pair (before, after) for each of {axes} axes, got {padding}; "
                "or ints alone, one an axis"
            )
        pairs = tuple(_ints(side, 2, "padding") for side in padding)
    else:
        pairs = tuple((amount, amount) for amount in _ints(padding, axes, "padding"))
    if min(map(min, pairs)) < 0:
        raise ValueError(f"padding must not be negative, got {padding}; crop the input instead")
    return pairs


def positive_groups(groups: Any, kernel: Tensor) -> int:
    """``groups`` as an int that divides the kernel's output channels."""
    (number,) = positive_ints(groups, 1, "groups")
    if kernel.shape[0] % number:
        raise ValueError(
            f"groups must divide the output channels, got groups={number} and a kernel of shape "
            f"{tuple(kernel.shape)}; the kernel's shape is (c_out, c_in // groups, *kernel_size)"
        )
    return number


def check_padding_mode(padding_mode: Any) -> None:
    """Raise ``ValueError`` unless the boundary is one that the theory covers."""
    if padding_mode not in ("circular", "zeros"):
        raise ValueError(
            f"padding_mode must be 'circular' or 'zeros', got {padding_mode!r}; take the one nearer to the layer"
        )


def check_batch(x: Any, shape: tuple[int, ...], kernel: Tensor) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless x is a non-empty batch of this shape, of the kernel's kind."""
    wanted = f"(batch, {', '.join(map(str, shape))})"
    if not isinstance(x, Tensor):
        raise TypeError(f"needed a tensor of shape {wanted}, got {type(x).__name__}; use torch.as_tensor(x)")
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"needed a batch of shape {wanted}, got {tuple(x.shape)}; a single input needs x.unsqueeze(0), "
            "an input of another size another operator"
        )
    if len(x) == 0:
        raise ValueError(f"needed a batch of at least one input, got shape {tuple(x.shape)}; skip empty batches")
    if x.dtype != kernel.dtype or x.device != kernel.device:
        raise ValueError(
            f"needed an input of the kernel's dtype and device, {kernel.dtype} on {kernel.device}, got {x.dtype} on "
            f"{x.device}; use x.to(A.kernel)"
        )


def _ints(value: Any, count: int, name: str) -> tuple[int, ...]:
    try:
        value = plain(value) if hasattr(value, "tolist") else value  # an array or a tensor of numbers
        values = list(value) if isinstance(value, Sequence) else [value] * count
        if any(isinstance(v, bool) for v in values):
            raise TypeError
        numbers = tuple(index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name} must be an int or a tuple of ints, got {value!r}; convert it by int()") from None
    if len(numbers) != count:
        raise ValueError(
            f"{name} must be one int or {count} of them, one an axis, got {value}; give one for each spatial axis"
        )
    return numbers
