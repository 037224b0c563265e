"""What each layer of a network does to the size of a signal, as a table."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from convkit.audit.gains import channel_gains, with_gain
from convkit.bounds import frobenius_bound, torus_bound
from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.spectra import channel_condition_numbers, condition_number


@dataclass(frozen=True)
class LayerRecord:
    """What was measured of one layer; ``methods`` says how, by the name of the number.

    ``geometry`` is ``"exact"`` where the Fourier transform makes the layer block-diagonal, so that every number is
    the layer's own. Elsewhere it is ``"matrix-free"``, where the norm 2 and the stable rank are the layer's own, or
    ``"torus"``, where they are those of the torus that contains it, the norm an upper bound. Condition numbers are
    then those of a circular relative, the torus for zero padding. A zero-padded ``ConvNorm2d`` is measured on the torus
    that it normalizes on.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    geometry: str
    norm1: float
    norm2: float
    norm_inf: float
    stable_rank: float  # squared Frobenius norm over squared norm 2; 0 for a layer of zeros
    condition_number: float
    channel_condition_numbers: tuple[float, ...]  # one an output channel
    methods: Mapping[str, str]
    folded: str = ""  # the kind of the layer behind it whose gains are part of the numbers


class LayerTable(list[LayerRecord]):
    """A list of ``LayerRecord`` that prints as a table, also in a notebook."""

    def column(self, name: str) -> list[Any]:
        """One number of every layer, to plot: ``table.column("norm2")``."""
        return [getattr(record, name) for record in self]

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def _repr_html_(self) -> str:
        head, *body = ([html.escape(cell) for cell in row] for row in self._rows())
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def _rows(self) -> list[list[str]]:
        def size(numbers: Sequence[SupportsIndex]) -> str:
            return "×".join(map(str, numbers))

        heads = ["layer", "kind", "in", "out", "kernel", "stride", "norm 1", "norm 2", "norm inf", "stable rank"]
        rows = [[*heads, "condition", "of channels (mean)", "norm 2 by", "condition numbers by"]]
        for record in self:
            shapes = [size(record.in_shape), size(record.out_shape), size(record.kernel_size), size(record.stride)]
            channels = record.channel_condition_numbers
            numbers = [record.norm1, record.norm2, record.norm_inf, record.stable_rank, record.condition_number]
            cells = [f"{number:.4g}" for number in (*numbers, sum(channels) / len(channels))]
            methods = [record.methods["norm2"], record.methods["condition_number"]]
            kind = f"{record.kind} and {record.folded}" if record.folded else record.kind
            rows.append([record.name, kind, *shapes, *cells, *methods])
        return rows


def layer_table(model: nn.Module, x: Tensor, torus: bool = False, folded: bool = False) -> LayerTable:
    """A ``LayerRecord`` for each convolution and linear layer that ``model(x)`` reaches, in the model's order.

    With ``torus=True`` the norm 2 of a layer without Fourier blocks (zero padding, mostly) is bounded by that of the
    torus around it, at a fraction of the cost of converging it. With ``folded=True`` the gains in evaluation mode of a
    BatchNorm or ``NoisyAffine2d`` that stands behind a convolution in the same ``nn.Sequential`` are part of it.
    Biases and shifts are no part of a norm. The model is left as it was; raises ``ValueError`` as ``conv_operators``
    does, with the name of the layer.
    """
    with torch.no_grad():
        operators = conv_operators(model, x)
        gains = channel_gains(model) if folded else {}
        records = LayerTable()
        for name, A in operators.items():
            behind, gain = gains.get(name, ("", None))
            if gain is not None:
                A = with_gain(A, gain)
            layer = model.get_submodule(name)
            record = _record(name, type(layer).__name__, A, torus, behind)
            if isinstance(layer, ConvNorm2d) and layer.padding_mode == "zeros" and any(layer.span):
                words = f"its torus, {'×'.join(map(str, A.input_shape))}"  # that is what it normalizes on
                record = replace(record, geometry="torus", methods=dict.fromkeys(record.methods, words))
            records.append(record)
        return records


def fourier_relative(A: ConvOperator) -> tuple[ConvOperator, str]:
    """An operator with Fourier blocks that stands for ``A``, and what it is in words.

    ``A`` itself where it has blocks; for zero padding the torus around it, else the circular "same" relative on a size
    that the stride divides.
    """
    if A.is_block_circulant:
        return A, "exact, Fourier"
    if A.padding_mode == "zeros":
        B, kind = A.torus(), "torus"
    else:
        sizes = tuple(math.ceil(n / s) * s for n, s in zip(A.input_shape, A.stride, strict=True))
        B, kind = replace(A, input_shape=sizes, padding="same"), "circular 'same'"
    return B, f"{kind} on {'×'.join(map(str, B.input_shape))}"


# ---- private -------------------------------------------------------------------------------------------------------


def _record(name: str, kind: str, A: ConvOperator, torus: bool, folded: str) -> LayerRecord:
    relative, where = fourier_relative(A)
    if A.is_block_circulant:
        geometry, norm2, norm2_by, measured = "exact", operator_norm(A, 2), where, A
    elif torus:
        geometry, norm2, norm2_by, measured = "torus", torus_bound(A), f"{where}, upper bound", relative
    else:
        geometry, norm2, norm2_by, measured = "matrix-free", operator_norm(A, 2), "converged, matrix-free", A
    by_relative = where if geometry == "exact" else f"{where}, not the layer's own"
    return LayerRecord(
        name,
        kind,
        A.in_shape,
        A.out_shape,
        tuple(A.kernel.shape[2:]),
        A.stride,
        geometry,
        float(operator_norm(A, 1)),
        float(norm2),
        float(operator_norm(A, math.inf)),
        float(frobenius_bound(measured) / norm2) ** 2 if norm2 > 0 else 0.0,
        float(condition_number(relative)),
        tuple(channel_condition_numbers(relative).tolist()),
        {
            "norm1": "exact, column sums",
            "norm2": norm2_by,
            "norm_inf": "exact, row sums",
            "stable_rank": f"exact Frobenius norm, norm 2 by: {norm2_by}",
            "condition_number": by_relative,
            "channel_condition_numbers": by_relative,
        },
        folded,
    )
