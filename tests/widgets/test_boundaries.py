"""The panel of notebook 03: its numbers are the library's, every control shows, and a broken bound turns red."""

from dataclasses import replace

import pytest
import torch

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import leading_singular_values, singular_values
from convkit.widgets.boundaries import BoundaryPanel, make_layer, one_row_a_group, three_spectra

pytestmark = pytest.mark.slow

SAME, FULL, NONE, CIRCULAR = "zeros, output as large", "zeros, every tap touches", "no padding", "circular"
PANEL = BoundaryPanel


def curves(panel: BoundaryPanel) -> list[list[float]]:
    """The heights of the three sorted curves."""
    left = panel.figure.axes[0]
    return [[float(y) for y in line.get_ydata()] for line in left.lines]


def test_first_state_is_the_bet(panel, says):
    says(
        True,
        "3.414",
        "The torus of 4 pixels has 4.000: a bound, at every index",
        "Circular on the same 3 pixels has 3.000, 0.414 too little: circular is not a bound",
    )
    exact, circular, torus = curves(panel)
    assert exact == pytest.approx([2 + 2**0.5, 2, 2 - 2**0.5])
    assert circular == pytest.approx([3, 3, 0], abs=1e-12)
    assert torus == pytest.approx([4, 2, 2, 0], abs=1e-12)


def test_presets_and_groups_fill_the_grid(panel):
    def by_hand(name, value):
        panel.control(name).value = value
        return panel.values["taps"]

    assert by_hand("groups", 3) == ((1, -2, 1), (0.5, -1, 0.5), (0.25, -0.5, 0.25))
    assert by_hand("preset", (1, -1)) == ((1, -1), (0.5, -0.5), (0.25, -0.25))
    assert by_hand("groups", 1) == ((1, -1),)
    assert one_row_a_group(((1.0, 2.0), (3.0, 4.0)), 1) == ((1.0, 2.0),)


@pytest.mark.parametrize("pixels", [3, 5, 8, 11, 12])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("boundary", [SAME, FULL, NONE, CIRCULAR])
def test_the_three_spectra_are_those_of_the_library(pixels, stride, boundary):
    taps = ((1.0, 3.0, -2.0), (0.5, 0.0, 2.0))
    layer = make_layer(taps, pixels, stride, 1, 2, boundary)
    padding = {SAME: 1, FULL: 2, NONE: 0, CIRCULAR: 1}[boundary]
    mode = "circular" if boundary == CIRCULAR else "zeros"
    kernel = torch.tensor(taps, dtype=torch.float64)[:, None]
    again = ConvOperator(kernel, pixels, stride, padding, 1, 2, mode)
    torch.testing.assert_close(layer.matrix(), again.matrix())

    exact, circular, larger = three_spectra(layer)
    torch.testing.assert_close(exact[:2], leading_singular_values(again, 2))
    assert (circular is None) == (pixels % stride > 0)
    if circular is not None:
        torch.testing.assert_close(singular_values(circular), torch.linalg.svdvals(layer.circular().matrix()))
    above = singular_values(larger)
    assert (exact <= above[: len(exact)] + 1e-12).all()
    assert larger.stride == ((1,) if boundary == CIRCULAR and pixels % stride else (stride,))


@pytest.mark.parametrize("pixels", [2, 3, 4, 7, 12, 23])
def test_words_are_red_exactly_where_circular_is_not_a_bound(panel, pixels):
    panel.set(pixels=pixels)
    layer = make_layer(((1, -2, 1),), pixels, 1, 1, 1, SAME)
    exact, circular = operator_norm(layer, 2), operator_norm(layer.circular(), 2)
    assert panel.words.alert == bool(circular < exact - 1e-9) == bool(pixels % 2)
    assert f"The exact norm is {exact:.3f}" in panel.words
    assert ("not a bound" in panel.words) == panel.words.alert


def test_a_norm_by_luck_is_told_apart_from_a_bound_at_every_index(panel, says):
    says(False, "4.000, 0.382 more, yet 2 of its values lie below the exact ones", pixels=4)
    exact, circular, _ = curves(panel)
    assert sum(c < e - 1e-9 for c, e in zip(circular, exact, strict=True)) == 2


def test_geometries_without_blocks_are_drawn_as_far_as_they_exist_and_explained(panel, says):
    torus = "No circular curve: stride 2 does not divide 7 pixels", "The torus of 8 pixels"
    says(False, *torus, pixels=7, stride=2)
    assert [len(curve) for curve in curves(panel)] == [4, 0, 4]
    says(False, "at stride 1", pixels=7, stride=2, boundary=CIRCULAR)
    layer = make_layer(((1, -2, 1),), 7, 2, 1, 1, CIRCULAR)
    exact, circular, unstrided = curves(panel)
    assert (len(exact), len(circular), len(unstrided)) == (4, 0, 7)
    assert exact[0] == pytest.approx(float(operator_norm(layer, 2)))
    assert unstrided[0] == pytest.approx(float(operator_norm(replace(layer, stride=1), 2)))


def test_where_fourier_is_exact_the_curves_are_one_and_without_padding_circular_is_a_bound(panel, says):
    says(False, "Fourier is exact", pixels=12, stride=3, boundary=CIRCULAR)
    exact, circular, torus = curves(panel)
    assert exact == pytest.approx(circular)
    assert exact == pytest.approx(torus)
    # stride 3, three taps: no window overlaps or leaves the image
    says(False, "No window crosses the boundary", pixels=12, stride=3, boundary=NONE)
    says(False, "a bound, since without padding", pixels=9, boundary=NONE)


@pytest.mark.parametrize("pixels", [2, 24])
@pytest.mark.parametrize("boundary", [SAME, FULL, CIRCULAR])
def test_extreme_settings_are_drawn(panel, pixels, boundary):
    panel.set(taps=((0.0, 0.0, 0.0),), pixels=pixels, boundary=boundary)
    assert panel.words.startswith("The exact norm is 0.000")
    panel.set(taps=((2.0, 0.0, 0.0, 0.0, 1.0),), stride=3, dilation=4, groups=3)
    assert panel.words.startswith("The exact norm is")
    assert panel.words.alert == ("not a bound" in panel.words)


def test_values_that_the_circular_matrix_lacks_count_as_below(panel):
    panel.set(taps=((1.0, 3.0, -2.0, 1.0, 2.0),), pixels=6, stride=3, boundary=FULL)
    exact, circular, _ = curves(panel)
    assert (len(exact), len(circular)) == (4, 2)
    below = sum(c < e for c, e in zip([*circular, 0, 0], exact, strict=True))
    assert below >= 2
    assert f"{below} of its values lie below" in panel.words
