"""Norms clipped during training: the clip itself, which norm is left and on which geometry, and when."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from convkit.constraints import clip_operator_norm, clip_reshaped_norm
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.projections.clipping import clip_and_crop
from tests.helpers.refusals import refused
from tests.helpers.small_network import batch, network, sgd, train
from tests.helpers.unchanged import unchanged


def clipped(model: nn.Module, device: torch.device, dtype: torch.dtype = torch.float64, **options):
    """A hook that clips at the next step, which changes no weight itself."""
    optimizer = sgd(model, 0.0)
    handle = clip_operator_norm(optimizer, model, input_shapes(model, batch(device, dtype)), every=1, **options)
    optimizer.step()
    return handle


def geometry(layer: nn.Module, size: tuple[int, ...]) -> ConvOperator:
    """The operator on a torus, written out for each layer of the network."""
    if isinstance(layer, nn.Linear):
        return ConvOperator(layer.weight.detach().clone()[..., None, None], (1, 1))
    return ConvOperator(layer.weight.detach().clone(), size, layer.stride, "same", 1, layer.groups)


TORI = {"0": (9, 9), "2": (8, 10), "4": (8, 8), "6": (3, 4), "8": (1, 1)}


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_step_clips_and_crops_each_layer_on_its_torus_and_records_the_norm_that_is_left(device, rounds):
    model = network(device, torch.float64)
    before = {name: geometry(model.get_submodule(name), size) for name, size in TORI.items()}
    biases = [p.detach().clone() for name, p in model.named_parameters() if "bias" in name]
    handle = clipped(model, device, bound=0.4, rounds=rounds)
    for name, A in before.items():
        for _ in range(rounds):
            A = clip_and_crop(A, 0.4)
        weight = model.get_submodule(name).weight.detach()
        assert_close(weight, A.kernel.view_as(weight))
        largest = torch.linalg.matrix_norm(A.matrix(), 2)
        found = {"norm": pytest.approx(float(largest)), "step": 1}
        assert handle.record[name] == found | {"geometry": "exact" if name in ("6", "8") else "torus"}
    assert handle.record.keys() == before.keys()
    assert handle.record["8"]["norm"] == pytest.approx(0.4)  # nothing to crop
    assert handle.record["0"]["norm"] > 0.41  # one pair of steps leaves the norm above the bound
    assert_close([p.detach() for name, p in model.named_parameters() if "bias" in name], biases, rtol=0, atol=0)


@pytest.mark.parametrize("size, stride", [((3, 3), 1), ((4, 2), 2), ((4, 3), 1)])
def test_the_norm_recorded_is_that_of_the_clipped_kernel_also_where_nothing_is_cropped(device, size, stride):
    layer = nn.Conv2d(5, 4, 3, stride, 1, padding_mode="circular", bias=False).to(device, torch.float64)
    optimizer = sgd(layer, 0.0)
    handle = clip_operator_norm(optimizer, layer, {"": size}, 0.4, every=1)
    optimizer.step()
    A = ConvOperator(layer.weight.detach(), size, stride)
    assert handle.record[""]["norm"] == pytest.approx(float(torch.linalg.matrix_norm(A.matrix(), 2)), rel=1e-9)


def test_the_norm_recorded_bounds_that_of_the_layer_and_more_rounds_leave_less(device):
    left = []
    for rounds in (1, 4):
        torch.manual_seed(0)
        model = network(device, torch.float64)
        record = clipped(model, device, bound=0.3, rounds=rounds).record
        for name, A in conv_operators(model, batch(device, torch.float64)).items():
            assert operator_norm(A, 2).item() <= record[name]["norm"] * (1 + 1e-9)
        left.append(record["0"]["norm"])
    assert left[1] < left[0]
    with unchanged(model):  # bit for bit, below the bound
        assert all(0 < entry["norm"] < 50 for entry in clipped(model, device, bound=50.0).record.values())


def test_a_stride_that_does_not_divide_is_clipped_on_the_next_torus_or_refused_by_name(device):
    zeros = nn.Sequential(nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1)).to(device, torch.float64)
    A = ConvOperator(zeros[0].weight.detach().clone(), (10, 9), (2, 3))  # 8 + 1 rounded up to multiples of 2 and 3
    clipped(zeros, device, bound=0.3)
    assert_close(zeros[0].weight.detach(), clip_and_crop(A, 0.3).kernel)
    circular = nn.Sequential(nn.Conv2d(3, 4, 3, stride=3, padding=1, padding_mode="circular")).to(device, torch.float64)
    with unchanged(circular):
        refused(r"layer '0': torus needs .*stride \(3, 3\) on \(8, 8\)", clipped, circular, device, bound=0.3)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_without_a_torus_is_refused_by_name_before_any_weight_is_changed(device, mode):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1, padding_mode=mode)).to(device)
    with unchanged(model):
        words = rf"layer '1': torus needs zero or circular padding, got '{mode}'.*use torus_bound\(A\)"
        refused(words, clipped, model, device, bound=0.3)


def test_it_acts_after_every_so_many_steps_with_the_bound_of_that_moment(device):
    model = network(device, torch.float64)
    shapes = {"8": (1, 1)}  # of all shapes, only some
    with torch.no_grad():
        model[8].weight /= torch.linalg.matrix_norm(model[8].weight, 2)
    optimizer = sgd(model, 0.01)  # steps that are small beside a norm of 0.1
    handle = clip_operator_norm(optimizer, model, shapes, bound=0.3, every=3)
    other = model[0].weight.detach().clone()
    norms = []
    for step in range(7):
        if step == 4:
            handle.bound = 0.1
        train(model, optimizer, 1, step)
        norms.append(torch.linalg.matrix_norm(model[8].weight.detach(), 2).item())
        assert handle.record.get("8", {}).get("step") == (None, None, 3, 3, 3, 6, 6)[step]
    assert norms[2] == pytest.approx(0.3, abs=1e-9)
    assert norms[5] == pytest.approx(0.1, abs=1e-9)
    assert norms[1] > 0.9  # the first two steps go on from 1, the next two from 0.3
    assert norms[4] > 0.25
    assert (model[0].weight - other).norm() > 0
    assert handle.record.keys() == {"8"}


def test_the_reshaped_clip_bounds_another_norm_of_all_layers_or_those_that_are_named(device):
    model = network(device, torch.float64)
    optimizer = sgd(model, 0.0)
    handle = clip_reshaped_norm(optimizer, model, bound=0.2, every=1)
    before = {name: model.get_submodule(name).weight.detach().clone() for name in TORI}
    optimizer.step()
    assert handle.record.keys() == TORI.keys()
    for name, weight in before.items():
        layer = model.get_submodule(name)
        both = (w.chunk(getattr(layer, "groups", 1)) for w in (weight, layer.weight.detach()))
        for old, new in zip(*both, strict=True):
            U, S, Vh = torch.linalg.svd(old.flatten(1), full_matrices=False)
            assert_close(new.flatten(1), U @ S.clamp(max=0.2).diag() @ Vh)
        assert handle.record[name] == {"norm": pytest.approx(0.2), "step": 1, "geometry": "reshaped"}
    operators = conv_operators(model, batch(device, torch.float64))
    assert operator_norm(operators["0"], 2) > 0.3
    assert operator_norm(operators["8"], 2).item() == pytest.approx(0.2)
    handle.remove()
    handle = clip_reshaped_norm(optimizer, model, 0.1, 1, layers=["2"])
    with unchanged(model[0]):
        optimizer.step()
    assert handle.record.keys() == {"2"}


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_numbers_out_of_range_are_refused(device):
    model = network(device)
    optimizer, shapes = sgd(model), input_shapes(model, batch(device))
    for bound, every, words in (
        (0.0, 1, "bound must be a positive number, got 0"),
        (1.0, 2.5, "every must be a whole number of at least 1, got 2.5"),
    ):
        refused(f"clip_operator_norm's {words}", clip_operator_norm, optimizer, model, shapes, bound, every)
        refused(f"clip_reshaped_norm's {words}", clip_reshaped_norm, optimizer, model, bound, every)
    words = "rounds must be a whole number of at least 1, got 0"
    refused(words, clip_operator_norm, optimizer, model, shapes, 1.0, rounds=0)


def test_layers_that_cannot_be_clipped_are_refused_by_name(device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), parametrizations.weight_norm(nn.Conv2d(4, 5, 3)), nn.ReLU()).to(device)
    optimizer = sgd(model)
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)).to(device)
    tied[1].weight = tied[0].weight
    for of, shapes, words in (
        (model, {"0": (8, 8), "nine": (8, 8)}, "'nine', which Sequential does not have"),
        (model, {"0": (8, 8), "1": (6, 6)}, "plain parameter, got '1', a ParametrizedConv2d"),
        (model, {"2": (6, 6)}, "plain parameter, got '2', a ReLU"),
        (model, {"0": (1, 1)}, "layer '0': the kernel must fit"),
        (model, {}, "at least one layer"),
        (tied, {"0": (8, 8), "1": (6, 6)}, "some that share one"),
        (nn.Sequential(nn.Conv2d(3, 2, 1)).to(device), {"0": (8, 8)}, "parameters of the optimizer, got '0'"),
    ):
        refused(words, clip_operator_norm, optimizer, of, shapes, 1.0)
    refused("plain parameter, got '1'", clip_reshaped_norm, optimizer, model, 1.0)
    transposed = nn.Sequential(nn.ConvTranspose2d(3, 4, 3))
    refused("Conv1d, Conv2d, Conv3d or Linear, got '0'", clip_reshaped_norm, sgd(transposed), transposed, 1.0)
    refused("at least one layer", clip_reshaped_norm, optimizer, nn.ReLU(), 1.0)
    optimizer.step()  # and no hook was left behind


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("reshaped", [False, True])
def test_weights_that_are_not_finite_are_named_and_no_weight_is_changed(device, value, reshaped):
    model = network(device)
    optimizer = sgd(model, 0.0)
    if reshaped:
        handle = clip_reshaped_norm(optimizer, model, 0.1, every=1)
    else:
        handle = clip_operator_norm(optimizer, model, input_shapes(model, batch(device)), 0.1, every=1)
    with torch.no_grad():
        model[4].weight[1, 0] = value
    with unchanged(model):
        refused("layer '4': kernel must be finite", optimizer.step)
    assert (handle.record, handle.steps) == ({}, 0)
