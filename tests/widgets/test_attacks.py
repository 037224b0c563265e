"""The panel of notebook 11: what it shows is what the attacks of the library give, and a hidden gradient turns red."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.attacks import fgsm, pgd, simba
from convkit.attacks.checks import cross_entropy, log_odds, margin
from convkit.data import digits, shapes
from convkit.widgets import attacks
from convkit.widgets.attack_networks import two_networks
from convkit.widgets.attack_path import FGSM, MASK, PGD, PGD2, SIDE, SIMBA, Attack, Times, crossings, followed, plane
from convkit.widgets.attacks import SIZES, TESTED, AttackPanel
from tests.helpers.panels import press
from tests.helpers.refusals import refused

PANEL = AttackPanel
FIRST = Attack(PGD, 0.15, 10)
trained = pytest.mark.slow  # the first of these tests trains the two networks of all


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


@trained
def test_first_state_has_the_librarys_numbers(panel):
    x, y = digits().test_batch([0])
    fell = []
    for row, (name, model) in enumerate(two_networks().items()):
        found = pgd(model, x, y, 0.15, 2.5 * 0.15 / 10, 10, generator=seeded())
        with torch.no_grad():
            before, after = model(torch.cat([x, found])).softmax(1)
        image, change, picture, bars, path = panel.figure.axes[5 * row : 5 * row + 5]
        assert_close(torch.tensor(image.images[0].get_array()).float(), x[0, 0])
        assert_close(torch.tensor(change.images[0].get_array()).float(), (found - x)[0, 0])
        assert_close(torch.tensor(picture.images[0].get_array()).float(), found[0, 0])
        assert path.images[0].get_array().shape == (SIDE, SIDE)
        heights = torch.tensor([patch.get_height() for patch in bars.patches])
        assert_close(heights.float(), torch.cat([before, after]))
        text = f"{name}: {int(before.argmax())} ({100 * float(before.max()):.0f} %), then {int(after.argmax())}"
        assert text in panel.words
        fell.append(int(after.argmax()) != int(y))
    assert fell == [True, False]  # a first state that says something: plain is fooled, the other is not
    assert "fooled" in panel.words
    assert "it survives" in panel.words
    assert not panel.words.alert


@trained
@pytest.mark.parametrize("steps, loss, restarts", [(10, "ce", 1), (3, "margin", 2)])
def test_curves_are_accuracies_under_the_attack_with_its_settings_and_fall(panel, steps, loss, restarts):
    x, y = digits().test_batch(slice(None, TESTED))
    panel.set(steps=steps, loss=loss, restarts=restarts)
    curves = panel.curves(Attack(PGD, 0.15, steps, loss, restarts))
    for name, (eps, accuracy) in curves.items():
        assert eps == SIZES
        assert accuracy == sorted(accuracy, reverse=True)
        model = two_networks()[name]
        with torch.no_grad():
            right = model(x).argmax(1) == y
            assert accuracy[0] == pytest.approx(100 * float(right.float().mean()))
            options = {"loss": loss, "restarts": restarts, "generator": seeded()}
            found = pgd(model, x[right], y[right], 0.05, 2.5 * 0.05 / steps, steps, **options)
            left = model(found).argmax(1) == y[right]
        assert accuracy[1] == pytest.approx(100 * int(left.sum()) / TESTED)
    line = panel.figure.axes[10].lines[0]
    assert list(line.get_ydata()) == curves["plain"][1]


@trained
def test_each_attack_is_the_librarys(panel):
    model = two_networks()["plain"]
    x, y = digits().test_batch(range(5))
    assert_close(Attack(FGSM, 0.1, 7, restarts=3).run(model, x, y)[0], fgsm(model, x, y, 0.1))
    radius = 0.1 * math.sqrt(64)
    found = Attack(PGD2, 0.1, 7).run(model, x, y)[0]
    assert_close(found, pgd(model, x, y, radius, 2.5 * radius / 7, 7, 2, generator=seeded()))
    assert (found - x).flatten(1).norm(dim=1).max() <= radius + 1e-5
    found, queries = Attack(SIMBA, 0.1, 64, "margin", 4, 3).run(model, x, y)
    theirs, asked = simba(model, x, y, 0.1, generator=seeded())
    assert_close(found, theirs)
    assert torch.equal(queries, asked)
    goal = torch.full_like(y, 3)
    found = Attack(PGD, 0.2, 5, "margin", 2, 3).run(model, x, y)[0]
    options = {"targets": goal, "loss": "margin", "restarts": 2, "generator": seeded()}
    assert_close(found, pgd(model, x, y, 0.2, 0.1, 5, **options))
    assert (margin(model(found), goal) <= margin(model(x), goal)).all()


@trained
def test_a_target_leaves_its_own_images_out_of_the_curve_and_is_told(panel, says):
    says(False, "10 steps, towards 3.", target=3)
    how = Attack(PGD, 0.15, 10, target=3)
    x, y = digits().test_batch(slice(None, TESTED))
    others = y != 3
    sizes, left = panel.curves(how)["plain"]
    assert len(panel._tested(how)[0]) == int(others.sum()) < TESTED
    model, x, y, expected = two_networks()["plain"], x[others], y[others], []
    for eps in sizes:  # what was taken stays so at all larger sizes
        with torch.no_grad():
            found = Attack(PGD, eps, 10, target=3).run(model, x, y, until_wrong=True)[0] if eps else x
            free = model(found).argmax(1) != 3
        x, y = x[free], y[free]
        expected.append(100 * len(x) / int(others.sum()))
    assert left == pytest.approx(expected)
    assert 0 < left[-1] < left[0]
    says(False, "The target is the label itself", target=int(digits().test_batch([0])[1]))
    says(False, "target, loss and restarts change nothing", attack=SIMBA, loss="margin", restarts=2)


# ---- the path --------------------------------------------------------------------------------------------------------
@trained
@pytest.mark.parametrize(
    "how", [FIRST, Attack(PGD2, 0.1, 6, "margin", 3), Attack(FGSM, 0.1, 9), Attack(SIMBA, 0.2, 30)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_path_leads_from_the_image_to_what_the_attack_found(how, masked):
    model = two_networks()["plain"]
    x, y = digits().test_batch([2])
    how = Attack(how.name, how.eps, how.steps, how.loss, how.restarts, None, masked).plain
    found, queries, way = followed(how, model, x, y)
    theirs, asked = how.run(model, x, y)
    assert torch.equal(found, theirs)
    assert queries == asked
    assert torch.equal(way[0], x)
    assert any(torch.equal(image, found) for image in way)
    assert all(float((image - x).abs().max()) <= how.eps * (8 if how.name == PGD2 else 1) + 1e-6 for image in way)
    if how.name == SIMBA:
        with torch.no_grad():
            rising = [float(log_odds(how.seen(model)(image), y)) for image in way]
        assert rising == sorted(rising)
        assert 2 < len(way) <= 31
    else:
        assert len(way) == how.steps + (2 if how.name != FGSM else 1)


def fooled(model, how):
    """The first image that the network gets right until the attack, what was found, and the way there."""
    for place in range(TESTED):
        x, y = digits().test_batch([place])
        found, _, way = followed(how, model, x, y)
        with torch.no_grad():
            if model(x).argmax(1) == y and model(found).argmax(1) != y:
                return x, y, found, way
    raise AssertionError("the attack fools nobody")


@trained
@pytest.mark.parametrize("loss, measure", [("ce", cross_entropy), ("margin", margin)])
def test_the_plane_has_the_loss_at_its_points_and_holds_image_and_attack(loss, measure):
    model, how = two_networks()["plain"], Attack(PGD, 0.15, 8, loss)
    x, y, found, way = fooled(model, how)
    on = plane(how, model, x, y, found, way)
    assert on.losses.shape == (SIDE, SIDE)
    assert_close(on.path[0], torch.zeros(2))
    assert_close(on.path[-1], torch.tensor([float((way[-1] - x).norm()), 0.0]), atol=1e-5, rtol=1e-4)
    third = way[len(way) // 2] - x
    assert_close(on.path[len(way) // 2].norm(), third.norm(), atol=1e-5, rtol=1e-4)  # it lies in the plane
    left, right, bottom, top = on.extent
    assert (on.path >= torch.tensor([left, bottom])).all()
    assert (on.path <= torch.tensor([right, top])).all()
    u = (found - x).flatten() / (found - x).norm()
    across = third.flatten() - (third.flatten() @ u) * u
    for row, column in ((0, 0), (4, 17), (SIDE - 1, 3)):
        a = left + (right - left) * column / (SIDE - 1)
        b = top + (bottom - top) * row / (SIDE - 1)
        point = (x.flatten() + a * u + b * across / across.norm()).view_as(x)
        with torch.no_grad():
            assert_close(on.losses[row, column], measure(model(point), y)[0], atol=1e-3, rtol=1e-3)
    assert len(on.border) > 3  # the answer changes on the way


@trained
def test_an_attack_that_changes_nothing_has_a_plane_too():
    model, x, y = two_networks()["plain"], *digits().test_batch([0])
    on = plane(Attack(PGD, 0.1, 2), model, x, y, x, [x])
    assert on.losses.isfinite().all()
    assert on.extent[0] < 0 < on.extent[1]


def test_crossings_are_where_the_sign_changes_between_neighbors():
    x, y = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([5.0, 4.0])
    found = crossings(torch.tensor([[-1.0, 1.0, 2.0], [-3.0, -1.0, 1.0]]), x, y)
    assert {tuple(point) for point in found.tolist()} == {(0.5, 5.0), (2.0, 4.0), (1.0, 4.5), *()}


# ---- while it computes -----------------------------------------------------------------------------------------------
@trained
def test_what_takes_long_is_announced_before_the_next_picture(panel, monkeypatch):
    said = []
    panel._drawing.observe(lambda change: said.append((change["name"], change["new"])), names=["working", "scene"])
    panel.control("image").value = 1
    assert [name for name, _ in said] == ["scene"]  # the curves are known
    said.clear()
    panel.control("steps").value = 40
    assert sorted(name for name, _ in said) == ["scene", "working", "working"]
    assert said[0][1] == "PGD attacks 40 images, at 7 sizes of ε."
    assert panel._drawing.working == ""
    said.clear()
    press(panel, "Reset")
    panel.control("steps").value = 40
    assert "working" not in [name for name, _ in said]


@trained
def test_simba_says_how_often_it_asked_and_fgsm_that_steps_do_not_matter(panel, says):
    x, y = digits().test_batch([0])
    asked = [int(simba(model, x, y, 0.15, generator=seeded())[1]) for model in two_networks().values()]
    says(False, "64 of 64 pixels tried", *(f"{count} questions" for count in asked), attack=SIMBA, steps=64)
    says(False, "whatever the steps say", attack=FGSM)


@trained
def test_a_hidden_gradient_turns_the_words_red_and_simba_is_not_impressed(panel, says):
    says(True, "the gradient of the loss is 0", masked=True)
    hidden, open_ = (panel.curves(Attack(PGD, 0.15, 10, masked=masked))["plain"][1] for masked in (True, False))
    assert min(hidden) > 80
    assert min(open_) < 10
    says(False, "hide nothing from it", masked=True, attack=SIMBA)
    assert panel.curves(Attack(SIMBA, 0.15, 10, masked=True))["plain"][1][-1] < 20
    says(False, "hide nothing from its gradient", masked=True, loss="margin")
    assert panel.curves(Attack(PGD, 0.15, 10, "margin", masked=True))["plain"][1][-1] < 10
    loud = Times(two_networks()["plain"], MASK)
    x, _ = digits().test_batch(range(3))
    assert_close(loud(x), MASK * two_networks()["plain"](x))


@trained
def test_the_two_networks_are_the_same_whatever_torchs_default_dtype_is():
    usual = {name: model.state_dict() for name, model in two_networks().items()}
    torch.set_default_dtype(torch.float64)
    try:
        other = {name: model.state_dict() for name, model in two_networks.__wrapped__().items()}
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(other, usual, rtol=0, atol=0)


class Linear(nn.Module):
    """A linear network for colored images; counts how often it is asked in training mode."""

    def __init__(self, classes=10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.trained = nn.Linear(3 * 32 * 32, classes), 0

    def forward(self, x):
        self.trained += self.training
        return self.layer(x.flatten(1))


def test_it_takes_networks_of_the_reader_on_colored_images(device):
    data = shapes(count=20, test_count=30).to(device)
    model = Linear().to(device).train()
    panel = AttackPanel(models={"mine": model}, data=data)
    assert len(panel.figure.axes) == 6  # one row, and the curve
    assert data.class_names[int(data.test_labels[0])] in panel.words
    assert panel.words.startswith("Image 0 shows")
    panel.set(image=29, attack=SIMBA, steps=3)
    assert "3 of 3072 pixels tried" in panel.words
    assert model.training
    assert model.trained == 0
    assert all(weight.grad is None for weight in model.parameters())


def test_bad_input_gives_a_sentence():
    few = shapes(count=20, test_count=10)
    refused("needed the data", AttackPanel, {"a": Linear()})
    refused("needed models for shapes", AttackPanel, data=few)
    for names in ("", "abc"):
        sentence = f"needed one or two models, got {len(names)}"
        refused(sentence, AttackPanel, {name: Linear() for name in names}, digits())
    refused("must give 10 logits for shapes, got 4", AttackPanel, {"a": Linear(4)}, few)


# ---- other data and networks -----------------------------------------------------------------------------------------
def test_another_data_set_brings_networks_of_its_own_and_reset_the_first_ones(monkeypatch):
    few = shapes(count=20, test_count=12)
    trainings = []
    monkeypatch.setattr(attacks, "panel_data", lambda name, folder: few)
    monkeypatch.setattr(
        attacks, "two_networks", lambda *names: trainings.append(names) or {"one": Linear(), "two": Linear()}
    )
    panel = AttackPanel({"mine": Linear()}, shapes(count=20, test_count=30))
    first = panel.words, panel.png
    said = []
    panel.announce = said.append
    panel.control("data").value = "digits"
    assert said[0] == "Two networks are being trained on digits, one plainly and one adversarially."
    assert (panel.control("image").max, panel.values["eps"]) == (11, 0.15)
    assert "two: " in panel.words
    press(panel, "Reset")
    assert (panel.words, panel.png) == first
    panel.control("data").value = "digits"
    assert trainings == [("digits", None)]


def test_data_without_files_are_a_sentence_beside_their_list(tmp_path):
    panel = AttackPanel({"mine": Linear()}, shapes(count=20, test_count=12), tmp_path)
    panel.control("data").value = "mnist"
    assert "mnist needs train-images-idx3-ubyte" in panel.words
    assert panel.words.alert
    assert panel._access.fault["control"] == 0


def test_networks_are_handed_over_and_wrong_ones_refused_with_nothing_changed():
    few = shapes(count=20, test_count=12)
    panel = AttackPanel({"mine": Linear()}, few)
    first = panel.words
    refused("must give 10 logits for shapes, got 4", panel.take, {"a": Linear(4)}, few)
    panel.set()
    assert panel.words == first
    for _ in range(2):
        panel.take({"his": Linear(), "hers": Linear()}, few)
        assert panel.values["data"] == "shapes, networks handed over"
        assert "his: " in panel.words
        assert panel.values["eps"] == 0.03
    panel.control("data").value = few.name
    assert "mine: " in panel.words
