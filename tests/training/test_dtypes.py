"""Networks, data and training state their dtype: torch's default one makes no difference."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.audit.measurement import measure
from convkit.data import digits, noisy_labels, scarce, shapes, subset
from convkit.data.augmentation import AUGMENTATIONS, OPERATIONS, augment
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.models import build_model
from convkit.operators.dtypes import default_dtype, input_dtype
from convkit.training.checkpoint import load_checkpoint
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from tests.helpers.histories import assert_same_training
from tests.helpers.image_models import IMAGE_MODELS
from tests.helpers.refusals import refused
from tests.models.test_networks import SMALL

pytestmark = pytest.mark.slow

DATA = subset(digits(), 100)
KNOBS = {name: {knob: 2 for knob in ("groups", "every") if knob in METHODS[name].knobs} for name in METHODS}
PLAN = {"steps": 3, "batch_size": 16, "evaluate_every": 3, "measure_every": 3}


@pytest.fixture
def data(device):
    return DATA.to(device)


def other(function):
    """What a function returns under another default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        return function()
    finally:
        torch.set_default_dtype(torch.float32)


def kinds(model):
    return {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}


# ---- networks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_is_built_the_same_under_every_default(data, name):
    def make():
        torch.manual_seed(0)
        return build_model(name, in_channels=1, image_size=16, mean=[0.5], std=[0.25], **SMALL[name])

    assert_close(other(make).state_dict(), make().state_dict(), rtol=0, atol=0)
    assert kinds(network(name, data, "batchnorm", dtype=torch.float64, **SMALL[name])) == {torch.float64}


def drawn(knobs):
    def layer(c_in, c_out, *geometry, depth):
        made = nn.Sequential(nn.Conv2d(c_in, c_out, *geometry), nn.BatchNorm2d(c_out))
        nn.init.normal_(made[1].weight)  # another dtype would give other numbers
        return made

    return layer


DRAWN = replace(METHODS["batchnorm"], layer=drawn)


@pytest.mark.parametrize("method", ["spectral_norm", "operator_norm", "convnorm", "sphere", "oni", DRAWN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_of_ones_own_keeps_its_dtype_unless_another_is_asked_for(data, method, dtype):
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    mine = nn.Sequential(*layers).to(data.device, dtype)
    expected = network(mine, data, method)
    assert kinds(expected) == {dtype}
    assert_close(other(lambda: network(mine, data, method)).state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert kinds(network(mine, data, method, dtype=torch.float64)) == {torch.float64}
    assert kinds(mine) == {dtype}


def test_a_dtype_that_weights_cannot_have_is_refused(data):
    for dtype in (torch.int64, "float32", float, torch.complex64):
        words = "dtype must be a floating-point dtype of torch, got"
        refused(words, network, "cnn9", data, "plain", dtype=dtype)
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
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "turn+jitter"])  # of clouds
def test_augmentations_are_the_same_under_every_default(device, name, dtype):
    x = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=dtype).to(device)

    def changed():
        return augment(name, data)(x, torch.Generator(device).manual_seed(0))

    data = shapes(20, 10).to(device)
    assert torch.equal(other(changed), changed())
    assert changed().dtype == dtype


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_work_in_the_dtype_of_the_images(device, name):
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
    strengths = torch.linspace(-0.9, 0.9, 4, device=device)[:, None, None, None]
    narrow, wide = (OPERATIONS[name](x.to(kind), strengths.to(kind)) for kind in (torch.float32, torch.float64))
    assert (narrow.dtype, wide.dtype) == (torch.float32, torch.float64)
    assert_close(narrow.double(), wide, rtol=0, atol=1e-5)


# ---- training --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_a_network_and_its_training_are_the_same_under_every_default(data, method):
    def train():
        model = network("cnn9", data, method, knobs=KNOBS[method], **SMALL["cnn9"])
        records = list(fit(model, data, method, knobs=KNOBS[method], **PLAN | {"augmentation": "auto"}))
        return records, model

    (expected, one), (records, model) = train(), other(train)
    assert_same_training(records, expected, model, one)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_in_float64_trains_and_agrees_with_float32(data, method, tmp_path):
    knobs = {"lr": 1e-3} | KNOBS[method]
    losses = {}
    for dtype in (torch.float32, torch.float64):
        assert kinds(network("cnn9", data, method, knobs=knobs, dtype=dtype, **SMALL["cnn9"])) == {dtype}
        model = network("cnn9", data, method, knobs=knobs, **SMALL["cnn9"]).to(dtype)
        file = tmp_path / f"{dtype}.pt"
        records = list(fit(model, data, method, knobs=knobs, checkpoint=file, **PLAN | {"augmentation": "crop"}))
        losses[dtype] = [record.loss for record in records]
        assert kinds(model) == {dtype} == {input_dtype(model)}
        assert records[-1].norms == pytest.approx(measure(model, data.train_batch([0])[0])[0], rel=1e-6)
        assert records[-1].test_accuracy == evaluate(model, data)
        assert {t.dtype for t in load_checkpoint(file)["model"].values() if t.is_floating_point()} == {dtype}
    assert all(map(math.isfinite, losses[torch.float64]))
    assert losses[torch.float64] == pytest.approx(losses[torch.float32], rel=1e-3)


def test_networks_without_weights_get_the_images_as_they_are(data):
    assert input_dtype(nn.Flatten()) is None
    assert input_dtype(nn.BatchNorm2d(3, affine=False).double()) == torch.float64
    pooled = (nn.AdaptiveAvgPool2d(10), nn.Flatten(2), nn.Softmax(2), nn.AdaptiveMaxPool1d(10), nn.Flatten())
    assert 0 <= evaluate(nn.Sequential(*pooled), data) <= 1


def test_autocast_asks_for_a_network_in_float32(data):
    for dtype in (torch.float64, torch.bfloat16):
        words = f"precision bfloat16 needs a network in float32, got one in {dtype}"
        model = network("cnn9", data, "plain", dtype=dtype, **SMALL["cnn9"])
        refused(words, fit, model, data, "plain", steps=1, precision="bfloat16")
    records = list(fit(model, data, "plain", steps=2))
    assert all(math.isfinite(record.loss) for record in records)
