"""The Fourier side of a convolution on a torus: its symbol, its channels' inverse roots, transforms of images."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

FLOOR = 1e-4  # of a channel's row norm: where its spectrum is smaller, the inverse root stops at that of the floor
NOTHING = 1e-30  # a channel with a smaller row norm counts as zero, and so does its inverse root
P = ParamSpec("P")
T = TypeVar("T")
Planes = tuple[Tensor, Tensor]  # real and imaginary part
Transforms = tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]


def remembered(build: Callable[P, T]) -> Callable[P, T]:
    """``functools.lru_cache`` for tensors: what a compiler traces has no numbers, and must not meet a later call."""
    kept = functools.lru_cache(maxsize=256)(build)

    @functools.wraps(build)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> T:
        return build(*args, **kwargs) if torch.compiler.is_compiling() else kept(*args, **kwargs)

    return look_up


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


@remembered
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


@remembered
def _lag_waves(
    torus: tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines for each lag between two taps, ``(frequencies, lags)``; and the place of the lag of each pair of taps."""
    with torch.inference_mode(False):
        (k1, k2), width = kernel_size, 2 * kernel_size[1] - 1
        places = (width * torch.arange(k1)[:, None] + torch.arange(k2)).flatten()
        where = (places[:, None] - places).abs().flatten()  # cosines do not tell a lag from its opposite
        lags = torch.arange((k1 - 1) * width + k2)
        down = (lags + k2 - 1) // width
        rows = _angles(torus[0], dilation[0] * down)[: torus[0] // 2 + 1]
        turns = rows[:, None] + _angles(torus[1], dilation[1] * (lags - width * down))
        return turns.cos().flatten(0, 1).to(device), where.to(device)


@remembered
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
