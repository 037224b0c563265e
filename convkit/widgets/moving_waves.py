"""Animations of notebooks 02 and 03: phasors add up to an eigenvalue, and a stride folds frequencies."""

import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.operator import ConvOperator
from convkit.plots.style import COLORS, FAINT, INK
from convkit.spectra import spectrum, symbol
from convkit.widgets.animation import AnimationPanel
from convkit.widgets.controls import choice, slider

LINE, FIVE_TAPS = 24, (0.1, 0.2, 0.3, 0.7, 0.6)
_PLACES = ((0.045, 0.15, 0.15, 0.75), (0.275, 0.15, 0.37, 0.75), (0.715, 0.15, 0.275, 0.75))
FINE = 4  # moments from one frequency to the next


def phasors(frequency: float) -> Tensor:
    """Return the numbers ``a_q exp(2 pi i v q / n)``, one for each tap; their sum is the symbol at frequency v."""
    turns = frequency * torch.arange(len(FIVE_TAPS), dtype=torch.float64) / LINE
    return torch.polar(torch.tensor(FIVE_TAPS, dtype=torch.float64), 2 * math.pi * turns)


@functools.cache
def phasor_symbol(n: int) -> Tensor:
    """Return the library's symbol of the five taps on ``n`` pixels, the window beginning at its output pixel."""
    taps = torch.tensor([[FIVE_TAPS]], dtype=torch.float64)
    return symbol(ConvOperator(taps, n, padding=((0, len(FIVE_TAPS) - 1),)))[:, 0, 0]


class PhasorAnimation(AnimationPanel):
    """An animation of the sum that makes an eigenvalue: turned taps, head to tail, at a frequency or over all."""

    title = "An eigenvalue is a sum of turned taps, put head to tail"
    size = (10.2, 4.2)

    def settings(self) -> dict[str, Any]:
        plays = [("adds the taps", "taps"), ("raises the frequency", "frequency")]
        return {"plays": choice("Play", plays), "frequency": slider("frequency v", 2, 0, LINE // 2)}

    def moments(self, plays: str, frequency: int) -> int:
        return len(FIVE_TAPS) + 1 if plays == "taps" else FINE * LINE // 2 + 1

    def pace(self, plays: str, frequency: int) -> float:
        return 1.2 if plays == "taps" else 6

    def draw(self, figure: Figure, time: int, plays: str, frequency: int) -> str:
        v, count = (frequency, time) if plays == "taps" else (time / FINE, len(FIVE_TAPS))
        arrows = phasors(v)
        heads = torch.cat([torch.zeros(1, dtype=arrows.dtype), arrows[:count].cumsum(0)])
        heads = torch.cat([heads, heads[-1:].expand(len(FIVE_TAPS) - count)])
        end = complex(heads[-1])
        taps, plane, curve = (figure.add_axes(place) for place in _PLACES)
        taps.bar(range(len(FIVE_TAPS)), FIVE_TAPS, color=list(COLORS[: len(FIVE_TAPS)]))
        taps.set(ylim=(0, 0.8), xlabel="q", xticks=range(len(FIVE_TAPS)))
        taps.set_title("the taps $a_q$", fontsize=10)
        for q, (start, head) in enumerate(pairwise(heads.tolist())):
            look = {"arrowstyle": "->", "color": COLORS[q], "lw": 2.6}
            plane.annotate("", (head.real, head.imag), (start.real, start.imag), arrowprops=look, zorder=3)
        plane.plot([0, end.real], [0, end.imag], color=INK, lw=1.4, ls="--", zorder=4)
        plane.plot([end.real], [end.imag], "o", color=INK, ms=7, zorder=5)
        plane.plot([0], [0], "o", color=FAINT, ms=4)
        plane.set(xlim=(-1.2, 2.1), ylim=(-0.95, 1.75), aspect="equal", xlabel="real part", ylabel="imaginary part")
        plane.set_title("their sum, head to tail", fontsize=10)
        fine, known = phasor_symbol(8 * LINE).abs(), phasor_symbol(LINE).abs()
        half = LINE // 2 + 1
        curve.plot(np.arange(4 * LINE + 1) / 8, fine[: 4 * LINE + 1].numpy(), color=FAINT, lw=1.5)
        curve.plot(range(half), known[:half].tolist(), "o", color=FAINT, ms=5)
        curve.plot([v, v], [0, abs(end)], color=INK, lw=1.4, ls="--")
        curve.plot([v], [abs(end)], "o", color=INK, ms=7)
        curve.set(xlim=(-0.5, LINE / 2 + 0.5), ylim=(0, 2.05), xlabel="frequency v", xticks=range(0, half, 3))
        curve.set_title(f"length of the sum; dots: {LINE} pixels", fontsize=10)
        turn = f"Frequency {v:g} turns tap q by {360 * v / LINE:g} q degrees"
        if count < len(FIVE_TAPS):
            return f"{turn}; {count} of the {len(FIVE_TAPS)} taps are added up."
        last = f"{turn}. The sum has length {abs(end):.2f}"
        if plays == "frequency":
            return f"{last}."
        sign = "+" if end.imag >= 0 else "−"
        return (
            f"{last}: it is the eigenvalue {end.real:.2f} {sign} {abs(end.imag):.2f} i of equation (1). Its length "
            "will be the singular value of equation (2)."
        )


FOLDED_TAPS = (1.0, 3.0, -2.0, 1.0, 2.0)


_ORDINALS = {2: "second", 3: "third", 4: "fourth"}


@functools.cache
def folded_operator(stride: int) -> ConvOperator:
    """Return the layer of section 3: five taps on 24 circular pixels."""
    return ConvOperator(torch.tensor([[FOLDED_TAPS]], dtype=torch.float64), LINE, stride=stride)


class FoldingAnimation(AnimationPanel):
    """An animation of a stride: the frequencies are cut into parts, and the parts are laid on one another."""

    title = "A stride lays frequencies on one another"
    size = (10.2, 4)

    def settings(self) -> dict[str, Any]:
        return {"stride": choice("stride", [2, 3, 4], 3), "g": slider("marked frequency g", 4, 0, LINE // 4 - 1)}

    def moments(self, stride: int, g: int) -> int:
        return stride + 1

    def pace(self, **settings: Any) -> float:
        return 0.6

    def draw(self, figure: Figure, time: int, stride: int, g: int) -> str:
        m = LINE // stride
        parts = symbol(folded_operator(stride))[:, 0].abs() * stride**0.5  # (m, stride): of P at g, at g + m, ...
        after = spectrum(folded_operator(stride))[:, 0]
        left, right = figure.add_axes((0.06, 0.15, 0.6, 0.75)), figure.add_axes((0.735, 0.15, 0.255, 0.75))
        for r, color in enumerate(COLORS[:stride]):
            x = np.arange(m) + (r * m if r > time else 0)
            name = f"P at g + {r * m}" if r else "P at g"
            left.plot(x, parts[:, r].numpy(), color=color, marker="o", ms=4, label=name)
            left.plot([x[g]], [float(parts[g, r])], "D", color=color, mec=INK, ms=8, zorder=4)
            right.bar([r], [float(parts[g, r]) if r <= time else 0], color=color, width=0.7)
        known = time == stride
        left.plot(range(m), np.where(known, after, np.nan), color=INK, lw=3, label="singular value", zorder=3)
        right.bar([stride], [float(after[g]) if known else 0], color=INK, width=0.7)
        left.set(xlim=(-0.7, LINE - 0.3), ylim=(0, 9.6), xlabel="frequency", ylabel="absolute value")
        left.locator_params(axis="x", nbins=9, integer=True)
        left.legend(frameon=False, loc="upper right", fontsize=9)
        left.set_title(f"stride {stride}: {LINE} frequencies fold onto {m}", fontsize=10)
        names = ["g", *(f"g+{r * m}" for r in range(1, stride)), "all"]
        right.set_xticks(range(stride + 1), names, fontsize=9)
        right.set(ylim=(0, 9.6), xlim=(-0.6, stride + 0.6))
        right.set_title(f"what meets at g = {g}", fontsize=10)
        if time == 0:
            return f"Stride 1 has {LINE} frequencies. Stride {stride} keeps {m} pixels, which have only {m}."
        if time < stride:
            return (
                f"Frequencies {time * m} to {time * m + m - 1} look like 0 to {m - 1} once only every "
                f"{_ORDINALS[stride]} pixel is kept: at g = {g}, {time + 1} of {stride} numbers stand in one block, as "
                "equation (7) says."
            )
        return (
            f"At g = {g} the block of equation (7) has the {stride} numbers that meet there, divided by the root of "
            f"{stride}. Its singular value is their root mean square, {after[g]:.2f}."
        )
