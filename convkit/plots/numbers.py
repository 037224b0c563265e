"""The numbers that are drawn: tensors on any device, arrays and lists, as arrays of NumPy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def numbers(x: Any, dtype: Any = None) -> np.ndarray:
    """Return a tensor on any device, a list that may hold such tensors, or whatever else NumPy takes, as an array.

    Half precision becomes float32, which holds the same numbers; no gradient is kept.
    """
    return np.asarray(_on_host(x), dtype=dtype)


def _on_host(x: Any) -> Any:
    if isinstance(x, Tensor):
        x = x.detach().cpu().resolve_conj().resolve_neg()
        return (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()
    if isinstance(x, list | tuple) and any(isinstance(inner, Tensor | list | tuple) for inner in x):
        return [_on_host(inner) for inner in x]
    return x
