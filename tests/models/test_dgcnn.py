"""DGCNN: its graph against scikit-learn, its layers by hand, parameters, invariance, methods, audit, attacks."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.attacks import fgsm, pgd, robust_accuracy, simba
from convkit.audit.product.bound import product_bound
from convkit.audit.table import layer_table
from convkit.data import noisy_labels, solids, subset
from convkit.methods import METHODS, network
from convkit.models import EdgeConv, batchnorm_layer, build_model, edge_features, nearest_neighbors, plain_layer
from convkit.normalization import NoisyAffine
from convkit.training import evaluate, fit, mean_class_accuracy
from tests.helpers.refusals import refused

SMALL = {"k": 6, "width": 1 / 8}
DATA = subset(solids(80, 40, points=24), 60)


@pytest.fixture(scope="module")
def data(device):
    return DATA.to(device)


def small(data, method="batchnorm", **options):
    knobs = {"groups": 4} if "group" in method else {}
    return network("dgcnn", data, method, knobs=knobs, **{**SMALL, **options})


def points(batch, channels, count, device, seed=0, dtype=torch.float64):
    return torch.randn(batch, channels, count, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


# ---- the graph -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 4, 17])
@pytest.mark.parametrize("channels", [3, 11])
def test_the_nearest_are_those_of_scikit_learn_in_their_order(device, channels, k):
    neighbors = pytest.importorskip("sklearn.neighbors")
    x = points(2, channels, 17, device)
    found = nearest_neighbors(x, k).cpu()
    for cloud, own in zip(x.mT.cpu().numpy(), found, strict=True):
        expected = neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute").fit(cloud).kneighbors(cloud)[1]
        assert own.tolist() == expected.tolist()
    assert found[..., 0].tolist() == [list(range(17))] * 2  # each point is nearest to itself


def test_the_graph_has_no_gradient_and_takes_half_precision(device):
    x = points(1, 2, 9, device).requires_grad_()
    assert not nearest_neighbors(x, 3).requires_grad
    half = torch.arange(9.0, device=device)[None, None].bfloat16()
    assert nearest_neighbors(half, 2)[0, :, 0].tolist() == list(range(9))


def test_edges_hold_the_point_and_the_difference_of_its_neighbor(device):
    x, neighbors = points(2, 3, 7, device), torch.randint(7, (2, 7, 4), generator=torch.Generator().manual_seed(1))
    edges = edge_features(x, neighbors.to(device))
    assert edges.shape == (2, 6, 7, 4)
    for b in range(2):
        for i in range(7):
            for j in range(4):
                there = x[b, :, neighbors[b, i, j]]
                assert_close(edges[b, :, i, j], torch.cat([x[b, :, i], there - x[b, :, i]]))


def test_an_edge_convolution_is_the_largest_of_what_the_layer_makes_of_a_points_edges(device):
    x, layer = points(2, 3, 8, device), nn.Conv2d(6, 5, 1).to(device, torch.float64)
    found = EdgeConv(layer, 3)(x)
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    for b in range(2):
        for i in range(8):
            near = (x[b] - x[b, :, i : i + 1]).norm(dim=0).argsort()[:3]
            each = [weight @ torch.cat([x[b, :, i], x[b, :, j] - x[b, :, i]]) + bias for j in near]
            assert_close(found[b, :, i], torch.stack([F.leaky_relu(one, 0.2) for one in each]).amax(0))


def test_gradients_of_an_edge_convolution_are_those_of_differences(device):
    layer = EdgeConv(nn.Conv2d(4, 3, 1), 3).to(device, torch.float64)
    assert torch.autograd.gradcheck(layer, points(1, 2, 5, device).requires_grad_())


# ---- the network -----------------------------------------------------------------------------------------------------
def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        model = build_model("dgcnn", layer=batchnorm_layer, classes=40)
    weights = 6 * 64 + 128 * 64 + 128 * 128 + 256 * 256 + 512 * 1024 + 2048 * 512 + 512 * 256
    norms = 2 * (64 + 64 + 128 + 256 + 1024 + 512 + 256)
    count = sum(p.numel() for p in model.parameters())
    assert count == weights + norms + 256 * 40 + 40
    assert count + 256 == 1_809_576  # 1.81 million: the published code, whose second hidden layer has a bias
    assert "have no bias" in model.notes[0]
    assert not model.residual
    assert [edge.k for edge in model.edges] == [20] * 4


def test_the_layer_factory_makes_all_layers_but_the_head_and_knows_their_depth():
    seen = []

    def layer(c_in, c_out, kernel_size, depth, **geometry):
        seen.append((c_in, c_out, kernel_size, round(7 * depth, 9)))
        return plain_layer(c_in, c_out, kernel_size)

    build_model("dgcnn", layer=layer, width=1 / 8, k=4, in_channels=2)
    widths = [(4, 8), (16, 8), (16, 16), (32, 32), (64, 128), (256, 64), (64, 32)]
    assert seen == [(*pair, 1, number) for number, pair in enumerate(widths, start=1)]


def test_the_network_is_its_layers_in_their_order(device):
    model = build_model("dgcnn", layer=plain_layer, classes=4, **SMALL).to(device, torch.float64).eval()
    x = points(2, 3, 15, device)
    found, state = [x], model.state_dict()
    for i in range(4):
        edges = edge_features(found[-1], nearest_neighbors(found[-1], 6))
        weight, bias = state[f"edges.{i}.layer.weight"], state[f"edges.{i}.layer.bias"]
        found.append(F.leaky_relu(F.conv2d(edges, weight, bias), 0.2).amax(3))

    def linear(name, y):
        return torch.einsum("oc,bc...->bo...", state[f"{name}.weight"].flatten(1), y) + state[f"{name}.bias"].view(
            -1, *[1] * (y.ndim - 2)
        )

    y = F.leaky_relu(linear("embed.0", torch.cat(found[1:], 1)), 0.2)
    y = torch.cat([y.amax(2), y.mean(2)], 1)
    for i in range(2):
        y = F.leaky_relu(linear(f"hidden.{i}.0", y), 0.2)
    assert_close(model(x), linear("head", y))
    scaled = build_model("dgcnn", layer=plain_layer, classes=4, mean=[1, 2, 3], std=[1, 2, 4], **SMALL).to(x).eval()
    scaled.load_state_dict(state, strict=False)  # all but the statistics
    mean, std = (torch.tensor(numbers).to(x)[:, None] for numbers in ([1.0, 2, 3], [1.0, 2, 4]))
    assert_close(scaled(x * std + mean), model(x))


@pytest.mark.parametrize("method", ["batchnorm", "groupnorm", "sphere"])
def test_the_order_of_the_points_changes_nothing(data, device, method):
    model = small(data, method, dtype=torch.float64).eval()
    x = data.test_batch(slice(0, 8))[0].double()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3)).to(device)
    assert_close(model(x[..., order]), model(x), rtol=0, atol=1e-6)
    assert (model(x[:1]) - model(x[1:2])).abs().max() > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_it_or_says_why_not(data, method):
    if method == "lipschitz":  # a bound would have to go through the choice of neighbors
        refused("step 'edges.0'", small, data, method)
        return
    model = small(data, method)
    records = list(fit(model, data, method, steps=2, batch_size=20, augmentation="turn+jitter"))
    assert records[-1].diverged is None
    assert 0 <= evaluate(model, data) <= 1


def test_no_batchnorm_is_left_on_the_sphere_and_rows_are_centered_with_their_radius_kept(data):
    model = small(data, "sphere")
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(NoisyAffine) == 7
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    list(fit(model, data, "sphere", steps=3, batch_size=20, knobs={"radius": 1.3}))
    rows = [m.weight.flatten(1) for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(rows) == 7
    for row in rows:
        assert row.mean(1).abs().max() < 1e-6
        assert_close(row.norm(dim=1), torch.full_like(row[:, 0], 1.3), rtol=1e-5, atol=0)


def test_training_learns_the_solids_also_noisy_ones_and_is_the_same_twice():
    data = subset(solids(200, 80, points=64), 160)
    model = network("dgcnn", data, "batchnorm", k=8, width=1 / 8, dropout=0)
    records = list(fit(model, data, "batchnorm", steps=60, batch_size=16, evaluate_every=60))
    assert records[-1].test_accuracy > 0.5  # guessing: an eighth
    noisy = noisy_labels(DATA, 0.5, "uniform", 1)
    runs = [list(fit(small(noisy), noisy, "batchnorm", steps=3, batch_size=20)) for _ in range(2)]
    assert runs[0] == runs[1]


# ---- accuracies ------------------------------------------------------------------------------------------------------
def test_the_mean_over_classes_weighs_small_classes_like_large_ones(data, device):
    model = small(data).eval()
    x, y = data.test_batch(slice(0, None))
    kept = torch.cat([(y == c).nonzero().flatten()[: 1 + 2 * c] for c in range(7)])  # and none of the last class
    part = type(data)("part", data.images, data.labels, x[kept], y[kept], data.class_names)
    right = (model(part.test_images).argmax(1) == part.test_labels).double().cpu()
    labels = part.test_labels.cpu()
    expected = sum(float(right[labels == c].mean()) for c in range(7)) / 7
    assert mean_class_accuracy(model, part, batch_size=5) == pytest.approx(expected)
    assert evaluate(model, part) == pytest.approx(float(right.mean()))


# ---- audit and attacks -----------------------------------------------------------------------------------------------
def test_the_layer_table_names_every_layer_and_its_norms_are_those_of_its_matrix(data, device):
    model = small(data, "sphere").eval()
    for module in model.modules():
        if isinstance(module, NoisyAffine):
            nn.init.uniform_(module.weight, 0.5, 2)
    table = layer_table(model, data.images[:1], folded=True)
    names = [f"edges.{i}.layer.0" for i in range(4)] + ["embed.0.0", "hidden.0.0.0", "hidden.1.0.0", "head"]
    assert [record.name for record in table] == names
    assert table.missing == table.unfolded == []
    assert table[0].in_shape == (6, 24, 6)  # points and neighbors are the two axes of the image
    assert table[-2].in_shape == (64, 1, 1)
    for record in table:
        matrix = model.get_submodule(record.name).weight.detach().flatten(1)
        gain = model.get_submodule(f"{record.name[:-1]}1").weight.detach()[:, None] if record.folded else 1
        assert record.norm2 == pytest.approx(float(torch.linalg.matrix_norm(gain * matrix, 2)), rel=1e-5)
    assert [record.folded for record in table] == ["NoisyAffine"] * 7 + [""]


def test_what_no_bound_can_follow_is_named(data):
    refused("step 'edges.0' .EdgeConv., topk", product_bound, small(data).eval(), data.images[:1])


@pytest.mark.parametrize("attack", [fgsm, functools.partial(pgd, step=0.02, steps=3)])
def test_attacks_move_points_beyond_0_and_1(data, attack):
    model = small(data).eval()
    x, y = data.test_batch(slice(0, 10))
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack(model, x, y, eps=0.05)
    found = attack(model, x, y, eps=0.05, low=-math.inf, high=math.inf, result="last")
    moved = (found - x).abs()
    assert float(moved.max()) == pytest.approx(0.05, rel=1e-4)
    assert (found < 0).any()
    edge = float(x.abs().max())
    assert attack(model, x, y, eps=0.05, low=-edge, high=edge, result="last").abs().max() <= edge
    loss = [F.cross_entropy(model(at), y) for at in (x, found)]
    assert loss[1] > loss[0]


def test_robust_accuracy_and_simba_take_clouds(data):
    model = small(data).eval()
    x, y = data.test_batch(slice(0, 12))
    free = {"low": -math.inf, "high": math.inf}
    attacks = {
        "FGSM": functools.partial(fgsm, eps=0.1, **free),
        "SimBA": functools.partial(simba, step=0.2, steps=5, **free),
    }
    found = robust_accuracy(model, [(x, y)], attacks, progress=False, **free)
    assert found.worst <= min(found.attacks.values()) <= found.clean
    refused(r"images must lie in \[0, 1\]", robust_accuracy, model, [(x, y)], attacks, progress=False)
    spoiled = x.index_fill(2, torch.tensor([3], device=x.device), math.nan)
    refused(r"inputs must be finite and lie in \[-inf, inf\]", fgsm, model, spoiled, y, 0.1, **free)
    refused("low must be a number below high, got 1 and 0", fgsm, model, x, y, 0.1, low=1, high=0)
    refused("low must be a number below high, got nan and 1", fgsm, model, x, y, 0.1, low=math.nan, high=1)


# ---- bad input -------------------------------------------------------------------------------------------------------
def test_fewer_points_than_neighbors_and_images_are_refused_in_a_sentence(data):
    model = small(data)
    refused(
        r"at least 6 points, since each looks at its 6 nearest, got shape \(2, 3, 5\)", model, data.images[:2, :, :5]
    )
    refused("k must be at most the number of points, image_size = 24, got 25", network, "dgcnn", data, "plain", k=25)
    refused("k must be a whole number of at least 1", build_model, "dgcnn", k=0)
    refused("dropout must be a number from 0 to 1, got 2", build_model, "dgcnn", dropout=2)
    refused(r"needed a batch of clouds \(batch, 3, points\), got shape \(2, 3, 8, 8\)", model, torch.zeros(2, 3, 8, 8))
    refused(r"needed a batch of images", network("cnn9", data, "plain"), data.images[:2])
