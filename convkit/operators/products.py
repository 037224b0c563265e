"""Which weights meet the data that run through a network, and in which of torch's functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convkit.operators.trees import leaves

ADDED = {"addmm", "baddbmm", "addbmm", "addmv"}  # to their first argument
MATRICES = {"mm", "bmm", "mv", "dot", "matmul", "einsum", "linear", "convolution", *ADDED}
GAINS = {"mul", "div", "addcmul", "addcdiv"}  # number by number
TABLES = {  # a weight is added, put beside the data, looked up in, or scales what a normalization has made
    *("cat", "stack", "copy", "index", "index_select", "gather", "embedding", "_embedding_bag", "masked_scatter"),
    *("index_put", "scatter", "scatter_add", "index_add", "index_copy", "slice_scatter", "select_scatter"),
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"),
    *("layer_norm", "group_norm", "batch_norm", "rms_norm", "_fused_rms_norm", "cudnn_batch_norm", "_prelu_kernel"),
    *("_to_copy", "expand_as", "view_as", "reshape_as", "type_as"),
}
_ORIGIN = "_convkit_origin"  # attribute of a tensor: parameters that it was computed from, None for the network's input


class Products(TorchDispatchMode):
    """Notes which weights meet the data, below all of Python: in TorchScript and custom functions, too.

    What is computed from weights alone stands for these weights. A weight that is added to the data or looked up in
    does not count, nor do gains of one number per channel.

    Attributes:
        function: Name of torch's function that runs, ``""`` where the caller does not know.
        where: Names of the modules that run, the innermost last.
        quiet: Whether what runs is known already; then nothing is noted.
        met: By place of a weight: the functions in which it multiplied the data.
        matrices: Places of the weights that did so as a matrix or vector, not number by number.
        used: Places of the weights that any operation has read.
        fixed: Modules, and functions in them that multiplied the data by a matrix that is no weight.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.function, self.quiet, self.where = "", False, [""]
        self.met: dict[int, set[str]] = {}
        self.matrices: set[int] = set()
        self.used: set[int] = set()
        self.fixed: dict[tuple[str, str], None] = {}  # in order, each once
        self._filled: dict[int, Tensor] = {}  # by place: constants into which data were written
        self._paused = False
        for weight in model.parameters():
            setattr(weight, _ORIGIN, frozenset({place(weight)}))
        setattr(x, _ORIGIN, None)

    def origin(self, t: Tensor) -> frozenset[int] | None:
        """Return the places of the weights that a tensor was computed from, ``None`` if it depends on the input."""
        return None if place(t) in self._filled else getattr(t, _ORIGIN, frozenset())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager in which nothing is noted."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler at the first operation, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self._paused:
            return out
        name = func.overloadpacket.__name__
        factors = args[:3] if "dot_product" in name else args[1:] if name in ADDED else args  # not what is added
        origins = [(t, self.origin(t)) for t in leaves((args, kwargs), Tensor)]
        sources = frozenset[int]().union(*(origin for _, origin in origins if origin))
        self.used |= sources
        made = name.startswith("new_") or name.endswith("_like")  # of the same size, with numbers of its own
        depends = not made and any(origin is None for _, origin in origins)
        if depends and not self.quiet:
            for t in leaves(factors, Tensor):
                self._note(func, name.strip("_") if name.endswith("_") else name, t)
        for t in leaves(out, Tensor):
            if depends and any(t is known and origin is not None for known, origin in origins):
                self._filled[place(t)] = t  # perhaps a view of what is read later
            setattr(t, _ORIGIN, None if depends else sources)
        return out

    def _note(self, func: Any, name: str, t: Tensor) -> None:
        origin = self.origin(t)
        wide = sum(n > 1 and stride > 0 for n, stride in zip(t.shape, _strides(t), strict=True)) > 1
        if origin:
            product = name in GAINS and wide if torch.Tag.pointwise in func.tags else name not in TABLES
            for source in origin if product else ():
                self.met.setdefault(source, set()).add(self.function or name)
            self.matrices |= origin if name in MATRICES else set()
        elif origin is not None and wide and name in MATRICES:
            self.fixed[self.where[-1], self.function or name] = None


def place(weight: Tensor) -> int:
    """Return the address of the memory that holds a weight, the same for all parts of one tensor."""
    try:
        return weight.untyped_storage().data_ptr() or id(weight)
    except (NotImplementedError, RuntimeError):  # sparse
        return id(weight)


# ---- private -------------------------------------------------------------------------------------------------------
def _strides(t: Tensor) -> tuple[int, ...]:
    return t.stride() if t.layout is torch.strided else (1,) * t.ndim
