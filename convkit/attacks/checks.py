"""Argument checks and helpers shared by the attacks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.checks import Registry, described, number, plain, positive
from convkit.operators.dtypes import input_dtype
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.randomness import drawing

Norm = Literal["inf", "2"] | float  # of a perturbation: 2 or infinity
Read = Callable[[Tensor, Callable[..., object]], None]  # of numbers in a tensor, and a check that takes them


def at_once(numbers: Tensor, check: Callable[..., object]) -> None:
    """Call ``check`` with the numbers of a 1-D tensor."""
    check(*numbers.tolist())


@contextmanager
def at_the_end() -> Iterator[Read]:
    """Context manager that yields a function like ``at_once`` which reads numbers on a GPU at the end, in one copy.

    Each copy waits for the GPU. If an exception is raised before the end, the checks come first: what they find may be
    its cause.
    """
    left: list[tuple[Tensor, Callable[..., object]]] = []

    def read(numbers: Tensor, check: Callable[..., object]) -> None:
        if numbers.is_cuda:
            left.append((numbers, check))
        else:
            at_once(numbers, check)

    def finish() -> None:
        if left:
            values = iter(torch.cat([numbers.double() for numbers, _ in left]).tolist())
            for numbers, check in left:
                check(*(next(values) for _ in numbers))

    try:
        yield read
    except Exception:
        finish()
        raise
    finish()


class Loss(Protocol):
    """A function of logits ``(N, classes)`` and labels ``(N,)`` that returns one number per image, ``(N,)``."""

    def __call__(self, logits: Tensor, y: Tensor, /) -> Tensor: ...


@contextmanager
def borrowed(model: nn.Module, x: Tensor, frozen: bool = False) -> Iterator[nn.Module]:
    """Context manager that yields a copy of the network in evaluation mode; the network itself is left alone.

    ``x`` is a batch to initialize lazy parameters with. No gradient reaches the network's weights, and with ``frozen``
    none reaches those of the copy. Raises ``TypeError`` for what is no module, ``ValueError`` for weights on the meta
    device, and inside for images of another dtype than the weights where the network does not take them.
    """
    check_network(model)

    def ice(parameter: Tensor) -> Tensor:
        return nn.Parameter(parameter.data, False)

    with torch.inference_mode(False), evaluation_copy(model, x, ice if frozen else apart, compiled=True) as copy:
        try:
            yield copy
        except RuntimeError as error:
            wanted = input_dtype(model)
            if wanted in (None, x.dtype) or "type" not in str(error):
                raise
            raise ValueError(
                f"images must have the dtype of the network's weights, {wanted}, got {x.dtype}; use x.to({wanted}), or "
                "model.to(x.dtype)"
            ) from error


def check_network(model: object) -> None:
    """Raise ``TypeError`` for what is no module, and ``ValueError`` for weights on the meta device."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}; wrap it in one")
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise ValueError("needed a network whose weights have their numbers, got some on the meta device; load them")


def own_copy(t: Tensor) -> Tensor:
    """Return ``t`` detached, and cloned if it is an inference tensor, which autograd could not use."""
    with torch.inference_mode(False):
        return t.clone() if t.is_inference() else t.detach()


def check_limits(low: object, high: object) -> tuple[float, float]:
    """Return the limits of an attack as plain numbers, infinity included; raise ``ValueError`` unless low < high."""
    found = plain(low), plain(high)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in found) or not found[0] < found[1]:
        raise ValueError(
            f"low must be a number below high, got {described(low)} and {described(high)}; images have 0 and 1, and "
            "points that may be anywhere -math.inf and math.inf"
        )
    return float(found[0]), float(found[1])


def check_images(x: Tensor, read: Read = at_once, limits: tuple[float, float] = (0.0, 1.0)) -> None:
    """Raise ``ValueError`` unless ``x`` is a batch of floating-point images ``(N, ...)`` in [0, 1], or the limits."""
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"needed a batch of images (N, ...) with N >= 1, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {x.dtype}; divide by 255 first")

    def check(low: float, high: float) -> None:
        if limits != (0, 1) and not (limits[0] <= low and high <= limits[1] and high - low < math.inf):
            raise ValueError(
                f"inputs must be finite and lie in [{limits[0]:g}, {limits[1]:g}], the low and high of the attack, got "
                f"values from {low:.4g} to {high:.4g}; give other limits"
            )
        if limits == (0, 1) and not (low >= 0 and high <= 1):  # so written, NaN ends here too
            raise ValueError(
                f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; normalization belongs inside the "
                "model, as its first step (the mean and std of build_model, or nn.Sequential(normalize, model)), so "
                "that eps and step keep the units of the picture"
            )

    read(torch.stack(torch.aminmax(x.detach())), check)


def check_labels(y: Tensor, x: Tensor, name: str = "labels") -> None:
    """Raise ``ValueError`` unless ``y`` holds one int64 number per image of ``x``."""
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(
            f"{name} must be class numbers, int64 of shape {(len(x),)}, got {y.dtype} of shape {tuple(y.shape)}; "
            "y.long().flatten() has these where y holds one whole number per image"
        )


def check_classes(y: Tensor, classes: int, name: str = "labels", read: Read = at_once) -> Tensor:
    """Return the labels, limited to 0 .. classes - 1; raise ``ValueError`` unless they lie there.

    Where that is raised at the end, the limited ones are safe until then: as an index the others would stop a GPU.
    """

    def check(low: float, high: float) -> None:
        if low < 0 or high >= classes:
            raise ValueError(
                f"{name} must lie in 0 .. {classes - 1}, the model has {classes} outputs, got {int(low)} .. "
                f"{int(high)}; give the model as many outputs as there are classes"
            )

    read(torch.stack(torch.aminmax(y)), check)
    return y.clamp(0, classes - 1)


def check_logits(logits: Tensor, x: Tensor, read: Read = at_once) -> None:
    """Raise ``ValueError`` unless the logits are finite and of shape ``(N, classes)``, at least two classes."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        needed = f"the model must return logits of shape (N, classes), at least two classes, for a batch of {len(x)}"
        if shape in ((len(x),), (len(x), 1)):
            raise ValueError(
                f"{needed}, got {shape}: one logit z per image; [0, z] are two for the labels 0 and 1, by "
                "nn.Sequential(model, TwoLogits()) with class TwoLogits(nn.Module): def forward(self, z): "
                "return nn.functional.pad(z.reshape(-1, 1), (1, 0))"
            )
        raise ValueError(f"{needed}, got {shape}; wrap it in a module that does")
    check_finite(logits.isfinite().all(), read)


def check_finite(finite: Tensor, read: Read = at_once) -> None:
    """Raise ``ValueError`` unless all logits were found finite."""

    def check(finite: float) -> None:
        if not finite:
            raise ValueError(
                "the model must return finite logits, got NaN or infinity; look for where training diverged or for a "
                "layer that divides by zero"
            )

    read(finite.view(1), check)


def check_size(name: str, value: float | Tensor, x: Tensor, above: bool = False, read: Read = at_once) -> Tensor:
    """Return ``value``, one number or one per image, as a tensor that broadcasts over ``x``.

    One number stays on the CPU, where it is checked without waiting; torch takes it as a factor of tensors on a GPU.
    Raises ``ValueError`` for other shapes and for numbers that are not at least 0 (``above``: above 0).
    """
    device = value.device if isinstance(value, Tensor) else "cpu"
    sizes = torch.as_tensor(value, dtype=x.dtype, device=device)
    if sizes.ndim and sizes.shape != x.shape[:1]:
        wanted = f"one number, or one number per image, shape {(len(x),)}"
        raise ValueError(f"{name} must be {wanted}, got shape {tuple(sizes.shape)}")
    advice = "; it is in the units of images in [0, 1], such as 8 / 255"

    def check(*extremes: float) -> None:
        for extreme in extremes:
            positive(name, extreme, advice) if above else number(name, extreme, 0, advice=advice)

    read(torch.stack(sizes.detach().aminmax()), check)
    if sizes.ndim:
        return sizes.to(x.device).view(-1, *[1] * (x.ndim - 1))
    return sizes if sizes.device.type == "cpu" else sizes.to(x.device)


def check_norm(norm: Norm) -> float:
    """Return 2.0 or ``math.inf``, the largest change of a coordinate; raise ``ValueError`` for another norm."""
    found = {"inf": math.inf, "2": 2.0}.get(norm) if isinstance(norm, str) else plain(norm)
    if found not in (2.0, math.inf):
        raise ValueError(f'norm must be "inf" or 2, got {described(norm)}; for another one project the images yourself')
    return float(found)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image, ``(N,)``."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other logit minus that of ``y`` for each image: positive where the model gets it wrong."""
    others = logits.scatter(1, y[:, None], -math.inf)
    return others.amax(1) - logits.gather(1, y[:, None])[:, 0]


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``log((1 - p) / p)`` for the probability p of ``y``, accurate even where p rounds to 1."""
    return logits.scatter(1, y[:, None], -math.inf).logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


LOSSES: Registry[Loss] = Registry("LOSSES", {"ce": cross_entropy, "margin": margin})


def chosen_loss(loss: str | Loss) -> Loss:
    """Return the loss of this name, or the function itself; raise ``UnknownNameError`` for an unknown name."""
    return loss if callable(loss) else LOSSES[loss]


def uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape of ``x``, from a generator on any device or the global one."""
    return _drawn(torch.rand, x, generator)


def gaussian(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return standard normal numbers of the shape of ``x``, from a generator on any device or the global one."""
    return _drawn(torch.randn, x, generator)


def _drawn(draw: Callable[..., Tensor], x: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None:
        return draw(x.shape, dtype=x.dtype, device=generator.device, generator=generator).to(x.device)
    with drawing(x.device) as generator:
        return draw(x.shape, dtype=x.dtype, device=x.device, generator=generator)
