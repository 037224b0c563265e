"""A thread pool for many small decompositions on the CPU, with one thread of linear algebra per worker."""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

WORK = 1e6  # operations (matrices x side^3) of a piece at least: smaller ones cost more than a second worker brings
PIECES = 8  # for each worker at most
Result = TypeVar("Result")


class MapPieces(Protocol):
    """Split ``indices`` into pieces of at most ``largest``, apply ``work`` to each and return the results in order.

    ``operations`` is about how many operations all of it takes; it decides whether threads are worth their start.
    """

    def __call__(
        self, work: Callable[[Tensor], Result], indices: Tensor, largest: int, operations: float
    ) -> list[Result]: ...


@contextlib.contextmanager
def thread_pool(device: torch.device) -> Iterator[MapPieces]:
    """Yield ``map_pieces(work, indices, largest, operations)``, which applies ``work`` to pieces of ``indices``.

    On the CPU the pieces run in as many threads as torch has, each with one thread of linear algebra: small
    decompositions gain nothing from more, and threads inside threads get into each other's way. For the same reason
    torch uses one thread for the caller within the context, and so does NumPy's BLAS where threadpoolctl is installed.
    Other threads keep those that torch gives them; NumPy's BLAS knows only one number for the process. On a GPU, and
    for few operations, the pieces run one after the other.
    """
    threads = torch.get_num_threads()

    def in_turn(work: Callable[[Tensor], Result], indices: Tensor, largest: int, operations: float) -> list[Result]:
        return [work(piece) for piece in indices.split(largest)]

    if device.type != "cpu" or threads == 1:
        yield in_turn
        return

    def in_threads(work: Callable[[Tensor], Result], indices: Tensor, largest: int, operations: float) -> list[Result]:
        pieces = min(PIECES * threads, int(operations / WORK))  # so many that all workers end at about the same time
        if pieces < 2:
            return in_turn(work, indices, largest, operations)
        with ThreadPoolExecutor(threads, initializer=_set_threads_of_caller, initargs=(1,)) as pool:
            return list(pool.map(work, indices.split(min(len(indices) // pieces + 1, largest))))

    with _blas_on_one_thread():
        _set_threads_of_caller(1)
        try:
            yield in_threads
        finally:
            _set_threads_of_caller(threads)


def _set_threads_of_caller(number: int) -> None:
    """Set how many threads torch uses in the calling thread alone.

    ``torch.set_num_threads`` also sets the number of threads that start later.
    """
    torch.get_num_threads()  # gives this thread the default number, which would otherwise overwrite ours later
    for set_number in _setters():
        set_number(number)
    if torch.get_num_threads() != number:  # a torch whose own libraries are not found
        torch.set_num_threads(number)


@functools.cache
def _setters() -> list[Callable[[int], Any]]:
    """Return the functions of torch's libraries that set the number of threads for the calling thread."""
    found = []
    own = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    for library, name in ((None, "omp_set_num_threads"), (str(own), "MKL_Set_Num_Threads_Local")):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            found.append(getattr(ctypes.CDLL(library), name))
    return found


_lock = threading.Lock()  # guards the two numbers below
_contexts = 0  # how many callers are inside _blas_on_one_thread
_numbers: list[tuple[Any, int]] = []  # the BLAS libraries, and their numbers of threads before


@contextlib.contextmanager
def _blas_on_one_thread() -> Iterator[None]:
    """Context manager that keeps NumPy's BLAS on one thread until the last of all callers has left it."""
    global _contexts, _numbers
    with _lock:
        _contexts += 1
        if _contexts == 1:
            _numbers = [(library, library.num_threads) for library in _blas()]
            for library, _ in _numbers:
                _set_blas(library, 1)
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
            if _contexts == 0:
                for library, number in _numbers:
                    _set_blas(library, number)


def _set_blas(library: Any, number: int) -> None:
    """Set a BLAS library's number of threads, from whichever thread.

    threadpoolctl lets only the first thread that sets a number set it again, and the last one to leave may be another.
    """
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


@functools.cache
def _blas() -> list[Any]:
    """Return threadpoolctl's handles of the BLAS libraries of the process; none where it is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers
