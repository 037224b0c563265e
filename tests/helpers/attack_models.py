"""Small networks and images that the tests of attacks share."""

import copy
import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def digits(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Handwritten digits ``(count, 1, 8, 8)`` in [0, 1] and their labels."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    part = slice(first, first + count)
    return torch.tensor(x[part], dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(y[part])


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((copy.deepcopy(model).eval()(x).argmax(1) == y).float().mean())


def small_network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.1), nn.Linear(12 * 16, 10)),
    )


@functools.cache
def _trained() -> nn.Sequential:
    torch.manual_seed(0)
    x, y = digits(1000, 500)
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def trained_network() -> nn.Sequential:
    """A small network that reads digits well, in training mode; it is trained once in a process."""
    return copy.deepcopy(_trained())


def linear_model(inputs: int = 20, classes: int = 2, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).to(dtype)


class Counting(nn.Module):
    """A model that counts the images it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked, self.calls = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked, self.calls = self.asked + len(x), self.calls + 1
        return self.model(x)
