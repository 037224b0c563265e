"""Pieces of work side by side on the cores of the CPU, one thread each."""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORK = 1e6  # operations (matrices x side^3) of a piece at least: smaller ones cost more than a second worker brings


PIECES = 8  # for each worker at most


Run = Callable[[Callable[[Tensor], Any], Tensor, int, float], list[Any]]


@contextlib.contextmanager
def workers(device: torch.device) -> Iterator[Run]:
    """A function ``run(work, indices, at_most, operations)`` that lists what ``work`` makes of pieces of ``indices``.

    On the CPU pieces run side by side, as many as torch has threads, each on one thread. Small decompositions gain
    nothing from threads of their own, and several threads inside several workers get into each other's way; so torch
    has one thread for the caller meanwhile, and, where threadpoolctl is installed, NumPy's BLAS. Other threads keep
    those that torch gives them; NumPy's BLAS knows only one number for the process. On a GPU, or for few operations in
    all, one piece follows the other. ``at_most`` is the size of a piece that memory allows.
    """
    threads = torch.get_num_threads()

    def in_turn(work: Callable[[Tensor], Any], indices: Tensor, at_most: int, operations: float) -> list[Any]:
        return [work(some) for some in indices.split(at_most)]

    if device.type != "cpu" or threads == 1:
        yield in_turn
        return

    def side_by_side(work: Callable[[Tensor], Any], indices: Tensor, at_most: int, operations: float) -> list[Any]:
        pieces = min(PIECES * threads, int(operations / WORK))  # so many that all workers end at about the same time
        if pieces < 2:
            return in_turn(work, indices, at_most, operations)
        share = len(indices) // pieces + 1
        with ThreadPoolExecutor(threads, initializer=_set_own_threads, initargs=(1,)) as pool:
            return list(pool.map(work, indices.split(min(share, at_most))))

    with _blas_on_one_thread():
        _set_own_threads(1)
        try:
            yield side_by_side
        finally:
            _set_own_threads(threads)


def _set_own_threads(number: int) -> None:
    """As ``torch.set_num_threads``, which also sets what threads get that begin later; this is for the caller alone."""
    torch.get_num_threads()  # what a thread begins with, it has then
    for set_number in _setters():
        set_number(number)
    if torch.get_num_threads() != number:  # a torch whose own libraries are not found
        torch.set_num_threads(number)


@functools.cache
def _setters() -> list[Callable[[int], Any]]:
    """What sets the number of threads for the calling thread in the libraries that torch computes with."""
    found = []
    own = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    for library, name in ((None, "omp_set_num_threads"), (str(own), "MKL_Set_Num_Threads_Local")):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            found.append(getattr(ctypes.CDLL(library), name))
    return found


_counting = threading.Lock()


_users = 0


_before: list[tuple[Any, int]] = []  # the BLAS libraries, and their numbers of threads


@contextlib.contextmanager
def _blas_on_one_thread() -> Iterator[None]:
    """From when the first caller comes until the last one goes."""
    global _users, _before
    with _counting:
        _users += 1
        if _users == 1:
            _before = [(library, library.num_threads) for library in _blas()]
            for library, _ in _before:
                _set_blas(library, 1)
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            if _users == 0:
                for library, number in _before:
                    _set_blas(library, number)


def _set_blas(library: Any, number: int) -> None:
    """threadpoolctl lets only one thread set the number at a time, and the last to go may be another."""
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


@functools.cache
def _blas() -> list[Any]:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers
