"""Weights with torchvision's names give the outputs of torchvision's network, written here anew from those names."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from convkit.data import shapes
from convkit.methods import network
from convkit.models import batchnorm_layer, build_model, load_torchvision, plain_layer, torchvision_names
from tests.helpers.refusals import refused

NORM = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
names = pytest.mark.parametrize("name", BLOCKS)


def public(name: str, width: int, classes: int) -> dict[str, Tensor]:
    """Random numbers under the names of torchvision's network, ``width`` channels in its first stage."""
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, *shape: int) -> None:
        state[f"{conv}.weight"] = torch.randn(shape) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        for key, start in NORM.items():
            state[f"{norm}.{key}"] = start + 0.3 * torch.rand(shape[0])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("conv1", "bn1", width, 3, 7, 7)
    c_in = width
    for stage, count in enumerate(BLOCKS[name], start=1):
        inner = width * 2 ** (stage - 1)
        for i in range(count):
            place = f"layer{stage}.{i}"
            c_out = inner if name == "resnet18" else 4 * inner
            kernels = (3, 3) if name == "resnet18" else (1, 3, 1)
            channels = [c_in, *[inner] * (len(kernels) - 1), c_out]
            for number, k in enumerate(kernels, start=1):
                add(f"{place}.conv{number}", f"{place}.bn{number}", channels[number], channels[number - 1], k, k)
            if i == 0 and (stage > 1 or c_in != c_out):
                add(f"{place}.downsample.0", f"{place}.downsample.1", c_out, c_in, 1, 1)
            c_in = c_out
    return state | {"fc.weight": torch.randn(classes, c_in), "fc.bias": torch.randn(classes)}


def outputs(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits of torchvision's network in evaluation mode, for normalized images."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        kernel = state[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        weight, bias, mean, var = (state[f"{norm}.{key}"][:, None, None] for key in NORM)
        return weight * (x - mean) / (var + 1e-5).sqrt() + bias

    x = F.max_pool2d(layer(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, count in enumerate(BLOCKS[name], start=1):
        for i in range(count):
            place, stride, y = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1, x
            numbers = (1, 2) if name == "resnet18" else (1, 2, 3)
            strided = 1 if name == "resnet18" else 2  # the one of the 3 x 3 layers that has the stride
            for number in numbers:
                y = y.relu() if number > 1 else y
                y = layer(y, f"{place}.conv{number}", f"{place}.bn{number}", stride if number == strided else 1)
            if f"{place}.downsample.0.weight" in state:
                x = layer(x, f"{place}.downsample.0", f"{place}.downsample.1", stride)
            x = (x + y).relu()
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@names
def test_public_weights_give_the_outputs_of_the_public_network(name, device, tmp_path):
    state, x = public(name, 4, 7), torch.rand(2, 3, 40, 72)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = outputs(name, state, (x - mean[:, None, None]) / std[:, None, None])
    options = {"width": 1 / 16, "classes": 7, "stem": "imagenet", "mean": mean, "std": std}
    model = build_model(name, layer=batchnorm_layer, **options).to(device)
    assert load_torchvision(model, state) is model
    assert_close(model.eval()(x.to(device)).cpu(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert {int(v) for key, v in model.state_dict().items() if key.endswith("num_batches_tracked")} == {7}
    torch.save(state, tmp_path / "public.pth")  # from a file, into the layers of a method, in float64
    other = network(name, shapes(20, 10), "batchnorm", dtype=torch.float64, **options)
    load_torchvision(other, tmp_path / "public.pth")
    assert_close(other.eval()(x.double()).float(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@names
def test_every_number_has_its_name_and_none_has_two(name):
    with torch.device("meta"):
        model = build_model(name, layer=batchnorm_layer, classes=1000, stem="imagenet", mean=[0] * 3, std=[1] * 3)
        found = torchvision_names(model)
    assert {*found} == {*public(name, 4, 5)}
    assert sorted(found.values()) == sorted({*model.state_dict()} - {"normalize.mean", "normalize.std"})


def test_old_files_without_counters_are_taken_and_what_was_there_is_kept():
    state = {key: v for key, v in public("resnet18", 4, 7).items() if not key.endswith("num_batches_tracked")}
    model = build_model("resnet18", layer=batchnorm_layer, width=1 / 16, classes=7, stem="imagenet")
    load_torchvision(model, state)
    assert torch.equal(model.head.bias, state["fc.bias"])
    assert {int(v) for key, v in model.state_dict().items() if key.endswith("num_batches_tracked")} == {0}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conv1.weight": None}, "122 names of the same network in torchvision, got missing conv1.weight; load"),
        ({"conv2.weight": torch.zeros(3)}, "got unknown conv2.weight; load"),
        ({"fc.bias": None, "head.bias": torch.zeros(7)}, "got missing fc.bias and unknown head.bias; load"),
        ({f"layer1.{i}.bn1.bias": None for i in range(2)} | {f"layer1.{i}.bn2.bias": None for i in range(2)}, "1 more"),
        ({"fc.bias": torch.zeros(1000)}, r"fc.bias needs shape \(7,\), got \(1000,\); build"),
        ({"layer1.0.conv1.weight": torch.zeros(4, 4, 1, 1)}, r"needs shape \(4, 4, 3, 3\), got \(4, 4, 1, 1\)"),
        ({"fc.bias": [0.0] * 7}, r"fc.bias needs shape \(7,\), got list"),
    ],
)
def test_names_and_shapes_that_do_not_fit_are_refused_before_any_change(change, message):
    state = public("resnet18", 4, 7) | change
    state = {key: value for key, value in state.items() if value is not None}
    model = build_model("resnet18", layer=batchnorm_layer, width=1 / 16, classes=7, stem="imagenet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    refused(message, load_torchvision, model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "name, options, came",
    [
        ("resnet18", {"layer": batchnorm_layer}, "Network with the steps stem, relu, block1 and 10 more"),
        ("resnet18", {"layer": plain_layer, "stem": "imagenet"}, "Conv2d with weight, bias as stem"),
        ("senet18", {"layer": batchnorm_layer, "stem": "imagenet"}, "one that also has block1.gate.excite.bias, "),
        ("cnn9", {"layer": batchnorm_layer}, "Network with the steps conv1, relu1, conv2 and"),
    ],
)
def test_other_networks_are_refused(name, options, came):
    with torch.device("meta"):
        model = build_model(name, **options)
    refused(f"needed resnet18 or resnet50 with stem='imagenet' .*got {re.escape(came)}", load_torchvision, model, {})


def test_layers_of_another_method_are_refused():
    for method in ("spectral_norm", "groupnorm", "convnorm"):
        model = network("resnet18", shapes(20, 10), method, width=0.25, stem="imagenet")
        refused("whose layers are plain convolutions without bias and BatchNorm, got", load_torchvision, model, {})


def test_files_that_hold_no_weights_are_refused(tmp_path):
    model = build_model("resnet18", layer=batchnorm_layer, width=1 / 16, stem="imagenet")
    file = tmp_path / "some.pth"
    refused("No such file", load_torchvision, model, file, error=FileNotFoundError)
    file.write_bytes(b"nothing")
    refused(
        "needed a file with a state_dict, got .*some.pth, which cannot be read as one", load_torchvision, model, file
    )
    torch.save([1, 2], file)
    refused(r"got .*some.pth with \[1, 2\]; save it alone", load_torchvision, model, file)
    torch.save(model, file)  # a pickled module, whose code is not run
    refused("cannot be read as one", load_torchvision, model, file)
