"""Numbers and states of any kind that enter a run: plain from the first step on, or refused before it."""

import copy
import datetime
import math
from collections import OrderedDict
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

DATA = subset(digits(), np.int64(100), seed=np.uint8(0), test_count=torch.tensor(20))
SMALL = {"widths": np.array([4, 6, 8])}
KINDS = {
    "numpy": (np.float64, np.int64, np.asarray),
    "numpy, narrow": (np.float32, np.uint8, np.asarray),
    "0-d arrays": (np.array, np.array, list),
    "tensors": (lambda x: torch.tensor(x, dtype=torch.float64), torch.tensor, torch.tensor),
    "tensors with gradients": (lambda x: torch.tensor(float(x), requires_grad=True), torch.tensor, torch.tensor),
    "fractions": (Fraction, np.int32, lambda parts: [Fraction(part) for part in parts]),
}


def made(method, **options):
    return network("cnn9", DATA, method, **(SMALL | options))


def plan(real, whole, several):
    """A whole plan; all reals are exact in float32."""
    return {
        **{"steps": whole(4), "seed": whole(3), "batch_size": whole(16), "schedule": np.str_("steps")},
        **{"milestones": several([0.25, 0.5]), "reference_batch": real(32), "evaluate_every": whole(2)},
        **{"measure_every": whole(3), "checkpoint_every": whole(2), "augmentation": np.str_("crop")},
    }


def test_fit_announces_every_field_of_a_plan():
    assert ["steps", *PlanOptions.__annotations__] == [field.name for field in fields(Plan)]


def weights(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def types(value) -> set[type]:
    """The types of all that is in a state, but for what is in tensors."""
    if isinstance(value, dict):
        return {type(value)}.union(*(types(inner) for pair in value.items() for inner in pair))
    return {type(value)}.union(*map(types, value)) if isinstance(value, list | tuple) else {type(value)}


# ---- numbers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_numbers_of_any_kind_is_the_run_with_plain_ones_and_goes_on_from_its_file(kind, tmp_path):
    real, whole, several = KINDS[kind]
    file = tmp_path / "run.pt"
    plain = {"lr": 0.125, "momentum": 0.5, "weight_decay": 0.0625, "bound": 0.5, "every": 2, "rounds": 2}
    knobs = {name: (whole if isinstance(value, int) else real)(value) for name, value in plain.items()}
    usual = {**plan(float, int, list), "schedule": "steps", "augmentation": "crop"}
    expected = list(fit(made("norm_clip", knobs=plain, seed=3), DATA, "norm_clip", knobs=plain, **usual))

    options = {"knobs": knobs, "checkpoint": file, **plan(real, whole, several)}
    run = fit(made("norm_clip", knobs=knobs, seed=whole(3)), DATA, "norm_clip", **options)
    records = [next(run) for _ in range(3)]
    run.close()
    plain_types = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    assert types(load_checkpoint(file)) <= plain_types
    again = list(fit(made("norm_clip", knobs=knobs), DATA, "norm_clip", **options))
    assert again == expected
    assert again[:3] == records
    resumed = list(fit(made("norm_clip"), DATA, "norm_clip", knobs=plain, checkpoint=file, **usual))
    assert resumed == expected  # the same plan, whatever its numbers were


@pytest.mark.parametrize("kind", KINDS)
def test_knobs_changed_between_two_steps_may_be_of_any_kind(kind, tmp_path):
    real, _, _ = KINDS[kind]
    file = tmp_path / "run.pt"
    losses = []
    for made_of in (float, real):
        knobs = {"lr": 0.125, "radius": 1.0, "sigma": 0.25}
        options = {"knobs": knobs, "steps": 4, "batch_size": 16, "schedule": "constant"}
        run = fit(made("sphere"), DATA, "sphere", **options, checkpoint=file if made_of is real else None)
        next(run)
        knobs |= {"lr": made_of(0.0625), "radius": made_of(2), "sigma": made_of(0.5)}
        losses.append([next(run).loss for _ in range(2)])
        run.close()
    assert losses[0] == losses[1]
    records = list(fit(made("sphere"), DATA, "sphere", **options, checkpoint=file))
    assert [record.lr for record in records[1:3]] == [0.0625] * 2


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, True, np.True_, np.float32("nan"), torch.tensor(math.inf), "0.1", None, [0.1], 1j]
)
def test_a_knob_that_becomes_no_number_is_refused_before_the_step(value):
    knobs = {"lr": 0.1}
    model = made("sphere")
    run = fit(model, DATA, "sphere", steps=3, batch_size=16, knobs=knobs)
    next(run)
    before = weights(model)
    knobs["lr"] = value
    refused("lr must be a number from 1e-06 to 10, got", next, run)
    assert_close(weights(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"steps": 2.5}, r"steps must be a whole number, got 2\.5"),
        ({"steps": np.float64("nan")}, "steps must be a whole number, got nan"),
        ({"steps": [3]}, r"steps must be a whole number, got \[3\]"),
        ({"batch_size": 16.0}, r"batch_size must be a whole number, got 16\.0"),
        ({"batch_size": np.array([16])}, r"batch_size must be a whole number, got \[16\]"),
        ({"seed": 0.0}, r"seed must be a whole number, got 0\.0"),
        ({"seed": 2**64}, "seed must be from"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"evaluate_every": -1}, "evaluate_every must be a whole number of at least 0, got -1"),
        ({"measure_every": np.True_}, "measure_every must be a whole number of at least 0, got True"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1, got 0"),
        ({"milestones": 0.5}, "milestones must be numbers in a list or a tuple, got 0.5"),
        ({"milestones": [0.5, 60]}, "each of milestones must be a number from 0 to 1, got 60: a part of the run"),
        ({"milestones": np.array([0.5, np.nan])}, "each of milestones must be a number from 0 to 1, got nan"),
        ({"reference_batch": math.inf}, "reference_batch must be a finite number, got inf"),
        ({"schedule": 3}, "schedule must be one of constant, cosine, steps, got 3"),
        ({"augmentation": ["crop"]}, "AUGMENTATIONS has no \\['crop'\\]"),
        ({"knobs": {"every": 2.5}}, "every must be a whole number from 1 to 1e\\+09, got 2.5"),
        ({"knobs": {"bound": np.bool_(True)}}, "bound must be a number from 0.001 to 1000, got True"),
    ],
)
def test_a_plan_of_no_numbers_is_refused_before_any_step(options, words):
    model = made("norm_clip")
    refused(words, fit, model, DATA, "norm_clip", **{"steps": 3, "batch_size": 16} | options)


def test_whole_numbers_given_as_floats_are_taken_where_they_always_were(tmp_path):
    options = {"steps": 3.0, "evaluate_every": np.float64(2), "measure_every": 2.0, "checkpoint_every": 1.0}
    records = list(fit(made("plain"), DATA, "plain", batch_size=16, checkpoint=tmp_path / "run.pt", **options))
    assert [type(record.step) for record in records] == [int] * 3
    assert [record.test_accuracy is None for record in records] == [True, False, False]
    assert Plan(3.0) == Plan(3)


def test_choices_come_back_as_the_method_has_them():
    settings = METHODS["convnorm"].settings({"affine": np.False_, "through": torch.tensor(True), "batchnorm": 1})
    assert [settings[name] for name in ("affine", "through", "batchnorm")] == [False, True, True]
    assert {type(settings[name]) for name in ("affine", "through", "batchnorm")} == {bool}
    assert type(METHODS["sphere"].settings({"noise": np.str_("linear")})["noise"]) is str
    assert type(METHODS["groupnorm"].settings({"groups": np.int64(4)})["groups"]) is int
    with pytest.raises(ValueError, match=r"affine must be one of True, False, got \[True\]"):
        METHODS["convnorm"].settings({"affine": np.array([True])})


@pytest.mark.parametrize("kind", KINDS)
def test_networks_and_parts_of_data_take_numbers_of_any_kind(kind):
    real, whole, several = KINDS[kind]
    expected = network("resnet18", DATA, "plain", seed=3, width=0.0625, image_size=8)
    model = network("resnet18", DATA, "plain", seed=whole(3), width=real(0.0625), image_size=whole(8))
    assert_close(weights(model), weights(expected), rtol=0, atol=0)
    data = noisy_labels(scarce(DATA, real(0.5), seed=whole(1)), real(0.25), seed=whole(2))
    plain = noisy_labels(scarce(DATA, 0.5, seed=1), 0.25, seed=2)
    assert torch.equal(data.labels, plain.labels)
    assert data.name == plain.name
    assert evaluate(model, DATA, batch_size=whole(7)) == evaluate(model, DATA)
    words = r"each of widths must be a whole number of at least 1, got 0\.5"
    refused(words, network, "cnn9", DATA, "plain", widths=several([0.5, 0.5, 0.5]))
    for wrong in (several([4, 4]), whole(4), None):
        refused("widths", network, "cnn9", DATA, "plain", widths=wrong)


def test_names_of_other_libraries_are_plain_words_in_a_checkpoint(tmp_path):
    data = copy.copy(DATA)
    object.__setattr__(data, "name", None)
    refused("a data set needs a name, a word, got None", data.to, "cpu")
    object.__setattr__(data, "name", np.str_("numbers"))
    data = data.to("cpu")
    method = replace(METHODS["plain"], name=np.str_("own"))
    options = {"steps": 1, "batch_size": 16, "checkpoint": tmp_path / "run.pt"}
    records = list(fit(made(method), data, method, **options))
    assert load_checkpoint(tmp_path / "run.pt")["belongs_to"]["data"][0] == "numbers"
    assert list(fit(made(method), data, replace(method, name="own"), **options)) == records


# ---- extra state -----------------------------------------------------------------------------------------------------
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


def keeping(kept, later=None):
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(keeper=Keeper(kept, later), flat=nn.Flatten(), head=nn.Linear(64, 10)))


@pytest.mark.parametrize(
    "kept",
    [
        *(None, {}, {"a": [1, {"b": None}]}, {1, "a"}, b"bytes", OrderedDict(a=1), "word", 3, 0.5, (1, 2), [None]),
        *(torch.ones(3), torch.ones(3).to_sparse(), torch.tensor(1j).conj()),
    ],
    ids=lambda kept: type(kept).__name__,
)
def test_extra_state_is_saved_and_given_back_also_where_it_becomes_of_another_kind_while_training(kept, tmp_path):
    for start, later in ((kept, None), ("something else", kept)):
        options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / f"{later is None}.pt"}
        records = list(fit(keeping(start, later), DATA, "plain", **options))
        model = keeping("something else", later)
        assert list(fit(model, DATA, "plain", **options)) == records
        if later is None and start is not kept:
            continue  # None, which changes nothing on the way
        assert type(model.keeper.kept) is type(kept)
        assert repr(model.keeper.kept) == repr(kept)


@pytest.mark.parametrize(
    "kept",
    [
        *(np.float64(1), np.arange(3), datetime.date(2020, 1, 1), Path("a"), frozenset(), object(), b"", print),
        *(torch.ones(2, device="meta"), {"a": [np.int64(3)]}, OrderedDict(a=np.str_("a"))),
    ],
    ids=lambda kept: type(kept).__name__,
)
def test_extra_state_that_no_checkpoint_holds_is_refused_before_the_first_step_or_after_it(kept, tmp_path):
    options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / "folder" / "run.pt"}
    words = r"^extra state of layer keeper[:,].*which a checkpoint cannot hold"
    model = keeping(kept)
    with unchanged(model.head):
        refused(words, fit, model, DATA, "plain", **options)
    assert list(tmp_path.iterdir()) == []
    assert len(list(fit(model, DATA, "plain", steps=2, batch_size=16))) == 2  # without a file nothing is asked
    options["checkpoint"] = tmp_path / "run.pt"
    refused(words, next, fit(keeping(None, later=kept), DATA, "plain", **options))  # what only the first step brings
    assert not options["checkpoint"].exists()


def test_extra_state_that_cannot_be_given_back_is_refused(tmp_path):
    class Giver(nn.Identity):
        def get_extra_state(self):
            return 1

    model = nn.Sequential(nn.Flatten(), Giver(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="extra state of layer 1: Giver has get_extra_state but no set_extra_state"):
        fit(model, DATA, "plain", steps=2, batch_size=16, checkpoint=tmp_path / "run.pt")


# ---- states of objectives and handles --------------------------------------------------------------------------------
class Counting:
    """An objective that counts its calls."""

    def __init__(self, seen=0):
        self.seen = seen

    def __call__(self, model, x, y):
        self.seen += 1
        logits = model(x)
        return F.cross_entropy(logits, y), logits

    def state_dict(self):
        return {"seen": self.seen}


class Resumed(Counting):
    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_the_state_of_an_objective_is_held_to_the_same(tmp_path):
    options = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(ValueError, match="the objective Counting has state_dict but no load_state_dict"):
        fit(keeping(None), DATA, "plain", objective=Counting(), **options)
    with pytest.raises(ValueError, match=r"^objective\['seen'\]: a value of type numpy.int64"):
        fit(keeping(None), DATA, "plain", objective=Resumed(np.int64(0)), **options)
    list(fit(keeping(None), DATA, "plain", objective=Resumed(), **options))
    objective = Resumed()
    list(fit(keeping(None), DATA, "plain", objective=objective, **options))
    assert objective.seen == 2


def test_the_state_of_a_handle_is_held_to_the_same(tmp_path):
    class Counter(Handle):
        kind = "counter"

        def _apply(self, args, kwargs):
            self.seen = np.int64(1)

        def state_dict(self):
            return super().state_dict() | {"seen": getattr(self, "seen", 0)}

    def constrain(optimizer, model, shapes, knobs):
        return Counter(optimizer, ["head"], {"head": model.head.weight})

    method = Method("counted", "", "", METHODS["plain"].layer, METHODS["plain"].knobs, constrain=constrain)
    run = fit(keeping(None), DATA, method, steps=2, batch_size=16, checkpoint=tmp_path / "run.pt")
    refused(r"^handle\['seen'\]: a value of type numpy.int64", next, run)


def test_a_place_where_nothing_can_be_written_is_noticed_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    place = {"steps": 2, "batch_size": 16, "checkpoint": tmp_path / "file" / "run.pt"}
    refused("file", fit, made("plain"), DATA, "plain", **place, error=OSError)
