"""The panel of notebook 04: bars are the library's bounds over the dense norm, never below 1; gaps are explained."""

import math

import pytest
import torch

from convkit import bounds
from convkit.widgets.bounds import BOUNDS, BoundsPanel, compare, make_layer

SAME, FULL, NONE, CIRCULAR = "zeros, output as large", "zeros, every tap touches", "no padding", "circular"
KINDS = ("random", "blur", "identity", "chessboard of signs", "trained on digits")
FIRST = {"kernel": "random", "padding": SAME, "n": 8, "k": 3, "stride": 1, "dilation": 1, "c_in": 2, "c_out": 3}
PANEL = BoundsPanel


def bars(panel: BoundsPanel) -> list[float]:
    """Where each bar ends, from top to bottom."""
    return [patch.get_x() + patch.get_width() for patch in panel.figure.axes[0].patches]


def texts(panel: BoundsPanel) -> list[str]:
    return [text.get_text() for text in panel.figure.axes[0].texts]


# ---- numbers -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("padding", [SAME, FULL, NONE, CIRCULAR])
@pytest.mark.parametrize("geometry", [{}, {"n": 7, "stride": 2, "c_in": 3}, {"n": 9, "k": 4, "stride": 3}], ids=str)
def test_ratios_are_bounds_over_the_dense_norm_and_never_below_one(kernel, padding, geometry):
    layer = make_layer(**FIRST | {"kernel": kernel, "padding": padding} | geometry)
    norm, ratios, reasons = compare(layer)
    dense = float(torch.linalg.matrix_norm(layer.matrix(), 2))
    assert norm == pytest.approx(dense, rel=1e-9)
    assert list(ratios) == list(BOUNDS)
    for name, ratio in ratios.items():
        assert (ratio is None) == (name in reasons)
        assert ratio is None or ratio >= 1 - 1e-9, name
    everywhere = math.prod(layer.out_shape[1:]) * layer.kernel.square().sum()
    expected = {
        "Frobenius norm": bounds.frobenius_bound(layer),
        "Hölder": bounds.holder_bound(layer),
        "flattened × windows": bounds.flattened_bound(layer),
        "best reshaping": bounds.reshaped_bound(layer),
        "equation 3 of L": everywhere.sqrt(),
        "grid for all sizes": bounds.grid_bound(layer),
        "torus": bounds.torus_bound(layer),
    }
    if layer.is_block_circulant:
        expected["Gram iteration"] = bounds.gram_iteration_bound(layer)
    numbers = {name: ratio * dense for name, ratio in ratios.items() if ratio is not None}
    assert numbers == pytest.approx({name: float(bound) for name, bound in expected.items()}, rel=1e-8)


def test_each_control_is_that_of_the_layer():
    layer = make_layer("random", FULL, 9, 4, 2, 3, 5, 7)
    assert layer.kernel.shape == (7, 5, 4, 4)
    assert (layer.input_shape, layer.stride, layer.dilation) == ((9, 9), (2, 2), (3, 3))
    assert (layer.pads, layer.padding_mode) == (((9, 9), (9, 9)), "zeros")
    assert make_layer(**FIRST | {"padding": NONE}).pads == ((0, 0), (0, 0))
    assert make_layer(**FIRST | {"padding": CIRCULAR}).is_block_circulant
    signs = make_layer(**FIRST | {"kernel": "chessboard of signs"}).kernel[0, 0].sign()
    assert signs.tolist() == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]


# ---- the panel -----------------------------------------------------------------------------------------------------
def test_first_state_draws_seven_bars_and_explains_the_eighth(panel, says):
    assert panel.values == FIRST
    _, ratios, _ = compare(make_layer(**FIRST))
    assert bars(panel) == pytest.approx([ratio for ratio in ratios.values() if ratio is not None])
    assert min(bars(panel)) >= 1
    assert texts(panel).count("does not apply here") == 1
    missing = "No bar for Gram iteration: padding that is not circular leaves no Fourier blocks"
    says(False, "Tightest: torus", "the circular one on 9 × 9 pixels", "Loosest: equation 3 of L", missing)


def test_what_is_equal_to_the_norm_is_named_and_green(panel, says):
    reasons = "Equal to it: Hölder, torus.", "some input has the sign of every tap"
    says(False, *reasons, kernel="identity", padding=CIRCULAR)
    assert texts(panel).count("equal") == 2
    assert len({patch.get_facecolor() for patch in panel.figure.axes[0].patches}) == 2


def test_taps_that_meet_leave_out_equation_3_which_would_be_too_small(panel, says):
    values = {"kernel": "blur", "padding": CIRCULAR, "n": 3, "k": 5}
    says(False, "No bar for equation 3 of L: taps meet on one pixel", **values)
    layer = make_layer(**FIRST | values)
    unsound = math.prod(layer.out_shape[1:]) * layer.kernel.square().sum()
    assert float(unsound.sqrt()) < compare(layer)[0]
    assert len(bars(panel)) == 7


def test_the_trained_kernel_says_that_its_size_is_fixed(says):
    says(False, "The trained kernel is 3 × 3, whatever the slider says.", kernel="trained on digits", k=5)
