"""What the tests of hooks, penalties and audits share: a small network of many geometries, its steps, safe files."""

import io

import torch
from torch import nn, optim

from tests.helpers.geometries import normal


def network(device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Rows of 27, 10 and 48 entries, a stride, groups, a rectangular kernel, both boundaries, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, (1, 5), padding=(0, 2), groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 8, (4, 2), stride=2, padding="valid"),
        nn.ReLU(),
        nn.Conv2d(8, 5, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(5 * 3 * 4, 3),
    ).to(device, dtype)


def random_batchnorms(model: nn.Module) -> nn.Module:
    """The model, with running statistics and gains that are not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.normal_(module.bias)
    return model


def batch(device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return normal(7, 3, 8, 8, device=device, dtype=dtype, seed=seed)


def kernels(model: nn.Module) -> dict[str, nn.Parameter]:
    return {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        x = batch(next(model.parameters()).device, next(model.parameters()).dtype, seed=step)
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def saved(*things) -> list:
    """Through a file and back, tensors and plain numbers only."""
    file = io.BytesIO()
    torch.save([thing.state_dict() for thing in things], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def sgd(model: nn.Module, lr: float = 0.1, **options) -> optim.SGD:
    return optim.SGD(model.parameters(), lr=lr, **options)
