"""The panel of notebook 05: its numbers are the library's, and a broken bound turns red and says why."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.projections.clipping import (
    alternating_projections,
    clip_and_crop,
    clip_reshaped_kernel,
    clip_singular_values,
)
from convkit.spectra import singular_values
from convkit.widgets import clipping
from convkit.widgets.clipping import ClippingPanel, bounded, layer, on_image

CROP, TURNS, DYKSTRA = "clip and crop", "clip and crop, then rescale", "Dykstra, then rescale"
CLIP, RESCALE, RESHAPED = "clip, keep every tap", "rescale", "clip the flattened kernel"
WAYS = (CROP, TURNS, DYKSTRA, CLIP, RESCALE, RESHAPED)
TRAINED, BLUR, BOX = "trained, 6 channels", "blur", "box"
KINDS = (TRAINED, "random, 6 channels", BLUR, "edge", BOX)
PANEL = ClippingPanel


def dense_values(A) -> torch.Tensor:
    return torch.linalg.svdvals(A.matrix())


def test_first_state_is_the_bet_with_the_librarys_numbers(panel, says):
    A = layer(TRAINED)
    norm = _norm(TRAINED)
    after = clip_and_crop(A, 0.4 * norm)
    before_line, after_line, bound_line = panel.figure.axes[0].lines
    assert_close(torch.tensor(before_line.get_ydata()), singular_values(A))
    assert_close(torch.tensor(after_line.get_ydata()), singular_values(after))
    assert list(bound_line.get_ydata()) == pytest.approx([0.4 * norm] * 2)
    now, moved = float(operator_norm(after, 2)), float((after.kernel - A.kernel).norm() / A.kernel.norm())
    says(
        True,
        f"Norm {norm:.3f} before, {now:.3f} after; bound {0.4 * norm:.3f}: broken",
        f"{100 * (now / (0.4 * norm) - 1):.0f} % above it. The crop to 3 × 3 throws away taps",
        f"moved by {100 * moved:.0f} % of its length",
    )


def test_words_are_red_exactly_where_the_bound_is_broken_and_tell_the_reason(panel, says):
    flat = bounded(layer(TRAINED), 0.4 * _norm(TRAINED), RESHAPED, 1).kernel.flatten(1)
    flat_norm = float(torch.linalg.matrix_norm(flat, 2))
    says(True, f"Only the flattened kernel is within the bound, its norm is {flat_norm:.3f}", method=RESHAPED)
    says(True, method=RESHAPED, relative=0.8)  # the norm of the flattened kernel is below the bound already
    assert panel.words.endswith("The kernel has not moved.")
    nearest = "kept. The nearest operator within the bound, but its kernel has 10 × 10 taps"
    says(False, nearest, method=CLIP, relative=0.8)
    says(False, "rescaled after 20 rounds", method=DYKSTRA, relative=0.8, rounds=20)
    says(False, "Nothing was to be done", relative=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_ways_do_what_their_names_say_by_the_dense_matrix(kind):
    A, norm = layer(kind), _norm(kind)
    bound = 0.35 * norm
    assert_close(dense_values(A)[0], torch.tensor(norm, dtype=torch.float64))
    for way in (TURNS, DYKSTRA, CLIP, RESCALE):
        after = bounded(A, bound, way, 3)
        assert float(dense_values(after)[0]) <= bound * (1 + 1e-9)
        assert after.kernel.shape[2:] == ((10, 10) if way == CLIP else (3, 3))
    assert float(dense_values(bounded(A, bound, CROP, 1))[0]) > 1.05 * bound
    assert float(dense_values(bounded(A, bound, RESHAPED, 1))[0]) > 1.05 * bound
    assert torch.equal(bounded(A, bound, RESHAPED, 1).kernel, clip_reshaped_kernel(A, bound).kernel)


def test_rounds_are_repeated_and_the_kernel_is_not_changed_in_place():
    A = layer(TRAINED)
    kernel, bound = A.kernel.clone(), 0.4 * _norm(TRAINED)
    twice = bounded(A, bound, CROP, 2)
    assert_close(twice.kernel, clip_and_crop(clip_and_crop(A, bound), bound).kernel)
    assert_close(bounded(A, bound, TURNS, 4).kernel, alternating_projections(A, bound, 4).kernel)
    assert_close(bounded(A, bound, RESCALE, 1).kernel, 0.4 * kernel)
    assert torch.equal(A.kernel, kernel)


def test_a_small_kernel_is_laid_where_the_same_kernel_as_large_as_the_image_lies():
    A = layer(TRAINED)
    large = clip_singular_values(A, 2 * _norm(TRAINED))  # nothing to clip: the same map with 10 × 10 taps
    assert_close(on_image(large), on_image(A))
    assert_close(replace(A, kernel=on_image(A)).matrix(), A.matrix())


def test_percentages_read_well():
    texts = {0.0123: "1.2 %", 0.099: "9.9 %", 0.0996: "10 %", 0.331: "33 %", 2.5: "250 %"}
    assert {part: clipping._percent(part) for part in texts} == texts


def _norm(kind: str) -> float:
    return float(operator_norm(layer(kind), 2))
