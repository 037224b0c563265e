"""A small trained network for the benchmark of attacks."""

import torch
from torch import nn

from convkit.randomness import seeded


def trained_on_stripes(width: int, count: int, device: torch.device) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network, trained for a few steps on faint stripes of four directions, images, and its answers."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(32.0)
    waves = [place[None, :], place[:, None], place[None, :] + place[:, None], place[None, :] - place[:, None]]
    stripes = torch.stack([torch.sin(0.8 * wave).expand(32, 32) for wave in waves])

    def draw(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.randint(4, (number,), generator=generator)
        noise = torch.rand(number, 3, 32, 32, generator=generator)
        return (0.5 + 0.08 * stripes[y][:, None] + 0.6 * (noise - 0.5)).clamp(0, 1).to(device), y.to(device)

    with seeded(0):
        sizes = [(3, 1), (width, 2), (width, 1), (width, 2)]
        layers = [
            m
            for c, stride in sizes
            for m in (nn.Conv2d(c, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        ]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(40):
        x, y = draw(64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    model.eval()
    x, _ = draw(count)
    with torch.no_grad():
        return model, x, model(x).argmax(1)
