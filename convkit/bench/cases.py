"""The questions of the benchmark: what the kit answers, beside what is used for it today."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from convkit.attacks.blackbox import simba
from convkit.attacks.gradient import pgd
from convkit.bench.baselines import (
    PlainConvNorm,
    gram_iteration,
    power_method,
    svdvals_of_full_symbol,
    theorem_1,
    two_lines,
    two_lines_clip,
)
from convkit.data.trained import trained_kernels
from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import certify, operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections import clip_and_crop, clip_reshaped_kernel
from convkit.randomness import seeded
from convkit.spectra import leading_singular_values, singular_values

Task = Callable[[], Any]


@dataclass
class Contest:
    """One question, our answer and those of others; ``targets``: how many times faster than each we want to be."""

    question: str
    case: str
    ours: Task
    others: dict[str, Task]
    targets: Mapping[str, float] = field(default_factory=dict)


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    """All questions, easier ones first; ``quick`` leaves out whatever takes minutes."""
    yield from _spectra(device, quick)
    yield from _norms(device, quick)
    yield from _gradients(device, quick)
    yield from _strides(device)
    yield from _cheap_norms(device, quick)
    yield from _clips(device, quick)
    yield from _zero_padding(device, quick)
    yield from _convnorm(device, quick)
    yield from _attacks(device, quick)


def random_operator(c_out: int, c_in: int, n: int, k: int, device: torch.device, dtype=torch.float64) -> ConvOperator:
    generator = torch.Generator().manual_seed(c_out + c_in + n + k)
    kernel = torch.randn(c_out, c_in, k, k, generator=generator, dtype=torch.float64) / (k * c_in**0.5)
    return ConvOperator(kernel.to(device, dtype), (n, n))


def _numpy_kernel(A: ConvOperator) -> np.ndarray:
    return A.kernel.detach().cpu().permute(2, 3, 0, 1).numpy()


def _two_lines(A: ConvOperator) -> Task:
    kernel = _numpy_kernel(A)
    return lambda: two_lines(kernel, A.input_shape)


def _spectra(device: torch.device, quick: bool) -> Iterator[Contest]:
    sizes = [(16, 16, 32, 3), (64, 64, 32, 3), (128, 128, 16, 3), (256, 256, 8, 3), (64, 3, 32, 3), (64, 64, 32, 1)]
    if not quick:
        sizes += [(64, 64, 16, 3), (512, 512, 4, 3), (64, 64, 32, 5), (64, 64, 32, 7), (128, 128, 16, 1)]
        sizes += [(200, 200, 16, 3), (50, 50, 64, 11)]  # where the two graphs of Figure 1 of Sedghi et al. begin
    for c_out, c_in, n, k in sizes:
        A = random_operator(c_out, c_in, n, k, device)
        others = {"two NumPy lines": _two_lines(A), "torch svdvals": lambda A=A: svdvals_of_full_symbol(A)}
        target = 25 if k == 1 else 4
        case = f"{c_in} to {c_out} channels, {k} x {k}, {n} x {n}"
        yield Contest("all singular values", case, lambda A=A: singular_values(A), others, {"two NumPy lines": target})
    A = random_operator(8, 8, 12, 3, device)
    dense = {"dense SVD": lambda: torch.linalg.svdvals(A.matrix())}
    yield Contest("all singular values", "8 to 8 channels, 3 x 3, 12 x 12", lambda: singular_values(A), dense)


def _norms(device: torch.device, quick: bool) -> Iterator[Contest]:
    cases = [
        (f"random {c} to {c}", random_operator(c, c, n, 3, device, torch.float32), 12) for c, n in ((64, 32), (128, 16))
    ]
    trained = trained_kernels()
    for name, n in (("64 to 64", 32), ("128 to 128", 16)):
        cases.append((f"trained {name}", ConvOperator(trained[name].to(device), (n, n)), 20))
    if not quick:
        cases.append(("random 128 to 128", random_operator(128, 128, 32, 3, device, torch.float32), 12))
        cases.append(("trained 128 to 128", ConvOperator(trained["128 to 128"].to(device), (32, 32)), 20))
        cases.append(("random 512 to 512", random_operator(512, 512, 32, 3, device, torch.float32), 20))
        mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        mixed = torch.kron(mix[:, :, None, None], trained["128 to 128"])  # all products of their singular values
        cases.append(("trained 128 times random 4: 512", ConvOperator(mixed.to(device), (32, 32)), 60))
    for name, A, target in cases:
        n = A.input_shape[0]
        others: dict[str, Task] = {"two NumPy lines": _two_lines(A)}
        if A.kernel.shape[0] < 512:
            others["Gram iteration, 6 steps"] = lambda A=A: gram_iteration(A, 6)
            others["power method, 500 steps"] = lambda A=A: power_method(A, 500)
            others["our proof that it is below 1.0001 of itself"] = _certificate(A)
        yield Contest(
            "operator norm 2",
            f"{name} channels, 3 x 3, {n} x {n}, float32",
            lambda A=A: operator_norm(A, 2),
            others,
            {"two NumPy lines": target},
        )


def _certificate(A: ConvOperator) -> Task:
    bound = 1.0001 * float(operator_norm(A, 2))
    return lambda: certify(A, bound)


def _gradients(device: torch.device, quick: bool) -> Iterator[Contest]:
    for c, n in ((64, 32), (128, 16)) if not quick else ((64, 32),):
        A = random_operator(c, c, n, 3, device, torch.float32)
        A = ConvOperator(A.kernel.requires_grad_(), A.input_shape)

        def ours(A: ConvOperator = A) -> torch.Tensor:
            return torch.autograd.grad(operator_norm(A, 2), A.kernel)[0]

        def svdvals(A: ConvOperator = A) -> torch.Tensor:
            return torch.autograd.grad(svdvals_of_full_symbol(A).amax(), A.kernel)[0]

        case = f"random {c} to {c} channels, 3 x 3, {n} x {n}, float32"
        name = "autograd through svdvals"
        yield Contest("gradient of operator norm 2", case, ours, {name: svdvals}, {name: 30})


def _strides(device: torch.device) -> Iterator[Contest]:
    A = random_operator(64, 64, 32, 3, device)
    B = ConvOperator(A.kernel, A.input_shape, stride=2)
    name = "ours at stride 1"
    target = {name: 4}  # no dearer than the unstrided one over prod(stride)
    yield Contest(
        "all singular values",
        "64 to 64 channels, 3 x 3, 32 x 32, stride 2",
        lambda: singular_values(B),
        {name: lambda: singular_values(A)},
        target,
    )


def _cheap_norms(device: torch.device, quick: bool) -> Iterator[Contest]:
    # Table 1 of Liang & Huang 2021: kernel size, input channels, output channels; images as in CIFAR-10
    table = [(3, 32, 32), (3, 32, 128), (3, 128, 256)] + (
        [] if quick else [(3, 256, 512), (5, 256, 128), (5, 512, 256)]
    )
    for k, c_in, c_out in table:
        A = random_operator(c_out, c_in, 32, k, device, torch.float32)
        A = ConvOperator(A.kernel, A.input_shape, padding=k // 2, padding_mode="zeros")
        others: dict[str, Task] = {"reading |K| once": lambda A=A: A.kernel.abs().sum()}
        targets = {"reading |K| once": 1 / 3}
        if c_out < 512 and c_in < 512:
            others["two NumPy lines"] = _two_lines(A)
            targets["two NumPy lines"] = 1e4
        others["Theorem 1"] = lambda A=A: theorem_1(A)
        case = f"{c_in} to {c_out} channels, {k} x {k}, 32 x 32"
        for ord in (1, torch.inf):
            name = "l1" if ord == 1 else "l-infinity"
            yield Contest(f"{name} norm", case, lambda A=A, ord=ord: operator_norm(A, ord), others, targets)


def _clips(device: torch.device, quick: bool) -> Iterator[Contest]:
    kernel = trained_kernels()["64 to 64"].to(device)
    for dtype, near, target in (
        (torch.float64, False, 3),
        (torch.float32, False, 6),
        (torch.float32, True, 8),
    ):
        A = ConvOperator(kernel.to(dtype), (32, 32))
        bound = 0.9 * float(operator_norm(A, 2)) if near else 1.0
        listing = _numpy_kernel(A)
        others: dict[str, Task] = {
            "the paper's listing": lambda a=listing, b=bound: two_lines_clip(a, (32, 32), b),
            "reshaped kernel (S 4.4)": lambda A=A, b=bound: clip_reshaped_kernel(A, b),
        }
        case = f"trained 64 to 64 channels, 32 x 32, {'few' if near else 'all'} frequencies offend, {str(dtype)[6:]}"
        yield Contest(
            "clip and crop", case, lambda A=A, b=bound: clip_and_crop(A, b), others, {"the paper's listing": target}
        )


def _zero_padding(device: torch.device, quick: bool) -> Iterator[Contest]:
    for c, n in ((16, 32),) if quick else ((16, 32), (64, 16)):
        A = random_operator(c, c, n, 3, device)
        A = ConvOperator(A.kernel, A.input_shape, padding=1, padding_mode="zeros")
        name = "matrix-free norm"
        others: dict[str, Task] = {name: lambda A=A: leading_singular_values(A, 1)}
        case = f"{c} to {c} channels, 3 x 3, {n} x {n}, zero padding"
        yield Contest("torus bound", case, lambda A=A: operator_norm(A.torus(), 2), others, {name: 12})


def _convnorm(device: torch.device, quick: bool) -> Iterator[Contest]:
    """Forward and backward of a layer in training: what a normalization costs beside the one that everybody uses."""
    sizes = [(64, 64, 32, 1), (128, 128, 16, 1), (256, 256, 8, 1), (512, 512, 4, 1), (64, 128, 32, 2)]
    for c_in, c_out, n, stride in sizes if not quick else sizes[2:3]:
        x = torch.randn(32, c_in, n, n, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
        conv = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        others = {
            "convolution and BatchNorm": _training(nn.Sequential(conv, nn.BatchNorm2d(c_out)), x),
            "the layer as published": _training(PlainConvNorm(c_in, c_out, 3, stride), x),
        }
        for mode, share in (("zeros", 2.0 if stride == 1 else 6.0), ("circular", 1.6)):
            if mode == "circular" and stride > 1:
                continue
            layer = ConvNorm2d(c_in, c_out, 3, stride, 1, padding_mode=mode)
            case = f"32 images, {c_in} to {c_out} channels, 3 x 3, {n} x {n}, stride {stride}, {mode}"
            targets = {"convolution and BatchNorm": 1 / share}
            yield Contest("ConvNorm, forward and backward", case, _training(layer, x), others, targets)


def _training(layer: nn.Module, x: torch.Tensor) -> Task:
    layer = layer.to(x.device)
    with torch.no_grad():
        weights = torch.randn_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), [x, *layer.parameters()], weights)


def _attacks(device: torch.device, quick: bool) -> Iterator[Contest]:
    """Against the Adversarial Robustness Toolbox, where it is installed."""
    if find_spec("art") is None:
        return
    from art.attacks.evasion import ProjectedGradientDescentPyTorch, SimBA
    from art.estimators.classification import PyTorchClassifier

    name, eps, steps = "Adversarial Robustness Toolbox", 8 / 255, 20
    kind = "gpu" if device.type == "cuda" else "cpu"
    for width, count in ((16, 64),) if quick else ((16, 64), (64, 256)):
        model, x, y = _reader_of_stripes(width, count, device)
        images, labels = x.cpu().numpy(), y.cpu().numpy()
        target = PyTorchClassifier(model, nn.CrossEntropyLoss(), (3, 32, 32), 4, clip_values=(0, 1), device_type=kind)
        theirs = ProjectedGradientDescentPyTorch(
            target, eps=eps, eps_step=eps / 4, max_iter=steps, num_random_init=1, batch_size=count, verbose=False
        )
        others: dict[str, Task] = {name: lambda a=theirs, x=images, y=labels: a.generate(x, y)}
        for question, stop in (("PGD, every step taken", False), ("PGD, who survives", True)):
            yield Contest(
                question,
                f"{count} images 3 x 32 x 32, {steps} steps, 4 layers of {width} channels",
                lambda m=model, x=x, y=y, s=stop: pgd(m, x, y, eps, eps / 4, steps, until_wrong=s),
                others,
                {name: 3},
            )
    model, x, y = _reader_of_stripes(16, 32, device)
    odds = nn.Sequential(model, nn.Softmax(1))
    target = PyTorchClassifier(odds, nn.CrossEntropyLoss(), (3, 32, 32), 4, clip_values=(0, 1), device_type=kind)
    faint = 1e-3  # fools nobody, so that all steps are taken
    asks = SimBA(target, attack="px", max_iter=steps, epsilon=faint, verbose=False)
    for count in (1, 32):
        images, labels = x[:count].cpu().numpy(), torch.eye(4)[y[:count].cpu()].numpy()
        yield Contest(
            "SimBA",
            f"{count} image{'s' * (count > 1)} 3 x 32 x 32, {steps} pixels",
            lambda n=count: simba(model, x[:n], y[:n], faint, steps=steps),
            {name: lambda x=images, y=labels: asks.generate(x, y)},
            {name: 3 if count > 1 else 1},
        )


def _reader_of_stripes(width: int, count: int, device: torch.device) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network trained for a few steps to tell four directions of faint stripes, and images that it reads rightly."""
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
