"""The panel of notebook 01: what it draws is the library's matrix, and what it says is true of that matrix."""

from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import convkit.widgets.matrices as module
from convkit.operators.circulants import doubly_block_circulant
from convkit.operators.operator import ConvOperator
from convkit.plots import plot_matrix, plot_patch
from convkit.widgets.matrices import PRESETS, MatrixPanel, channel_kernels, structure

IMPULSE = ((0, 0, 0), (0, 2, 0), (0, 0, 0))
RAMP = PRESETS["1 to 9"]
PANEL = MatrixPanel


def operator(taps=RAMP, size=4, c_out=1, c_in=1, **geometry) -> ConvOperator:
    return ConvOperator(channel_kernels(taps, c_out, c_in), (size, size), **geometry)


def test_first_state_is_circulant_and_counts_its_entries(says):
    row = "Row 12 computes output pixel (2, 2): it reads 9 numbers, none of them across the edge"
    count = "225 of the 625 entries (36%) are not zero, and they hold 9 different numbers"
    says(False, count, "doubly block circulant", row)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("boundary", ["circular", "zeros"])
@pytest.mark.parametrize("size, c_in, c_out, stride", [(5, 1, 1, 1), (4, 2, 1, 1), (5, 1, 2, 2), (7, 2, 2, 3)])
def test_drawn_row_gives_the_output_that_the_words_name(
    panel, monkeypatch, columns, boundary, size, c_in, c_out, stride
):
    drawing = {plot: Mock(wraps=plot) for plot in (plot_matrix, plot_patch)}
    for plot, watched in drawing.items():
        monkeypatch.setattr(module, plot.__name__, watched)
    taps = PRESETS["random"]
    panel.set(preset="random", size=size, c_in=c_in, c_out=c_out, stride=stride, boundary=boundary, columns=columns)
    row = c_out * (-(-size // stride)) ** 2 - 2  # of the last channel, where row and column differ
    drawing[plot_patch].reset_mock()
    panel.set(row=row)
    M = drawing[plot_matrix].call_args.args[0]
    patches, _, _, frames = zip(*(call.args for call in drawing[plot_patch].call_args_list), strict=True)
    layer = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False, padding_mode=boundary).requires_grad_(False)
    layer.weight = nn.Parameter(channel_kernels(taps, c_out, c_in), requires_grad=False)
    x = torch.randn(1, c_in, size, size, dtype=torch.float64)
    y = layer(x)[0]
    assert_close(M @ x.flatten(), y.flatten())
    last = y.shape[-1] - 1
    i, j = (last - 1, last) if columns else (last, last - 1)
    assert f"Row {row} computes output pixel ({i}, {j})" in panel.words
    assert ("of channel 1:" in panel.words) == (c_out == 2)
    assert frames == ((i * stride, j * stride),) * c_in
    drawn = torch.stack(patches)
    if columns:  # as drawn, rows and columns are exchanged
        drawn, (i, j) = drawn.mT, (j, i)
    assert_close((drawn * x[0]).sum(), y[-1, i, j])


def test_channel_kernels_are_turned_and_halved():
    kernel = channel_kernels(RAMP, 2, 2)
    ramp = torch.tensor(RAMP, dtype=torch.float64)
    assert kernel.shape == (2, 2, 3, 3)
    assert_close(kernel[0, 0], ramp)
    assert_close(kernel[1, 0], torch.tensor([[3.0, 6, 9], [2, 5, 8], [1, 4, 7]], dtype=torch.float64))
    assert_close(kernel[:, 1], kernel[:, 0] / 2)


def test_patch_writes_the_numbers_that_are_not_zero_and_frames_one_pixel():
    ax = plot_patch(torch.tensor([[0, 0.5, 0], [10.5, 0, -0.25]]), framed=(1, 2))
    assert {text.get_text(): text.get_position() for text in ax.texts} == {".5": (1, 0), "10.5": (0, 1), "-.25": (2, 1)}
    (frame,) = ax.lines
    assert (min(frame.get_xdata()), max(frame.get_xdata())) == (1.5, 2.5)
    assert (min(frame.get_ydata()), max(frame.get_ydata())) == (0.5, 1.5)


def test_matrix_draws_the_edges_of_blocks_that_are_not_square():
    ax = plot_matrix(torch.ones(6, 8), blocks=[(2, 4)])
    across, down = (lines.get_segments() for lines in ax.collections)
    assert [line[0][1] for line in across] == [1.5, 3.5]
    assert [line[0][0] for line in down] == [3.5]


def test_structure_is_read_off_the_entries():
    def kind(**options):
        A = operator(**options)
        return structure(A, A.matrix())

    assert kind() == "circulant"
    assert kind(size=3, c_out=2, c_in=2) == "circulant"
    assert kind(padding_mode="zeros") == "Toeplitz"
    assert kind(padding_mode="zeros", c_out=2, c_in=2) == "Toeplitz"
    assert kind(padding_mode="zeros", taps=IMPULSE) == "circulant"  # no tap crosses the edge
    assert kind(stride=2) == "neither"
    A = operator()
    M = A.matrix()
    M[3, 4] += 1
    assert structure(A, M) == "neither"
    assert structure(A, doubly_block_circulant(torch.randn(4, 4, dtype=torch.float64))) == "circulant"


def test_broken_structure_turns_red_and_says_why(says):
    says(True, "without circular padding the blocks are only Toeplitz", boundary="zeros")
    says(True, "stride 2 keeps the output of every second pixel", stride=2)
    says(True, "stride 3 keeps the output of every third pixel", stride=3, boundary="zeros")
    says(True, "Stack the rows", columns=True)


def test_stacked_columns_miss_by_what_the_words_say_and_symmetric_kernels_hide_it(says):
    A = operator(size=5)
    x = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = A(x)[0, 0].T.flatten()
    error = (A.matrix() @ x[0, 0].T.flatten() - y).abs().max() / y.abs().max()
    assert error > 0.1
    says(True, f"misses vec(Y) by {float(error):.0%}", columns=True)
    says(False, "it still fits", columns=True, preset="blur")


def test_corner_row_counts_what_crosses_the_edge(says):
    says(False, "it reads 9 numbers, 5 of them across the edge", row=0)
    says(True, "it reads 4 numbers; 5 of its taps fall outside", row=0, boundary="zeros")
    says(True, "it reads 6 numbers; 3 of its taps fall outside", row=1, boundary="zeros")


def test_row_slider_ends_at_the_last_row_and_reset_finds_row_12_again(panel):
    row = panel.control("row")
    assert row.max == 24
    panel.set(size=3)
    assert (row.max, row.value) == (8, 8)
    panel.set(c_out=2)
    assert row.max == 17
    panel.set(stride=2)
    assert row.max == 7
    panel.reset()
    assert (row.max, row.value) == (24, 12)


def test_an_edited_kernel_bears_no_name_and_its_old_name_can_be_chosen_again(panel):
    preset, grid = panel.control("preset"), panel.control("kernel")
    preset.value = "edge"  # as a click does
    assert grid.value == PRESETS["edge"]
    grid.value = IMPULSE
    assert preset.value is None
    assert "25 of the 625 entries (4%) are not zero, and they hold 1 different number." in panel.words
    preset.value = "edge"
    assert grid.value == PRESETS["edge"]


def test_all_presets_and_a_kernel_of_zeros_can_be_drawn(panel, says):
    for name in PRESETS:
        says(False, preset=name)
        assert panel.values["preset"] == name
    for columns in (False, True):
        says(False, "0 of the 625 entries (0%)", kernel=((0, 0, 0),) * 3, columns=columns)
