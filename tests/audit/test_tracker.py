"""The tracker's estimates stay below the norms, close to them, and cost a fraction of them."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from convkit.audit.tracker import NormTracker
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import saved
from tests.helpers.unchanged import unchanged


def network(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular", groups=2),
        nn.Tanh(),
        nn.Conv2d(channels, 2 * channels, (3, 2), stride=2, padding=(1, 1), padding_mode="circular"),
        nn.ConvTranspose2d(2 * channels, 5, 2, stride=2),
        nn.Flatten(),
        nn.LazyLinear(3),
    ).double()


def started(device: torch.device, channels: int = 4) -> tuple[nn.Sequential, torch.Tensor]:
    model, x = network(channels).to(device), normal(16, 3, 8, 10, device=device)
    model(x)
    return model, x


def dense_norms(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    operators = conv_operators(model, x).items()
    return {name: float(torch.linalg.matrix_norm(A.matrix().detach().double().cpu(), 2)) for name, A in operators}


def train(model: nn.Module, x: torch.Tensor, steps: int, lr: float = 0.05):
    """Gradient descent on labels that follow from the images: the norms grow."""
    labels = (x.flatten(1).sum(1) > 0).long() + (x[:, 0].flatten(1).sum(1) > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    for step in range(steps):
        yield step
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()


@pytest.mark.slow
def test_estimates_stay_below_the_norms_and_close_to_them_while_training(device):
    model, x = started(device)
    tracker = NormTracker(model, x[:1], refresh=10)
    first = dense_norms(model, x[:1])
    for step in train(model, x, 41):
        estimates, norms = tracker.update(), dense_norms(model, x[:1])
        assert list(estimates) == list(norms) == ["0", "2", "4", "5", "7"]
        for name, norm in norms.items():
            assert norm * (1 - 1e-3) <= estimates[name] <= norm * (1 + 1e-9), (name, step)
            if step % 10 == 0:
                assert estimates[name] >= norm * (1 - 1e-8)
    assert max(norms[name] / first[name] for name in norms) > 1.2  # there was something to follow
    assert tracker.deficits.keys() == norms.keys()
    assert all(0 <= deficit < 1e-3 for deficit in tracker.deficits.values())


def test_deficits_say_how_far_below_the_last_estimate_was(device):
    model, x = started(device)
    tracker = NormTracker(model, x[:1], refresh=2, candidates=1, steps=1)
    tracker.update()
    assert tracker.deficits == {}
    tracker.update()
    assert tracker.deficits == {}  # told at a refresh only
    with torch.no_grad():  # the layer turns into another one, too far to follow
        for name in ("0", "4"):
            weight = model.get_submodule(name).weight
            weight.copy_(normal(*weight.shape, device=device, seed=7))
    probe = NormTracker(model, x[:1], refresh=10**9, candidates=1, steps=1)
    probe.load_state_dict(tracker.state_dict())  # the same state, but no refresh now
    estimates, exact = probe.update(), tracker.update()
    assert_close(exact, dense_norms(model, x[:1]))
    for name, deficit in tracker.deficits.items():
        assert_close(deficit, max(0.0, 1 - estimates[name] / exact[name]))
    assert max(tracker.deficits["0"], tracker.deficits["4"]) > 1e-3
    assert tracker.deficits["2"] < 1e-9


def test_a_layer_of_zeros_is_zero_and_is_found_when_it_wakes(device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 4, 3, padding=1))
    model = model.to(device)
    x = torch.ones(1, 3, 9, 8, device=device)
    weights = [model[0].weight.detach().clone(), model[1].weight.detach().clone()]
    for layer in model:
        nn.init.zeros_(layer.weight)
    tracker = NormTracker(model, x, refresh=3)
    assert tracker.update() == tracker.update() == {"0": 0.0, "1": 0.0}
    with torch.no_grad():
        for layer, weight in zip(model, weights, strict=True):
            layer.weight.copy_(weight)
    norms = dense_norms(model, x)
    estimates = tracker.update()
    assert all(0 < estimates[name] <= norm * (1 + 1e-5) for name, norm in norms.items())
    assert_close(tracker.update(), norms, rtol=1e-5, atol=0.0)  # a refresh
    assert all(0 <= tracker.deficits[name] <= 1 - estimates[name] / norms[name] + 1e-5 for name in norms)


@pytest.mark.parametrize("mode", ["circular", "zeros"])
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_scale_makes_no_difference(device, mode, factor):
    layer = nn.Conv2d(3, 5, 3, padding=1, padding_mode=mode, bias=False, device=device)
    x = torch.ones(1, 3, 9, 8, device=device)
    with torch.no_grad():
        layer.weight.mul_(factor)
    tracker = NormTracker(layer, x)
    norm = dense_norms(layer, x)[""]
    assert_close([tracker.update()[""] / norm, tracker.update()[""] / norm], [1.0, 1.0], rtol=1e-5, atol=0.0)


def test_a_refresh_knows_the_vectors_of_the_norm(device):
    layer = nn.Conv2d(24, 20, 3, padding=1, padding_mode="circular", bias=False).double().to(device)
    tracker = NormTracker(layer, torch.ones(1, 24, 9, 8, dtype=torch.float64, device=device))
    assert_close(tracker.update()[""], tracker.update()[""], rtol=1e-13, atol=0.0)


def test_a_frequency_that_was_not_followed_is_found_without_a_refresh(device):
    layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False).double().to(device)
    tracker = NormTracker(layer, torch.ones(1, 1, 16, dtype=torch.float64, device=device), candidates=2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[0.25, 0.5, 0.25]]]))  # the largest value is at frequency 0 ...
        assert tracker.update()[""] == pytest.approx(1)
        layer.weight.copy_(torch.tensor([[[-0.25, 0.5, -0.25]]]))  # ... and now at the highest of nine
    assert tracker.update()[""] < 0.5
    assert max(tracker.update()[""] for _ in range(4)) == pytest.approx(1)


def test_reading_a_parametrized_weight_takes_no_step_of_it(device):
    model = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding_mode="circular", padding=1)).to(device)
    tracker = NormTracker(model.train(), torch.ones(1, 3, 6, 7, device=device))
    with unchanged(model):
        assert_close(tracker.update(), tracker.update())


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_layers_whose_padding_mirrors_pixels_are_tracked(device, mode):
    layer = nn.Conv2d(4, 6, 3, padding=1, padding_mode=mode, bias=False).double().to(device)
    x = torch.ones(1, 4, 7, 6, dtype=torch.float64, device=device)
    tracker = NormTracker(layer, x, refresh=4)
    for step in range(9):
        norm, estimate = dense_norms(layer, x)[""], tracker.update()[""]
        assert norm * (1 - (1e-9 if step % 4 == 0 else 1e-2)) <= estimate <= norm * (1 + 1e-9)
        with torch.no_grad():
            layer.weight.add_(normal(*layer.weight.shape, device=device, seed=step), alpha=0.01)


# ---- cost ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode, channels, size, fraction", [("circular", 64, 32, 0.1), ("zeros", 16, 24, 0.5)])
def test_an_update_multiplies_a_fraction_of_what_the_norm_does(device, mode, channels, size, fraction):
    layer = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode, bias=False, device=device)
    tracker = NormTracker(layer, torch.ones(1, channels, size, size, device=device))
    tracker.update()
    A = ConvOperator.from_layer(layer, (size, size))
    with FlopCounterMode(display=False) as update:
        tracker.update()
    with FlopCounterMode(display=False) as norm:
        operator_norm(A, 2)
    assert 0 < update.get_total_flops() < fraction * norm.get_total_flops()


# ---- state ---------------------------------------------------------------------------------------------------------
def test_a_tracker_goes_on_from_its_saved_state_which_does_not_change_meanwhile(device):
    model, x = started(device)
    tracker, twin = (NormTracker(model, x[:1], refresh=3) for _ in range(2))
    for _ in train(model, x, 5):
        assert tracker.update() == pytest.approx(twin.update(), rel=1e-12 if device.type == "cuda" else 0, abs=0)
    state, (before,) = tracker.state_dict(), saved(tracker)
    other = NormTracker(model, x[:1], refresh=3)
    other.load_state_dict(before)
    assert other.deficits == tracker.deficits
    for _ in train(model, x, 4):
        assert_close(other.update(), tracker.update(), rtol=1e-12, atol=0.0)
    assert other.deficits == pytest.approx(tracker.deficits, abs=1e-12)
    assert_close(state, before, rtol=0, atol=0)


# ---- refusals ------------------------------------------------------------------------------------------------------
def test_the_state_of_another_model_is_refused_and_changes_nothing(device):
    model, x = started(device)
    tracker = NormTracker(model, x[:1])
    norms = tracker.update()
    other = NormTracker(nn.Conv2d(3, 2, 3, device=device), torch.ones(1, 3, 5, 5, device=device))
    other.update()
    words = r"needed the state of a tracker of layers \['0', '2'.* got one of \[''\]"
    refused(words, tracker.load_state_dict, other.state_dict())
    assert_close(tracker.update(), norms)


@pytest.mark.parametrize("number", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name_and_the_tracker_is_as_before(device, number):
    model, x = started(device)
    tracker = NormTracker(model, x[:1], refresh=2)
    tracker.update()
    before = tracker.state_dict()
    weight = model[4].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.mul_(1.01)
        model[4].weight[0, 0, 0, 0] = number
    refused("layer '4': kernel must be finite", tracker.update)
    after = tracker.state_dict()
    assert after["updates"] == before["updates"] == 1
    assert_close(after["states"], before["states"], rtol=0, atol=0)
    with torch.no_grad():
        model[4].weight.copy_(weight)
    assert len(tracker.update()) == 5


def test_numbers_below_one_and_models_that_cannot_be_tracked_are_refused_at_once(device):
    layer, x = nn.Conv2d(2, 3, 1, device=device), torch.ones(1, 2, 5, 5, device=device)
    for name in ("refresh", "candidates", "steps"):
        refused(f"{name} must be at least 1, got 0", NormTracker, layer, x, **{name: 0})
    refused("needed a model with convolutions or linear layers, got ReLU", NormTracker, nn.ReLU(), x)
