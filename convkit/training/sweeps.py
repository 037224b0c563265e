"""`sweep`: runs jobs in parallel and appends their results to a file; a restarted sweep skips finished jobs."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from convkit.checks import plain
from convkit.loading import progress_bar

Result = TypeVar("Result")
Job = Mapping[str, object]  # the arguments of one run: numbers, words, lists of them


def sweep(
    function: Callable[..., Result],
    jobs: Mapping[str, Job],
    results_file: str | Path | None = None,
    executor: Executor | None = None,
) -> dict[str, Result]:
    """Return ``{name: function(**job)}`` for all jobs, which run in parallel, with a progress bar.

    After an interruption, the same call with the same ``results_file`` runs only the missing jobs. With a file, jobs
    and results are what JSON can hold: NumPy numbers, arrays and tensors become plain numbers and lists, tuples become
    lists.

    Args:
        function: A function of a module, so that other processes can import it.
        jobs: The keyword arguments of each call, by a name.
        results_file: The file to which each result is appended when it arrives; ``None`` for none.
        executor: Runs the jobs. ``None`` takes one process per core, with one thread each; ``dask.distributed``'s
            ``client.get_executor()`` takes a cluster.

    Raises ``ValueError``, before any call, for jobs that JSON cannot hold and for a file with results of other jobs
    under the same names. After an exception in a job, or a result that JSON cannot hold, no further job starts; the
    exception is raised when the running ones have ended and their results are written.
    """
    results: dict[Any, Any] = {}
    file = None if results_file is None else Path(results_file)
    if file is not None:
        jobs = {_checked_name(name): plain(job) for name, job in jobs.items()}
        results = _finished_results(file, jobs)
    missing = {name: job for name, job in jobs.items() if name not in results}
    pool = executor or ProcessPoolExecutor(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        multiprocessing.get_context("spawn"),
        _one_thread,
    )
    first: BaseException | None = None
    try:
        futures = {pool.submit(function, **job): name for name, job in missing.items()}
        with progress_bar(total=len(jobs), initial=len(results), unit="run") as bar:
            for future in as_completed(futures):
                name = futures[future]
                if future.cancelled():
                    continue
                error, result = future.exception(), None
                if error is None:
                    try:
                        result = future.result() if file is None else _append(file, name, missing[name], future)
                    except ValueError as unheld:
                        error = unheld
                if error is not None:
                    first = first or error
                    for other in futures:
                        other.cancel()
                    continue
                results[name] = result
                bar.set_postfix_str(name)
                bar.update()
        if first is not None:
            raise first
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    if executor is None:
        pool.shutdown()
    return {name: results[name] for name in jobs}


def _one_thread() -> None:
    """Let torch use one thread in this process."""
    import torch

    torch.set_num_threads(1)


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
