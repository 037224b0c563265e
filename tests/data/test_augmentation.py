"""Augmentations: whole batches against one image at a time, the shares they promise, and the same draws everywhere."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.testing import assert_close

from convkit.data import digits, shapes, subset
from convkit.data.augmentation import AUGMENTATIONS, OPERATIONS, augment, auto_augment, cutout, random_crop, random_flip
from convkit.methods.build import network
from convkit.training.loop import fit
from tests.helpers.refusals import refused


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def batch(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=seeded(7))


# ---- crop ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape, padding", [((40, 3, 9, 7), 2), ((6, 1, 4, 4), 4), ((5, 2, 3, 6), 0)])
def test_a_crop_equals_the_crop_of_one_image_after_another(device, shape, padding):
    x = batch(*shape).to(device)
    y = random_crop(x, padding, seeded())
    down, right = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=seeded()).tolist()
    padded = F.pad(x, [padding] * 4)
    _, _, height, width = shape
    for i, (a, b) in enumerate(zip(down, right, strict=True)):
        assert torch.equal(y[i], padded[i, :, a : a + height, b : b + width])
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)


# ---- flip ----------------------------------------------------------------------------------------------------------
def test_a_flip_done_twice_with_one_seed_is_none_and_half_of_the_images_are_flipped(device):
    x = batch(1000, 2, 3, 4).to(device)
    y = random_flip(x, seeded())
    assert torch.equal(random_flip(y, seeded()), x)
    flipped = (y == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(y[~flipped], x[~flipped])
    assert abs(flipped.sum().item() - 500) < 4 * math.sqrt(250)


# ---- cutout --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_replaces_one_square_by_the_mean_color_and_nothing_else(device, size):
    x = batch(3000, 3, 12, 10).to(device)
    y = cutout(x, size, seeded())
    cut = (y != x).any(1)
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    assert torch.equal(y, torch.where(cut[:, None], mean, x))
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(cut.sum((1, 2)), rows * columns)  # a rectangle
    for length, sides in ((12, rows), (10, columns)):
        assert sides.max() == size
        # the center is any pixel: size // 2 of them lie before it, so that the border cuts some squares short
        expected = sum(min(c - size // 2 + size, length) - max(c - size // 2, 0) for c in range(length)) / length
        assert sides.double().mean().item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_cutout_writes_zeros_after_normalization(device, dtype):
    data = shapes(40, 10).to(device)
    mean, std = (torch.tensor(moment, device=device).view(1, 3, 1, 1) for moment in (data.mean, data.std))
    x = data.train_batch(slice(0, 40))[0].to(dtype)
    y = augment("crop+flip+published cutout", data)(x, seeded())
    by_hand = augment("crop+flip", data)(x, generator := seeded())
    height, width = x.shape[2:]
    top, left = (torch.randint(0, side, (40, 1, 1, 1), generator=generator).to(device) for side in (height, width))
    normalized = (by_hand - mean) / std
    for i in range(40):
        rows = slice(max(0, int(top[i]) - height // 4), int(top[i]) + height // 4)
        columns = slice(max(0, int(left[i]) - width // 4), int(left[i]) + width // 4)
        normalized[i, :, rows, columns] = 0
    assert y.dtype == dtype
    assert_close((y - mean) / std, normalized.to(dtype), atol=1e-6, rtol=0)
    assert_close(cutout(x, 6, seeded(), data.mean), cutout(x, 6, seeded(), mean.flatten()), atol=1e-7, rtol=0)


# ---- the policy ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
def test_auto_augment_stays_in_range_and_varies_with_image_and_seed(device, channels):
    x = batch(1, channels, 16, 16).repeat(200, 1, 1, 1).to(device)
    y = auto_augment(x, seeded())
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    assert y.isfinite().all()
    assert 0 <= y.min() <= y.max() <= 1
    assert len(y.flatten(1).cpu().unique(dim=0)) > 150
    assert torch.equal(y, auto_augment(x, seeded()))
    assert not torch.equal(y, auto_augment(x, seeded(1)))
    assert torch.equal(auto_augment(x, seeded(), rounds=0), x)


def test_every_image_gets_one_operation_a_round_with_its_own_strength(device):
    x = batch(60, 3, 8, 8).to(device)
    for rounds in (1, 2):
        y = auto_augment(x, seeded(), rounds=rounds)
        generator = seeded()
        expected = x
        for _ in range(rounds):
            choice = torch.randint(0, len(OPERATIONS), (60,), generator=generator).tolist()
            strength = (torch.rand(60, 1, 1, 1, generator=generator) * 2 - 1).to(device)
            pairs = zip(choice, expected.split(1), strength.split(1), strict=True)
            expected = torch.cat([list(OPERATIONS.values())[one](z, s).clamp(0, 1) for one, z, s in pairs])
        apart = (y - expected).abs() > 1e-5
        assert apart.float().mean() <= 0.01 * (rounds - 1)  # thresholds of a second round turn a rounding into a step


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_treats_each_image_alone_and_does_what_it_is_called(device, name):
    x = batch(8, 3, 15, 15).to(device) * 0.8 + 0.1
    strengths = torch.linspace(-0.9, 0.9, 8, device=device).view(-1, 1, 1, 1)
    y = OPERATIONS[name](x, strengths).clamp(0, 1)
    alone = torch.cat([OPERATIONS[name](x[i : i + 1], strengths[i : i + 1]).clamp(0, 1) for i in range(8)])
    assert_close(y, alone)
    assert torch.equal(y, x) == (name == "identity")
    if name not in ("autocontrast", "equalize", "posterize", "solarize"):  # these have no strength that does nothing
        assert_close(OPERATIONS[name](x, torch.zeros_like(strengths)), x, atol=2e-6, rtol=0)


def test_the_geometric_operations_move_by_what_their_strength_says(device):
    x = batch(2, 2, 20, 20).to(device)
    one = torch.ones(2, 1, 1, 1, device=device)
    right = torch.cat([x[..., 6:], torch.zeros_like(x[..., :6])], -1)  # 0.6 of half the width: 6 of 20 pixels
    assert_close(OPERATIONS["shift x"](x, one), right, atol=1e-5, rtol=0)
    assert_close(OPERATIONS["shift y"](x.mT, one), right.mT, atol=1e-5, rtol=0)
    assert_close(OPERATIONS["shear y"](x.mT, 0.7 * one), OPERATIONS["shear x"](x, 0.7 * one).mT, atol=1e-5, rtol=0)
    ramp = torch.linspace(0.2, 0.8, 20, device=device).expand(2, 2, 20, 20)
    turned = ramp
    for _ in range(3):  # 30 degrees each: blurred on the way, so on a smooth image, and away from the corners
        turned = OPERATIONS["rotate"](turned, one)
    middle = (slice(None), slice(None), slice(6, 14), slice(6, 14))
    assert_close(turned[middle], ramp.rot90(1, (2, 3))[middle], atol=0.01, rtol=0)


def test_the_photometric_operations_have_their_defining_property(device):
    x = batch(4, 3, 10, 10).to(device) * 0.5 + 0.2
    one = torch.ones(4, 1, 1, 1, device=device)
    assert_close(OPERATIONS["brightness"](x, -one), 0.1 * x)
    gray = OPERATIONS["saturation"](x, -one / 0.9)
    assert_close(gray, x.mean(1, keepdim=True).expand_as(x))
    flat = OPERATIONS["contrast"](x, -one / 0.9)
    assert_close(flat, x.mean((1, 2, 3), keepdim=True).expand_as(x))
    for bits, strength in ((2, -1), (5, 1)):
        assert len(OPERATIONS["posterize"](batch(1, 1, 90, 90), torch.full((1, 1, 1, 1), strength)).unique()) == 2**bits
    assert_close(OPERATIONS["solarize"](x, -one), 1 - x)
    stretched = OPERATIONS["autocontrast"](x, one)
    assert_close(stretched.amin((2, 3)), torch.zeros(4, 3, device=device))
    assert_close(stretched.amax((2, 3)), torch.ones(4, 3, device=device))
    levels = OPERATIONS["equalize"](x.square(), one).flatten(2).sort(-1).values
    assert_close(levels, torch.linspace(0, 1, 100, device=device).expand_as(levels))  # every value once: all as often
    for name in ("autocontrast", "equalize"):
        assert_close(OPERATIONS[name](torch.full_like(x, 0.3), one), torch.full_like(x, 0.3))


# ---- all of them ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "turn+jitter"])  # of clouds
@pytest.mark.parametrize("shape", [(12, 3, 32, 32), (12, 1, 8, 8)])
def test_a_seed_of_the_cpu_gives_the_same_images_on_every_device_and_leaves_the_batch_alone(device, name, shape):
    x = batch(*shape).to(device)
    before = x.clone()
    data = (shapes(20, 10) if shape[1] == 3 else subset(digits(), 40)).to(device)
    y = augment(name, data)(x, seeded(3))
    assert torch.equal(x, before)
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    assert 0 <= y.min() <= y.max() <= 1
    apart = (y.cpu() - augment(name, data.to("cpu"))(before.cpu(), seeded(3))).abs() > 1e-5
    assert apart.float().mean() <= (0.01 if name == "auto" else 0)  # its thresholds turn a rounding into a step
    assert torch.equal(y, x) == (name == "none")
    assert augment(name, data)(x).shape == shape  # with torch's own generator


def test_the_names_say_which_steps_are_taken_and_a_generator_on_the_device_is_drawn_from_there(device):
    x = batch(5, 3, 32, 32).to(device)
    first, second = (augment("auto")(x, Generator(device).manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    generator = seeded()
    expected = cutout(random_flip(random_crop(x, 4, generator), generator), 16, generator)
    assert torch.equal(augment("crop+flip+cutout")(x, seeded()), expected)
    for shorter, longer in pairwise(["none", "crop", "crop+flip", "crop+flip+cutout"]):
        assert AUGMENTATIONS[longer][:-1] == AUGMENTATIONS[shorter]
    assert auto_augment in AUGMENTATIONS["auto"]


def test_bad_requests_are_refused():
    x = batch(2, 1, 4, 4)
    refused("AUGMENTATIONS has no 'flip'; near it: crop", augment, "flip")
    refused("padding must be a whole number of at least 0, got -1", random_crop, x, -1)
    refused("size must be a whole number of at least 1, got 0; leave", cutout, x, 0)
    refused("fill must have one number per channel, 1, got shape .3,.", cutout, x, 2, fill=[0.1, 0.2, 0.3])
    refused("needs the mean color of the data; use augment", augment, "crop+flip+published cutout")
    for wrong in (1.5, True, np.float32("nan"), [2]):
        refused("random_crop's padding must be a whole number", random_crop, x, wrong)
        refused("cutout's size must be a whole number", cutout, x, wrong)
        refused("auto_augment's rounds must be a whole number", auto_augment, x, rounds=wrong)


def test_an_augmentation_from_outside_is_used_by_its_name(device, monkeypatch):
    seen = []

    def dark(x, generator):
        assert generator.device.type == x.device.type
        seen.append(torch.rand((), generator=generator, device=x.device).item())
        return x / 2

    monkeypatch.setattr(AUGMENTATIONS, "_entries", dict(AUGMENTATIONS))
    AUGMENTATIONS.register("dark", (dark, dark))
    x = batch(2, 1, 8, 8).to(device)
    assert torch.equal(augment("dark")(x, Generator(device).manual_seed(0)), x / 4)
    seen.clear()
    data = subset(digits(), 40).to(device)
    model = network("cnn9", data, "plain", widths=(2, 2, 2))
    assert len(list(fit(model, data, "plain", steps=2, batch_size=8, augmentation="dark"))) == 2
    assert len(set(seen)) == len(seen) == 4  # each batch has random numbers of its own


@pytest.mark.parametrize("name", ["crop", "crop+flip", "auto"])
def test_augmentations_of_images_refuse_clouds(name):
    with pytest.raises(ValueError, match=r"needs images .* got shape \(2, 3, 30\); for clouds of points use"):
        augment(name)(torch.rand(2, 3, 30))
