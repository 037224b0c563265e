"""Checkpoints: written atomically, read without running code, verified by a digest."""

import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, float, complex, str, bytearray, torch.Size, torch.dtype, torch.device)
_BITS = 2000  # torch reads back whole numbers of at most 255 bytes
_DEPTH = 100  # nesting of lists: pickle fails at some hundred
EXTRA = "_extra_state"  # ends torch's name for what a module's get_extra_state() returns


def save_checkpoint(path: str | Path, state: Mapping[str, object]) -> None:
    """Write a state with its digest to a file, which is replaced in one step.

    Args:
        path: The file; its folder is made if it is missing.
        state: Tensors, numbers and words in dicts and lists (see ``check_state``).

    Raises ``ValueError``, which names the place in ``state``, for what ``load_checkpoint`` could not restore; the file
    is then as before.
    """
    path = Path(path)
    state = state if type(state) in (dict, OrderedDict) else dict(state)
    check_state(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"state": state, "digest": _digest(state)}, file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the state that ``save_checkpoint`` wrote, with its tensors on the CPU.

    Raises ``OSError`` for a file that cannot be opened and ``ValueError`` for one that is truncated, changed or not a
    checkpoint.
    """
    Path(path).open("rb").close()  # the system's error for a file that is missing or cannot be read
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        state, digest = whole["state"], whole["digest"]
        right = digest == _digest(state)
    except Exception as error:  # whatever torch meets in a damaged or foreign file
        raise ValueError(
            f"needed a checkpoint of the kit, got {path}, which cannot be read as one ({type(error).__name__}); it is "
            "left as it is: take a copy of it, or another name"
        ) from error
    if not right:
        raise ValueError(
            f"the checkpoint {path} is not what was saved: its digest does not fit; take a copy of it, or another name"
        )
    return state


def check_state(state: Mapping[str, object]) -> None:
    """Raise ``ValueError``, which names the place, for a state that a checkpoint cannot hold.

    A checkpoint holds dense and COO tensors and parameters of every dtype, ``None``, booleans, numbers, strings, bytes,
    ``torch.Size``, ``torch.dtype`` and ``torch.device``, in lists, tuples, sets, dicts and ``OrderedDict``. Subclasses
    (``np.float64``, named tuples) are refused, since reading them back would run their code. Nothing is copied.
    """
    for keys, what in _faults(state, (), ()):
        raise ValueError(
            f"{_place(keys)}: {what}, which a checkpoint cannot hold: it is read without running pickled code, and so "
            "holds plain Python numbers and words, lists, dicts and dense tensors; convert it, as NumPy's by .tolist()"
        )


def check_place(path: str | Path) -> None:
    """Make the folder of a file that will be written later; raise ``OSError`` if nothing can be written there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    os.unlink(temporary)


def check_resumable(model: nn.Module, objective: object) -> None:
    """Raise ``ValueError`` for a network or an objective whose state a checkpoint could not hold or restore."""
    for name, module in model.named_modules():
        kind = type(module)
        own = kind.get_extra_state is not nn.Module.get_extra_state
        if own and kind.set_extra_state is nn.Module.set_extra_state:
            raise ValueError(
                f"{_place((f'{name}.{EXTRA}',))}: {kind.__name__} has get_extra_state but no set_extra_state, so that "
                "a checkpoint could not give it back; write that method, too"
            )
    if hasattr(objective, "state_dict") and not hasattr(objective, "load_state_dict"):
        raise ValueError(
            f"the objective {type(objective).__name__} has state_dict but no load_state_dict, so that a checkpoint "
            "could not give its state back; write that method, too"
        )
    check_state({"model": model.state_dict(), "objective": state_of(objective)})


def state_of(thing: object) -> dict[str, object]:
    """Return ``thing.state_dict()``; an empty dict for a thing without that method."""
    return getattr(thing, "state_dict", dict)()


# ---- what a checkpoint cannot hold -----------------------------------------------------------------------------------
def _faults(value: Any, keys: tuple[Any, ...], inside: tuple[int, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield what in ``value`` cannot be read back, as the keys that lead to it and what it is."""
    kind = type(value)
    if id(value) in inside:
        yield keys, "a list or dict that holds itself"
    elif len(inside) > _DEPTH:
        yield keys, f"lists or dicts in more than {_DEPTH} others"
    elif kind in (dict, OrderedDict):
        for key, inner in value.items():
            if isinstance(key, Tensor):
                yield keys, "a dict with a tensor as a key"
            yield from _faults(key, (*keys, key), (*inside, id(value)))
            yield from _faults(inner, (*keys, key), (*inside, id(value)))
        for name, inner in vars(value).items() if kind is OrderedDict else ():  # the _metadata of a state_dict
            yield from _faults(inner, (*keys, name), (*inside, id(value)))
    elif kind in (list, tuple, set):
        for number, inner in enumerate(value):
            yield from _faults(inner, (*keys, number), (*inside, id(value)))
    elif kind in (Tensor, nn.Parameter):
        if fault := _tensor_fault(value):
            yield keys, fault
        for name, inner in vars(value).items():
            yield from _faults(inner, (*keys, name), (*inside, id(value)))
    elif kind is int:
        if value.bit_length() > _BITS:
            yield keys, f"a whole number of more than {_BITS} bits"
    elif kind is bytes:
        if not value:
            yield keys, "empty bytes"
    elif kind not in _PLAIN:
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        yield keys, f"a value of type {module}{kind.__qualname__}"


def _tensor_fault(value: Tensor) -> str:
    """Return why a checkpoint cannot hold this tensor; ``""`` if it can."""
    if value.is_meta:
        return "a tensor on the meta device, without numbers"
    if value.is_quantized:
        return "a quantized tensor"
    if value.is_nested:
        return "a nested tensor"
    if value.layout not in (torch.strided, torch.sparse_coo):
        return f"a tensor of layout {value.layout}"
    if any(getattr(value, "names", ())):
        return "a tensor with named axes"
    return ""


def _place(keys: tuple[Any, ...]) -> str:
    """Return the place of a value as Python reaches it, ``model['conv.weight'][0]``; for extra state its layer."""
    for number, key in enumerate(keys):
        if isinstance(key, str) and key.rpartition(".")[2] == EXTRA:
            layer = key.rpartition(".")[0]
            rest = "".join(f"[{one!r}]" for one in keys[number + 1 :])
            return f"extra state of {f'layer {layer}' if layer else 'the network'}{rest and f', at {rest}'}"
    return f"{keys[0]}{''.join(f'[{one!r}]' for one in keys[1:])}" if keys else "the state"


# ---- digest ----------------------------------------------------------------------------------------------------------
def _digest(state: Any) -> str:
    """Return the SHA-256 sum of all keys, numbers and tensors of a state."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                digest.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        elif isinstance(value, set):
            add(sorted(value, key=repr))  # the order of a set of words differs from process to process
        elif isinstance(value, Tensor) and value.layout == torch.sparse_coo:
            add([str(value.dtype), list(value.shape), value._indices(), value._values()])
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            digest.update(dense.flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
        digest.update(b";")

    add(state)
    return digest.hexdigest()
