"""The layer table agrees with dense matrices layer by layer, says what is not the layer's own, and leaves no trace."""

import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils import parametrize
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.audit.product.bound import product_bound
from convkit.audit.table import COLUMNS, LayerTable, layer_table
from convkit.bounds import torus_bound
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.folding import channel_gains, fold_batchnorm, with_gain
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.spectra import channel_condition_numbers
from tests.helpers.geometries import exact_geometries, normal, patch_geometries
from tests.helpers.refusals import refused
from tests.helpers.small_network import random_batchnorms
from tests.helpers.unchanged import unchanged


def network() -> nn.Sequential:
    """Every kind of geometry: zero padding, circular with groups, a stride that divides, one that does not, patches."""
    return nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=2),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 4, 3, stride=(4, 2), padding=1, padding_mode="circular"),
        nn.Conv2d(4, 5, 2, stride=2),
        nn.Flatten(),
        nn.Linear(10, 3),
    ).double()


def image(device: torch.device) -> torch.Tensor:
    return normal(2, 3, 6, 7, device=device)


def dense_condition(A: ConvOperator) -> float:
    return float(torch.linalg.cond(A.matrix().detach()))


# ---- table ---------------------------------------------------------------------------------------------------------
def test_every_number_is_that_of_the_dense_matrix(device):
    model, x = network().to(device), image(device)
    table = layer_table(model, x)
    operators = conv_operators(model, x)
    assert table.column("name") == list(operators) == ["0", "2", "4", "5", "7"]
    assert table.column("geometry") == ["matrix-free", "exact", "matrix-free", "exact", "exact"]
    for record, A in zip(table, operators.values(), strict=True):
        M = A.matrix().detach()
        norms = [float(torch.linalg.matrix_norm(M, ord)) for ord in (1, 2, math.inf)]
        assert_close([record.norm1, record.norm2, record.norm_inf], norms)
        assert_close(record.stable_rank, float(M.norm() ** 2) / norms[1] ** 2)
        assert (record.in_shape, record.out_shape) == (A.in_shape, A.out_shape)
        assert (record.kernel_size, record.stride) == (tuple(A.kernel.shape[2:]), A.stride)
        assert record.kind in ("Conv2d", "Linear")
        assert len(record.channel_condition_numbers) == A.out_shape[0]


def test_condition_numbers_are_the_layers_own_or_say_whose_they_are(device):
    model, x = network().to(device), image(device)
    table = layer_table(model, x)
    operators = conv_operators(model, x)
    relatives = {
        "0": (operators["0"].torus(), "torus on 7×8, not the layer's own"),
        "2": (operators["2"], "exact, Fourier"),
        "4": (replace(operators["4"], input_shape=(8, 8)), "circular 'same' on 8×8, not the layer's own"),
        "5": (operators["5"], "exact, Fourier"),
    }
    for record in table:
        if record.name in relatives:
            A, words = relatives[record.name]
            assert_close(record.condition_number, dense_condition(A))
            assert_close(torch.tensor(record.channel_condition_numbers), channel_condition_numbers(A).cpu().float())
            assert record.methods["condition_number"] == record.methods["channel_condition_numbers"] == words
    assert table[0].methods["norm2"] == "converged, matrix-free"
    assert table[1].methods["norm2"] == "exact, Fourier"
    fields = {"norm1", "norm2", "norm_inf", "stable_rank", "condition_number", "channel_condition_numbers"}
    assert all(record.methods.keys() == fields for record in table)


def test_torus_bounds_the_layers_that_have_no_blocks_and_says_so(device):
    model, x = network().to(device), image(device)
    exact, bounded = layer_table(model, x), layer_table(model, x, torus=True)
    assert bounded.column("geometry") == ["torus", "exact", "torus", "exact", "exact"]
    for record, bound in zip(exact, bounded, strict=True):
        if bound.geometry == "exact":
            assert bound == record
        else:
            assert record.norm2 < bound.norm2
            assert bound.methods["norm2"].endswith("upper bound")
    A = conv_operators(model, x)["0"].torus()
    assert_close(bounded[0].stable_rank, float(A.matrix().detach().norm() ** 2) / bounded[0].norm2 ** 2)


def test_a_layer_of_zeros_has_numbers_too(device):
    model = nn.Conv2d(2, 3, 3, padding=1, device=device)
    nn.init.zeros_(model.weight)
    (record,) = layer_table(model, torch.ones(1, 2, 4, 5, device=device))
    assert (record.norm1, record.norm2, record.norm_inf, record.stable_rank) == (0, 0, 0, 0)
    assert set(record.channel_condition_numbers) == {math.inf}


def test_the_table_prints_aligned_and_as_escaped_html(device):
    model = network().to(device)
    model[7] = parametrize.register_parametrization(nn.Linear(10, 3).double().to(device), "weight", nn.Identity())
    table = layer_table(nn.ModuleDict({"<b>": model})["<b>"], image(device))
    head, rule, *rows = str(table).splitlines()
    assert len(rows) == len(table) == 5
    assert set(rule) == {"-"}
    for name in ("kernel", "norm 2", "stable rank", "condition"):
        start = head.index(name)
        assert all(row[start - 1] == " " != row[start] for row in rows)
    assert repr(table) == str(table)
    assert table._repr_html_().count("<tr>") == 6
    assert "ParametrizedLinear" in table._repr_html_()
    named = LayerTable([replace(table[0], name="<script>")])
    assert "&lt;script&gt;" in named._repr_html_()
    assert "<script>" not in named._repr_html_()


def test_the_model_is_left_as_it_was(device):
    model, x = network().to(device), image(device)
    model[3].eval()
    with unchanged(model, x):
        layer_table(model, x)


@pytest.mark.parametrize("torus", [False, True])
def test_columns_and_layers_choose_from_the_whole_table(device, torus):
    model, x = network().to(device), image(device)
    whole = layer_table(model, x, torus=torus)
    for columns in [[name] for name in COLUMNS] + [["norm_inf", "norm1"]]:
        table = layer_table(model, x, ["5", "0"], columns, torus=torus)
        assert table.column("name") == ["0", "5"]  # in the model's order
        for name in columns:
            chosen = [getattr(record, name) for record in whole if record.name in ("0", "5")]
            # other columns, other routes to the same number
            assert_close(table.column(name), chosen, rtol=1e-12, atol=0, equal_nan=True)
        assert all(record.methods.keys() == set(columns) for record in table)
        others = [name for name in COLUMNS if name not in columns]
        empty = (), pytest.approx(math.nan, nan_ok=True)
        assert all(getattr(record, name) in empty for record in table for name in others)
        refused(f"no column '{others[0]}', only {', '.join(table[0].methods)}", table.column, others[0])
        shown = repr(table).splitlines()[0]
        assert [head in shown for head in COLUMNS.values()] == [name in columns for name in COLUMNS]


# ---- refusals ------------------------------------------------------------------------------------------------------
def test_what_has_no_table_and_columns_and_layers_that_there_are_not_are_refused(device):
    x = torch.ones(1, 2, 5, 5, device=device)
    refused("needed a model with convolutions or linear layers, got ReLU", layer_table, nn.ReLU(), x)
    model, x = network().to(device), image(device)
    refused("layer_table needs columns among .*, got 'norm3'", layer_table, model, x, columns=["norm3"])
    refused("layer_table needs layers among 0, 2, 4, 5, 7, got '1'", layer_table, model, x, layers=["1"])


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused_with_the_layers_name_and_nothing_changes(device, number):
    model, x = network().to(device), image(device)
    with torch.no_grad():
        model[4].weight[1, 0, 2, 1] = number
    with unchanged(model, x):
        refused(r"layer '4': kernel must be finite", layer_table, model, x)


# ---- channels ------------------------------------------------------------------------------------------------------
@given(geometry=st.one_of(exact_geometries(), patch_geometries()))
def test_channel_condition_numbers_are_those_of_the_rows_of_each_channel(device, geometry):
    A = geometry.operator(device)
    rows = A.matrix().unflatten(0, A.out_shape).flatten(1, -2)
    for number, exact in zip(channel_condition_numbers(A), torch.linalg.cond(rows.cpu()), strict=True):
        assert min(number, exact) > 1e9 if exact > 1e9 else torch.isclose(number.cpu(), exact, rtol=1e-6)


def test_a_channel_of_zeros_or_with_a_null_is_infinitely_conditioned(device):
    kernel = torch.zeros(2, 1, 4, dtype=torch.float64, device=device)
    kernel[1, 0, :2] = torch.tensor([1.0, -1.0])
    numbers = channel_condition_numbers(ConvOperator(kernel, 4))
    assert numbers[0] == math.inf
    assert numbers[1] > 1e15


def test_channel_condition_numbers_have_a_gradient_and_the_kernels_dtype(device):
    kernel = normal(3, 2, 3, 2, device=device).requires_grad_()
    assert gradcheck(lambda kernel: channel_condition_numbers(ConvOperator(kernel, (5, 4))), (kernel,))
    assert channel_condition_numbers(ConvOperator(kernel.detach().float(), (5, 4))).dtype == torch.float32


# ---- gains behind a layer --------------------------------------------------------------------------------------------
def test_folded_gains_are_part_of_the_numbers(device):
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False), nn.BatchNorm2d(3)),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(3, 4, (1, 3), padding=(0, 1)), NoisyAffine(4, sigma=0.5)),
        *(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
    ).to(device, torch.float64)
    with torch.no_grad():
        model[0][1].running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
        model[0][1].weight.copy_(torch.tensor([3.0, -1.0, 0.5]))
        model[2][1].weight.copy_(torch.tensor([1.0, -2.0, 3.0, 0.1]))
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, device=device)
    plain, folded = layer_table(model, x), layer_table(model, x, folded=True)
    assert [record.folded for record in folded] == ["BatchNorm2d", "NoisyAffine", ""]
    assert [record.folded for record in plain] == ["", "", ""]
    assert folded[2] == plain[2]  # the BatchNorm behind the ReLU is not next to it
    model.eval()
    for place, record in zip((0, 2), folded, strict=False):
        block = model[place]
        size = record.in_shape
        zero = block(x.new_zeros(1, *size))
        basis = torch.eye(math.prod(size), dtype=torch.float64, device=device).view(-1, *size)
        M = (block(basis) - zero).flatten(1).mT
        for ord, number in ((1, record.norm1), (2, record.norm2), (math.inf, record.norm_inf)):
            assert number == pytest.approx(torch.linalg.matrix_norm(M, ord).item(), rel=1e-9)
    assert "BatchNorm2d" in repr(folded)
    assert "BatchNorm2d" not in repr(plain)


def test_measure_folds_the_gains_where_asked(device):
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
    model = random_batchnorms(nn.Sequential(*layers)).to(device, torch.float64)
    x = torch.randn(1, 2, 5, 4, device=device)
    for folded in (False, True):
        norms, conditions = measure(model, x, folded)
        table = layer_table(model, x.double(), torus=True, folded=folded)
        assert list(norms) == list(conditions) == table.column("name")
        assert list(norms.values()) == pytest.approx(table.column("norm2"), rel=1e-9)
        medians = [torch.tensor(numbers).median().item() for numbers in table.column("channel_condition_numbers")]
        assert list(conditions.values()) == pytest.approx(medians, rel=1e-6)
    assert measure(model, x, True)[0]["0"] != pytest.approx(measure(model, x)[0]["0"], rel=1e-2)


@pytest.mark.parametrize("folded", [False, True])
def test_measure_bounds_layers_without_a_torus_and_leaves_their_condition_numbers_out(device, folded):
    modes = {"reflect": {"padding": 1}, "replicate": {"padding": (2, 1), "stride": 2}, "circular": {"padding": (1, 3)}}
    layers: dict[str, nn.Module] = {}
    for c_in, (mode, geometry) in enumerate(modes.items(), start=2):
        layers[mode] = nn.Conv2d(c_in, c_in + 1, 3, padding_mode=mode, **geometry)
        layers[f"{mode} norm"] = nn.BatchNorm2d(c_in + 1)
    layers["zeros"] = nn.Conv2d(5, 2, 3, padding=1)
    model = random_batchnorms(nn.Sequential(OrderedDict(layers))).to(device, torch.float64)
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64, device=device)
    norms, conditions = measure(model, x, folded)
    operators, gains = conv_operators(model, x), channel_gains(model, x)
    assert list(norms) == [*modes, "zeros"]
    assert list(conditions) == ["zeros"]
    for name in modes:
        A = with_gain(operators[name], gains[name][1]) if folded else operators[name]
        norm = torch.linalg.matrix_norm(A.matrix(), 2).item()
        assert norm * (1 - 1e-9) <= norms[name] <= 3 * norm
        assert norms[name] == pytest.approx(torus_bound(A).item(), rel=1e-12)
    assert norms["zeros"] == pytest.approx(operator_norm(operators["zeros"].torus(), 2).item(), rel=1e-12)


@pytest.mark.parametrize("parametrized", [False, True])
@torch.no_grad()
def test_the_folded_network_is_the_same_function_and_the_first_is_left_alone(parametrized, device):
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, (3, 2), stride=2, bias=False)
    if parametrized:
        nn.utils.parametrizations.spectral_norm(second)
    block = nn.Sequential(second, nn.BatchNorm2d(4), nn.ReLU())
    model = random_batchnorms(nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), block, nn.Flatten(), nn.Linear(24, 5)))
    model.to(device, torch.float64).eval()
    x = torch.randn(3, 2, 6, 7, dtype=torch.float64, device=device)
    wanted = model(x)
    flat = fold_batchnorm(model)
    assert_close(flat(x), wanted)
    assert_close(model(x), wanted)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in flat.modules())
    assert product_bound(flat, x) == pytest.approx(product_bound(model, x), rel=1e-9)
    assert product_bound(flat, x) < product_bound(model, x, folded=False)


def test_convnorm_is_measured_on_the_torus_that_it_normalizes_on(device):
    circular = ConvNorm2d(4, 2, 3, padding="same", padding_mode="circular")
    model = nn.Sequential(ConvNorm2d(2, 3, 3, padding=1), ConvNorm2d(3, 4, 1), circular).to(device)
    table = layer_table(model, torch.randn(1, 2, 5, 4, device=device))
    assert table.column("geometry") == ["torus", "exact", "exact"]
    assert table[0].methods["norm2"] == "its torus, 7×6"
    assert table[0].channel_condition_numbers == pytest.approx([1.0] * 3, rel=1e-4)
