"""The networks' parameters are as many as published, and their layers lie where the papers put them."""

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


PUBLISHED = {  # by the papers' tables; in millions as papers or their common CIFAR implementations print it
    "cnn9": (1_923_914, None),  # not printed
    "resnet18": (11_173_962, "11.17"),
    "resnet32": (464_154, "0.46"),  # He et al., table 6
    "resnet110": (1_727_962, "1.7"),  # He et al., table 6
    "wrn28_10": (36_481_434, "36.5"),  # Zagoruyko and Komodakis, table 5
    "vgg11": (9_228_362, "9.23"),
    "vgg16": (14_724_042, "14.7"),
    "senet18": (11_263_042, "11.26"),
    "regnetx_200mf": (2_321_946, "2.32"),
    "resnet50": (23_520_842, "23.52"),
}
OTHERS = [  # name, options, parameters
    ("resnet50", {"classes": 1000, "image_size": 224}, 25_557_032),  # that of ImageNet
    ("wrn28_10", {}, 36_479_194 + 2 * (160 + 320 + 640)),  # published with no norms in its three shortcuts
    ("wrn28_10", {"depth": 16, "widening": 4}, 2_749_786),
    *(("resnet32", {"preactivation": early}, 464_154) for early in (False, True)),
    *(("resnet32", {"width": 2.25, "preactivation": early}, 2_340_334) for early in (False, True)),
    *(("resnet32", {"width": 2.28, "preactivation": early}, 2_402_073) for early in (False, True)),  # Sedghi et al.
    *(("resnet110", {"width": 0.5, "preactivation": early}, 434_290) for early in (False, True)),
    ("cnn9", {"layer": plain_layer}, 1_923_914 - 3 * (64 + 128 + 256)),  # a bias in place of the norm
    ("cnn9", {"in_channels": 1, "classes": 7}, 1_923_914 - 2 * 64 * 9 - 3 * 257),
    ("cnn9", {"widths": (5, 7, 11)}, 4_911),
    ("vgg11", {"width": 0.5}, 2_310_186),
    ("vgg16", {"width": 0.5}, 3_684_842),
    ("resnet18", {"width": 0.5}, 2_797_610),
    ("senet18", {"width": 0.5}, 2_820_390),
]


@names
def test_parameters_are_as_many_as_the_publication_says(name):
    number, millions = PUBLISHED[name]
    assert count(name) == number
    if millions:
        decimals = len(millions.split(".")[1])
        assert f"{number / 1e6:.{decimals}f}" == millions


@pytest.mark.parametrize("name, options, number", OTHERS)
def test_width_channels_classes_and_layers_cost_what_they_must(name, options, number):
    assert count(name, **options) == number


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
def test_layers_have_readable_names_padding_that_keeps_the_size_and_strides_in_the_first_block_of_a_stage(name):
    model, seen = calls(name)
    allowed = {"stem", *(f"conv{i}" for i in range(1, 14)), "shortcut"}
    named = {child: seen[m.number] for child, m in model.named_modules() if hasattr(m, "number")}
    assert {child.split(".")[-1] for child in named} <= allowed
    assert all(call["padding"] == call["kernel_size"] // 2 for call in named.values())
    strided = [child for child, call in named.items() if call["stride"] == 2 and not child.endswith("shortcut")]
    assert strided == STRIDES.get(name, [])
    assert max(call["stride"] for call in seen) == (2 if name in STRIDES else 1)


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
    assert (seen[0]["depth"], seen[-1]["depth"]) == pytest.approx((1 / 7, 1))
