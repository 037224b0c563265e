"""``LayerPolar2d``: a convolution whose operator is replaced by its polar factor, the whole layer at once."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from convkit.operators.geometry import Padding, PaddingMode, Size, check_padding_mode, padding_pairs, positive_ints
from convkit.operators.operator import ConvOperator
from convkit.projections.polar_factors import polar


class LayerPolar2d(nn.Module):
    """A convolution with all singular values 1 on its torus, in place of ``nn.Conv2d`` (Liu et al. 2021, section 5).

    ``ConvNorm2d`` makes each output channel a tight frame, one by one; their second open question is the layer as a
    whole. Here it is replaced by ``polar(A) = (A A^T)^(-1/2) A`` (of its transpose where it has more rows than
    columns): the nearest operator that keeps the length of every signal on one of its sides. ``A`` is the layer's
    operator on the torus: ``n`` pixels for ``padding_mode="circular"``, ``n + dilation * (k - 1)`` for zero padding,
    rounded up to a multiple of the stride; there the image stands among zeros, and the outputs are cropped. So no
    singular value of the layer is above 1. The normalization belongs to the current weights, in training and
    evaluation, and the derivative goes through it, exactly.

    ``affine`` adds a learnable factor, which starts at ``gain``, and a bias for each output channel. The cost is a
    decomposition of a matrix ``c_out x c_in`` for every other frequency, at each pass: of the order ``n^2 c^3``, where
    the convolution itself takes ``n^2 c^2 k^2`` for each image.

    From ``(batch, in_channels, height, width)`` to the output shape of ``nn.Conv2d`` with the same arguments. Raises
    ``ValueError`` for padding beyond ``dilation * (k - 1)``, for circular padding other than "same" or a stride that
    does not divide the image then, and inputs of another shape or dtype; and where the kernel loses rank while a
    derivative is asked for.

    >>> layer = LayerPolar2d(3, 2, 3, padding=1, padding_mode="circular", affine=False)
    >>> torch.linalg.svdvals(layer.operator((4, 4)).matrix().detach()).round(decimals=3).unique()
    tensor([1.])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "zeros",
        *,
        affine: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = (
            positive_ints(value, 2, name)
            for value, name in ((kernel_size, "kernel_size"), (stride, "stride"), (dilation, "dilation"))
        )
        check_padding_mode(padding_mode, ("circular", "zeros"))
        self.in_channels, self.out_channels, self.groups = (
            positive_ints(number, 1, name)[0]
            for number, name in ((in_channels, "in_channels"), (out_channels, "out_channels"), (groups, "groups"))
        )
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups must divide both channel numbers, got groups={groups} and {in_channels} to {out_channels} "
                "channels; take a common divisor of them"
            )
        self.padding, self.gain = padding, gain
        self.padding_mode: PaddingMode = padding_mode
        self.span = tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        pairs = padding_pairs(padding, 2)
        self.pads = tuple((s // 2, s - s // 2) for s in self.span) if pairs == "same" else pairs
        fits = all(max(pads) <= span for pads, span in zip(self.pads, self.span, strict=True))
        same = tuple(map(sum, self.pads)) == self.span
        if not fits or (padding_mode == "circular" and not same):
            raise ValueError(
                f"padding must be at most {self.span}, and add up to it where it is circular, got {self.pads}; use "
                "padding='same'"
            )
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.factor = nn.Parameter(torch.full((self.out_channels,), float(gain))) if affine else None
        self.bias = nn.Parameter(torch.zeros(self.out_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized convolution of a batch, or of one image ``(in_channels, height, width)``."""
        if x.ndim == 3:
            return self.forward(x[None])[0]
        kind = x.device.type
        x = x.to(self.weight.dtype) if torch.is_autocast_enabled(kind) else x
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.dtype != self.weight.dtype:
            raise ValueError(
                f"needed a batch of shape (batch, {self.in_channels}, height, width) and {self.weight.dtype}, got "
                f"{tuple(x.shape)} and {x.dtype}; the channels come second, and x.to(layer.weight) has its dtype"
            )
        with torch.autocast(kind, enabled=False):
            y = self._convolved(x)
            if self.factor is not None and self.bias is not None:
                y = y * self.factor[:, None, None] + self.bias[:, None, None]
        return y

    def operator(self, input_shape: Size, affine: bool = True) -> ConvOperator:
        """Return the layer's operator on its torus, without bias, with a kernel as large as the torus.

        Of the layer with circular padding it is the map itself; with zero padding the layer is a submatrix: for an
        image followed by zeros up to the torus, the first outputs are the layer's. It has the gradient of the layer.
        """
        A = self._normalized(positive_ints(input_shape, 2, "input_shape"))
        if not affine or self.factor is None:
            return A
        return ConvOperator(A.kernel * self.factor[:, None, None, None], A.input_shape, A.stride, groups=A.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding!r}"
        usual: dict[str, Any] = {"dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
        text += "".join(f", {name}={getattr(self, name)!r}" for name in usual if getattr(self, name) != usual[name])
        return text + ("" if self.factor is not None else ", affine=False")

    # ---- private ---------------------------------------------------------------------------------------------------
    def _normalized(self, sizes: tuple[int, ...]) -> ConvOperator:
        """Return the polar factor on the torus; a kernel of size 1 on an axis stays one, whatever the stride."""
        torus = sizes
        if self.padding_mode == "zeros":
            torus = tuple(-(-(n + span) // s) * s for n, span, s in zip(sizes, self.span, self.stride, strict=True))
        # pixels that no tap reads would be columns of zeros
        one = [k == 1 for k in self.kernel_size]
        read = tuple(1 if alone else n for alone, n in zip(one, torus, strict=True))
        steps = tuple(1 if alone else s for alone, s in zip(one, self.stride, strict=True))
        pads = tuple((before, span - before) for (before, _), span in zip(self.pads, self.span, strict=True))
        A = polar(ConvOperator(self.weight, read, steps, pads, self.dilation, self.groups))
        return ConvOperator(A.kernel, torus, self.stride, groups=self.groups)

    def _convolved(self, x: Tensor) -> Tensor:
        sizes = tuple(x.shape[2:])
        outputs = [
            (n + sum(pads) - span - 1) // s + 1
            for n, pads, span, s in zip(sizes, self.pads, self.span, self.stride, strict=True)
        ]
        if min(outputs) < 1:
            raise ValueError(
                f"the kernel must fit into the padded input, got kernel size {self.kernel_size} with dilation "
                f"{self.dilation} on input {sizes} with padding {self.pads}; use larger images or more padding"
            )
        A = self._normalized(sizes)
        kernel = torch.fft.rfft2(A.kernel, s=A.input_shape).conj().unflatten(0, (self.groups, -1))  # torch correlates
        images = torch.fft.rfft2(x, s=A.input_shape).unflatten(1, (self.groups, -1))
        spectrum = torch.einsum("goihw,ngihw->ngohw", kernel, images).flatten(1, 2)
        y = torch.fft.irfft2(spectrum, s=A.input_shape)
        y = y.roll([(n - 1) // 2 for n in A.kernel.shape[2:]], (2, 3))  # so far before an output lies its first tap
        (height, width), (down, right) = outputs, self.stride
        return y[..., : height * down : down, : width * right : right]
