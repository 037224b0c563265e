"""BatchNorm behind a layer is found wherever the outputs go to it alone, and becomes part of the layer's numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.audit.table import layer_table
from convkit.normalization.folding import channel_gain, channel_gains, followers, with_gain
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.operators.network import conv_operators
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import random_batchnorms
from tests.helpers.unchanged import unchanged


class WithActivation(nn.BatchNorm2d):
    """A BatchNorm with its activation, as libraries of networks write it."""

    def forward(self, input: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.relu(F.batch_norm(input, mean, var, self.weight, self.bias, self.training, 0.1, self.eps))


class Padding(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(F.pad(input, (0, 1, 1, 0)), self.weight, self.bias, self.stride)


class Taken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.numpy().sum())


class Many(nn.Module):
    """A network with every way in which a BatchNorm may follow a convolution, or not quite."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, (2, 1), bias=False), WithActivation(4)
        self.conv3, self.bn3 = Padding(4, 4, 2, bias=False), nn.BatchNorm2d(4, affine=False)
        self.conv4, self.bn4 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # the outputs also go elsewhere
        self.conv5, self.bn5, self.bn6 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)  # one after the other
        self.conv6, self.bn7 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # with an activation between them
        self.conv7, self.noisy = nn.Conv2d(4, 2, 1), NoisyAffine(2)
        self.conv8, self.bn8 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)  # twice, and behind it always the same
        self.conv9, self.bn9, self.bn10 = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.order = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = self.bn3(self.conv3(x)) + x
        y = self.conv4(x)
        x = self.bn4(y) + y
        x = self.bn6(F.relu(self.bn5(self.conv5(x))))
        x = self.bn7(F.relu(self.conv6(x)))
        x = self.noisy(self.conv7(x))
        x = self.bn8(self.conv8(self.bn8(self.conv8(x))))
        x = self.bn10(self.conv9(self.bn9(self.conv9(x))))
        return self.order(x.mean((2, 3)))


PAIRS = {
    **{"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "conv5": "bn5", "conv7": "noisy", "conv8": "bn8"},
    "order.0": "order.1",
}


def many(device: torch.device) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = random_batchnorms(Many())
    for norm in (model.noisy, model.order[1]):
        nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(model.order[1].running_var, 0.5, 2)
    return model.to(device, torch.float64), normal(3, 2, 6, 5, device=device)


def test_followers_are_what_all_outputs_of_a_layer_go_to(device):
    model, x = many(device)
    with unchanged(model, x):
        assert followers(model, x) == PAIRS
    assert followers(model) == {"order.0": "order.1"}
    assert followers(model.half(), x.half()) == PAIRS
    refused("numpy: it takes numbers", followers, nn.Sequential(nn.ReLU(), Taken()), x)


def test_a_table_folds_across_the_network_and_names_what_it_could_not_fold(device):
    model, x = many(device)
    plain, table = layer_table(model, x), layer_table(model, x, folded=True)
    assert {record.name: record.folded for record in table if record.folded} == {
        name: type(model.get_submodule(behind)).__name__ for name, behind in PAIRS.items()
    }
    assert table.unfolded == ["bn4", "bn6", "bn7", "bn9", "bn10"]
    assert str(table).splitlines()[-1] == "gains not folded: bn4, bn6, bn7, bn9, bn10"
    assert plain.unfolded == []
    operators, gains = conv_operators(model, x), channel_gains(model, x)
    for record, alone in zip(table, plain, strict=True):
        M = operators[record.name].matrix().detach()
        if record.folded:
            kind, gain = gains[record.name]
            assert kind == record.folded
            assert_close(gain, channel_gain(model.get_submodule(PAIRS[record.name])))
            M = gain.detach().repeat_interleave(len(M) // len(gain))[:, None] * M
            assert record.norm2 != pytest.approx(alone.norm2, rel=1e-3)
        assert record.norm2 == pytest.approx(float(torch.linalg.matrix_norm(M, 2)), rel=1e-6)
    assert measure(model, x, folded=True)[0]["conv8"] == pytest.approx(table.column("norm2")[7], rel=1e-6)


def test_gains_are_those_of_the_composition(device):
    model, x = many(device)
    model.eval()
    for name, size, behind in (("conv2", (1, 3, 6, 5), F.batch_norm), ("conv7", (1, 4, 6, 5), None)):
        zero = torch.zeros(*size, dtype=x.dtype, device=device)
        layer, then = model.get_submodule(name), model.get_submodule(PAIRS[name])
        if behind is not None:
            norm = nn.BatchNorm2d(4).to(device, x.dtype).eval()
            norm.load_state_dict(then.state_dict())
            then = norm
        J = torch.autograd.functional.jacobian(lambda t, layer=layer, then=then: then(layer(t)), zero)
        A = with_gain(conv_operators(nn.Sequential(layer), zero)["0"], channel_gains(model, x)[name][1])
        assert_close(J.reshape(-1, zero.numel()), A.matrix())
