"""The benchmark of whole networks: tables, tracking and clips of all layers."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from convkit.audit.table import layer_table
from convkit.audit.tracker import NormTracker
from convkit.bench.baselines import (
    power_method,
    resnet18,
    two_lines_clip,
)
from convkit.bench.case import Case, Task, numpy_kernel
from convkit.constraints.clip import clip_operator_norm
from convkit.constraints.muon import ConvMuon
from convkit.models import resnet
from convkit.models.layers import batchnorm_layer
from convkit.operators.network import conv_operators, input_shapes
from convkit.randomness import seeded


def network_cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield the cases of whole networks: a ResNet-18 with its first weights on 64 x 64 pixels."""
    widths = (8, 16, 32, 64) if quick else (64, 128, 256, 512)
    with seeded(0):
        model = resnet18(widths).to(device)
        images, labels = torch.randn(32, 3, 64, 64).to(device), torch.randint(1000, (32,)).to(device)
    what = f"ResNet-18 of {widths[0]} to {widths[-1]} channels, 64 x 64"
    x = images[:1]
    operators = [A for A in conv_operators(model, x).values() if max(A.input_shape) > 1]
    name = "power method, 100 steps, each convolution"
    baselines: dict[str, Task] = {name: lambda: [power_method(A, 100) for A in operators]}
    for torus in (False, True):
        inputs = f"{what}, {'norms of the torus' if torus else 'norms converged'}"
        yield Case(
            "table of all layers", inputs, partial(layer_table, model, x, torus=torus, progress=False), baselines
        )
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    refresh = 5 if quick else 50
    tracker = NormTracker(model, x, refresh)
    tracker.update()
    name = f"{refresh} steps of training, batch 32"
    yield Case(
        f"NormTracker, {refresh} updates",
        f"{what}, one of them a refresh",
        lambda: [tracker.update() for _ in range(refresh)],
        {name: lambda: [step() for _ in range(refresh)]},
        {} if quick else {name: 4},
        "half of an update is convolutions with the few vectors that follow a layer, too few for the speed of a batch",
    )
    kernels = {name: p.detach().clone() for name, p in model.named_parameters()}
    idle = torch.optim.SGD(model.parameters(), 0.0)
    clip_operator_norm(idle, model, input_shapes(model, x), bound=1.0, every=1)

    def clip() -> None:
        with torch.no_grad():
            for name, kernel in kernels.items():
                model.get_parameter(name).copy_(kernel)
        idle.step()

    tori = [A.torus() for A in operators]
    lines = [partial(two_lines_clip, numpy_kernel(A), A.input_shape, 1.0) for A in tori if A.stride == (1, 1)]
    name = "the paper's listing, layers without a stride"
    yield Case("clip of all layers", f"{what}, bound 1", clip, {name: lambda: [task() for task in lines]})
    yield _steps(device, quick)


def _steps(device: torch.device, quick: bool) -> Case:
    """Return the case of a training step with ``ConvMuon``, on images of CIFAR-10's size."""
    widths, count = ((8, 16, 32, 64), 8) if quick else ((64, 128, 256, 512), 128)
    with seeded(0):
        images, labels = torch.randn(count, 3, 32, 32).to(device), torch.randint(10, (count,)).to(device)

    def training(make: Callable[[nn.Module], torch.optim.Optimizer]) -> Task:
        with seeded(0):
            model = resnet.resnet18(batchnorm_layer, widths[0] / 64).to(device)
        optimizer = make(model)

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

        return step

    def muon(model: nn.Module, flattened: bool = False) -> ConvMuon:
        return ConvMuon(model, input_shapes(model, images[:1]), flattened=flattened)

    baselines = {
        "Muon on flattened kernels": training(partial(muon, flattened=True)),
        "SGD with momentum": training(lambda model: torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)),
    }
    inputs = f"ResNet-18 of {widths[0]} to {widths[-1]} channels, {count} images of 32 x 32"
    target = {"Muon on flattened kernels": 1 / 1.3}
    limit = "the exact norm of each step takes most of what is added, its polar factors the rest"
    return Case("training step, ConvMuon", inputs, training(muon), baselines, target, limit)
