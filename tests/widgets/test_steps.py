"""The panel of notebook 10: its norms are those of dense matrices, and flattened kernels break the certificate."""

import numpy as np
import pytest
import torch

from convkit.operators.operator import ConvOperator
from convkit.widgets import steps
from convkit.widgets.steps import CONV, FLATTENED, MOMENTUM, MOST, SGD, SIZE, StepPanel, torus_norm, walk

PANEL = StepPanel


def dense_norm(kernel: torch.Tensor) -> float:
    A = ConvOperator(kernel.double(), SIZE, padding_mode="zeros")
    return float(torch.linalg.matrix_norm(A.torus().matrix(), 2))


@pytest.mark.parametrize("k", [3, 5])
def test_the_norm_is_that_of_the_torus_and_bounds_the_layer_with_zero_padding(k):
    kernel = torch.randn(4, 3, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    assert torus_norm(kernel) == pytest.approx(dense_norm(kernel))
    layer = ConvOperator(kernel, SIZE, padding_mode="zeros")
    assert float(torch.linalg.matrix_norm(layer.matrix(), 2)) < torus_norm(kernel)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_convmuon_keeps_the_certificate_and_flattened_kernels_break_it(k, rate):
    bound = walk(CONV, rate, k).weights[0] + rate * np.arange(MOST + 1)
    done = walk(CONV, rate, k)
    assert done.steps == pytest.approx([rate] * MOST, rel=1e-3)
    assert (np.array(done.weights) <= bound * (1 + 1e-5)).all()
    flat = walk(FLATTENED, rate, k)
    assert min(flat.steps) > 2 * rate
    assert flat.weights[-1] > 1.2 * bound[-1]
    assert flat.losses[-1] < 0.5


def test_the_norms_of_a_walk_are_those_of_dense_matrices(monkeypatch):
    found = {way: walk(way, 0.1, 3) for way in (CONV, FLATTENED, SGD)}
    monkeypatch.setattr(steps, "torus_norm", dense_norm)
    monkeypatch.setattr(steps, "MOST", 3)
    for way, done in found.items():
        dense = walk.__wrapped__(way, 0.1, 3)
        assert done.steps[:3] == pytest.approx(dense.steps, rel=1e-4)
        assert done.weights[:4] == pytest.approx(dense.weights, rel=1e-4)
        assert done.losses[:4] == pytest.approx(dense.losses)


def test_all_ways_start_alike_and_draw_no_number_of_the_reader():
    before = torch.get_rng_state()
    starts = [walk.__wrapped__(way, 0.2, 3) for way in (CONV, FLATTENED, SGD)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({(done.losses[0], done.weights[0]) for done in starts}) == 1


def test_the_first_step_of_sgd_is_proportional_to_the_rate_and_nesterovs():
    one, three = walk(SGD, 0.1, 3), walk(SGD, 0.3, 3)
    assert three.steps[0] == pytest.approx(3 * one.steps[0], rel=1e-4)
    gradients = []
    optimizer = torch.optim.SGD.step

    def spy(self, *args):
        gradients.append(self.param_groups[0]["params"][1].grad.clone())
        return optimizer(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", spy)
        walk.__wrapped__(SGD, 0.1, 3)
    assert one.steps[0] == pytest.approx(0.1 * (1 + MOMENTUM) * dense_norm(gradients[0]), rel=1e-4)


def test_first_state_has_the_walks_numbers_and_the_dashed_certificate(panel, says):
    done = walk(CONV, 0.1, 3)
    left, middle, right = panel.figure.axes
    assert list(left.lines[0].get_ydata()) == done.losses[:21]
    assert list(middle.lines[0].get_ydata()) == done.steps[:20]
    assert list(middle.lines[1].get_ydata()) == [0.1, 0.1]
    assert list(right.lines[0].get_ydata()) == done.weights[:21]
    assert right.lines[1].get_ydata() == pytest.approx(done.weights[0] + 0.1 * np.arange(21))
    says(False, f"After 20 steps the loss is {done.losses[20]:.2f}, it was {done.losses[0]:.2f}.")
    says(False, f"Every step has norm 0.10, the step size. The norm of the weight, {done.weights[20]:.2f}, is below")
    says(False, "After one step", count=1)


def test_flattened_kernels_turn_the_words_red_by_the_factor_and_sgd_makes_no_promise(panel, says):
    done = walk(FLATTENED, 0.1, 3)
    factor = f"up to {max(done.steps[:20]) / 0.1:.1f} times the step size"
    says(True, factor, "3 × 3 kernels reach 3 times", "The certificate is broken", way=FLATTENED)
    assert f"{done.weights[20]:.2f}, above the line at {done.weights[0] + 2:.2f}" in panel.words
    says(True, "5 × 5 kernels reach 5 times", way=FLATTENED, k=5)
    says(True, "has not crossed the line yet", way=FLATTENED, count=1)
    sgd = walk(SGD, 0.1, 3).steps[:20]
    says(False, f"{min(sgd):.3f} to {max(sgd):.3f}: the gradient decides", "is no bound for SGD", way=SGD)


@pytest.mark.parametrize("way", [CONV, FLATTENED, SGD])
@pytest.mark.parametrize("change", [{"count": 1}, {"count": MOST, "rate": 0.3}, {"k": 5, "rate": 0.02}], ids=str)
def test_everything_drawn_is_inside_its_picture(panel, way, change):
    panel.set(way=way, **change)
    for ax in panel.figure.axes:
        points = np.concatenate([line.get_xydata() for line in ax.lines if line.get_transform() == ax.transData])
        for place, (low, high) in enumerate((ax.get_xlim(), ax.get_ylim())):
            assert low <= np.nanmin(points[:, place]) <= np.nanmax(points[:, place]) < high
