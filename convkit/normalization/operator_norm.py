"""``OperatorNorm``, a weight parametrization that divides a kernel by the norm of its convolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convkit.checks import plain, positive, whole
from convkit.engine.blocks import Blocks
from convkit.engine.largest import largest_of_block, largest_unread, top_frequency
from convkit.norms import operator_norm
from convkit.operators.dtypes import autocasts, widened, without_autocast
from convkit.operators.geometry import Padding, PaddingMode, Size, known_finite
from convkit.operators.operator import ConvOperator


class OperatorNorm(nn.Module):
    """Scale the weight so that the convolution's operator norm 2 on images of ``input_shape`` is ``bound``.

    The norm is that of the layer's torus (``ConvOperator.torus``): the layer's own for circular padding, an upper bound
    for zero padding, so that the layer's is ``bound`` at most. It is exact, by Fourier (``operator_norm``), each time
    the weight is read; the gradient goes through the norm, by its top pair of singular vectors. With ``every`` > 1 it
    is exact at every ``every``-th reading in training and always in evaluation; in between, it is the norm of the one
    block whose frequency was on top at the last exact reading: below the true norm by as much as another has overtaken
    it. Zero weights stay zero. The weight of a linear layer, ``(outputs, inputs)``, has ``input_shape`` 1. Raises
    ``NoFourierBlocks`` for geometries without a torus.

    >>> OperatorNorm(4)(torch.tensor([[[1.0, 2.0, 1.0]]])).round(decimals=3)
    tensor([[[0.2500, 0.5000, 0.2500]]])
    """

    frequency: Tensor
    group: Tensor
    readings: Tensor

    def __init__(
        self,
        input_shape: Size,
        stride: Size = 1,
        padding: Padding = "same",
        dilation: Size = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "circular",
        bound: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.geometry = (input_shape, stride, padding, dilation, groups, padding_mode)
        self.bound = positive("bound", bound, "; leave it out for the usual one")
        self.every = whole("every", every, 1, advice="; 1 is exact at each reading", floats=True)
        axes = len(sizes) if isinstance(sizes := plain(input_shape), Sequence) else 1
        self.register_buffer("frequency", torch.zeros(1, axes, dtype=torch.long))
        self.register_buffer("group", torch.zeros((), dtype=torch.long))
        self.register_buffer("readings", torch.zeros((), dtype=torch.long))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight scaled to the operator norm ``bound``, or unchanged where it is not finite."""
        if weight.is_meta:
            return weight
        # a backward pass may run under autocast, whatever the forward pass forbids: it leaves float64 alone
        kernel = weight.double() if autocasts(weight) else widened(weight)
        with without_autocast(weight):
            if self.every == 1 and kernel.is_cuda and kernel.dtype == torch.float32:
                return self._unread(weight, kernel)
            try:
                A = self._operator(kernel)
            except ValueError:
                if weight.isfinite().all():
                    raise
                return weight  # a diverged training shows in its loss, not here
            norm = self._norm(A).to(weight.dtype)
            return self.bound * weight / norm.clamp_min(torch.finfo(norm.dtype).tiny)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight itself, which is what is trained."""
        self._operator(widened(weight))  # raises for what has none
        self.readings.zero_()
        return weight

    def extra_repr(self) -> str:
        names = ("input_shape", "stride", "padding", "dilation", "groups", "padding_mode")
        text = ", ".join(f"{name}={value!r}" for name, value in zip(names, self.geometry, strict=True))
        return f"{text}, bound={self.bound:g}, every={self.every}"

    def _operator(self, weight: Tensor) -> ConvOperator:
        return ConvOperator(weight[..., None] if weight.ndim == 2 else weight, *self.geometry).torus()

    def _unread(self, weight: Tensor, kernel: Tensor) -> Tensor:
        """Return the scaled weight, or an infinite one as it is; the host of a GPU does not read which."""
        finite = kernel.detach().isfinite().all()
        with known_finite():
            A = self._operator(torch.where(finite, kernel, 0))
            norm = largest_unread(A).to(weight.dtype)
        return torch.where(finite, self.bound * weight / norm.clamp_min(torch.finfo(norm.dtype).tiny), weight)

    def _norm(self, A: ConvOperator) -> Tensor:
        """Return the operator norm, or that of the block that was on top at the last exact reading."""
        if self.every == 1 or not self.training:
            return operator_norm(A, 2)
        readings, group, *frequency = torch.cat([self.readings[None], self.group[None], self.frequency[0]]).tolist()
        where = torch.tensor([frequency], device="cpu")
        if readings % self.every == 0:
            where, group = top_frequency(Blocks(A))
            self.frequency.copy_(where)
            self.group.fill_(group)
        self.readings += 1
        block = Blocks(A, scale=1).group(group).at(where)[0, 0]
        if block.is_cuda:  # an SVD of one matrix takes ten times as long there
            return largest_of_block(block)
        U, _, Vh = torch.linalg.svd(block.detach(), full_matrices=False)
        return (U[:, 0].conj() @ block @ Vh[0].conj()).real
