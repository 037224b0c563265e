"""The panel of notebook 09: its steps are Algorithm 1, and a wrong index or momentum turns the words red."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.widgets import decay
from convkit.widgets.decay import RATE, THRESHOLD, DecayPanel, layer, walk

RIGHT, REPLACED, EXCHANGED = "Algorithm 1", "momentum replaces entries", "axes exchanged in the index"
ZEROS, SMALL, CIRCLE = "6 × 6, zeros around", "2 × 2, zeros around", "2 × 2, circular"
STRIDES = ((2, 1), (1, 1), (2, 2))
PANEL = DecayPanel


def dense_gradient(A, ord) -> torch.Tensor:
    kernel = A.kernel.clone().requires_grad_()
    norm = torch.linalg.matrix_norm(replace(A, kernel=kernel).matrix(), ord)
    return torch.autograd.grad(norm, kernel)[0]


@pytest.mark.parametrize("ord", [1, math.inf])
@pytest.mark.parametrize("image", [ZEROS, SMALL, CIRCLE])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_walk_is_algorithm_1_on_the_dense_matrix(ord, image, momentum):
    A = layer((2, 1), image)
    h = torch.zeros_like(A.kernel)
    for state in walk(ord, momentum, (2, 1), image, RIGHT)[1:6]:
        p = dense_gradient(A, ord)
        h = momentum * h + (1 - momentum) * p
        A = replace(A, kernel=A.kernel - RATE * h)
        assert_close(state.p, p)
        assert_close(state.h, h)
        assert state.norm == pytest.approx(float(torch.linalg.matrix_norm(A.matrix(), ord)))
    assert not layer((2, 1), image).kernel.requires_grad  # the layer is kept for all walks


def test_first_state_has_the_librarys_numbers(panel, says):
    path = walk(1, 0.5, (2, 1), ZEROS, RIGHT)
    start, now = path[0].norm, path[12]
    assert start == pytest.approx(float(operator_norm(layer((2, 1), ZEROS), 1)))
    reached, above = int(now.p.count_nonzero()), int((now.h.abs() >= THRESHOLD).sum())
    says(False, f"After 12 steps the norm 1 is {now.norm:.3f}, it was {start:.3f}.")
    says(False, f"pulls on {reached} of 108 entries, the moving average on {above}: it keeps pulling")
    assert above > 2 * reached
    left, middle, top, bottom = panel.figure.axes
    shown = left.images[0].get_array().filled(0)
    assert_close(torch.tensor(shown), now.p.permute(0, 2, 1, 3).reshape(12, 9))
    assert int((~middle.images[0].get_array().mask).sum()) == above
    assert list(top.lines[0].get_ydata()) == [state.norm for state in path]
    assert bottom.lines[0].get_ydata()[11] == pytest.approx(100 * reached / 108)


def test_exchanged_axes_turn_red_where_the_axes_differ_and_say_what_is_missed(says):
    now = walk(1, 0.5, (2, 1), ZEROS, EXCHANGED)[12]
    missed = int(((now.p == 0) & (now.right_p != 0)).sum())
    others = int(((now.p != 0) & (now.right_p == 0)).sum())
    assert min(missed, others) > 0
    says(
        True,
        f"the index made the norm {now.claimed:.3f}, it was {now.true:.3f}",
        f"misses {missed} of the {int(now.right_p.count_nonzero())} entries",
        f"and pulls on {others} others",
        way=EXCHANGED,
    )
    for stride in STRIDES[1:]:
        says(False, "the exchange does no harm", way=EXCHANGED, stride=stride)
        both = (walk(1, 0.5, stride, ZEROS, way) for way in (EXCHANGED, RIGHT))
        for wrong, right in zip(*both, strict=True):
            assert_close(wrong.h, right.h)


@pytest.mark.parametrize("ord", [1, math.inf])
def test_the_exchanged_index_is_that_of_the_layer_on_its_side(ord):
    A = layer((2, 1), ZEROS)
    state = walk(ord, 0.5, (2, 1), ZEROS, EXCHANGED)[1]
    wrong = replace(A, stride=(1, 2))
    assert_close(state.p, dense_gradient(wrong, ord))
    assert state.claimed == pytest.approx(float(torch.linalg.matrix_norm(wrong.matrix(), ord)))
    assert state.true == pytest.approx(float(torch.linalg.matrix_norm(A.matrix(), ord)))
    oblong = replace(A, input_shape=(6, 5))
    assert (decay.exchanged(oblong).input_shape, decay.exchanged(oblong).stride) == ((5, 6), (1, 2))


def test_marks_stand_at_the_chosen_step_and_what_is_hardly_felt_is_gray(panel):
    for steps, momentum in ((1, 0.5), (12, 0.9), (38, 0.5)):
        panel.set(steps=steps, momentum=momentum)
        path = walk(1, momentum, (2, 1), ZEROS, RIGHT)
        _, middle, top, bottom = panel.figure.axes
        above = int((path[steps].h.abs() >= THRESHOLD).sum())
        assert int((~middle.images[0].get_array().mask).sum()) == above
        assert top.lines[1].get_xydata().tolist() == [[steps, path[steps].norm]]
        pulled = [float((pull.abs() >= THRESHOLD).double().mean()) for pull in (path[steps].p, path[steps].h)]
        marks = [bottom.lines[place].get_xydata().tolist() for place in (1, 3)]
        assert marks == [[[steps, pytest.approx(100 * part)]] for part in pulled]
    assert 0 < float(path[38].h.abs()[path[38].h != 0].min()) < THRESHOLD  # there is something to leave out


def test_replaced_entries_pull_more_and_without_momentum_the_same(says):
    now = walk(1, 0.5, (2, 1), ZEROS, REPLACED)[12]
    times = float(now.h.abs().sum() / now.right_h.abs().sum())
    assert 1.1 < times <= 2
    says(True, f"its pull is {times:.2f} times that of Algorithm 1", way=REPLACED)
    says(False, "this is Algorithm 1", way=REPLACED, momentum=0.0)
    says(False, "without momentum they are the same", momentum=0.0)
    says(False, "After 1 step the norm", "has not moved on yet", steps=1)
