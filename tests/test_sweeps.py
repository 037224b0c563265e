"""Sweeps: results by name, kept one by one, and gone on with."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from convkit.sweeps import sweep

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


def test_processes_are_the_default():
    assert sweep(pow, {"nine": {"base": 3, "exp": 2}}) == {"nine": 9}


def test_what_is_kept_is_not_run_again(tmp_path, threads):
    keep = tmp_path / "folder" / "kept.jsonl"
    CALLS.append("fail")
    with pytest.raises(RuntimeError, match="21 fails"):
        sweep(product, JOBS, keep, threads)
    done = [json.loads(line)["name"] for line in keep.read_text().splitlines()]
    assert sorted(done) == ["2 times 5", "2 times 7", "3 times 5"]
    CALLS.clear()
    results = sweep(product, JOBS, keep, ThreadPoolExecutor(1))
    assert CALLS == [(3, 7)]
    assert results["2 times 7"] == {"product": 14}
    assert sweep(product, JOBS, keep, ThreadPoolExecutor(1)) == results
    assert CALLS == [(3, 7)]


def test_a_line_cut_off_by_an_interruption_is_run_again(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    sweep(product, JOBS, keep, threads)
    keep.write_text(keep.read_text()[:-9])
    CALLS.clear()
    assert sweep(product, JOBS, keep, ThreadPoolExecutor(1))["3 times 7"] == {"product": 21}
    assert len(CALLS) == 1
    CALLS.clear()
    assert sweep(product, JOBS, keep, ThreadPoolExecutor(1))["3 times 7"] == {"product": 21}
    assert CALLS == []


def test_results_of_other_jobs_are_refused(tmp_path, threads):
    keep = tmp_path / "kept.jsonl"
    sweep(product, JOBS, keep, threads)
    with pytest.raises(ValueError, match="holds a run '2 times 5' of another sweep"):
        sweep(product, {"2 times 5": {"a": 2, "b": 6}}, keep, ThreadPoolExecutor(1))
