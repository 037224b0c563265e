"""The panel of notebook 14: a cloud of points from any side, the neighbors of a point in two spaces, the answer."""

import functools
import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from convkit.data.clouds import Clouds, solids
from convkit.data.surfaces import SOLIDS
from convkit.methods.build import network
from convkit.models.dgcnn import DGCNN, nearest_neighbors
from convkit.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, VERMILION
from convkit.training.loop import fit
from convkit.widgets.controls import choice, slider
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

K, POINTS, STEPS, TILT, STRIDE = 8, 128, 100, 20, 5  # the last two in degrees
REACH = 0.12  # of a click, on axes from -1.15 to 1.15
NUMBER = slice(0, len(SOLIDS))  # the first test clouds: one of each solid
_PLACES = ((0.005, 0.02, 0.33, 0.86), (0.345, 0.02, 0.33, 0.86), (0.79, 0.14, 0.2, 0.74))


@functools.cache
def trained() -> tuple[DGCNN, Clouds]:
    """Return a narrow DGCNN with BatchNorm after 100 steps on solids, in evaluation mode, and its data."""
    data = solids(400, 160, points=POINTS)
    model: Any = network("dgcnn", data, "batchnorm", k=K, width=1 / 8, dropout=0)
    for _ in fit(model, data, "batchnorm", steps=STEPS, batch_size=16, record_every=STEPS):
        pass
    return model.eval(), data


@functools.lru_cache(64)
def seen(solid: str, points: int) -> tuple[list[Tensor], Tensor]:
    """Return what the network makes of the first points of a solid: the spaces of its graphs, and its answers.

    The spaces are the positions ``(3, points)`` and the features after each EdgeConv but the last; the answers are the
    probabilities of the classes.
    """
    model, data = trained()
    x, y = data.test_batch(NUMBER)
    cloud = x[y == SOLIDS.index(solid)][..., :points]
    spaces = [cloud]
    with torch.no_grad():
        for edge in list(model.edges)[:-1]:
            spaces.append(edge(spaces[-1]))
        answers = model(cloud).softmax(1)[0]
    return [space[0] for space in spaces], answers


class CloudPanel(DrawnPanel):
    """A panel with a cloud that turns, the neighbors of a picked point in two spaces, and the network's answer.

    A drag turns the cloud, a click picks the point below the mouse.
    """

    title = "Who is near whom? The neighbors of a point in space, and in the features of a trained network"
    size = (10.5, 4.3)
    steered = (0, 1)

    def controls(self) -> dict[str, Any]:
        return {
            "solid": choice("solid", SOLIDS, "torus"),
            "turn": slider("turn", 30, -180, 175, STRIDE),
            "tilt": slider("tilt", TILT, -90, 90, STRIDE),
            "point": slider("picked point", 4, 0, POINTS - 1),
            "layer": choice("features after", [(f"EdgeConv {i}", i) for i in (3, 2, 1)]),
            "dropped": slider("points dropped", 0, 0, POINTS - K, 8),
        }

    def dragged(self, right: float, up: float, before: dict[str, Any]) -> dict[str, Any]:
        turn, tilt = (STRIDE * round(180 * part / STRIDE) for part in (right, up))
        return {
            "turn": (before["turn"] + turn + 180) % 360 - 180,
            "tilt": max(-90, min(90, before["tilt"] - tilt)),
        }

    def clicked(self, x: float, y: float) -> dict[str, Any]:
        now = self.values
        flat = turned(seen(now["solid"], POINTS - now["dropped"])[0][0], now["turn"], now["tilt"])
        far = (flat[:2] - torch.tensor([[x], [y]], dtype=flat.dtype, device=flat.device)).norm(dim=0)
        return {"point": int(far.argmin())} if far.min() < REACH else {}

    def draw(self, figure: Figure, solid: str, turn: int, tilt: int, point: int, layer: int, dropped: int) -> str:
        count = POINTS - dropped
        if point >= count:
            raise ValueError(f"point {point} is among the {dropped} points dropped; pick one below {count}")
        spaces, answers = seen(solid, count)
        near = [nearest_neighbors(space[None], K)[0, point] for space in (spaces[0], spaces[layer])]
        left, middle, right = (figure.add_axes(place) for place in _PLACES)
        flat = turned(spaces[0], turn, tilt)
        words = "nearest in space", f"nearest in the features after EdgeConv {layer}"
        for ax, neighbors, title, color in zip((left, middle), near, words, (BLUE, ORANGE), strict=True):
            _draw_cloud(ax, flat, point, neighbors, color)
            ax.set_title(f"{K - 1} {title}", fontsize=10)
        best = int(answers.argmax())
        colors = [GREEN if name == solid else VERMILION if i == best else FAINT for i, name in enumerate(SOLIDS)]
        right.barh(range(len(SOLIDS)), answers.tolist(), color=colors)
        right.set_yticks(range(len(SOLIDS)), SOLIDS, fontsize=9)
        right.set(ylim=(len(SOLIDS) - 0.5, -0.5), xlim=(0, 1.05), xticks=(0, 0.5, 1), xlabel="probability")
        right.set_title(f"the answer, from {count} points", fontsize=10)
        right.spines[["top", "right"]].set_visible(False)
        far = [float((spaces[0][:, own] - spaces[0][:, [point]]).norm(dim=0).max()) for own in near]
        same = len({*near[0].tolist()} & {*near[1].tolist()} - {point})
        return Words(
            f"Point {point}: its {K - 1} nearest in space lie within {far[0]:.2f}. Its {K - 1} nearest in the features "
            f"lie up to {far[1]:.2f} away in space; the two have {same} in common. From {count} points the network "
            f"says {SOLIDS[best]}, with probability {answers[best]:.2f}"
            + ("." if SOLIDS[best] == solid else f"; it is a {solid}."),
            alert=SOLIDS[best] != solid,
        )


def turned(points: Tensor, turn: float, tilt: float = TILT) -> Tensor:
    """Return points ``(3, n)`` as one sees them: right, up, and toward the eye.

    They are turned about the second axis, and the eye is raised by the tilt; both are in degrees.
    """
    turn, tilt = math.radians(turn), math.radians(tilt)
    a, up, b = points
    right, toward = math.cos(turn) * a + math.sin(turn) * b, math.cos(turn) * b - math.sin(turn) * a
    return torch.stack(
        [right, math.cos(tilt) * up - math.sin(tilt) * toward, math.cos(tilt) * toward + math.sin(tilt) * up]
    )


def _draw_cloud(ax: Axes, flat: Tensor, point: int, neighbors: Tensor, color: str) -> None:
    """Draw the points, nearer ones larger, and lines from the picked point to its neighbors."""
    x, y, toward = flat.tolist()
    others = [i for i in neighbors.tolist() if i != point]
    for size, low, high in ((2.8, -math.inf, -0.35), (3.6, -0.35, 0.35), (4.4, 0.35, math.inf)):
        layer = [i for i, near in enumerate(toward) if low <= near < high]
        ax.plot([x[i] for i in layer], [y[i] for i in layer], "o", color="#888888", ms=size, mew=0, zorder=1)
    for i in others:
        ax.plot([x[point], x[i]], [y[point], y[i]], color=color, lw=1, zorder=2)
    ax.plot([x[i] for i in others], [y[i] for i in others], "o", color=color, ms=5.8, mew=0, zorder=3)
    ax.plot([x[point]], [y[point]], "D", color=VERMILION, mec=INK, mew=0.5, ms=7, zorder=4)
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
    ax.set_axis_off()
