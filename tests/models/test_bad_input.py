"""What a network leaves out it says, and what it cannot be built for or fed with it refuses in words."""

import pytest
import torch

from convkit.models import batchnorm_layer, build_model, plain_layer
from convkit.models.network import Assembly
from tests.helpers.image_models import IMAGE_MODELS
from tests.helpers.refusals import refused

names = pytest.mark.parametrize("name", IMAGE_MODELS)


# ---- what is left out is said --------------------------------------------------------------------------------------
@pytest.mark.parametrize("size, left_out", [(8, [4, 5]), (16, [5]), (28, [5]), (32, [])])
@pytest.mark.parametrize("name", ["vgg11", "vgg16"])
def test_poolings_that_no_longer_fit_are_left_out_and_said(name, size, left_out):
    model = build_model(name, image_size=size, width=0.1)
    assert model.notes == [
        f"Image size {size}: pool{i} is left out, since it would meet a single pixel." for i in left_out
    ]
    assert [i for i in range(1, 6) if not hasattr(model, f"pool{i}")] == left_out


def test_other_departures_are_said_and_only_those():
    with torch.device("meta"):
        said = {name: builder().notes for name, builder in IMAGE_MODELS.items()}
        assert {name for name, notes in said.items() if notes} == {"wrn28_10", "senet18", "resnet50", "alexnet"}
        assert "pre-activated" in said["senet18"][0]
        for name in ("wrn28_10", "senet18", "resnet32"):
            assert build_model(name, layer=batchnorm_layer, norm_first=True).notes == []
        assert "behind its convolution" in said["wrn28_10"][0]
        assert build_model("resnet32", preactivation=True).notes == said["wrn28_10"]
        assert "Image size 32: the stem is 3 x 3" in said["resnet50"][0]
        assert build_model("resnet50", image_size=64).notes == []
        assert build_model("resnet50", image_size=63).notes != []


# ---- bad input -----------------------------------------------------------------------------------------------------
def test_an_unknown_name_is_answered_with_the_nearest():
    refused("MODELS has no 'resnet-18'; near it: .*resnet18", build_model, "resnet-18")


@names
@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 7}, "image_size must be a whole number of at least 8, got 7"),
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1, got 0"),
        ({"classes": 0}, "classes must be a whole number of at least 1, got 0"),
        ({"mean": [0.5] * 3}, "mean and std go together"),
        ({"std": [0.5] * 3}, "mean and std go together"),
        ({"mean": [0.5], "std": [0.5]}, "one number for each of 3 channels, got 1 and 1"),
        ({"mean": [0.5] * 3, "std": [0.5, 0, 0.5]}, "std must be a positive number, got 0.0; measure it"),
        ({"mean": [0.5, float("nan"), 0.5], "std": [0.5] * 3}, "mean must be a finite number, got nan; measure it"),
    ],
)
def test_what_no_network_can_be_built_for_is_refused(name, options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_model(name, **options)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("cnn9", {"widths": (4, 4)}, "three groups"),
        ("cnn9", {"widths": 4}, "widths must be numbers in a list or a tuple, got 4"),
        ("cnn9", {"widths": (4, 0, 4)}, "each of widths must be a whole number of at least 1, got 0"),
        ("resnet18", {"width": 0}, "width must be a positive number"),
        ("resnet18", {"stem": "large"}, "stem must be 'small' or 'imagenet', got 'large'"),
        ("wrn28_10", {"depth": 27}, "4 more than a multiple of 6, got 27; use 22"),
        ("wrn28_10", {"widening": 0}, "widening must be"),
        *((name, {"norm_first": True}, "one without the other, got .*plain_layer") for name in ("wrn28_10", "senet18")),
    ],
)
def test_options_that_make_no_network_are_refused(name, options, message):
    refused(message, build_model, name, **options)


@names
def test_images_of_another_kind_are_refused_before_the_first_layer(name):
    with torch.device("meta"):
        model = build_model(name)
    for shape in ((2, 1, 32, 32), (3, 32, 32), (2, 3), (2, 32, 32, 3)):
        refused(r"needed a batch of images \(batch, 3, height, width\)", model, torch.rand(shape, device="meta"))
    if name.startswith("vgg"):
        refused("at least 32 x 32 pixels", model, torch.rand(2, 3, 32, 31, device="meta"))


def test_an_assembly_with_a_wrong_number_of_layers_does_not_finish():
    net = Assembly(2, plain_layer, in_channels=3, image_size=8)
    net.convolution("conv1", 4)
    refused("needed 2 layers, got 1", net.finish, error=RuntimeError)
