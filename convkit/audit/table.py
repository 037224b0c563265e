"""Norms, stable ranks and condition numbers of the layers of a network, as a table."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, SupportsIndex, overload

import torch
from torch import Tensor, nn

from convkit.bounds import frobenius_bound, torus_bound
from convkit.engine.rounding import rounded_up, spectral_slack
from convkit.engine.values import block_values
from convkit.loading import progress_bar
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.folding import channel_gain, followers, with_gain
from convkit.norms import operator_norm
from convkit.operators.calls import Missing
from convkit.operators.network import read_network
from convkit.operators.operator import ConvOperator
from convkit.spectra import channel_condition_numbers, condition_number

COLUMNS = {  # the numbers of a layer, and their headings in a table
    "norm1": "norm 1",
    "norm2": "norm 2",
    "norm_inf": "norm inf",
    "stable_rank": "stable rank",
    "condition_number": "condition",
    "channel_condition_numbers": "of channels (mean)",
}
SOON = 5.0  # seconds after which a progress bar appears


@dataclass(frozen=True)
class LayerRecord:
    """The numbers of one layer, and for each computed number in ``methods`` how it was computed.

    ``geometry`` is ``"exact"`` where the layer has Fourier blocks, so that every number is the layer's own. Elsewhere
    it is ``"matrix-free"``, where the norm 2 and the stable rank are the layer's own, or ``"torus"``, where they are
    those of ``A.torus()``, whose norm is an upper bound. Condition numbers are then those of ``fourier_relative(A)``,
    which for zero padding is the torus. A zero-padded ``ConvNorm2d`` is measured on the torus on which it normalizes.
    A number that was not computed is NaN, or ``()``.

    >>> table = layer_table(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), torch.zeros(1, 3, 8, 8), columns=["norm1"])
    >>> table[0].out_shape, table[0].geometry, table[0].methods
    ((8, 8, 8), 'matrix-free', {'norm1': 'exact, column sums'})
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    geometry: str
    norm1: float = math.nan
    norm2: float = math.nan
    norm_inf: float = math.nan
    stable_rank: float = math.nan  # squared Frobenius norm over squared norm 2; 0 for a layer of zeros
    condition_number: float = math.nan
    channel_condition_numbers: tuple[float, ...] = ()  # one per output channel
    methods: Mapping[str, str] = field(default_factory=dict)
    folded: str = ""  # the kind of the layer behind it whose gains are part of the numbers


class LayerTable(list[LayerRecord]):
    """A list of ``LayerRecord`` that prints as a table, also in a notebook.

    ``missing`` lists what the table lacks: ``(name, reason)`` for each part of the network with weights that no row
    stands for, and ``unfolded`` the BatchNorm and ``NoisyAffine`` whose gains ``folded=True`` could not put into the
    layer before. The printed table names them below.

    >>> table = layer_table(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2), columns=["norm1"])
    >>> print(str(table).splitlines()[0])
    layer  kind    in     out    kernel  stride  norm 1
    """

    def __init__(
        self, records: Iterable[LayerRecord] = (), missing: Iterable[Missing] = (), unfolded: Iterable[str] = ()
    ) -> None:
        super().__init__(records)
        self.missing, self.unfolded = list(missing), list(unfolded)

    @overload
    def column(self, name: Literal["norm1", "norm2", "norm_inf", "stable_rank", "condition_number"]) -> list[float]: ...

    @overload
    def column(self, name: Literal["channel_condition_numbers"]) -> list[tuple[float, ...]]: ...

    @overload
    def column(self, name: str) -> Sequence[object]: ...

    def column(self, name: str) -> Sequence[object]:
        """Return one number of every layer as a list, such as ``table.column("norm2")``.

        Raises ``ValueError`` for a number that was not computed.
        """
        if name in COLUMNS and not all(name in record.methods for record in self):
            asked = ", ".join(self[0].methods)
            raise ValueError(f"this table has no column {name!r}, only {asked}; ask layer_table for it by columns=...")
        return [getattr(record, name) for record in self]

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *self._notes()])

    def _repr_html_(self) -> str:
        head, *body = ([html.escape(cell) for cell in row] for row in self._rows())
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"<table style='white-space: nowrap'><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{notes}"

    def _notes(self) -> list[str]:
        notes = [f"not in the table: {name or 'the network itself'} ({reason})" for name, reason in self.missing]
        return notes + [f"gains not folded: {', '.join(self.unfolded)}"] * bool(self.unfolded)

    def _rows(self) -> list[list[str]]:
        def size(numbers: Sequence[SupportsIndex]) -> str:
            return "×".join(map(str, numbers))

        columns = [name for name in COLUMNS if all(name in record.methods for record in self)]
        sources = {"norm2": "norm 2 by", "condition_number": "condition numbers by"}
        sources = {name: head for name, head in sources.items() if name in columns}
        heads = ["layer", "kind", "in", "out", "kernel", "stride"]
        rows = [[*heads, *(COLUMNS[name] for name in columns), *sources.values()]]
        for record in self:
            shapes = [size(record.in_shape), size(record.out_shape), size(record.kernel_size), size(record.stride)]
            kind = f"{record.kind} and {record.folded}" if record.folded else record.kind
            numbers = [getattr(record, name) for name in columns]
            means = [sum(number) / len(number) if isinstance(number, tuple) else number for number in numbers]
            cells = [f"{number:.4g}" for number in means]
            rows.append([record.name, kind, *shapes, *cells, *(record.methods[name] for name in sources)])
        return rows


def layer_table(
    model: nn.Module,
    x: Tensor,
    layers: Iterable[str] | None = None,
    columns: Iterable[str] | None = None,
    torus: bool = False,
    folded: bool = False,
    missing: Literal["note", "raise"] = "note",
    progress: bool = True,
) -> LayerTable:
    """Return a ``LayerRecord`` for each convolution and linear map that ``model(x)`` computes, in order.

    They are those of ``conv_operators``, which says what is read and how rows are named. With ``missing="note"`` what
    has no row is listed in ``table.missing``; with ``"raise"`` it is a ``ValueError``.

    ``layers`` are the names of those to measure, ``columns`` the numbers to compute (``"norm1"``, ``"norm2"``,
    ``"norm_inf"``, ``"stable_rank"``, ``"condition_number"``, ``"channel_condition_numbers"``); all by default. Each
    number is as exact as the function of its name; ``LayerRecord`` describes what is measured where a layer has no
    Fourier blocks. With ``torus=True`` the norm 2 of such a layer (zero padding, mostly) is bounded by that of
    ``A.torus()``, at a fraction of the cost. ``folded=True`` includes the gains in evaluation mode of the BatchNorm or
    ``NoisyAffine`` into which all outputs of a layer go when ``model(x)`` runs; ``table.unfolded`` names those that
    have no such layer. What takes more than a few seconds shows a progress bar, unless ``progress=False``. The model is
    left as it was. Raises ``ValueError`` for unknown names and for weights that are not finite.

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> _ = nn.init.eye_(model[0].weight)
    >>> layer_table(model, torch.zeros(1, 2), columns=["norm1", "norm_inf"]).column("norm_inf")
    [1.0]
    """
    with torch.no_grad():
        columns = _chosen("columns", columns, COLUMNS)
        operators, rows = read_network(model, x, missing)
        behind = followers(model, x) if folded else {}
        inside: nn.Module = getattr(model, "_orig_mod", model)  # what torch.compile has compiled
        gains = [name for name, module in inside.named_modules() if folded and channel_gain(module) is not None]
        alone = [name for name in gains if name not in behind.values()]
        records = LayerTable(missing=operators.missing, unfolded=alone)
        names = _chosen("layers", layers, operators)
        for name in progress_bar(names, desc="layers", delay=SOON, leave=False, disable=not progress):
            A, row = operators[name], rows[name]
            layer = model.get_submodule(row.layer)
            then = model.get_submodule(behind[name]) if name == row.layer and name in behind else None
            gain = None if then is None else channel_gain(then)
            if gain is not None:
                A = with_gain(A, gain)
            kind = type(layer).__name__ if row.operator is None else row.kind
            record = _record(name, kind, A, columns, torus, "" if gain is None else type(then).__name__)
            if isinstance(layer, ConvNorm2d) and layer.padding_mode == "zeros" and any(layer.span):
                words = f"its torus, {'×'.join(map(str, A.input_shape))}"  # that is what it normalizes on
                record = replace(record, geometry="torus", methods=dict.fromkeys(record.methods, words))
            records.append(record)
        return records


def fourier_relative(A: ConvOperator) -> tuple[ConvOperator, str]:
    """Return an operator with Fourier blocks that stands for ``A``, and a few words that say which one it is.

    ``A`` itself where it has blocks; ``A.torus()`` for zero padding; else circular "same" padding on the next larger
    size that the stride divides.

    >>> A = ConvOperator(torch.ones(1, 1, 3), 4, padding_mode="zeros")
    >>> fourier_relative(A)[1]
    'torus on 5'
    """
    if A.is_block_circulant:
        return A, "exact, Fourier"
    if A.padding_mode == "zeros":
        B, kind = A.torus(), "torus"
    else:
        sizes = tuple(math.ceil(n / s) * s for n, s in zip(A.input_shape, A.stride, strict=True))
        B, kind = replace(A, input_shape=sizes).circular(), "circular 'same'"
    return B, f"{kind} on {'×'.join(map(str, B.input_shape))}"


# ---- private -------------------------------------------------------------------------------------------------------


def _chosen(kind: str, names: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """Return the chosen names in the order of the known ones, all of them for ``None``."""
    asked = list(known if names is None else names)
    for name in asked:
        if name not in known:
            raise ValueError(f"layer_table needs {kind} among {', '.join(known)}, got {name!r}")
    return [name for name in known if name in asked]


def _record(name: str, kind: str, A: ConvOperator, columns: list[str], torus: bool, folded: str) -> LayerRecord:
    relative, where = fourier_relative(A)
    geometry, by_norm2, measured = "matrix-free", "converged, matrix-free", A
    if A.is_block_circulant:
        geometry, by_norm2 = "exact", where
    elif torus:
        geometry, by_norm2, measured = "torus", f"{where}, upper bound", relative
    by_relative = where if geometry == "exact" else f"{where}, not the layer's own"
    methods = {
        "norm1": "exact, column sums",
        "norm2": by_norm2,
        "norm_inf": "exact, row sums",
        "stable_rank": f"exact Frobenius norm, norm 2 by: {by_norm2}",
        "condition_number": by_relative,
        "channel_condition_numbers": by_relative,
    }
    numbers: dict[str, Any] = {}
    values = None  # one decomposition serves both the norm and the condition number
    whole = A.is_block_circulant or (torus and A.padding_mode == "zeros")
    if whole and "condition_number" in columns and {"norm2", "stable_rank"} & set(columns):
        values = block_values(relative)[0]
    if "norm1" in columns:
        numbers["norm1"] = float(operator_norm(A, 1))
    if "norm_inf" in columns:
        numbers["norm_inf"] = float(operator_norm(A, math.inf))
    if {"norm2", "stable_rank"} & set(columns):
        if values is not None:
            norm2 = values.amax() if geometry == "exact" else rounded_up(values.amax(), A, spectral_slack(measured))
            norm2 = norm2.to(A.kernel.dtype)
        else:
            norm2 = torus_bound(A) if geometry == "torus" else operator_norm(A, 2)
        numbers["norm2"] = float(norm2)
        if "stable_rank" in columns:
            numbers["stable_rank"] = float(frobenius_bound(measured) / norm2) ** 2 if norm2 > 0 else 0.0
    if "condition_number" in columns:
        own = condition_number(relative) if values is None else _ratio(values.to(A.kernel.dtype))
        numbers["condition_number"] = float(own)
    if "channel_condition_numbers" in columns:
        numbers["channel_condition_numbers"] = tuple(channel_condition_numbers(relative).tolist())
    return LayerRecord(
        name=name,
        kind=kind,
        in_shape=A.in_shape,
        out_shape=A.out_shape,
        kernel_size=tuple(A.kernel.shape[2:]),
        stride=A.stride,
        geometry=geometry,
        methods={column: methods[column] for column in columns},
        folded=folded,
        **{column: numbers[column] for column in columns},
    )


def _ratio(values: Tensor) -> Tensor:
    return values[:, 0].amax() / values[:, -1].amin()
