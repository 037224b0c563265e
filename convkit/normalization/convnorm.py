"""``ConvNorm2d``, the normalized convolution of Liu et al. 2021."""

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.normalization.filtered import filtered_convolution
from convkit.normalization.torus import TorusConvolution, phase_tables, traced
from convkit.normalization.whole import few_operators
from convkit.operators.dtypes import autocasts, without_autocast
from convkit.operators.geometry import Padding, PaddingMode, Size, check_padding_mode, padding_pairs, positive_ints
from convkit.operators.operator import ConvOperator
from convkit.operators.padding import pad


class ConvNorm2d(nn.Module):
    """A bias-free convolution whose output channels are tight frames, in place of ``nn.Conv2d`` (Liu et al. 2021).

    From ``(batch, in_channels, height, width)`` to the output shape of ``nn.Conv2d`` with the same arguments. The
    convolution is computed where it is circular: on the torus of ``n + dilation * (k - 1)`` pixels for zero padding
    (the image with all overlaps), of ``n`` pixels for ``padding_mode="circular"`` (which needs "same" padding). There
    each output channel's spectrum is multiplied by ``v_k = (sum_j |a_kj|^2)^(-1/2)``, so that ``Q_k Q_k^T = I``
    (eq. 7, Proposition 3.1); then the map is cropped to the padding of the layer, and every s-th sample is taken.
    Where padding beyond ``dilation * (k - 1)`` lets a window miss the image, outputs are zero as those of
    ``nn.Conv2d``. A kernel of size 1 is divided by its row norms.

    ``v`` belongs to the current weights, in training and evaluation (the authors evaluate with a running average). In
    evaluation mode on the CPU it is stored with a copy of the weight and used again as long as the weight equals that
    copy in every number and the input size is the same: no change is missed, however it was made. On a GPU, where the
    comparison would make the host wait, v is computed at every call, as it is in a compiled, exported or traced network
    and for weights that are not parameters of the layer (parametrized ones, those of ``torch.func``). What
    ``torch.jit.trace`` makes of the layer is for evaluation: its derivatives do not hold v constant.

    On a GPU a forward and a backward pass start 31 operators where a convolution with BatchNorm starts 5, and small
    layers take as long as the host needs to start them. The passes do not wait for the GPU, and after the first one
    copy nothing to it: so with images of a fixed shape a CUDA graph starts them all at once,
    ``torch.cuda.make_graphed_callables(layer, (x,))`` for an ``x`` with the shape, dtype and ``requires_grad`` of the
    images to come. (On an H200 128 images took 4.4 to 6.4 ms with 143 operators, and 1.2 to 2 ms as a graph of them.)

    ``v`` is computed from a float64 power spectrum. Where the spectrum's root is below 1e-4 (``torus.FLOOR``) of the
    channel's row norm, v stops at the inverse of that; all other frequencies are as in eq. 7. A zero channel has zero
    outputs. Autocast changes neither the normalized outputs nor their derivatives, which are computed in the weight's
    dtype: only the affine follows it, and bfloat16 saves no time here. (On a GPU there is one exception: second
    derivatives for kernels of size 1, which are those of torch's convolution.)

    Derivatives of every order are exact in reverse mode, also where the layer is used several times or its input
    depends on its weight; forward mode raises an error. With ``through=True`` they are the derivatives of the outputs.
    Otherwise ``v`` counts as constant, as in section 3.3: they are the derivatives, of every order, of the outputs with
    v held at its present value. The second derivative is then not the rate of change of the first one, in which v
    would move, too.

    ``affine`` adds a learnable depthwise convolution ``r`` with bias on the output: zero-padded (or circular) "same",
    of the kernel's size rounded up to odd numbers so that it has a center. The paper writes it before the stride; this
    layer applies it after the stride as the authors' code does, with which their results were made, and which is
    ``prod(stride)`` times cheaper. It starts at ``gain`` times the identity (the authors' random start does not train);
    ``gain=2**0.5`` makes up for the ReLU where no BatchNorm follows.

    Raises ``ValueError`` for sizes that describe no convolution, a ``gain`` that is not finite, circular padding other
    than "same", and inputs of another shape or dtype.

    >>> layer = ConvNorm2d(3, 2, 3, padding="same", padding_mode="circular", affine=False)
    >>> rows = layer.operator((8, 8)).matrix().detach().unflatten(0, (2, 64))[0]  # of output channel 0
    >>> torch.allclose(rows @ rows.T, torch.eye(64), atol=1e-5)
    True
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
        through: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = positive_ints(kernel_size, 2, "kernel_size")
        self.stride, self.dilation = positive_ints(stride, 2, "stride"), positive_ints(dilation, 2, "dilation")
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
        if not math.isfinite(gain):
            raise ValueError(f"gain must be a finite number, got {gain}; 1 is the identity, 2**0.5 suits ReLU")
        self.padding, self.through = padding, through
        self.padding_mode: PaddingMode = padding_mode
        self.span = tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        pairs = padding_pairs(padding, 2)
        self.pads = tuple((s // 2, s - s // 2) for s in self.span) if pairs == "same" else pairs
        if padding_mode == "circular" and tuple(map(sum, self.pads)) != self.span:
            raise ValueError(
                f"circular padding must be {self.span} in all ('same'), got {self.pads}: with another amount the "
                "convolution is not circular; use padding='same' or padding_mode='zeros'"
            )
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, **options))
        self.register_parameter("bias", None)  # code that meets nn.Conv2d asks for it
        self.gain = gain
        if affine:
            self.affine_weight = nn.Parameter(
                torch.empty(self.out_channels, 1, *(k | 1 for k in self.kernel_size), **options)
            )
            self.affine_bias = nn.Parameter(torch.empty(self.out_channels, **options))
        else:
            self.register_parameter("affine_weight", None)
            self.register_parameter("affine_bias", None)
        # in evaluation: a copy of the weight, and its v
        self._kept: tuple[TorusConvolution, Tensor, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel as torch does by default and set the affine to ``gain`` times the identity."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.affine_weight is not None:
            with torch.no_grad():
                self.affine_weight.zero_()
                self.affine_weight[:, :, self.affine_weight.shape[2] // 2, self.affine_weight.shape[3] // 2] = self.gain
                self.affine_bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized convolution of a batch, or of one image ``(in_channels, height, width)``."""
        if x.ndim == 3:
            return self.forward(x[None])[0]
        weight = self.weight
        if autocasts(x):
            x = x.to(weight.dtype)
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.dtype != weight.dtype:
            raise ValueError(
                f"needed a batch of shape (batch, {self.in_channels}, height, width) and {weight.dtype}, got "
                f"{tuple(x.shape)} and {x.dtype}; the channels come second, and x.to(layer.weight) has its dtype"
            )
        with without_autocast(x):  # the spectrum needs the digits of float32
            y = self._normalized(x, weight)
        if self.affine_weight is None:
            return y
        around = self._around()
        if self.padding_mode == "circular":
            if not few_operators(x):  # which give padded outputs
                y = pad(y, [(before, before) for before in around], "circular")
            around = 0
        return F.conv2d(y, self.affine_weight, self.affine_bias, padding=around, groups=self.out_channels)

    def operator(self, input_shape: Size, affine: bool = True) -> ConvOperator:
        """Return the layer's circular operator on its torus, without biases, with a kernel as large as the torus.

        The kernel is ``v * a``, on inputs of the size of the torus: ``n + dilation * (k - 1)`` for zero padding, n for
        circular, where n is ``input_shape``. The layer without affine is a submatrix: for x padded with zeros at its
        end to the torus, the first outputs are the layer's (those whose windows touch the image). So the singular
        values of the operator bound the layer's, index by index, and equal them for the circular variant. With
        ``affine`` its kernel is included, dilated by the stride that it follows; that is the layer's map for the
        circular variant, and for zero padding wherever the affine does not reach beyond the cropped map (everywhere at
        the start). On an axis whose stride does not divide the torus the operator has stride 1, and the layer's outputs
        are among its rows. The kernel has the gradient of the layer: v is constant unless ``through``. Raises
        ``ValueError`` where the kernel does not fit into the padded input.
        """
        geometry = self._geometry(positive_ints(input_shape, 2, "input_shape"))
        stride = tuple(s if n % s == 0 else 1 for s, n in zip(self.stride, geometry.torus, strict=True))
        weight = self.weight.double()
        filtered = self._scale(self.weight, geometry)
        if affine and self.affine_weight is not None:
            kernel = self.affine_weight.double()
            center = tuple(s * (k // 2) for s, k in zip(self.stride, kernel.shape[2:], strict=True))
            size = tuple(kernel.shape[2:])
            cos, sin = phase_tables(geometry.torus, size, self.stride, center, False, kernel.device, kernel.dtype)
            filtered = filtered * torch.complex(cos @ kernel.flatten(1).T, sin @ kernel.flatten(1).T)
        if self.span == (0, 0) and self.pads == ((0, 0), (0, 0)):  # one tap, whatever the torus
            kernel = (weight * filtered.real[0, :, None, None, None]).to(self.weight.dtype)
            return ConvOperator(kernel, geometry.input_shape, stride, 0, groups=self.groups)
        spectrum = torch.complex(*geometry.symbol(weight)) * filtered[:, :, None]
        # the half axis last, as irfft2 wants it; conj: torch correlates, so that the symbol is the conjugate transform
        spectrum = spectrum.permute(1, 2, 0).unflatten(2, (geometry.half, -1)).mT.conj()
        taps = torch.fft.irfft2(spectrum, s=geometry.torus[::-1]).mT  # tap j lies on pixel j - (padding before) (mod n)
        shift = tuple((n - 1) // 2 - before for n, (before, _) in zip(geometry.torus, self.pads, strict=True))
        return ConvOperator(taps.roll(shift, (2, 3)).to(self.weight.dtype), geometry.torus, stride, groups=self.groups)

    def to_conv(self, input_shape: Size) -> nn.Sequential:
        """Return plain convolutions that compute what the layer does now, on images of ``input_shape`` only.

        The normalization does not depend on the images, so the layer is linear; but its kernel is as large as the
        torus, and depends on the size of the images. The first convolution, ``conv``, has this kernel: for circular
        padding it has n taps on an axis of n pixels (one more, of zeros, where n is even), for zero padding
        ``n + stride * (outputs - 1)``, since each output reads the whole image. The second one, ``affine``, is a copy
        of the layer's affine, if it has one. Both have the layer's dtype, device and padding mode. They are meant for
        tools that know ``nn.Conv2d`` only; the layer itself is much faster.

        Raises ``ValueError`` for padding beyond ``dilation * (kernel_size - 1)`` and for a circular affine that reaches
        more than once around its input, ``TypeError`` for weights that are neither float32 nor float64.

        >>> layer, x = ConvNorm2d(3, 2, 3, padding=1), torch.randn(4, 3, 5, 6)
        >>> torch.allclose(layer.to_conv((5, 6))(x), layer(x), atol=1e-5)
        True
        """
        geometry = self._geometry(positive_ints(input_shape, 2, "input_shape"))
        circular, outputs = self.padding_mode == "circular", geometry.output_shape
        if any(amount > span for pads, span in zip(self.pads, self.span, strict=True) for amount in pads):
            raise ValueError(
                f"to_conv needs padding of at most dilation * (kernel_size - 1) = {self.span}, got {self.pads}: the "
                "layer's outputs beyond are set to zero; use less padding, and pad the outputs by F.pad"
            )
        if circular and any(side > n for side, n in zip(self._around(), outputs, strict=True)):
            raise ValueError(
                f"to_conv needs a circular affine that reaches once around its input at most, got {self._around()} "
                f"pixels on either side of {outputs}; use larger images or affine=False"
            )
        with torch.no_grad():
            kernel, sides = self.operator(geometry.input_shape, affine=False).kernel.detach(), [0, 0]
            for axis, n in enumerate(geometry.torus if self.span != (0, 0) else ()):
                before = n // 2 if circular else self.stride[axis] * (outputs[axis] - 1)
                after = n // 2 if circular else geometry.input_shape[axis] - 1
                # tap j of the operator reads the pixel that lies j - (n - 1) // 2 further on the torus
                taps = (torch.arange(-before, after + 1, device=kernel.device) + (n - 1) // 2) % n
                kernel, sides[axis] = kernel.index_select(2 + axis, taps), before
                if circular and n % 2 == 0:
                    kernel.select(2 + axis, 0).zero_()  # the same pixel as the last tap's
            parts: OrderedDict[str, nn.Module] = OrderedDict(
                conv=_plain(kernel, self.stride, sides, self.groups, self.padding_mode, None)
            )
            if self.affine_weight is not None:
                geometry_of_affine = (1, 1), self._around(), self.out_channels, self.padding_mode
                parts["affine"] = _plain(self.affine_weight, *geometry_of_affine, self.affine_bias)
        return nn.Sequential(parts).train(self.training)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding!r}"
        for name, usual in (("dilation", (1, 1)), ("groups", 1), ("padding_mode", "zeros"), ("through", False)):
            text += f", {name}={getattr(self, name)!r}" if getattr(self, name) != usual else ""
        return text + ("" if self.affine_weight is not None else ", affine=False")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # not copied, not saved

    # ---- private ---------------------------------------------------------------------------------------------------
    def _normalized(self, x: Tensor, weight: Tensor) -> Tensor:
        sizes = map(int, x.shape[2:]) if traced() else x.shape[2:]  # a trace has tensors for sizes
        geometry = self._geometry(tuple(sizes), few_operators(x))
        scale = self._scale(weight, geometry)  # (frequencies, c_out)
        kind, wide = weight.dtype, torch.promote_types(weight.dtype, torch.float32)
        x, weight, scale = x.to(wide), weight.to(wide), scale.to(wide)
        if self.span == (0, 0):  # v is constant over the frequencies
            x = pad(x, self.pads, self.padding_mode) if any(map(any, self.pads)) else x
            y = F.conv2d(x, weight * scale[0, :, None, None, None], None, self.stride, 0, 1, self.groups)
        else:
            y = filtered_convolution(geometry, x, weight, scale, self.groups)
        return y.to(kind)

    def _around(self) -> tuple[int, ...]:
        """Return the padding of the affine."""
        return (0, 0) if self.affine_weight is None else tuple(k // 2 for k in self.affine_weight.shape[2:])

    def _geometry(self, sizes: tuple[int, ...], whole: bool = False) -> TorusConvolution:
        circular = self.padding_mode == "circular"
        torus = tuple(n if circular else n + span for n, span in zip(sizes, self.span, strict=True))
        outputs = tuple(
            (n + sum(pads) - span - 1) // s + 1
            for n, pads, span, s in zip(sizes, self.pads, self.span, self.stride, strict=True)
        )
        if min(outputs) < 1:
            raise ValueError(
                f"the kernel must fit into the padded input, got kernel size {self.kernel_size} with dilation "
                f"{self.dilation} on input {sizes} with padding {self.pads}; use larger images or more padding"
            )
        before = tuple(before for before, _ in self.pads)
        wrapped = self._around() if whole and circular else (0, 0)
        steps = self.kernel_size, self.dilation, self.stride
        return TorusConvolution(sizes, torus, *steps, before, outputs, whole, wrapped)

    def _scale(self, weight: Tensor, geometry: TorusConvolution) -> Tensor:
        """Return v at each frequency of the torus, shape (frequencies, c_out), float64."""
        if self.through and torch.is_grad_enabled():
            return geometry.inverse_root(weight)
        with torch.no_grad():
            if self.training or not _comparable(weight):
                return geometry.inverse_root(weight)
            kept = self._kept  # read once: another thread may put its own in place
            if kept is None or kept[0] != geometry or not _same(kept[1], weight):
                with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be used in a gradient
                    copy = weight.clone()
                    kept = self._kept = (geometry, copy, geometry.inverse_root(copy))
            return kept[2]


def _plain(
    kernel: Tensor, stride: Any, padding: Any, groups: int, padding_mode: PaddingMode, bias: Tensor | None
) -> nn.Conv2d:
    """Return torch's convolution with copies of a kernel and a bias."""
    c_out, c_in, *size = kernel.shape
    sizes: Any = (c_in * groups, c_out, tuple(size), tuple(stride), tuple(padding), 1, groups)
    options: Any = {"bias": bias is not None, "padding_mode": padding_mode, "dtype": kernel.dtype, "device": "meta"}
    conv = nn.Conv2d(*sizes, **options).to_empty(device=kernel.device)  # draws no random weights
    conv.weight.copy_(kernel)
    if bias is not None and conv.bias is not None:
        conv.bias.copy_(bias)
    return conv


def _comparable(weight: Tensor) -> bool:
    """Return whether the numbers of a weight can be compared at once, without waiting for a GPU."""
    seen = torch.compiler.is_compiling() or traced()  # by what would take a comparison for a constant
    return type(weight) is nn.Parameter and weight.device.type == "cpu" and not seen


def _same(kept: Tensor, weight: Tensor) -> bool:
    return kept.dtype == weight.dtype and torch.equal(kept, weight)
