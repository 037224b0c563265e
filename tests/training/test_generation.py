"""The numbers that judge made images agree with SciPy, with torchmetrics and with what is known of simple cases."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
from convkit.data import digits, subset
from convkit.methods import network
from convkit.training import (
    frechet_distance,
    generation_scores,
    inception_metrics,
    inception_score,
    moments,
    precision_recall,
)
from tests.helpers.refusals import refused

DATA = subset(digits(), 60, test_count=40)


def covariance(d, rank, seed):
    factor = torch.randn(d, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T


# ---- inception score -------------------------------------------------------------------------------------------------
def test_the_inception_score_is_1_for_images_that_look_alike_and_the_number_of_classes_for_sure_and_even_answers():
    assert inception_score(torch.tensor([[0.2, 0.5, 0.3]]).expand(7, 3)) == pytest.approx(1)
    assert inception_score(torch.eye(5).repeat(3, 1)) == pytest.approx(5)
    assert inception_score(torch.eye(5)[[0, 0, 0, 1]]) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) + 0.25 * math.log(4))
    )


def test_the_inception_score_is_that_of_its_formula():
    p = torch.randn(9, 4, dtype=torch.float64).softmax(1).numpy()
    divergences = [sum(row * np.log(row / p.mean(0))) for row in p]
    assert inception_score(torch.from_numpy(p)) == pytest.approx(np.exp(np.mean(divergences)), rel=1e-12)


# ---- Fréchet ---------------------------------------------------------------------------------------------------------
def test_the_distance_of_known_normal_distributions():
    zero, one = torch.zeros(3), torch.eye(3)
    assert frechet_distance(zero, one, zero, one) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(zero, one, zero + 2, one) == pytest.approx(12)
    assert frechet_distance(zero, 4 * one, zero, 9 * one) == pytest.approx(3)  # (3 - 2)^2 on each axis
    diagonals = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([16.0, 0.0, 1.0])
    expected = float((diagonals[0].sqrt() - diagonals[1].sqrt()).square().sum())
    assert frechet_distance(zero, diagonals[0].diag(), zero, diagonals[1].diag()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_that_of_scipys_root(seed):
    S, T = covariance(5, 9, seed), covariance(5, 7, 10 + seed)
    m, n = torch.randn(2, 5, dtype=torch.float64)
    root = scipy.linalg.sqrtm((S @ T).numpy())
    expected = float((m - n).square().sum() + (S + T).trace()) - 2 * np.trace(root).real
    assert frechet_distance(m, S, n, T) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(n, T, m, S) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(2 * m, 4 * S, 2 * n, 4 * T) == pytest.approx(4 * expected, rel=1e-9)


def test_singular_covariances_have_a_distance():
    S, zero = covariance(6, 2, 1), torch.zeros(6)
    assert frechet_distance(zero, S, zero, S) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(zero, S, zero, 0 * S) == pytest.approx(float(S.trace()))
    assert frechet_distance(zero, S, zero, 4 * S) == pytest.approx(float(S.trace()))
    u, v = torch.eye(6, dtype=torch.float64)[:2]
    tilted = (u + v) / 2**0.5
    ours = frechet_distance(zero, u.outer(u), zero, tilted.outer(tilted))  # a root of their product does not exist
    assert ours == pytest.approx(2 - 2 * 0.5**0.5)


def test_moments_are_numpys_and_need_float64():
    x = torch.randn(11, 4) + 1e4
    mean, cov = moments(x)
    assert_close(mean, torch.from_numpy(x.double().numpy().mean(0)))
    assert_close(cov, torch.from_numpy(np.cov(x.double().numpy(), rowvar=False)))
    assert moments(torch.rand(3, 1))[1].shape == (1, 1)


# ---- precision and recall --------------------------------------------------------------------------------------------
def test_precision_and_recall_are_those_of_all_distances():
    real, made = torch.randn(12, 3, dtype=torch.float64), 1.5 * torch.randn(9, 3, dtype=torch.float64)

    def share(ours, theirs, k=2):
        found = 0
        for a in ours:
            reaches = [sorted(float((t - other).norm()) for other in theirs)[k] for t in theirs]
            found += any(float((a - t).norm()) <= reach for t, reach in zip(theirs, reaches, strict=True))
        return found / len(ours)

    assert precision_recall(real, made, k=2) == pytest.approx((share(made, real), share(real, made)))
    far = made + 100
    assert precision_recall(real, far) == (0, 0)
    few = real[:1] + 1e-6 * torch.randn(20, 3, dtype=torch.float64)  # good images, all of one kind
    precision, recall = precision_recall(real, few)
    assert precision == 1
    assert recall <= 1 / 12


# ---- the kit's own classifier ----------------------------------------------------------------------------------------
def test_scores_are_named_after_the_classifier_and_use_what_its_head_sees(device):
    data = DATA.to(device)
    model = network("cnn9", data, "batchnorm", seed=0, widths=(4, 5, 6))
    with torch.no_grad():
        model.head.weight *= 1e6  # sure of itself
    made = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    scores = generation_scores(model, data, made, "narrow")
    seen = []
    model.head.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model.eval()
    with torch.no_grad():
        logits = [model(x) for x in (data.test_images.float(), made)][1]
    assert scores["FD-narrow"] == pytest.approx(frechet_distance(*moments(seen[0]), *moments(seen[1])), rel=1e-5)
    assert scores["IS-narrow"] == pytest.approx(inception_score(logits.softmax(1)), rel=1e-5)
    assert (scores["precision-narrow"], scores["recall-narrow"]) == pytest.approx(precision_recall(*seen))
    sure = logits.softmax(1).max(1)
    assert scores["classes-narrow"] == len({*sure.indices[sure.values >= 0.9].tolist()}) > 0
    with torch.no_grad():
        model.head.weight *= 0
    assert generation_scores(model, data, made)["classes-cnn9"] == 0
    assert generation_scores(model, data, data.test_images)["FD-cnn9"] == pytest.approx(0, abs=1e-6)


# ---- torchmetrics ----------------------------------------------------------------------------------------------------
class StandIn(nn.Module):
    """A network in the place of Inception: random projections of an image of three channels in whole numbers."""

    def __init__(self, outputs):
        super().__init__()
        generator = torch.Generator().manual_seed(outputs)
        self.matrix = torch.randn(3 * 64, outputs, dtype=torch.float64, generator=generator) / 1000
        self.seen = []

    def forward(self, x):
        self.seen.append((x.dtype, tuple(x.shape)))
        return x.double().flatten(1) @ self.matrix


def test_fid_and_is_are_those_of_the_network_that_the_reader_brings():
    pytest.importorskip("torchmetrics")
    real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(1)).square()
    features, logits = StandIn(5), StandIn(4)
    found = inception_metrics(real, made, features, logits, splits=1)
    assert {*features.seen} <= {(torch.uint8, (n, 3, 8, 8)) for n in (1, 40, 250, 50)}
    whole = [(255 * x).round().expand(-1, 3, -1, -1).double().flatten(1) for x in (real, made)]
    ours = frechet_distance(*moments(whole[0] @ features.matrix), *moments(whole[1] @ features.matrix))
    assert found["FID"] == pytest.approx(ours, rel=1e-6)
    assert found["IS"] == pytest.approx(inception_score((whole[1] @ logits.matrix).softmax(1)), rel=1e-6)
    assert inception_metrics(real, real, features)["FID"] == pytest.approx(0, abs=1e-6)
    assert "IS" not in inception_metrics(real, made, features)


def test_bad_input_is_refused_in_one_sentence():
    eye = torch.eye(2)
    refused("needed probabilities", inception_score, torch.randn(3, 4))
    refused("two images or more", moments, torch.rand(1, 3))
    refused("needed a covariance", frechet_distance, eye[0], -eye, eye[0], eye)
    refused("needed a covariance", frechet_distance, eye[0], eye, eye[0], torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    refused("finite covariance", frechet_distance, eye[0], eye * math.nan, eye[0], eye)
    refused("finite means", frechet_distance, eye[0] * math.inf, eye, eye[0], eye)
    refused("more than k = 3 features", precision_recall, torch.rand(3, 2), torch.rand(9, 2))
    refused("last step is a linear layer 'head'", generation_scores, nn.Sequential(nn.Linear(2, 2)), DATA, eye)
    pytest.importorskip("torchmetrics")
    nan = torch.full((3, 1, 8, 8), torch.nan)
    refused("all finite", inception_metrics, DATA.test_images, nan, StandIn(3))
