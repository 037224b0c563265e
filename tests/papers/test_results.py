"""The stored files of results: each has the layout of a run in few steps, and the rows that the notebooks read."""

import math

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.papers import methods, separation
from tests import RESULTS
from tests.helpers.experiments import EXPERIMENTS, TINY, planned, stored

LAYERS = {"norm", "norm_bare", "norm_folded", "row", "condition", "condition_bare"}
ATTACKS = ("FGSM", "PGD-10", "PGD-20", "PGD margin", "SimBA")
FOUND = ("spectra-methods", "spectra-depths", "spectra-bounds", "spectra-slopes")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_has_a_small_file_that_says_how_it_was_made(name):
    results = stored(name)
    assert results["experiment"] == name
    folder = " --folder DIR" if EXPERIMENTS[name].needs_folder else ""
    both = [f"python3 -m convkit {command} {name}{folder}" for command in ("papers", "experiments")]
    assert results["command"] in both
    assert {"device", "torch", "python"} <= set(results["versions"])
    assert (RESULTS / f"{name}.json").stat().st_size < (150_000 if name.startswith("methods") else 100_000)
    assert len(results.get("seeds", range(3))) >= (2 if name == "clipping-rates" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_run_has_the_layout_of_the_stored_file(name, tiny):
    few, whole = tiny(name), stored(name)
    assert whole.keys() | {"device"} == few.keys() | {"experiment", "command", "versions", "device"}
    assert {frozenset(row) for row in whole["rows"]} == {frozenset(row) for row in few["rows"]}
    for results in (few, whole):
        shown = EXPERIMENTS[name].show(results).splitlines()
        more = len(results["rows"]) + 1
        lines = {"clipping-rates": 8, "separation": more, "methods-digits": more}
        each = len(results["seeds"]) if name.startswith("spectra") else 1
        assert len(shown) == lines.get(name, each * len(results["rows"]))
        for row in results["rows"]:
            seeds = 1 if row.get("batchnorm") is False else len(results.get("seeds", ()))  # False: the residual network
            if "accuracy" in row:
                ended = row["lost"] if "lost" in row else [None] * seeds
                assert len(row["accuracy"]) == len(ended) == seeds
                for accuracy, lost in zip(row["accuracy"], ended, strict=True):
                    assert (accuracy is None) == (lost is not None)
                    assert accuracy is None or 0 <= accuracy <= 1
            for curve in row.get("accuracies", []) + row.get("steady", []):
                assert len(curve) == len(results["at"])
            for numbers in (row.get("start") or []) + (row.get("end") or []):
                assert numbers.keys() == LAYERS
                assert {len(values) for values in numbers.values()} == {9}
            assert len(row.get("runs", range(seeds))) == seeds
    group = {row.get("group"): {frozenset(run) for run in row.get("runs", ())} for row in few["rows"]}
    for row in whole["rows"]:
        assert {frozenset(run) for run in row.get("runs", ())} == group[row.get("group")]


@pytest.mark.parametrize("name", [name for name in TINY if name not in ("separation", "methods-digits", "certified")])
def test_the_stored_rows_are_those_that_are_planned(name, monkeypatch):
    results, jobs = stored(name), planned(name)
    cases = list(dict.fromkeys(run.rpartition(" seed ")[0] for run in jobs))
    assert len(cases) == len(results["rows"])
    assert {job["seed"] for job in jobs.values()} == set(results["seeds"])
    for case, row in zip(cases, results["rows"], strict=True):
        job = jobs[f"{case} seed {results['seeds'][0]}"]
        assert case.endswith(row.get("name", ""))
        assert case.startswith(str(row.get("batchnorm", "")))
        for key in {"method", "bound", "lr", "knobs", "objective"} & job.keys() & row.keys():
            assert job[key] == row[key]


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("methods")])
def test_the_stored_tables_hold_every_method_and_three_seeds(name):
    results = stored(name)
    assert [row["method"] for row in results["rows"]] == list(methods.COMPARED)
    for row in results["rows"]:
        assert len(row["accuracy"]) == 3
        assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
        assert row["time_over_batchnorm"] > 0


def test_stored_networks_have_learned_and_what_breaks_them_is_the_worst_of_all_attacks():
    for row in stored("robustness-networks")["rows"]:
        for run in row["runs"]:
            assert run["lost"] is None
            assert run["clean"] > 0.9
            assert run["worst"] <= min(run[name] for name in ATTACKS)
            assert len(run["norm_inf"]) == len(run["folded_inf"]) == 10
    for row in stored("robustness-images")["rows"]:
        for run in row["runs"]:
            assert run["clean"] >= run["1/255"] >= run["2/255"] >= run["8/255"]
            assert run["clean"] > 0.2
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


LOST = (
    "certified",
    "clipping-rates",
    "convnorm-noise",
    "decay-generalization",
    "methods-digits",
    "robustness-networks",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOST, "robustness-networks", "spectra-bounds", "sphere-small-batches"])
def test_a_lost_run_has_no_accuracy_and_says_why(name, few, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 0.0)  # every loss is above it
    results = TINY[name]()
    for row in results["rows"]:
        runs = row.get("runs", [row])
        for run in runs:
            (reason,) = [run["lost"]] if "runs" in row else (row["lost"] if "lost" in row else row["diverged"][:1])
            assert "the loss" in reason
            accuracy = run.get("accuracy")
            assert accuracy in (None, [None], [0.0] * 3)  # 0 in the table of all methods
    assert ("0 of 3" if name == "methods-digits" else "lost") in EXPERIMENTS[name].show(results)
