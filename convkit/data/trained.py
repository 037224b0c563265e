"""Kernels of a small trained network, for examples where random kernels are not representative.

``python3 -m convkit.data.trained`` trains it anew (a minute on two cores) and writes the file that the kit ships.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.loading import needs
from convkit.randomness import seeded

FILE = Path(__file__).with_name("trained.npz")
LAYERS = {"64 to 64": 3, "64 to 128": 7, "128 to 128": 10}  # the convolutions whose kernels are stored


def trained_kernels() -> dict[str, Tensor]:
    """Return three kernels ``(c_out, c_in, 3, 3)``, float32, of a network trained on handwritten digits.

    The names are the numbers of channels: ``"64 to 64"``, ``"64 to 128"``, ``"128 to 128"``.
    """
    with np.load(FILE) as file:
        return {name: torch.from_numpy(file[name].astype(np.float32)) for name in LAYERS}


def train(seed: int = 0, epochs: int = 15) -> tuple[nn.Sequential, float]:
    """Return a network of four convolutions, trained on scikit-learn's 8 x 8 digits, and its accuracy on a held-out
    fifth.
    """
    with needs("kit", "training on handwritten digits"):
        from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    with seeded(seed):
        return _trained(images, labels, epochs)


def _trained(images: np.ndarray, labels: np.ndarray, epochs: int) -> tuple[nn.Sequential, float]:
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    order = torch.randperm(len(x))
    test, training = order[: len(x) // 5], order[len(x) // 5 :]
    model = nn.Sequential(
        *(nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
        *(nn.Conv2d(128, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for batch in training[torch.randperm(len(training))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    return model, accuracy


if __name__ == "__main__":
    network, reached = train()
    kernels = {name: network.get_parameter(f"{i}.weight").detach().numpy() for name, i in LAYERS.items()}
    halved: dict[str, Any] = {name: kernel.astype(np.float16) for name, kernel in kernels.items()}
    np.savez_compressed(FILE, **halved)
    print(f"{reached:.1%} of the held-out digits right; {FILE.name} has {FILE.stat().st_size / 1024:.0f} KiB")
