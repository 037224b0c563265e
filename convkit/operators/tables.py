"""Small tables of numbers (frequencies, places, cases) on the device of the tensors that they are used with."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that caches the last ``most`` tables that a function makes.

    They are made outside of inference mode and of the transforms of ``torch.func``: tensors from inside could not be
    used in training, or after the transform.
    """

    def decorate(build: Callable[P, T]) -> Callable[P, T]:
        def outside(*args: P.args, **kwargs: P.kwargs) -> T:
            with torch._C._DisableFuncTorch(), torch.inference_mode(False):  # pyright: ignore
                return build(*args, **kwargs)

        return functools.wraps(build)(functools.lru_cache(maxsize=most)(outside))  # pyright: ignore

    return decorate


def on(table: Tensor, like: Tensor) -> Tensor:
    """Return a table, which lies on the CPU, on the device of ``like``; it must not be changed.

    A GPU keeps the last tables that it got: a copy from the host's memory would wait for all that runs there.
    """
    # made within a transform of torch.func, it shows no numbers
    inside = torch._C._functorch.is_functorch_wrapped_tensor(table)  # pyright: ignore
    if not like.is_cuda or table.is_cuda or table.numel() == 0 or inside:
        return table.to(like.device)
    with torch._C._DisableFuncTorch():  # pyright: ignore
        numbers = table.numpy().tobytes()
    return _kept(numbers, table.dtype, tuple(table.shape), like.device)


@kept(512)
def _kept(numbers: bytes, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(shape).to(device)
