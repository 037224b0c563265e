"""In evaluation mode ConvNorm2d is that of its present weight, however the weight was changed."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.testing import assert_close

from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.torus import TorusConvolution
from tests.helpers.geometries import normal


def network(device, **options) -> ConvNorm2d:
    return ConvNorm2d(3, 4, (3, 2), padding=(1, 0), **options).to(device, torch.float64).eval()


def image(device, size=(5, 6)):
    return normal(2, 3, *size, device=device)


def other_weight(layer):
    return normal(*layer.weight.shape, device=layer.weight.device, dtype=layer.weight.dtype, seed=9)


@pytest.fixture
def roots(monkeypatch):
    """Counts how often v is computed."""
    calls = []
    compute = TorusConvolution.inverse_root

    def counted(self, weight):
        calls.append(self)
        return compute(self, weight)

    monkeypatch.setattr(TorusConvolution, "inverse_root", counted)
    return calls


def assert_same(found, wanted):
    assert_close(found, wanted, **({"rtol": 0, "atol": 0} if found.device.type == "cpu" else {}))


def assert_fresh(layer, x):
    """The outputs are those of a layer that has seen no other weight: bit for bit, where sums have a fixed order."""
    fresh = ConvNorm2d(3, 4, (3, 2), padding=(1, 0), through=layer.through).to(layer.weight.device, layer.weight.dtype)
    fresh.load_state_dict(layer.state_dict())
    assert_same(layer(x), fresh.train()(x))


def test_v_is_kept_while_weight_and_size_are_the_same_and_made_anew_in_training(roots):
    layer, x = network("cpu"), image("cpu")  # on a GPU it is computed at every call
    for _ in range(3):
        y = layer(x)
    assert len(roots) == 1
    layer(image("cpu", (4, 6)))
    assert len(roots) == 2
    layer.train()
    for _ in range(2):
        assert torch.equal(layer(x), y)
    assert len(roots) == 4


# ---- every way to change a weight ----------------------------------------------------------------------------------
def in_place(layer):
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] += 1


def another_tensor_on_its_memory(layer):
    other = layer.weight.new_empty(0).set_(layer.weight.untyped_storage(), 0, layer.weight.shape)
    other[:, 1] = other[:, 2]


def moved_to_another_dtype_and_back(layer):
    layer.float()(image(layer.weight.device).float())
    layer.weight.data[2] = layer.weight.data[1]
    layer.double()


def modes_set_by_hand(layer):
    layer.training = True
    layer.weight.data[:, 0] = 1
    layer.training = False


def other_storage(layer):
    with torch.no_grad():
        layer.weight.set_(other_weight(layer))


def swapped(layer):
    torch.utils.swap_tensors(layer.weight, nn.Parameter(other_weight(layer)))


def next_number(layer):
    """The smallest change that there is, of one number."""
    first = layer.weight.data[1, 1, 1, 1]
    first.copy_(torch.nextafter(first, first + 1))


CHANGES = {
    f.__name__.replace("_", " "): f
    for f in (
        *(in_place, another_tensor_on_its_memory, moved_to_another_dtype_and_back, modes_set_by_hand),
        *(other_storage, swapped, next_number),
    )
} | {
    "data": lambda layer: setattr(layer.weight, "data", other_weight(layer)),
    "data.copy_": lambda layer: layer.weight.data.copy_(other_weight(layer)),
    "another parameter": lambda layer: setattr(layer, "weight", nn.Parameter(other_weight(layer))),
    "a state dict": lambda layer: layer.load_state_dict({"weight": other_weight(layer)}, strict=False, assign=True),
    # changes that a sum, a norm or a sum of squares does not show
    "two filters swapped": lambda layer: layer.weight.data.copy_(layer.weight.data[[1, 0, 2, 3]]),
    "all signs turned": lambda layer: layer.weight.data.neg_(),
}


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_evaluation_notices_every_change_of_the_weight(name, through, roots, device):
    layer, x = network(device, through=through), image(device)
    with torch.no_grad():
        before = layer.weight.clone()
        layer(x)
        with torch.enable_grad():
            CHANGES[name](layer)
        assert not torch.equal(layer.weight, before)
        seen = len(roots)
        layer(x)
        assert len(roots) == seen + 1
        assert_fresh(layer, x)
    assert_fresh(layer, x)
    A, B = layer.operator((5, 6)), copy.deepcopy(layer).train().operator((5, 6))
    assert_same(A.kernel, B.kernel)


def test_a_change_shows_in_the_gradient_and_a_lost_weight_that_is_repaired_is_right_again(device):
    layer, x = network(device), image(device)
    y = layer(x)
    kept = layer.weight.detach().clone()
    layer.weight.data[1, 0, 0, 0] = torch.nan
    for _ in range(2):
        assert layer(x)[:, 1].isnan().all()
    layer.weight.data.copy_(kept)
    assert_same(layer(x), y)
    layer.weight.data.copy_(other_weight(layer))
    found = torch.autograd.grad(layer(x).pow(3).sum(), layer.parameters())
    wanted = torch.autograd.grad(layer.train()(x).pow(3).sum(), layer.parameters())
    for slope, expected in zip(found, wanted, strict=True):
        assert_same(slope, expected)


# ---- other weights for one call, copies, dtypes --------------------------------------------------------------------
@pytest.mark.parametrize("kind", [nn.Parameter, torch.Tensor.clone])
def test_weights_given_for_one_call_leave_no_trace(kind, device):
    layer, x = network(device), image(device)
    y = layer(x)
    parameters = {"weight": kind(other_weight(layer))}
    other = network(device)
    other.load_state_dict({**layer.state_dict(), "weight": other_weight(layer)})
    for _ in range(2):
        assert_same(functional_call(layer, parameters, (x,)), other(x))
        assert_same(layer(x), y)


def test_copies_go_their_own_way_and_hold_nothing_that_depends_on_the_size(device):
    layer, x = network(device), image(device)
    size = len(pickle.dumps(layer))
    y = layer(x)
    assert len(pickle.dumps(layer)) == size
    assert set(layer.state_dict()) == {"weight", "affine_weight", "affine_bias"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(other(x), y)
        other.weight.data[1] *= -2
        assert_close(other(x)[:, [0, 2, 3]], y[:, [0, 2, 3]])
        assert_close(other(x)[:, 1], -y[:, 1])
        assert other(image(device, (3, 4))).shape == (2, 4, 3, 3)
        assert_same(layer(x), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_another_dtype_has_its_own_v(dtype, device):
    layer, x = network(device), image(device)
    layer(x)
    assert_fresh(layer.to(dtype), x.to(dtype))
    assert layer(x.to(dtype)).dtype == dtype
    layer.weight.data.mul_(other_weight(layer))
    assert_fresh(layer, x.to(dtype))


def test_a_parametrized_weight_that_moves_is_followed(device):
    class Half(nn.Module):
        def forward(self, weight):
            return torch.cat([weight[:, :1], 0 * weight[:, 1:]], 1)

    layer, x = network(device), image(device)
    parametrize.register_parametrization(layer, "weight", Half())
    for seed in range(3):
        original = layer.parametrizations.weight.original
        original.data.mul_(normal(*original.shape, device=device, seed=seed))
        with parametrize.cached():
            A = layer.operator((5, 6), affine=False)
            M = A.matrix().unflatten(0, (A.out_shape[0], -1))
            for Q in M:
                assert_close(Q @ Q.T, torch.eye(len(Q), dtype=Q.dtype, device=device))
            y = layer(x)
        assert_same(layer.train()(x), y)
        layer.eval()


# ---- inference mode ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inference_mode_leaves_nothing_that_gradients_cannot_use_and_layers_made_in_it_are_followed(
    mode, dtype, device
):
    layer, x = network(device).to(dtype), image(device, (7, 4)).to(dtype)
    with torch.inference_mode():
        y = layer(x)
    for _ in range(2):
        getattr(layer, mode)()(x).pow(3).sum().backward()
        assert_same(layer(x), y)
    with torch.inference_mode():
        layer = network(device).to(dtype)
        layer(x)
        layer.weight.mul_(other_weight(layer))
        assert_fresh(layer, x)
