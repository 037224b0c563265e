"""The noisy affine layer of Ikami et al., which takes the place of a normalization."""

import math

import torch
from torch import Tensor, nn

from convkit.operators.dtypes import autocasts
from convkit.operators.geometry import positive_ints


class NoisyAffine(nn.Module):
    """A learnable scale and bias per channel, with noise on the scale during training (eq. 6-8 of Ikami et al. 2021).

    From ``(batch, channels, ...)``, with any number of axes, to the same shape: ``y = gamma x + beta``; in training
    ``y = (1 + n) gamma x + beta`` with ``n ~ N(0, (sigma * depth)^2)`` drawn for each sample and channel. ``depth`` is
    l / L for layer l of L in residual networks, 1 otherwise. ``sigma`` may be changed at any time. Under autocast the
    outputs have the dtype of the inputs, rounded once from that of the parameters. Raises ``ValueError`` for a negative
    ``sigma``, a ``depth`` outside (0, 1] and inputs of another shape.

    >>> layer = NoisyAffine(1, sigma=0.5)
    >>> x = torch.ones(8, 1, 2, 2)
    >>> layer(x).std().item() > 0, layer.eval()(x).std().item()
    (True, 0.0)
    """

    def __init__(self, channels: int, sigma: float = 0.0, depth: float = 1.0) -> None:
        super().__init__()
        (self.channels,) = positive_ints(channels, 1, "channels")
        if not 0 < depth <= 1:
            raise ValueError(f"depth must be in (0, 1], got {depth}; it is the layer's number over how many there are")
        self.sigma, self.depth = sigma, float(depth)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise at depth 1, a finite number of at least 0."""
        return self._sigma

    @sigma.setter
    def sigma(self, value: float) -> None:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"sigma must be a finite number of at least 0, got {value}; 0 is no noise")
        self._sigma = float(value)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled, noisy and shifted batch."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"needed a batch of shape (batch, {self.channels}, ...), got {tuple(x.shape)}; the channels come second"
            )
        axes = [None] * (x.ndim - 2)
        scale = self.weight[:, *axes]
        if self.training and self.sigma > 0:
            # on a GPU by its own generator: a copy from the host would wait
            where = x.device if x.is_cuda else "cpu"
            noise = torch.randn(*x.shape[:2], *[1 for _ in axes], dtype=torch.float32, device=where).to(x)
            scale = scale * (1 + self.sigma * self.depth * noise)
        y = scale * x + self.bias[:, *axes]
        return y.to(x.dtype) if autocasts(x) else y

    def extra_repr(self) -> str:
        return f"{self.channels}, sigma={self.sigma}, depth={self.depth:g}"
