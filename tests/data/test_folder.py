"""Images in class folders: what is read and how it is cropped, by Pillow by hand, and training that can be resumed."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from convkit.data import DATA, FolderData, Loader, holdout, load, noisy_labels, scarce, subset
from convkit.data.folder import MEAN, STD, Files, random_box
from convkit.methods import network
from convkit.training import cross_entropy, evaluate, fit
from tests.helpers.refusals import refused

CLASSES = ("ant", "bee", "cat", "dog")
SIZES = ((30, 20), (21, 34), (25, 25), (40, 18))  # width and height
SMALL = {"size": 8, "resize": 12}


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture: blotches on a ramp, so that JPEG keeps it, whose left differs from its right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Forty JPEGs of four classes, seven for training and three for testing each, gray and CMYK ones among them."""
    root = tmp_path_factory.mktemp("pets")
    for part, count in (("train", 7), ("val", 3)):
        for label, name in enumerate(CLASSES):
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                mode = {5: "L", 6: "CMYK"}.get(number, "RGB")
                image = picture(*SIZES[(label + number) % 4], 100 * label + number + 50 * (part == "val"), mode)
                image.save(place / f"{number}.{('jpg', 'JPEG', 'jpeg')[number % 3]}", quality=95)
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()
    return root


@pytest.fixture
def data(folder, device) -> FolderData:
    return FolderData.read(folder, **SMALL).to(device)


def by_hand(path: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> torch.Tensor:
    """The image resized to ``size`` (width, height), then cropped."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR).crop(box))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


# ---- reading -------------------------------------------------------------------------------------------------------
def test_classes_are_folders_and_images_are_listed_class_by_class(folder):
    data = FolderData.read(folder, **SMALL)
    assert data.class_names == CLASSES
    assert data.labels.tolist() == [label for label in range(4) for _ in range(7)]
    assert data.test_labels.tolist() == [label for label in range(4) for _ in range(3)]
    names = ["0.jpg", "1.JPEG", "2.jpeg", "3.jpg", "4.JPEG", "5.jpeg", "6.jpg"]
    assert data.images.paths[:7] == tuple(str(folder / "train" / "ant" / name) for name in names)
    assert all(
        f"val/{CLASSES[label]}/" in Path(path).as_posix()
        for path, label in zip(data.test_images.paths, data.test_labels, strict=True)
    )
    assert repr(data) == (
        f"FolderData({folder.name}, 8 × 8: 28 training and 12 test images, 3 × 8 × 8, 4 classes, on cpu)"
    )
    assert (data.in_channels, data.image_size, data.classes, len(data)) == (3, 8, 4, 28)
    assert (data.mean, data.std) == (list(MEAN), list(STD))
    other = FolderData.read(folder, "pets", mean=[0.5] * 3, std=np.array([0.2, 0.3, 0.4]))
    assert (other.name, other.image_size, other.mean, other.std) == ("pets", 224, [0.5] * 3, [0.2, 0.3, 0.4])


def test_a_folder_named_test_is_taken_where_there_is_no_val(folder, tmp_path):
    (tmp_path / "train").symlink_to(folder / "train")
    (tmp_path / "test").symlink_to(folder / "val")
    assert len(FolderData.read(tmp_path).test_labels) == 12


def test_test_images_are_resized_and_cropped_as_pillow_does_by_hand(data, device):
    wanted = {  # size of the file: its size with a shorter side of 12, and the central 8 x 8 of that
        (30, 20): ((18, 12), (5, 2, 13, 10)),
        (21, 34): ((12, 19), (2, 6, 10, 14)),  # 19.43 pixels are 19; their center begins at 5.5, which is 6
        (25, 25): ((12, 12), (2, 2, 10, 10)),
        (40, 18): ((26, 12), (9, 2, 17, 10)),
    }
    x, y = data.test_batch(slice(None))
    assert (x.shape, x.dtype, x.device.type, y.device.type) == ((12, 3, 8, 8), torch.float32, device.type, device.type)
    assert x.is_contiguous()
    seen = set()
    for path, row in zip(data.test_images.paths, x.cpu(), strict=True):
        with Image.open(path) as image:
            size = image.size
        seen.add(size)
        assert torch.equal(row, by_hand(path, *wanted[size]))
    assert seen == set(wanted)
    some, labels = data.test_batch(torch.tensor([7, -12, 7]))
    assert torch.equal(some, x[[7, 0, 7]])
    assert torch.equal(labels, y[[7, 0, 7]])
    plain = data.train_batch([3, 1])[0].cpu()  # without a seed, training images are read in the same way
    assert torch.equal(plain[1], by_hand(data.images.paths[1], *wanted[SIZES[1]]))


# ---- random crops --------------------------------------------------------------------------------------------------
def test_training_images_are_random_boxes_resized_by_pillow_and_half_of_them_mirrored(folder):
    data = FolderData.read(folder, **SMALL)
    mirrored = 0
    for seed in range(60):
        x, _ = data.train_batch([9], seed)
        random = np.random.default_rng((seed, 9))
        with Image.open(data.images.paths[9]) as image:
            box = random_box(*image.size, random)
            crop = np.asarray(image.convert("RGB").crop(box).resize((8, 8), Image.Resampling.BILINEAR))
        wanted = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255
        assert torch.equal(x[0], wanted) or torch.equal(x[0], wanted.flip(-1))
        mirrored += torch.equal(x[0], wanted.flip(-1))
    assert 18 <= mirrored <= 42  # four standard deviations about a half


def test_boxes_lie_in_the_image_with_the_areas_and_ratios_of_inception_and_reach_all_of_it():
    width, height, random = 400, 300, np.random.default_rng(0)
    boxes = np.array([random_box(width, height, random) for _ in range(3000)])
    left, top, right, bottom = boxes.T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, width, height)
    w, h = right - left, bottom - top
    area, ratio = w * h / (width * height), w / h
    assert 0.078 < area.min() < 0.1
    assert 0.9 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.345
    small = area < 0.3  # these always fit, so that nothing is drawn twice
    assert area[small].mean() == pytest.approx(0.19, abs=0.01)  # uniform
    assert np.log(ratio[small]).mean() == pytest.approx(0, abs=0.02)  # uniform in the logarithm
    assert (left / np.maximum(1, width - w))[small].mean() == pytest.approx(0.5, abs=0.03)
    assert random_box(1000, 5, random) == (496, 0, 503, 5)  # too long for any: the largest in the middle, 4 to 3
    assert random_box(5, 1000, random) == (0, 496, 5, 503)  # 3 to 4
    assert random_box(1, 1, random) == (0, 0, 1, 1)


def test_a_crop_depends_on_the_seed_and_the_image_alone(data):
    x, y = data.train_batch(torch.arange(28), 5)
    some, labels = data.train_batch([20, 3, 20], 5)
    assert torch.equal(some, x[[20, 3, 20]])
    assert torch.equal(labels, y[[20, 3, 20]])
    torch.manual_seed(77)  # also not on the global generators
    assert torch.equal(data.train_batch([3], 5)[0], x[[3]])
    for seed in (6, -1, 2**63 - 1):
        assert (data.train_batch(torch.arange(28), seed)[0] != x).flatten(1).any(1).sum() > 24


# ---- training ------------------------------------------------------------------------------------------------------
def plan(**options) -> dict:
    return {"steps": 10, "batch_size": 7, "seed": 3, "evaluate_every": 5, "knobs": {"lr": 0.05}} | options


def small_network(data: FolderData) -> torch.nn.Module:
    return network("cnn9", data, "batchnorm", seed=1, widths=(4, 5, 6))


def test_epochs_see_other_crops_and_replays_the_same(data):
    batches = []

    def spy(model, x, y):
        batches.append(x.cpu())
        return cross_entropy(model, x, y)

    for _ in fit(small_network(data), data, "batchnorm", objective=spy, **plan(steps=8, evaluate_every=0)):
        pass
    plain = data.train_batch(slice(None))[0].cpu()
    epochs = torch.cat(batches[:4]), torch.cat(batches[4:])
    for first, second in (epochs, (epochs[0], plain), (epochs[1], plain)):
        alike = (first[:, None] == second).flatten(2).all(2)
        assert alike.sum() <= 2  # of 28 images, hardly any is cropped in the same way
    spy.replays = 2
    batches.clear()
    for _ in fit(small_network(data), data, "batchnorm", objective=spy, **plan(steps=4, evaluate_every=0)):
        pass
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[1], batches[2])


def test_training_goes_on_bit_for_bit_where_it_was_stopped(data, tmp_path):
    whole = small_network(data)
    history = list(fit(whole, data, "batchnorm", **plan()))
    assert [record.test_accuracy is not None for record in history] == 2 * [*4 * [False], True]
    file = tmp_path / "run.pt"
    begun = fit(small_network(data), data, "batchnorm", checkpoint=file, **plan())
    for _ in range(6):  # into the second epoch
        next(begun)
    begun.close()
    second = small_network(data)
    assert list(fit(second, data, "batchnorm", checkpoint=file, **plan())) == history
    for one, other in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert evaluate(second, data, batch_size=5) == history[-1].test_accuracy
    assert_close(whole[0].mean.flatten().cpu(), torch.tensor(MEAN))  # the first step of the network
    other_size = FolderData.read(Path(data.images.paths[0]).parents[2], size=9, resize=12).to(data.device)
    refused("belongs to another run: its data", fit, second, other_size, "batchnorm", checkpoint=file, **plan())


def test_top_5_counts_an_image_as_right_if_its_class_is_among_the_five_largest_logits(data):
    class Fixed(torch.nn.Module):
        """Logits by the color of the image alone."""

        def forward(self, x):
            red, green, blue = x.mean((2, 3)).unbind(1)
            return torch.stack([red, green, blue, torch.full_like(red, 0.4)], 1)

    x, y = data.test_batch(slice(None))
    rows = Fixed()(x).tolist()
    found = [
        sorted(range(4), key=lambda k, row=row: -row[k]).index(label)
        for row, label in zip(rows, y.tolist(), strict=True)
    ]
    shares = [evaluate(Fixed(), data, batch_size=5, top=top) for top in (1, 2, 3, 4)]
    assert shares == [sum(place < top for place in found) / 12 for top in (1, 2, 3, 4)]
    assert evaluate(Fixed(), data) == shares[0] < shares[1] < shares[3] == 1
    for top in (0, 5, 1.5):
        refused(f"top must be a whole number from 1 to 4, got {top}", evaluate, Fixed(), data, top=top)


# ---- parts ---------------------------------------------------------------------------------------------------------
def test_parts_and_label_noise_work_as_for_images_in_memory(data):
    few = subset(data, 8, seed=1, test_count=4)
    assert len(few) == len(few.images) == 8
    assert few.labels.bincount().tolist() == [2] * 4
    assert few.test_labels.bincount().tolist() == [1] * 4
    assert set(few.images.paths) < set(data.images.paths)
    assert few.name == f"{data.name}, subset of 8"
    assert (few.image_size, few.resize, few.device.type) == (8, 12, data.device.type)
    assert scarce(data, 0.3).labels.bincount().tolist() == [2] * 4
    held = holdout(data, 0.25)
    assert {*held.images.paths, *held.test_images.paths} == set(data.images.paths)
    assert held.test_labels.bincount().tolist() in ([2, 2, 2, 1], [2, 2, 1, 2], [2, 1, 2, 2], [1, 2, 2, 2])
    where = data.images.paths.index(held.test_images.paths[2])
    assert torch.equal(held.test_batch([2])[0], data.train_batch([where])[0])
    noisy = noisy_labels(data, 0.5, "flip")
    assert (noisy.labels != data.labels).sum() == 14
    assert torch.equal(noisy.clean_labels, data.labels)
    assert noisy.images is data.images


def test_a_folder_loads_by_name_once_it_is_registered(monkeypatch, folder):
    monkeypatch.setattr(DATA, "_entries", dict(DATA))
    DATA.register("imagenet", Loader(FolderData.read))
    assert load("imagenet", folder, size=9).image_size == 9
    assert len(load("imagenet", folder, name="imagenet").images) == 28


# ---- errors --------------------------------------------------------------------------------------------------------
def test_a_folder_that_does_not_fit_is_a_sentence_with_what_is_there(folder, tmp_path):
    missing = {"error": FileNotFoundError}
    refused(r"needed .*nowhere/train with a folder .* got no such folder in", FolderData.read, "nowhere", **missing)
    (tmp_path / "images").mkdir()
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    refused("needed .*train with .*, got a.jpg, b.jpg, c.jpg and 2 more in", FolderData.read, tmp_path, **missing)
    (tmp_path / "train").mkdir()
    refused("got nothing in .*train; name the folder", FolderData.read, tmp_path, **missing)
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir()
    refused("needed .*val or .*test with a folder of images for each class", FolderData.read, tmp_path, **missing)
    for name in ("bee", "cow"):
        (tmp_path / "val" / name).mkdir(parents=True)
    refused("same classes, got ant in .*train alone and cow in .*val alone; add", FolderData.read, tmp_path)
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "val" / "ant").mkdir()
    (tmp_path / "train" / "ant" / "text.txt").write_text("")
    refused(r"needed images \(.jpeg, .jpg, .png\) in .*ant, got text.txt; add", FolderData.read, tmp_path, **missing)


@pytest.mark.parametrize("content", ["text", "half", "none", "16 bits"])
def test_a_file_that_cannot_be_read_is_named(folder, tmp_path, content):
    data = FolderData.read(folder, **SMALL)
    path = tmp_path / "broken.jpg"
    if content == "16 bits":  # which Pillow would make white
        Image.fromarray(np.full((9, 9), 5000, dtype=np.uint16)).save(path, "PNG")
    elif content != "none":
        half = Path(data.images.paths[4]).read_bytes()
        path.write_bytes(b"no image at all" if content == "text" else half[: len(half) // 2])
    paths = [*data.images.paths]
    paths[4] = str(path)
    data = replace(data, images=Files(paths))
    data.train_batch([3, 5], 0)
    message = rf"the image {path} cannot be read \(.*\): it is missing, damaged or no image"
    refused(message, data.train_batch, [3, 4, 5], 0)
    refused(message, data.train_batch, [4])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"size": 9, "resize": 8}, "resize must be a whole number of at least 9, got 8; size is cropped from it"),
        ({"mean": [0.5, 0.5]}, "3 channels, got 2 and 3; give three of each"),
        ({"std": [0.5, 0.0, 0.5]}, "each number of std must be a positive number, got 0.0"),
        ({"mean": [math.nan, 0, 0]}, "each number of mean must be a finite number, got nan"),
    ],
)
def test_impossible_settings_are_refused(folder, options, message):
    refused(message, FolderData.read, folder, **options)


def test_labels_that_do_not_fit_the_files_are_refused(data):
    refused("training part needs 28 int64 labels", replace, data, labels=data.labels[:5])
    refused(
        "test part needs labels 0 .. 3, got 4 .. 4", replace, data, test_labels=torch.full_like(data.test_labels, 4)
    )
    refused("training part needs Files, at least one", replace, data, images=Files([]), labels=data.labels[:0])
    refused("training part needs Files", replace, data, images=torch.zeros(28, 3, 8, 8))
