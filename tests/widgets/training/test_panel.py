"""The training panel: Start, Pause, Stop, knobs moved on the way, and numbers that code gives again."""

import functools
import threading

import pytest
from torch import nn

from convkit.methods.registry import METHODS
from convkit.teaching.pictures import png_bytes
from convkit.training.adversarial import OBJECTIVES
from convkit.training.evaluation import evaluate
from convkit.widgets import panel as module
from convkit.widgets.training.panel import TrainingPanel
from tests.helpers.histories import assert_same_training
from tests.helpers.panels import press
from tests.helpers.refusals import refused
from tests.helpers.training_panels import DATA, SMALL, again, bare, in_a_notebook, knob, over, reached, rests, small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


# ---- the first state -------------------------------------------------------------------------------------------------
def test_it_opens_with_some_steps_of_training_and_says_so(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", png_bytes)
    panel = small()
    assert panel.history == {"batchnorm": bare("batchnorm", 2), "sphere": bare("sphere", 2)}
    assert panel.words.startswith("After 2 steps each on digits, subset of 200, in batches of 16. BatchNorm: loss ")
    assert panel.words.endswith("Start trains for 6 steps, from the beginning.")
    assert not panel.words.alert
    assert panel.png.startswith(b"\x89PNG")
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"] == panel.words
    assert "seconds" not in bundle["text/html"]  # two builds of a notebook write the same bytes
    assert (small().png, small().words) == (panel.png, panel.words)


def test_one_to_three_methods_and_one_of_them_twice_with_two_names():
    for methods in (("plain",), ("plain", "convnorm", "sphere")):
        panel = small(*methods)
        assert list(panel.history) == list(methods)
        assert [control.value["method"] for control in panel.slots.values()] == [*methods, None][: max(2, len(methods))]
    panel, name = small("sphere", "sphere"), "centered sphere with noise"
    assert list(panel.history) == ["sphere", "sphere (second)"]
    assert [run.track.name for run in panel.runs] == [f"{name}, first", f"{name}, second"]
    panel = small("batchnorm", "batchnorm", objectives=("clean", "free"))
    names = [run.track.name for run in panel.runs]
    assert names == ["BatchNorm, the images as they are", "BatchNorm, free adversarial training"]


CLOSED = {
    r"compares one to three methods, got \(\); name two": {"methods": ()},
    "compares one to three methods, got 'oni'": {"methods": "oni"},
    "METHODS has no 'batchnrm'; near it: batchnorm": {"methods": ("batchnrm",)},
    "batch_size must be from 1 to the 200 training images": {"batch_size": 201},
    "steps needs a whole number from 1": {"steps": 0},
    "cnn99": {"model": "cnn99"},
    "seeds needs a whole number from 1 to 8, got 9": {"seeds": 9},
    "schedule must be one of constant, cosine": {"schedule": "linear"},
    "needed an objective for each of 2 methods": {"objectives": ("clean",)},
    "OBJECTIVES has no 'fre'": {"objectives": ("clean", "fre")},
    "sigma must be a number from 0 to 5, got 9": {"knobs": {"sphere": {"sigma": 9}}},
}


@pytest.mark.parametrize("words", CLOSED)
def test_a_panel_that_cannot_open_is_refused(words):
    refused(words, TrainingPanel, **({"data": DATA} | SMALL | CLOSED[words]))


# ---- training --------------------------------------------------------------------------------------------------------
HISTORY = functools.cache(lambda: {"batchnorm": bare("batchnorm"), "sphere": bare("sphere")})


def test_without_a_loop_start_trains_to_the_end_and_the_history_is_that_of_the_bare_loops(panel):
    press(panel, "Start")
    assert panel.history == HISTORY()
    assert panel.words.startswith("After 6 steps. BatchNorm: loss ")
    assert [run.end for run in panel.runs] == ["done"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "clean"])
def test_methods_train_on_attacked_images(objective):
    panel = small(first=1)
    panel.set(**{"attack ε": "0.2", "steps": "3"})
    for control in panel.slots.values():
        control._goal.value = objective
    assert f"first trained on: {OBJECTIVES[objective].words}" in panel.words
    press(panel, "Start")
    expected = {name: bare(name, 3, objective=objective, eps=0.2) for name in ("batchnorm", "sphere")}
    assert panel.history == expected != {name: bare(name, 3) for name in ("batchnorm", "sphere")}
    for run in panel.runs[2:]:
        assert again(run) == run.history
        assert run.row()["trained on"] == f"{OBJECTIVES[objective].words}, ε 0.2"
        assert evaluate(run.model, DATA) == run.history[-1].test_accuracy
    assert panel.runs[0].row()["trained on"] == ""


def test_in_a_notebook_start_returns_at_once_and_two_panels_leave_each_others_numbers_alone():
    threads = []

    async def story(panel):
        other, made = small("plain", "norm_decay_l1", seed=3), panel.make
        panel.make = lambda settings: threads.append(threading.current_thread()) or made(settings)
        page = threading.Thread(target=press, args=(panel, "Start"))  # a message comes on another thread
        page.start()
        page.join()
        press(other, "Start")
        assert panel.words.startswith("Starting")
        await over(panel)
        await over(other)
        assert other.history == {name: bare(name, seed=3) for name in ("plain", "norm_decay_l1")}

    assert in_a_notebook(story).history == HISTORY()
    assert threads == [threading.main_thread()]


def test_pause_resume_and_stop():
    async def story(panel):
        press(panel, "Start")
        await reached(panel, 2)
        press(panel, "Pause")
        held = panel.runner.step
        assert panel.words.startswith(f"Paused at step {held} of 5000.")
        assert panel._pause.description == "Resume"
        await rests(panel.runner)
        assert panel.runner.step == held
        press(panel, "Start")
        assert panel.words.startswith("a training is under way: press Stop first, or wait for its end.")
        assert panel.words.alert
        press(panel, "Resume")
        await reached(panel, held + 1)
        press(panel, "Stop")
        await over(panel)
        assert panel._pause.description == "Pause"

    panel = in_a_notebook(story, steps=5000)
    steps = max(map(len, panel.history.values()))
    assert panel.words.startswith(f"Stopped at step {steps} of 5000.")
    assert not panel.words.alert
    for run in panel.runs[2:]:
        assert run.end == "stopped"
        assert again(run) == run.history


def test_a_knob_moved_on_the_way_changes_the_run_from_the_step_it_says():
    async def story(panel):
        press(panel, "Start")
        await reached(panel, 3)
        knob(panel, "second", "sigma").value = 0.5
        knob(panel, "second", "lr").value = 0.05
        knob(panel, "second", "noise").value = "linear"
        await over(panel)

    panel = in_a_notebook(story, steps=12)
    first, second = panel.runs[2:]
    ((step, changes),) = second.steered.items()
    assert changes == {"sigma": 0.5, "lr": 0.05}
    assert (first.steered, 3 <= step < 12) == ({}, True)
    assert [record.lr for record in second.history] == [0.1] * step + [0.05] * (12 - step)
    unmoved = bare("sphere", 12)
    assert second.history[: step - 1] == unmoved[: step - 1]
    assert second.history[step].loss != unmoved[step].loss
    assert first.history == bare("batchnorm", 12)
    assert again(second) == second.history
    assert f"From step {step + 1} on centered sphere with noise has " in panel.words
    assert all(text in panel.words for text in ("learning rate 0.05", "noise σ 0.5"))
    assert panel.words.endswith("The next Start has noise over depth of the second method: linear.")


def test_a_diverging_run_ends_with_its_sentence_and_the_other_goes_on():
    panel = small("sphere", "plain", knobs={"sphere": {"lr": 10.0}}, steps=20)
    press(panel, "Start")
    sphere, other = panel.runs[2:]
    why = sphere.history[-1].diverged
    assert why
    assert f"Centered sphere with noise: the run has ended, {why}. No normalization: loss" in panel.words
    assert panel.words.alert
    assert (sphere.end, other.end, len(other.history)) == (f"diverged: {why}", "done", 20)
    assert again(sphere) == sphere.history


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_chosen_and_trains(panel, method):
    panel.slots["first"]._list.value = method
    assert panel.slots["first"].value["knobs"] == METHODS[method].settings()
    if "groups" in METHODS[method].knobs:
        knob(panel, "first", "groups").value = 2
    panel.set(steps="2")
    press(panel, "Start")
    assert not panel.words.alert, panel.words
    assert again(panel.runs[-2]) == panel.history[method]


def test_own_networks_and_data(device):
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    own = own.to(device)
    panel = TrainingPanel(("plain", "sphere"), DATA.to(device), own, first=2, batch_size=16, every=1)
    assert panel.values["model"] == "your Sequential"
    for run in panel.runs:
        assert_same_training(again(run, model=own), run.history, *([own, own] if device.type == "cuda" else []))
