"""The data set of drawn figures: ten shapes on cluttered backgrounds, rendered from formulas."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 32  # height and width of an image
CHUNK = 1000  # images drawn at once, which bounds the memory
CHOICES = 82  # random numbers of an image, besides its noise
STROKES = 6  # of clutter in an image; the last two lie over the figure
FIGURES = ("disc", "ring", "crescent", "heart", "triangle", "square", "star", "cross", "arrow", "stripes")


def draw(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return ``count`` images ``(count, 3, 32, 32)``, uint8, and their labels ``(count,)``, indices into ``FIGURES``.

    Each image has one figure of random color, size, slant and direction on a background with a color gradient,
    blotches, strokes and noise. Each block of ten images holds every class once, in random order. With the same seed, a
    smaller ``count`` gives the first images of a larger one. Raises ``ValueError`` for a ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"shapes needs at least one image of each part, got {count}")
    blocks = -(-count // len(FIGURES))
    order = np.random.default_rng((*seed, 0))
    labels = torch.from_numpy(order.permuted(np.tile(np.arange(len(FIGURES)), (blocks, 1)), axis=1).ravel()[:count])
    choices, grain = (np.random.default_rng((*seed, stream)) for stream in (1, 2))
    return torch.cat([_draw(part, choices, grain) for part in labels.split(CHUNK)]), labels


def _draw(labels: Tensor, choices: np.random.Generator, noise: np.random.Generator) -> Tensor:
    """Return one image per label, ``(n, 3, 32, 32)``, uint8, from rows of random numbers."""
    n = len(labels)
    # a row of random numbers for each image, so that an image does not depend on how many are drawn
    take = iter(torch.from_numpy(choices.random((n, CHOICES), dtype=np.float32)).split(1, 1))
    grain = torch.from_numpy(noise.standard_normal((n, 3, SIZE * SIZE + 36), dtype=np.float32))

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * next(take)).view(n, 1, 1)

    axis = torch.arange(SIZE, dtype=torch.float32, device="cpu") - SIZE / 2 + 0.5
    ys, xs = torch.meshgrid(axis, axis, indexing="ij")

    # the background: from one color to another along a random direction, with blotches of six by six
    angle = uniform(0, 2 * math.pi)
    ramp = (0.5 + (xs * angle.cos() + ys * angle.sin()) / SIZE)[:, None]
    first, second = (torch.cat([uniform(0.0, 0.55) for _ in range(3)], 1)[..., None] for _ in range(2))
    blotches = F.interpolate(grain[..., :36].view(n, 3, 6, 6), (SIZE, SIZE), mode="bicubic", align_corners=False)
    image = first + (second - first) * ramp + uniform(0.02, 0.1)[..., None] * blotches

    # the figure: where it lies, which way it points, how large and how slanted it is
    radius = uniform(7, 12)
    room = SIZE / 2 - 0.85 * radius
    x, y = xs - room * uniform(-1, 1), ys - room * uniform(-1, 1)
    angle, slant, stretch = uniform(0, 2 * math.pi), uniform(-0.25, 0.25), uniform(0.85, 1.18)
    u = (x * angle.cos() + y * angle.sin()) / radius
    v = (y * angle.cos() - x * angle.sin()) / radius
    u, v = (u + slant * v) * stretch, v / stretch
    distance = torch.empty_like(u)
    for index, figure in enumerate(_DISTANCES):
        some = (labels == index).nonzero().flatten()
        distance[some] = figure(u[some], v[some])
    shade = 1 + uniform(-0.3, 0.3) * u
    color = _contrasting(
        torch.cat([uniform(0.25, 1) for _ in range(18)], 1).view(n, 6, 3), (first + second)[..., 0, 0] / 2
    )

    for stroke in range(STROKES):
        if stroke == STROKES - 2:
            image = _paint(image, distance * radius, color[..., None, None] * shade[:, None])
        length = uniform(0, 14)
        x, y, angle = xs - uniform(-16, 16), ys - uniform(-16, 16), uniform(0, math.pi)
        along = x * angle.cos() + y * angle.sin()
        across = y * angle.cos() - x * angle.sin()
        outside = (along.abs() - length / 2).clamp(min=0)
        width = uniform(0.2, 1.2)
        ink = torch.cat([uniform(0, 1) for _ in range(3)], 1)[..., None]
        image = _paint(image, (outside.square() + across.square()).sqrt() - width, ink)
    image = image + uniform(0.01, 0.05)[..., None] * grain[..., 36:].view(n, 3, SIZE, SIZE)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _paint(image: Tensor, distance: Tensor, color: Tensor) -> Tensor:
    """Return the image with ``color`` where the signed distance, in pixels, is negative; edge pixels are mixed."""
    cover = (0.5 - distance).clamp(0, 1)[:, None]
    return image + cover * (color - image)


def _contrasting(candidates: Tensor, background: Tensor) -> Tensor:
    """Return the first candidate color ``(n, k, 3)`` that is far from the background ``(n, 3)``, or the farthest."""
    apart = (candidates - background[:, None]).norm(dim=-1)
    wanted = torch.where((apart > 0.5).any(1, keepdim=True), (apart > 0.5).float(), apart)
    return candidates[torch.arange(len(candidates), device="cpu"), wanted.argmax(1)]


# ---- the figures: signed distances to the edge, negative inside, in units of the radius ----------------------------
def _disc(u: Tensor, v: Tensor, radius: float = 0.85) -> Tensor:
    return torch.hypot(u, v) - radius


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return _disc(u, v, 0.7).abs() - 0.19


def _crescent(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(_disc(u, v, 0.95), -_disc(u - 0.45, v, 0.78))


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """Return the distance to a square on its tip with a disc on each of its upper sides."""
    u, v = (u - (v - 0.2)) / math.sqrt(2), (u + (v - 0.2)) / math.sqrt(2)
    a = 0.52
    return torch.minimum(_box(u, v, a, a), torch.minimum(_disc(u - a, v, a), _disc(u, v + a, a)))


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    slope = math.sqrt(3) / 2 * u.abs()
    return torch.maximum(slope - v / 2, v) - 0.5


def _box(u: Tensor, v: Tensor, width: float = 0.74, height: float = 0.74) -> Tensor:
    return torch.maximum(u.abs() - width, v.abs() - height)


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Return the distance to a star: the plane is folded to one half of one point, whose edge is a straight line."""
    tenth = math.pi / 5
    angle = torch.atan2(u, v).abs()
    angle = (angle - 2 * tenth * ((angle / (2 * tenth)).round())).abs()
    radius = torch.hypot(u, v)
    x, y = radius * angle.cos(), radius * angle.sin()
    inner = (0.42 * math.cos(tenth), 0.42 * math.sin(tenth))  # the edge runs from the tip (1, 0) to here
    length = math.hypot(1 - inner[0], inner[1])
    return ((x - 1) * inner[1] + y * (1 - inner[0])) / length


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return torch.minimum(_box(u, v, 0.95, 0.27), _box(u, v, 0.27, 0.95))


def _arrow(u: Tensor, v: Tensor) -> Tensor:
    head = torch.maximum((u + v.abs() - 1) / math.sqrt(2), -u)
    return torch.minimum(head, _box(u + 0.45, v, 0.5, 0.25))


def _stripes(u: Tensor, v: Tensor) -> Tensor:
    return _box(u, v - 0.62 * (v / 0.62).round().clamp(-1, 1), 0.85, 0.17)


_DISTANCES = (_disc, _ring, _crescent, _heart, _triangle, _box, _star, _cross, _arrow, _stripes)
