"""The surface closes to a torus, and what its windows read is what the zero-padded layer reads."""

import numpy as np
import pytest
import torch

from convkit.widgets.moving_torus import (
    TOTAL,
    TorusAnimation,
    padded_operator,
    read_on_torus,
    seen_from,
    torus_corners,
    torus_norms,
)
from convkit.widgets.sheet import Sheet


@pytest.mark.parametrize("padding", [1, 2])
def test_the_torus_reads_the_pixels_that_the_padded_layer_reads_and_zeros(padding):
    A, side = padded_operator(padding), TOTAL - padding
    assert A.torus().input_shape == (TOTAL, TOTAL)
    M = A.matrix().reshape(side, side, side, side)
    for row, column in np.ndindex(side, side):
        reads = read_on_torus(padding, row, column)
        assert torch.equal(reads[:side, :side], M[row, column] != 0)
        assert int(reads.sum()) == (2 * padding + 1) ** 2
    zero, torus = torus_norms(padding)
    assert zero == pytest.approx(float(torch.linalg.matrix_norm(A.matrix(), 2)))
    assert torus == pytest.approx(float(torch.linalg.matrix_norm(A.torus().matrix(), 2)))
    assert zero < torus


def test_a_sheet_becomes_a_tube_and_a_torus():
    n = 7
    sheet, tube, torus = (torus_corners(n, *parts) for parts in ((0, 0), (1, 0), (1, 1)))
    places = np.arange(n + 1) - n / 2
    assert np.allclose(sheet, np.stack([*np.meshgrid(places, -places), np.zeros((n + 1, n + 1))], 2))
    assert np.allclose(tube[0], tube[-1])
    assert np.allclose(np.hypot(tube[..., 1], tube[..., 2]), n / (2 * np.pi))
    assert np.allclose(tube[..., 0], places)
    assert np.allclose(torus[0], torus[-1])
    assert np.allclose(torus[:, 0], torus[:, -1])
    x, y, z = np.moveaxis(torus, 2, 0)
    ring = 2.1 * n / (2 * np.pi)
    assert np.allclose(np.hypot(np.hypot(x, z) - ring, y), 0.45 * ring)
    assert torus[:-1, 0, 2].mean() == pytest.approx(ring)  # both ends meet in front


def test_a_turn_keeps_lengths():
    points = np.random.default_rng(0).normal(size=(4, 5, 3))
    assert np.allclose(np.linalg.norm(seen_from(points, 33, 71), axis=2), np.linalg.norm(points, axis=2))
    assert np.allclose(seen_from(np.array([0.0, 0, 1]), 90, 0), [1, 0, 0])
    assert np.allclose(seen_from(np.array([0.0, 1, 0]), 0, 90), [0, 0, 1])


@pytest.mark.parametrize("padding", [1, 2])
def test_faces_have_the_colors_of_what_they_are_and_the_words_count_them(padding):
    panel, side = TorusAnimation(), TOTAL - padding
    for time in range(panel.moments(padding)):
        sheet = Sheet(panel.size)
        words = panel.draw(sheet, time=time, padding=padding)  # pyright: ignore[reportArgumentType]
        (mesh,) = [mark for mark in sheet.axes[0].marks if mark["kind"] == "mesh"]
        codes = np.array([*map(int, mark_codes(mesh))]).reshape(TOTAL, TOTAL)
        zeros = np.ones((TOTAL, TOTAL), dtype=bool)
        zeros[:side, :side] = False
        assert np.array_equal(codes % 2 == 1, zeros)
        assert (codes >= 2).sum() == (2 * padding + 1) ** 2
        if time >= 12:
            assert f"reads {(codes == 2).sum()} pixels and {(codes == 3).sum()} zeros" in words
    assert "both ends share them" in words


def mark_codes(mesh):
    assert len(mesh["x"]) == (TOTAL + 1) ** 2
    return mesh["codes"]


def test_matplotlib_draws_the_faces_that_are_nearest_last():
    panel = TorusAnimation()
    (faces,) = panel.figure.axes[0].collections
    corners = np.array([path.vertices[:4] for path in faces.get_paths()])
    assert corners.shape == (TOTAL**2, 4, 2)
    in_front = corners[-10:].mean((0, 1))
    behind = corners[:10].mean((0, 1))
    assert in_front[1] < behind[1]  # seen from above
