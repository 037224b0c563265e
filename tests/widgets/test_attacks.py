"""The panel of notebook 11: what it shows is what the attacks of the library give, and a hidden gradient turns red."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.attacks import fgsm, pgd, simba
from convkit.data import digits, shapes
from convkit.widgets import attacks
from convkit.widgets.attacks import CURVE_STEPS, MASK, SIZES, TESTED, AttackPanel, attacked, two_networks
from tests.helpers.refusals import refused

PGD, FGSM, PGD2, SIMBA = "PGD, largest pixel", "FGSM", "PGD, 2-norm", "SimBA"
PANEL = AttackPanel
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
        image, change, picture, bars = panel.figure.axes[4 * row : 4 * row + 4]
        assert_close(torch.tensor(image.images[0].get_array()).float(), x[0, 0])
        assert_close(torch.tensor(change.images[0].get_array()).float(), (found - x)[0, 0])
        assert_close(torch.tensor(picture.images[0].get_array()).float(), found[0, 0])
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
def test_curves_are_accuracies_under_the_attack_and_fall(panel):
    x, y = digits().test_batch(slice(None, TESTED))
    for name, (eps, accuracy) in panel.curves(PGD, False).items():
        assert eps == SIZES
        assert accuracy == sorted(accuracy, reverse=True)
        model = two_networks()[name]
        with torch.no_grad():
            right = model(x).argmax(1) == y
            assert accuracy[0] == pytest.approx(100 * float(right.float().mean()))
            found = pgd(model, x[right], y[right], 0.05, 2.5 * 0.05 / CURVE_STEPS, CURVE_STEPS, generator=seeded())
            left = model(found).argmax(1) == y[right]
        assert accuracy[1] == pytest.approx(100 * int(left.sum()) / TESTED)
    line = panel.figure.axes[8].lines[0]
    assert list(line.get_ydata()) == panel.curves(PGD, False)["plain"][1]


@trained
def test_each_attack_is_the_librarys(panel):
    model = two_networks()["plain"]
    x, y = digits().test_batch(range(5))
    assert_close(attacked(model, x, y, FGSM, 0.1, 7)[0], fgsm(model, x, y, 0.1))
    radius = 0.1 * math.sqrt(64)
    found = attacked(model, x, y, PGD2, 0.1, 7)[0]
    assert_close(found, pgd(model, x, y, radius, 2.5 * radius / 7, 7, 2, generator=seeded()))
    assert (found - x).flatten(1).norm(dim=1).max() <= radius + 1e-5
    found, queries = attacked(model, x, y, SIMBA, 0.1, 64)
    theirs, asked = simba(model, x, y, 0.1, generator=seeded())
    assert_close(found, theirs)
    assert torch.equal(queries, asked)


@trained
def test_simba_says_how_often_it_asked_and_fgsm_that_steps_do_not_matter(panel, says):
    x, y = digits().test_batch([0])
    asked = [int(simba(model, x, y, 0.15, generator=seeded())[1]) for model in two_networks().values()]
    says(False, "64 of 64 pixels tried", *(f"{count} questions" for count in asked), attack=SIMBA, steps=64)
    says(False, "whatever the steps say", attack=FGSM)


@trained
def test_a_hidden_gradient_turns_the_words_red_and_simba_is_not_impressed(panel, says):
    says(True, "the gradient of the loss is 0", masked=True)
    hidden, open_ = panel.curves(PGD, True)["plain"][1], panel.curves(PGD, False)["plain"][1]
    assert min(hidden) > 80
    assert min(open_) < 10
    says(False, "hide nothing from it", masked=True, attack=SIMBA)
    assert panel.curves(SIMBA, True)["plain"][1][-1] < 20
    loud = attacks._Times(two_networks()["plain"], MASK)
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
    assert len(panel.figure.axes) == 5  # one row, and the curve
    assert data.class_names[int(data.test_labels[0])] in panel.words
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
