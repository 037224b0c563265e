"""The walk is that of clip and crop and lies in its plane; the step is Algorithm 1, part by part."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import alternating_projections, dykstra
from convkit.widgets.moving_walks import (
    ROUNDS,
    STEPS,
    SphereStepAnimation,
    WalkAnimation,
    ball_slice,
    on_line,
    slice_of,
    sphere_path,
    turns,
)
from convkit.widgets.sheet import Sheet
from convkit.widgets.sphere import GRADIENT, RADIUS, START, walk

SIZES = (5, 8, 13, 16)


def drawn(panel, time, **settings):
    sheet = Sheet(panel.size)
    words = panel.draw(sheet, time=time, **settings)
    return sheet.axes, words


@pytest.mark.parametrize("n", SIZES)
def test_clips_are_those_of_the_dense_matrix_and_crops_keep_three_taps(n):
    kernels, bound = turns(n)
    assert len(kernels) == 2 * ROUNDS + 1
    above = torch.linalg.svdvals(kernels[0].matrix()) > bound
    assert above.sum() == 1
    for before, clipped, cropped in zip(kernels[:-1:2], kernels[1::2], kernels[2::2], strict=True):
        U, S, Vh = torch.linalg.svd(before.matrix())
        assert_close(clipped.matrix(), U @ S.clamp(max=bound).diag() @ Vh)
        kept = torch.where(on_line(before) != 0, on_line(clipped), 0)
        assert_close(on_line(cropped), kept)


@pytest.mark.parametrize("n", SIZES)
def test_the_walk_is_alternating_projections_and_ends_where_dykstra_does(n):
    (start, *_, last), bound = turns(n)
    scaled = last.kernel * min(1.0, bound / float(operator_norm(last, 2)))
    assert_close(alternating_projections(start, bound, ROUNDS).kernel, scaled)
    far = alternating_projections(start, bound, 400).kernel
    assert_close(far, dykstra(start, bound, 400).kernel, atol=1e-5, rtol=0)  # one frequency above: it is the nearest


@pytest.mark.parametrize("n", SIZES)
def test_the_walk_lies_in_the_plane_and_comes_closer_with_every_projection(n):
    kernels, bound = turns(n)
    start, across, up = slice_of(n)
    assert_close(torch.stack([across, up]) @ torch.stack([across, up]).T, torch.eye(2, dtype=torch.float64))
    (plane, _), _ = drawn(WalkAnimation(), 2 * ROUNDS, pixels=n)
    path = next(mark for mark in plane.marks if mark["kind"] == "line" and len(mark["x"]) == 2 * ROUNDS + 1)
    for A, x, y in zip(kernels, path["x"], path["y"], strict=True):
        assert_close(start + x * across + y * up, on_line(A), atol=1e-12, rtol=0)
    common = on_line(alternating_projections(kernels[0], bound, 400))
    to_common = torch.stack([(on_line(A) - common).norm() for A in kernels])
    steps = torch.stack([(on_line(B) - on_line(A)).norm() for A, B in itertools.pairwise(kernels)])
    assert (to_common.diff() < 0).all()
    assert (steps.diff() < 0).all()
    excess = torch.stack([torch.linalg.matrix_norm(A.matrix(), 2) - bound for A in kernels[::2]])
    assert_close(excess[1:] / excess[:-1], torch.full((ROUNDS,), 1 - 3 / n, dtype=torch.float64))  # equation (6)


@pytest.mark.parametrize("n", SIZES)
def test_the_blue_region_is_the_ball(n):
    _, bound = turns(n)
    start, across, up = slice_of(n)
    corners = ball_slice(n, 3.0)
    assert len(corners) >= 3
    sides = np.roll(corners, -1, axis=0) - corners
    norms = []
    for x, y in np.random.default_rng(0).uniform(-1, 1, (200, 2)):
        taps = start + x * across + y * up
        norm = float(torch.linalg.matrix_norm(ConvOperator(taps[None, None], n).matrix(), 2))
        cross = sides[:, 0] * (y - corners[:, 1]) - sides[:, 1] * (x - corners[:, 0])
        assert (norm <= bound) == bool((cross >= 0).all()), (x, y)
        norms.append(norm)
    assert min(norms) < bound < max(norms)


def test_distances_are_those_of_the_steps_and_what_is_to_come_is_not_shown():
    kernels, _ = turns(8)
    for time in (0, 1, 6, 2 * ROUNDS):
        (_, steps), words = drawn(WalkAnimation(), time, pixels=8)
        clips, crops = (mark["y"] for mark in steps.marks if mark.get("marker") == "o")
        assert np.isfinite(clips).sum() == (time + 1) // 2
        assert np.isfinite(crops).sum() == time // 2
        if time:
            moved = float((on_line(kernels[time]) - on_line(kernels[time - 1])).norm())
            assert (clips if time % 2 else crops)[(time - 1) // 2] == pytest.approx(moved)
            assert f"moves the kernel by {moved:.4f}" in words


@pytest.mark.parametrize("rate", [0.1, 0.6, 1.0])
def test_the_step_is_that_of_the_library_and_its_parts_are_those_of_algorithm_1(rate):
    path = sphere_path(rate)
    assert_close(path[::3], walk(rate, STEPS, center=True, rescale=True).path)
    gradient = torch.tensor(GRADIENT, dtype=torch.float64)
    assert path[0].tolist() == list(START)
    for row, plain, centered, new in zip(path[:-1:3], path[1::3], path[2::3], path[3::3], strict=True):
        assert_close(plain, row - rate * gradient)
        assert_close(centered, row - rate * (gradient - gradient.mean()))  # equation (5)
        assert_close(new, RADIUS * centered / centered.norm())
        assert abs(float(new.mean())) < 1e-12
        assert float(new.norm()) == pytest.approx(RADIUS)


def test_norm_and_mean_are_told_and_the_row_waits_for_what_is_to_come():
    panel = SphereStepAnimation()
    for time in range(3 * STEPS + 1):
        (space, upper, lower), words = drawn(panel, time, rate=0.6, turn=-30, tilt=20)
        row = sphere_path(0.6)[time]
        assert f"norm {float(row.norm()):.3f}" in words
        curves = [mark for mark in upper.marks if mark["kind"] == "line"]
        assert np.isfinite(curves[0]["y"]).sum() == time + 1
        assert curves[0]["y"][time] == pytest.approx(float(row.norm()))
        assert lower.marks[1]["y"][time] == pytest.approx(float(row.mean()), abs=1e-12)
        markers = [mark for mark in space.marks if mark.get("name") == "the new row"]
        assert len(markers[0]["x"]) == STEPS
