"""However many curves there are, each is drawn, and each looks different from the others."""

import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import convkit.plots as plots
from convkit.plots import COLORS, MARKERS, styles
from convkit.teaching.pictures import png_bytes
from tests import ROOT

NAMES = [f"curve {number}" for number in range(9)]
X = np.arange(1, 13)
Y = {name: np.linspace(2, 1, 12) / number for number, name in enumerate(NAMES, start=1)}
PAIRS = {name: (X, y) for name, y in Y.items()}
SEVERAL = {name: [y, y] for name, y in Y.items()}
BOUNDS = {f"bound of {name}": y for name, y in Y.items()}
ONE = {name: y[0] for name, y in Y.items()}
CHARTS = {
    "curves": lambda: plots.plot_curves(PAIRS),
    "curves by seed": lambda: plots.plot_curves({name: [pair, pair] for name, pair in PAIRS.items()}),
    "points": lambda: plots.plot_points(PAIRS),
    "bands": lambda: plots.plot_bands({name: (X, [y, y / 2, y[:5]]) for name, y in Y.items()}),
    "growth": lambda: plots.plot_growth(PAIRS),
    "radii": lambda: plots.plot_radii(PAIRS),
    "spectra": lambda: plots.plot_spectra(Y),
    "layer spectra": lambda: plots.plot_layer_spectra(Y),
    "by layer": lambda: plots.plot_by_layer(Y),
    "plane": lambda: plots.plot_plane(Y),
    "layers": lambda: plots.plot_layers(SEVERAL),
    "channels": lambda: plots.plot_channels(SEVERAL),
    "band": lambda: plots.plot_band(X, 0 * X, 2 + 0 * X, Y),
    "samples of a symbol": lambda: plots.plot_symbol(np.ones((5, 2)), SEVERAL),
    "levels of a symbol": lambda: plots.plot_symbol(np.ones((5, 2)), {}, levels=ONE),
    "bounds by part": lambda: plots.plot_growth_by_part([str(x) for x in X], Y, [[y] for y in X]),
    "bounds that say so": lambda: plots.plot_growth_by_part([str(x) for x in X], BOUNDS, [[y] for y in X]),
    "intervals": lambda: plots.plot_intervals({"row": {**ONE, "bound": 3}, "other": {"found": 1, "bound": 3}}),
    "parts of a spectrum": lambda: plots.plot_folding(np.ones(36), 9),
}

FAMILY = [
    "BN",
    "BatchNorm",
    "no clip",
    "ConvNorm, BatchNorm",
    "convnorm",
    "sphere",
    "sphere, decay 0.05",
    "clipped at 1",
]
FAMILY += ["weight decay", "WS from 0.3"]
BY_SEED = ("curves by seed", "layers", "channels")


def sample(line):
    """A picture of a short line of this color, marker and line style."""
    figure = Figure((1, 0.4))
    copy = Line2D([0.1, 0.5, 0.9], [0.5, 0.5, 0.5])
    copy.update_from(line)
    copy.set(transform=figure.transFigure, clip_on=False, label="")
    figure.add_artist(copy)
    return png_bytes(figure)


@pytest.mark.parametrize("chart", CHARTS)
def test_nine_curves_are_drawn_and_named_and_look_different(chart):
    ax = CHARTS[chart]()
    lines, names = ax.get_legend_handles_labels()
    ours = {name: line for line, name in zip(lines, names, strict=True) if "curve" in name or chart.startswith("parts")}
    assert len(ours) == 9
    assert all(len(line.get_xdata()) > 0 for line in ours.values())
    assert len({sample(line) for line in lines}) == len(lines) == len(set(names))
    drawn = [sample(line) for line in ax.lines]
    assert {drawn.count(sample(line)) for line in ours.values()} == {2 if chart in BY_SEED else 1}


def test_nine_densities_are_drawn_and_named_and_look_different():
    ax = plots.plot_densities(Y)
    for lines in (ax.lines[:9], ax.get_legend_handles_labels()[0]):
        assert len({sample(line) for line in lines}) == 9
    assert ax.get_legend_handles_labels()[1] == NAMES
    assert len({float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "|"}) == 9


def test_nine_classes_have_nine_kinds_of_points():
    points = np.random.default_rng(0).random((9, 2))
    ax = plots.plot_regions(np.arange(9.0).reshape(3, 3), (0, 1, 0, 1), points, range(9), 0.1)
    assert len({sample(line) for line in ax.lines}) == len(ax.patches) == 9


def test_the_first_six_styles_are_the_colors_and_markers_and_all_are_different():
    assert styles(6) == [(color, marker, "-") for color, marker in zip(COLORS, MARKERS, strict=True)]
    many = styles(45)  # seven times through the colors
    assert many[:6] == styles(6)
    assert len({(color, marker) for color, marker, _ in many}) == len({(color, line) for color, _, line in many}) == 45
    pairs = {name: ([0, 1], [0, 1]) for name in map(str, range(45))}
    assert len({sample(line) for line in plots.plot_curves(pairs).lines}) == 45
    assert len({sample(line) for line in plots.plot_points(pairs).lines}) == 45


def test_a_method_has_one_color_and_its_variants_other_lines():
    of = {name: look for name, look in zip(FAMILY, plots.method_styles(FAMILY), strict=True)}
    assert of["BN"][:2] == of["BatchNorm"][:2] == of["no clip"][:2]
    assert of["ConvNorm, BatchNorm"][:2] == of["convnorm"][:2] != of["BN"][:2]
    assert of["sphere, decay 0.05"][0] == of["sphere"][0]
    assert len({look for look in of.values()}) == len(FAMILY)
    assert len({color for color, _, _ in of.values()}) == len({marker for _, marker, _ in of.values()}) == 6
    with pytest.raises(ValueError, match="needs a known way to train, got 'a broom'"):
        plots.method_styles(["a broom"])


def test_a_band_reaches_from_the_lowest_run_to_the_highest_and_ends_with_the_longest():
    ax = plots.plot_bands({"three": ([1, 2, 3], [[1, 2, 9], [3, 5, 4], [2.0]])})
    assert ax.lines[0].get_ydata().tolist() == [2, 3.5, 6.5]
    (corners,) = ax.collections[0].get_paths()
    assert {(1, 1), (1, 3), (2, 2), (2, 5), (3, 4), (3, 9)} <= set(map(tuple, corners.vertices.tolist()))


def test_nothing_is_dropped_from_the_longer_of_two_lists():
    for path in (ROOT / "convkit").rglob("*.py"):
        text = path.read_text("utf-8")
        zips, words = (len(re.findall(pattern, text)) for pattern in (r"\bzip\(", r"\bstrict="))
        assert zips == words == text.count("strict=True"), path
