"""Sweeps: results by name, kept one by one, and gone on with."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from convkit.training.sweeps import sweep
from tests.helpers.refusals import refused
from tests.helpers.sweep_jobs import NAMES, leave, quotient

JOBS = {f"{a} times {b}": {"a": a, "b": b} for a in (2, 3) for b in (5, 7)}
CALLS = []


def product(a, b):
    CALLS.append((a, b))
    if a * b == 21 and CALLS.count("fail"):
        raise RuntimeError("21 fails")
    return {"product": a * b}


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_results_by_name_in_the_order_of_the_jobs(threads):
    results = sweep(product, JOBS, executor=threads)
    assert results == {name: {"product": job["a"] * job["b"]} for name, job in JOBS.items()}
    assert list(results) == list(JOBS)


@pytest.mark.slow  # each process imports torch
def test_processes_of_one_thread_are_the_default(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert sweep(torch.get_num_threads, {"one": {}}) == {"one": 1}


def test_what_is_kept_is_not_run_again(tmp_path, threads):
    keep = tmp_path / "folder" / "kept.jsonl"
    CALLS.append("fail")
    refused("21 fails", sweep, product, JOBS, keep, threads, error=RuntimeError)
    done = [json.loads(line)["name"] for line in keep.read_text().splitlines()]
    assert sorted(done) == ["2 times 5", "2 times 7", "3 times 5"]
    CALLS.clear()
    results = sweep(product, JOBS, keep, ThreadPoolExecutor(1))
    assert CALLS == [(3, 7)]
    assert results["2 times 7"] == {"product": 14}
    assert sweep(product, JOBS, keep, ThreadPoolExecutor(1)) == results
    assert CALLS == [(3, 7)]


def test_a_line_cut_off_by_an_interruption_is_run_again_and_results_of_other_jobs_are_refused(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    sweep(product, JOBS, keep, threads)
    keep.write_text(keep.read_text()[:-9])
    for calls in (1, 0):
        CALLS.clear()
        assert sweep(product, JOBS, keep, ThreadPoolExecutor(1))["3 times 7"] == {"product": 21}
        assert len(CALLS) == calls
    other = {"2 times 5": {"a": 2, "b": 6}}
    refused("holds a run '2 times 5' of another sweep", sweep, product, other, keep, threads)


# ---- numbers of other libraries --------------------------------------------------------------------------------------
def kinds(**job):
    return {"kinds": [type(value).__name__ for value in job.values()], "again": job, "pair": (np.int64(1), 2)}


NUMPYS = {"a": np.float32(0.5), "b": np.array([16, 32]), "c": [np.float64(math.nan), (torch.tensor(1), None)]}


def test_numbers_of_jobs_and_results_are_plain_and_what_is_kept_is_not_run_again(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    first = sweep(kinds, {np.str_("one"): NUMPYS}, keep, threads)
    assert (first["one"]["kinds"], first["one"]["pair"]) == (["float", "list", "list"], [1, 2])
    again = sweep(kinds, {"one": NUMPYS}, keep, threads)
    assert repr(again) == repr(first)  # as text: one of the numbers is NaN
    assert len(keep.read_text().splitlines()) == 1


def test_a_job_that_json_cannot_hold_is_refused_before_any_run(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    jobs = {"fine": {"a": 2, "b": 5}, "bad": {"a": 2, "b": object()}}
    words = "the job .bad. must be numbers, words and lists or dicts of them, got: .*object"
    refused(words, sweep, product, jobs, keep, threads)
    words = r"names of jobs that are kept must be words, got \(2, 5\)"
    refused(words, sweep, product, {(2, 5): {"a": 2, "b": 5}}, keep, threads)
    assert CALLS == []
    assert sweep(product, {(2, np.float64(0.5)): {"a": 2, "b": 0.5}}, None, threads)  # without a file anything goes


def test_a_result_that_json_cannot_hold_is_an_error_and_the_others_are_kept(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    jobs = {"first": {"base": 3, "exp": 2}, "second": {"base": -1, "exp": 0.5}}
    refused("the result of 'second' must be numbers.* complex", sweep, pow, jobs, keep, threads)
    assert [json.loads(line)["name"] for line in keep.read_text().splitlines()] == ["first"]
    assert sweep(pow, {"first": {"base": np.int8(3), "exp": np.uint8(2)}}, keep, ThreadPoolExecutor(1)) == {"first": 9}


# ---- executors -------------------------------------------------------------------------------------------------------
class Cluster(Executor):
    """As Dask's: ``shutdown`` takes no ``cancel_futures``, and a job can be cancelled until its result is there.

    The first two jobs run when the second one arrives; all others wait.
    """

    def __init__(self):
        self.open, self.waiting = True, []

    def submit(self, call):
        future = Future()
        self.waiting.append((future, call))
        if len(self.waiting) == 2:
            self.run(), self.run()
        return future

    def run(self):
        future, call = self.waiting.pop(0)
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    def shutdown(self, wait=True):
        self.open = False


class KilledWorker(Exception):
    """As Dask calls it."""


def killed(times, a, b):
    CALLS.append("killed")
    if CALLS.count("killed") <= times:
        raise KilledWorker("attempted to run on 4 workers, which died")
    return {"product": a * b}


def test_a_given_executor_stays_open_and_the_error_of_a_job_is_what_is_raised(tmp_path, threads):
    for pool in (Cluster(), threads):
        CALLS[:] = ["fail"]
        jobs = {name: JOBS[name] for name in ("2 times 5", "3 times 7", "2 times 7")}
        refused("^21 fails$", sweep, product, jobs, tmp_path / type(pool).__name__, pool, error=RuntimeError)
        CALLS.clear()
        (finished,) = (tmp_path / type(pool).__name__).read_text().splitlines()[:1]
        assert json.loads(finished)["name"] == "2 times 5"
    assert threads.submit(pow, 3, 2).result() == 9


def test_a_worker_of_a_cluster_that_dies_is_reported_by_its_job_which_is_run_once_more():
    jobs = {"first": {"a": 2, "b": 5, "times": 1}, "second": {"a": 3, "b": 5, "times": 1}}

    class Ready(Cluster):
        def submit(self, call):
            future = super().submit(call)
            while self.waiting:
                self.run()
            return future

    pool = Ready()
    with pytest.warns(RuntimeWarning, match="that ran the job 'first' ended suddenly .*: it is run once more"):
        assert sweep(killed, jobs, executor=pool) == {"first": {"product": 10}, "second": {"product": 15}}
    CALLS.clear()
    words = "the process that ran the job 'first' ended suddenly, twice"
    with pytest.warns(RuntimeWarning, match="run once more"):
        refused(words, sweep, killed, {"first": {**jobs["first"], "times": 2}}, executor=pool, error=RuntimeError)
    assert pool.open


def test_jobs_that_an_executor_itself_cancels_are_an_error():
    pool = Cluster()
    future = Future()
    future.cancel()
    pool.submit = lambda call: future
    refused(
        "has cancelled the job 'one'", sweep, pow, {"one": {"base": 1, "exp": 2}}, executor=pool, error=BaseException
    )


def leaving(folder, **times):
    return {name: {"marks": str(folder / name), "times": times[name], "result": len(name)} for name in times}


@pytest.mark.slow  # each process imports torch
def test_a_process_that_ends_suddenly_takes_no_other_job_with_it_and_its_job_is_run_once_more(tmp_path):
    jobs, file = leaving(tmp_path, good=0, bad=1, fine=0, hopeless=2), tmp_path / "results"
    words = "the process that ran the job 'hopeless' ended suddenly, twice"
    with pytest.warns(RuntimeWarning) as warned:
        refused(words, sweep, leave, jobs, file, devices=["cpu"], error=RuntimeError)
    assert [str(one.message).split("'")[1] for one in warned] == ["bad", "hopeless"]
    assert {json.loads(line)["name"] for line in file.read_text().splitlines()} == {"good", "bad", "fine"}
    assert sweep(leave, jobs, file, devices=["cpu"]) == {"good": 4, "bad": 3, "fine": 4, "hopeless": 8}
    assert {name: len((tmp_path / name).read_text()) for name in jobs} == {
        "good": 1,
        "bad": 2,
        "fine": 1,
        "hopeless": 3,
    }


@pytest.mark.slow
def test_a_pool_that_breaks_is_an_error_that_names_the_jobs_and_what_is_kept_is_not_run_again(tmp_path):
    loky = pytest.importorskip("joblib.externals.loky")
    jobs, file = leaving(tmp_path, good=0, bad=1, fine=0), tmp_path / "results"
    words = (
        "process of the executor ended suddenly .* while it had the jobs '.*takes no more: call sweep with a new one"
    )
    refused(words, sweep, leave, jobs, file, loky.ProcessPoolExecutor(1), error=RuntimeError)
    pool = loky.ProcessPoolExecutor(1)
    assert sweep(leave, jobs, file, pool) == {"good": 4, "bad": 3, "fine": 4}
    assert len((tmp_path / "good").read_text()) == 1
    refused("integer division", sweep, quotient, {"one": {"a": 1, "b": 0}}, None, pool, error=ZeroDivisionError)
    assert pool.submit(pow, 3, 2).result() == 9
    pool.shutdown()


@pytest.mark.slow
def test_a_cluster_of_dask_runs_a_sweep_and_stays_open(tmp_path):
    distributed = pytest.importorskip("distributed")
    place = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**place) as cluster, distributed.Client(cluster) as client:
        pool = client.get_executor()
        assert sweep(pow, {f"{n}": {"base": n, "exp": 2} for n in range(5)}, tmp_path / "results", pool)["4"] == 16
        jobs = {"one": {"a": 5, "b": 2}, "none": {"a": 1, "b": 0}, "other": {"a": 7, "b": 2}}
        refused("integer division", sweep, quotient, jobs, executor=pool, error=ZeroDivisionError)
        assert pool.submit(pow, 3, 2).result() == 9
        named = {"one": {"key": 1, "workers": 2, "retries": 3}}  # names of arguments of Dask's own submit
        assert sweep(dict, named, executor=pool) == named


# ---- kills -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs groups of processes")
def test_a_sweep_that_is_killed_at_any_moment_loses_and_repeats_nothing(tmp_path):
    chance, file = random.Random(0), tmp_path / "results"
    code = f"from tests.helpers.sweep_jobs import launch; launch({str(tmp_path)!r})"

    def finished():
        text = file.read_text() if file.exists() else ""
        return [json.loads(line)["name"] for line in text[: text.rfind("\n") + 1].splitlines()]

    def begun():
        return Counter({name: len((tmp_path / name).read_text()) for name in NAMES if (tmp_path / name).exists()})

    for how in ("kill group", "interrupt group", "interrupt", "kill group", "interrupt"):
        kept, calls = finished(), begun()
        with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE) as process:
            goal = calls.total() + chance.choice([1, 2, 3])
            while process.poll() is None and begun().total() < goal:
                time.sleep(0.005)
            time.sleep(0.05 * chance.random())
            end = os.kill if how == "interrupt" else os.killpg
            end(process.pid, signal.SIGKILL if how == "kill group" else signal.SIGINT)
            said = process.communicate()[1].decode()
        assert process.returncode != 0
        assert finished()[: len(kept)] == kept
        assert not set(kept) & set(begun() - calls)  # what was kept was not run again
        if how == "interrupt":  # the jobs that ran were waited for
            assert set(begun() - calls) == set(finished()[len(kept) :]), said
            assert "KeyboardInterrupt" in said
    calls, kept = begun(), finished()
    assert 3 <= len(kept) < len(NAMES)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert sorted(finished()) == sorted(NAMES)
    assert set(begun() - calls) == set(NAMES) - set(kept)
    results = {json.loads(line)["name"]: json.loads(line)["result"] for line in file.read_text().splitlines()}
    assert results == {name: name.upper() for name in NAMES}
