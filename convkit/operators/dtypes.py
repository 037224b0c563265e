"""The floating-point dtype of networks: chosen when layers are made, read from the weights when images come in."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from convkit.checks import described

P = ParamSpec("P")
R = TypeVar("R")
HALF = (torch.float16, torch.bfloat16)
_MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn, torch.linspace})


class HasKernel(Protocol):
    """What has a kernel: an operator."""

    @property
    def kernel(self) -> Tensor: ...


Kernel = TypeVar("Kernel", bound=HasKernel)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Context manager in which layers are made and drawn in ``dtype``, whatever torch's default dtype is.

    New tensors for which no dtype is named get this one. It holds in the thread that enters it, whereas
    ``torch.set_default_dtype`` is for every thread of the process.
    """
    with _DefaultDtype(dtype):
        yield


def floating(dtype: object) -> torch.dtype:
    """Return the dtype; raise ``ValueError`` unless it is one of torch's real floating-point dtypes."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(
            f"dtype must be a floating-point dtype of torch, got {described(dtype)}; torch.float32 is usual"
        )
    return dtype


def input_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the dtype of the images that a network takes: that of its first floating-point parameter, else buffer.

    ``None`` for a network that has neither.
    """
    return next((t.dtype for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()), None)


def as_input(model: nn.Module, x: Tensor) -> Tensor:
    """Return the images in the dtype that the network takes; whole numbers, such as the indices of words, stay."""
    return x.to(input_dtype(model) or x.dtype) if x.is_floating_point() else x


def in_full_precision(function: Callable[Concatenate[Kernel, P], R]) -> Callable[Concatenate[Kernel, P], R]:
    """Make a function of an operator compute the same inside ``torch.autocast`` as outside."""

    @functools.wraps(function)
    def outside(A: Kernel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        kind = A.kernel.device.type
        if not torch.is_autocast_enabled(kind):
            return function(A, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(A, *args, **kwargs)

    return outside


def autocasts(x: Tensor) -> bool:
    """Return whether autocast is on where the tensor lies; the meta device has none."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context manager that turns autocast off where the tensor lies."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def differentiated(x: Tensor) -> bool:
    """Return whether derivatives by x are asked for, in reverse or in forward mode."""
    return x.requires_grad or forward_ad.unpack_dual(x).tangent is not None


def widened(weight: Tensor) -> Tensor:
    """Return a weight in half precision in float32, with its gradient, and any other as it is."""
    return weight.float() if weight.dtype in HALF else weight


# ---- private ---------------------------------------------------------------------------------------------------------
class _DefaultDtype(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS and kwargs.get("dtype") is None and kwargs.get("out") is None:
            kwargs = {**kwargs, "dtype": self.dtype}
        return func(*args, **kwargs)


def check_loaded(model: nn.Module) -> None:
    """Raise ``ValueError`` for a network some of whose weights are on the meta device."""
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("needed a network whose weights have their numbers, got some on the meta device; load them")
