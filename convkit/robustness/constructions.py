"""The networks of Liang & Huang 2021 that separate norms, Lipschitz constants and robustness, built and certified."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from convkit.attacks.checks import Norm, check_labels, check_norm
from convkit.checks import Registry, positive, whole
from convkit.loading import progress_bar

Activation = Literal["relu", "tanh", "sigmoid"]
ACTIVATIONS: Registry[type[nn.Module]] = Registry(
    "ACTIVATIONS", {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
)


# ---- Proposition 1 ---------------------------------------------------------------------------------------------------
def constant_network(inputs: int, classes: int, size: float, depth: int = 3) -> nn.Sequential:
    """Return a constant ReLU network of ``depth`` linear layers whose norms 1, 2 and infinity are at least ``size``.

    Each layer enlarges two equal copies of the signal, and the last one subtracts them, so that the Lipschitz constant
    is 0 (Proposition 1). That holds exactly in floating point, too, as long as nothing overflows: the factor is
    ``size`` rounded up to a power of two. Takes ``(N, inputs)``, returns ``(N, classes)``, in float64. Raises
    ``ValueError`` for a depth below 2 and a size whose power ``depth`` is not finite.
    """
    inputs, classes, depth = (
        whole(name, count, 1) for name, count in (("inputs", inputs), ("classes", classes), ("depth", depth))
    )
    if depth < 2 or not 0 < size < 2 ** (900 / depth):
        raise ValueError(
            f"needed depth >= 2 and a size above 0 whose power {depth} is finite, got depth {depth}, size {size}"
        )
    factor = 2.0 ** math.ceil(math.log2(size))
    copies = torch.eye(inputs, device="cpu").repeat(2, 1)
    mixed = torch.eye(classes, inputs, device="cpu")
    weights = [copies, *[torch.eye(2 * inputs, device="cpu")] * (depth - 2), torch.cat((mixed, -mixed), 1)]
    return _network([factor * weight for weight in weights], [weight.new_zeros(len(weight)) for weight in weights])


# ---- Theorem 2 and Proposition 2 -------------------------------------------------------------------------------------
def robust_network(
    points: Tensor, labels: Tensor, eps: float, norm: Norm = "inf", activation: Activation = "relu"
) -> nn.Sequential:
    """Return a network with robust accuracy 1 on 2-epsilon-separable points (Theorem 2), in float64.

    ``points`` are ``(N, ...)``, ``labels`` class numbers ``(N,)``, ``norm`` is ``"inf"`` or 2. Three linear layers: for
    each point they build a function that is 1 on its ball of radius ``eps`` and 0 on the balls of other classes, as one
    minus a sum over half-spaces that face the points of other classes and begin ``eps`` from the point. The logit of a
    class is the sum over its points. ``certify_balls`` proves it for the whole balls.

    The theorem holds for every ``activation`` that is not affine; here are three. ``"tanh"`` and ``"sigmoid"`` never
    reach their limits: each function is within ``1 / (4 N)`` of 1 on its ball, and of 0 on the others, so that the
    right logit leads by more than one half. Raises ``ValueError`` where two points of different classes lie within
    ``2 * eps``.
    """
    x, kind, gaps = _checked(points, labels, eps, norm)
    bumps = _bumps(x, labels, eps, gaps, kind)
    return _assembled(bumps, _one_hot(labels).to(x), [1 / (4 * len(x))] * len(x), activation)


def steep_robust_network(
    points: Tensor, labels: Tensor, eps: float, slope: float, norm: Norm = "inf", activation: Activation = "relu"
) -> tuple[nn.Sequential, Tensor]:
    """Return a ``robust_network`` with Lipschitz constant at least ``slope``, and two points that prove it.

    Midway between the nearest two points of different classes, outside of every ball, a spike is added that is 0 on
    all balls (at most 1/8 with ``"tanh"`` and ``"sigmoid"``), so that the robust accuracy is still 1 (Proposition 2).
    The logits at its top and foot, the second result of shape ``(2, ...)``, differ by at least ``slope`` times their
    distance. Raises ``ValueError`` where two points of different classes lie within ``2 * eps`` and for ``slope <= 0``.
    """
    x, kind, gaps = _checked(points, labels, eps, norm)
    slope = positive("slope", slope, "; it is a Lipschitz constant that the network exceeds")
    found = separation(points, labels, norm)
    first, second = x[found.pair[0]], x[found.pair[1]]
    middle, room = (first + second) / 2, float(gaps.min()) / 2  # every point is at least room + eps from the middle
    # the other functions, each in [0, 1], may take len(x) of the height away, and smooth ends a quarter
    height = slope * room + len(x) + (0 if activation == "relu" else 0.25)
    bumps = [*_bumps(x, labels, eps, gaps, kind), _bump(middle, x, 0.0, room + eps, kind, eps)]
    heads = _one_hot(labels).to(x)
    spike = height * heads[:, found.pair[0], None]
    foot = middle + room * (first - middle) / torch.linalg.vector_norm(first - middle, kind)
    pair = torch.stack((middle, foot)).view(2, *points.shape[1:])
    rests = [1 / (4 * len(x))] * len(x) + [1 / (8 * height)]
    return _assembled(bumps, torch.cat((heads, spike), 1), rests, activation), pair


def certify_balls(network: nn.Sequential, points: Tensor, labels: Tensor, eps: float, norm: Norm = "inf") -> Tensor:
    """Return, per point, whether the network is proved to predict its label on the whole ball of radius ``eps``.

    By interval arithmetic, ``(N,)`` of bool: the range of the first layer over the ball is exact (dual norms), later
    layers follow by intervals and the last by differences of logits; each step is widened by its possible rounding
    errors. False means not proved. Takes an ``nn.Sequential`` of ``Flatten``, ``Linear`` and ``ReLU``, ``Tanh`` or
    ``Sigmoid`` and raises ``ValueError`` for others.
    """
    kind = check_norm(norm)
    check_labels(labels, points)
    layers = [layer for layer in network if not isinstance(layer, nn.Flatten)]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linear) < 2 or any(not isinstance(layer, (nn.Linear, *ACTIVATIONS.values())) for layer in layers):
        kinds = [type(layer).__name__ for layer in network]
        raise ValueError(
            f"needed Flatten, Linear and ReLU, Tanh or Sigmoid, at least two Linear, in one nn.Sequential, got {kinds}"
        )
    if not isinstance(layers[-1], nn.Linear) or not isinstance(layers[0], nn.Linear):
        raise ValueError("needed a Linear first and last; leave an activation at either end out")
    with torch.no_grad():
        middle = points.flatten(1).to(linear[0].weight)
        reach = torch.full_like(middle[:, :1], eps) * torch.linalg.vector_norm(linear[0].weight, _dual(kind), dim=1)
        center = middle @ linear[0].weight.T + linear[0].bias
        slack = _rounding(linear[0], middle.abs() + eps)
        low, high = center - reach - slack, center + reach + slack
        for layer in layers[1:-1]:
            if isinstance(layer, nn.Linear):
                low, high = _through(layer, low, high)
            else:  # they rise everywhere
                slack = 0.0 if isinstance(layer, nn.ReLU) else 4 * torch.finfo(low.dtype).eps
                low, high = layer(low.clone()) - slack, layer(high.clone()) + slack
        proven = torch.ones(len(points), dtype=torch.bool, device=points.device)
        head = layers[-1]
        for label in labels.unique():
            rows = labels == label
            rivals = [k for k in range(head.out_features) if k != int(label)]
            lead = nn.Linear(head.in_features, len(rivals), dtype=head.weight.dtype, device=head.weight.device)
            lead.weight.copy_(head.weight[label] - head.weight[rivals])
            lead.bias.copy_(head.bias[label] - head.bias[rivals])
            proven[rows] = (_through(lead, low[rows], high[rows])[0] > 0).all(1)
    return proven


# ---- separation ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Separation:
    """The smallest distance of two points of different classes, and the indices of these two."""

    distance: float
    pair: tuple[int, int]


def separation(points: Tensor, labels: Tensor, norm: Norm = "inf", progress: bool = False) -> Separation:
    """Return the smallest distance between points of different classes, and the two points.

    Data are 2-epsilon-separable for every epsilon below half of it. ``points`` are ``(N, ...)``, floating point or
    bytes (in units of 1/255), ``labels`` class numbers ``(N,)``, ``norm`` is ``"inf"`` or 2. Exact: a lower bound
    screens all pairs in chunks (some coordinates for infinity, a matrix product less its rounding for 2), and those
    below the best so far are measured. Raises ``ValueError`` for one class alone and for points that are not finite.
    """
    check_labels(labels, points)
    kind = check_norm(norm)
    if len(labels.unique()) < 2:
        raise ValueError(f"needed points of at least two classes, got {len(labels.unique())}")
    x = points.flatten(1)
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    if not x.isfinite().all():
        raise ValueError("points must be finite, got NaN or infinity")
    x = x[:, x.var(0, correction=0).argsort(descending=True)]  # coordinates that differ most decide first
    screen = _screen_inf if kind == math.inf else _screen_2
    best = Separation(math.inf, (0, 0))
    classes = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    chunks = [
        (rows, torch.cat(classes[i + 1 :])) for i, of_class in enumerate(classes[:-1]) for rows in of_class.split(256)
    ]
    for rows, others in progress_bar(chunks, desc="separation", disable=not progress):
        for part in others.split(2048):
            first, second = screen(x[rows], x[part], best.distance)
            for i, j in zip(first.split(4096), second.split(4096), strict=True):
                if not len(i):
                    continue
                distances = torch.linalg.vector_norm(x[rows[i]] - x[part[j]], kind, dim=1)
                at = int(distances.argmin())
                if distances[at] < best.distance:
                    best = Separation(float(distances[at]), (int(rows[i[at]]), int(part[j[at]])))
    return best


# ---- a Lipschitz constant that is too small --------------------------------------------------------------------------
def lipschitz_fit(x: Tensor, y: Tensor, slope: float) -> tuple[Tensor, float]:
    """Return the ``slope``-Lipschitz function of one variable that is nearest to ``y`` at ``x``, and its error.

    The function is given by its values at the points ``x``, ``(N,)``. The error is the largest deviation, half of
    ``max |y_i - y_j| - slope |x_i - x_j|`` over all pairs: no such function deviates less, and the lower envelope of
    the cones ``y_j + error + slope |x - x_j|`` attains it. Raises ``ValueError`` for shapes that differ and a negative
    slope.
    """
    if x.ndim != 1 or x.shape != y.shape or not len(x) or not slope >= 0:
        raise ValueError(
            f"needed x and y of shape (N,) and a slope of at least 0, got {tuple(x.shape)}, {tuple(y.shape)}, {slope}"
        )
    cones = slope * (x[:, None] - x).abs()
    error = max(0.0, float((y[:, None] - y - cones).amax()) / 2)
    return (y + error + cones).amin(1), error


def reciprocal_error(slope: float, low: float = 0.5, high: float = 1.0) -> float:
    """Return the largest deviation from 1/x on ``[low, high]`` of the best ``slope``-Lipschitz function.

    Exact; ``lipschitz_fit`` on the whole interval, where the worst pair is ``low`` and the point at which 1/x is as
    steep as ``slope``. Raises ``ValueError`` unless ``0 < low < high`` and the slope is at least 0.
    """
    if not (0 < low < high and slope >= 0):
        raise ValueError(f"needed 0 < low < high and a slope of at least 0, got {low}, {high}, {slope}")
    end = min(max(1 / math.sqrt(slope), low), high) if slope > 0 else high
    return (1 / low - 1 / end - slope * (end - low)) / 2


# ---- private ---------------------------------------------------------------------------------------------------------
def _checked(points: Tensor, labels: Tensor, eps: float, norm: Norm) -> tuple[Tensor, float, Tensor]:
    """Return the points in float64, the norm, and by how much each point's distance to other classes is above 2 eps."""
    check_labels(labels, points)
    kind = check_norm(norm)
    if not eps >= 0:
        raise ValueError(f"eps must be at least 0, got {eps}")
    if len(labels.unique()) < 2 or int(labels.min()) < 0:
        raise ValueError("needed labels of at least two classes, numbered from 0")
    x = points.detach().flatten(1).double()
    distances = torch.cdist(x, x, kind, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.masked_fill(labels[:, None] == labels, math.inf).amin(1)
    gaps = nearest - 2 * eps
    if not float(gaps.min()) > 1e-9 * float(nearest.max()):
        raise ValueError(
            f"points of different classes must be more than 2 eps = {2 * eps:.4g} apart, the nearest are "
            f"{float(nearest.min()):.4g}; take a smaller eps or leave them out"
        )
    return x, kind, gaps


class _HalfSpaces(NamedTuple):
    """Where ``functionals @ x`` exceeds ``offsets``, and by how much it does at least on the balls that they hold."""

    functionals: Tensor
    offsets: Tensor
    width: float


def _one_hot(labels: Tensor) -> Tensor:
    """Return which points belong to which class, ``(classes, N)``."""
    return nn.functional.one_hot(labels, int(labels.max()) + 1).T


def _bumps(x: Tensor, labels: Tensor, eps: float, gaps: Tensor, norm: float) -> list[_HalfSpaces]:
    """Return, for each point, half-spaces that hold the balls of the points of other classes."""
    return [_bump(x[i], x[labels != labels[i]], eps, 2 * eps + float(gaps[i]), norm) for i in range(len(x))]


def _bump(
    center: Tensor, others: Tensor, reach: float, needed: float, norm: float, eps: float | None = None
) -> _HalfSpaces:
    """Return half-spaces that hold the balls of ``others`` and not that of the center.

    They hold nothing within ``reach`` of the center, and together all within ``eps`` (``reach`` by default) of the
    others, which are at least ``needed`` away. Each functional has dual norm 1, so that it varies over a ball by its
    radius. Chosen greedily, nearest point first: points in a half-space chosen already need none of their own.
    """
    apart = others - center
    distances = torch.linalg.vector_norm(apart, norm, dim=1)
    waiting = distances.argsort()
    functionals = []
    while len(waiting):
        j = waiting[0]
        if norm == math.inf:
            functional = torch.zeros_like(center)
            largest = apart[j].abs().argmax()
            functional[largest] = apart[j, largest].sign()
        else:
            functional = apart[j] / distances[j]
        functionals.append(functional)
        reached = apart[waiting] @ functional
        waiting = waiting[1:][reached[1:] < needed]
    stacked = torch.stack(functionals)
    return _HalfSpaces(stacked, stacked @ center + reach, needed - reach - (reach if eps is None else eps))


def _assembled(bumps: list[_HalfSpaces], head: Tensor, rests: list[float], activation: Activation) -> nn.Sequential:
    """Return the network with logits ``head @ f``, one function f per bump.

    With ReLU, f is ``relu(1 - sum relu(functionals @ x - offsets) / width)``. With tanh it is ``(1 + tanh(...)) / 2``
    of minus a sum over J half-spaces of tanh, each at most ``-t = -J / (J + 1)`` where the half-space begins and at
    least t on the balls that it holds. So minus the sum is at least ``J t`` on the ball of the center and at most ``J -
    1 - t`` on the others, which is 1 less, and the outer tanh is so steep that f is within ``rests`` of 1 and 0 there.
    A sigmoid is a tanh: ``tanh(z) = 2 sigmoid(2 z) - 1``.
    """
    kind = ACTIVATIONS[activation]
    counts = [len(bump.offsets) for bump in bumps]
    if activation == "relu":
        functionals = torch.cat([bump.functionals for bump in bumps])
        offsets = torch.cat([bump.offsets for bump in bumps])
        sums = torch.block_diag(*[head.new_full((1, n), -1 / b.width) for n, b in zip(counts, bumps, strict=True)])
        return _network([functionals, sums, head], [-offsets, sums.new_ones(len(bumps)), head.new_zeros(len(head))])
    steep = [2 * math.atanh(n / (n + 1)) / bump.width for n, bump in zip(counts, bumps, strict=True)]
    outer = [math.log((1 - rest) / rest) for rest in rests]
    functionals = torch.cat([k * bump.functionals for k, bump in zip(steep, bumps, strict=True)])
    offsets = torch.cat([k * (bump.offsets + bump.width / 2) for k, bump in zip(steep, bumps, strict=True)])
    sums = torch.block_diag(*[head.new_full((1, n), -s) for n, s in zip(counts, outer, strict=True)])
    middles = head.new_tensor([-s * (n - 1) * (n + 0.5) / (n + 1) for n, s in zip(counts, outer, strict=True)])
    weights, biases = [functionals, sums, head / 2], [-offsets, middles, head.sum(1) / 2]
    if activation == "sigmoid":
        for layer in (0, 1):
            biases[layer + 1] = biases[layer + 1] - weights[layer + 1].sum(1)
            weights[layer + 1] = 2 * weights[layer + 1]
            weights[layer], biases[layer] = 2 * weights[layer], 2 * biases[layer]
    return _network(weights, biases, kind)


def _network(weights: list[Tensor], biases: list[Tensor], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64, device=weight.device)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def _dual(norm: float) -> float:
    return 1.0 if norm == math.inf else 2.0


def _rounding(layer: nn.Linear, sizes: Tensor) -> Tensor:
    """Return a bound of the rounding errors of ``layer`` on inputs of at most these ``sizes``."""
    terms = sizes @ layer.weight.abs().T + layer.bias.abs()
    return 4 * (layer.in_features + 2) * torch.finfo(sizes.dtype).eps * terms


def _through(layer: nn.Linear, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output intervals of ``layer`` for input intervals, widened by rounding errors."""
    up, down = layer.weight.clamp(min=0).T, layer.weight.clamp(max=0).T
    slack = _rounding(layer, torch.maximum(low.abs(), high.abs()))
    return low @ up + high @ down + layer.bias - slack, high @ up + low @ down + layer.bias + slack


def _screen_inf(a: Tensor, b: Tensor, best: float) -> tuple[Tensor, Tensor]:
    """Return the pairs not shown by the first coordinates to be ``best`` or more apart; after all, the nearest."""
    rows, columns = a.T.contiguous(), b.T.contiguous()
    largest, change = a.new_zeros(2, len(a), len(b))
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        torch.sub(row[:, None], column, out=change)
        torch.maximum(largest, change.abs_(), out=largest)
        if k % 16 == 15:
            close = (largest < best).nonzero()
            if 200 * len(close) < largest.numel():
                return close[:, 0], close[:, 1]
    nearest = largest.argmin()[None]
    return nearest // len(b), nearest % len(b)


def _screen_2(a: Tensor, b: Tensor, best: float) -> tuple[Tensor, Tensor]:
    """Return the pairs not shown by a matrix product, less its rounding, to be ``best`` or more apart."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    slack = (a.shape[1] + 4) * torch.finfo(a.dtype).eps * float(squares.max())
    below = squares.addmm_(a, b.T, alpha=-2)
    close = (below < min(best**2, float(below.min()) + slack) + slack).nonzero()
    return close[:, 0], close[:, 1]
