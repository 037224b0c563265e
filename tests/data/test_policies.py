"""Policies of Fast AutoAugment: each operation against integer arithmetic on bytes, the file, and whole batches."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Generator

pytest.importorskip("PIL")
from PIL import Image

from convkit.data import digits, shapes, subset
from convkit.data.augmentation import AUGMENTATIONS, augment, cutout, random_crop, random_flip
from convkit.data.policies import MIRRORED, RANGES, Policy, apply_operation, read_policy, with_policy
from convkit.methods.build import network
from convkit.training.loop import fit
from tests.helpers.refusals import refused

HEIGHT, WIDTH = 31, 22  # enough pixels for Equalize to do something
LEVELS = (0.0, 0.13, 0.37, 0.5, 0.62, 0.91, 1.0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def pictures():
    """Random bytes: of all values, of few and dark ones, constant, and smooth."""
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 4)[..., None] + np.array([0, 20, 40])
    few = random.integers(0, 256, (HEIGHT, WIDTH, 3)) // 64 * 20
    return [p.astype(np.uint8) for p in (random.integers(0, 256, (HEIGHT, WIDTH, 3)), few, 0 * few + 77, smooth)]


# ---- the operations, written out -------------------------------------------------------------------------------------
def nearest(image, row):
    """Each pixel from where ``row``, the six numbers of an affine map, sends its center, in steps of 1 / 65536."""
    a, b, c, d, e, f = row
    scaled = [math.floor(v * 65536 + 0.5) for v in (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)]
    result = np.zeros_like(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            across = (scaled[0] * x + scaled[1] * y + scaled[2]) >> 16
            down = (scaled[3] * x + scaled[4] * y + scaled[5]) >> 16
            if 0 <= across < WIDTH and 0 <= down < HEIGHT:
                result[y, x] = image[down, across]
    return result


def rotated(image, degrees):
    angle = -math.radians(degrees)  # about the middle
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = WIDTH / 2, HEIGHT / 2
    return nearest(image, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))


def gray(image):
    weights = np.array([19595, 38470, 7471])
    return ((image.astype(np.int64) @ weights + 32768) >> 16).astype(np.uint8)


def blended(other, image, factor):
    """From the other image to this one and beyond, in float32, cut off to whole numbers."""
    first = other.astype(np.float32)
    mixed = first + np.float32(factor) * (image.astype(np.float32) - first)
    return np.trunc(np.clip(mixed, 0, 255)).astype(np.uint8)


def smoothed(image):
    result, wide = image.copy(), image.astype(np.int64)
    for y in range(1, HEIGHT - 1):
        for x in range(1, WIDTH - 1):
            around = wide[y - 1 : y + 2, x - 1 : x + 2].sum((0, 1)) + 4 * wide[y, x]
            result[y, x] = (2 * around + 13) // 26  # rounded: 13 is the sum of the weights
    return result


def stretched(image):
    low, high = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
    channels = []
    for channel, dark, bright in zip(np.moveaxis(image, 2, 0), low, high, strict=True):
        if bright <= dark:
            channels.append(channel)
            continue
        factor = 255 / (bright - dark)
        table = [min(255, max(0, int(i * factor - dark * factor))) for i in range(256)]
        channels.append(np.array(table, np.uint8)[channel])
    return np.stack(channels, 2)


def equalized(image):
    channels = []
    for channel in np.moveaxis(image, 2, 0):
        counts = np.bincount(channel.flatten(), minlength=256)
        used = counts[counts > 0]
        step = (used.sum() - used[-1]) // 255
        if len(used) <= 1 or not step:
            channels.append(channel)
            continue
        table = (step // 2 + np.cumsum(counts) - counts) // step
        channels.append(np.minimum(table, 255).astype(np.uint8)[channel])
    return np.stack(channels, 2)


WRITTEN = {
    "ShearX": lambda image, v: nearest(image, (1, v, 0, 0, 1, 0)),
    "ShearY": lambda image, v: nearest(image, (1, 0, 0, v, 1, 0)),
    "TranslateX": lambda image, v: nearest(image, (1, 0, v * WIDTH, 0, 1, 0)),
    "TranslateY": lambda image, v: nearest(image, (1, 0, 0, 0, 1, v * HEIGHT)),
    "Rotate": rotated,
    "AutoContrast": lambda image, v: stretched(image),
    "Invert": lambda image, v: 255 - image,
    "Equalize": lambda image, v: equalized(image),
    "Solarize": lambda image, v: np.where(image < v, image, 255 - image),
    "Posterize": lambda image, v: image & (256 - 2 ** (8 - int(v))),
    "Contrast": lambda image, v: blended(np.full_like(image, int(gray(image).mean() + 0.5)), image, v),
    "Color": lambda image, v: blended(np.repeat(gray(image)[..., None], 3, 2), image, v),
    "Brightness": lambda image, v: blended(np.zeros_like(image), image, v),
    "Sharpness": lambda image, v: blended(smoothed(image), image, v),
}
FLOATS = ("Contrast", "Color", "Brightness", "Sharpness")  # a fused multiply-add may round to the next whole number


def test_the_ranges_are_those_of_the_released_code():
    assert list(RANGES) == [*WRITTEN, "Cutout"]
    assert [RANGES[name] for name in ("ShearX", "TranslateY", "Rotate")] == [(-0.3, 0.3), (-0.45, 0.45), (-30, 30)]
    assert [RANGES[name] for name in ("Solarize", "Posterize", "Cutout")] == [(0, 256), (4, 8), (0, 0.2)]
    assert {RANGES[name] for name in FLOATS} == {(0.1, 1.9)}
    assert set(MIRRORED) == {name for name, (low, _) in RANGES.items() if low < 0}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", WRITTEN)
def test_each_operation_is_its_arithmetic_on_bytes(name, level):
    low, high = RANGES[name]
    changed = 0
    for picture in pictures():
        for mirrored in (False, True) if name in MIRRORED else (False,):
            value = (low + level * (high - low)) * (-1 if mirrored else 1)
            found = np.asarray(apply_operation(Image.fromarray(picture), name, level, mirrored))
            expected = WRITTEN[name](picture, value)
            apart = np.abs(found.astype(int) - expected)
            if name in FLOATS:
                assert apart.max() <= 1
                assert (apart > 0).mean() < 0.02
            else:
                assert not apart.any()
            changed += int((found != picture).sum())
    assert changed > 0 or (name, level) in {
        *((moving, 0.5) for moving in (*MIRRORED, *FLOATS)),
        *(("Posterize", 1.0), ("Solarize", 1.0)),
    }


@pytest.mark.parametrize("level", LEVELS)
def test_the_square_of_cutout_lies_where_the_released_code_puts_it(level):
    side = 0.2 * level * WIDTH
    for picture in pictures():
        for across, down in ((0.0, 0.0), (0.5, 0.4), (0.98, 0.99)):
            expected = picture.copy()
            left, top = (int(max(0, part * n - side / 2)) for part, n in ((across, WIDTH), (down, HEIGHT)))
            right, bottom = int(min(WIDTH, left + side)), int(min(HEIGHT, top + side))  # both are covered
            if side > 0:
                expected[top : bottom + 1, left : right + 1] = (125, 123, 114)
            found = apply_operation(Image.fromarray(picture), "Cutout", level, center=(across, down))
            assert np.array_equal(np.asarray(found), expected)


# ---- whole batches ---------------------------------------------------------------------------------------------------
SEARCHED = [
    [["Invert", 0.4, 0.9], ["Rotate", 0.7, 0.2]],
    [["Color", 0.9, 0.8], ["Cutout", 0.8, 0.95]],
    [["Posterize", 1.0, 0.1], ["TranslateX", 0.6, 0.9], ["Sharpness", 0.5, 0.0]],
]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_its_images_one_by_one_with_one_sub_policy_each(device, channels):
    bytes_ = torch.randint(0, 256, (60, channels, HEIGHT, WIDTH), generator=seeded(1)).to(torch.uint8)
    x = (bytes_.float() / 255).to(device)
    before = x.clone()
    found = Policy(SEARCHED)(x, seeded())
    draws = torch.rand((60, 1 + 4 * 3), generator=seeded(), dtype=torch.float32).tolist()
    counts = dict.fromkeys(("untouched", "Rotate", "mirrored"), 0)
    for image, bytes_of_it, (which, *rest) in zip(found.cpu(), bytes_, draws, strict=True):
        picture = bytes_of_it.permute(1, 2, 0).numpy().repeat(4 - channels if channels == 1 else 1, 2)
        picture, happened = Image.fromarray(picture), 0
        for i, (name, chance, level) in enumerate(SEARCHED[int(3 * which)]):
            apply, sign, across, down = rest[4 * i : 4 * i + 4]
            if apply < chance:
                happened += 1
                mirrored = name in MIRRORED and sign > 0.5
                counts["Rotate"] += name == "Rotate"
                counts["mirrored"] += mirrored
                picture = apply_operation(picture, name, level, mirrored, (across, down))
        counts["untouched"] += happened == 0
        picture = picture.convert("L") if channels == 1 else picture
        expected = torch.from_numpy(np.asarray(picture).reshape(HEIGHT, WIDTH, channels).copy()).permute(2, 0, 1)
        assert torch.equal(image, expected.float() / 255)
    assert min(counts.values()) > 0
    assert torch.equal(x, before)
    assert (found.dtype, found.device) == (x.dtype, x.device)
    assert torch.equal(found, Policy(SEARCHED)(x, seeded()))
    assert not torch.equal(found, Policy(SEARCHED)(x, seeded(1)))


def test_probabilities_are_kept_and_an_image_that_nothing_happens_to_is_not_rounded(device):
    x = torch.rand(600, 1, 4, 5, generator=seeded()).to(device)
    assert torch.equal(Policy([[["Invert", 0.0, 0.0]]])(x), x)
    touched = (Policy([[["Invert", 0.3, 0.0]]])(x, seeded()) != x).flatten(1).any(1)
    assert abs(int(touched.sum()) - 180) < 4 * math.sqrt(600 * 0.3 * 0.7)
    inverted = Policy([[["Invert", 1.0, 0.0]]])(x.double())
    assert inverted.dtype == torch.float64
    assert float((inverted - (1 - x.double())).abs().max()) <= 0.5 / 255 + 1e-6
    left = Policy([[["TranslateX", 1.0, 1.0]]])(torch.ones(600, 1, 4, 5).to(device), seeded())[:, 0, 0, -1] == 0
    assert abs(int(left.sum()) - 300) < 4 * math.sqrt(150)  # half of them, to either side


# ---- the file --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SEARCHED),
        repr(SEARCHED),
        "\n[[('Invert', 0.4, 0.9), ('Rotate', 0.7, 0.2)],  # tuples, a comment\n" + repr(SEARCHED[1:])[1:] + "\n",
    ],
    ids=["JSON", "Python", "tuples"],
)
def test_a_policy_is_read_as_json_or_as_python_writes_it(text, tmp_path):
    path = tmp_path / "policy.txt"
    path.write_text(text, "utf-8")
    policy = read_policy(path)
    assert policy == Policy(SEARCHED)
    assert policy.choices[2][1] == ("TranslateX", 0.6, 0.9)


@pytest.mark.parametrize(
    "text, words",
    [
        ("p = [[['Invert', 0.1, 0.2]]]", "leave out what stands around the list"),
        ("", "a list of sub-policies alone.*begins with ''"),
        ("[['Invert', 0.1, 0.2]]", "one of ShearX.*Cutout, got 'Invert' in sub-policy 0"),
        ("[]", "at least one of each"),
        ("[[]]", "at least one of each"),
        ("3", "at least one of each, got 3"),
        ("[[['Invert', 0.1, 0.2]], [['Rotat', 0.1, 0.2]]]", "got ..Rotat., 0.1, 0.2. in sub-policy 1"),
        ("[[['Invert', 0.1]]]", "got ..Invert., 0.1. in sub-policy 0"),
        ("[[['Invert', 1.1, 0.2]]]", "numbers from 0 to 1"),
        ("[[['Invert', 0.1, 7]]]", "numbers from 0 to 1"),
        ("[[['Invert', 0.1, True]]]", "numbers from 0 to 1"),
        ("[[['Invert', 0.1, 'x']]]", "numbers from 0 to 1"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_in_one_sentence(text, words, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(text, "utf-8")
    refused(f"policy.json must (hold|be|have) .*{words}", read_policy, path)


def test_a_policy_takes_images_of_one_or_three_channels():
    refused("1 or 3 channels, got .2, 4, 5, 6.", Policy(SEARCHED), torch.rand(2, 4, 5, 6))
    refused("a policy must have", Policy, [[("Invert", math.nan, 0.5)]])
    with pytest.raises(FileNotFoundError):
        read_policy("there is none")


# ---- in a run --------------------------------------------------------------------------------------------------------
def test_a_policy_comes_first_and_trains_by_its_name(device, monkeypatch, tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(SEARCHED), "utf-8")
    policy = read_policy(path)
    monkeypatch.setattr(AUGMENTATIONS, "_entries", dict(AUGMENTATIONS))
    AUGMENTATIONS.register("policy+crop+flip+cutout", with_policy(policy))
    data = shapes(30, 10).to(device)
    x, _ = data.train_batch(slice(0, 20))
    generator = seeded()
    expected = random_flip(random_crop(policy(x, generator), x.shape[-1] // 8, generator), generator)
    expected = cutout(expected, x.shape[-1] // 2, generator, data.mean)
    assert torch.equal(augment("policy+crop+flip+cutout", data)(x, seeded()), expected)
    refused("needs the mean color of the data", augment, "policy+crop+flip+cutout")
    data = subset(digits(), 40).to(device)
    model = network("cnn9", data, "plain", widths=(2, 2, 2))
    options = {"steps": 2, "batch_size": 8, "augmentation": "policy+crop+flip+cutout"}
    assert len(list(fit(model, data, "plain", **options))) == 2
