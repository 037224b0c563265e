"""`sweep`: runs jobs in parallel and appends their results to a file; a restarted sweep skips finished jobs."""

import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import LifoQueue, SimpleQueue
from typing import Any, TypeVar

from convkit.checks import plain
from convkit.loading import progress_bar

Result = TypeVar("Result")
Job = Mapping[str, object]  # the arguments of one run: numbers, words, lists of them
DEATHS = {"KilledWorker", "TerminatedWorkerError"}  # of Dask and loky; the others are a BrokenExecutor


def sweep(
    function: Callable[..., Result],
    jobs: Mapping[str, Job],
    results_file: str | Path | None = None,
    executor: Executor | None = None,
    devices: Sequence[str] | None = None,
) -> dict[str, Result]:
    """Return ``{name: function(**job)}`` for all jobs, which run in parallel, with a progress bar.

    After an interruption, the same call with the same ``results_file`` runs only the missing jobs. With a file, jobs
    and results are what JSON can hold: NumPy numbers, arrays and tensors become plain numbers and lists, tuples become
    lists.

    Args:
        function: A function of a module, so that other processes can import it.
        jobs: The keyword arguments of each call, by a name.
        results_file: The file to which each result is appended when it arrives; ``None`` for none.
        executor: Runs the jobs and stays open: any ``concurrent.futures.Executor``, such as one of ``loky``, or
            ``client.get_executor()`` of ``dask.distributed`` for a cluster. ``None`` takes processes of its own.
        devices: The current device of each of these processes, ``"cpu"`` or such as ``"cuda:1"``, which is what
            ``"cuda"`` then means in its jobs: one process per GPU, or several. ``None`` takes one process per core.

    Raises ``ValueError``, before any call, for jobs that JSON cannot hold and for a file with results of other jobs
    under the same names. After an exception in a job, or a result that JSON cannot hold, no further job starts; the
    exception is raised when the running ones have ended (Dask cancels them) and their results are written. Ctrl-C does
    the same, without waiting for a given executor. A job whose process ends suddenly (killed, or out of memory) is run
    once more, with a warning; after a second time, or if the executor takes no more jobs, ``RuntimeError`` names it.

    >>> sweep(pow, {"nine": {"base": 3, "exp": 2}}, executor=ThreadPoolExecutor(1))
    {'nine': 9}
    """
    results: dict[Any, Any] = {}
    file = None if results_file is None else Path(results_file)
    if file is not None:
        jobs = {_checked_name(name): plain(job) for name, job in jobs.items()}
        results = _finished_results(file, jobs)
    pool = executor or _Processes(["cpu"] * cores() if devices is None else devices)
    pending: dict[Any, Future[Any]] = {}
    ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    lock = threading.Lock()

    def keep(name: Any, future: Future[Any]) -> None:
        """Keep the result of a job: in a thread of the executor, which Ctrl-C does not interrupt."""
        error = CancelledError(f"the executor has cancelled the job {name!r}") if future.cancelled() else None
        error = error or future.exception()
        if error is None:
            try:
                with lock:
                    results[name] = future.result() if file is None else _append(file, name, jobs[name], future)
            except Exception as unheld:
                error = unheld
        ended.put((name, error))

    def begin(name: Any) -> None:
        pending[name] = pool.submit(partial(function, **jobs[name]))
        pending[name].add_done_callback(partial(keep, name))

    def halt() -> None:
        """Cancel the jobs that have not begun."""
        for name, future in list(pending.items()):
            if future.cancel():
                del pending[name]

    failure: BaseException | None = None
    died: set[Any] = set()
    try:
        with progress_bar(total=len(jobs), initial=len(results), unit="run") as bar:
            for name in [name for name in jobs if name not in results]:
                begin(name)
            while pending:
                name, error = ended.get()
                if pending.pop(name, None) is None:  # cancelled
                    continue
                if error is None:
                    bar.set_postfix_str(str(name))
                    bar.update()
                elif failure is None:
                    if not _is_death(error):
                        failure = error
                    elif words := _again(name, begin, died, list(pending)):
                        failure = RuntimeError(words)
                        failure.__cause__ = error
                    if failure is not None:
                        halt()
        if failure is not None:
            raise failure
    except BaseException:
        halt()
        raise
    finally:
        if executor is None:
            pool.shutdown()
    return {name: results[name] for name in jobs}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- processes -------------------------------------------------------------------------------------------------------
class _Processes(Executor):
    """Processes of one job at a time, each in a pool of its own: one that ends suddenly takes no other job with it.

    Args:
        devices: The current device of each process.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.threads = ThreadPoolExecutor(len(devices))  # one waits for each process
        self.idle: LifoQueue[tuple[str, ProcessPoolExecutor]] = LifoQueue()  # those that have started come first
        for device in reversed(devices):
            self.idle.put((device, _process(device)))

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Return the future result of a call in one of the processes."""
        return self.threads.submit(self._run, call)

    def _run(self, call: Callable[[], Any]) -> Any:
        device, process = self.idle.get()
        try:
            return process.submit(call).result()
        except BrokenExecutor:
            process.shutdown()
            process = _process(device)
            raise
        finally:
            self.idle.put((device, process))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Wait for the jobs that run, and end the processes."""
        self.threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self.idle.empty():
            self.idle.get()[1].shutdown()


def _process(device: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare, (device,))


def _prepare(device: str) -> None:
    """Let all libraries use one thread in this process, and torch a GPU as its current one."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    if device != "cpu" or "torch" in sys.modules:  # torch takes seconds to load: not all jobs need it
        import torch

        torch.set_num_threads(1)
        if device != "cpu":
            torch.cuda.set_device(device)


def _is_death(error: BaseException) -> bool:
    """Return whether the process that ran a job ended before the job did."""
    return isinstance(error, BrokenExecutor) or not DEATHS.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _again(name: Any, begin: Callable[[Any], None], died: set[Any], others: Sequence[Any]) -> str:
    """Begin a job once more whose process has ended; return why that is not possible, ``""`` if it has begun."""
    if name in died:
        return f"the process that ran the job {name!r} ended suddenly, twice (killed, or out of memory?): run it alone"
    died.add(name)
    try:
        begin(name)
    except Exception:
        names = ", ".join(map(repr, [name, *others][:4])) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        return (
            f"a process of the executor ended suddenly (killed, or out of memory?) while it had the jobs {names}, and "
            "the executor takes no more: call sweep with a new one"
        )
    warnings.warn(
        f"the process that ran the job {name!r} ended suddenly (killed, or out of memory?): it is run once more",
        RuntimeWarning,
        stacklevel=3,
    )
    return ""


# ---- results ---------------------------------------------------------------------------------------------------------
def _checked_name(name: Any) -> Any:
    """Return the name of a job as plain Python; raise ``ValueError`` unless it is a word or a whole number."""
    name = plain(name)
    if not isinstance(name, str | int):
        raise ValueError(f"the names of jobs that are kept must be words, got {name!r}; take str(name)")
    return name


def _as_json(value: Any, what: str) -> Any:
    """Return the value as it will be read from a file; raise ``ValueError`` if JSON cannot hold it."""
    try:
        return json.loads(json.dumps(plain(value)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be numbers, words and lists or dicts of them, got: {error}") from error


def _append(path: Path, name: Any, job: Job, future: Future[Any]) -> Any:
    """Append the result of a job to the file and return it as it will be read."""
    result = _as_json(future.result(), f"the result of {name!r}")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "job": job, "result": result}) + "\n")
    return result


def _finished_results(path: Path, jobs: Mapping[Any, Job]) -> dict[Any, Any]:
    """Return the results in the file of jobs that are among these."""
    results: dict[Any, Any] = {}
    wanted = {name: _as_json(job, f"the job {name!r}") for name, job in jobs.items()}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return results
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # an interruption cut this line off: its job runs again
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    for line in text.splitlines():
        entry = json.loads(line)
        name = entry["name"]
        if name in jobs:
            ours, theirs = (json.dumps(job, sort_keys=True) for job in (wanted[name], entry["job"]))
            if ours != theirs:  # as text, in which NaN is itself
                raise ValueError(
                    f"{path} holds a run {name!r} of another sweep: {entry['job']}, needed {jobs[name]}; move it away"
                )
            results[name] = entry["result"]
    return results
