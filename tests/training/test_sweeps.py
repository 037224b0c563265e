"""Sweeps: results by name, kept one by one, and gone on with."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from convkit.training.sweeps import sweep
from tests.helpers.refusals import refused

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
def test_processes_are_the_default():
    assert sweep(pow, {"nine": {"base": 3, "exp": 2}}) == {"nine": 9}


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
