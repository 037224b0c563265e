"""The experiment on certificates: what it measures, what it chooses by, and what its verdicts may say."""

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.data import digits
from convkit.papers import certified
from convkit.papers.runs import train
from convkit.robustness.certificates import certified_accuracy
from tests.helpers.experiments import planned, stored


def test_a_stored_run_is_certified_below_what_attacks_leave_and_its_bound_is_the_knob():
    results = stored("certified")
    assert [row["name"] for row in results["rows"]] == [way.name for way in certified.WAYS]
    for row in results["rows"]:
        assert len(row["runs"]) == len(results["seeds"]) == 8
        assert row["lr"] == max(map(float, row["held_out"]), key=lambda lr, row=row: row["held_out"][f"{lr:g}"])
        for run in row["runs"]:
            assert run["clean"] >= run["certified"][0] >= 0.99 * run["clean"]  # at 0 all but ties
            assert run["certified"] == sorted(run["certified"], reverse=True)
            assert run["attacked"] == sorted(run["attacked"], reverse=True)
            for eps, left in zip(results["attacked_at"], run["attacked"], strict=True):
                below = [c for at, c in zip(results["certified_at"], run["certified"], strict=True) if at >= eps]
                assert max(below) <= left <= run["clean"]
            if row["method"] == "lipschitz":
                assert run["bound"] <= 1


def test_the_verdicts_of_the_stored_seeds_are_those_that_the_notebook_tells():
    found = certified.verdicts(stored("certified"))
    assert found["certified", "true norm", "free"].word == "higher"
    assert found["certified", "true norm", "flattened norm"].word == "higher"
    assert found["clean", "true norm", "free"].word == "lower"


def test_a_job_measures_what_the_library_measures():
    run = certified.job("lipschitz", {"bound": 1.0, "lr": 0.1}, "margin", 3, 5, images=60)
    data = certified.load_part("digits", 60, 60)
    model = certified.small(3, certified.TRAINING["width"])
    plan = {"steps": 5, "batch_size": 60, "schedule": "cosine", "objective": certified.Margin(certified.EPS)}
    model, _ = train(data, "lipschitz", seed=3, model=model, options={}, knobs={"bound": 1.0, "lr": 0.1}, **plan)
    batch = data.test_batch(slice(None))
    for eps, share in zip(certified.CERTIFIED, run["certified"], strict=True):
        found = certified_accuracy(model, [batch], eps, progress=False)
        assert share == pytest.approx(found.certified, rel=1e-3)
        assert run["clean"] == pytest.approx(found.clean, rel=1e-3)
    assert run["bound"] == pytest.approx(found.bound, rel=1e-3)


def test_rates_are_chosen_on_images_held_out_of_training_and_never_on_the_test_images(monkeypatch):
    jobs = planned("certified")
    assert len(jobs) == len(certified.WAYS) * len(certified.RATES) * len(certified.CHOOSING_SEEDS)
    assert all(job["choosing"] and job["seed"] >= 100 for job in jobs.values())
    seen = []
    monkeypatch.setattr(certified, "train", lambda data, *_, **__: seen.append(data) or (None, "lost"))
    certified.job("plain", {"lr": 0.1}, "ce", 7, 2, choosing=True)
    certified.job("plain", {"lr": 0.1}, "ce", 7, 2)
    held, whole = seen
    known = {tuple(image.flatten().tolist()) for image in digits().test_images}
    assert not known & {tuple(image.flatten().tolist()) for image in (*held.images, *held.test_images)}
    assert len(held) + len(held.test_labels) == len(whole) == 1437
    assert torch.equal(whole.test_labels, digits().test_labels)


def test_ways_start_from_the_same_weights():
    first, again, other = (certified.small(seed, 4).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
