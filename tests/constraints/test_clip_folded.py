"""The clip of a layer together with the BatchNorm behind it: the composition's norm, and the layer's weight alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from convkit.constraints import clip_operator_norm
from convkit.normalization.folding import channel_gain, with_gain
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.operators.network import input_shapes
from convkit.operators.operator import ConvOperator
from convkit.projections import clip_and_crop
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import random_batchnorms, sgd


class Block(nn.Module):
    """A residual block, whose BatchNorm does not stand beside its convolution in an ``nn.Sequential``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 5, (3, 5), padding=(1, 2), padding_mode="circular"), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.ConvTranspose2d(5, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)
        self.last = nn.Sequential(nn.Conv2d(2, 4, 1), NoisyAffine(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.last(y + x)


PAIRS = {"conv1": "bn1", "conv2": "bn2", "last.0": "last.1"}


def block(device: torch.device) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    model = random_batchnorms(Block()).to(device, torch.float64)
    with torch.no_grad():
        model.bn1.weight.copy_(torch.tensor([3.0, 0.0, -2.0, 1e-14, 0.5]))
        model.last[1].weight.copy_(torch.tensor([4.0, -1.0, 2.0, 0.5]))
    return model, normal(2, 2, 6, 7, device=device)


def composed(model: nn.Module, name: str, size: tuple[int, ...]) -> ConvOperator:
    A, behind = ConvOperator.from_layer(model.get_submodule(name), size), PAIRS.get(name)
    gain = None if behind is None else channel_gain(model.get_submodule(behind))
    return A if gain is None else with_gain(A, gain)


@pytest.mark.parametrize("across", [True, False])
@torch.no_grad()
def test_the_composition_is_clipped_and_the_gains_are_divided_out_again(device, across):
    model, x = block(device)
    shapes = input_shapes(model, x)
    optimizer = sgd(model, lr=0.0)
    old = copy.deepcopy(model)
    before = {name: composed(old, name, size) for name, size in shapes.items()}
    alone = {name: ConvOperator.from_layer(old.get_submodule(name), size) for name, size in shapes.items()}
    state = {name: t.clone() for name, t in model.state_dict().items()}
    handle = clip_operator_norm(optimizer, model, shapes, 0.7, every=1, folded=x if across else True)
    found = PAIRS if across else {"last.0": "last.1"}
    assert handle.behind == {n: model.get_submodule(m) for n, m in found.items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, size in shapes.items():
        A = before[name] if name in found else alone[name]
        wanted = clip_and_crop(A.torus(), 0.7)
        seen = (
            composed(model, name, size) if name in found else ConvOperator.from_layer(model.get_submodule(name), size)
        )
        assert_close(seen.kernel, wanted.kernel, rtol=0, atol=1e-9)
        assert handle.record[name]["norm"] == pytest.approx(
            float(torch.linalg.matrix_norm(wanted.matrix(), 2)), rel=1e-8
        )
        assert handle.record[name]["norm"] < 0.98 * float(torch.linalg.matrix_norm(A.matrix(), 2))
    weights = {f"{name}.weight" for name in shapes}
    assert_close({n: t for n, t in model.state_dict().items() if n not in weights},
                 {n: t for n, t in state.items() if n not in weights}, rtol=0, atol=0)  # fmt: skip


@torch.no_grad()
def test_channels_whose_gain_is_zero_or_lost_keep_their_weight(device):
    model, x = block(device)
    old = model.conv1.weight.clone()
    optimizer = sgd(model, lr=0.0)
    clip_operator_norm(optimizer, model, {"conv1": (6, 7)}, 0.3, every=1, rounds=4, folded=x)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert_close(model.conv1.weight[[1, 3]], old[[1, 3]], rtol=0, atol=0)
    assert not any(torch.allclose(model.conv1.weight[i], old[i], rtol=1e-3) for i in (0, 2, 4))
    composed_norm = float(torch.linalg.matrix_norm(composed(model, "conv1", (6, 7)).matrix(), 2))
    assert composed_norm <= 0.3 * 1.1


@torch.no_grad()
def test_gains_that_are_not_finite_are_named_and_no_weight_is_changed(device):
    model, x = block(device)
    optimizer = sgd(model, lr=0.0)
    clip_operator_norm(optimizer, model, input_shapes(model, x), 0.3, every=1, folded=x)
    model.bn2.running_var[0] = float("nan")
    old = model.conv1.weight.clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    refused("layer 'conv2': kernel must be finite", optimizer.step)
    assert torch.equal(model.conv1.weight, old)
