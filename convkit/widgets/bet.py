"""The panel that opens notebook 00: a bet on what is left after thirty layers of norm 1, and the answer."""

import functools
import time
from typing import Any

import ipywidgets
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from convkit.plots.style import BLUE, FAINT, VERMILION
from convkit.widgets.controls import WHOLE_ROW
from convkit.widgets.depth import after_layers, norms_by_layer, pictures
from convkit.widgets.drawing import DrawnPanel

DEPTH = 30
OTHERS = 20  # draws of thirty layers beside the one that is shown
SMALLEST = 1e-12
SECONDS = 2.5  # that the answer takes to pass all layers
_KIND, _SOURCE = "random 3 × 3", "photograph"
_PLACES = ((0.005, 0.545, 0.205, 0.365), (0.352, 0.125, 0.395, 0.785), (0.785, 0.545, 0.205, 0.365))
_PLACES = (*_PLACES, (0.785, 0.05, 0.205, 0.365))
_SETUP = """Thirty convolutions, each with
a random 3 × 3 kernel that is
scaled to norm 1: no picture
leaves a layer larger, and
some picture leaves as large."""
_LEVELS = {1: "1, all of it", 1e-3: "10⁻³, a thousandth", 1e-6: "10⁻⁶, a millionth", 1e-9: "10⁻⁹, a billionth"}
_LEVELS |= {1e-12: "10⁻¹², a trillionth"}
_SMALL, _NORMAL, _LARGE = 9, 10, 12  # points


class BetPanel(DrawnPanel):
    """A panel with a slider for the bet and a button that draws the answer, which nothing shows before.

    Once the answer is drawn the bet cannot change. Reset hides the answer and gives the slider back.
    """

    title = "Your bet: a photograph passes thirty layers, each of norm 1. How large is what comes out?"
    size = (10, 4.1)

    def __init__(self) -> None:
        self._passed = DEPTH  # layers that the answer has passed; fewer while it is being drawn
        super().__init__()

    def controls(self) -> dict[str, Any]:
        values = [digit * 10.0**-zeros for zeros in range(1, 13) for digit in (3, 1)]  # .3, .1, .03, ... to 1e-12
        options = [(number(value), value) for value in (1.0, *values)]
        look = {"grid_area": WHOLE_ROW}
        bet = ipywidgets.SelectionSlider(options=options, value=1.0, description="norm of what comes out", layout=look)
        shown = Press(description="Show what comes out", button_style="primary", layout={"width": "14em"})
        for control in (bet, shown):
            traitlets.dlink((shown, "value"), (control, "disabled"))
        return {"bet": bet, "shown": shown}

    def react(self, name: str) -> None:
        if name == "shown" and self.values["shown"]:  # the answer goes its way, as long on every machine
            norms_by_layer(1.0, DEPTH, _KIND, _SOURCE)  # cached, so that the clock measures pictures alone
            other_draws()
            start = time.monotonic()
            try:
                while (share := (time.monotonic() - start) / SECONDS) < 1:
                    if int(share * DEPTH) != self._passed:
                        self._passed = int(share * DEPTH)
                        self._redraw()
                    else:
                        time.sleep(0.01)
            finally:
                self._passed = DEPTH

    def draw(self, figure: Figure, bet: float, shown: bool) -> str:
        before, way, guess, after = (figure.add_axes(place) for place in _PLACES)
        photograph = pictures()[_SOURCE]
        white = float(photograph.max())
        _picture(before, photograph, "goes in: norm 1", white)
        figure.text(0.108, 0.42, _SETUP, ha="center", va="top", fontsize=_SMALL, linespacing=1.5)
        _picture(guess, bet * photograph, f"your bet: {'all' if bet == 1 else number(bet)} of that light", white)
        if bet < 1 / 255:  # below the darkest gray of a screen
            guess.text(
                0.5, 0.5, "too dark to be seen", ha="center", va="center", color=FAINT, transform=guess.transAxes
            )
        _draw_layers(way)
        way.plot([0, DEPTH], [1, bet], color=BLUE, lw=2.5, zorder=3)
        if not shown:
            _end(way, DEPTH, bet, f"your bet: {number(bet)}", BLUE)
            _hidden(after, "comes out")
            return _words_of_the_bet(bet)
        signal = norms_by_layer(1.0, DEPTH, _KIND, _SOURCE)[0][: self._passed + 1]
        left = float(signal[-1])
        if self._passed == DEPTH:
            way.plot(range(DEPTH + 1), other_draws().T, color=FAINT, lw=0.8, zorder=1)
        way.plot(range(len(signal)), signal, color=VERMILION, lw=2.5, zorder=4)
        _end(way, DEPTH, bet, f"bet: {number(bet)}", BLUE)
        _end(way, self._passed, left, number(left), VERMILION)
        title = f"comes out, light × {size(1 / left)}" if self._passed == DEPTH else f"after layer {self._passed}"
        _picture(after, after_layers(self._passed, _KIND, _SOURCE), title)
        if self._passed < DEPTH:
            return f"After {self._passed} layers {number(left)} is left."
        return _words_of_the_answer(bet, left)


class Press(ipywidgets.Button):
    """A button that stays pressed; ``value`` says whether it was pressed."""

    value = traitlets.Bool(False)

    def __init__(self, **look: Any) -> None:
        super().__init__(**look)
        self.on_click(lambda _: setattr(self, "value", True))


@functools.cache
def other_draws(seed: int = 100) -> Tensor:
    """Return what is left of the photograph after 0 to 30 layers, for other random layers: ``(OTHERS, 31)``."""
    image = pictures()[_SOURCE]
    generator = torch.Generator().manual_seed(seed)
    kernels = torch.randn(OTHERS, DEPTH, 3, 3, dtype=image.dtype, generator=generator)
    gains = torch.fft.fft2(kernels, s=tuple(image.shape)).abs()  # the singular values, by frequency
    gains = gains / gains.amax((2, 3), keepdim=True)  # now the largest, the norm, is 1
    waves = torch.fft.fft2(image, norm="ortho").abs()
    left = (gains.cumprod(1) * waves).square().sum((2, 3)).sqrt()
    return torch.cat([left.new_ones(OTHERS, 1), left], dim=1)


def number(value: float) -> str:
    """Return a number with one digit as text: 1, 0.3, 0.001, 3 · 10⁻⁴."""
    digit, exponent = f"{value:.0e}".split("e")
    if -3 <= int(exponent) <= 0:
        return f"{float(f'{value:.0e}'):g}"
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digit == "1" else f"{digit} · {power}"


def size(ratio: float) -> str:
    """Return a factor of at least 1 with one digit as text, in words where they help: 5, 300, 200 million, 3 · 10⁹."""
    ratio = float(f"{ratio:.0e}")
    if ratio >= 1e9:
        return number(ratio)
    for unit, name in ((1e6, " million"), (1e4, " thousand")):
        if ratio >= unit:
            return f"{ratio / (1e3 if name == ' thousand' else unit):.0f}{name}"
    return f"{ratio:.0f}"


def _picture(ax: Axes, image: Tensor, title: str, white: float | None = None) -> None:
    """Plot a gray image: 0 black and ``white`` white, or stretched to both ends."""
    ax.imshow(image.numpy(), cmap="gray", interpolation="nearest", vmin=None if white is None else 0, vmax=white)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=_NORMAL)


def _hidden(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], facecolor="#EEEEEE")
    ax.text(0.5, 0.47, "?", ha="center", va="center", fontsize=40, color=VERMILION, transform=ax.transAxes)
    ax.set_title(title, fontsize=_NORMAL)


def _draw_layers(ax: Axes) -> None:
    """Plot thirty layers as panes, norms on a logarithmic scale, and the limit of layers of norm 1."""
    top = 30
    ax.vlines(range(1, DEPTH + 1), SMALLEST / 20, 1, color="#EAF1F7", lw=4, zorder=0)
    ax.axhspan(1, top, color="#F0F0F0", zorder=0.5)
    ax.text(
        DEPTH / 2, top**0.5, "out of reach: every norm is 1", fontsize=_SMALL, ha="center", va="center", color="#666666"
    )
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.set(xlim=(-0.5, DEPTH + 0.8), ylim=(SMALLEST / 20, top), xticks=range(0, DEPTH + 1, 5))
    ax.set_yticks(list(_LEVELS), list(_LEVELS.values()), fontsize=_SMALL)
    ax.set_xlabel("layers passed")
    ax.set_title("what is left of its norm", fontsize=_NORMAL)
    ax.spines[["top", "right"]].set_visible(False)


def _end(ax: Axes, x: float, y: float, text: str, color: str) -> None:
    """Mark the end of a curve by a dot, with its number below."""
    ax.plot([x], [y], "o", ms=10, color=color, mec="white", zorder=5, clip_on=False)
    look: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": _LARGE, "weight": "bold", "color": color}
    plain = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    ax.annotate(text, (x, y), (-7, -5), textcoords="offset points", zorder=6, bbox=plain, **look)


def _words_of_the_bet(bet: float) -> str:
    if bet == 1:
        return "You bet that all of it comes out: no layer loses anything. Move the slider, then press the button."
    kept = f"{bet ** (1 / DEPTH):.0%}"
    return (
        f"You bet that {number(bet)} comes out, as if each layer kept {kept} of what it gets. "
        "When you are sure, press the button."
    )


def _words_of_the_answer(bet: float, left: float) -> str:
    ratio = bet / left
    if 1 / 3 < ratio < 3:
        verdict = "that is a very good bet"
    else:
        verdict = f"{size(max(ratio, 1 / ratio))} times {'less' if ratio > 1 else 'more'} than you bet"
    ends = other_draws()[:, -1]
    return (
        f"You bet {number(bet)}, and {number(left)} comes out: {verdict}. Gray: {OTHERS} other draws of the layers end "
        f"between {number(float(ends.min()))} and {number(float(ends.max()))}. The norm 1 says what a layer leaves of "
        "its luckiest picture. Section 3 finds a number that says what it leaves of others."
    )
