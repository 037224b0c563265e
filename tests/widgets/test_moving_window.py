"""The rows that the window writes are those of the matrix, and the line closes to a ring of the same length."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.operators.circulants import doubly_block_circulant
from convkit.widgets.moving_window import (
    IMAGE,
    PIXELS,
    PLACES,
    RING_TAPS,
    TAPS,
    RingAnimation,
    WindowAnimation,
    bent,
    ring_rows,
    window_operator,
)
from convkit.widgets.sheet import Sheet

H, W = IMAGE.shape


def dense(boundary):
    """The matrix of S, equation 2, tap by tap."""
    M = torch.zeros(H, W, H, W, dtype=torch.float64)
    for i, j, p, q in np.ndindex(H, W, *TAPS.shape):
        if boundary == "circular" or (i + p < H and j + q < W):
            M[i, j, (i + p) % H, (j + q) % W] += TAPS[p, q]
    return M.reshape(H * W, H * W)


def drawn(panel, time, **settings):
    sheet = Sheet(panel.size)
    words = panel.draw(sheet, time=time, **settings)
    return sheet.axes, words


def texts(ax):
    return [(float(mark["x"][0]), float(mark["y"][0]), mark["words"]) for mark in ax.marks if mark["kind"] == "text"]


@pytest.mark.parametrize("boundary", ["circular", "zeros"])
def test_each_row_is_that_of_the_dense_matrix_and_its_product_is_the_output_pixel(boundary):
    panel, M = WindowAnimation(), dense(boundary)
    assert_close(window_operator(boundary).matrix(), M)
    for time in range(H * W):
        (image, _, matrix, output), words = drawn(panel, time, boundary=boundary)
        (entries,) = [mark["image"] for mark in matrix.marks if mark["kind"] == "image"]
        assert np.array_equal(entries[time], M[time])
        (cover,) = [mark["y"] for mark in matrix.marks if mark["kind"] == "span"]
        assert list(cover) == [time + 0.5, H * W - 0.5]  # later rows are covered
        row = [mark for mark in matrix.marks if mark["kind"] == "line"][-1]
        assert (row["y"].min(), row["y"].max()) == (time - 0.5, time + 0.5)
        i, j = divmod(time, W)
        window = [mark for mark in image.marks if mark["kind"] == "line"][-1]
        assert (window["x"].min(), window["x"].max(), window["y"].min()) == (j - 0.5, j + 2.5, i - 0.5)
        value = f"{float(M[time] @ IMAGE.flatten()):g}"
        shown = {(x, y): text for x, y, text in texts(output)}
        assert shown[j, i] == value
        assert [text for _, _, text in texts(output)].count("") == H * W - 1 - time
        assert f"puts {int(M[time].count_nonzero())} taps" in words
        assert f"adds up to {value}, output pixel ({i}, {j})" in words


def test_all_rows_together_are_equation_7_with_circular_padding_only():
    whole = torch.zeros(H, W, dtype=torch.float64)
    whole[:2, :3] = TAPS
    assert_close(dense("circular"), doubly_block_circulant(whole))
    says = {boundary: drawn(WindowAnimation(), H * W - 1, boundary=boundary)[1] for boundary in ("circular", "zeros")}
    assert "equation (7)" in says["circular"]
    assert "equation (7)" not in says["zeros"]


def test_what_is_read_beyond_the_edge_is_what_stands_there():
    (image, *_), _ = drawn(WindowAnimation(), 0, boundary="circular")
    numbers = [mark for mark in image.marks if mark["kind"] == "text" and mark["size"] == 10]
    around = np.array([float(mark["words"]) for mark in numbers]).reshape(H + 1, W + 2)
    assert np.array_equal(around, IMAGE.numpy()[np.arange(H + 1) % H][:, np.arange(W + 2) % W])


def circulant_row(i):
    row = np.zeros(PIXELS)
    for q, tap in enumerate(RING_TAPS.tolist()):
        row[(i + q) % PIXELS] += tap
    return row


def test_the_line_loses_taps_and_the_ring_keeps_them():
    on_ring = np.stack([circulant_row(i) for i in range(PIXELS)])
    assert np.array_equal(ring_rows(PIXELS, 1).numpy(), on_ring)
    six = ring_rows(PIXELS - 2, 0).numpy()
    assert np.array_equal(six[:6], on_ring[:6])
    assert (six[6].tolist(), six[7].tolist()) == ([0, 0, 0, 0, 0, 0, 1, 2], [0.0] * 8)
    assert ring_rows(PIXELS - 2, 0.5)[6, 0] == 1.5
    assert PLACES[0] == (0, 0)
    assert [place for place, part in PLACES if part == 0] == list(range(7))


@pytest.mark.parametrize("part", [0, 0.3, 1])
def test_a_bent_line_keeps_its_length_and_closes_at_the_end(part):
    x, y = bent(np.linspace(-4, 4, 4001), part, 8)
    assert np.hypot(np.diff(x), np.diff(y)).sum() == pytest.approx(8, rel=1e-5)
    ends = np.hypot(x[-1] - x[0], y[-1] - y[0])
    assert ends == pytest.approx(8 if part == 0 else 0, abs=1e-9) if part in (0, 1) else 0 < ends < 8


def test_pixels_beyond_the_end_fall_on_the_first_ones():
    for time, (_, part) in enumerate(PLACES):
        (line, _), _ = drawn(RingAnimation(), time)
        dots = [mark for mark in line.marks if mark["kind"] == "line" and mark.get("marker") == "o"]
        ghosts, pixels = (np.stack([mark["x"], mark["y"]]) for mark in dots)
        assert pixels.shape == (2, PIXELS)
        assert np.allclose(ghosts, pixels[:, :2]) == (part == 1)
        assert np.abs(pixels).max() < 5
