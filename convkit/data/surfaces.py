"""Points on the surfaces of eight solids, drawn uniformly by area from formulas."""

import math

import numpy as np
import torch
from torch import Tensor

SOLIDS = ("sphere", "cube", "cylinder", "cone", "torus", "tetrahedron", "octahedron", "prism")
RADIUS, HEIGHT = 1.0, 2.0  # of cylinder and cone
TUBE = 0.4  # radius of the torus' tube; its circle has radius 1
_TABLE = 4097  # places at which the torus' distribution over its angle is tabulated


def sample(count: int, points: int, jitter: float, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return ``count`` clouds ``(count, 3, points)``, float32, and their labels, indices into ``SOLIDS``.

    See ``convkit.data.solids``. Each block of eight clouds holds every solid once, in random order.
    """
    kinds = len(SOLIDS)
    order, places, turns, noise = (np.random.default_rng((*seed, stream)) for stream in range(4))
    labels = order.permuted(np.tile(np.arange(kinds), (-(-count // kinds), 1)), axis=1).ravel()[:count]
    numbers = torch.from_numpy(places.random((count, points, 3)))
    clouds = torch.empty(count, points, 3, dtype=torch.float64, device="cpu")
    for index, kind in enumerate(SOLIDS):
        some = torch.from_numpy(np.flatnonzero(labels == index))
        clouds[some] = surface(kind, numbers[some])
    angle = torch.from_numpy(2 * math.pi * turns.random((count, 1)))
    (a, b, up), cos, sin = clouds.unbind(-1), angle.cos(), angle.sin()
    clouds = torch.stack([cos * a + sin * b, up, cos * b - sin * a], -1)  # the second axis points up
    clouds = clouds - clouds.mean(1, keepdim=True)
    clouds = clouds / clouds.norm(dim=2).amax(1)[:, None, None].clamp(min=1e-12)  # a single point stays at 0
    clouds = clouds + jitter * torch.from_numpy(noise.standard_normal((count, points, 3)))
    return clouds.transpose(1, 2).float().contiguous(), torch.from_numpy(labels.astype(np.int64))


def surface(kind: str, numbers: Tensor) -> Tensor:
    """Return a point on a solid's surface for each three numbers in [0, 1): uniform numbers give uniform area.

    Args:
        kind: A name in ``SOLIDS``.
        numbers: ``(..., 3)``, of which the first chooses a face where there are several.

    >>> surface("sphere", torch.tensor([0.3, 0.5, 0.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    which, u, v = numbers.unbind(-1)
    if kind == "sphere":
        return _round(v, (1 - (2 * u - 1).square()).sqrt(), 2 * u - 1)  # its height is uniform: Archimedes
    if kind == "torus":
        angle = torch.linspace(0, 2 * math.pi, _TABLE, dtype=torch.float64, device="cpu").numpy()
        share = (angle + TUBE * np.sin(angle)) / (2 * math.pi)  # of the area, up to this angle around the tube
        around = torch.from_numpy(np.interp(u.numpy(), share, angle)).to(u)
        return _round(v, 1 + TUBE * around.cos(), TUBE * around.sin())
    if kind == "cylinder":
        side = HEIGHT / (HEIGHT + RADIUS)  # its share of the area; the rest are two discs
        wall, top = which < side, which < (1 + side) / 2
        radius = torch.where(wall, RADIUS, RADIUS * u.sqrt())
        ends = torch.where(top, HEIGHT / 2, -HEIGHT / 2).to(u)
        return _round(v, radius, torch.where(wall, HEIGHT * (u - 0.5), ends))
    if kind == "cone":
        slope = math.hypot(RADIUS, HEIGHT)
        wall, radius = which < slope / (slope + RADIUS), RADIUS * u.sqrt()  # area grows with the square of the radius
        return _round(v, radius, torch.where(wall, HEIGHT / 2 - HEIGHT * u.sqrt(), -HEIGHT / 2).to(u))
    return _on_triangles(torch.tensor(_faces(kind), dtype=u.dtype, device="cpu"), which, u, v)


def _round(turn: Tensor, radius: Tensor, height: Tensor) -> Tensor:
    angle = 2 * math.pi * turn
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)


def _on_triangles(corners: Tensor, which: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return points on triangles ``(n, 3, 3)``: one chosen by area, then a uniform point of it."""
    first, second, third = corners.unbind(1)
    area = torch.linalg.cross(second - first, third - first).norm(dim=1).cumsum(0)
    chosen = torch.searchsorted(area / area[-1], which.contiguous(), right=True).clamp(max=len(corners) - 1)
    u, v = u.sqrt()[..., None], v[..., None]
    return (1 - u) * first[chosen] + u * (1 - v) * second[chosen] + u * v * third[chosen]


def _faces(kind: str) -> list[list[tuple[float, float, float]]]:
    """Return the triangles of a solid with flat faces, by their corners."""
    if kind == "tetrahedron":
        tips = [(1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)]
        return [[tips[j] for j in range(4) if j != i] for i in range(4)]
    signs = (-1.0, 1.0)
    if kind == "octahedron":
        return [[(a, 0.0, 0.0), (0.0, b, 0.0), (0.0, 0.0, c)] for a in signs for b in signs for c in signs]
    if kind == "cube":
        base = [(a, b) for a, b in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))]
    else:  # the prism, on a triangle of equal sides
        base = [(math.cos(2 * math.pi * i / 3), math.sin(2 * math.pi * i / 3)) for i in range(3)]
    faces = [[(*base[0], h), (*base[i], h), (*base[i + 1], h)] for h in signs for i in range(1, len(base) - 1)]
    for a, b in zip(base, base[1:] + base[:1], strict=True):
        faces += [[(*a, -1.0), (*b, -1.0), (*b, 1.0)], [(*a, -1.0), (*b, 1.0), (*a, 1.0)]]
    return faces
