"""Checkpoints: written whole or not at all, read without running code, checked before anything is loaded."""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Tensors, numbers and words in dicts and lists, with a digest of all of them; replaces the file in one step."""
    path = Path(path)
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
    """What ``save_checkpoint`` wrote, on the CPU; ``ValueError`` for a file that is cut off, changed or foreign."""
    Path(path).open("rb").close()  # a file that is missing or may not be read is said by the system
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        state, digest = whole["state"], whole["digest"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"needed a checkpoint of the kit, got {path}, which cannot be read as one ({type(error).__name__}); it is "
            "left as it is: take a copy of it, or another name"
        ) from error
    if digest != _digest(state):
        raise ValueError(
            f"the checkpoint {path} is not what was saved: its digest does not fit; take a copy of it, or another name"
        )
    return state


def _digest(state: Any) -> str:
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                digest.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
        digest.update(b";")

    add(state)
    return digest.hexdigest()
