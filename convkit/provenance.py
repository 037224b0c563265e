"""The versions and the hardware that a measured number depends on."""

import platform

import numpy as np
import scipy
import torch


def versions(device: torch.device) -> dict[str, str]:
    """Return device, machine, and the versions of Python, torch, NumPy and SciPy, by name."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
