"""Point clouds: uniform by area on every solid, turned and seeded, ModelNet40's files to the number, and damage."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from convkit.data import Clouds, augment, holdout, jittered, load, modelnet40, noisy_labels, solids, subset, turn
from convkit.data.clouds import MODELNET40, MODELNET40_CLASSES
from convkit.data.surfaces import HEIGHT, RADIUS, SOLIDS, TUBE, surface
from tests.helpers.refusals import refused

MANY = 40_000
NEAR = 4 / MANY**0.5  # eight standard errors of a share
U = torch.linspace(0, 1, 201, dtype=torch.float64)


def drawn(kind):
    return surface(kind, torch.rand(MANY, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))


def uniform(values, low=0.0, high=1.0):
    """Assert that the values are uniform between two limits."""
    values = (values - low) / (high - low)
    assert 0 <= values.min() <= values.max() <= 1 + 1e-9
    assert ((values[:, None] <= U).double().mean(0) - U).abs().max() < NEAR


# ---- surfaces --------------------------------------------------------------------------------------------------------
def test_a_sphere_has_uniform_height_on_every_axis():
    p = drawn("sphere")
    assert_close(p.norm(dim=1), torch.ones(MANY, dtype=torch.float64))
    for axis in p.unbind(1):
        uniform(axis, -1, 1)  # Archimedes


def test_cylinder_and_cone_have_the_shares_of_their_parts_and_each_part_is_uniform():
    for kind in ("cylinder", "cone"):
        x, y, z = drawn(kind).unbind(1)
        r = torch.hypot(x, y)
        floor, top = z == -HEIGHT / 2, (z == HEIGHT / 2) & (kind == "cylinder")
        slope = HEIGHT if kind == "cylinder" else math.hypot(RADIUS, HEIGHT)
        wall, disc = (2 if kind == "cylinder" else 1) * math.pi * RADIUS * slope, math.pi * RADIUS**2
        for disk in (floor, top)[: 2 if kind == "cylinder" else 1]:
            assert disk.double().mean() == pytest.approx(
                disc / (wall + (2 if kind == "cylinder" else 1) * disc), abs=NEAR
            )
            uniform(r[disk].square()[:MANY], 0, RADIUS**2)
        on = ~(floor | top)
        uniform(torch.atan2(y, x)[on], -math.pi, math.pi)
        if kind == "cylinder":
            assert_close(r[on], torch.full_like(r[on], RADIUS))
            uniform(z[on], -HEIGHT / 2, HEIGHT / 2)
        else:
            assert_close(r[on], (HEIGHT / 2 - z[on]) * RADIUS / HEIGHT)
            uniform(r[on].square(), 0, RADIUS**2)


def test_a_torus_has_more_area_outside_than_inside():
    x, y, z = drawn("torus").unbind(1)
    off = torch.hypot(x, y) - 1
    assert_close(torch.hypot(off, z), torch.full_like(z, TUBE))
    assert (off > 0).double().mean() == pytest.approx(0.5 + TUBE / math.pi, abs=NEAR)  # by Pappus
    angle = torch.atan2(z, off) % (2 * math.pi)
    uniform((angle + TUBE * angle.sin()) / (2 * math.pi))  # its distribution by area
    uniform(torch.atan2(y, x), -math.pi, math.pi)


FLAT = {  # normals and areas of the faces
    "cube": ([s * torch.eye(3, dtype=torch.float64)[i] for i in range(3) for s in (-1, 1)], [4.0] * 6),
    "tetrahedron": (
        [-torch.tensor(t, dtype=torch.float64) for t in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))],
        [1.0] * 4,
    ),
    "octahedron": (
        [torch.tensor([a, b, c], dtype=torch.float64) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)],
        [1.0] * 8,
    ),
    "prism": (
        [torch.tensor([0, 0, s], dtype=torch.float64) for s in (-1, 1)]
        + [
            torch.tensor([2 * math.cos(a), 2 * math.sin(a), 0], dtype=torch.float64)
            for a in (math.pi / 3, math.pi, -math.pi / 3)
        ],
        [3 * 3**0.5 / 4] * 2 + [2 * 3**0.5] * 3,
    ),
}


@pytest.mark.parametrize("kind", FLAT)
def test_solids_with_flat_faces_have_points_on_each_by_area_and_uniform_on_it(kind):
    p, (normals, areas) = drawn(kind), FLAT[kind]
    shares = torch.tensor(areas, dtype=torch.float64) / sum(areas)
    heights = p @ torch.stack(normals).T
    assert_close(heights.amax(1), torch.ones(MANY, dtype=torch.float64))  # every point on a face, none outside
    faces = heights.argmax(1)
    assert ((torch.bincount(faces, minlength=len(areas)) / MANY) - shares).abs().max() < NEAR
    for face in range(len(areas)):
        own = p[faces == face]
        # the mean is the middle of the face, and no smaller part of it is empty: halves toward each corner
        corners = [c for c in _corners(kind) if abs(float(c @ normals[face]) - 1) < 1e-9]
        middle = torch.stack(corners).mean(0)
        assert (own.mean(0) - middle).abs().max() < 3 * len(own) ** -0.5
        spread = (own - middle).square().sum(1).mean()
        assert spread == pytest.approx(_spread(torch.stack(corners), middle), rel=0.1)


def _corners(kind):
    if kind == "prism":
        flat = [(math.cos(2 * math.pi * i / 3), math.sin(2 * math.pi * i / 3)) for i in range(3)]
        return [torch.tensor([*c, h], dtype=torch.float64) for c in flat for h in (-1.0, 1.0)]
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0, 1.0], dtype=torch.float64)] * 3)
    ones = grid.abs().sum(1)
    chosen = {"cube": ones == 3, "octahedron": ones == 1, "tetrahedron": (ones == 3) & (grid.prod(1) == 1)}[kind]
    return list(grid[chosen])


def _spread(corners, middle):
    """The mean square distance from the middle: of a triangle a twelfth of the corners' sum, of a rectangle a third."""
    squares = (corners - middle).square().sum(1)
    return float(squares.sum() / 12 if len(corners) == 3 else squares.mean() / 3)


# ---- solids ----------------------------------------------------------------------------------------------------------
def test_solids_are_balanced_centered_in_the_unit_ball_and_follow_the_seed_alone():
    data = solids(64, 24, points=50, jitter=0)
    assert (data.images.shape, data.images.dtype, data.class_names) == ((64, 3, 50), torch.float32, SOLIDS)
    assert data.labels.view(-1, 8).sort(1).values.eq(torch.arange(8)).all()  # each eight in a row hold every class
    assert_close(data.images.mean(2), torch.zeros(64, 3), atol=1e-6, rtol=0)
    assert_close(data.images.norm(dim=1).amax(1), torch.ones(64))
    again, longer, other = solids(64, 24, 50, 0), solids(203, 24, 50, 0), solids(64, 24, 50, 0, seed=1)
    assert torch.equal(data.images, again.images)
    assert torch.equal(data.images, longer.images[:64])
    assert torch.equal(data.labels, longer.labels[:64])
    assert not torch.equal(data.images, other.images)
    assert not torch.equal(data.images[:24], data.test_images)
    moved = solids(64, 24, 50, jitter=0.1).images - data.images
    assert moved.std() == pytest.approx(0.1, rel=0.05)
    assert load("solids", count=8, test_count=8).name == "solids"


def test_solids_stand_upright_and_are_turned_by_uniform_angles():
    data = solids(8 * 500, 8, points=40, jitter=0)
    cubes = data.images[data.labels == SOLIDS.index("cube")].double()
    assert (
        (cubes.abs().amax(2)[:, 1] - 3**-0.5).abs() < 0.2
    ).double().mean() > 0.97  # faces above and below, at 1 / sqrt(3) of the corners' distance
    flat = torch.hypot(cubes[:, 0], cubes[:, 2])
    far = cubes.gather(2, flat.argmax(1)[:, None, None].expand(-1, 3, 1))[..., 0]  # near an upright edge
    angle = torch.atan2(far[:, 2], far[:, 0])
    share = (((angle + math.pi) / (2 * math.pi))[:, None] <= U).double().mean(0)
    assert (share - U).abs().max() < 2 / len(angle) ** 0.5
    cones = data.images[data.labels == SOLIDS.index("cone")]
    assert (cones[:, 1].amax(1) > -cones[:, 1].amin(1)).double().mean() > 0.99  # the tip is up, far from the mean


def test_clouds_are_data_with_points_for_pixels(device):
    data = solids(32, 16, points=20).to(device)
    assert (data.in_channels, data.image_size, data.classes, len(data)) == (3, 20, 8, 32)
    assert (data.mean, data.std) == ([0.0] * 3, [1.0] * 3)
    x, y = data.train_batch([3, 1, 3])
    assert_close(x, data.images[[3, 1, 3]])
    assert_close(y, data.labels[[3, 1, 3]])
    for part in (subset(data, 10, seed=1), holdout(data, 0.5), noisy_labels(data, 0.5, "uniform", 0)):
        assert isinstance(part, Clouds)
        assert part.images.device.type == device.type


# ---- augmentation ----------------------------------------------------------------------------------------------------
def test_a_turn_keeps_heights_and_distances_and_each_cloud_has_its_own(device):
    x = solids(16, 8, points=30).images.double().to(device)
    turned = turn(x, torch.Generator().manual_seed(2))
    assert_close(turned[:, 1], x[:, 1])
    assert_close(torch.cdist(turned.mT, turned.mT), torch.cdist(x.mT, x.mT))
    assert torch.linalg.det(turned[:, :, :3] @ torch.linalg.inv(x[:, :, :3])).min() > 0.99  # no mirror
    one = x[:1].expand(2000, 3, 30)
    angles = torch.atan2(*(turn(one, torch.Generator().manual_seed(1))[:, a, 0] for a in (2, 0))).cpu()
    share = ((angles[:, None] + math.pi) / (2 * math.pi) <= U).double().mean(0)
    assert (share - U).abs().max() < 4 / 2000**0.5
    both = augment("turn+jitter")
    first, second = (both(x.float(), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert both(x).shape == x.shape
    refused(r"turn needs clouds .*got shape \(2, 3, 8, 8\); for images", both, torch.zeros(2, 3, 8, 8))


def test_jitter_has_its_size_and_its_limit(device):
    x = torch.zeros(10, 3, 1000, device=device)
    moved = jittered(x, torch.Generator().manual_seed(0))
    assert moved.std().item() == pytest.approx(0.01, rel=0.05)
    assert jittered(x, std=1.0).abs().max() <= 0.05


# ---- ModelNet40 ------------------------------------------------------------------------------------------------------
def write(folder, count=3, points=2048, spoil=lambda file, clouds: clouds):
    """Files of the official layout, with other numbers."""
    h5py = pytest.importorskip("h5py")
    numbers, made = np.random.default_rng(0), {}
    folder.mkdir(exist_ok=True)
    for place, file in enumerate(file for part in MODELNET40.values() for file in part):
        clouds = spoil(file, numbers.standard_normal((count, points, 3)).astype(np.float32))
        labels = (np.arange(count) * 7 + place)[:, None].astype(np.uint8)
        with h5py.File(folder / file, "w") as content:
            content["data"], content["label"] = clouds, labels
        made[file] = clouds, labels
    return made


@pytest.mark.parametrize("inside", [True, False])
def test_the_files_are_read_to_the_number_in_their_order(tmp_path, monkeypatch, inside):
    made = write(tmp_path / "modelnet40_ply_hdf5_2048")
    folder = tmp_path if inside else tmp_path / "modelnet40_ply_hdf5_2048"
    sums = {
        part: {f: hashlib.md5((tmp_path / "modelnet40_ply_hdf5_2048" / f).read_bytes()).hexdigest() for f in files}
        for part, files in MODELNET40.items()
    }
    monkeypatch.setattr("convkit.data.clouds.MODELNET40", sums)
    data = modelnet40(folder)
    assert (data.name, data.classes, data.image_size) == ("modelnet40", 40, 1024)
    train = [made[file] for file in MODELNET40["train"]]
    expected = np.concatenate([clouds for clouds, _ in train])[:, :1024].transpose(0, 2, 1)
    assert torch.equal(data.images, torch.from_numpy(expected.copy()))
    assert data.labels.tolist() == np.concatenate([labels.ravel() for _, labels in train]).tolist()
    assert len(data.test_images) == 6
    assert load("modelnet40", folder, points=17).images.shape == (15, 3, 17)


def test_other_files_need_another_name_and_damage_is_told_in_a_sentence(tmp_path):
    write(tmp_path)
    refused("ply_data_train0.h5, .* and 4 more is not the official file .*MD5.*name='mine'", modelnet40, tmp_path)
    assert modelnet40(tmp_path, "mine").name == "mine"
    short = tmp_path / "ply_data_train2.h5"
    content = short.read_bytes()
    short.write_bytes(content[: len(content) // 2])
    refused(r"ply_data_train2\.h5 cannot be read \(OSError\): it is truncated", modelnet40, tmp_path, "mine")
    write(tmp_path, points=500)
    refused(r"needs data \(N, at least 1024, 3\) and N labels, got data \(3, 500, 3\)", modelnet40, tmp_path, "mine")
    write(tmp_path, spoil=lambda file, clouds: np.where(np.arange(3)[:, None, None] == 1, np.nan, clouds))
    refused(
        "the training part needs finite points, got NaN .* in cloud 1, cloud 4, cloud 7 and 2 more",
        modelnet40,
        tmp_path,
        "mine",
    )
    (tmp_path / "ply_data_test1.h5").unlink()
    refused("modelnet40 needs ply_data_test1.h5, not found in", modelnet40, tmp_path, "mine", error=FileNotFoundError)
    refused("needs the folder of its files, got none", load, "modelnet40")
    refused("points must be a whole number from 1 to 2048", modelnet40, tmp_path, points=4096)
    assert len(MODELNET40_CLASSES) == len(set(MODELNET40_CLASSES)) == 40


def test_impossible_clouds_are_refused_in_a_sentence():
    x, y = torch.rand(4, 3, 9), torch.arange(4)
    refused("needs float32 clouds .*got torch.float64", Clouds, "c", x.double(), y, x, y, "abcd")
    refused("the test part needs float32 clouds", Clouds, "c", x, y, x[0], y, "abcd")
    refused("clouds of one shape, got .3, 9. and .3, 8.; keep", Clouds, "c", x, y, x[..., :8], y, "abcd")
    refused("labels 0 .. 2, got 0 .. 3", Clouds, "c", x, y, x, y, "abc")
    refused("test_count must be a whole number of at least 1, got 0", solids, 8, 0)
    refused("jitter must be a finite number of at least 0, got -1", solids, jitter=-1)
