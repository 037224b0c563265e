"""The device of a measurement: refused in one sentence where it cannot be used, and named in the results."""

import json
import subprocess
import warnings
from types import SimpleNamespace

import pytest
import torch

from convkit import provenance
from convkit.provenance import missing_memory, refuse_other_device, usable_device, versions
from tests.helpers.refusals import refused

OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading"
FULL = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 3.25 GiB is "
    "free. Including non-PyTorch memory, this process has 20.39 GiB memory in use."
)
CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Plays a machine with such a torch and so many GPUs; ``first`` is called by the first computation there."""

    def make(cuda, gpus=0, hip=None, warned="", first=None):
        def is_available():
            if warned:
                warnings.warn(
                    f"CUDA initialization: {warned} (Triggered internally at CUDAFunctions.cpp:119.)", stacklevel=1
                )
            return gpus > 0

        for name, value in (("cuda", cuda), ("hip", hip)):
            monkeypatch.setattr(torch.version, name, value)
        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch, "ones", lambda *_, **__: first())

    return make


def test_a_device_is_usable_where_it_computes(device):
    assert usable_device(str(device)) == device


@pytest.mark.parametrize(
    "name", ["gpu", "mps", "meta", "cuda:", "cuda:-1", "cuda:one", "cuda:0x", "cpu:1", "cuda:1 ", ""]
)
def test_an_unknown_device_is_refused_before_torch_is_asked(name, machine):
    machine("13.0", gpus=1)
    refused(rf"needed cpu, cuda, or cuda:N .*got '{name}'", usable_device, name)


def test_a_build_for_the_cpu_is_told_from_a_missing_driver_and_an_old_one(machine):
    machine(None)
    refused(r"this torch, .*, is a build for the CPU alone; install one with CUDA", usable_device, "cuda")
    machine("12.8")
    refused("built for CUDA 12.8 and finds no GPU or no driver; the command nvidia-smi", usable_device, "cuda")
    machine(None, hip="6.4")
    refused("built for ROCm 6.4 and finds no GPU", usable_device, "cuda")
    machine("13.0", warned=OLD)
    with pytest.raises(ValueError, match="torch says: CUDA initialization: The NVIDIA driver") as error:
        usable_device("cuda:0")
    assert str(error.value).endswith("by downloading")
    assert len(str(error.value).splitlines()) == 1


def test_a_gpu_that_is_not_there_and_one_that_computes_nothing_are_refused(machine):
    machine("13.0", gpus=1)
    refused("torch sees one GPU, cuda:0 here, and no cuda:1", usable_device, "cuda:1")
    machine("13.0", gpus=3)
    refused("torch sees 3 GPUs, cuda:0 to cuda:2 here, and no cuda:3", usable_device, "cuda:3")

    def fail():
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore\nlines")

    machine("13.0", gpus=1, first=fail)
    with pytest.raises(ValueError, match="torch says: CUDA error: no kernel image is available") as error:
        usable_device("cuda")
    assert len(str(error.value).splitlines()) == 1


def test_missing_memory_says_what_was_needed_and_what_was_free():
    text = missing_memory(torch.OutOfMemoryError(FULL))
    assert text.startswith("the GPU has too little memory: torch tried to allocate 20.00 GiB. GPU 0 has")
    assert text.endswith("of which 3.25 GiB is free")
    assert missing_memory(torch.OutOfMemoryError("HIP out of memory.\nmore")).endswith(": HIP out of memory")


def test_versions_of_a_gpu_name_it_its_driver_and_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card, {device}")
    monkeypatch.setattr(provenance.shutil, "which", lambda name: f"/bin/{name}")
    found = SimpleNamespace(stdout="580.159.04\n580.159.04\n")
    monkeypatch.setattr(provenance.subprocess, "run", lambda command, **_: found)
    told = versions(torch.device("cuda:1"))
    assert (told["device"], told["driver"], told["cuda"]) == ("a card, cuda:1", "580.159.04", "13.0")
    assert told.keys() - versions(CPU).keys() == {"driver", "cuda"}

    def fail(command, **_):
        raise subprocess.TimeoutExpired(command, 20)

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    assert "driver" not in versions(torch.device("cuda"))
    monkeypatch.setattr(provenance.shutil, "which", lambda name: None)
    assert versions(torch.device("cuda"))["cuda"] == "13.0"


@pytest.mark.parametrize("measured, other", [("CPU, 2 threads", "cuda"), ("NVIDIA H200", "cpu")])
def test_results_of_one_kind_of_device_are_not_replaced_by_those_of_the_other(tmp_path, measured, other):
    file = tmp_path / "results.json"
    refuse_other_device(file, torch.device(other))  # there is no file
    for text in ("no JSON", "[]", "{}", '{"versions": {}}'):
        file.write_text(text)
        refuse_other_device(file, torch.device(other))
    file.write_text(json.dumps({"versions": {"device": measured}}))
    refused(
        f"holds results of another device, {measured}; name another file",
        refuse_other_device,
        file,
        torch.device(other),
    )
    refuse_other_device(file, torch.device("cpu" if other == "cuda" else "cuda"))
