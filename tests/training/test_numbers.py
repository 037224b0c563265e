"""Numbers and states of any kind that enter a run: plain from the first step on, or refused before it."""

import math
from collections import OrderedDict
from dataclasses import fields, replace
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.constraints import Handle
from convkit.data import digits, noisy_labels, scarce, subset
from convkit.methods.build import network
from convkit.methods.method import Method
from convkit.methods.registry import METHODS
from convkit.training.checkpoint import load_checkpoint
from convkit.training.evaluation import evaluate
from convkit.training.loop import fit
from convkit.training.plan import Plan, PlanOptions
from tests.helpers.histories import assert_same_training
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

pytestmark = pytest.mark.slow

DATA = subset(digits(), np.int64(100), seed=np.uint8(0), test_count=torch.tensor(20))
SMALL = {"widths": np.array([4, 6, 8])}
KINDS = {  # what becomes of every kind is in tests/test_checks.py
    "numpy": (np.float32, np.uint8, np.asarray),
    "tensors": (lambda x: torch.tensor(float(x), requires_grad=True), torch.tensor, torch.tensor),
    "fractions": (Fraction, np.int32, lambda parts: [Fraction(part) for part in parts]),
}
PLAIN = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}


@pytest.fixture
def data(device):
    return DATA.to(device)


def made(data, method, **options):
    return network("cnn9", data, method, **(SMALL | options))


def plan(real, whole, several):
    """A whole plan; all reals are exact in float32."""
    return {
        **{"steps": whole(4), "seed": whole(3), "batch_size": whole(16), "schedule": np.str_("steps")},
        **{"milestones": several([0.25, 0.5]), "reference_batch": real(32), "evaluate_every": whole(2)},
        **{"measure_every": whole(3), "checkpoint_every": whole(2), "augmentation": np.str_("crop")},
    }


def test_fit_announces_every_field_of_a_plan():
    assert ["steps", *PlanOptions.__annotations__] == [field.name for field in fields(Plan)]


def types(value) -> set[type]:
    """The types of all that is in a state, but for what is in tensors."""
    if isinstance(value, dict):
        return {type(value)}.union(*(types(inner) for pair in value.items() for inner in pair))
    return {type(value)}.union(*map(types, value)) if isinstance(value, list | tuple) else {type(value)}


# ---- numbers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_numbers_of_any_kind_is_the_run_with_plain_ones_and_goes_on_from_its_file(data, kind, tmp_path):
    real, whole, several = KINDS[kind]
    file = tmp_path / "run.pt"
    plain = {"lr": 0.125, "momentum": 0.5, "weight_decay": 0.0625, "bound": 0.5, "every": 2, "rounds": 2}
    knobs = {name: (whole if isinstance(value, int) else real)(value) for name, value in plain.items()}
    usual = {**plan(float, int, list), "schedule": "steps", "augmentation": "crop"}
    model = made(data, "norm_clip", knobs=plain, seed=3)
    expected = list(fit(model, data, "norm_clip", knobs=plain, **usual))

    options = {"knobs": knobs, "checkpoint": file, **plan(real, whole, several)}
    run = fit(made(data, "norm_clip", knobs=knobs, seed=whole(3)), data, "norm_clip", **options)
    records = [next(run) for _ in range(3)]
    run.close()
    assert types(load_checkpoint(file)) <= PLAIN
    again = made(data, "norm_clip", knobs=knobs)
    told = list(fit(again, data, "norm_clip", **options))
    assert_same_training(told, expected, again, model)
    assert told[:3] == records
    resumed = list(fit(made(data, "norm_clip"), data, "norm_clip", knobs=plain, checkpoint=file, **usual))
    assert resumed == told  # the same plan, whatever its numbers were


def test_knobs_changed_between_two_steps_may_be_of_any_kind(data, tmp_path):
    losses = []
    for real in (float, np.float32):
        knobs = {"lr": 0.125, "radius": 1.0, "sigma": 0.25}
        options = {"knobs": knobs, "steps": 4, "batch_size": 16, "checkpoint": tmp_path / f"{real.__name__}.pt"}
        run = fit(made(data, "sphere"), data, "sphere", **options)
        next(run)
        knobs |= {"lr": real(0.0625), "radius": real(2), "sigma": real(0.5)}
        losses.append([next(run).loss for _ in range(2)])
        run.close()
        assert types(load_checkpoint(options["checkpoint"])) <= PLAIN
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, np.True_, torch.tensor(math.inf), "0.1"])
def test_a_knob_that_becomes_no_number_is_refused_before_the_step(data, value):
    knobs = {"lr": 0.1}
    model = made(data, "sphere")
    run = fit(model, data, "sphere", steps=3, batch_size=16, knobs=knobs)
    next(run)
    knobs["lr"] = value
    with unchanged(model):
        refused("lr must be a number from 1e-06 to 10, got", next, run)


def test_whole_numbers_given_as_floats_are_taken_where_they_always_were(data, tmp_path):
    options = {"steps": 3.0, "evaluate_every": np.float64(2), "measure_every": 2.0, "checkpoint_every": 1.0}
    records = list(fit(made(data, "plain"), data, "plain", batch_size=16, checkpoint=tmp_path / "run.pt", **options))
    assert [type(record.step) for record in records] == [int] * 3
    assert [record.test_accuracy is None for record in records] == [True, False, False]
    assert Plan(3.0) == Plan(3)


def test_choices_come_back_as_the_method_has_them():
    settings = METHODS["convnorm"].settings({"affine": np.False_, "through": torch.tensor(True), "batchnorm": 1})
    assert str([settings[name] for name in ("affine", "through", "batchnorm")]) == "[False, True, True]"
    settings |= METHODS["sphere"].settings({"noise": np.str_("linear")})
    assert types(settings) <= PLAIN
    words = r"affine must be one of True, False, got \[True\]"
    refused(words, METHODS["convnorm"].settings, {"affine": np.array([True])})


@pytest.mark.parametrize("kind", KINDS)
def test_networks_and_parts_of_data_take_numbers_of_any_kind(data, kind):
    real, whole, _ = KINDS[kind]
    expected = network("resnet18", data, "plain", seed=3, width=0.0625, image_size=8)
    model = network("resnet18", data, "plain", seed=whole(3), width=real(0.0625), image_size=whole(8))
    assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    part = noisy_labels(scarce(data, real(0.5), seed=whole(1)), real(0.25), seed=whole(2))
    plain = noisy_labels(scarce(data, 0.5, seed=1), 0.25, seed=2)
    assert torch.equal(part.labels, plain.labels)
    assert part.name == plain.name
    assert evaluate(model, data, batch_size=whole(7)) == evaluate(model, data)


def test_names_of_other_libraries_are_plain_words_in_a_checkpoint(data, tmp_path):
    refused("a data set needs a name, a word, got None", replace, data, name=None)
    data = replace(data, name=np.str_("numbers"))
    method = replace(METHODS["plain"], name=np.str_("own"))
    options = {"steps": 1, "batch_size": 16, "checkpoint": tmp_path / "run.pt"}
    records = list(fit(made(data, method), data, method, **options))
    assert load_checkpoint(tmp_path / "run.pt")["belongs_to"]["data"][0] == "numbers"
    assert list(fit(made(data, method), data, replace(method, name="own"), **options)) == records


# ---- states of layers, objectives and handles ------------------------------------------------------------------------
class Keeper(nn.Module):
    """What keeps something that is no parameter and no buffer."""

    def __init__(self, kept, later=None):
        super().__init__()
        self.kept, self.later = kept, later

    def get_extra_state(self):
        return self.kept

    def set_extra_state(self, state):
        self.kept = state

    def forward(self, x):
        if self.training and self.later is not None:
            self.kept = self.later
        return x


def keeping(data, kept, later=None):
    torch.manual_seed(0)
    layers = OrderedDict(keeper=Keeper(kept, later), flat=nn.Flatten(), head=nn.Linear(64, 10))
    return nn.Sequential(layers).to(data.device)


KEPT = [None, {"a": [1, {"b": None}]}, {1, "a"}, b"bytes", OrderedDict(a=1), torch.ones(3).to_sparse()]


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: type(kept).__name__)
def test_extra_state_is_saved_and_given_back_also_where_it_becomes_of_another_kind_while_training(data, kept, tmp_path):
    for start, later in ((kept, None), ("something else", kept)):
        options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / f"{later is None}.pt"}
        records = list(fit(keeping(data, start, later), data, "plain", **options))
        model = keeping(data, "something else", later)
        assert list(fit(model, data, "plain", **options)) == records
        if later is None and start is not kept:
            continue  # None, which changes nothing on the way
        assert type(model.keeper.kept) is type(kept)
        assert repr(model.keeper.kept) == repr(kept)


@pytest.mark.parametrize("kept", [np.arange(3), b"", {"a": [np.int64(3)]}], ids=["array", "bytes", "inner"])
def test_extra_state_that_no_checkpoint_holds_is_refused_before_the_first_step_or_after_it(data, kept, tmp_path):
    options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / "folder" / "run.pt"}
    words = r"^extra state of layer keeper[:,].*which a checkpoint cannot hold"
    model = keeping(data, kept)
    with unchanged(model.head):
        refused(words, fit, model, data, "plain", **options)
    assert list(tmp_path.iterdir()) == []
    assert len(list(fit(model, data, "plain", steps=2, batch_size=16))) == 2  # without a file nothing is asked
    options["checkpoint"] = tmp_path / "run.pt"
    refused(words, next, fit(keeping(data, None, later=kept), data, "plain", **options))  # what the first step brings
    assert not options["checkpoint"].exists()


def test_extra_state_that_cannot_be_given_back_is_refused(data, tmp_path):
    class Giver(nn.Identity):
        def get_extra_state(self):
            return 1

    model = nn.Sequential(nn.Flatten(), Giver(), nn.Linear(64, 10))
    words = "extra state of layer 1: Giver has get_extra_state but no set_extra_state"
    refused(words, fit, model, data, "plain", steps=2, batch_size=16, checkpoint=tmp_path / "run.pt")


def test_the_state_of_an_objective_is_held_to_the_same(data, tmp_path):
    objective = SimpleNamespace(state_dict=lambda: {"seen": np.int64(0)})
    options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / "run.pt"}
    ask = partial(fit, keeping(data, None), data, "plain", **options)
    refused("the objective SimpleNamespace has state_dict but no load_state_dict", ask, objective=objective)
    objective.load_state_dict = dict
    refused(r"^objective\['seen'\]: a value of type numpy.int64", ask, objective=objective)


def test_the_state_of_a_handle_is_held_to_the_same(data, tmp_path):
    class Counter(Handle):
        kind = "counter"

        def _apply(self, args, kwargs):
            self.seen = np.int64(1)

        def state_dict(self):
            return super().state_dict() | {"seen": getattr(self, "seen", 0)}

    def constrain(optimizer, model, shapes, knobs):
        return Counter(optimizer, ["head"], {"head": model.head.weight})

    method = Method("counted", "", "", METHODS["plain"].layer, METHODS["plain"].knobs, constrain=constrain)
    run = fit(keeping(data, None), data, method, steps=2, batch_size=16, checkpoint=tmp_path / "run.pt")
    refused(r"^handle\['seen'\]: a value of type numpy.int64", next, run)


def test_a_place_where_nothing_can_be_written_is_noticed_before_the_first_step(data, tmp_path):
    ask = partial(fit, made(data, "plain"), data, "plain", steps=2, batch_size=16)
    ask(checkpoint=tmp_path / "new" / "run.pt")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    refused("file", ask, checkpoint=tmp_path / "file" / "run.pt", error=OSError)
