"""The networks compute what they say, for every image they take, and refuse the rest in words."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.audit.product.bound import product_bound
from convkit.models import batchnorm_layer, build_model, plain_layer
from convkit.operators.network import input_shapes
from convkit.operators.operator import ConvOperator
from tests.helpers.image_models import IMAGE_MODELS
from tests.helpers.refusals import refused

pytestmark = pytest.mark.slow

SMALL = {  # narrow forms, for what must be computed; their layers are those of the wide ones
    **{"cnn9": {"widths": (4, 6, 8)}, "wrn28_10": {"widening": 1, "depth": 16}, "resnet110": {"width": 0.5}},
    **{name: {"width": 0.25} for name in ("resnet18", "vgg11", "vgg16", "senet18", "resnet50")},
    **{"resnet32": {"width": 0.5}, "regnetx_200mf": {}, "alexnet": {"width": 0.0625}},
}
names = pytest.mark.parametrize("name", IMAGE_MODELS)
layers = pytest.mark.parametrize("layer", [plain_layer, batchnorm_layer])


def small(name, **options):
    return build_model(name, **{"layer": batchnorm_layer, "image_size": 8, **SMALL[name], **options})


# ---- every network, every image ------------------------------------------------------------------------------------
@names
@layers
@pytest.mark.parametrize("in_channels, size", [(1, 8), (1, 28), (3, 16), (5, 64)])
def test_logits_have_a_row_for_each_image(name, layer, in_channels, size):
    with torch.device("meta"):
        model = build_model(name, layer=layer, in_channels=in_channels, classes=7, image_size=size)
        assert model(torch.rand(5, in_channels, size, size)).shape == (5, 7)


@names
@layers
def test_gradients_reach_every_parameter(name, layer, device):
    options = {"width": 1} if name == "senet18" else {}  # one unit to squeeze into, as in the narrow form, may be off
    model = small(name, layer=layer, in_channels=1, mean=[0.3], std=[0.2], **options).to(device)
    x = torch.rand(6, 1, 8, 8, device=device)
    F.cross_entropy(model(x), torch.arange(6, device=device)).backward()
    unreached = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


@names
def test_forward_leaves_every_intermediate_result_as_it_was_and_takes_channels_last_and_autocast(name, device):
    model = small(name).to(device)
    seen = []
    hooks = [m.register_forward_hook(lambda _, args, out: seen.append((out, out._version))) for m in model.modules()]
    x = torch.rand(4, 3, 8, 8, device=device)
    before = x.clone()
    model(x)
    assert len(seen) > 10
    assert all(out._version == version for out, version in seen)
    assert_close(x, before, rtol=0, atol=0)
    for hook in hooks:
        hook.remove()
    model.eval()
    with torch.no_grad():
        expected = model(x)
        assert_close(model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), expected)
        with torch.autocast(device.type, torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), expected, rtol=0.1, atol=0.1)  # bfloat16 keeps 8 bits


@names
def test_the_seed_draws_the_weights_and_state_travels_through_state_dict_copies_and_pickles(name):
    def first(seed, **options):
        torch.manual_seed(seed)
        return small(name, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], **options)

    model, again, other = first(1), first(1), first(2)
    assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    weights = [key for key in model.state_dict() if key.endswith("conv.weight") or key == "head.weight"]
    assert len(weights) > 5
    assert not any(torch.equal(model.state_dict()[key], other.state_dict()[key]) for key in weights)
    x = torch.rand(3, 3, 8, 8)
    model(x)  # running statistics that are not those of the start
    expected = model.eval()(x)
    restored = small(name, mean=[0, 0, 0], std=[1, 1, 1])
    restored.load_state_dict(model.state_dict())
    for twin in (restored.eval(), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(twin(x), expected, rtol=0, atol=0)
        assert (twin.notes, twin.residual) == (model.notes, model.residual)
        refused("needed a batch of images", twin, x[:, :2])


def test_plain_networks_and_residual_ones_are_told_apart_and_a_part_of_a_network_is_a_network():
    with torch.device("meta"):
        assert {name for name, make in IMAGE_MODELS.items() if not make().residual} == {
            "cnn9",
            "vgg11",
            "vgg16",
            "alexnet",
        }
    model = small("cnn9")
    first = model[:2]
    assert isinstance(first[0], nn.Sequential)
    x = torch.rand(1, 3, 8, 8)
    assert_close(first.eval()(x), F.relu(model.conv1.eval()(x)))


# ---- against forwards written out by hand --------------------------------------------------------------------------
def stretched(model):
    """With weights large enough for every step to matter."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2 if p.ndim > 1 else 1)
    return model.double()


def conv(state, name, x, stride=1):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])


def head(state, x):
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


POOLS = {"cnn9": (10, 9, F.avg_pool2d, (3, 6)), "vgg11": (32, 8, F.max_pool2d, (1, 2, 4, 6, 8))}


@pytest.mark.parametrize("name", POOLS)
def test_plain_networks_are_convolutions_with_pooling_after_each_group(name, device):
    size, count, pool, after = POOLS[name]
    model = stretched(small(name, layer=plain_layer, image_size=size)).to(device)
    x = torch.rand(2, 3, size, size, dtype=torch.float64, device=device)
    state, y = model.state_dict(), x
    for i in range(1, count + 1):
        y = conv(state, f"conv{i}", y).relu()
        y = pool(y, 2) if i in after else y
    assert_close(model(x), head(state, y))


def by_hand(name, state, x, strided, preactivated=False):
    """Residual networks: ``strided`` maps the blocks whose shape changes to their stride."""
    y = conv(state, "stem", x)
    y = y if preactivated else y.relu()
    blocks = sorted({int(key.split(".")[0].removeprefix("block")) for key in state if key.startswith("block")})
    for block in (f"block{i}" for i in blocks):
        count = 3 if f"{block}.conv3.weight" in state else 2
        stride = strided.get(block, 1)
        start = y.relu() if preactivated else y
        z = start
        for i in range(1, count + 1):
            z = conv(state, f"{block}.conv{i}", z.relu() if i > 1 else z, stride if i == (1, 2)[count == 3] else 1)
        if name == "senet18":
            w = z.mean((2, 3)) @ state[f"{block}.gate.squeeze.weight"].T + state[f"{block}.gate.squeeze.bias"]
            w = w.relu() @ state[f"{block}.gate.excite.weight"].T + state[f"{block}.gate.excite.bias"]
            z = z * w.sigmoid()[:, :, None, None]
        if f"{block}.shortcut.weight" in state:
            kept = conv(state, f"{block}.shortcut", start, stride)
        else:
            kept = torch.zeros_like(z)
            kept[:, : y.shape[1]] = y[:, :, ::stride, ::stride]
        y = z + kept if preactivated else (z + kept).relu()
    return head(state, y.relu())


@pytest.mark.parametrize(
    "name, options, changes, preactivated",
    [
        ("resnet18", {}, {"block3": 2, "block5": 2, "block7": 2}, False),
        ("senet18", {}, {"block3": 2, "block5": 2, "block7": 2}, False),
        ("resnet50", {}, {"block4": 2, "block8": 2, "block14": 2}, False),
        ("regnetx_200mf", {}, {"block3": 2, "block7": 2}, False),
        ("resnet32", {}, {"block6": 2, "block11": 2}, False),
        ("resnet32", {"preactivation": True}, {"block6": 2, "block11": 2}, True),
        ("wrn28_10", {"widening": 2}, {"block3": 2, "block5": 2}, True),
    ],
)
def test_residual_networks_add_what_they_are_given(name, options, changes, preactivated, device):
    model = stretched(small(name, layer=plain_layer, **options)).to(device)
    x = torch.rand(2, 3, 11, 11, dtype=torch.float64, device=device)
    assert_close(model(x), by_hand(name, model.state_dict(), x, changes, preactivated))


def normed(state, name, x):
    numbers = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, weight, bias = (number[:, None, None] for number in numbers)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def published(state, x, strided):
    """Pre-activated networks: BatchNorm, ReLU, convolution; ``strided`` is as in ``by_hand``."""

    def bare(name, x, stride=1):
        return F.conv2d(x, state[f"{name}.weight"], None, stride, state[f"{name}.weight"].shape[-1] // 2)

    se = "stem.norm.weight" in state  # SENet-18: the stem as in a ResNet, and no normalization before the head
    y = normed(state, "stem.norm", bare("stem.conv", x)).relu() if se else bare("stem", x)
    blocks = sorted({int(key.split(".")[0].removeprefix("block")) for key in state if key.startswith("block")})
    for block in (f"block{i}" for i in blocks):
        stride = strided.get(block, 1)
        start = normed(state, f"{block}.norm1", y).relu()
        z = bare(f"{block}.conv2", normed(state, f"{block}.norm2", bare(f"{block}.conv1", start, stride)).relu())
        if se:
            w = z.mean((2, 3)) @ state[f"{block}.gate.squeeze.weight"].T + state[f"{block}.gate.squeeze.bias"]
            w = w.relu() @ state[f"{block}.gate.excite.weight"].T + state[f"{block}.gate.excite.bias"]
            z = z * w.sigmoid()[:, :, None, None]
        if f"{block}.shortcut.weight" in state:
            kept = bare(f"{block}.shortcut", start, stride)
        else:
            kept = torch.zeros_like(z)
            kept[:, : y.shape[1]] = y[:, :, ::stride, ::stride]
        y = z + kept
    return head(state, y if se else normed(state, "norm", y).relu())


@pytest.mark.parametrize(
    "name, options, changes",
    [
        ("senet18", {"width": 0.5}, {"block3": 2, "block5": 2, "block7": 2}),
        ("resnet32", {}, {"block6": 2, "block11": 2}),
        ("wrn28_10", {"widening": 2}, {"block3": 2, "block5": 2}),
    ],
)
def test_published_networks_normalize_before_each_convolution(name, options, changes, device):
    model = small(name, norm_first=True, **options).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    model.to(device).eval()
    x = torch.rand(2, 3, 11, 11, dtype=torch.float64, device=device)
    assert_close(model(x), published(model.state_dict(), x, changes))
    bound = product_bound(model, x[:1], low=0, high=1)
    steep = (model(x[:1]) - model(x[1:])).norm() / (x[0] - x[1]).norm()
    assert steep.detach() <= bound < math.inf


@names
def test_statistics_are_part_of_the_network(name):
    mean, std = [0.1, 0.2, 0.3], torch.tensor([0.4, 0.5, 0.6])
    model, bare = small(name, mean=mean, std=std).double().eval(), small(name).double().eval()
    state = model.state_dict()
    mean, std = (state.pop(f"normalize.{key}") for key in ("mean", "std"))
    assert_close(mean.flatten(), torch.tensor([0.1, 0.2, 0.3]), check_dtype=False)
    assert_close(std.flatten(), torch.tensor([0.4, 0.5, 0.6]), check_dtype=False)
    bare.load_state_dict(state)  # strict: without statistics there is no such step
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    assert_close(model(x), bare((x - mean) / std))
    assert not {"normalize.mean", "normalize.std"} & {key for key, _ in model.named_parameters()}


# ---- product_bound -------------------------------------------------------------------------------------------------
def test_product_bound_of_cnn9_is_the_product_of_its_layers():
    model = small("cnn9", layer=plain_layer, mean=[0.5, 0.4, 0.3], std=[0.2, 0.5, 0.4])
    x = torch.rand(1, 3, 8, 8)
    expected = (1 / 0.2) / 2 / 2 / 2  # statistics; two poolings of 2 x 2 and the average of the last 2 x 2
    for layer, shape in input_shapes(model, x).items():
        A = ConvOperator.from_layer(model.get_submodule(layer), shape)
        expected *= float(torch.linalg.matrix_norm(A.matrix().detach().double(), 2))
    assert product_bound(model, x) == pytest.approx(expected, rel=1e-5)


@names
def test_product_bound_goes_through_the_network_and_holds_and_needs_a_box_for_a_gate(name):
    model = small(name).eval()
    x = torch.rand(8, 3, 8, 8)
    if name == "senet18":
        refused(r"step 'block1.gate' \(SqueezeExcitation\), mul: .* give low and high", product_bound, model, x[:1])
    model.train()(x)
    bound = product_bound(model, x[:1], torus=True, **({"low": 0, "high": 1} if name == "senet18" else {}))
    with torch.no_grad():
        changes = model.eval()(x[::2]) - model(x[1::2])
    assert float((changes.norm(dim=1) / (x[::2] - x[1::2]).flatten(1).norm(dim=1)).max()) <= bound < float("inf")
