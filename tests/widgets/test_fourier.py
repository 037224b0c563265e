"""The panel of notebook 02: its numbers are the library's, each switch breaks them, and its words say why."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.spectra import singular_values
from convkit.widgets import panel as module
from convkit.widgets.fourier import FourierPanel, layer_and_belief, two_lines
from tests.helpers.panels import drawn as without_pixels

pytestmark = pytest.mark.slow

FIRST = {"n": 6, "k": 3, "c_in": 2, "c_out": 3, "seed": 0, "border": "circular"}
FIRST |= {"stride": 1, "fft": 0, "crop": False, "axes": False}
PANEL = FourierPanel
BREAKS = [
    ({"border": "zero padding"}, "no Fourier wave"),
    ({"border": "none, only whole windows"}, "Toeplitz"),
    ({"stride": 2}, "folds frequencies"),
    ({"fft": -1}, "25 frequencies, not 36"),
    ({"fft": 1}, "49 frequencies, not 36"),
    ({"crop": True, "n": 4, "k": 5}, "cut off"),
    ({"axes": True}, "over the channels"),
]


def drawn(panel):
    """What the first picture shows: the rings of the dense matrix, the dots of the two lines."""
    return [torch.as_tensor(line.get_ydata()) for line in panel.figure.axes[0].lines]


def numpys_two_lines(kernel, size):
    coefficients = np.fft.fft2(kernel.permute(2, 3, 0, 1).numpy(), (size, size), axes=(0, 1))
    return torch.tensor(np.sort(np.linalg.svd(coefficients, compute_uv=False).flatten())[::-1].copy())


def test_first_state_agrees(panel):
    assert panel.values == FIRST
    assert panel.words == "All 72 singular values of the 108 × 72 matrix agree: error ≤ 1e-10."


SIZES = {"n": 2, "k": 5}, {"n": 8}, {"c_in": 1, "c_out": 1}, {"k": 1, "seed": 9}, {"n": 5, "k": 2, "c_in": 3}


@pytest.mark.parametrize("values", SIZES, ids=str)
def test_rings_and_dots_are_the_two_spectra_and_agree(panel, says, values):
    says(False, **values)
    layer, believed = layer_and_belief(**FIRST | values)
    rings, dots = drawn(panel)
    assert_close(rings, torch.linalg.svdvals(layer.matrix()))
    assert_close(dots, singular_values(believed))
    assert_close(dots, rings)
    if layer.kernel.shape[2] <= layer.input_shape[0]:
        assert_close(dots, numpys_two_lines(layer.kernel, layer.input_shape[0]))


@pytest.mark.parametrize("values, why", BREAKS)
def test_a_break_turns_red_and_says_why(panel, says, values, why):
    says(True, why, **values)
    rings, dots = drawn(panel)
    common = min(len(rings), len(dots))
    error = float((rings[:common] - dots[:common]).abs().max())
    assert f"error {error:.2g}" in panel.words
    assert (len(rings) != len(dots)) == (f"{len(dots)} values instead of {len(rings)}" in panel.words)


def test_crop_does_what_fft2_does():
    values = FIRST | {"n": 3, "k": 5, "crop": True}
    layer, believed = layer_and_belief(**values)
    assert_close(two_lines(believed), numpys_two_lines(layer.kernel, 3))
    right = torch.linalg.svdvals(layer.matrix())
    assert_close(two_lines(layer_and_belief(**(values | {"crop": False}))[1]), right)
    assert (two_lines(believed) - right).abs().max() > 0.1


def test_wrong_axes_is_svd_of_each_channel_pair():
    _, believed = layer_and_belief(**FIRST)
    coefficients = np.fft.fft2(believed.kernel.numpy(), (6, 6))  # torch's order: the SVD meets the frequency axes
    expected = np.sort(np.linalg.svd(coefficients, compute_uv=False).flatten())[::-1].copy()
    assert_close(two_lines(believed, wrong_axes=True), torch.tensor(expected))


def test_layer_is_the_torch_layer():
    layer, _ = layer_and_belief(**(FIRST | {"border": "zero padding", "stride": 2}))
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    assert_close(layer(x), torch.nn.functional.conv2d(x, layer.kernel, stride=2, padding=1))


def test_red_exactly_when_a_reason_holds(panel, monkeypatch):
    monkeypatch.setattr(module, "png_bytes", without_pixels)
    options = {"n": (2, 4, 5), "k": (1, 3, 5), "c_in": (1, 2), "stride": (1, 2), "fft": (-1, 0, 1)}
    options |= {"border": ("circular", "zero padding", "none, only whole windows")}
    options |= {"crop": (False, True), "axes": (False, True)}
    every = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    for values in random.Random(0).sample(every, 24):
        panel.set(**FIRST | values)
        if values["border"].startswith("none") and values["k"] > values["n"]:
            assert panel.words.alert
            assert "must fit into the image" in panel.words
            continue
        rings, dots = drawn(panel)
        agree = len(rings) == len(dots) and bool((rings - dots).abs().max() < 1e-9)
        assert panel.words.alert == (not agree), values
        assert agree or "Why: ." not in panel.words, values


def test_harmless_switches_say_so(says):
    says(False, "nothing was cut off", crop=True)
    says(False, "changes nothing", k=1, border="zero padding")
