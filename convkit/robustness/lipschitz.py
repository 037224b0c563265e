"""Local slopes of a network and robust radii of its images, each exact or a bound from a stated side."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    Norm,
    borrowed,
    check_classes,
    check_finite,
    check_images,
    check_labels,
    check_logits,
    check_norm,
    check_size,
    gaussian,
    margin,
    own_copy,
)
from convkit.attacks.gradient import pgd
from convkit.checks import number, whole


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the logit of each label minus the best other one, ``(N,)``: positive where the model is right.

    ``x`` is a batch ``(N, ...)``, ``y`` holds class numbers ``(N,)``. Exact, in evaluation mode, without gradient.
    Raises ``ValueError`` for labels or logits that are out of range.
    """
    check_labels(y, x)
    x, y = own_copy(x), own_copy(y)
    with borrowed(model, x) as copy, torch.no_grad():
        logits = copy(x.clone())  # a first step may be in place
    check_logits(logits, x)
    check_classes(y, logits.shape[1])
    return -margin(logits, y)


def certified_radius(model: nn.Module, x: Tensor, y: Tensor, bound: float) -> Tensor:
    """Return ``margins / (sqrt(2) * bound)`` per image, ``(N,)``: no smaller change in 2-norm changes the prediction.

    A lower bound of the true radius. ``bound`` is an upper bound of the network's Lipschitz constant in 2-norms, such
    as ``product_bound(model, x)``: the difference of two logits is then ``sqrt(2) * bound``-Lipschitz (Tsuzuku et al.
    2018). 0 where the model is wrong. Raises ``ValueError`` for a negative bound and labels or logits out of range.
    """
    bound = number("bound", bound, 0, advice="; product_bound(model, x) gives one")
    # the margin over 0 is infinite: a constant network never changes its answer
    return margins(model, x, y).clamp(min=0) / (math.sqrt(2) * bound)


def empirical_radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    largest: float,
    norm: Norm = 2,
    steps: int = 20,
    bisections: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the size of the smallest change found that makes the model wrong, per image, ``(N,)``.

    An upper bound of the true radius, since a smaller change may exist. Found by bisection of ``eps`` in ``pgd`` on the
    margin, with ``steps`` steps each, starting from ``largest``, for all images at once; the result is the size of the
    change itself in ``norm``, ``"inf"`` or 2. 0 where the model is wrong anyway, infinity where ``largest`` was not
    enough. Raises ``ValueError`` for images, labels, sizes or logits that are out of range.
    """
    check_images(x)
    number = check_norm(norm)
    top = float(check_size("largest", largest, x, above=True))
    bisections = whole("bisections", bisections, 1)
    right = margins(model, x, y) > 0
    found = torch.where(right, x.new_tensor(math.inf), x.new_zeros(()))
    low, eps = x.new_zeros(len(x)), x.new_full((len(x),), top)
    for _ in range(bisections + 1):
        at = pgd(model, x, y, eps, 2.5 / steps * eps, steps, number, loss="margin", generator=generator)
        fooled = margins(model, at, y) <= 0
        sizes = torch.linalg.vector_norm((at - x).flatten(1), number, dim=1)
        found = torch.where(right & fooled, torch.minimum(found, sizes), found)
        low = torch.where(fooled, low, torch.maximum(low, eps))
        high = found.clamp(max=top)
        eps = torch.where(right, (torch.minimum(low, high) + high) / 2, top)
        if not (right & (found < math.inf)).any():
            break  # whoever survived the largest is not asked about less
    return found


def jacobian_norm(
    model: nn.Module,
    x: Tensor,
    ord: Norm = 2,
    steps: int = 30,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the operator norm of the network's derivative at each image, ``(N,)``.

    For ``ord`` 2 by ``steps`` steps of power iteration with Jacobian-vector and vector-Jacobian products, a lower
    bound. For ``ord`` infinity the largest 1-norm of a logit's gradient, by one vector-Jacobian product per class,
    exact. At the kink of a ReLU it is the derivative of the piece that autograd chooses. Raises ``ValueError`` for
    images, steps or logits that are out of range.
    """
    number = check_norm(ord)
    steps = whole("steps", steps, 1)
    with borrowed(model, x) as copy:
        x, answer, size = _prepared(copy, x)
        if number == math.inf:
            result = _gradients(answer, x).abs().flatten(2).sum(2).amax(0)
        else:
            direction, result, power_step = gaussian(x, generator), x.new_zeros(len(x)), _power_steps(answer, x)
            for _ in range(steps):
                direction, stretched = power_step(direction / size(direction))
                result = torch.maximum(result, stretched)
    check_finite(result.isfinite().all())
    return result


def local_lipschitz(
    model: nn.Module,
    x: Tensor,
    radius: float,
    norm: Norm = 2,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the largest ``|f(a) - f(b)| / |a - b|`` found for a and b within ``radius`` of each image, ``(N,)``.

    A lower bound of the local Lipschitz constant, attained by two evaluated points. Both points follow the gradient of
    the ratio by shrinking steps, once from far apart and once from close together, starting along the direction in
    which the network is steepest at the image. ``norm``, ``"inf"`` or 2, is that of inputs and outputs alike. The ball
    is not cut at [0, 1], and ``x`` may lie anywhere. For small radii use float64 for model and images, since rounding
    errors show otherwise. Raises ``ValueError`` for images, sizes, steps or logits that are out of range.
    """
    number = check_norm(norm)
    size = float(check_size("radius", radius, x, above=True))
    steps = whole("steps", steps, 1)
    with borrowed(model, x) as copy:
        x, answer, length = _prepared(copy, x)
        if number == math.inf:
            rows = _gradients(answer, x)
            steepest = rows.abs().flatten(2).sum(2).argmax(0)
            direction = rows[steepest, torch.arange(len(x), device=x.device)].sign()
        else:
            direction, power_step = gaussian(x, generator), _power_steps(answer, x)
            for _ in range(10):
                direction, _ = power_step(direction / length(direction))
        direction = direction / length(direction, number)
        best = x.new_zeros(len(x))
        for start in (size, size / 50):
            pair = torch.stack((start * direction, -start * direction))
            for turn in range(steps + 1):
                pair = pair.detach().requires_grad_()
                ratio = _ratio(answer, x, pair, number, nearest=1e-2 * size)
                best = torch.maximum(best, ratio.detach())
                if turn == steps:
                    break
                (slope,) = torch.autograd.grad(ratio.sum(), pair)
                moves = slope.sign() if number == math.inf else torch.stack([part / length(part) for part in slope])
                pair = pair.detach() + start / 2 * (1 - turn / steps) * moves
                pair = torch.stack([part * (size / length(part, number)).clamp(max=1) for part in pair])
    check_finite(best.isfinite().all())
    return best


# ---- private -------------------------------------------------------------------------------------------------------
def _prepared(model: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[..., Tensor]]:
    """Return the images, the network as a differentiable function, and a function for norms per image (never 0)."""
    if not x.is_floating_point() or x.ndim < 2 or not x.numel():
        raise ValueError(f"needed floating point images (N, ...), N >= 1, got {x.dtype} of shape {tuple(x.shape)}")
    x = own_copy(x)
    with torch.no_grad():
        check_logits(model(x.clone()), x)

    def answer(at: Tensor) -> Tensor:
        return model(at.clone())  # a first step may be in place

    def length(at: Tensor, norm: float = 2.0) -> Tensor:
        sizes = torch.linalg.vector_norm(at.flatten(1), norm, dim=1).clamp(min=torch.finfo(at.dtype).tiny)
        return sizes.view(-1, *[1] * (at.ndim - 1))

    return x, answer, length


def _ratio(answer: Callable[[Tensor], Tensor], x: Tensor, pair: Tensor, norm: float, nearest: float) -> Tensor:
    """Return the change of the logits over that of the image, and 0 for points so near that rounding decides."""
    change = torch.linalg.vector_norm(answer(x + pair[0]) - answer(x + pair[1]), norm, dim=1)
    distance = torch.linalg.vector_norm((pair[0] - pair[1]).flatten(1), norm, dim=1)
    return torch.where(distance >= nearest, change / distance.clamp(min=nearest), 0)


def _gradients(answer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of each logit, ``(classes, N, ...)``."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        logits = answer(at)
        return torch.stack([_slope(logits, at, unit) for unit in torch.eye(logits.shape[1], device="cpu").to(logits)])


def _power_steps(answer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function ``step(d) -> (J^T J d, |J d|)``, per image; ``d`` itself where the product is 0.

    ``J d`` is the derivative of ``J^T v`` by v: this takes two backward passes, which every layer of the kit allows,
    and all steps share one forward pass.
    """
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        logits = answer(at)
        v = torch.zeros_like(logits, requires_grad=True)
        pulled = _slope(logits, at, v, create_graph=True)

    def step(direction: Tensor) -> tuple[Tensor, Tensor]:
        moved = _slope(pulled, v, direction)
        back = _slope(logits, at, moved)
        alive = (back.flatten(1) != 0).any(1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(alive, back, direction).detach(), moved.norm(dim=1).detach()

    return step


def _slope(of: Tensor, by: Tensor, weights: Tensor, create_graph: bool = False) -> Tensor:
    """Return the gradient of ``(of * weights).sum()``; 0 where nothing depends on ``by``."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    how = {"retain_graph": True, "create_graph": create_graph, "materialize_grads": True}
    return torch.autograd.grad(of, by, weights.expand_as(of), **how)[0]
