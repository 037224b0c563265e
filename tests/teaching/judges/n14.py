"""Notebook 14: the bet on half of the points, another pooling, edges that a move spares, the weights of a layer."""

import numpy as np
import torch

from convkit.models.dgcnn import edge_features
from convkit.teaching.judges.n14 import bet, moved, pooled, weights, width
from tests.teaching.judges import Case


def differences(x, neighbors):
    return edge_features(x, neighbors)[:, x.shape[1] :]


CASES = {
    Case(bet, "one number, the share of right answers", r"0?\.9\d|9\d ?%"): {
        **{None: [0.94, 0.9, 0.95, np.float32(0.92), 0.97], "between 0 and 1": [94, -0.1, 1.01]},
        **{"the tempting belief": [0.5, 0.4, 0.6], "more of them stay right": [0, 0.125, 0.3, 0.7, 0.8]},
        "a few clouds are lost": [1, 0.99],
    },
    Case(pooled, r"a function that gives numbers|should give numbers of shape"): {
        None: [lambda x: x.amin(2), lambda x: x.square().sum(2), lambda x: x.median(2).values.tolist()],
        "should give numbers of shape": [
            lambda x: x.amax(),
            lambda x: x.amin((0, 2)),
            lambda x: x,
            lambda x: x.amin(2, keepdim=True),
        ],
        "another order of the same points": [lambda x: x[..., 0], lambda x: (x * torch.arange(6)).sum(2)],
        "two different clouds give the same": [lambda x: 0 * x.amax(2), lambda x: x.amax(2) * 0 + 1],
        "all channels have the same": [lambda x: x.sum((1, 2))[:, None].expand(-1, 3)],
        "this is the maximum": [
            lambda x: x.amax(2),
            lambda x: 2 * x.amax(2),
            lambda x: x.amax(2) + 1,
            lambda x: 2 * x.amax(2) - 3,
        ],
        "this is the mean": [lambda x: x.mean(2), lambda x: x.sum(2), lambda x: x.mean(2) + 1],
    },
    Case(moved, "a function that gives features|the shape should be"): {
        None: [
            differences,
            lambda x, n: differences(x, n).tolist(),
            lambda x, n: -differences(x, n),
            lambda x, n: 2 * differences(x, n),
            lambda x, n: differences(x, n) + 1,
            lambda x, n: differences(x, n).flip(1),
            lambda x, n: differences(x, n).repeat(1, 2, 1, 1),
            lambda x, n: torch.cat([differences(x, n), differences(x, n).norm(dim=1, keepdim=True)], 1),
            lambda x, n: edge_features(x - x.mean(2, keepdim=True), n),
        ],
        "the shape should be": [
            lambda x, n: x,
            lambda x, n: differences(x, n).transpose(2, 3),
            lambda x, n: differences(x, n)[:1],
            lambda x, n: differences(x, n)[:, :0],
        ],
        "a move of the whole cloud still": [edge_features, lambda x, n: edge_features(x, n)[:, : x.shape[1]]],
        "no matrix gets the differences": [
            lambda x, n: 0 * differences(x, n),
            lambda x, n: differences(x, n)[:, :1],
            lambda x, n: differences(x, n).abs(),
            lambda x, n: differences(x, n).norm(dim=1, keepdim=True),
        ],
    },
    Case(weights, "one whole number, the number of weights", "8192|8 192|128"): {
        None: [8192, np.int64(8192), 8192.0],
        "an edge has more numbers": [4096],
        "all edges share one kernel": [163840, 81920],
        "the kernel is 1 × 1": [73728],
        "a number of weights is positive": [0, -8192],
        "count again": [8193, 8256, 1, 1000],
    },
    Case(width, "one whole number, of points", r"(?<![.\d])(2[89]|3[0-3])\b|quarter"): {
        **{None: [31, 30, 32], "need at least 8 points": [7, 0, -4, 129, 1000], "one whole number": [31.5]},
        **{"less than twice": [64, 100, 40, 128], "more than twice": [16, 8, 24]},
    },
}
