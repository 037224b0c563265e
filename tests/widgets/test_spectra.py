"""The panel of notebook 12: its spectra are those of dense matrices, for the kit's networks and the reader's own."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn
from torch.testing import assert_close

from convkit.operators.network import conv_operators
from convkit.plots import plot_intervals, plot_radii
from convkit.widgets.spectra import SpectraPanel
from tests.helpers.panels import mouse
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

TORUS, CIRCLE = "zeros, by their torus", "made circular"
LAYERS = ["0", "3", "6", "9"]


def mine(seed: int) -> nn.Sequential:
    """Zero padding with BatchNorm, a stride, a circular layer with groups, a head; every axis another size."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, (3, 2), padding=(1, 1)), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, padding=1, groups=2, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(6, 5),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.2, 3)
            nn.init.normal_(module.weight)
    return model.double().eval()


X = torch.zeros(1, 2, 6, 5, dtype=torch.float64)
PANEL = lambda: SpectraPanel(mine(0), X, mine(1))  # noqa: E731


def dense(model, layer, folded=False, boundary=TORUS) -> torch.Tensor:
    """The singular values of the matrix of what the panel says that it measures."""
    A = conv_operators(model, X)[layer]
    if folded and layer in ("0", "3"):
        norm = model[int(layer) + 1]
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        A = replace(A, kernel=A.kernel * gain.view(-1, 1, 1, 1))
    if not A.is_block_circulant:
        A = A.torus() if boundary == TORUS else A.circular()
    if not A.is_block_circulant:  # a circle whose size the stride does not divide
        A = replace(A, input_shape=tuple(math.ceil(n / s) * s for n, s in zip(A.input_shape, A.stride, strict=True)))
    return torch.linalg.svdvals(A.matrix().detach())


@pytest.mark.parametrize("boundary", [TORUS, CIRCLE])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_values_are_those_of_the_dense_matrix(panel, layer, folded, boundary):
    for name, model in panel._models.items():
        seen = panel._spectrum(name, layer, folded, boundary)
        wanted = dense(model, layer, folded, boundary)
        assert_close(seen.values, wanted)
        assert seen.exact == (layer in ("6", "9"))
        assert seen.norm == pytest.approx(float(wanted[0]))
        assert seen.stable_rank == pytest.approx(float(wanted.square().sum() / wanted[0] ** 2))


def test_first_state_tells_the_norms_and_how_many_are_exact(panel):
    norms = {layer: float(dense(panel._models["trained"], layer)[0]) for layer in LAYERS}
    low, high = min(norms, key=norms.get), max(norms, key=norms.get)
    assert f"norms from {norms[low]:.3g} ({low}) to {norms[high]:.3g} ({high})" in panel.words
    assert "2 of 4 layers are exact, the others measured on the torus" in panel.words
    lines = panel.figure.axes[0].lines
    assert [line.get_label() for line in lines] == LAYERS
    for line, layer in zip(lines, LAYERS, strict=True):
        assert line.get_ydata()[0] == pytest.approx(norms[layer])


def test_a_picked_layer_tells_its_numbers_and_whose_they_are(panel, says):
    A = conv_operators(panel._models["trained"], X)["3"]
    own, values = torch.linalg.svdvals(A.matrix().detach()), dense(panel._models["trained"], "3")
    says(
        False,
        f"norm {values[0]:.4g}, condition number {values[0] / values[-1]:.3g}",
        f"of {len(values)}. These are numbers of the torus on",
        f"own norm, converged, is {own[0]:.4g}, below it as it must be",
        layer="3",
    )
    says(False, "numbers of the same layer made circular", layer="3", boundary=CIRCLE)
    assert "as it must be" not in panel.words
    says(False, "All exact: the layer has Fourier blocks.", layer="6")
    says(False, "nothing behind it to fold", layer="6", folded=True)
    says(False, "BatchNorm's gains in it", layer="0", folded=True)


def test_views_divide_by_the_largest_and_by_the_number(panel):
    panel.set(layer="9", view="by relative rank")
    line = next(line for line in panel.figure.axes[0].lines if line.get_label() == "9")
    values = dense(panel._models["trained"], "9")
    assert_close(torch.tensor(line.get_ydata()), values / values[0])
    assert_close(torch.tensor(line.get_xdata()), torch.arange(1, 6, dtype=torch.float64) / 5)


def test_a_click_on_the_bar_of_colors_picks_the_layer_of_that_color(panel):
    assert panel._drawing.steered == [1]
    whole, bar = panel.figure.axes
    colors = np.asarray([to_rgb(line.get_color()) for line in whole.lines])
    assert np.asarray(bar.images[0].get_array())[:, 0, :3] == pytest.approx(colors)
    low, high = bar.get_ylim()
    for y, layer in ((low, "0"), (0.4, "0"), (0.6, "3"), (2.0, "6"), (2.6, "9"), (high, "9")):
        mouse(panel, x=0.0, y=y)
        assert panel.values["layer"] == layer
        assert panel.words.startswith(f"{layer}, trained")


def test_a_layer_that_loses_rank_has_an_infinite_condition_number():
    panel = SpectraPanel(nn.Sequential(nn.Conv2d(2, 3, 1, stride=2, bias=False)).double(), X[..., :4])
    panel.set(layer="0")
    assert "condition number infinite" in panel.words  # 2 channels to 3: a third of the outputs follows from the others
    panel.set(log=True)
    values = panel.figure.axes[0].lines[0].get_ydata()
    assert (values[values == values] > 1e-5).all()  # rounding is left out


def test_without_a_model_it_shows_the_kits_own_kernels():
    assert "64 to 128" in dict(SpectraPanel().control("layer").options)


def test_the_models_are_left_as_they_were():
    model = mine(0).train()
    with unchanged(model):
        SpectraPanel(model, X).set(folded=True)


def test_networks_on_a_device_are_shown_as_on_the_cpu(device):
    there = SpectraPanel(mine(0).to(device), X.to(device), mine(1).to(device))
    here = SpectraPanel(mine(0), X, mine(1))
    for choices in ({}, {"layer": "3", "folded": True}, {"layer": "9", "weights": "both", "log": True}):
        for panel in (there, here):
            panel.set(**choices)
        assert there.words == here.words
        lines = [[line.get_xydata() for line in panel.figure.axes[0].lines] for panel in (there, here)]
        for found, wanted in zip(*lines, strict=True):
            assert_close(torch.from_numpy(found), torch.from_numpy(wanted), equal_nan=True)


def test_bad_input_is_told_in_a_sentence():
    refused("needs x, a batch that the model takes", SpectraPanel, mine(0))
    names = "layers of the same names, got '3', '6', '9' in one of them alone"
    refused(names, SpectraPanel, mine(0), X, mine(0)[:3])
    refused("needed a model with convolutions or linear layers", SpectraPanel, nn.ReLU(), X)


def test_the_gap_goes_from_the_largest_found_to_the_smallest_bound():
    row = {"steepest found": [1.0, 3.0], "bound, folded": 50.0, "bound": [80.0, 60.0], "product": 900.0}
    ax = plot_intervals({"one": row, "closed": {"steepest found": 2.0, "bound": 2.0}}, aside="product")
    band = next(line for line in ax.lines if line.get_linewidth() > 5)
    assert list(band.get_xdata()) == [3.0, 50.0]
    assert sum(line.get_linewidth() > 5 for line in ax.lines) == 1
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(row)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["one", "closed"]


def test_the_line_of_equal_radii_is_where_they_are_equal():
    ax = plot_radii({"one": ([0.5, 2.0], [0.1, 0.2]), "two": ([0.25], [1e-9])})
    x, y = ax.lines[-1].get_data()
    assert list(x) == list(y) == [0.25, 2.0]
