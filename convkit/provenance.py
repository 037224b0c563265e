"""What a measured number depends on: versions of the packages, device, threads."""

import platform

import numpy as np
import scipy
import torch


def versions(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
