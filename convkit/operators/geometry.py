"""The numbers that describe a convolution: argument types, checks, and which pixels each output reads."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from convkit.checks import described, plain, whole
from convkit.operators.tables import on

if TYPE_CHECKING:
    from convkit.operators.operator import ConvOperator

Size = int | Sequence[int]  # one number for all axes, or one per axis
Padding = Literal["same", "valid"] | int | Sequence[int] | Sequence[Sequence[int]]
PaddingMode = Literal["circular", "zeros", "reflect", "replicate"]
Pads = tuple[tuple[int, int], ...]  # pixels (before, after), one pair per axis


class NoFourierBlocks(ValueError):
    """Raised where the Fourier transform does not make an operator block-diagonal; the message names the ways out.

    >>> A = ConvOperator(torch.ones(1, 1, 3), 4, padding_mode="zeros")
    >>> try:
    ...     symbol(A)
    ... except NoFourierBlocks:
    ...     symbol(A.torus()).shape
    torch.Size([5, 1, 1])
    """


def check_kernel(kernel: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless this is a finite real kernel ``(c_out, c_in // groups, *size)``."""
    if not isinstance(kernel, Tensor):
        raise TypeError(f"kernel must be a torch tensor, got {type(kernel).__name__}; use torch.as_tensor(kernel)")
    if is_lazy(kernel):
        raise ValueError("kernel must have its numbers, got a lazy parameter; run the network once first")
    if kernel.is_meta:
        raise ValueError("kernel must have its numbers, got a tensor on the meta device; load the weights first")
    if kernel.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"kernel must be float32 or float64, got {kernel.dtype}; use kernel.double(), or for a complex kernel "
            "treat its real and imaginary parts as channels"
        )
    if not 3 <= kernel.ndim <= 5 or 0 in kernel.shape:
        raise ValueError(
            "kernel must have shape (c_out, c_in // groups, *kernel_size) with 1, 2 or 3 spatial axes and no axis "
            f"of size 0, got {tuple(kernel.shape)}; one filter of one channel is kernel[None, None]"
        )
    if _reads.get() and not math.isfinite(kernel.detach().abs().amax()):  # one pass less than isfinite().all()
        bad = int((~kernel.isfinite()).sum())
        raise ValueError(f"kernel must be finite, got {bad} NaN or infinite entries; look for where training diverged")


_reads: ContextVar[bool] = ContextVar("reads", default=True)  # whether check_kernel reads the numbers of a kernel


@contextmanager
def known_finite() -> Iterator[None]:
    """Context manager within which the numbers of kernels are not read: they were, or will be."""
    token = _reads.set(False)
    try:
        yield
    finally:
        _reads.reset(token)


def checked_at_once(compute: Callable[[], Tensor]) -> Tensor:
    """Return ``compute()``, numbers that cannot be finite unless all kernels in it are, with one check for all of them.

    A GPU is waited for once instead of once per kernel. If a number is not finite, all is computed again with the usual
    checks, so that the first kernel that is not finite raises its error.
    """
    with known_finite():
        numbers = compute()
    return numbers if numbers.isfinite().all() else compute()


def positive_ints(value: Size, axes: int, name: str) -> tuple[int, ...]:
    """Return an int or a sequence of ints as one positive int per axis; raise ``ValueError`` for anything else."""
    return _ints(value, axes, name, 1, "; give one number, or one per axis")


def padding_pairs(padding: Padding, axes: int) -> Literal["same"] | Pads:
    """Return ``"same"`` unchanged and every other padding as pairs of pixels ``(before, after)``, one per axis.

    Raises ``ValueError`` for negative numbers and for the wrong number of axes.
    """
    found: Any = plain(padding)
    if found == "same":
        return "same"
    if found == "valid":
        found = 0
    advice = "; give numbers of pixels, 'same' or 'valid', and for all overlaps k - 1"
    if isinstance(found, Sequence) and any(isinstance(side, list | tuple) for side in found):
        if len(found) != axes or any(not isinstance(side, list | tuple) for side in found):
            raise ValueError(
                f"padding must be one pair (before, after) for each of {axes} axes, got {described(padding)}; or give "
                "one number per axis"
            )
        sides = [_ints(side, 2, "padding", 0, advice) for side in found]
    else:
        sides = [(amount, amount) for amount in _ints(found, axes, "padding", 0, advice)]
    return tuple((before, after) for before, after in sides)


def transposed_image(
    kernel: Tensor, input_shape: Size, stride: Size, padding: Size, output_padding: Size, dilation: Size
) -> tuple[tuple[int, ...], Pads]:
    """Return the size of a transposed convolution's outputs, and the padding of the convolution that it transposes."""
    d = kernel.ndim - 2
    sizes = (positive_ints(value, d, name) for value, name in ((input_shape, "input_shape"), (stride, "stride")))
    cut, more = (padding_pairs(value, d) for value in (padding, output_padding))
    axes = list(zip(*sizes, positive_ints(dilation, d, "dilation"), kernel.shape[2:], cut, more, strict=True))
    image = tuple((n - 1) * s + step * (k - 1) + 1 - sum(pads) + extra for n, s, step, k, pads, (extra, _) in axes)
    return image, tuple((before, max(after - extra, 0)) for *_, (before, after), (extra, _) in axes)


def positive_groups(groups: int, kernel: Tensor) -> int:
    """Return ``groups`` as an int; raise ``ValueError`` unless it divides the kernel's output channels."""
    number = whole("groups", groups, 1, advice="; 1 is usual")
    if kernel.shape[0] % number:
        raise ValueError(
            f"groups must divide the output channels, got groups={number} and a kernel of shape "
            f"{tuple(kernel.shape)}; the kernel's shape is (c_out, c_in // groups, *kernel_size)"
        )
    return number


def check_padding_mode(padding_mode: str, known: tuple[str, ...] = get_args(PaddingMode)) -> None:
    """Raise ``ValueError`` unless this is one of the known padding modes, by default those of torch's convolutions."""
    if padding_mode not in known:
        raise ValueError(
            f"padding_mode must be one of {known}, got {padding_mode!r}; take the one nearest to the layer"
        )


def check_batch(x: object, shape: tuple[int, ...], kernel: Tensor) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless x is a non-empty batch of this shape, of the kernel's kind."""
    wanted = f"(batch, {', '.join(map(str, shape))})"
    if not isinstance(x, Tensor):
        raise TypeError(f"needed a tensor of shape {wanted}, got {type(x).__name__}; use torch.as_tensor(x)")
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"needed a batch of shape {wanted}, got {tuple(x.shape)}; a single input needs x.unsqueeze(0), "
            "an input of another size another operator"
        )
    if len(x) == 0:
        raise ValueError(f"needed a batch of at least one input, got shape {tuple(x.shape)}; skip empty batches")
    if x.dtype != kernel.dtype or x.device != kernel.device:
        raise ValueError(
            f"needed an input of the kernel's dtype and device, {kernel.dtype} on {kernel.device}, got {x.dtype} on "
            f"{x.device}; use x.to(A.kernel)"
        )


def _ints(value: Any, count: int, name: str, least: int, advice: str) -> tuple[int, ...]:
    found = plain(value)
    numbers = found if isinstance(found, Sequence) and not isinstance(found, str) else [found] * count
    if len(numbers) != count:
        raise ValueError(
            f"{name} must be one whole number or {count} of them, one per axis, got {described(value)}; give one for "
            "each spatial axis"
        )
    return tuple(whole(name, number, least, advice=advice) for number in numbers)


class Axis(NamedTuple):
    """One spatial axis of a convolution: the numbers that decide which pixels its outputs read."""

    size: int
    taps: int
    outputs: int
    stride: int
    dilation: int
    before: int  # pixels padded before the first one
    padding_mode: PaddingMode

    def reads(self) -> tuple[Tensor, Tensor]:
        """Return the pixel that each output reads through each tap, and whether it lies in the image.

        Both have shape ``(outputs, taps)``. A padded pixel that copies one of the image counts as that one.
        """
        windows, taps = torch.arange(self.outputs, device="cpu"), torch.arange(self.taps, device="cpu")
        pixels = self.stride * windows[:, None] + self.dilation * taps - self.before
        if self.padding_mode == "zeros":
            return pixels, (pixels >= 0) & (pixels < self.size)
        return pixels_at(pixels, self.size, self.padding_mode), torch.ones_like(pixels, dtype=torch.bool)


def meeting_taps(axis: Axis, per_pixel: bool = False) -> list[tuple[Tensor, int]]:
    """Return which taps are summed to each entry of a row of the axis' matrix: the different cases, and their numbers.

    A case is a matrix of zeros and ones ``(entries, taps)``, in which the order of the entries says nothing. With
    ``per_pixel=True`` the cases are those of the columns.
    """
    pixels, within = axis.reads()
    lines: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for output, tap in within.nonzero().tolist():
        pixel = int(pixels[output, tap])
        line, entry = (pixel, output) if per_pixel else (output, pixel)
        lines[line][entry].append(tap)
    cases = Counter(tuple(sorted(map(tuple, entries.values()))) for entries in lines.values())
    matrices: list[tuple[Tensor, int]] = []
    for case, times in cases.items():
        matrix = torch.zeros(len(case), axis.taps, device="cpu")
        for entry, taps in enumerate(case):
            matrix[entry, list(taps)] = 1
        matrices.append((matrix, times))
    return matrices


def sum_meeting_taps(kernel: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Return the kernel with taps summed axis by axis, as the cases of ``meeting_taps`` say."""
    for matrix in matrices:
        kernel = kernel.movedim(2, -1) @ matrix.T.to(kernel)  # the next axis of taps moves to place 2
    return kernel


def axes_of(A: "ConvOperator") -> list[Axis]:
    """Return the spatial axes of an operator; a transposed one has those of the convolution that it transposes."""
    numbers = zip(A.input_shape, A.kernel.shape[2:], A.windows, A.stride, A.dilation, A.pads, strict=True)
    return [Axis(n, k, outputs, s, d, before, A.padding_mode) for n, k, outputs, s, d, (before, _) in numbers]


def pixels_at(places: Tensor, n: int, padding_mode: PaddingMode) -> Tensor:
    """Return which of the pixels ``0 .. n - 1`` padding puts at these places, which may lie beyond the image.

    ``"circular"`` repeats the image, ``"reflect"`` mirrors it in its first and last pixel, ``"replicate"`` repeats
    these two pixels.
    """
    if padding_mode == "replicate":
        return places.clamp(0, n - 1)
    if padding_mode == "circular":
        return places % n
    period = max(2 * (n - 1), 1)  # one pixel is its own mirror image
    return (n - 1) - (places % period - (n - 1)).abs()


def sum_by_place(x: Tensor, axis: int, places: Tensor, size: int) -> Tensor:
    """Return x with entry j of ``axis`` added to entry ``places[j]`` of an axis of ``size`` zeros."""
    zeros = x.new_zeros(*x.shape[:axis], size, *x.shape[axis + 1 :])
    return zeros.index_add(axis, on(places, x), x)
