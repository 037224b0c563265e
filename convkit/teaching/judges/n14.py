"""Judges of notebook 14: half of the points, weights of an EdgeConv, edges that a move spares, a width, pooling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convkit.data.clouds import solids
from convkit.models.dgcnn import edge_features, nearest_neighbors
from convkit.teaching.checks import hints
from convkit.teaching.judges.numbers import array, number, whole

_NEAR = 1e-6  # what a reader may lose by rounding


@hints(
    "How much of the surface do the points cover that are left?",
    "The maximum over all points is often decided by a few of them.",
)
def bet(share: Any) -> str | None:
    """Judge the share of test clouds that a trained network still gets right from half of their points."""
    found = number(share, "one number, the share of right answers")
    if not 0 <= found <= 1:
        return "a share lies between 0 and 1"
    if 0.4 <= found <= 0.6:
        return "this is the tempting belief: half of the points, half of the answers; open the picture below"
    if found < 0.85:
        return "more of them stay right: what do the points that are left still show?"
    return None if found < 0.9874 else "a few clouds are lost: it was not trained on so few points"


@hints(
    "Each of the k edges of a point is one pixel, each number of an edge one channel. Count the numbers of one edge.",
    "An edge has the features of the point and as many differences. Then one weight for each output and number.",
)
def weights(answer: Any) -> str | None:
    """Judge the number of weights of the second EdgeConv of the published network, from 64 to 64 channels, k = 20."""
    found = whole(answer, "one whole number, the number of weights")
    if found == 64 * 64:
        return "an edge has more numbers than a point"
    if found in (2 * 64 * 64 * 20, 64 * 64 * 20):
        return "all edges share one kernel, as all pixels of an image do"
    if found == 2 * 64 * 64 * 9:
        return "the kernel is 1 × 1: there is no grid for other taps"
    if found <= 0:
        return "a number of weights is positive"
    return None if found == 2 * 64 * 64 else "count again: outputs times the numbers of an edge"


@hints(
    "A move adds one vector to all points. Which part of an edge's features feels it?",
    "A difference of two moved points is what it was. Leave the other part out.",
)
def moved(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Judge a function that should return edge features that a move of the cloud leaves as they are.

    Right are all features from which one matrix, with a constant or without, gets the differences of (2) back.
    """
    for seed, (channels, points, k) in enumerate(((3, 40, 6), (2, 30, 5))):
        x = torch.randn(2, channels, points, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        neighbors = nearest_neighbors(x, k)
        shift = torch.arange(1.0, channels + 1, dtype=torch.float64)[:, None]
        wanted = "a function that gives features"
        here, there = (array(answer(clouds.clone(), neighbors), wanted) for clouds in (x, x + shift))
        if here.ndim != 4 or (len(here), *here.shape[2:]) != (2, points, k) or not here.numel():
            return (
                f"for 2 clouds of {points} points with {k} edges each the shape should be (2, numbers of an edge, "
                f"{points}, {k}): {tuple(here.shape)}"
            )
        if (here - there).abs().max() > _NEAR:
            return "a move of the whole cloud still changes these features"
        edges, differences = (
            features.movedim(1, -1).flatten(0, 2) for features in (here, edge_features(x, neighbors)[:, channels:])
        )
        edges = torch.cat([edges, edges.new_ones(len(edges), 1)], 1)
        matrix = torch.linalg.lstsq(edges, differences, driver="gelsd").solution
        if (edges @ matrix - differences).abs().max() > _NEAR:
            return "a move changes nothing, but no matrix gets the differences of (2), neighbor minus point, from these"
    return None


@hints(
    "Run seventh_at(64), seventh_at(48) and seventh_at(16), and divide each by seventh_at(128).",
    "The points lie on a surface. With what power of their number does the distance between neighbors fall there?",
)
def width(points: Any) -> str | None:
    """Judge the number of points with which the seventh neighbor lies twice as far away as with 128."""
    found = whole(points, "one whole number, of points")
    if not 8 <= found <= 128:
        return "seven neighbors need at least 8 points, and a cloud has 128"
    clouds, _ = solids(400, 160).test_batch(slice(None))
    there, here = (_seventh_at(clouds[..., :many]) for many in (128, found))
    ratio = here / there
    if abs(ratio / 2 - 1) <= 0.05:
        return None
    more = "less" if ratio < 2 else "more"
    return f"with {found} points the distance is {ratio:.2f} times that with 128: {more} than twice"


def _seventh_at(clouds: Tensor) -> float:
    spots = clouds.mT.double()
    return torch.cdist(spots, spots).kthvalue(8, dim=2).values.median().item()


@hints(
    "The maximum over points and their mean both forget the order. What else forgets it, and keeps more, or less?",
    "A sum forgets the order of its terms, whatever is done to each of them before. A single point does not.",
)
def pooled(answer: Callable[[Tensor], Any]) -> str | None:
    """Judge a function from ``(batch, channels, points)`` to ``(batch, channels)``: the same in any order of points."""
    x = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    here, there = (array(answer(cloud.clone()), "a function that gives numbers") for cloud in (x, x[..., order]))
    if here.shape != (2, 3):
        return f"2 clouds with 3 channels should give numbers of shape (2, 3): {tuple(here.shape)}"
    if (here - there).abs().max() > _NEAR:
        return "another order of the same points gives another result"
    if (here[0] - here[1]).abs().max() <= _NEAR:
        return "two different clouds give the same result: it says nothing about a cloud"
    if (here - here[:, :1]).abs().max() <= _NEAR:
        return "all channels have the same number: each channel should have its own"
    for known, name in ((x.amax(2), "maximum"), (x.mean(2), "mean")):
        rest, pattern = here - here.mean(), known - known.mean()
        factor = (rest * pattern).sum() / pattern.square().sum()
        if (rest - factor * pattern).abs().max() <= _NEAR:
            return f"this is the {name}, or what one factor and one constant make of it: the network has that already"
    return None
