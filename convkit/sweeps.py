"""Many runs, side by side, kept one by one: what is finished is not run again."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

Job = Mapping[str, Any]  # the arguments of one run: numbers, words, lists of them


def sweep(
    function: Callable[..., Any],
    jobs: Mapping[str, Job],
    keep: str | Path | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """``function(**job)`` for every job, by its name; with a progress bar.

    ``function`` is found by its module and name in other processes and returns what JSON holds. ``keep`` names a file
    to which each result is appended when it is there: after an interruption the same call runs what is missing. Without
    an ``executor`` there is a process for each core, with one thread each; ``dask.distributed``'s
    ``client.get_executor()`` is one for a cluster. Raises ``ValueError`` where ``keep`` holds results of other jobs
    under the same names. After an error no further run begins; it is raised when those under way are kept.
    """
    from tqdm import tqdm

    results = _kept(Path(keep), jobs) if keep is not None else {}
    missing = {name: job for name, job in jobs.items() if name not in results}
    pool = executor or ProcessPoolExecutor(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        multiprocessing.get_context("spawn"),
        _one_thread,
    )
    first: BaseException | None = None
    try:
        futures = {pool.submit(function, **job): name for name, job in missing.items()}
        with tqdm(total=len(jobs), initial=len(results), unit="run") as bar:
            for future in as_completed(futures):
                name = futures[future]
                if future.cancelled():
                    continue
                error = future.exception()
                if error is not None:
                    first = first or error
                    for other in futures:
                        other.cancel()
                    continue
                results[name] = future.result()
                if keep is not None:
                    with Path(keep).open("a", encoding="utf-8") as file:
                        line = {"name": name, "job": missing[name], "result": results[name]}
                        file.write(json.dumps(line) + "\n")
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


def _kept(path: Path, jobs: Mapping[str, Job]) -> dict[str, Any]:
    results: dict[str, Any] = {}
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
            if json.loads(json.dumps(jobs[name])) != entry["job"]:
                raise ValueError(
                    f"{path} holds a run {name!r} of another sweep: {entry['job']}, needed {jobs[name]}; move it away"
                )
            results[name] = entry["result"]
    return results
