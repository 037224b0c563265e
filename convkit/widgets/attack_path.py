"""An attack with its settings, the path that it takes, and the loss on a plane through that path."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convkit.attacks.blackbox import simba
from convkit.attacks.checks import chosen_loss, log_odds, margin
from convkit.attacks.gradient import fgsm, pgd
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy

FGSM, PGD, PGD2, SIMBA = "FGSM", "PGD, largest pixel", "PGD, 2-norm", "SimBA"
MASK = 1000.0  # what logits are multiplied by: a probability of 1.0 has gradient 0
AROUND = 0.35  # of the length of the path, on the plane beyond it
SIDE = 21  # points of the plane in each direction


@dataclass(frozen=True)
class Attack:
    """The settings of an attack; ``target`` is a class number, or ``None`` for any wrong answer."""

    name: str
    eps: float
    steps: int
    loss: str = "ce"
    restarts: int = 1
    target: int | None = None
    masked: bool = False

    @property
    def plain(self) -> Attack:
        """Return the same attack without the settings that it does not have."""
        if self.name == FGSM:
            return replace(self, steps=1, restarts=1)
        return replace(self, loss="ce", restarts=1, target=None) if self.name == SIMBA else self

    def run(self, model: nn.Module, x: Tensor, y: Tensor, until_wrong: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the attacked images and, for SimBA, its numbers of queries; random numbers come from a fixed seed."""
        how, model = self.plain, self.seen(model)
        generator = torch.Generator().manual_seed(9)
        targets = None if how.target is None else torch.full_like(y, how.target)
        if how.name == FGSM:
            return fgsm(model, x, y, how.eps, targets, how.loss), None
        if how.name == SIMBA:
            return simba(model, x, y, how.eps, steps=min(how.steps, x[0].numel()), generator=generator)
        two = how.name == PGD2
        size = how.eps * math.sqrt(x[0].numel()) if two else how.eps
        options = {"restarts": how.restarts, "targets": targets, "loss": how.loss, "until_wrong": until_wrong}
        norm, step = 2 if two else "inf", 2.5 * size / how.steps
        return pgd(model, x, y, size, step, how.steps, norm, generator=generator, **options), None

    def seen(self, model: nn.Module) -> nn.Module:
        """Return the network that the attack sees."""
        return Times(model, MASK) if self.masked else model

    def raised(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return what the attack raises, one number per image."""
        measure = chosen_loss(self.plain.loss)
        return measure(logits, y) if self.target is None else -measure(logits, torch.full_like(y, self.target))

    def beyond(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return by how much the attack has succeeded, one number per image, negative where it has not."""
        return margin(logits, y) if self.target is None else -margin(logits, torch.full_like(y, self.target))


@dataclass(frozen=True)
class Plane:
    """The loss on a plane through an image and the image that an attack found, and the path of the attack on it.

    Attributes:
        losses: What the attack raises, ``(SIDE, SIDE)``, from the top down.
        extent: Left, right, bottom and top, in 2-norms from the image.
        path: The points of the attack, ``(points, 2)``, from the image on; those off the plane are projected on it.
        border: Points where the network's answer changes, ``(points, 2)``.
    """

    losses: Tensor
    extent: tuple[float, float, float, float]
    path: Tensor
    border: Tensor


class Visits:
    """What a network is asked while an attack runs, and its answers."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []

    def add(self, x: Tensor, logits: Tensor) -> None:
        """Note a question and the answer."""
        self.images.append(x.detach().clone())
        self.logits.append(logits.detach().clone())


class Times(nn.Module):
    """A network whose logits are multiplied: the same predictions, but probabilities 0 and 1."""

    def __init__(self, model: nn.Module, factor: float, visits: Visits | None = None) -> None:
        super().__init__()
        self.model, self.factor, self.visits = model, factor, visits

    def forward(self, x: Tensor) -> Tensor:
        logits = self.factor * self.model(x)
        if self.visits is not None:
            self.visits.add(x, logits)
        return logits


def followed(how: Attack, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return the attacked image, SimBA's queries and the images on the way there, for one image ``(1, ...)``.

    Of several restarts the way is that of the one that found the image, and of SimBA's tries it has those that it kept.
    """
    visits = Visits()
    found, queries = replace(how, masked=False).run(Times(model, MASK if how.masked else 1.0, visits), x, y)
    images = visits.images
    if how.name == SIMBA:
        best, way = -math.inf, list[Tensor]()
        for image, logits in zip(images, visits.logits, strict=True):
            if (now := float(log_odds(logits, y))) > best:
                best, way = now, [*way, image]
        return found, queries, way
    if how.name == FGSM:
        return found, None, images
    size = how.steps + 1
    turns = [images[first : first + size] for first in range(1, len(images), size)]  # the first one is the clean image
    best = next((turn for turn in turns if any(torch.equal(image, found) for image in turn)), turns[-1])
    return found, None, [images[0], *best]


def plane(how: Attack, model: nn.Module, x: Tensor, y: Tensor, found: Tensor, way: list[Tensor]) -> Plane:
    """Return the loss on the plane through an image, what an attack found, and an image on the way there.

    Where these lie on a line, the third direction is drawn at random, orthogonal to it.
    """
    end = found if not torch.equal(found, x) else way[-1]
    across = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype).to(x.device)
    u = (end - x).flatten()
    if float(u.norm()) == 0:
        u = how.eps * across.flatten().sign()
    length, u = float(u.norm()), u / u.norm()
    third = (way[len(way) // 2] - x).flatten()
    v = third - (third @ u) * u
    if float(v.norm()) < 0.05 * length:
        v = across.flatten() - (across.flatten() @ u) * u
    v = v / v.norm()
    changes = torch.stack([(image - x).flatten() for image in way])
    path = torch.stack([changes @ u, changes @ v], 1).cpu()
    low, high = path.amin(0).tolist(), path.amax(0).tolist()
    room = AROUND * length
    extent = min(low[0], 0.0) - room, max(high[0], length) + room, min(low[1], -room) - room, max(high[1], room) + room
    a = torch.linspace(extent[0], extent[1], SIDE, dtype=x.dtype, device=x.device)
    b = torch.linspace(extent[3], extent[2], SIDE, dtype=x.dtype, device=x.device)
    points = x.flatten() + a.repeat(SIDE)[:, None] * u + b.repeat_interleave(SIDE)[:, None] * v
    with torch.no_grad(), evaluation_copy(how.seen(model), x, apart) as copy:
        logits = copy(as_input(model, points.view(-1, *x.shape[1:])))
    labels = y.expand(len(logits))
    losses, beyond = (numbers(logits, labels).view(SIDE, SIDE).cpu() for numbers in (how.raised, how.beyond))
    return Plane(losses, extent, path, crossings(beyond, a.cpu(), b.cpu()))


def crossings(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return where numbers on a grid, ``(len(y), len(x))``, change their sign between neighbors, ``(points, 2)``."""
    found = [values.new_zeros(0, 2)]
    for along in (0, 1):
        size = values.shape[along] - 1
        one, two = values.narrow(along, 0, size), values.narrow(along, 1, size)
        row, column = ((one > 0) != (two > 0)).nonzero(as_tuple=True)
        part = (one / (one - two))[row, column].clamp(0, 1)
        if along:
            found.append(torch.stack([x[column] + part * (x[column + 1] - x[column]), y[row]], 1))
        else:
            found.append(torch.stack([x[column], y[row] + part * (y[row + 1] - y[row])], 1))
    return torch.cat(found)
