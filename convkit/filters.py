"""A convolution and a filter of its channels on a torus, taken together in the Fourier domain."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FLOOR = 1e-4  # of a channel's row norm: where its spectrum is smaller, the inverse root stops at that of the floor
NOTHING = 1e-30  # a channel with a smaller row norm counts as zero, and so does its inverse root
CHUNK = {False: 2**20, True: 2**28}  # bytes of a symbol's part at a time: what a cache holds; what a GPU can spare
FEW = 4  # frequencies at a time at least: each turn reads the whole kernel
Planes = tuple[Tensor, Tensor]  # real and imaginary part
Transforms = tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """Which pixels of a torus the outputs of a convolution read: window t begins at ``stride * t + start``.

    Images of ``sizes`` lie at the first pixels of the torus, zeros in the rest. A window that misses the image without
    having wrapped around gives zero. The frequencies are half of those of the torus, ``n_1 // 2 + 1`` by ``n_2``.
    """

    sizes: tuple[int, ...]
    torus: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    starts: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def half(self) -> int:
        """How many frequencies of the first axis are needed: the others are conjugate."""
        return self.torus[0] // 2 + 1

    def tables(self, weight: Tensor) -> Planes:
        """Cosines and sines of ``2 pi <f, d j / n>``, each ``(frequencies, taps)``."""
        return waves(self.torus, self.kernel_size, self.dilation, (0, 0), weight.device, weight.dtype)

    def symbol(self, weight: Tensor) -> Planes:
        """``sum_j a_j exp(2 pi i <f, d j / n>)``, real and imaginary part: ``(frequencies, c_out, c_in / groups)``."""
        taps = weight.flatten(2).permute(2, 0, 1)
        cos, sin = ((table @ taps.flatten(1)).unflatten(1, taps.shape[1:]) for table in self.tables(weight))
        return cos, sin

    def inverse_root(self, weight: Tensor) -> Tensor:
        """``(sum_i |a_ki(f)|^2)^(-1/2)``, shape ``(frequencies, c_out)``, in float64.

        The power spectrum is the transform of the channel's autocorrelation. Where it is below ``FLOOR`` squared times
        the squared row norm it counts as that; a channel of norm below ``NOTHING`` has inverse root 0.
        """
        rows = weight.flatten(2).double()
        gram = (rows.mT @ rows).flatten(1)  # of each pair of taps, summed over the input channels
        table, lags = _lag_waves(self.torus, self.kernel_size, self.dilation, weight.device)
        power = table @ gram.new_zeros(len(gram), table.shape[1]).index_add(1, lags, gram).T
        square = rows.square().sum((1, 2))
        there = ~(square <= NOTHING**2)  # so written, NaN counts as there and is seen
        power = torch.maximum(power, FLOOR**2 * square)
        return torch.where(there, torch.where(there, power, 1).rsqrt(), 0)

    def convolve(self, x: Tensor, weight: Tensor, scale: Tensor, groups: int) -> Tensor:
        """The outputs of the convolution times ``scale`` at each frequency and output channel, with gradients.

        Exact. The transforms are products with small matrices: they take only the pixels of the image and give only
        the outputs that are wanted, and one complex block a frequency is cheaper than the taps it stands for.
        """
        return _Convolve.apply(self, x, weight, scale, groups)  # pyright: ignore[reportReturnType]

    def to_blocks(self, x: Tensor, groups: int) -> Planes:
        """The transform of a batch, real and imaginary part: ``(frequencies, groups, batch, channels / groups)``."""
        rows, columns, *_ = _transforms(self, x.device, x.dtype)
        return _forth(x, rows, columns, self.half, groups)

    def to_outputs(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The wanted outputs of a transform with the shape that ``to_blocks`` gives."""
        *_, columns, rows = _transforms(self, real.device, real.dtype)
        return _back((real, imaginary), rows, columns, self.outputs)

    def from_outputs(self, y: Tensor, groups: int) -> Planes:
        """The adjoint of ``to_outputs``."""
        *_, columns, rows = _transforms(self, y.device, y.dtype)
        return _forth(y, rows.T, (columns[0].T, columns[1].T), self.half, groups)

    def from_blocks(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The adjoint of ``to_blocks``."""
        rows, columns, *_ = _transforms(self, real.device, real.dtype)
        return _back((real, imaginary), rows.T, (columns[0].T, columns[1].T), self.sizes)


class _Convolve(torch.autograd.Function):
    """The convolution of ``Windows.convolve``, a few frequencies at a time so that their symbols stay in the cache."""

    @staticmethod
    def forward(ctx: Any, windows: Windows, x: Tensor, weight: Tensor, scale: Tensor, groups: int) -> Tensor:
        blocks = windows.to_blocks(x, groups)
        ctx.windows, ctx.groups = windows, groups
        ctx.save_for_backward(x, weight, scale, *blocks)
        size = (scale * _times(windows, x.device, x.dtype)).unflatten(1, (groups, 1, -1))
        return windows.to_outputs(*(part.mul_(size) for part in _products(windows, weight, blocks)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        windows, groups = ctx.windows, ctx.groups
        x, weight, scale, *planes = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:4]
        if torch.is_grad_enabled():  # a derivative of the derivative is wanted: the plain products know it
            wanted = [t for t, need in zip((x, weight, scale), needed, strict=True) if need]
            found = iter(
                torch.autograd.grad(_plain(windows, x, weight, scale, groups), wanted, grads, create_graph=True)
            )
            return None, *(next(found) if need else None for need in needed), None
        blocks = planes[0], planes[1]
        grad = windows.from_outputs(grads[0], groups)
        of_scale, times = None, _times(windows, x.device, x.dtype)
        if needed[2]:
            outputs = _products(windows, weight, blocks)
            of_scale = ((grad[0] * outputs[0]).sum(2) + (grad[1] * outputs[1]).sum(2)).flatten(1) * times
        size = (scale * times).unflatten(1, (groups, 1, -1))
        grad = grad[0].mul_(size), grad[1].mul_(size)
        of_x = windows.from_blocks(*_products(windows, weight, grad, adjoint=True)) if needed[0] else None
        of_weight = _weight_gradient(windows, weight, grad, blocks) if needed[1] else None
        return None, of_x, of_weight, of_scale, None


def _products(windows: Windows, weight: Tensor, blocks: Planes, adjoint: bool = False) -> Planes:
    """``blocks @ symbol^T`` at each frequency; ``adjoint``: ``blocks @ conj(symbol)``. Zero where f stands for -f.

    A complex product takes three real ones: ``(a + ib)(c + id) = ac - bd + i ((a + b)(c + d) - ac - bd)``.
    """
    groups, batch = blocks[0].shape[1:3]
    shape = (len(blocks[0]), groups, batch, weight.shape[1] if adjoint else len(weight) // groups)
    out = weight.new_empty(shape), weight.new_empty(shape)
    cos, sin = windows.tables(weight)
    sin = -sin if adjoint else sin
    tables, taps = (cos, sin, cos + sin), weight.flatten(2).permute(2, 0, 1).flatten(1).contiguous()
    for some in _chunks(windows, weight):
        parts = ((table[some] @ taps).view(-1, len(weight) // groups, weight.shape[1]) for table in tables)
        c, d, both = parts if adjoint else (part.mT for part in parts)
        (a, b), (real, imaginary) = ((part[some].flatten(0, 1) for part in pair) for pair in (blocks, out))
        torch.bmm(a, c, out=real)
        torch.bmm(a + b, both, out=imaginary).sub_(real)
        product = torch.bmm(b, d)
        real.sub_(product)
        imaginary.sub_(product)
    for some in _mirrors(windows):
        for part in out:
            part[some].zero_()
    return out


def _weight_gradient(windows: Windows, weight: Tensor, grad: Planes, blocks: Planes) -> Tensor:
    """The adjoint of ``symbol`` on ``grad^T @ conj(blocks)``, by three real products, too."""
    cos, sin = windows.tables(weight)
    tables, taps = (cos - sin, cos + sin, sin), weight.new_zeros(cos.shape[1], weight[..., 0, 0].numel())
    for some in _chunks(windows, weight):
        (a, b), (c, d) = ((part[some].flatten(0, 1) for part in pair) for pair in (grad, blocks))
        for table, left, right in zip(tables, (a, b, a + b), (c, d, c - d), strict=True):
            taps.addmm_(table[some].T, torch.bmm(left.mT, right).view(-1, taps.shape[1]))
    return taps.T.reshape(weight.shape)


def _chunks(windows: Windows, weight: Tensor) -> Iterator[slice]:
    """The frequencies, but for those that another one stands for, a few at a time."""
    n1, n2 = windows.torus
    step = max(FEW, CHUNK[weight.is_cuda] // (weight.element_size() * weight[..., 0, 0].numel()))
    last = (windows.half - 1) * n2  # of the first axis, its own opposite if n1 is even
    whole = (
        [(0, n2 // 2 + 1), (n2, last), (last, last + n2 // 2 + 1)]
        if n1 % 2 == 0
        else [(0, n2 // 2 + 1), (n2, last + n2)]
    )
    for begin, end in whole:
        for start in range(begin, end, step):
            yield slice(start, min(start + step, end))


def _mirrors(windows: Windows) -> list[slice]:
    """The frequencies that another one stands for: on the first axis 0 or half, on the second beyond half."""
    (n1, n2), half = windows.torus, windows.half
    rows = {0, half - 1} if n1 % 2 == 0 else {0}
    return [slice(row * n2 + n2 // 2 + 1, (row + 1) * n2) for row in rows]


@functools.lru_cache(maxsize=256)
def _times(windows: Windows, device: torch.device, dtype: torch.dtype) -> Tensor:
    """How often each frequency counts beside what the rows' transform gives it: 2 if it stands for -f, ``(f, 1)``."""
    n2 = windows.torus[1]
    with torch.inference_mode(False):
        times = torch.ones(windows.half * n2, 1)
        for some in _mirrors(windows):
            times[some] = 0
            times[some.stop - n2 + 1 : some.stop - n2 // 2] = 2
        return times.to(device, dtype)


def _plain(windows: Windows, x: Tensor, weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    (a, b), size = windows.to_blocks(x, groups), scale.unflatten(1, (groups, 1, -1))
    c, d = (part.unflatten(1, (groups, -1)).mT for part in windows.symbol(weight))
    return windows.to_outputs((a @ c - b @ d) * size, (a @ d + b @ c) * size)


def _forth(x: Tensor, rows: Tensor, columns: Planes, half: int, groups: int) -> Planes:
    """Images to frequencies: ``rows`` takes the first axis to (real, imaginary) pairs, ``columns`` the second."""
    (batch, channels, h, w), full = x.shape, len(columns[0])
    x = x.reshape(batch * channels, h * w).t().contiguous()  # pixels first; of two axes, which torch transposes fast
    x = (rows @ x.view(h, w * batch * channels)).view(half, 2 * w, batch * channels)
    real, imaginary = ((table @ x).view(half * full, batch, groups, channels // groups) for table in columns)
    return real.transpose(1, 2).contiguous(), imaginary.transpose(1, 2).contiguous()


def _back(blocks: Planes, rows: Tensor, columns: Planes, sizes: tuple[int, ...]) -> Tensor:
    """Frequencies to images: ``columns`` takes the second axis to (real, imaginary) pairs, ``rows`` the first."""
    (_, groups, batch, channels), half = blocks[0].shape, rows.shape[1] // 2
    across = groups * batch * channels
    real, imaginary = (part.transpose(1, 2).reshape(half, len(part) // half, across) for part in blocks)
    from_real, from_imaginary = (table.expand(half, -1, -1) for table in columns)
    y = torch.baddbmm(from_imaginary @ imaginary, from_real, real).view(2 * half, sizes[1] * across)
    return (rows @ y).view(sizes[0] * sizes[1], across).t().contiguous().view(batch, groups * channels, *sizes)


@functools.lru_cache(maxsize=256)
def waves(
    torus: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    center: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of ``2 pi <f, (d j - center) / n>``, each ``(frequencies, taps)``."""
    with torch.inference_mode(False):  # tables made there could not be used in training
        pixels = (d * torch.arange(k) - c for k, d, c in zip(kernel_size, dilation, center, strict=True))
        rows, columns = (_angles(n, some) for n, some in zip(torus, pixels, strict=True))
        turns = rows[: torus[0] // 2 + 1, None, :, None] + columns[:, None, :]
        turns = turns.flatten(2).flatten(0, 1)
        return turns.cos().to(device, dtype), turns.sin().to(device, dtype)


@functools.lru_cache(maxsize=256)
def _lag_waves(
    torus: tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines for each lag between two taps, ``(frequencies, lags)``; and the place of the lag of each pair of taps."""
    with torch.inference_mode(False):
        taps = torch.cartesian_prod(*(torch.arange(k) for k in kernel_size))
        lags = (taps[:, None] - taps).flatten(0, 1)
        first = torch.where(lags[:, 0] != 0, lags[:, 0], lags[:, 1])
        lags = torch.where(first[:, None] < 0, -lags, lags)  # cosines do not tell a lag from its opposite
        lags, where = torch.unique(lags, dim=0, return_inverse=True)
        rows = _angles(torus[0], dilation[0] * lags[:, 0])[: torus[0] // 2 + 1]
        turns = rows[:, None] + _angles(torus[1], dilation[1] * lags[:, 1])
        return turns.cos().flatten(0, 1).to(device), where.to(device)


@functools.lru_cache(maxsize=256)
def _transforms(windows: Windows, device: torch.device, dtype: torch.dtype) -> Transforms:
    """Real matrices of the transform of the rows (half), of the columns, and back to the wanted outputs."""
    (n1, n2), (h, w) = windows.torus, windows.sizes
    with torch.inference_mode(False):
        angle = _angles(n1, torch.arange(h))[: windows.half]
        rows = torch.stack([angle.cos(), -angle.sin()], 1).flatten(0, 1)  # frequency by frequency (real, imaginary)
        angle = _angles(n2, torch.arange(w))
        columns = torch.cat([angle.cos(), angle.sin()], 1), torch.cat([-angle.sin(), angle.cos()], 1)
        back, wanted = [], []
        for axis, n in enumerate((n1, n2)):
            starts = windows.stride[axis] * torch.arange(windows.outputs[axis]) + windows.starts[axis]
            span = windows.dilation[axis] * (windows.kernel_size[axis] - 1)
            touches = (starts >= -span) & (starts < windows.sizes[axis])
            wanted.append(touches if n > windows.sizes[axis] or span == 0 else torch.ones_like(touches))
            back.append(_angles(n, starts).T)
        cos, sin = (wave * wanted[1][:, None] / n2 for wave in (back[1].cos(), back[1].sin()))
        columns_back = torch.cat([cos, sin]), torch.cat([-sin, cos])
        times = torch.full((windows.half,), 2.0, dtype=torch.float64)  # f stands for -f, too
        times[0] = 1
        if n1 % 2 == 0:
            times[-1] = 1
        angle = back[0][:, : windows.half]
        rows_back = torch.stack([angle.cos() * times, -angle.sin() * times], 2).flatten(1)
        rows_back = rows_back * wanted[0][:, None] / n1
        matrices = (rows, *columns, *columns_back, rows_back)
        rows, c0, c1, b0, b1, rows_back = (matrix.to(device, dtype) for matrix in matrices)
        return rows, (c0, c1), (b0, b1), rows_back


def _angles(n: int, pixels: Tensor) -> Tensor:
    return (torch.arange(n)[:, None] * pixels % n).double() * (2 * math.pi / n)  # (frequencies, pixels)
