"""The hardware and the versions that a measured number depends on."""

import contextlib
import json
import platform
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import scipy
import torch


def versions(device: torch.device) -> dict[str, str]:
    """Return device, machine, and the versions of Python, torch, NumPy and SciPy, by name; of a GPU also those of its
    driver, if it is known, and of CUDA.
    """
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        **(_gpu_versions() if cuda else {}),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def usable_device(name: str) -> torch.device:
    """Return the device of the option ``--device``: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises ``ValueError`` with a sentence, in torch's words where it has any, that says why it cannot be used.
    """
    reason = _unusable(name)
    if reason:
        raise ValueError(f"--device {name} cannot be used here: {reason}")
    return torch.device(name)


def missing_memory(error: torch.OutOfMemoryError) -> str:
    """Return torch's words on how much memory was needed and how much was free."""
    found = re.search(r"Tried to allocate .*? is free", str(error), re.DOTALL)
    return "the GPU has too little memory: " + (
        found[0].replace("Tried", "torch tried") if found else _first_line(error)
    )


def refuse_other_device(file: Path, device: torch.device) -> None:
    """Raise ``ValueError`` if the file holds results of a CPU and ``device`` is a GPU, or the reverse."""
    measured = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # then it holds no results
        measured = str(json.loads(file.read_text(encoding="utf-8"))["versions"]["device"])
    if measured is not None and measured.startswith("CPU") != (device.type == "cpu"):
        raise ValueError(f"{file} holds results of another device, {measured}; name another file with --json")


# ---- private ---------------------------------------------------------------------------------------------------------
def _unusable(name: str) -> str:
    """Return why the device cannot be used, ``""`` where it can: a GPU is asked for a first sum."""
    if re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name) is None:
        return f"needed cpu, cuda, or cuda:N for the GPU number N, got {name!r}"
    device = torch.device(name)
    if device.type == "cpu":
        return ""
    with warnings.catch_warnings(record=True) as warned:  # of an old driver, before it says that there is no GPU
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return _no_gpu([str(warning.message) for warning in warned])
    if device.index is not None and device.index >= count:
        seen = "one GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
        return f"torch sees {seen} here, and no {name}"
    try:
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        return f"torch says: {_first_line(error)}"
    return ""


def _no_gpu(words: list[str]) -> str:
    """Return why torch finds no GPU, in its own ``words`` where it warned."""
    if torch.version.cuda is None and torch.version.hip is None:
        build = f"this torch, {torch.__version__}, is a build for the CPU alone"
        return f"{build}; install one with CUDA (README.md, On a GPU)"
    if words:
        return f"torch says: {_first_line(words[0])}"
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    return (
        f"this torch is built for {built} and finds no GPU or no driver; the command nvidia-smi lists the GPUs that "
        "the driver knows, and the variable CUDA_VISIBLE_DEVICES may hide them"
    )


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].split(" (Triggered internally")[0].rstrip(". ")


def _gpu_versions() -> dict[str, str]:
    """Return the versions of the driver, unless nvidia-smi is missing or fails, and of CUDA or ROCm."""
    found: dict[str, str] = {}
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
            found["driver"] = done.stdout.split()[0]
    return found | {name: str(v) for name, v in (("cuda", torch.version.cuda), ("rocm", torch.version.hip)) if v}
