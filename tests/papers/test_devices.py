"""The experiments on a device: what they load goes there, and all of them run."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.data import Data, digits, subset
from convkit.papers import runs, separation, spectra_network
from tests.helpers.experiments import HERE, TINY, Serial


class Enough(Exception):
    """Raised in place of the first step of training."""


class SerialThere(Serial):
    """Runs one after the other, on the device."""

    def sweep(self, job, jobs):
        return super().sweep(job, {name: {**arguments, "device": self.device} for name, arguments in jobs.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_every_experiment_trains_on_the_device_that_is_asked_for(name, device, few, monkeypatch):
    places, there, plan = set(), SerialThere(Path("unused"), device=str(device)), TINY[name]

    def watched(function):
        def call(*arguments, **options):
            places.update(argument.device.type for argument in arguments if isinstance(argument, Data | torch.Tensor))
            if device.type == "cpu":
                raise Enough  # the rest of such a run is tested with its results
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(runs, "fit", watched(runs.fit))
    monkeypatch.setattr(separation, "separation", watched(separation.separation))
    with contextlib.suppress(Enough):
        results = plan.func(*[there if argument is HERE else argument for argument in plan.args], **plan.keywords)
        json.dumps(results)
        assert "device" not in results  # the command adds it
        assert len(results["rows"]) > 0
    assert places == {device.type}


@pytest.mark.slow
def test_the_residual_network_is_trained_and_measured_on_a_device_and_stored_for_all(few, device, tmp_path):
    data = subset(digits(), 20, test_count=20).to(device)
    results = spectra_network.train_on(data, tmp_path / "network.jsonl", steps=2, look_every=1)
    assert len(results["looks"]["loss"]) == 2
    weights = torch.load(tmp_path / "network.pt", weights_only=True)
    assert {tensor.device.type for tensor in weights.values()} == {"cpu"}
    found = spectra_network.slopes_of(data, tmp_path / "network.pt", images=2, pairs=5)
    assert max(found["jacobian"]) < found["folded_bound"] <= found["bound"] * (1 + 1e-3)


def test_jobs_on_a_gpu_carry_its_name_and_as_many_run_at_once_as_its_memory_holds(monkeypatch):
    given = []
    monkeypatch.setattr(runs, "sweep", lambda *places, **named: given.append((*places, named)) or {"a": 1})
    monkeypatch.setattr(runs, "cores", lambda: 6)
    on_cpu = runs.Runs(Path("file"))
    assert on_cpu.sweep(print, {"a": {"x": 1}}) == {"a": 1}
    assert given.pop() == (print, {"a": {"x": 1}}, Path("file"), {"devices": None})
    dataclasses.replace(on_cpu, workers=3).sweep(print, {"a": {"x": 1}})
    assert given.pop()[-1] == {"devices": ["cpu"] * 3}
    for free, count in ((1, 1), (2 * runs.ROOM, 2), (3 * runs.ROOM - 1, 2), (100 * runs.ROOM, 6)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2 * free))
        dataclasses.replace(on_cpu, device="cuda:1").sweep(print, {"a": {"x": 1}})
        devices = {"devices": ["cuda:1"] * count}
        assert given.pop() == (print, {"a": {"x": 1, "device": "cuda:1"}}, Path("file"), devices)


def test_all_gpus_share_the_cores_and_each_has_one_process_at_least(monkeypatch):
    free = {"cuda:0": 100 * runs.ROOM, "cuda:1": 2 * runs.ROOM, "cuda:2": 0}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 0))
    for cores, expected in ((11, [0, 1, 2, 0, 1, 0]), (2, [0, 1, 2])):
        monkeypatch.setattr(runs, "cores", lambda cores=cores: cores)
        assert runs.processes_on_gpus("cuda") == [f"cuda:{number}" for number in expected]
