"""The panel of notebook 08: its steps are Algorithm 1, and a constraint taken away turns the words red and says why."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.plots import plot_sphere_step
from convkit.plots.sphere import View
from convkit.widgets.sphere import GRADIENT, RADIUS, START, SpherePanel, walk

PANEL = SpherePanel


G = torch.tensor(GRADIENT, dtype=torch.float64)


def algorithm_1(rate: float, steps: int, center: bool = True, rescale: bool = True) -> torch.Tensor:
    """Written anew from the paper: the centered gradient, a step, the rescale."""
    path = [torch.tensor(START, dtype=torch.float64)]
    for _ in range(steps):
        w = path[-1] - rate * (G - center * G.sum() / 3)
        path.append(2**0.5 * w / w.square().sum().sqrt() if rescale else w)
    return torch.stack(path)


@pytest.mark.parametrize("rate", [0.1, 0.8, 2.0])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_a_walk_is_algorithm_1_without_the_constraints_that_are_taken_away(rate, center, rescale):
    done = walk(rate, 5, center, rescale)
    assert_close(done.path, algorithm_1(rate, 5, center, rescale))
    assert_close(done.plain, done.path[-2] - rate * G)
    assert (done.centered is not None) == center
    if center:
        assert_close(done.centered, done.path[-2] - rate * (G - G.mean()))


def test_first_state_holds_both_constraints_and_says_so(panel):
    path = algorithm_1(0.8, 1)
    norms, means = (ax.lines[1].get_ydata() for ax in panel.figure.axes[1:])
    assert list(norms) == pytest.approx([RADIUS] * 2)
    assert list(means) == pytest.approx([0, 0], abs=1e-12)
    turned = torch.rad2deg(torch.acos(path[0] @ path[1] / 2))
    assert not panel.words.alert
    assert "After one step the row has mean 0.000 and norm 1.414: both constraints hold" in panel.words
    assert f"turned the row by {float(turned):.0f} degrees" in panel.words


@pytest.mark.parametrize(
    "change", [{}, {"steps": 12}, {"rate": 2.0, "steps": 3}, {"rescale": False, "center": False, "steps": 9}], ids=str
)
def test_everything_drawn_is_inside_its_picture(panel, change):
    panel.set(**change)
    for ax in panel.figure.axes:
        points = np.concatenate([line.get_xydata() for line in ax.lines if line.get_transform() == ax.transData])
        for place, (low, high) in enumerate((ax.get_xlim(), ax.get_ylim())):
            assert low < np.nanmin(points[:, place]) <= np.nanmax(points[:, place]) < high


def test_the_angle_told_is_that_of_the_last_step(panel):
    panel.set(steps=4)
    path = algorithm_1(0.8, 4)
    angles = [float(torch.rad2deg(torch.acos(path[3] @ row / 2))) for row in (path[4], path[0])]
    assert abs(angles[0] - angles[1]) > 2
    assert f"The last step turned the row by {angles[0]:.0f} degrees" in panel.words


def test_words_turn_red_where_a_constraint_is_taken_away_and_tell_the_reason(panel, says):
    says(True, "the gradient was not centered, so that the row left the plane", center=False)
    assert "rescaled" not in panel.words
    why = "it was not rescaled: its steps lie in the plane and lead off the sphere"
    says(True, why, "mean 0.000", rescale=False)
    both = "left the plane; and it was not rescaled: nothing brings it back"
    says(True, both, center=False, rescale=False, steps=3)


def test_a_view_keeps_lengths_across_and_hides_those_along_it():
    view = View(30, 20)
    across = torch.from_numpy(np.stack([view.right, view.up, view.towards]))
    assert_close(across @ across.T, torch.eye(3, dtype=torch.float64))
    x, y = view(across)
    assert_close(torch.from_numpy(np.stack([x, y])), torch.eye(2, 3, dtype=torch.float64))
    right, up = View(0, 0)([[0, 1, 0], [0, 0, 1]])
    assert (list(right), list(up)) == ([1, 0], [0, 1])  # seen along the first axis: the second to the right, third up


def test_what_was_not_centered_is_not_named():
    names = {}
    for center in (True, False):
        done = walk(0.8, 1, center, rescale=True)
        ax = plot_sphere_step(done.path, done.plain, done.centered, RADIUS, -30, 15)
        names[center] = [line.get_label() for line in ax.lines if not line.get_label().startswith("_")]
    assert names[True] == ["after the plain step", "its gradient centered", "the new row", "start"]
    assert names[False] == ["after the plain step", "the new row", "start"]
