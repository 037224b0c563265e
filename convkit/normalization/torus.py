"""The Fourier side of ConvNorm2d: symbol, inverse roots and image transforms of a 2-D convolution on a torus.

``convkit.engine.blocks`` finds singular values and needs each block once, on the smallest torus that has them all;
a layer also transforms a batch of images at every step, which is fastest as products with two small matrices, one per
axis. So the frequencies are a grid here, ``n1 // 2 + 1`` by ``n2``, instead of a list of one of each pair {f, -f}, and
complex numbers are pairs of real tensors. The tables are kept for each geometry, device and dtype.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-4  # of a channel's row norm: where its spectrum is smaller, the inverse root stops at that of the floor
NOTHING = 1e-30  # a channel with a smaller row norm counts as zero, and so does its inverse root
P = ParamSpec("P")
T = TypeVar("T")
Parts = tuple[Tensor, Tensor]  # real and imaginary part
X, WEIGHT, SCALE, Y = range(4)  # the factors of ``<y, outputs>``


def cached_tables(build: Callable[P, T]) -> Callable[P, T]:
    """Cache the tensors that a function returns, except while a compiler traces it, when they hold no numbers.

    They are made outside of inference mode and of the transforms of ``torch.func``: tensors from inside could not be
    used in training, or after the transform.
    """

    def build_outside(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False):
            return build(*args, **kwargs)

    @functools.lru_cache(maxsize=256)
    def cached(*args: P.args, **kwargs: P.kwargs) -> T:
        trace = torch._C._get_tracing_state()  # of torch.jit: it sees the tables as constants
        torch._C._set_tracing_state(None)  # pyright: ignore
        try:
            with torch._C._DisableFuncTorch():  # pyright: ignore
                return build_outside(*args, **kwargs)
        finally:
            torch._C._set_tracing_state(trace)  # pyright: ignore

    @functools.wraps(build)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> T:
        return build_outside(*args, **kwargs) if torch.compiler.is_compiling() else cached(*args, **kwargs)

    return look_up


def traced() -> bool:
    """Return whether ``torch.jit`` traces."""
    return torch._C._get_tracing_state() is not None


@dataclass(frozen=True)
class TorusConvolution:
    """The geometry of a 2-D convolution on a torus: output t reads the pixels from ``stride * t - before`` on.

    Images of ``input_shape`` lie at the first pixels of the torus, zeros in the rest. An output whose window lies
    beyond the image is zero, even where the window enters again at the first pixels. The frequencies are half of those
    of the torus, ``half`` by ``torus[1]``; with ``whole``, which is for a GPU, half of those of the second axis, by
    ``torus[0]``. ``wrapped`` outputs of each axis are repeated on either side, as circular padding does.
    """

    input_shape: tuple[int, ...]
    torus: tuple[int, ...]
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    output_shape: tuple[int, ...]
    whole: bool = False
    wrapped: tuple[int, ...] = (0, 0)

    @property
    def half(self) -> int:
        """The number of frequencies of one axis that are needed; the others are conjugate."""
        return self.torus[1 if self.whole else 0] // 2 + 1

    def output_pixels(self, axis: int) -> Parts:
        """Return where the window of each output begins, and whether it touches the image, beyond which there is none.

        The windows of a circular convolution (a torus of the size of the image) all touch it.
        """
        size, n = self.input_shape[axis], self.torus[axis]
        extra = self.wrapped[axis]
        outputs = torch.arange(-extra, self.output_shape[axis] + extra, device="cpu") % self.output_shape[axis]
        starts = self.stride[axis] * outputs - self.before[axis]
        span = self.dilation[axis] * (self.kernel_size[axis] - 1)
        touches = (starts >= -span) & (starts < size)
        return starts, touches if n > size or span == 0 else torch.ones_like(touches)

    def phases(self, weight: Tensor) -> Parts:
        """Return cosines and sines of ``2 pi <f, d j / n>``, each ``(frequencies, taps)``."""
        geometry = self.torus, self.kernel_size, self.dilation, (0, 0), self.whole
        return phase_tables(*geometry, weight.device, weight.dtype)

    def symbol(self, weight: Tensor) -> Parts:
        """Return ``sum_j a_j exp(2 pi i <f, d j / n>)``, each part ``(frequencies, c_out, c_in / groups)``."""
        taps = weight.flatten(2).permute(2, 0, 1)
        cos, sin = ((table @ taps.flatten(1)).unflatten(1, taps.shape[1:]) for table in self.phases(weight))
        return cos, sin

    def inverse_root(self, weight: Tensor) -> Tensor:
        """Return ``(sum_i |a_ki(f)|^2)^(-1/2)``, shape ``(frequencies, c_out)``, in float64.

        The power spectrum is the transform of the channel's autocorrelation. Where it is below ``FLOOR`` squared times
        the squared row norm it counts as that; a channel of norm below ``NOTHING`` has inverse root 0.
        """
        rows = weight.flatten(2).double()
        gram = (rows.mT @ rows).flatten(1)  # of each pair of taps, summed over the input channels
        if self.whole:  # the same by fewer operators; the last row of a table makes the floor
            sums, cosines = _power_tables(self.torus, self.kernel_size, self.dilation, weight.device)
            power = cosines @ (sums @ gram.T)
            floor = F.threshold(power[-1], (FLOOR * NOTHING) ** 2, math.inf)
            return torch.maximum(power[:-1], floor).rsqrt()
        table, lags = _lag_cosines(self.torus, self.kernel_size, self.dilation, weight.device)
        power = table @ gram.new_zeros(len(gram), table.shape[1]).index_add(1, lags, gram).T
        square = rows.square().sum((1, 2))
        there = ~(square <= NOTHING**2)  # so written, NaN counts as there and is seen
        power = torch.maximum(power, FLOOR**2 * square)
        return torch.where(there, torch.where(there, power, 1).rsqrt(), 0)

    def to_frequencies(self, x: Tensor, groups: int) -> Parts:
        """Return the transform of a batch, each part ``(frequencies, groups, batch, channels / groups)``."""
        rows, *columns = _input_matrices(self, x.device, x.dtype)
        return _to_frequencies(x, rows, columns, groups)

    def to_outputs(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Return the outputs of a transform with the shape that ``to_frequencies`` gives."""
        rows, *columns = _output_matrices(self, real.device, real.dtype)
        return _to_images((real, imaginary), rows, columns, self.output_shape)

    def from_outputs(self, y: Tensor, groups: int) -> Parts:
        """Apply the adjoint of ``to_outputs``."""
        rows, *columns = _output_matrices(self, y.device, y.dtype)
        return _to_frequencies(y, rows.T, [table.T for table in columns], groups)

    def from_frequencies(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Apply the adjoint of ``to_frequencies``."""
        rows, *columns = _input_matrices(self, real.device, real.dtype)
        return _to_images((real, imaginary), rows.T, [table.T for table in columns], self.input_shape)


@cached_tables
def phase_tables(
    torus: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    center: tuple[int, ...],
    whole: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Parts:
    """Return cosines and sines of ``2 pi <f, (d j - center) / n>``, each ``(frequencies, taps)``."""
    pixels = (d * torch.arange(k, device="cpu") - c for k, d, c in zip(kernel_size, dilation, center, strict=True))
    phases = _grid_angles(torus, torch.cartesian_prod(*pixels), whole)
    return phases.cos().to(device, dtype), phases.sin().to(device, dtype)


@cached_tables
def _lag_cosines(
    torus: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    device: torch.device,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return cosines for the lags between two taps, ``(frequencies, lags)``; and which lag each pair of taps has."""
    (k1, k2), width = kernel_size, 2 * kernel_size[1] - 1
    places = (width * torch.arange(k1, device="cpu")[:, None] + torch.arange(k2, device="cpu")).flatten()
    index = (places[:, None] - places).abs().flatten()  # cosines do not tell a lag from its opposite
    lags = torch.arange((k1 - 1) * width + k2, device="cpu")
    down = (lags + k2 - 1) // width
    pixels = torch.stack([dilation[0] * down, dilation[1] * (lags - width * down)], 1)
    return _grid_angles(torus, pixels, whole).cos().to(device), index.to(device)


@cached_tables
def _power_tables(
    torus: tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return matrices that sum pairs of taps by their lags, and take the sums to the power spectrum and its floor."""
    cosines, index = _lag_cosines(torus, kernel_size, dilation, torch.device("cpu"), whole=True)
    sums = torch.zeros(cosines.shape[1], len(index), dtype=torch.double, device="cpu")
    sums[index, torch.arange(len(index), device="cpu")] = 1
    floor = torch.zeros(1, cosines.shape[1], dtype=torch.double, device="cpu")
    floor[0, 0] = FLOOR**2  # lag 0: the squared row norm
    return sums.to(device), torch.cat([cosines, floor]).to(device)


@cached_tables
def _input_matrices(geometry: TorusConvolution, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return real matrices of the transform: of the rows (half of the frequencies), and two of the columns.

    ``rows`` takes the first axis to (real, imaginary) pairs, one frequency after the other; ``columns`` take pairs on
    the second axis to real and to imaginary parts.
    """
    row, column = (
        angles(n, torch.arange(size, device="cpu"))
        for n, size in zip(geometry.torus, geometry.input_shape, strict=True)
    )
    row = row[: geometry.half]
    rows = torch.stack([row.cos(), -row.sin()], 1).flatten(0, 1)
    columns = torch.cat([column.cos(), column.sin()], 1), torch.cat([-column.sin(), column.cos()], 1)
    return [matrix.to(device, dtype) for matrix in (rows, *columns)]


@cached_tables
def _output_matrices(geometry: TorusConvolution, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return real matrices of the inverse transform at the outputs: of the rows, and two of the columns."""
    phases, wanted = [], []
    for axis, n in enumerate(geometry.torus):
        starts, touches = geometry.output_pixels(axis)
        wanted.append(touches[:, None])
        phases.append(angles(n, starts).T)
    n1, n2 = geometry.torus
    cos, sin = (wave * wanted[1] / n2 for wave in (phases[1].cos(), phases[1].sin()))
    times = 2 - (2 * torch.arange(geometry.half, device="cpu") % n1 == 0).double()  # f stands for -f, too
    row = phases[0][:, : geometry.half]
    rows = torch.stack([row.cos() * times, -row.sin() * times], 2).flatten(1) * wanted[0] / n1
    return [matrix.to(device, dtype) for matrix in (rows, torch.cat([cos, sin]), torch.cat([-sin, cos]))]


def _to_frequencies(x: Tensor, rows: Tensor, columns: list[Tensor], groups: int) -> Parts:
    """Return a transform of images: ``rows`` along the first axis, then ``columns`` along the second."""
    (batch, channels, h, w), half, full = x.shape, len(rows) // 2, len(columns[0])
    x = x.reshape(batch * channels, h * w).t().contiguous()  # pixels first; of two axes, which torch transposes fast
    x = (rows @ x.view(h, w * batch * channels)).view(half, 2 * w, batch * channels)
    real, imaginary = ((table @ x).view(half * full, batch, groups, channels // groups) for table in columns)
    return real.transpose(1, 2).contiguous(), imaginary.transpose(1, 2).contiguous()


def _to_images(parts: Parts, rows: Tensor, columns: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    """Return images of a transform: ``columns`` along the second axis, then ``rows`` along the first."""
    (_, groups, batch, channels), half = parts[0].shape, rows.shape[1] // 2
    across = groups * batch * channels
    real, imaginary = (part.transpose(1, 2).reshape(half, len(part) // half, across) for part in parts)
    from_real, from_imaginary = (table.expand(half, -1, -1) for table in columns)
    y = torch.baddbmm(from_imaginary @ imaginary, from_real, real).view(2 * half, sizes[1] * across)
    return (rows @ y).view(sizes[0] * sizes[1], across).t().contiguous().view(batch, groups * channels, *sizes)


def _grid_angles(torus: tuple[int, ...], pixels: Tensor, whole: bool = False) -> Tensor:
    """Return ``2 pi <f, p / torus>`` for all frequencies f and rows p of ``pixels``, ``(frequencies, pixels)``."""
    rows, columns = (angles(n, pixels[:, axis]) for axis, n in enumerate(torus))
    if whole:
        rows, columns = columns, rows
    return (rows[: len(rows) // 2 + 1, None] + columns).flatten(0, 1)


def angles(n: int, pixels: Tensor) -> Tensor:
    """Return ``2 pi f p / n`` for all frequencies f of an axis of n pixels, ``(n, pixels)``."""
    return (torch.arange(n, device="cpu")[:, None] * pixels % n).double() * (2 * math.pi / n)
