"""Whatever an attack cannot use, it says in a sentence that names what was needed, what came and what to do."""

import math
import sys
from functools import partial

import pytest
import torch
from torch import nn

from convkit.attacks import autoattack, fgsm, pgd, robust_accuracy, simba
from tests.helpers.attack_models import linear_model
from tests.helpers.refusals import refused

ATTACKS = {
    "fgsm": partial(fgsm, eps=0.1),
    "pgd": partial(pgd, eps=0.1, step=0.1, steps=1),
    "simba": partial(simba, step=0.1, steps=1),
    "autoattack": partial(autoattack, eps=0.1),
    "robust_accuracy": lambda model, x, y: robust_accuracy(model, [(x, y)], partial(fgsm, eps=0.1), progress=False),
}
attacks = pytest.mark.parametrize("name", ATTACKS)


def case(device):
    model, x = linear_model(16, 4, torch.float32), torch.rand(3, 1, 4, 4)
    return model.to(device), x.to(device), torch.tensor([0, 1, 3], device=device)


class Bent(nn.Module):
    def __init__(self, bend, device):
        super().__init__()
        self.model, self.bend = case(device)[0], bend

    def forward(self, x):
        return self.bend(self.model(x))


@attacks
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": lambda x: 2 * x - 1}, "normalization belongs inside the model"),
        ({"images": lambda x: x + math.nan}, "must lie in .0, 1., got values from nan"),
        ({"images": lambda x: (x * 255).byte()}, "divide by 255"),
        ({"images": lambda x: x[:0]}, "N >= 1, got shape"),
        ({"labels": lambda y: y + 1}, r"labels must lie in 0 \.\. 3, the model has 4 outputs, got 1 \.\. 4"),
        ({"labels": lambda y: y - 1}, r"got -1 \.\. 2"),
        ({"labels": lambda y: y[:2]}, r"int64 of shape \(3,\)"),
        ({"labels": lambda y: y.float()}, "got torch.float32"),
        ({"logits": lambda f: f + math.nan}, "must return finite logits"),
        ({"logits": lambda f: f[:, 0]}, "must return logits of shape"),
        ({"logits": lambda f: f[:, :1]}, "at least two classes"),
        ({"logits": lambda f: f[:1]}, "for a batch of 3"),
        ({"logits": lambda f: (f, f)}, "got tuple"),
    ],
)
def test_images_labels_and_logits(name, changes, message, device):
    change = {"images": torch.clone, "labels": torch.clone, "logits": torch.clone, **changes}
    _, x, y = case(device)
    x = change["images"](x)
    refused(message, ATTACKS[name], Bent(change["logits"], device), x, change["labels"](y)[: len(x)])


def test_nan_that_appears_only_on_the_way_is_no_robustness(device):
    class Cliff(nn.Module):
        def forward(self, x):
            s = x.sum(1, keepdim=True)
            return torch.where((s > 1.05) | (s < 0.95), math.nan, 1) * torch.cat((s + 1, -s), 1)

    x, y = torch.full((2, 2), 0.5, device=device), torch.tensor([0, 0], device=device)
    for attack in (ATTACKS["fgsm"], ATTACKS["pgd"], ATTACKS["simba"]):
        refused("finite logits", attack, Cliff(), x, y)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_epsilon(eps, device):
    model, x, y = case(device)
    for attack in (fgsm, autoattack, partial(pgd, step=0.1, steps=1)):
        refused(r"eps must be a finite number of at least 0, got .*8 / 255", attack, model, x, y, eps=eps)
    refused("one number, or one number per image", fgsm, model, x, y, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step": 0.0}, "step must be a positive number, got .*units of images"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"restarts": 0}, "restarts must be a whole number"),
        ({"restarts": 2, "start": "clean"}, "2 restarts from the clean image all do the same"),
        ({"restarts": 2, "result": "last"}, "restarts and until_wrong compare"),
        ({"until_wrong": True, "result": "last"}, "restarts and until_wrong compare"),
        ({"start": False}, "start must be one of uniform, normal, clean, got False"),
        ({"result": "best"}, "result must be one of worst, last, got 'best'"),
        ({"start": "normal", "spread": -1.0}, "spread must be a finite number of at least 0"),
        ({"norm": 1}, 'norm must be "inf" or 2, got 1'),
        ({"loss": "hinge"}, "LOSSES has no 'hinge'; near it: margin"),
        ({"loss": lambda logits, y: logits}, "one number per image"),
        ({"targets": torch.tensor([0, 1, 4])}, "targets must lie in"),
        ({"targets": torch.tensor([0, 1])}, "targets must be class numbers"),
    ],
)
def test_options_of_pgd(change, message, device):
    model, x, y = case(device)
    change = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    refused(message, pgd, model, x, y, **{"eps": 0.1, "step": 0.1, "steps": 1, **change})


def test_a_model_without_gradients_is_sent_to_simba(device):
    _, x, y = case(device)
    refused("use simba", pgd, Bent(torch.Tensor.detach, device), x, y, 0.1, 0.1, 1)
    assert simba(Bent(torch.Tensor.detach, device), x, y, 0.1)[0].shape == x.shape


def test_autoattack_says_what_it_cannot_do(device):
    model, x, y = case(device)
    refused("at least 4 classes, the model has 3", autoattack, Bent(lambda f: f[:, :3], device), x, y.clamp(max=2), 0.1)
    refused("images of shape", autoattack, model, x.flatten(1), y, 0.1)
    refused("attacks must be some of", autoattack, model, x, y, 0.1, attacks=("pgd",))
    refused("at least 5 x 5", autoattack, model, x, y, 0.1, norm=2)
    refused("finite limits, got low -1 and high inf", autoattack, model, x, y, 0.1, low=-1, high=math.inf)
    refused(r"lie in \[0.5, 1\]", autoattack, model, x - 0.1, y, 0.1, low=0.5)


def test_autoattack_without_its_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ImportError, match=r"^autoattack needs pyautoattack, which is not installed: .*\[attacks\]"):
        autoattack(*case(torch.device("cpu")), 0.1)


def test_an_empty_loader_and_no_attack(device):
    model, x, y = case(device)
    refused("empty loader", robust_accuracy, model, [], partial(fgsm, eps=0.1), progress=False)
    refused("at least one attack", robust_accuracy, model, [(x, y)], {}, progress=False)
    with torch.no_grad():
        y = model(x).argmax(1)
    with pytest.raises(ValueError, match="cut must return images of shape"):
        robust_accuracy(model, [(x, y)], {"cut": lambda model, x, y: x[:, :, 1:]}, progress=False)
    refused("images must lie in", robust_accuracy, model, [(x, y)], {"far": lambda model, x, y: x + 1}, progress=False)
