"""Many runs, side by side, kept one by one: what is finished is not run again."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from convkit.checks import plain
from convkit.loading import progress_bar

Job = Mapping[str, Any]  # the arguments of one run: numbers, words, lists of them


def sweep(
    function: Callable[..., Any],
    jobs: Mapping[str, Job],
    keep: str | Path | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """``function(**job)`` for every job, by its name; with a progress bar.

    ``function`` is found by its module and name in other processes and returns what JSON holds. ``keep`` names a file
    to which each result is appended when it is there: after an interruption the same call runs what is missing. What is
    kept is what is run and returned: NumPy's numbers and arrays and tensors become plain numbers and lists, in jobs and
    in results, and results come back as JSON has them (lists for tuples). Without an ``executor`` there is a process
    for each core, with one thread each; ``dask.distributed``'s ``client.get_executor()`` is one for a cluster.

    Raises ``ValueError``, before any run, where ``keep`` holds results of other jobs under the same names and for jobs
    that JSON cannot hold. After an error, as for a result that JSON cannot hold, no further run begins; it is raised
    when those under way are kept.
    """
    results: dict[Any, Any] = {}
    if keep is not None:
        jobs = {_checked_name(name): plain(job) for name, job in jobs.items()}
        results = _kept(Path(keep), jobs)
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
                        result = future.result() if keep is None else _append(Path(keep), name, missing[name], future)
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
    import torch

    torch.set_num_threads(1)


def _checked_name(name: Any) -> Any:
    name = plain(name)
    if not isinstance(name, str | int):
        raise ValueError(f"the names of jobs that are kept must be words, got {name!r}; take str(name)")
    return name


def _as_json(value: Any, what: str) -> Any:
    """The value as it is read from a file, lists for tuples; ``ValueError`` where JSON cannot hold it."""
    try:
        return json.loads(json.dumps(plain(value)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be numbers, words and lists or dicts of them, got: {error}") from error


def _append(path: Path, name: Any, job: Job, future: Future[Any]) -> Any:
    """Keep the result of a run; it comes back as it will be read."""
    result = _as_json(future.result(), f"the result of {name!r}")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "job": job, "result": result}) + "\n")
    return result


def _kept(path: Path, jobs: Mapping[Any, Job]) -> dict[Any, Any]:
    results: dict[Any, Any] = {}
    wanted = {name: _as_json(job, f"the job {name!r}") for name, job in jobs.items()}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return results
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # a line that an interruption cut off: that run is done again
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
