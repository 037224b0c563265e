"""SimBA: exact counts of questions, one coordinate at a time, in pixels and cosines."""

import pytest
import torch
from scipy.fft import dctn, idctn
from torch import nn
from torch.testing import assert_close

from convkit.attacks import simba
from convkit.attacks.blackbox import _Cosines
from tests.helpers.attack_models import Counting, linear_model
from tests.helpers.refusals import refused


def beside_a_plane(distances, device):
    """A linear model of two classes, and images of the first at these distances from the plane between them."""
    slope = torch.where(torch.rand(64, device=device) < 0.5, -1.0, 1.0) / 8
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).to(device)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack((slope, -slope)))
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
    x = 0.5 + torch.tensor(distances, device=device)[:, None] * slope
    return model, x.view(-1, 1, 8, 8), torch.zeros(len(x), dtype=torch.long, device=device)


@pytest.mark.parametrize("basis", ["pixel", "dct"])
def test_questions_are_counted_image_by_image(basis, device):
    # forty steps of 0.3 along different directions reach 0.3 * sqrt(40) = 1.9 at most
    model, x, y = beside_a_plane([-0.1, 2.2, 0.01, 0.02, 0.03, 2.1], device)
    counting = Counting(model)
    found, queries = simba(counting, x, y, 0.3, basis, steps=40)
    assert queries.shape == y.shape
    assert int(queries.sum()) == counting.asked
    assert counting.calls <= 1 + 2 * 40  # the batch is asked together
    right = model(found).argmax(1) == y
    assert right.tolist() == [False, True, False, False, False, True]
    assert int(queries[0]) == 1  # wrong already
    assert (queries[right] > 40).all()  # survivors were asked at every step
    assert (queries[right] <= 1 + 2 * 40).all()
    assert (queries[2:5] > 1).all()
    if basis == "pixel":  # every pixel brings 0.0375: one step is enough, by the first sign or by the second
        assert (queries[2:5] <= 3).all()


def test_logits_that_are_a_thousand_times_as_large_hide_nothing(device):
    model, x, y = beside_a_plane([0.3, 0.5, 0.7], device)
    found, queries = simba(model, x, y, 0.3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1024
    assert (model(x).double().softmax(1)[:, 0] == 1).all()
    louder, as_many = simba(model, x, y, 0.3, generator=torch.Generator().manual_seed(0))
    assert (model(louder).argmax(1) != y).all()
    assert torch.equal(found, louder)
    assert torch.equal(queries, as_many)


def test_an_image_that_is_wrong_already_costs_one_question_and_images_do_not_depend_on_their_company(model, images):
    x, y = images
    found, queries = simba(model, x, (y + 1) % 10, 0.3)
    assert torch.equal(queries, torch.ones_like(y))
    assert torch.equal(found, x)
    together, queries = simba(model, x, y, 0.2, steps=20, generator=torch.Generator().manual_seed(0))
    first, own = simba(model, x[:1], y[:1], 0.2, steps=20, generator=torch.Generator().manual_seed(0))
    assert_close(together[:1], first)
    assert torch.equal(queries[:1], own)


def test_the_size_of_the_change_is_bounded_by_the_steps_in_pixels_or_cosines(model, images):
    x, y = images
    x = 0.3 + 0.4 * x  # no clamping, which would spread a change over all cosines
    for basis in ("pixel", "dct"):
        found, _ = simba(model, x, y, 0.05, basis, steps=6)
        change = found - x
        assert float(change.flatten(1).norm(dim=1).max()) <= 0.05 * 6**0.5 * (1 + 1e-5)
        parts = dctn(change.cpu().numpy(), axes=(2, 3), norm="ortho") if basis == "dct" else change.cpu().numpy()
        assert ((abs(parts) > 1e-4).sum((1, 2, 3)) <= 6).all()
        assert abs(parts).max() == pytest.approx(0.05, abs=1e-4)


def test_a_linear_model_loses_step_times_its_weights(device):
    """Every coordinate once, box far away, nobody fooled: the change is the worst of the l-infinity ball."""
    model = linear_model(12).to(device)
    w = (model[1].weight[1] - model[1].weight[0]).detach()
    model[1].bias.data.copy_(torch.tensor([20.0, -20.0]))
    x = 0.4 + 0.2 * torch.rand(5, 12, dtype=torch.float64, device=device)
    y = torch.zeros(5, dtype=torch.int64, device=device)
    found, queries = simba(model, x, y, 0.1)
    assert_close(found, x + 0.1 * w.sign().expand(5, -1))
    down = int((w < 0).sum())  # +step first, then -step
    assert queries.tolist() == [1 + 12 + down] * 5
    twice, _ = simba(model, x, y, 0.1, steps=24)
    assert_close(twice, x + 0.2 * w.sign().expand(5, -1))  # more steps than coordinates go round again


def test_cosines_are_those_of_scipy(device):
    x = torch.zeros(1, 2, 5, 4, dtype=torch.float64, device=device)
    vectors = _Cosines(x)(torch.arange(40, device=device)).cpu()
    assert_close(vectors.flatten(1) @ vectors.flatten(1).T, torch.eye(40, dtype=torch.float64))
    for k, vector in enumerate(vectors):
        spot = torch.zeros(2, 5, 4, dtype=torch.float64)
        spot.flatten()[k] = 1
        assert_close(vector, torch.from_numpy(idctn(spot.numpy(), axes=(1, 2), norm="ortho")))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step": 0.0}, "step must be a positive number, got .*units of images"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"basis": "wavelet"}, 'basis must be "pixel" or'),
        (
            {"model": linear_model(), "x": torch.rand(3, 20), "y": torch.tensor([0] * 3), "basis": "dct"},
            "height, width",
        ),
    ],
)
def test_bad_input_is_a_sentence(change, message, model, images):
    refused(message, simba, **{"model": model, "x": images[0], "y": images[1], "step": 0.1, **change})
