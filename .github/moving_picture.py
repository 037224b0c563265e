"""Makes the moving picture of the README: `python .github/moving_picture.py` writes one for each of GitHub's themes.

A window slides over an image and writes the matrix of the layer, row by row; then the singular values of the two ways,
SVD of the matrix and Fourier transform, fall on each other. All numbers come from convkit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.datasets import load_digits

from convkit import ConvOperator, singular_values

FOLDER = Path(__file__).parent
KERNEL = ((1, 2, -1), (0, 4, 2), (-2, 1, -1))
PIXELS = torch.as_tensor(load_digits().images[3])  # a handwritten 3, 8 x 8
LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "faint": "#d1d9e0", "plus": "#d55e00", "minus": "#0072b2"}
DARK = {"paper": "#0d1117", "ink": "#f0f6fc", "faint": "#3d444d", "plus": "#ff9e4a", "minus": "#58b0f0"}
THEMES = {"light": LIGHT, "dark": DARK}
SLOW_ROWS, FALLING = 8, 16  # rows that are written slowly; pictures of the fall
WRITING = "The window slides over the image. Each place writes one row of the layer's matrix."
SLOW = "The slow way to its singular values (rings): the SVD of the matrix."
FAST = "The fast way (dots): two lines with the Fourier transform, and no matrix."
EQUAL = "They are the same numbers: they differ by less than {}."


@dataclass(frozen=True)
class Moment:
    """What one picture shows and for how long (milliseconds)."""

    rows: int  # of the matrix that are written
    rings: int  # that are drawn
    fallen: float  # of the way that the dots have to go, 0 to 1; below 0 there are none
    words: str
    milliseconds: int


def layer() -> ConvOperator:
    """The layer of the picture: one channel, 3 x 3, circular padding."""
    return ConvOperator(torch.tensor(KERNEL, dtype=torch.float64)[None, None], tuple(PIXELS.shape))


def moments() -> list[Moment]:
    """The pictures in their order."""
    matrix = layer().matrix()
    count = len(matrix)
    digits = 12
    assert (torch.linalg.svdvals(matrix) - singular_values(layer())).abs().max() < 10**-digits
    found = [Moment(row + 1, 0, -1, WRITING, 400 if row < SLOW_ROWS else 70) for row in range(count)]
    found[-1] = Moment(count, 0, -1, WRITING, 1200)
    found += [Moment(count, rings, -1, SLOW, 80) for rings in range(8, count, 8)]
    found += [Moment(count, count, -1, SLOW, 2800)]
    found += [Moment(count, count, step / FALLING, FAST, 80) for step in range(1, FALLING)]
    found += [Moment(count, count, 1, FAST, 2500)]
    return [*found, Moment(count, count, 1, EQUAL.format(f"$10^{{-{digits}}}$"), 4500)]


def falling(values: np.ndarray, top: float, share: float) -> np.ndarray:
    """How high the dots are: all start at the top, the ones on the left first, and speed up on their way."""
    delay = 0.5 * np.arange(len(values)) / len(values)
    way = np.clip((share - delay) / 0.5, 0, 1) ** 2 if share < 1 else np.ones(len(values))
    return top + way * (values - top)


class Scene:
    """The figure, drawn anew for each moment."""

    def __init__(self, theme: str) -> None:
        self.colors = THEMES[theme]
        self.matrix = layer().matrix().numpy()
        self.dense = np.linalg.svd(self.matrix, compute_uv=False)
        self.fourier = singular_values(layer()).numpy()
        signed = [self.colors[name] for name in ("minus", "paper", "plus")]
        self.shades = LinearSegmentedColormap.from_list("signed", signed)
        self.figure = Figure((10, 4.2), dpi=100, facecolor=self.colors["paper"])
        FigureCanvasAgg(self.figure)

    def draw(self, moment: Moment) -> Image.Image:
        self.figure.clear()
        ink = self.colors["ink"]
        self.figure.text(0.5, 0.935, moment.words, ha="center", va="center", fontsize=14.5, color=ink)
        self._image(moment)
        self._matrix(moment)
        self._values(moment)
        self.figure.canvas.draw()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy())  # pyright: ignore

    def _axes(self, place: tuple[float, float, float, float], title: str) -> Any:
        ax = self.figure.add_axes(place, facecolor=self.colors["paper"])
        ax.set_title(title, fontsize=12, color=self.colors["ink"], pad=8)
        ax.tick_params(colors=self.colors["ink"], labelsize=10)
        for spine in ax.spines.values():
            spine.set_color(self.colors["faint"])
        return ax

    def _shade(self, entries: Any) -> Any:
        """Colors of entries of the matrix; the root lets small ones be seen."""
        return self.shades(0.5 + 0.25 * np.sign(entries) * np.sqrt(np.abs(entries)))

    def _image(self, moment: Moment) -> None:
        ax = self._axes((0.015, 0.125, 0.27, 0.645), "the image" if moment.rings else "an image, and the window")
        ax.imshow(PIXELS.numpy(), cmap="gray", interpolation="nearest", alpha=0.75)
        ax.set(xticks=[], yticks=[])
        if moment.rings:
            return
        size = PIXELS.shape[0]
        row = self.matrix[moment.rows - 1].reshape(PIXELS.shape)
        middle = divmod(moment.rows - 1, size)
        for i in range(-1, 2):
            for j in range(-1, 2):
                y, x = (middle[0] + i) % size, (middle[1] + j) % size
                look = {"facecolor": self._shade(row[y, x]), "edgecolor": self.colors["plus"], "lw": 1.5}
                ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, alpha=0.9, **look))
                text = f"{row[y, x]:.0f}".replace("-", "−")
                ax.text(x, y, text, ha="center", va="center", fontsize=11, color=self.colors["ink"], weight="bold")

    def _matrix(self, moment: Moment) -> None:
        count = len(self.matrix)
        ax = self._axes((0.325, 0.125, 0.27, 0.645), f"the layer's matrix, {count} × {count}")
        written = self.matrix.copy()
        written[moment.rows :] = 0
        ax.imshow(self._shade(written), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel("one column for each input pixel", fontsize=10, color=self.colors["ink"], labelpad=6)
        if not moment.rings:
            ax.plot([-0.5, count - 0.5], [moment.rows] * 2, color=self.colors["plus"], lw=1.5, clip_on=False)

    def _values(self, moment: Moment) -> None:
        ax = self._axes((0.665, 0.125, 0.32, 0.645), "its singular values")
        top = 1.12 * self.dense[0]
        places = np.arange(1, len(self.dense) + 1)
        ax.set(xlim=(-1, len(self.dense) + 2), ylim=(0, top), xticks=[1, 16, 32, 48, 64])
        ax.set_xlabel("index, largest first", fontsize=10, color=self.colors["ink"], labelpad=6)
        plain = {"ls": "none", "clip_on": False}
        rings = {"mfc": "none", "mec": self.colors["plus"], "ms": 8, "mew": 1.5}
        ax.plot(places[: moment.rings], self.dense[: moment.rings], "o", **rings, **plain)
        if moment.fallen >= 0:
            heights = falling(self.fourier, top, moment.fallen)
            ax.plot(places, heights, "o", color=self.colors["minus"], mec="none", ms=4, **plain)


def pictures(theme: str) -> Iterator[tuple[Image.Image, int]]:
    """Each picture and how long it stays."""
    scene = Scene(theme)
    for moment in moments():
        yield scene.draw(moment), moment.milliseconds


def path(theme: str) -> Path:
    return FOLDER / f"convkit-{theme}.gif"


def save(theme: str) -> None:
    """Write the GIF of this theme: one palette for all pictures, forever in a loop."""
    frames, stays = zip(*pictures(theme), strict=True)
    palette = _palette([np.asarray(frames[place]) for place in (5, 40, len(frames) - 10, -1)], THEMES[theme]["paper"])
    few = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    few[0].save(path(theme), save_all=True, append_images=few[1:], duration=stays, loop=0, optimize=True)
    size, seconds = path(theme).stat().st_size / 1e6, sum(stays) / 1000
    print(f"{path(theme).name}: {len(few)} pictures, {seconds:.1f} s, {size:.2f} MB")


def _palette(some: list[np.ndarray], paper: str) -> Image.Image:
    """128 colors for all pictures, the paper's exactly: it must not stand out from the page around it."""
    image = Image.fromarray(np.concatenate(some)).quantize(128, kmeans=1, dither=Image.Dither.NONE)
    colors = np.array(image.getpalette()).reshape(-1, 3)
    exact = np.array([int(paper[start : start + 2], 16) for start in (1, 3, 5)])
    colors[np.abs(colors - exact).max(1) <= 5] = exact
    image.putpalette(colors.ravel().tolist())
    return image


if __name__ == "__main__":
    for name in THEMES:
        save(name)
