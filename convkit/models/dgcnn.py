"""DGCNN of Wang et al. 2019: convolutions on the edges between points that are near each other in feature space."""

from typing import Unpack

import torch
from torch import Tensor, nn

from convkit.checks import number, whole
from convkit.models.layers import LayerFactory, plain_layer
from convkit.models.network import Assembly, Images, scaled

SLOPE = 0.2  # of LeakyReLU below 0
EDGES, EMBEDDING, HIDDEN = (64, 64, 128, 256), 1024, (512, 256)  # channels of the published network


def nearest_neighbors(x: Tensor, k: int) -> Tensor:
    """Return the numbers of the ``k`` points nearest to each point, itself included, nearest first.

    Distances are those between the columns of ``x``, computed from differences, so that the order of the points does
    not matter. They have no gradient. Of points at one distance any may come first.

    Args:
        x: Points ``(batch, channels, points)``: coordinates, or features.
        k: Number of neighbors, at most the number of points.

    Returns:
        ``(batch, points, k)``, int64.

    Raises ``ValueError`` for fewer points than ``k``.

    >>> nearest_neighbors(torch.tensor([[[0.0, 1.0, 3.0, 7.0]]]), 2)
    tensor([[[0, 1],
             [1, 0],
             [2, 1],
             [3, 2]]])
    """
    if x.ndim != 3 or x.shape[2] < k:
        raise ValueError(
            f"needed clouds (batch, channels, points) of at least {k} points, since each looks at its {k} nearest, got "
            f"shape {tuple(x.shape)}; give more points, or build the network with a smaller k"
        )
    columns = x.detach().mT
    columns = columns if columns.dtype == torch.float64 else columns.float()  # distances are not made for half
    distances = torch.cdist(columns, columns, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(k, largest=False).indices


def edge_features(x: Tensor, neighbors: Tensor) -> Tensor:
    """Return the features of all edges: those of the point, then the differences of its neighbor from it.

    Args:
        x: Points ``(batch, channels, points)``.
        neighbors: Numbers of the neighbors of each point, ``(batch, points, k)``, as of ``nearest_neighbors``.

    Returns:
        ``(batch, 2 * channels, points, k)``: an image, to a 1 x 1 convolution.

    >>> edge_features(torch.tensor([[[0.0, 1.0, 3.0]]]), torch.tensor([[[1], [2], [0]]]))[0, :, :, 0]
    tensor([[ 0.,  1.,  3.],
            [ 1.,  2., -3.]])
    """
    batch, channels, points = x.shape
    where = neighbors.reshape(batch, 1, -1).expand(-1, channels, -1)
    there = x.gather(2, where).view(batch, channels, points, -1)
    here = x[..., None].expand_as(there)
    return torch.cat([here, there - here], 1)


class EdgeConv(nn.Module):
    """A convolution on a graph: a layer on the features of each edge, LeakyReLU, and the maximum over a point's edges.

    From ``(batch, c_in, points)`` to ``(batch, c_out, points)``. The edges lead from each point to its ``k`` nearest in
    the space of the features that come in, so the graph is another one at each layer and for each cloud. If the points
    change places, so do the results. Wang et al. 2019, eq. 8.

    Args:
        layer: A module from ``(batch, 2 * c_in, points, k)`` to ``(batch, c_out, points, k)``, a 1 x 1 convolution.
        k: Number of neighbors.

    Raises ``ValueError``, with a batch, for fewer points than ``k``.

    >>> EdgeConv(nn.Conv2d(6, 4, 1), k=5)(torch.rand(2, 3, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(self, layer: nn.Module, k: int) -> None:
        super().__init__()
        self.layer, self.activation = layer, nn.LeakyReLU(SLOPE)
        self.k = whole("k", k, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new features of all points."""
        edges = self.layer(edge_features(x, nearest_neighbors(x, self.k)))
        return self.activation(edges.max(3).values)  # LeakyReLU is monotone: behind the maximum it does the same

    def extra_repr(self) -> str:
        return f"k={self.k}"


class DGCNN(nn.Module):
    """A network from clouds ``(batch, in_channels, points)`` to logits ``(batch, classes)``; see ``dgcnn``.

    Attributes:
        in_channels: Number of axes of the points.
        residual: Whether the network has residual blocks: it has none.
        notes: Sentences that say where the network differs from the published one.
    """

    def __init__(self, net: Assembly, k: int, width: float, dropout: float) -> None:
        super().__init__()
        self.in_channels, self.residual = net.in_channels, False
        self.notes = ["The hidden layers have no bias of their own; in the published code the second one has."]
        self.normalize = net.steps.get("normalize")
        widths = [scaled(channels, width) for channels in EDGES]
        self.edges = nn.ModuleList(
            EdgeConv(net.make(2 * c_in, c_out, 1), k)
            for c_in, c_out in zip([net.in_channels, *widths[:-1]], widths, strict=True)
        )
        embedding = scaled(EMBEDDING, width)
        self.embed = nn.Sequential(net.make(sum(widths), embedding, 1), nn.LeakyReLU(SLOPE))
        hidden, features = list[nn.Module](), 2 * embedding
        for units in (scaled(units, width) for units in HIDDEN):
            hidden.append(nn.Sequential(net.make(features, units, 1), nn.LeakyReLU(SLOPE), nn.Dropout(dropout)))
            features = units
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(features, net.classes, dtype=net.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; raise ``ValueError`` for a batch of another shape."""
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"needed a batch of clouds (batch, {self.in_channels}, points), got shape {tuple(x.shape)}; build the "
                "network with the in_channels of the data"
            )
        if self.normalize is not None:
            x = self.normalize(x[..., None])[..., 0]
        found = list[Tensor]()
        for edge in self.edges:
            x = edge(x)
            found.append(x)
        x = self.embed(torch.cat(found, 1)[..., None])  # an image of one column
        x = torch.cat([x.amax(2, keepdim=True), x.mean(2, keepdim=True)], 1)  # in any order of the points the same
        return self.head(self.hidden(x).flatten(1))


def dgcnn(
    layer: LayerFactory = plain_layer,
    width: float = 1.0,
    k: int = 20,
    dropout: float = 0.5,
    **images: Unpack[Images],
) -> DGCNN:
    """Return DGCNN for the classification of point clouds: four EdgeConv, an embedding, two hidden layers, the head.

    Wang et al. 2019. All 1 x 1 convolutions are made by the layer factory, those of the two hidden layers, too, with
    their normalizations: they act on an image of one pixel, whose channels are the maximum and the mean over all
    points. So ``network("dgcnn", data, "sphere")`` has no BatchNorm at all, as in section 4.2 of Ikami et al. 2021.

    Args:
        layer: The layer factory that makes every convolution.
        width: Factor of all numbers of channels.
        k: Number of neighbors of a point, itself included.
        dropout: The part of the units of the hidden layers that is left out at each step of the training.
        images: What the network is built for; see ``Images``, with axes for channels, and points for ``image_size``:
            clouds of other numbers of points, at least ``k``, are taken as well.

    Raises ``ValueError`` for numbers that are out of range and for fewer points than ``k``.

    >>> dgcnn(width=0.125, k=8)(torch.rand(2, 3, 30)).shape
    torch.Size([2, 10])
    """
    k = whole("k", k, 1)
    net = Assembly(len(EDGES) + 1 + len(HIDDEN), layer, **images)
    if net.image_size < k:
        raise ValueError(
            f"k must be at most the number of points, image_size = {net.image_size}, got {k}; take a smaller k"
        )
    return DGCNN(net, k, width, number("dropout", dropout, 0, 1))
