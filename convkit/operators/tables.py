"""Small tables of numbers (frequencies, places, cases) on the device of the tensors that they are used with."""

import functools

import torch
from torch import Tensor


def on(table: Tensor, like: Tensor) -> Tensor:
    """Return a table, which lies on the CPU, on the device of ``like``; it must not be changed.

    A GPU keeps the last tables that it got: a copy from the host's memory would wait for all that runs there.
    """
    if not like.is_cuda or table.is_cuda or table.numel() == 0:
        return table.to(like.device)
    return _kept(table.numpy().tobytes(), table.dtype, tuple(table.shape), like.device)


@functools.lru_cache(maxsize=512)
@torch.inference_mode(False)  # tables made there could not be used in training
def _kept(numbers: bytes, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(shape).to(device)
