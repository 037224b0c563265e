"""The networks' parameters are as many as published, and their layers lie where the papers put them."""

import pytest
import torch
from torch import nn

from convkit.models import batchnorm_layer, build_model, plain_layer
from convkit.models.layers import ConvAndNorm, Place
from tests.helpers.image_models import IMAGE_MODELS

PATH = {  # convolutions on the way to the head, from the papers' tables
    **{"cnn9": 9, "resnet18": 17, "resnet32": 31, "resnet110": 109, "wrn28_10": 25, "vgg11": 8, "vgg16": 13},
    **{"senet18": 17, "regnetx_200mf": 1 + 3 * (1 + 1 + 4 + 7), "resnet50": 49, "alexnet": 5},
}
BESIDE = {"resnet18": 3, "senet18": 3, "wrn28_10": 3, "regnetx_200mf": 4, "resnet50": 4}  # shortcuts with weights
names = pytest.mark.parametrize("name", IMAGE_MODELS)


def count(name: str, layer=batchnorm_layer, **options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, layer=layer, **options).parameters())


C18 = (64, 128, 256, 512)  # two blocks of each
PARAMETERS = [  # name, options, parameters by the papers' tables; beside it what papers or their common code print
    ("cnn9", {}, 1_923_914),
    ("resnet18", {}, 11_173_962),  # 11.17 million
    ("resnet32", {}, 464_154),  # 0.46 million: He et al., table 6
    ("resnet110", {}, 1_727_962),  # 1.7 million: He et al., table 6
    # 36.5 million: Zagoruyko and Komodakis, table 5; the first number is that without norms in the three shortcuts
    ("wrn28_10", {}, 36_479_194 + 2 * (160 + 320 + 640)),
    ("wrn28_10", {"norm_first": True}, 36_479_194),
    ("vgg11", {}, 9_228_362),  # 9.23 million
    ("vgg16", {}, 14_724_042),  # 14.7 million
    ("senet18", {}, 11_263_042),  # 11.26 million
    ("senet18", {"norm_first": True}, 11_260_354),  # 11.26 million: Liang & Huang; no norms in the shortcuts
    ("regnetx_200mf", {}, 2_321_946),  # 2.32 million
    ("resnet50", {}, 23_520_842),  # 23.52 million
    ("resnet50", {"classes": 1000, "image_size": 224}, 25_557_032),  # that of ImageNet
    ("resnet50", {"classes": 1000, "stem": "imagenet"}, 25_557_032),
    ("resnet18", {"classes": 1000, "stem": "imagenet"}, 11_689_512),  # 11.69 million
    ("senet18", {"classes": 1000, "stem": "imagenet"}, 11_689_512 + 2 * sum(c * c // 8 + c // 16 + c for c in C18)),
    # 61.1 million: the convolutions by hand, then 6 x 6 pixels to 4096, 4096 and 1000 units
    ("alexnet", {"layer": plain_layer, "classes": 1000, "image_size": 224}, 61_100_840),
    ("wrn28_10", {"depth": 16, "widening": 4}, 2_749_786),
    ("resnet32", {"preactivation": True}, 464_154),
    ("resnet32", {"norm_first": True}, 464_154),  # the stem's norm has moved to the head
    ("resnet110", {"norm_first": True, "width": 0.5}, 434_290),
    *(("resnet32", {"width": 2.28, "preactivation": early}, 2_402_073) for early in (False, True)),  # Sedghi et al.
    ("resnet110", {"width": 0.5}, 434_290),
    ("cnn9", {"layer": plain_layer}, 1_923_914 - 3 * (64 + 128 + 256)),  # a bias in place of the norm
    ("cnn9", {"in_channels": 1, "classes": 7}, 1_923_914 - 2 * 64 * 9 - 3 * 257),
    ("cnn9", {"widths": (5, 7, 11)}, 4_911),
    ("vgg11", {"width": 0.5}, 2_310_186),
    ("resnet18", {"width": 0.5}, 2_797_610),
]


@pytest.mark.parametrize("name, options, number", PARAMETERS)
def test_parameters_are_as_many_as_published_and_as_widths_channels_classes_and_layers_cost(name, options, number):
    assert count(name, **options) == number


@pytest.mark.parametrize("depth, widening", [(28, 10), (16, 4), (10, 1)])
def test_a_published_wide_network_has_the_parameters_of_its_table(depth, widening):
    """Zagoruyko & Komodakis, table 1: 3 x 3 convolutions; BatchNorm, 2 numbers a channel, on each one's inputs."""
    number, c_in = 3 * 16 * 9, 16
    for c_out in (16 * widening, 32 * widening, 64 * widening):
        number += 0 if c_in == c_out else c_in * c_out  # the shortcut
        for _ in range((depth - 4) // 6):
            number += 9 * c_in * c_out + 2 * c_in + 9 * c_out**2 + 2 * c_out
            c_in = c_out
    number += 2 * c_in + 10 * c_in + 10
    assert count("wrn28_10", depth=depth, widening=widening, norm_first=True) == number


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
def test_layers_have_readable_names_and_padding_that_keeps_the_size(name):
    model, seen = calls(name)
    allowed = {"stem", *(f"conv{i}" for i in range(1, 14)), "shortcut"}
    assert {child.split(".")[-1] for child, m in model.named_modules() if hasattr(m, "number")} <= allowed
    assert all(call["padding"] == call["kernel_size"] // 2 for call in seen)


PIXELS = {"cnn9": 8, "vgg11": 1, "vgg16": 1, "resnet32": 8, "resnet110": 8, "wrn28_10": 8, "regnetx_200mf": 8}
PIXELS["alexnet"] = 3


@names
def test_the_last_map_has_the_published_size(name):
    model, _ = calls(name)
    before = model[: [child for child, _ in model.named_children()].index("average")]
    out = before(torch.empty(1, 3, 32, 32, device="meta"))
    assert tuple(out.shape[2:]) == (PIXELS.get(name, 4),) * 2
    if name == "alexnet":
        large, seen = calls(name, image_size=224)
        assert seen[0] == seen[0] | {"c_in": 3, "c_out": 64, "kernel_size": 11, "stride": 4, "padding": 2}
        before = large[: [child for child, _ in large.named_children()].index("average")]
        assert tuple(before(torch.empty(1, 3, 224, 224, device="meta")).shape[1:]) == (256, 6, 6)
        assert tuple(before(torch.empty(1, 3, 63, 63, device="meta")).shape[1:]) == (256, 1, 1)
        assert large.smallest == 63
    if name in ("resnet18", "senet18"):
        large, seen = calls(name, stem="imagenet")
        assert seen[0] == seen[0] | {"c_in": 3, "c_out": 64, "kernel_size": 7, "stride": 2, "padding": 3}
        assert tuple(large[:-3](torch.empty(1, 3, 224, 224, device="meta")).shape[1:]) == (512, 7, 7)
    if name == "resnet50":
        large, seen = calls(name, image_size=224)
        assert seen[0] == seen[0] | {"c_in": 3, "c_out": 64, "kernel_size": 7, "stride": 2, "padding": 3}
        assert tuple(large[:-3](torch.empty(1, 3, 224, 224, device="meta")).shape[1:]) == (2048, 7, 7)


def test_depth_is_measured_on_the_path_of_a_wide_network_of_other_depth():
    _, seen = calls("wrn28_10", depth=10, widening=1)
    assert (seen[0]["depth"], seen[-1]["depth"]) == pytest.approx((1 / 7, 1))


def test_the_last_layer_of_a_block_is_told_so_by_networks_whose_factory_asks():
    seen = []

    def layer(*args, depth, last_of_block=False, blocks=0, **geometry):
        seen.append((args[2], last_of_block, blocks))
        return plain_layer(*args, depth=depth, **geometry)

    def half(*args, depth, last_of_block=False, **geometry):
        seen.append((args[2], last_of_block))
        return plain_layer(*args, depth=depth, **geometry)

    with torch.device("meta"):
        build_model("resnet50", layer=layer)
        assert [ends for _, ends, _ in seen if ends] == [True] * 16
        assert {(size, blocks) for size, ends, blocks in seen if ends} == {(1, 16)}
        assert {blocks for _, ends, blocks in seen if not ends} == {0}  # the shortcuts, too
        seen.clear()
        build_model("cnn9", layer=layer)
        assert {(ends, blocks) for _, ends, blocks in seen} == {(False, 0)}
        seen.clear()
        build_model("resnet32", layer=half)
    assert [ends for _, ends in seen] == [False] + 15 * [False, True]


def test_the_parts_of_a_factory_are_told_where_they_stand():
    seen = []

    def conv(c_in, c_out, kernel_size, stride, padding, dilation, groups, place):
        seen.append(("conv", c_out, place))
        return nn.Conv2d(c_in, c_out, kernel_size, stride, padding, dilation, groups)

    def norm(channels, place):
        seen.append(("norm", channels, place))

    with torch.device("meta"):
        model = build_model(
            "wrn28_10", layer=ConvAndNorm(conv, norm), depth=10, widening=2, norm_first=True, dtype=torch.float64
        )
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert seen[:6] == [
        ("conv", 16, Place(1 / 7)),
        ("norm", 16, Place(1 / 7, before=True)),
        ("conv", 32, Place(2 / 7)),
        ("norm", 32, Place(2 / 7, 3, before=True)),
        ("conv", 32, Place(3 / 7, 3)),
        ("conv", 32, Place(3 / 7)),  # the shortcut, without a normalization
    ]
    assert seen[-1] == ("norm", 128, Place(1.0, before=True))
    assert [kind for kind, *_ in seen].count("norm") == 7
    seen.clear()
    ConvAndNorm(conv, norm)(3, 4, (3, 3, 3)[:2], depth=0.5, last_of_block=True, blocks=5)
    assert seen == [("conv", 4, Place(0.5, 5)), ("norm", 4, Place(0.5, 5))]
