"""The panel of notebook 14: neighbors by brute force, the network's own answer, a turn that keeps lengths."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.data.surfaces import SOLIDS
from convkit.training.evaluation import evaluate
from convkit.widgets.clouds import NUMBER, POINTS, CloudPanel, K, seen, trained, turned
from tests.helpers.panels import mouse

PANEL = CloudPanel


def cloud(solid):
    x, y = trained()[1].test_batch(NUMBER)
    return x[y == SOLIDS.index(solid)]


def test_the_network_knows_the_solids_and_the_first_clouds_are_one_of_each():
    model, data = trained()
    assert evaluate(model, data) > 0.9
    assert sorted(data.test_batch(NUMBER)[1].tolist()) == list(range(len(SOLIDS)))
    assert not model.training


@pytest.mark.parametrize("solid", SOLIDS)
def test_the_answer_and_the_features_are_those_of_the_network(solid):
    model, _ = trained()
    inputs = []
    hooks = [edge.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for edge in model.edges]
    with torch.no_grad():
        expected = model(cloud(solid)[..., :64]).softmax(1)[0]
    for hook in hooks:
        hook.remove()
    spaces, answers = seen(solid, 64)
    assert_close(answers, expected)
    for space, given in zip(spaces, inputs, strict=True):
        assert_close(space, given[0])


def test_a_turn_keeps_lengths_and_a_whole_turn_is_none():
    x = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(turned(x, 77).norm(dim=0), x.norm(dim=0))
    assert_close(turned(x, 180), turned(x, -180))
    assert_close(turned(x, 0, 0), x)
    assert_close(turned(x, 0, 90), torch.stack([x[0], -x[2], x[1]]))  # from above: what was toward the eye is below
    assert torch.linalg.det(turned(torch.eye(3, dtype=torch.float64), 40)) == pytest.approx(1)


def near(space, point):
    return set((space - space[:, [point]]).norm(dim=0).argsort()[:K].tolist())


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_lines_lead_to_the_nearest_in_each_space_and_the_words_count_them(panel, says, layer):
    spaces, answers = seen("prism", 96)
    own, others = near(spaces[0], 4), near(spaces[layer], 4)
    far = [float((spaces[0][:, [*some]] - spaces[0][:, [4]]).norm(dim=0).max()) for some in (own, others)]
    texts = f"within {far[0]:.2f}.", f"up to {far[1]:.2f} away in space; the two have {len(own & others) - 1} in common"
    says(int(answers.argmax()) != SOLIDS.index("prism"), *texts, solid="prism", layer=layer, point=4, dropped=32)
    flat = turned(spaces[0], 30).T[:, :2].numpy()
    for ax, neighbors in zip(panel.figure.axes, (own, others), strict=False):
        ends = np.array([line.get_xydata()[1] for line in ax.lines if line.get_linestyle() == "-"])
        expected = np.array([flat[i] for i in neighbors if i != 4])
        assert ends[ends[:, 0].argsort()] == pytest.approx(expected[expected[:, 0].argsort()])


def test_few_points_may_end_in_a_wrong_answer_in_red_and_a_dropped_point_cannot_be_picked(panel, says):
    wrong = 0
    for solid in SOLIDS:
        best = SOLIDS[int(seen(solid, K)[1].argmax())]
        wrong += best != solid
        says(best != solid, f"From {K} points the network says {best}", solid=solid, dropped=POINTS - K)
    assert wrong  # eight points are not enough for all
    says(True, "point 100 is among the 64 points dropped; pick one below 64", point=100, dropped=64)


def test_everything_drawn_is_inside_its_picture(panel):
    for solid in SOLIDS:
        panel.set(solid=solid, turn=110)
        for ax in panel.figure.axes[:2]:
            points = np.concatenate([line.get_xydata() for line in ax.lines])
            assert np.abs(points).max() < ax.get_xlim()[1]


def test_a_drag_turns_the_near_side_along_with_the_mouse_and_the_picture_follows(panel):
    before, x = panel.values, torch.tensor([[0.0], [0.0], [1.0]])  # the point nearest to the eye at turn 0, tilt 0
    mouse(panel, right=0.1, up=0.0, begins=True)
    mouse(panel, right=0.25, up=0.25)  # of the whole drag, not since the last message
    assert panel.values == before | {"turn": before["turn"] + 45, "tilt": before["tilt"] - 45}
    assert turned(x, 45, 0)[0] > 0  # to the right
    assert turned(x, 0, -45)[1] > 0  # up
    expected = turned(seen("torus", POINTS)[0][0], 75, -25)
    dots = np.concatenate([line.get_xydata() for line in panel.figure.axes[0].lines if line.get_linestyle() == "None"])
    assert np.abs(dots - expected[:2, 0].numpy()).max(1).min() < 1e-6


@pytest.mark.parametrize("right, turn", [(1.0, -150), (-1.0, -150), (2.0, 30), (0.84, -180), (0.86, -175)])
def test_a_turn_goes_on_beyond_the_end_of_its_slider_and_a_tilt_stops_there(panel, right, turn):
    mouse(panel, right=right, up=-1.0, begins=True)
    assert (panel.values["turn"], panel.values["tilt"]) == (turn, 90)
    mouse(panel, right=0.0, up=1.0)
    assert (panel.values["turn"], panel.values["tilt"]) == (30, -90)


def test_a_click_picks_the_point_below_the_mouse_and_none_where_there_is_none(panel):
    panel.set(solid="cone", turn=100, tilt=-15, dropped=64)
    x, y, _ = turned(seen("cone", 64)[0][0], 100, -15)
    mouse(panel, x=float(x[41]) + 1e-3, y=float(y[41]))
    assert panel.values["point"] == 41
    mouse(panel, x=1.1, y=1.1)
    assert panel.values["point"] == 41
    assert panel._drawing.steered == [0, 1]
