"""Seeded use of torch's global random number generators, which all threads of a process share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_turn, _queue = threading.Lock(), threading.Lock()  # one block of ``seeded`` at a time, in the order of asking
_switch = threading.Lock()  # held for moments, while no code of a caller runs
_owner: int | None = None  # the thread whose block it is
_outside: dict[torch.device, torch.Generator] = {}  # where the global generators are meanwhile for all other threads


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Context manager in which this thread's random numbers follow from ``seed``; the generators are restored after it.

    It seeds the generator of the CPU and, if ``device`` is a GPU, that of the GPU. Only one thread at a time is inside;
    others wait. What other threads draw meanwhile inside of ``drawing`` continues from the state before, and does not
    change what is drawn here.
    """
    global _owner, _outside
    generators = {torch.device("cpu"): torch.default_generator}
    if device is not None and device.type in ("cuda", "xpu", "mps"):
        device = torch.device(device.type, device.index or 0)  # as tensors on it call it
        generators[device] = _generator_of(device)
    if _owner == threading.get_ident():  # a block inside a block: nobody else has a say in the generators
        states = [one.get_state() for one in generators.values()]
        try:
            torch.manual_seed(seed)
            yield
        finally:
            for one, state in zip(generators.values(), states, strict=True):
                one.set_state(state)
        return
    with _queue:
        _turn.acquire()
    try:
        with _switch:
            _outside = {
                where: torch.Generator(one.device).set_state(one.get_state()) for where, one in generators.items()
            }
            _owner = threading.get_ident()
            torch.manual_seed(seed)
        try:
            yield
        finally:
            with _switch:
                for where, one in generators.items():
                    one.set_state(_outside[where].get_state())
                _owner, _outside = None, {}
    finally:
        _turn.release()


def _generator_of(device: torch.device) -> torch.Generator:
    """Return the global generator of a GPU."""
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    module: Any = torch.get_device_module(device)
    module.init()
    return module.default_generators[device.index]


@contextmanager
def drawing(device: torch.device) -> Iterator[torch.Generator | None]:
    """Context manager that yields the generator for one random draw on a device; ``None`` is the global one.

    While another thread is inside of ``seeded``, it is a generator that continues from the state before.
    """
    with _switch:
        yield None if _owner in (None, threading.get_ident()) else _outside.get(device)
