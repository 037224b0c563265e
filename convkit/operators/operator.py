"""The central object: a convolution on inputs of one size, as a linear map."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convkit.operators.dtypes import in_full_precision
from convkit.operators.geometry import (
    NoFourierBlocks,
    Padding,
    PaddingMode,
    Pads,
    Size,
    axes_of,
    check_batch,
    check_kernel,
    check_padding_mode,
    known_finite,
    padding_pairs,
    positive_groups,
    positive_ints,
    sum_by_place,
    transposed_image,
)
from convkit.operators.layers import TRANSPOSED, HasOperator, has_operator, why_unreadable
from convkit.operators.padding import pad, unpad

MATRIX_LIMIT = 2**30  # bytes: a larger dense matrix is refused
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, eq=False)
class ConvOperator:
    """A bias-free convolution (1-D, 2-D or 3-D) on inputs of one size: an immutable linear map.

    ``kernel`` has torch's shape ``(c_out, c_in // groups, *kernel_size)``, float32 or float64, and is kept as it is:
    never copied, so that gradients flow to it. ``input_shape`` is the spatial size of the input. The geometry is
    torch's: the layer correlates, output ``t`` reads the pixels ``stride * t + dilation * j - before``. ``stride`` and
    ``dilation`` are one number or one per axis. ``padding`` is an int, a tuple of ints, a tuple of pairs ``(before,
    after)``, ``"valid"`` or ``"same"`` (``dilation * (k - 1)`` pixels per axis, the smaller half before, as torch
    does). ``padding_mode`` is ``"circular"`` (what leaves at one edge enters at the opposite one), ``"zeros"``,
    ``"reflect"`` or ``"replicate"``; taps of one window that read the same pixel add up. With ``transposed=True`` it is
    the transpose of the convolution that all this describes, which is what a transposed convolution does: its inputs
    are the outputs of that convolution.

    Raises ``TypeError`` or ``ValueError`` for other kernels, numbers that are not finite, and sizes of no convolution.

    >>> A = ConvOperator(torch.tensor([[[1.0, 2.0, 3.0]]]), 4)
    >>> A.matrix()
    tensor([[2., 3., 0., 1.],
            [1., 2., 3., 0.],
            [0., 1., 2., 3.],
            [3., 0., 1., 2.]])
    """

    kernel: Tensor
    input_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Literal["same"] | Pads
    dilation: tuple[int, ...]
    groups: int
    padding_mode: PaddingMode
    transposed: bool

    def __init__(
        self,
        kernel: Tensor,
        input_shape: Size,
        stride: Size = 1,
        padding: Padding = "same",
        dilation: Size = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "circular",
        transposed: bool = False,
    ) -> None:
        check_kernel(kernel)
        check_padding_mode(padding_mode)
        if not isinstance(transposed, bool):
            raise TypeError(f"transposed must be True or False, got {transposed!r}; A.T is the transpose of A")
        axes = kernel.ndim - 2
        self.__dict__.update(  # a frozen dataclass refuses self.kernel = kernel
            kernel=kernel,
            input_shape=positive_ints(input_shape, axes, "input_shape"),
            stride=positive_ints(stride, axes, "stride"),
            padding=padding_pairs(padding, axes),
            dilation=positive_ints(dilation, axes, "dilation"),
            groups=positive_groups(groups, kernel),
            padding_mode=padding_mode,
            transposed=transposed,
        )
        if min(self.windows) < 1:
            raise ValueError(
                f"the kernel must fit into the padded input, got kernel size {tuple(self.kernel.shape[2:])} with "
                f"dilation {self.dilation} on input {self.input_shape} with padding {self.pads}; "
                "use a larger input_shape or more padding"
            )

    @property
    def span(self) -> tuple[int, ...]:
        """Return the distance between the first and the last tap, ``dilation * (k - 1)`` pixels, for each axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel.shape[2:], strict=True))

    @property
    def pads(self) -> Pads:
        """Return the numbers of padded pixels ``(before, after)`` for each axis."""
        if self.padding == "same":
            return tuple((span // 2, span - span // 2) for span in self.span)
        return self.padding

    @property
    def windows(self) -> tuple[int, ...]:
        """Return how many windows of the kernel lie in the padded image, for each axis."""
        axes = zip(self.input_shape, self.pads, self.span, self.stride, strict=True)
        return tuple((n + sum(pads) - span - 1) // s + 1 for n, pads, span, s in axes)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Return the shape ``(c_in, *spatial)`` of one input."""
        return self._shapes[self.transposed]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Return the shape ``(c_out, *spatial)`` of one output."""
        return self._shapes[not self.transposed]

    @property
    def T(self) -> "ConvOperator":
        """Return the transpose, which has the same kernel and geometry and maps outputs to inputs."""
        return self._in_geometry(transposed=not self.transposed)

    def _in_geometry(self, **changes: Any) -> "ConvOperator":
        with known_finite():  # the kernel's numbers were read when this was made
            return replace(self, **changes)

    @property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self.kernel.shape[1] * self.groups, *self.input_shape), (self.kernel.shape[0], *self.windows)

    @property
    def is_block_circulant(self) -> bool:
        """Return whether the Fourier transform makes the matrix block-diagonal, so that the theory is exact.

        True where, on every axis, the stride divides the size and either the boundary is circular with ``span`` pixels
        of padding in all, or nothing is padded and the windows do not overlap (1 x 1 kernels, patch embeddings): then
        no window crosses the boundary, and its kind makes no difference.
        """
        axes = zip(self.input_shape, self.stride, self.span, self.pads, strict=True)
        circular = self.padding_mode == "circular"
        return all(
            n % s == 0 and ((circular and sum(pads) == span) or (pads == (0, 0) and span < s))
            for n, s, span, pads in axes
        )

    def __repr__(self) -> str:
        kernel = f"{tuple(self.kernel.shape)} {str(self.kernel.dtype).removeprefix('torch.')}"
        return (
            f"ConvOperator(kernel {kernel}, input_shape={self.input_shape}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"padding_mode={self.padding_mode!r}{', transposed=True' if self.transposed else ''})"
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``A x`` for a batch, what the torch layer computes: ``(batch, *in_shape)`` to ``(batch, *out_shape)``.

        Raises ``ValueError`` for another shape, dtype or device and ``TypeError`` for what is no tensor.
        """
        check_batch(x, self.in_shape, self.kernel)
        return self._to_image(x) if self.transposed else self._to_windows(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A* y`` for a batch, so that ``<A x, y> = <x, A* y>``.

        From shape ``(batch, *out_shape)`` to ``(batch, *in_shape)``. Raises as ``A(x)`` does.
        """
        check_batch(y, self.out_shape, self.kernel)
        return self._to_windows(y) if self.transposed else self._to_image(y)

    @property
    def _torchs_padding(self) -> tuple[int, ...] | None:
        """Return the padding that torch's convolution does without a padded copy, as many zeros on each side."""
        alike = self.padding_mode == "zeros" and all(before == after for before, after in self.pads)
        return tuple(before for before, _ in self.pads) if alike else None

    def _to_windows(self, x: Tensor) -> Tensor:
        inside = self._torchs_padding
        x = pad(x, self.pads, self.padding_mode) if inside is None else x
        return _CONV[len(self.input_shape)](x, self.kernel, None, self.stride, inside or 0, self.dilation, self.groups)

    def _to_image(self, y: Tensor) -> Tensor:
        transpose, inside = _TRANSPOSE[len(self.input_shape)], self._torchs_padding
        if inside is not None:
            axes = zip(self.input_shape, inside, self.span, self.stride, strict=True)
            rest = tuple((n + 2 * p - span - 1) % s for n, p, span, s in axes)  # pixels that no window reaches
            return transpose(y, self.kernel, None, self.stride, inside, rest, self.groups, self.dilation)
        x = transpose(y, self.kernel, None, self.stride, 0, 0, self.groups, self.dilation)
        return unpad(x, self.input_shape, self.pads, self.padding_mode)

    @in_full_precision
    def matrix(self) -> Tensor:
        """Return the dense matrix M, ``(prod(out_shape), prod(in_shape))``, with ``M @ x.flatten() == A(x).flatten()``.

        On a GPU, where TF32 would round them, the entries of a float32 kernel are found in float64. Raises
        ``ValueError`` where the matrix would take more than ``MATRIX_LIMIT`` bytes (1 GiB).
        """
        rows, columns = math.prod(self.out_shape), math.prod(self.in_shape)
        size = rows * columns * self.kernel.element_size()
        if size > MATRIX_LIMIT:
            raise ValueError(
                f"the dense matrix must take at most {MATRIX_LIMIT / 2**30:g} GiB, got {rows} x {columns} entries = "
                f"{size / 2**30:.1f} GiB; use A(x) and A.adjoint(y), or a smaller input_shape"
            )
        exact = self.kernel.is_cuda and self.kernel.dtype == torch.float32
        A = replace(self, kernel=self.kernel.double()) if exact else self
        identity = torch.eye(min(rows, columns), dtype=A.kernel.dtype, device=A.kernel.device)
        if rows < columns:
            found = A.adjoint(identity.unflatten(1, self.out_shape)).flatten(1)
        else:
            found = A(identity.unflatten(1, self.in_shape)).flatten(1).T
        return found.to(self.kernel.dtype)

    def circular(self) -> "ConvOperator":
        """Return the convolution with the same kernel and circular "same" padding, on inputs of the same size."""
        return self._in_geometry(padding="same", padding_mode="circular")

    def torus(self) -> "ConvOperator":
        """Return the larger circular operator of which this one is a submatrix.

        So the i-th singular value of the torus is at least the i-th of this operator. The rows and columns of a
        zero-padded operator are among those of the circular one on ``n + padding`` pixels (per axis the larger side, at
        most the span), rounded up to a multiple of the stride. A block-circulant operator is its own torus. Raises
        ``NoFourierBlocks`` for circular padding of another amount than "same", for a circular boundary whose stride
        does not divide the size, and for padding that reflects or replicates.
        """
        if self.is_block_circulant:
            return self
        if self.padding_mode in ("reflect", "replicate"):
            raise NoFourierBlocks(
                f"torus needs zero or circular padding, got {self.padding_mode!r}, which makes no part of a circular "
                "operator; use torus_bound(A) for an upper bound, leading_singular_values(A, k) or A.matrix(), which "
                "need no blocks, or A.circular() for its circular relative"
            )
        if self.padding_mode == "circular":
            raise NoFourierBlocks(
                f"torus needs zero padding, or circular padding {self.span} in all with a stride that divides the "
                f"size, got circular padding {self.pads} and stride {self.stride} on {self.input_shape}; "
                "use A.circular() on a size that the stride divides, or leading_singular_values(A, k) or A.matrix(), "
                "which need no blocks"
            )
        axes = zip(self.input_shape, self.pads, self.span, self.stride, strict=True)
        sizes = tuple(s * math.ceil((n + min(max(pads), span)) / s) for n, pads, span, s in axes)
        return self._in_geometry(input_shape=sizes, padding="same", padding_mode="circular")

    def kernel_on_image(self) -> Tensor:
        """Return each tap at the pixel that output 0 reads through it: ``(c_out, c_in // groups, *input_shape)``.

        Tap j lies at pixel ``(dilation * j - before) mod n``; taps at one pixel are summed. The FFT of this array is
        the conjugate symbol. Right for circular boundaries, and for boundaries that no window crosses.
        """
        kernel = self.kernel
        for number, axis in enumerate(axes_of(self), start=2):
            kernel = sum_by_place(kernel, number, axis._replace(outputs=1).reads()[0][0] % axis.size, axis.size)
        return kernel

    @staticmethod
    def from_layer(layer: "nn.Module | HasOperator", input_shape: Size) -> "ConvOperator":
        """Return the operator of a layer, without its bias, on inputs of the spatial size ``input_shape``.

        Takes ``Conv1d``, ``Conv2d``, ``Conv3d``, ``ConvTranspose1d``, ``ConvTranspose2d``, ``ConvTranspose3d`` (a
        transposed operator), ``Linear`` (a kernel of size 1; ``input_shape`` is the grid of positions it is applied to,
        ``(1, 1)`` for one), and any layer with a method ``operator(input_shape)``. A parametrized weight is read at
        once. Raises ``ValueError``, with advice, for every other layer.
        """
        if has_operator(layer):
            return layer.operator(input_shape)
        if reason := why_unreadable(layer):
            raise ValueError(reason)
        layer = cast(nn.Conv2d | nn.ConvTranspose2d | nn.Linear, layer)  # or a kind of 1 or 3 axes
        if is_lazy(layer.weight):
            check_kernel(layer.weight)
        if isinstance(layer, nn.Linear):
            axes = 1 if isinstance(input_shape, int) else len(input_shape)
            return ConvOperator(layer.weight[(..., *[None] * axes)], input_shape)
        padding = cast(Padding, layer.padding)  # torch says only that a word is a str
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        if not isinstance(layer, TRANSPOSED):
            return ConvOperator(layer.weight, input_shape, *geometry, layer.padding_mode)
        geometry = (layer.stride, cast(Size, padding), cast(Size, layer.output_padding), *geometry[2:])
        return transposed_convolution(layer.weight, input_shape, *geometry)


def transposed_convolution(
    kernel: Tensor,
    input_shape: Size,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> ConvOperator:
    """Return the operator of ``F.conv_transpose1d``, ``2d`` or ``3d`` with these arguments, on inputs of this size.

    It is the transpose of a zero-padded convolution on images as large as the outputs. Raises ``ValueError`` for an
    ``output_padding`` that reaches beyond every window.
    """
    image, pads = transposed_image(kernel, input_shape, stride, padding, output_padding, dilation)
    A = ConvOperator(kernel, image, stride, pads, dilation, groups, "zeros", transposed=True)
    if A.windows != positive_ints(input_shape, kernel.ndim - 2, "input_shape"):
        raise ValueError(
            f"a transposed convolution needs output_padding below padding + stride, got {output_padding}, {padding} "
            f"and {stride}; pad its output in a step of its own"
        )
    return A
