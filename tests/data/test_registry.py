"""Data sets: what is offline, batches, stratified parts, and label noise at the rate that its name says."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from convkit.data import DATA, Data, Loader, digits, holdout, load, noisy_labels, scarce, shapes, subset, unused
from convkit.data.catalog import CIFAR10
from convkit.data.figures import FIGURES
from tests.helpers.refusals import refused


def made(count: int = 600, classes: int = 5, seed: int = 0, names: tuple[str, ...] | None = None) -> Data:
    """Random images, whose first pixel tells which one each is, and labels of very uneven frequency."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count + 40, 2, 3, 3), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count + 40) % 256, torch.arange(count + 40) // 256
    labels = (torch.rand(count + 40, generator=generator).square() * classes).long()
    names = names or tuple(f"class {index}" for index in range(classes))
    return Data("made", images[:count], labels[:count], images[count:], labels[count:], names)


def identities(images: Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()).tolist()


# ---- what comes with the kit ---------------------------------------------------------------------------------------
def test_digits_are_all_of_them_split_the_same_way_every_time():
    data = digits()
    assert (len(data), len(data.test_images), data.in_channels, data.image_size, data.classes) == (1437, 360, 1, 8, 10)
    again = digits()
    assert torch.equal(data.images, again.images)
    assert torch.equal(data.test_labels, again.test_labels)
    total = torch.cat([data.labels, data.test_labels]).bincount()
    assert total.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of the 1797
    assert ((data.test_labels.bincount() - total / 5).abs() < 1).all()  # a fifth of each class
    rows = torch.cat([data.images, data.test_images]).flatten(1)
    assert len(rows.unique(dim=0)) == 1797  # no image on both sides
    assert repr(data) == "Data(digits: 1,437 training and 360 test images, 1 × 8 × 8, 10 classes, on cpu)"


def test_shapes_are_colored_balanced_and_follow_the_seed_alone():
    data = shapes(count=120, test_count=50)
    assert (data.images.shape, data.images.dtype, data.class_names) == ((120, 3, 32, 32), torch.uint8, FIGURES)
    assert data.labels.view(-1, 10).sort(1).values.eq(torch.arange(10)).all()  # each ten in a row hold every class
    assert not data.labels.view(-1, 10).eq(torch.arange(10)).all()
    again, longer, other = shapes(120, 50), shapes(1037, 13), shapes(120, 50, seed=1)
    assert torch.equal(data.images, again.images)
    assert torch.equal(data.images, longer.images[:120])  # also across the pieces it is drawn in
    assert torch.equal(data.labels, longer.labels[:120])
    assert not torch.equal(data.images, other.images)
    assert not torch.equal(data.images[:50], data.test_images)


def test_neither_its_color_nor_single_pixels_tell_what_a_shape_is():
    data = shapes(count=1500, test_count=500)
    x, test = data.images.float().div(255), data.test_images.float().div(255)

    def nearest_class(features: Tensor, tests: Tensor) -> float:
        means = torch.stack([features[data.labels == k].mean(0) for k in range(10)])
        return (torch.cdist(tests, means).argmin(1) == data.test_labels).float().mean().item()

    assert nearest_class(x.mean((2, 3)), test.mean((2, 3))) < 0.3
    assert nearest_class(x.flatten(1), test.flatten(1)) < 0.3


def test_every_figure_is_drawn_with_its_own_outline_and_soft_edges():
    from convkit.data.figures import _DISTANCES

    y, x = torch.meshgrid(*[(torch.arange(400) - 199.5) / 160] * 2, indexing="ij")
    areas = [(figure(x, y) < 0).double().mean().item() * 6.25 for figure in _DISTANCES]
    star = 10 * 0.5 * 0.42 * math.sin(math.pi / 5)
    known = {"disc": math.pi * 0.85**2, "ring": math.pi * (0.89**2 - 0.51**2), "square": 1.48**2, "star": star}
    known |= {"triangle": 3 * math.sqrt(3) / 4, "cross": 2 * 1.9 * 0.54 - 0.54**2, "stripes": 3 * 1.7 * 0.34}
    for name, area in known.items():
        assert areas[FIGURES.index(name)] == pytest.approx(area, rel=0.02), name
    assert min(areas) > 0.8
    for figure in _DISTANCES:  # a distance, and no steeper than one, so that an edge is about a pixel wide
        value = figure(x, y)
        slopes = torch.stack([value.diff(dim=0)[:, :-1], value.diff(dim=1)[:-1]]).norm(dim=0) * 160
        assert slopes.quantile(0.99) < 1.05


# ---- batches -------------------------------------------------------------------------------------------------------
def test_batches_are_float_in_0_1_on_the_device_of_the_data(device):
    data = made().to(device)
    indices = torch.tensor([5, 1, 5])
    for where in (indices, indices.to(device), [5, 1, 5]):
        x, y = data.train_batch(where)
        assert (x.dtype, y.dtype, x.device.type, y.device.type) == (torch.float32, torch.int64, *[device.type] * 2)
        assert_close(x.cpu() * 255, made().images[indices].float())
        assert torch.equal(y.cpu(), made().labels[indices])
        assert torch.equal(data.train_batch(where, seed=7)[0], x)  # nothing is random about images in memory
    x, y = data.test_batch(slice(3, 10))
    assert_close(x.cpu() * 255, made().test_images[3:10].float())
    assert torch.equal(y.cpu(), made().test_labels[3:10])
    assert data.images.dtype == torch.uint8


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_mean_and_std_are_those_of_all_training_pixels_of_a_channel(device, scale):
    data = made().to(device)
    x = data.images.double() / 255
    assert data.mean == pytest.approx(x.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(x.std((0, 2, 3), correction=0).tolist())
    floats = replace(data, images=(x * scale).float(), test_images=data.test_images / 255)
    assert floats.mean == pytest.approx((x * scale).mean((0, 2, 3)).tolist())
    assert floats.std == pytest.approx((x * scale).std((0, 2, 3), correction=0).tolist())
    for images, value in ((data.images.clone(), 26), (floats.images, 0.1)):
        images[:, 1] = value
        assert replace(data, images=images, test_images=images[:40]).std[1] == 1.0  # and not 0, of a constant one


# ---- parts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 3, 50, 173, 600])
def test_a_subset_is_as_even_as_the_data_allow_and_part_of_every_larger_one(device, count):
    data = made().to(device)
    available = data.labels.bincount(minlength=5)
    part = subset(data, count, test_count=7)
    got = part.labels.bincount(minlength=5)
    assert (len(part), len(part.test_images)) == (count, 7)
    short = got < got.max() - 1  # fewer than another class by more than one: only because there are no more
    assert torch.equal(got[short], available[short])
    kept = identities(part.images)
    assert kept == sorted(set(kept))
    assert torch.equal(part.labels, data.labels[torch.tensor(kept, device=data.device)])
    assert set(kept) <= set(identities(subset(data, min(600, count + 20)).images))
    assert kept == identities(subset(data, count).images)
    assert count == 600 or kept != identities(subset(data, count, seed=1).images)
    assert len(subset(data, count).test_images) == 40


@pytest.mark.parametrize("count", [1, 250, 599])
def test_the_unused_images_are_none_of_the_subset_and_have_clean_labels(device, count):
    data = made().to(device)
    part = unused(noisy_labels(data, 0.5, seed=1), count, seed=2, most=300)
    assert identities(part.images) == identities(subset(data, count, seed=2).images)
    others = identities(part.test_images)
    assert not set(others) & set(identities(part.images))
    assert len(others) == min(300, 600 - count)
    assert torch.equal(part.test_labels, data.labels[torch.tensor(others, device=data.device)])
    refused("count must be a whole number from 1 to 599", unused, data, 600)


def test_scarce_takes_the_first_share_of_each_class():
    data = shapes(count=200, test_count=10)
    assert scarce(data, 0.3).labels.bincount().tolist() == [6] * 10
    assert set(scarce(made(), 0.2).labels.bincount().tolist()) == {24}  # 0.2 * 600 / 5
    all_of_some = scarce(made(), 1.0).labels.bincount()
    assert torch.equal(all_of_some, made().labels.bincount().clamp(max=120))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_holdout_splits_every_class_in_the_same_proportion_and_leaves_the_test_images_alone(device, fraction):
    data = made().to(device)
    part = holdout(data, fraction)
    assert len(part.test_images) == round(fraction * 600)
    assert sorted(identities(part.images) + identities(part.test_images)) == list(range(600))
    shares = part.test_labels.bincount(minlength=5) / data.labels.bincount(minlength=5)
    assert ((shares - fraction).abs() * data.labels.bincount(minlength=5) <= 1).all()
    assert identities(part.test_images) == identities(holdout(data, fraction).test_images)
    assert identities(part.test_images) != identities(holdout(data, fraction, seed=1).test_images)


def test_what_is_done_to_a_batch_does_not_reach_the_data_and_names_tell_what_was_done_to_a_set():
    data = digits()
    before = data.images.clone()
    for where in (slice(0, 4), [0, 1], torch.arange(3)):
        data.train_batch(where)[0].add_(1)
    assert torch.equal(data.images, before)
    name = noisy_labels(holdout(subset(made(), 200), 0.2), 0.4).name
    assert name == "made, subset of 200, held out 0.2, uniform label noise 0.4"


# ---- label noise ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_a_uniform_redraw_flips_less_than_its_rate_and_a_flip_all_of_it(device, rate):
    data = made(count=6000).to(device)
    wrong = (noisy_labels(data, rate).labels != data.labels).sum().item()
    redrawn = round(rate * 6000)
    assert abs(wrong - redrawn * 0.8) < 4 * math.sqrt(redrawn * 0.8 * 0.2)  # four standard deviations of a binomial
    assert (noisy_labels(data, rate, "flip").labels != data.labels).sum().item() == redrawn


@pytest.mark.parametrize("kind, others", [("uniform", 5), ("flip", 4)])
def test_the_new_labels_of_every_class_are_spread_evenly(kind, others):
    data = made(count=20_000)
    table = torch.zeros(5, 5).index_put((data.labels, noisy_labels(data, 1.0, kind).labels), torch.ones(()), True)
    expected = table.sum(1, keepdim=True) / others
    expected = expected if kind == "uniform" else expected * (1 - torch.eye(5))
    assert ((table - expected).abs() <= 4.5 * expected.sqrt()).all()


def test_asymmetric_noise_confuses_the_look_alikes_of_cifar10_and_the_next_class_elsewhere():
    names = CIFAR10.class_names
    data = made(count=6000, classes=10, names=names)
    noisy = noisy_labels(data, 0.3, "asymmetric")
    changed = noisy.labels != data.labels
    pairs = {
        (names[a], names[b]) for a, b in zip(data.labels[changed].tolist(), noisy.labels[changed].tolist(), strict=True)
    }
    alike = [("bird", "airplane"), ("cat", "dog"), ("deer", "horse"), ("dog", "cat"), ("truck", "automobile")]
    assert sorted(pairs) == alike
    for a, _ in alike:
        of_it = data.labels == names.index(a)
        assert abs(changed[of_it].sum().item() - 0.3 * of_it.sum().item()) <= 1
    other = made(count=600)
    assert torch.equal(noisy_labels(other, 1.0, "asymmetric").labels, (other.labels + 1) % 5)


@pytest.mark.parametrize("kind", ["uniform", "flip", "asymmetric"])
def test_noise_follows_the_seed_spares_the_test_labels_and_keeps_the_right_ones(device, kind):
    data = made().to(device)
    before = data.labels.clone()
    noisy = noisy_labels(data, 0.4, kind)
    assert torch.equal(noisy.labels, noisy_labels(data, 0.4, kind).labels)
    assert not torch.equal(noisy.labels, noisy_labels(data, 0.4, kind, seed=1).labels)
    assert torch.equal(noisy.test_labels, data.test_labels)
    assert torch.equal(data.labels, before)
    assert torch.equal(noisy.clean_labels, before)
    assert torch.equal(data.clean_labels, before)
    part = holdout(subset(noisy, 300), 0.2).to("cpu")  # the right labels go along, and those held out are right
    for images, labels in ((part.images, part.clean_labels), (part.test_images, part.test_labels)):
        assert torch.equal(labels, before.cpu()[identities(images)])
    assert (part.labels != part.clean_labels).float().mean().item() == pytest.approx(0.35, abs=0.15)
    assert torch.equal(noisy_labels(data, 0.0, kind).labels, before)


# ---- bad input -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": torch.rand(600, 2, 3, 3) - 0.1}, r"images in \[0, 1\]"),
        ({"images": torch.full((600, 2, 3, 3), torch.nan)}, r"images in \[0, 1\], got nan"),
        ({"images": torch.zeros(600, 2, 3, 3, dtype=torch.float64)}, "uint8 or float32 images, got torch.float64"),
        ({"images": torch.rand(600, 2, 3, 4)}, "channels, size, size"),
        ({"images": torch.rand(600, 3, 3)}, "channels, size, size"),
        ({"images": torch.rand(0, 2, 3, 3)}, "channels, size, size"),
        ({"test_images": torch.rand(40, 1, 3, 3)}, "of one shape"),
        ({"labels": torch.zeros(599, dtype=torch.int64)}, "600 int64 labels, got torch.int64 .599"),
        ({"test_labels": torch.zeros(40)}, "40 int64 labels, got torch.float32"),
        ({"labels": torch.full((600,), 5)}, r"the training part needs labels 0 .. 4, got 5 .. 5"),
        ({"test_labels": torch.full((40,), -1)}, r"the test part needs labels 0 .. 4, got -1 .. -1"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(changes, message):
    refused(message, replace, made(), **changes)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda data: subset(data, 0), "^count must be a whole number from 1 to 600, got 0; "),
        (lambda data: subset(data, 5, test_count=41), "test_count must be a whole number from 1 to 40, got 41; "),
        (lambda data: scarce(data, 1.1), "share must be a number from 0 to 1, got 1.1; "),
        (lambda data: scarce(data, 0.001), "leaves none"),
        (lambda data: holdout(data, 1.0), "must be a whole number from 1 to 599, got 600; "),
        (lambda data: holdout(data, -0.1), "fraction must be a number from 0 to 1, got -0.1; "),
        (lambda data: noisy_labels(data, 1.1), "rate must be a number from 0 to 1, got 1.1; "),
        (lambda data: noisy_labels(data, 0.1, "symmetric"), "kinds uniform, flip, asymmetric; got 'symmetric'"),
        (lambda data: noisy_labels(noisy_labels(data, 0.1), 0.1), "needs right labels"),
        (lambda data: shapes(0), "at least one image of each part, got 0"),
        (lambda data: load("cifar-10"), "DATA has no 'cifar-10'; near it: cifar10, cifar100"),
        (lambda data: load("digits", "somewhere"), "takes no folder, got 'somewhere'"),
    ],
)
def test_impossible_requests_are_refused_in_a_sentence(call, message):
    refused(message, call, made())


def test_data_sets_load_by_name_also_from_outside(monkeypatch, tmp_path):
    def stored(folder, count=600):
        return replace(made(count), name=f"stored in {folder}")

    assert list(DATA) == ["digits", "shapes", "mnist", "cifar10", "cifar100", "solids", "modelnet40"]
    assert torch.equal(load("digits").images, digits().images)
    assert len(load("shapes", count=30, test_count=10)) == 30
    assert {name for name, loader in DATA.items() if loader.offline} == {"digits", "shapes", "solids"}
    monkeypatch.setattr(DATA, "_entries", dict(DATA))
    DATA.register("stored", Loader(stored))
    DATA.register("made", Loader(made, offline=True))
    assert load("stored", tmp_path, count=30).name == f"stored in {tmp_path}"
    assert load("stored").name == "stored in None"  # where there is nothing in a folder, it may be downloaded
    assert len(load("made", count=50)) == 50
    refused("made needs no files and takes no folder", load, "made", tmp_path)
