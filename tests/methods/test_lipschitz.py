"""The method lipschitz: whatever the weights, the network's bound is the knob."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from convkit.audit.product.bound import product_bound
from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.methods.lipschitz import NetworkBound, start_orthogonal
from convkit.models import MaxMin
from convkit.operators.network import conv_operators
from convkit.training.loop import fit
from convkit.training.margin import Margin
from tests.helpers.refusals import refused

DATA = subset(digits(), 80)
WIDTHS = {"widths": (4, 6, 8)}


def own():
    layers = (nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(6, 4, (3, 2)))
    return nn.Sequential(nn.AvgPool2d(2), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))


def steepest(model, x):
    """The largest norm of the Jacobian at some images."""
    rows = [torch.autograd.functional.jacobian(lambda at: model(at)[0], image[None]).flatten(1) for image in x]
    return float(torch.linalg.matrix_norm(torch.stack(rows), 2).max())


@pytest.mark.parametrize(
    "name, options", [("cnn9", WIDTHS), ("vgg11", {"width": 1 / 16}), ("resnet18", {"width": 1 / 16})]
)
def test_the_bound_is_the_knob_before_and_after_training_and_while_it_moves(name, options):
    model = network(name, DATA, "lipschitz", knobs={"bound": 2.5}, **options)
    x = DATA.train_batch(torch.arange(3))[0]
    knobs: dict[str, float] = {"lr": 0.05}
    assert product_bound(model, x[:1], torus=True) == pytest.approx(2.5, rel=1e-4)
    for record in fit(model, DATA, "lipschitz", steps=3, batch_size=20, schedule="constant", knobs=knobs):
        wanted = knobs.get("bound", 2.5)  # that of the network, until it is moved
        assert product_bound(model, x[:1], torus=True) == pytest.approx(wanted, rel=1e-4)
        assert product_bound(model, x[:1], torus=True) <= wanted
        assert product_bound(model, x[:1]) <= wanted
        assert steepest(model.eval(), x) <= wanted
        knobs["bound"] = 10.0**record.step
    assert wanted == 100
    assert (
        network(name, DATA, "lipschitz", knobs={"bound": 7.0}, **options).state_dict().keys()
        == model.state_dict().keys()
    )


def test_every_layer_has_norm_one_but_the_last_one_and_activations_are_maxmin():
    model = network("cnn9", DATA, "lipschitz", **WIDTHS)
    *before, head = [A.torus() for A in conv_operators(model, DATA.train_batch([0])[0]).values()]
    for A in before:
        assert float(torch.linalg.matrix_norm(A.matrix().detach().double(), 2)) == pytest.approx(1, rel=1e-5)
    pools, std = 1 / 2 / 2 / 2, DATA.std[0]
    norm = float(torch.linalg.matrix_norm(head.matrix().detach().double(), 2))
    assert norm == pytest.approx(5 * std / pools, rel=1e-4)  # the default of the knob, less what the rest does
    assert sum(isinstance(module, MaxMin) for module in model.modules()) == 9


@pytest.mark.parametrize("groups, stride", [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_the_start_is_orthogonal(groups, stride):
    for c_in, c_out in ((6, 6), (6, 12), (12, 6)):
        conv = nn.Conv2d(
            c_in, c_out, (3, 1), stride, (1, 0), groups=groups, padding_mode="circular", dtype=torch.float64
        )
        start_orthogonal(conv, {})
        values = torch.linalg.svdvals(conv.weight.detach().sum((2, 3)).view(groups, c_out // groups, -1)[0])
        if groups == 1:
            assert_close(values, torch.ones_like(values))
        assert ((conv.weight != 0).flatten(2).any(1).sum(1) == 1).all()
        assert not conv.bias.any()
        A = conv_operators(conv, torch.zeros(1, c_in, 8, 6, dtype=torch.float64))[""].matrix().detach()
        found = torch.linalg.svdvals(A)
        assert float(found[0]) <= 1 + 1e-12
        if stride == 1:
            assert_close(found, torch.ones_like(found))


def test_a_network_of_ones_own_keeps_its_weights_up_to_their_norms():
    mine = own()
    model = network(mine, DATA, "lipschitz", knobs={"bound": 1.0})
    assert isinstance(model[2], MaxMin)
    assert isinstance(mine[2], nn.ReLU)
    original = model[-1].parametrizations.weight.original
    assert_close(original, mine[-1].weight)
    ratio = model[-1].weight / mine[-1].weight
    assert_close(ratio, ratio.mean().expand_as(ratio))
    x = DATA.train_batch(torch.arange(2))[0]
    assert product_bound(model, x, torus=True) == pytest.approx(1, rel=1e-4)
    last = next(module for module in model.modules() if isinstance(module, NetworkBound))
    assert "rest=0.5" in repr(last)  # the pooling


class Branches(nn.Module):
    """A sum whose second branch is no multiple of the last layer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))

    def forward(self, x):
        return self.inner(x) + x.flatten(1).mean(1, keepdim=True)


@pytest.mark.parametrize(
    "layers, words",
    [
        ([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10)], "BatchNorm2d at 1"),
        (
            [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Flatten(), nn.Linear(72, 10)],
            "BatchNorm2d at 1",
        ),
        ([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10), nn.PReLU()], "got PReLU at 3"),
        ([nn.Conv2d(1, 2, 3), nn.LayerNorm(6), nn.Flatten(), nn.Linear(72, 10)], "got LayerNorm at 1"),
        ([Branches()], "ends with a layer to scale its logits by, got ParametrizedLinear '0.inner.2'"),
    ],
)
def test_a_network_that_it_cannot_bound_is_refused(layers, words):
    refused(words, network, nn.Sequential(*layers), DATA, "lipschitz")


def test_gates_have_no_bound_and_are_refused():
    refused("gate.*multiplies two parts", network, "senet18", DATA, "lipschitz", width=0.25)


def test_a_checkpoint_a_copy_and_bfloat16_keep_the_bound(tmp_path):
    x = DATA.train_batch(torch.arange(2))[0]
    plan = {"batch_size": 20, "steps": 4, "knobs": {"bound": 3.0}, "objective": Margin(0.3)}
    expected = network("cnn9", DATA, "lipschitz", **WIDTHS)
    records = list(fit(expected, DATA, "lipschitz", **plan))
    run = fit(network("cnn9", DATA, "lipschitz", **WIDTHS), DATA, "lipschitz", checkpoint=tmp_path / "run", **plan)
    next(run)
    run.close()
    again = network("cnn9", DATA, "lipschitz", **WIDTHS)
    assert list(fit(again, DATA, "lipschitz", checkpoint=tmp_path / "run", **plan)) == records
    assert_close(again(x), expected(x), rtol=0, atol=0)
    low = network("cnn9", DATA, "lipschitz", **WIDTHS)
    assert list(fit(low, DATA, "lipschitz", precision="bfloat16", **plan))[-1].diverged is None
    assert product_bound(low, x, torus=True) <= 3.0


def test_one_layer_and_its_norm_are_parametrized_once():
    model = network("cnn9", DATA, "lipschitz", **WIDTHS)
    lists = [m.parametrizations.weight for m in model.modules() if parametrize.is_parametrized(m)]
    assert [len(one) for one in lists] == [1] * 10
