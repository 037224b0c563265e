"""The stored files of results: each has the layout of a run in few steps, and the rows that the notebooks read."""

import math

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.papers import separation
from tests import RESULTS
from tests.helpers.experiments import EXPERIMENTS, TINY, planned, stored

FOUND = ("spectra-methods", "spectra-depths", "spectra-bounds", "spectra-slopes")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_has_a_small_file_that_says_how_it_was_made(name):
    results = stored(name)
    assert results["experiment"] == name
    folder = " --folder DIR" if EXPERIMENTS[name].needs_folder else ""
    both = [f"python3 -m convkit {command} {name}{folder}" for command in ("papers", "experiments")]
    assert results["command"] in both
    assert {"device", "torch", "python"} <= set(results["versions"])
    assert (RESULTS / f"{name}.json").stat().st_size < 100_000
    assert len(results.get("seeds", range(3))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_run_has_the_layout_of_the_stored_file(name, tiny):
    few, whole = tiny(name), stored(name)
    assert whole.keys() | {"device"} == few.keys() | {"experiment", "command", "versions", "device"}
    assert {frozenset(row) for row in whole["rows"]} == {frozenset(row) for row in few["rows"]}
    for results in (few, whole):
        shown = EXPERIMENTS[name].show(results).splitlines()
        each = len(results["seeds"]) if name.startswith("spectra") else 1
        assert len(shown) == each * len(results["rows"]) + (name == "separation")
        for row in results["rows"]:
            assert len(row.get("runs", results.get("seeds", ()))) == len(results.get("seeds", ()))
    kinds = {frozenset(run) for row in few["rows"] for run in row.get("runs", ())}
    assert {frozenset(run) for row in whole["rows"] for run in row.get("runs", ())} == kinds


@pytest.mark.parametrize("name", [name for name in TINY if name.startswith(("spectra", "starts"))])
def test_the_stored_rows_are_those_that_are_planned(name):
    results, jobs = stored(name), planned(name)
    cases = list(dict.fromkeys(run.rpartition(" seed ")[0] for run in jobs))
    assert len(cases) == len(results["rows"])
    assert {job["seed"] for job in jobs.values()} == set(results["seeds"])
    for case, row in zip(cases, results["rows"], strict=True):
        assert case.endswith(row.get("name", ""))


def test_the_stored_distances_are_those_of_all_parts():
    assert [(row["data"], row["part"]) for row in stored("separation")["rows"]] == separation.PARTS


@pytest.mark.parametrize("name", FOUND)
def test_in_the_stored_files_nothing_found_is_above_a_bound(name):
    results = stored(name)
    for run in [run for row in results["rows"] for run in row["runs"]] if "rows" in results else [results]:
        assert len(run["local"]) == len(run["certified"]) == results["images"]
        found = max(run["sampled"], *run["jacobian"], *run["local"])
        assert found < run["folded_bound"] <= run["bound"] * (1 + 1e-3)
        for certified, empirical, ahead in zip(run["certified"], run["empirical"], run["margins"], strict=True):
            assert certified <= (math.inf if empirical is None else empirical)
            assert certified == pytest.approx(max(ahead, 0) / math.sqrt(2) / run["bound"], rel=2e-3)


def test_methods_without_batchnorm_train_residual_networks_from_zero_and_are_lost_from_one():
    rows = {row["name"]: row["runs"] for row in stored("starts")["rows"]}
    assert len(rows) == 18
    for name, runs in rows.items():
        if name.endswith("from one"):
            assert all(run["lost"] for run in runs), name
        else:
            assert min(run["accuracy"] for run in runs) >= 0.8, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["certified", "spectra-bounds"])
def test_a_lost_run_has_no_numbers_and_says_why(name, few, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)  # every loss is above it
    results = TINY[name]()
    for run in [run for row in results["rows"] for run in row["runs"]]:
        assert "the loss" in run["lost"]
        assert run.get("accuracy") is None
    assert "lost" in EXPERIMENTS[name].show(results)
