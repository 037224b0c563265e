"""AutoAttack, from the library of its authors."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    borrowed,
    check_classes,
    check_count,
    check_images,
    check_labels,
    check_logits,
    check_norm,
    check_size,
    own_copy,
)

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str | float = "inf",
    attacks: Sequence[str] = STANDARD,
    batch_size: int = 250,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images within ``eps`` of ``x`` on which the model errs, by standard AutoAttack; ``x`` itself where none is found.

    The ensemble of Croce & Hein 2020: APGD on the cross-entropy, APGD on the targeted difference of logits ratio,
    targeted FAB, and Square, a black-box attack of 5000 questions, each on what survived the ones before;
    ``attacks`` runs a part of them. ``x`` is ``(N, C, H, W)``. With fewer than ten classes the targeted attacks take
    all others as targets; at least four are needed. Thousands of passes an image that survives: minutes on a CPU.

    Needs ``pyautoattack``, the extra ``attacks``. The global random state is left as it was.
    """
    check_images(x)
    check_labels(y, x)
    check_count("batch_size", batch_size)
    check_size("eps", eps, x)
    size, kind = float(eps), check_norm(norm)
    if x.ndim != 4:
        raise ValueError(f"AutoAttack needs images of shape (N, C, H, W), got {tuple(x.shape)}")
    if kind == 2 and "square" in attacks and min(x.shape[2:]) < 5:
        raise ValueError(f"Square in the 2-norm needs images of at least 5 x 5, got {tuple(x.shape[2:])}")
    if not attacks or not set(attacks) <= set(STANDARD):
        raise ValueError(f"attacks must be some of {', '.join(STANDARD)}, got {tuple(attacks)}")
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ImportError("autoattack needs pyautoattack, which is not installed: pip install pyautoattack") from error
    x, y = own_copy(x), own_copy(y)
    with borrowed(model), _frozen(model), _untouched(x.device):
        with torch.no_grad():
            logits = model(x[:batch_size])
        check_logits(logits, x[:batch_size])
        classes = logits.shape[1]
        check_classes(y, classes)
        if classes < 4:
            raise ValueError(f"AutoAttack needs at least 4 classes, the model has {classes}; use pgd with restarts")
        home = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**31, (), generator=generator, device=home))
        ask = cast(nn.Module, lambda x: model(x.clone()))  # a first step may be in place; it is only called
        runner = AutoAttack(ask, norm="Linf" if kind == math.inf else "L2", eps=size, seed=seed, device=x.device)
        runner.attacks_to_run = list(attacks)
        runner.fab.n_target_classes = runner.apgd_targeted.n_target_classes = min(9, classes - 1)
        found, _ = runner.run_standard_evaluation(x, y, batch_size=batch_size)
    if kind == math.inf:
        found = torch.minimum(torch.maximum(found, x - size), x + size)  # it may leave the ball by a rounding
    return found.detach().clamp(0, 1)


# ---- private -------------------------------------------------------------------------------------------------------
@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """FAB calls ``backward``: without this its gradients would pile up in the weights."""
    flags = {weight: weight.requires_grad for weight in model.parameters()}
    try:
        for weight in flags:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, flag in flags.items():
            weight.requires_grad_(flag)


@contextmanager
def _untouched(device: torch.device) -> Iterator[None]:
    """The library seeds torch's own generators, and ends whatever traces the program: both are given back."""
    tracer = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        sys.settrace(tracer)
