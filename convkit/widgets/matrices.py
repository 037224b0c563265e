"""The panel of notebook 01: a convolution's matrix, its blocks, and each row as the image patch that it reads."""

import math
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from convkit.operators.operator import ConvOperator
from convkit.plots.matrices import plot_matrix, plot_patch
from convkit.widgets.controls import WHOLE_ROW, choice, numbers, slider, toggle
from convkit.widgets.drawing import DrawnPanel
from convkit.widgets.panel import Words

PRESETS: dict[str, tuple[tuple[float, ...], ...]] = {
    "1 to 9": ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
    "blur": ((0.0625, 0.125, 0.0625), (0.125, 0.25, 0.125), (0.0625, 0.125, 0.0625)),
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "edge": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "shift": ((0, 0, 0), (0, 0, 1), (0, 0, 0)),
    "random": ((0.3, -1.2, 0.5), (1.7, 0.4, -0.8), (-0.6, 0.9, -1.5)),
}
SHARES = (1, 0.5)  # powers of two: exact products, so that equal entries can be counted
LARGEST = 1e6


def channel_kernels(taps: Any, c_out: int, c_in: int) -> Tensor:
    """Return ``(c_out, c_in, 3, 3)``: the taps, rotated by c quarters for output channel c, scaled by input channel."""
    kernel = torch.tensor(taps, dtype=torch.float64)
    return torch.stack([torch.stack([share * torch.rot90(kernel, c) for share in SHARES[:c_in]]) for c in range(c_out)])


def structure(A: ConvOperator, M: Tensor) -> str:
    """Return the structure of the channel blocks of ``M``: ``"circulant"``, ``"Toeplitz"`` or ``"neither"``."""
    if A.out_shape[1:] != A.in_shape[1:]:
        return "neither"
    entries = M.reshape(A.out_shape + A.in_shape)
    if all(torch.equal(entries.roll((1, 1), (axis, axis + 3)), entries) for axis in (1, 2)):
        return "circulant"
    blocks = [entries.movedim((axis, axis + 3), (0, 1)) for axis in (1, 2)]
    return "Toeplitz" if all(torch.equal(block[1:, 1:], block[:-1, :-1]) for block in blocks) else "neither"


class MatrixPanel(DrawnPanel):
    """A panel that shows the matrix of a convolution, and each of its rows."""

    title = "The matrix of a convolution, and the pixels that one of its rows reads"
    size = (9.5, 5)

    def controls(self) -> dict[str, Any]:
        controls = {
            "preset": choice("Ready-made kernel", list(PRESETS)),
            "kernel": numbers("Kernel", PRESETS["1 to 9"]),
            "size": slider("Image size", 5, 3, 8),
            "c_in": slider("Input channels", 1, 1, 2),
            "c_out": slider("Output channels", 1, 1, 2),
            "boundary": choice("Boundary", [("circular", "circular"), ("zero padding", "zeros")]),
            "stride": slider("Stride", 1, 1, 3),
            "columns": toggle("Stack columns, not rows"),
            "row": slider("Row of the matrix", 12, 0, 24),
        }
        controls["row"].layout.grid_area = WHOLE_ROW
        # Observed here, not in react(): Reset and set() must keep the grid and the row's limit in step, too.
        controls["preset"].observe(lambda change: self._fill_grid(change["new"]), "value")
        controls["kernel"].observe(lambda _: self._forget_preset(), "texts")
        for name in ("size", "c_out", "stride"):
            controls[name].observe(lambda _: self._limit_row(), "value")
        return controls

    def draw(self, figure: Figure, **values: Any) -> Words:
        taps, size, row = values["kernel"], values["size"], values["row"]
        if max(abs(tap) for line in taps for tap in line) > LARGEST:
            raise ValueError(f"Kernel needs numbers between {-LARGEST:g} and {LARGEST:g} to be drawn, got {taps}")
        kernel = channel_kernels(taps, values["c_out"], values["c_in"])
        A = ConvOperator(kernel, (size, size), stride=values["stride"], padding_mode=values["boundary"])
        M = A.matrix()
        if row >= len(M):
            raise ValueError(f"Row of the matrix needs a number below {len(M)}, got {row}")
        pixels, side = math.prod(A.out_shape[1:]), A.out_shape[2]
        channel, (i, j) = row // pixels, divmod(row % pixels, side)
        patches = M[row].reshape(A.in_shape)
        if values["columns"]:
            (i, j), patches = (j, i), patches.mT

        blocks = [(side, size)] + [(pixels, size * size)] * (len(kernel) * len(patches) > 1)
        ax = plot_matrix(M, figure.add_axes((0.06, 0.1, 0.54, 0.8)), blocks, row)
        ax.set_title(f"the matrix, {len(M)} × {M.shape[1]}")
        limit, framed = float(M.abs().max()), (i * A.stride[0], j * A.stride[1])
        tall = 0.96 / len(patches)
        for d, patch in enumerate(patches):
            ax = plot_patch(patch, figure.add_axes((0.64, 0.97 - (d + 1) * tall, 0.34, tall - 0.08)), limit, framed)
            ax.set_title(f"row {row} as an image" + (f", input channel {d}" if len(patches) > 1 else ""))
        place = f"pixel ({i}, {j})" + (f" of channel {channel}" if len(kernel) > 1 else "")
        broken = columns_sentence(A, M) if values["columns"] else structure_sentence(A, M)
        return Words(f"{count_sentence(M)} {broken} {row_sentence(A, M, row, place)}", alert=broken.alert)

    def _fill_grid(self, preset: str | None) -> None:
        if preset is not None:
            self._quietly(lambda: setattr(self._controls["kernel"], "value", PRESETS[preset]))

    def _forget_preset(self) -> None:
        preset = self._controls["preset"]
        texts = tuple(tuple(f"{tap:g}" for tap in line) for line in PRESETS.get(preset.value, ()))
        if texts != self._controls["kernel"].texts:
            self._quietly(lambda: setattr(preset, "value", None))  # an edited kernel bears no name

    def _limit_row(self) -> None:
        size, c_out, stride = (self._controls[name].value for name in ("size", "c_out", "stride"))
        self._quietly(lambda: setattr(self._controls["row"], "max", c_out * math.ceil(size / stride) ** 2 - 1))


def count_sentence(M: Tensor) -> str:
    """Return a sentence with the number of nonzero entries and of different values."""
    nonzero = M[M != 0]
    different = len(nonzero.unique())
    are = f"they hold {different} different number{'s' * (different != 1)}"
    return f"{len(nonzero)} of the {M.numel()} entries ({len(nonzero) / M.numel():.0%}) are not zero, and {are}."


def structure_sentence(A: ConvOperator, M: Tensor) -> Words:
    """Return a sentence on the structure of the blocks, red where it is not that of Sedghi et al. 2019."""
    (c_out, *_), (c_in, h, w) = A.out_shape, A.in_shape
    kind = structure(A, M)
    if kind == "circulant":
        whole = f"{c_out} × {c_in} blocks, one for each pair of channels, each of them" if c_out * c_in > 1 else "It is"
        return Words(f"{whole} doubly block circulant: {h} × {h} blocks of {w} × {w}, circulant inside and out.")
    if kind == "Toeplitz":
        return Words(
            "Not circulant: without circular padding the blocks are only Toeplitz (constant along diagonals).", True
        )
    every = {2: "second", 3: "third"}[A.stride[0]]
    kept = f"stride {A.stride[0]} keeps the output of every {every} pixel each way"
    return Words(f"Not circulant: {kept}, so the blocks are not even square.", True)


def columns_sentence(A: ConvOperator, M: Tensor) -> Words:
    """Return a sentence on the difference when images are stacked column by column, red where there is one."""
    x = torch.randn(1, *A.in_shape, generator=torch.Generator().manual_seed(0), dtype=M.dtype)
    y = A(x).mT.flatten()
    error = float((M @ x.mT.flatten() - y).abs().max() / y.abs().max().clamp(min=1e-300))
    if error < 1e-9:
        return Words(
            "With the columns stacked it still fits: exchange rows and columns of this kernel, and it is the same."
        )
    return Words(
        f"With the columns stacked, M vec(X) misses vec(Y) by {error:.0%}: the row reads the kernel with its rows and "
        "columns exchanged. Stack the rows.",
        alert=True,
    )


def row_sentence(A: ConvOperator, M: Tensor, row: int, place: str) -> str:
    """Return a sentence on what one row computes and which pixels it reads."""
    reads = int(M[row].count_nonzero())
    circular, zeros = (
        int(replace(A, padding_mode=mode).matrix()[row].count_nonzero()) for mode in ("circular", "zeros")
    )
    edge = circular - zeros
    if A.padding_mode == "circular":
        beyond = f", {edge or 'none'} of them across the edge"
    else:
        beyond = f"; {edge or 'none'} of its taps fall{'s' * (edge == 1)} outside, on zeros"
    return f"Row {row} computes output {place}: it reads {reads} number{'s' * (reads != 1)}{beyond}."
