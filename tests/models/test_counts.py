"""The networks' parameters are as many as published, and their layers lie where the papers put them."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from convkit.models import MODELS, batchnorm_layer, build_model, plain_layer

PATH = {  # convolutions on the way to the head, from the papers' tables
    **{"cnn9": 9, "resnet18": 17, "resnet32": 31, "resnet110": 109, "wrn28_10": 25, "vgg11": 8, "vgg16": 13},
    **{"senet18": 17, "regnetx_200mf": 1 + 3 * (1 + 1 + 4 + 7), "resnet50": 49},
}
BESIDE = {"resnet18": 3, "senet18": 3, "wrn28_10": 3, "regnetx_200mf": 4, "resnet50": 4}  # shortcuts with weights
names = pytest.mark.parametrize("name", MODELS)


def count(name: str, layer=batchnorm_layer, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, layer=layer, **options).parameters())


# ---- the numbers, from formulas that know nothing of the code ------------------------------------------------------
def conv(c_in: int, c_out: int, k: int, groups: int = 1) -> int:
    """A bias-free convolution and the scales and biases of the BatchNorm behind it."""
    return c_in * c_out * k * k // groups + 2 * c_out


def chain(channels: list[int], k: int = 3) -> int:
    return sum(conv(a, b, k) for a, b in pairwise(channels))


def basic_stages(widths: list[int], blocks: int, projected: bool) -> int:
    """The stem's channels, then stages of ``2 * blocks`` 3 x 3 layers, with a 1 x 1 layer where channels change."""
    pairs = list(pairwise(widths))
    layers = sum(conv(a, b, 3) + (2 * blocks - 1) * conv(b, b, 3) for a, b in pairs)
    return layers + sum(conv(a, b, 1) for a, b in pairs if projected and a != b)


def resnet50_count(classes: int, stem_kernel: int) -> int:
    total, c_in = conv(3, 64, stem_kernel), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            total += conv(c_in, width, 1) + conv(width, width, 3) + conv(width, 4 * width, 1)
            total += conv(c_in, 4 * width, 1) if block == 0 else 0
            c_in = 4 * width
    return total + (c_in + 1) * classes


def regnet_count(classes: int) -> int:
    total, c_in = conv(3, 64, 3), 64
    for width, blocks in ((24, 1), (56, 1), (152, 4), (368, 7)):
        for _ in range(blocks):
            total += conv(c_in, width, 1) + conv(width, width, 3, groups=width // 8) + conv(width, width, 1)
            total += conv(c_in, width, 1) if c_in != width else 0
            c_in = width
    return total + (c_in + 1) * classes


def he(blocks: int, width: float = 1) -> int:
    c = [round(16 * width), round(16 * width), round(32 * width), round(64 * width)]
    return conv(3, c[0], 3) + basic_stages(c, blocks, projected=False) + 10 * (c[-1] + 1)


RESNET18 = conv(3, 64, 3) + basic_stages([64, 64, 128, 256, 512], 2, projected=True) + 5130
GATES = 2 * sum(2 * c * (c // 16) + c + c // 16 for c in (64, 128, 256, 512))
VGG11 = [3, 64, 128, 256, 256, 512, 512, 512, 512]
VGG16 = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
WRN = conv(3, 16, 3) + basic_stages([16, 160, 320, 640], 4, projected=True) + 6410
PUBLISHED = {  # from the formula; in millions as papers or their common CIFAR implementations print it
    "cnn9": (chain([3, *[64] * 3, *[128] * 3, *[256] * 3]) + 2570, None),  # not printed
    "resnet18": (RESNET18, "11.17"),
    "resnet32": (he(5), "0.46"),  # He et al., table 6
    "resnet110": (he(18), "1.7"),  # He et al., table 6
    "wrn28_10": (WRN, "36.5"),  # Zagoruyko and Komodakis, table 5
    "vgg11": (chain(VGG11) + 5130, "9.23"),
    "vgg16": (chain(VGG16) + 5130, "14.7"),
    "senet18": (RESNET18 + GATES, "11.26"),
    "regnetx_200mf": (regnet_count(10), "2.32"),
    "resnet50": (resnet50_count(10, 3), "23.52"),
}


@names
def test_parameters_are_as_many_as_the_formula_and_the_publication_say(name):
    number, millions = PUBLISHED[name]
    assert count(name) == number
    if millions:
        decimals = len(millions.split(".")[1])
        assert f"{number / 1e6:.{decimals}f}" == millions


def test_resnet50_is_that_of_imagenet_for_large_images():
    assert count("resnet50", classes=1000, image_size=224) == resnet50_count(1000, 7) == 25_557_032


def test_wide_network_has_the_published_parameters_and_norms_in_its_shortcuts():
    # 36,479,194 with a norm before each convolution but those of the three shortcuts
    assert count("wrn28_10") - 2 * (160 + 320 + 640) == 36_479_194
    assert count("wrn28_10", depth=16, widening=4) == (
        conv(3, 16, 3) + basic_stages([16, 64, 128, 256], 2, projected=True) + 2570
    )


@pytest.mark.parametrize("preactivation", [False, True])
def test_resnet32_reaches_the_width_of_sedghi_et_al(preactivation):
    options = {"preactivation": preactivation}
    assert count("resnet32", **options) == he(5)
    assert count("resnet32", width=2.25, **options) == he(5, 2.25) == 2_340_334
    assert count("resnet32", width=2.28, **options) == he(5, 2.28) == 2_402_073
    assert count("resnet110", width=0.5, **options) == he(18, 0.5)


def test_a_plain_layer_has_a_bias_in_place_of_the_norm_and_more_channels_or_classes_cost_what_they_must():
    path = [3, *[64] * 3, *[128] * 3, *[256] * 3]
    assert count("cnn9", layer=plain_layer) == PUBLISHED["cnn9"][0] - sum(path[1:])
    assert count("cnn9", in_channels=1, classes=7) == PUBLISHED["cnn9"][0] - 2 * 64 * 9 - 3 * 257
    assert count("cnn9", widths=(5, 7, 11)) == chain([3, *[5] * 3, *[7] * 3, *[11] * 3]) + 120


@pytest.mark.parametrize(
    "name, channels", [("vgg11", VGG11), ("vgg16", VGG16), ("resnet18", [64, 64, 128, 256, 512]), ("senet18", None)]
)
def test_width_multiplies_every_number_of_channels(name, channels):
    half = [c // 2 for c in channels or []]
    expected = {
        "vgg11": lambda: chain([3, *half[1:]]) + 2570,
        "vgg16": lambda: chain([3, *half[1:]]) + 2570,
        "resnet18": lambda: conv(3, 32, 3) + basic_stages(half, 2, projected=True) + 2570,
        "senet18": lambda: (
            count("resnet18", width=0.5) + 2 * sum(2 * c * (c // 16) + c + c // 16 for c in (32, 64, 128, 256))
        ),
    }
    assert count(name, width=0.5) == expected[name]()


# ---- what the layer factory is asked for ---------------------------------------------------------------------------
def calls(name: str, **options: object) -> tuple[nn.Module, list[dict[str, float]]]:
    """The network, and the arguments of each call of its layer factory; the layer remembers its number."""
    seen = []

    def layer(c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, depth=1.0):
        seen.append({key: value for key, value in locals().items() if key != "seen"})
        made = plain_layer(c_in, c_out, kernel_size, stride, padding, dilation, groups, depth)
        made.number = len(seen) - 1
        return made

    with torch.device("meta"):
        return build_model(name, layer=layer, **options), seen


@names
def test_depth_runs_from_1_over_L_to_1_along_the_path_and_shortcuts_take_that_of_their_block(name):
    model, seen = calls(name)
    named = {module.number: child for child, module in model.named_modules() if hasattr(module, "number")}
    assert sorted(named) == list(range(len(seen)))  # every layer that was made is in the network, by a name
    path = [call["depth"] for i, call in enumerate(seen) if not named[i].endswith("shortcut")]
    L = PATH[name]
    assert path == pytest.approx([l / L for l in range(1, L + 1)])
    depths = [call["depth"] for call in seen]
    assert depths == sorted(depths)
    assert len(depths) - L == BESIDE.get(name, 0)
    for i, child in named.items():
        if child.endswith("shortcut"):
            block = child.removesuffix("shortcut")
            assert seen[i]["depth"] == max(seen[j]["depth"] for j, other in named.items() if other.startswith(block))
            assert seen[i]["kernel_size"] == 1
            assert seen[i]["padding"] == 0


@names
def test_layers_have_readable_names_and_the_padding_that_keeps_the_size(name):
    model, seen = calls(name)
    allowed = {"stem", *(f"conv{i}" for i in range(1, 14)), "shortcut"}
    for child, module in model.named_modules():
        if hasattr(module, "number"):
            assert child.split(".")[-1] in allowed
            assert seen[module.number]["padding"] == seen[module.number]["kernel_size"] // 2


def test_grouped_layers_go_through_the_factory():
    _, seen = calls("regnetx_200mf")
    grouped = [(call["c_in"], call["c_out"], call["groups"]) for call in seen[1:] if call["kernel_size"] == 3]
    assert grouped == [(w, w, w // 8) for w, n in ((24, 1), (56, 1), (152, 4), (368, 7)) for _ in range(n)]
    assert {call["groups"] for call in seen if call["kernel_size"] == 1} == {1}
    for name in set(MODELS) - {"regnetx_200mf"}:
        assert {call["groups"] for call in calls(name)[1]} == {1}


STRIDES = {  # of the layers of the path that have one, by name
    "resnet18": ["block3.conv1", "block5.conv1", "block7.conv1"],
    "senet18": ["block3.conv1", "block5.conv1", "block7.conv1"],
    "resnet32": ["block6.conv1", "block11.conv1"],
    "resnet110": ["block19.conv1", "block37.conv1"],
    "wrn28_10": ["block5.conv1", "block9.conv1"],
    "regnetx_200mf": ["block3.conv2", "block7.conv2"],
    "resnet50": ["block4.conv2", "block8.conv2", "block14.conv2"],
}


@names
def test_strides_lie_in_the_first_block_of_a_stage(name):
    model, seen = calls(name)
    strided = [c for c, m in model.named_modules() if hasattr(m, "number") and seen[m.number]["stride"] == 2]
    assert [child for child in strided if not child.endswith("shortcut")] == STRIDES.get(name, [])
    assert max(call["stride"] for call in seen) == (2 if name in STRIDES else 1)


PIXELS = {"cnn9": 8, "vgg11": 1, "vgg16": 1, "resnet32": 8, "resnet110": 8, "wrn28_10": 8, "regnetx_200mf": 8}


@names
def test_the_last_map_has_the_published_size(name):
    model, _ = calls(name)
    before = model[: [child for child, _ in model.named_children()].index("average")]
    out = before(torch.empty(1, 3, 32, 32, device="meta"))
    assert tuple(out.shape[2:]) == (PIXELS.get(name, 4),) * 2
    if name == "resnet50":
        large, seen = calls(name, image_size=224)
        assert seen[0] == {"c_in": 3, "c_out": 64, "kernel_size": 7, "stride": 2, "padding": 3} | {
            key: seen[0][key] for key in ("dilation", "groups", "depth")
        }
        assert tuple(large[:-3](torch.empty(1, 3, 224, 224, device="meta")).shape[1:]) == (2048, 7, 7)


def test_depth_is_measured_on_the_path_of_a_wide_network_of_other_depth():
    _, seen = calls("wrn28_10", depth=10, widening=1)
    assert seen[0]["depth"] == pytest.approx(1 / 7)
    assert math.isclose(seen[-1]["depth"], 1.0)
