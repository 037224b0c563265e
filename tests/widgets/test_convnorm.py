"""The panel of notebook 07: its numbers are the layer's, and a broken normalization turns red and says why."""

import pytest
import torch
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from convkit.widgets.convnorm import ConvNormPanel, kernel_of, layer_of, picture, through

pytestmark = pytest.mark.slow

RANDOM, BLUR, BOX, EDGE = "random, 2 channels to 3", "blur", "box", "edge"
CIRCULAR, ZEROS = "circular", "zero padding"
FIRST = {"kind": RANDOM, "n": 13, "stride": 1, "border": CIRCULAR, "affine": "identity", "floor": True, "wrong": False}
PANEL = ConvNormPanel


def channels(matrix: torch.Tensor, count: int) -> torch.Tensor:
    return torch.linalg.svdvals(matrix.view(count, -1, matrix.shape[1]))


def test_first_state_has_all_singular_values_of_the_channels_at_1(panel):
    assert not panel.words.alert
    assert panel.words.startswith("Singular values of each channel: all 1 (condition number 1, ")
    drawn = [line.get_ydata() for line in panel.figure.axes[0].lines]
    before = ConvOperator(kernel_of(RANDOM), (13, 13)).matrix()
    for line, values in zip(drawn[:3], channels(before, 3), strict=True):
        assert_close(torch.tensor(line), values)
    for line in drawn[3:6]:
        assert_close(torch.tensor(line), torch.ones(169, dtype=torch.float64))
    norm = float(singular_values(layer_of(RANDOM, 1, CIRCULAR, "identity").operator((13, 13)))[0])
    assert f"norm of the layer {norm:.3f}" in panel.words


@pytest.mark.parametrize("border", [CIRCULAR, ZEROS])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", ["identity", "random start"])
def test_numbers_are_those_of_the_layer(border, stride, affine):
    seen = through(**{**FIRST, "n": 7, "border": border, "stride": stride, "affine": affine})
    layer = layer_of(RANDOM, stride, border, affine)
    plain = ConvOperator(layer.weight, (7, 7), stride, padding_mode="circular" if border == CIRCULAR else "zeros")
    assert_close(seen.before, channels(plain.matrix(), 3), atol=1e-7, rtol=0)
    basis = torch.eye(98, dtype=torch.float64).view(-1, 2, 7, 7)
    zero = torch.zeros(1, 2, 7, 7, dtype=torch.float64)
    assert isinstance(layer, ConvNorm2d)
    matrix = (layer(basis) - layer(zero)).flatten(1).T
    assert_close(seen.after, channels(matrix, 3), atol=1e-6, rtol=0)
    assert seen.norm == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)
    assert seen.torus == (7 if border == CIRCULAR else 9)
    image = picture(7).expand(1, 2, 7, 7) / 2
    assert_close(seen.images[1], plain(image)[0, 0])
    assert_close(seen.images[2], (layer(image) - layer(zero))[0, 0])


def test_stride_keeps_the_tight_frame_and_the_crop_breaks_it(panel, says):
    says(False, "all 1", "A stride leaves out rows, and the rest is a tight frame still", stride=2)
    says(False, "A tight frame only on the torus of 15 pixels a side: the crop to 13 breaks it", border=ZEROS)
    assert "all 1" not in panel.words


def test_normalized_blur_gives_the_image_back():
    seen = through(**{**FIRST, "kind": BLUR})
    assert_close(seen.images[2], seen.images[0])
    assert float((seen.images[1] - seen.images[0]).abs().max()) > 0.3


def test_all_singular_values_are_inside_the_picture(panel):
    for change in ({}, {"affine": "random start"}, {"kind": BOX}):
        panel.set(**change)
        low, high = panel.figure.axes[0].get_ylim()
        values = [float(value) for line in panel.figure.axes[0].lines for value in line.get_ydata()]
        assert low <= min(values) <= max(values) < high


def test_a_random_affine_kernel_starts_as_torch_starts_a_convolution_of_nine_taps():
    layer = layer_of(RANDOM, 1, CIRCULAR, "random start")
    assert layer.affine_weight is not None
    assert 0.25 < float(layer.affine_weight.abs().max()) <= 1 / 3
    assert float(layer.affine_weight.min()) < -0.2


def test_a_null_stays_with_the_floor_and_is_nan_without(says):
    says(False, "The spectrum is 0 at 44 frequencies: what is gone there no v brings back", kind=BOX, n=12)
    lost = "on the torus of 12 × 12 pixels the spectrum is 0 at 44 frequencies, v is infinite there"
    says(True, lost, kind=BOX, n=12, floor=False)
    least = float(torch.linalg.svdvals(ConvOperator(kernel_of(BOX), (13, 13)).matrix())[-1])
    says(False, f"No floor is needed: |a| is at least {least:.2g} at every frequency", kind=BOX, floor=False)
    says(True, "15 × 15", kind=BOX, floor=False, border=ZEROS)  # now the torus has 15 pixels a side
    says(True, "is 0 at one frequency", kind=EDGE, floor=False)


@pytest.mark.parametrize("border", [CIRCULAR, ZEROS])
def test_the_wrong_v_is_that_of_the_smaller_torus_before_the_stride(border):
    whole, strided = (through(**{**FIRST, "border": border, "wrong": True, "stride": stride}) for stride in (1, 2))
    assert_close(strided.images[2], whole.images[2][::2, ::2])
    assert strided.after.shape == (3, 49)


@pytest.mark.parametrize("kind", [RANDOM, BLUR, BOX])
@pytest.mark.parametrize("border", [CIRCULAR, ZEROS])
def test_v_of_another_size_is_red_and_named(says, kind, border):
    size = 13 if border == CIRCULAR else 15
    text = f"v was made for {size - 1} × {size - 1} pixels and meets a torus of {size} × {size}"
    says(True, text, kind=kind, border=border, wrong=True)
