"""Networks, data and training state their dtype: torch's default one makes no difference."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.data import digits, noisy_labels, scarce, shapes, subset
from convkit.data.augmentation import AUGMENTATIONS, OPERATIONS, augment
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.models import MODELS, build_model
from convkit.normalization.conversion import convert
from convkit.operators.dtypes import default_dtype, input_dtype
from convkit.training.checkpoint import load_checkpoint
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from tests.helpers.refusals import refused

DATA = subset(digits(), 100)
SMALL = {"widths": (4, 6, 8)}
OPTIONS = {
    **{name: {"width": 1 / 16} for name in MODELS},
    **{"cnn9": SMALL, "wrn28_10": {"widening": 1, "depth": 10}, "regnetx_200mf": {}},
}
KNOBS = {name: {"groups": 2} if "groupnorm" in name else {} for name in METHODS}
PLAN = {"steps": 3, "batch_size": 16, "evaluate_every": 3, "measure_every": 3}


def other(function, default=torch.float64):
    """What a function returns under another default dtype."""
    torch.set_default_dtype(default)
    try:
        return function()
    finally:
        torch.set_default_dtype(torch.float32)


def own():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    return nn.Sequential(*layers)


def kinds(model):
    return {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}


# ---- networks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_the_same_network_under_every_default(method, dtype):
    def make():
        return network("cnn9", DATA, method, seed=3, knobs=KNOBS[method], dtype=dtype, **SMALL)

    expected = make()
    for default in (torch.float64, torch.float16):
        model = other(make, default)
        assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
        assert kinds(model) == {dtype or torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_the_same_under_every_default(name):
    def make():
        torch.manual_seed(0)
        return build_model(name, in_channels=1, image_size=16, mean=[0.5], std=[0.25], **OPTIONS[name])

    assert_close(other(make).state_dict(), make().state_dict(), rtol=0, atol=0)
    assert kinds(network(name, DATA, "batchnorm", dtype=torch.float64, **OPTIONS[name])) == {torch.float64}


@pytest.mark.parametrize("method", ["batchnorm", "spectral_norm", "operator_norm", "convnorm", "sphere", "oni"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_of_ones_own_keeps_its_dtype_unless_another_is_asked_for(method, dtype):
    mine = own().to(dtype)

    def make(wanted=None):
        return network(mine, DATA, method, knobs=KNOBS[method], dtype=wanted)

    expected = make()
    assert kinds(expected) == {dtype}
    assert_close(other(make).state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert kinds(make(torch.float64)) == {torch.float64}
    assert kinds(mine) == {dtype}


def test_a_converted_layer_is_made_in_the_dtype_of_the_old_one():
    def random(c_in, c_out, *geometry, depth):
        layer = nn.Sequential(nn.Conv2d(c_in, c_out, *geometry), nn.BatchNorm2d(c_out))
        nn.init.normal_(layer[1].weight)  # drawn: another dtype would give other numbers
        return layer

    def make():
        torch.manual_seed(1)
        return convert(mine, random).model

    mine = own()
    assert_close(other(make).state_dict(), make().state_dict(), rtol=0, atol=0)


def test_a_dtype_that_weights_cannot_have_is_refused():
    for dtype in (torch.int64, "float32", float, torch.complex64):
        words = "dtype must be a floating-point dtype of torch, got"
        refused(words, network, "cnn9", DATA, "plain", dtype=dtype)
        refused(words, build_model, "vgg11", dtype=dtype)


def test_the_dtype_of_what_is_made_holds_in_one_thread_and_only_where_none_is_named():
    with default_dtype(torch.float64):
        assert nn.Linear(2, 3).weight.dtype == torch.float64
        assert torch.zeros(2, dtype=torch.float16).dtype == torch.float16
        assert torch.arange(3).dtype == torch.int64
        assert torch.zeros_like(torch.ones(2, dtype=torch.float32)).dtype == torch.float32
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: torch.zeros(2).dtype).result() == torch.float32
        with default_dtype(torch.bfloat16):
            assert torch.rand(2).dtype == torch.bfloat16
    assert torch.zeros(2).dtype == torch.get_default_dtype() == torch.float32


# ---- data ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda: shapes(20, 10),
        lambda: subset(digits(), 200, seed=1),
        lambda: noisy_labels(scarce(DATA, 0.5, seed=1), 0.4, "flip", seed=2),
    ],
    ids=["shapes", "digits", "noisy"],
)
def test_data_are_the_same_under_every_default(make):
    expected, data = make(), other(make)
    for part in ("images", "labels", "test_images", "test_labels", "clean_labels"):
        assert torch.equal(getattr(data, part), getattr(expected, part))
        assert getattr(data, part).dtype == getattr(expected, part).dtype
    assert (data.mean, data.std) == (expected.mean, expected.std)
    assert other(lambda: data.train_batch([0])[0]).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_are_the_same_under_every_default(name, dtype):
    x = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)

    def changed():
        return augment(name)(x, torch.Generator().manual_seed(0))

    assert torch.equal(other(changed), changed())
    assert changed().dtype == dtype


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_work_in_the_dtype_of_the_images(name):
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    strengths = torch.linspace(-0.9, 0.9, 4)[:, None, None, None]
    narrow, wide = (OPERATIONS[name](x.to(kind), strengths.to(kind)) for kind in (torch.float32, torch.float64))
    assert (narrow.dtype, wide.dtype) == (torch.float32, torch.float64)
    assert_close(narrow.double(), wide, rtol=0, atol=1e-5)


# ---- training --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_training_is_the_same_under_every_default(method):
    knobs = KNOBS[method] | ({"every": 2} if "every" in METHODS[method].knobs else {})

    def train():
        model = network("cnn9", DATA, method, knobs=knobs, **SMALL)
        records = list(fit(model, DATA, method, knobs=knobs, **PLAN | {"augmentation": "auto"}))
        return records, model.state_dict(), evaluate(model, DATA), measure(model, DATA.train_batch([0])[0])

    expected = train()
    records, weights, *measured = other(train)
    assert records == expected[0]
    assert_close(weights, expected[1], rtol=0, atol=0)
    assert tuple(measured) == expected[2:]


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_float64_trains_and_agrees_with_float32(method, tmp_path):
    knobs = {"lr": 1e-3} | KNOBS[method] | ({"every": 2} if "every" in METHODS[method].knobs else {})
    losses = {}
    for dtype in (torch.float32, torch.float64):
        model = network("cnn9", DATA, method, knobs=knobs, **SMALL).to(dtype)
        file = tmp_path / f"{dtype}.pt"
        records = list(fit(model, DATA, method, knobs=knobs, checkpoint=file, **PLAN | {"augmentation": "crop"}))
        losses[dtype] = [record.loss for record in records]
        assert kinds(model) == {dtype} == {input_dtype(model)}
        assert records[-1].norms == measure(model, DATA.train_batch([0])[0])[0]
        assert records[-1].test_accuracy == evaluate(model, DATA)
        assert {t.dtype for t in load_checkpoint(file)["model"].values() if t.is_floating_point()} == {dtype}
    assert all(map(math.isfinite, losses[torch.float64]))
    assert losses[torch.float64] == pytest.approx(losses[torch.float32], rel=1e-3)


def test_networks_without_weights_get_the_images_as_they_are():
    assert input_dtype(nn.Flatten()) is None
    assert input_dtype(nn.BatchNorm2d(3, affine=False).double()) == torch.float64
    pooled = (nn.AdaptiveAvgPool2d(10), nn.Flatten(2), nn.Softmax(2), nn.AdaptiveMaxPool1d(10), nn.Flatten())
    assert 0 <= evaluate(nn.Sequential(*pooled), DATA) <= 1


def test_autocast_asks_for_a_network_in_float32():
    for dtype in (torch.float64, torch.bfloat16):
        words = f"precision bfloat16 needs a network in float32, got one in {dtype}"
        model = network("cnn9", DATA, "plain", dtype=dtype, **SMALL)
        refused(words, fit, model, DATA, "plain", steps=1, precision="bfloat16")
    records = list(fit(model, DATA, "plain", steps=2))
    assert all(math.isfinite(record.loss) for record in records)
