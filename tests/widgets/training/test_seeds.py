"""The training panel over several seeds: paired runs, verdicts of `compare`, messages, views, networks given on."""

import asyncio
import json
import re

import pytest
import torch

from convkit.methods.build import network
from convkit.statistics import compare
from convkit.widgets.attacks import AttackPanel
from convkit.widgets.training import runner
from convkit.widgets.training.verdicts import ONE_SEED, groups, pairs, verdict
from tests.helpers.panels import press
from tests.helpers.training_panels import DATA, bare, knob, on_a_loop, reached, small, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


def last_accuracies(method, seeds, **options):
    return [100 * bare(method, seed=seed, **options)[-1].test_accuracy for seed in seeds]


def lines(panel):
    """The rows of the table of verdicts."""
    table = panel._below.value.partition("convkit-verdicts")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table)[1:]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


@pytest.fixture(scope="module")
def trained():
    """A panel that has trained two methods with three seeds each."""
    panel = small("batchnorm", "plain", seed=4)
    panel.set(seeds=3)
    press(panel, "Start")
    return panel


def test_every_seed_is_the_run_of_that_seed_and_the_picture_has_means(trained):
    expected = {f"{name}, seed {seed}": bare(name, seed=seed) for name in ("batchnorm", "plain") for seed in (4, 5, 6)}
    assert trained.history == expected
    assert [run.end for run in trained.runs] == ["done"] * 8
    accuracies = last_accuracies("batchnorm", (4, 5, 6))
    text = f"test accuracy {sum(accuracies) / 3:.1f} % ({min(accuracies):.1f} to {max(accuracies):.1f})"
    assert "BatchNorm, means of 3 seeds: loss " in trained.words
    assert text in trained.words
    lines_of_loss = trained.figure.axes[0].lines
    assert len(lines_of_loss) == 2
    losses = [[record.loss for record in expected[f"plain, seed {seed}"]] for seed in (4, 5, 6)]
    assert lines_of_loss[1].get_ydata() == pytest.approx([sum(step) / 3 for step in zip(*losses, strict=True)])


def test_the_verdict_is_that_of_compare(trained):
    found = compare(last_accuracies("batchnorm", (4, 5, 6)), last_accuracies("plain", (4, 5, 6)))
    ((ours, theirs),) = pairs(trained.runs)
    assert verdict(ours, theirs) == found
    low, high = found.interval
    (line,) = lines(trained)
    assert line[:3] == ["BN: BatchNorm (runs 3 to 5)", "no normalization (runs 6 to 8)", "4, 5, 6"]
    assert line[3:] == [f"{found.difference:+.1f} [{low:+.1f}, {high:+.1f}]", found.word]


def test_one_seed_other_seeds_and_runs_that_were_stopped_get_no_verdict():
    panel = small("batchnorm", "plain")
    assert [line[4] for line in lines(panel)] == [ONE_SEED]
    press(panel, "Start")
    assert [line[4] for line in lines(panel)] == [ONE_SEED]
    panel.set(seeds=2)
    press(panel, "Start")
    assert len(lines(panel)) == 1  # not with the single seed before
    panel.set(seed="5")
    press(panel, "Start")
    assert len(lines(panel)) == 1  # other seeds than before
    knob(panel, "first", "lr").value = 0.02
    press(panel, "Start")
    names = [line[:2] for line in lines(panel)]
    assert names[1:] == [
        ["BN: BatchNorm (runs 13 to 14)", "BN: BatchNorm (runs 9 to 10)"],
        ["no normalization (runs 15 to 16)", "no normalization (runs 11 to 12)"],
    ]
    assert [line[3:] for line in lines(panel)][2] == ["+0.0 [+0.0, +0.0]", "cannot say"]
    for run in panel.runs[-4:]:
        run.track.ended = "stopped"
    assert pairs(panel.runs) == []


def test_a_run_that_diverged_counts_as_no_accuracy():
    panel = small("sphere", "plain", knobs={"sphere": {"lr": 10.0}}, steps=20)
    panel.set(seeds=2)
    press(panel, "Start")
    own = groups(panel.runs)[-2]
    lost, going = own.runs
    assert lost.history[-1].diverged
    assert own.accuracies == [0.0, 100 * going.history[-1].test_accuracy]
    assert "Centered sphere with noise, seed 1: loss" in panel.words
    assert "Centered sphere with noise, seed 0: the run has ended" in panel.words


@pytest.mark.parametrize("schedule", ["cosine", "steps", "exponential"])
def test_schedules_change_the_rate_and_the_code_repeats_them(schedule):
    panel = small("plain", schedule=schedule, steps=8)
    press(panel, "Start")
    (run,) = panel.runs[1:]
    rates = [record.lr for record in run.history]
    assert rates[0] == pytest.approx(0.1)
    ends = {"cosine": 0.1 * (1 + torch.cos(torch.tensor(torch.pi * 7 / 8)).item()) / 2, "steps": 0.001}
    assert rates[-1] == pytest.approx(ends.get(schedule, 0.1 * 0.95 ** int(7 * 45 / 8)))
    namespace = {"data": DATA}
    exec(run.code, namespace)
    assert namespace["history"] == run.history
    assert run.row()["schedule"] == schedule


def test_a_knob_moves_all_seeds_of_its_method():
    panel = small("batchnorm", "plain", seeds=2, first=1)

    @on_a_loop
    async def story():
        panel._loop = asyncio.get_running_loop()
        panel.set(steps="30")
        press(panel, "Start")
        await reached(panel, 2)
        knob(panel, "first", "lr").value = 0.02
        await over_all(panel)

    async def over_all(panel):
        await until(lambda: panel.runner is not None and panel.runner.over and len(panel.runs) == 8)

    story()
    rates = [[record.lr for record in run.history][-1] for run in panel.runs[4:]]
    assert rates == [0.02, 0.02, 0.1, 0.1]
    assert panel.words.count("has learning rate 0.02") <= 2


# ---- messages --------------------------------------------------------------------------------------------------------
def test_a_picture_of_a_training_is_one_small_message_of_numbers(trained, monkeypatch):
    messages = []

    def send(widget, message, buffers=None):
        size = len(json.dumps(message, default=str)) + sum(len(memoryview(part).cast("B")) for part in buffers or ())
        messages.append((type(widget).__name__, sorted(message.get("state", {})), size))

    monkeypatch.setattr("ipywidgets.Widget._send", lambda self, message, buffers=None: send(self, message, buffers))
    trained.control("seeds").value = 5
    kinds = [(name, changed) for name, changed, _ in messages if name != "IntSlider"]
    assert kinds == [("Drawing", ["scene"])]
    assert max(size for *_, size in messages) < 20_000
    trained.control("seeds").value = 3


def test_many_runs_with_many_steps_fit_into_a_message():
    panel = small("batchnorm", "plain", "sphere", first=2)
    template = panel._pictured
    panel._pictured = []
    for run in template:
        run.track.history *= 400
        panel._pictured += [run, run, run]
    panel._before = panel._pictured
    panel._redraw()
    found = panel._drawing.scene
    assert len(found["data"]) + len(json.dumps({**found, "data": 0})) < 20_000
    assert len(found["axes"][0]["marks"]) == 9  # three means, three bands, and three means before


def test_while_it_trains_a_bar_shows_the_steps_and_none_does_afterwards():
    seen = []

    @on_a_loop
    async def story():
        panel = small("plain")
        panel.set(steps="40")
        press(panel, "Start")
        await reached(panel, 3)
        press(panel, "Pause")
        await until(lambda: panel.words.startswith("Paused"))
        seen.append((panel.runner.step, panel._drawing.scene["axes"][-1]["marks"], panel._drawing.scene["texts"]))
        press(panel, "Resume")
        await until(lambda: panel.runner.over and len(panel.runs) == 2)
        seen.append(panel._drawing.scene)

    story()
    step, (whole, part), (text,) = seen[0]
    assert text["words"] == f"step {step} of 40, paused"
    assert [mark["kind"] for mark in (whole, part)] == ["bars", "bars"]
    assert len(seen[1]["axes"]) == 5
    assert seen[1]["texts"] == []


# ---- views -----------------------------------------------------------------------------------------------------------
def test_a_training_without_a_view_stops_and_one_that_was_never_shown_goes_on(monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 0.0)
    panel = None

    @on_a_loop
    async def story():
        nonlocal panel
        panel = small("plain")
        panel.set(steps="100000")
        panel._viewed(None, {"views": 1}, None)
        panel._viewed(None, {"views": 1}, None)  # a second view of the same output
        press(panel, "Start")
        await reached(panel, 2)
        panel._viewed(None, {"views": -1}, None)
        step = panel.runner.step
        await reached(panel, step + 3)
        panel._viewed(None, {"views": -1}, None)
        await over_one(panel)

    async def over_one(panel):
        await until(lambda: panel.runner.over and len(panel.runs) == 2)

    story()
    assert ", because nobody can see it any more." in panel.words
    assert panel.runs[-1].end == "stopped"


# ---- the attack panel ------------------------------------------------------------------------------------------------
def test_the_networks_go_into_the_attack_panel_as_they_are():
    models = {"a": network("cnn9", DATA, "plain", seed=9, widths=(4, 6, 8))}
    attack = AttackPanel(models, DATA)
    panel = small("batchnorm", "plain", attack=attack, seeds=2)
    press(panel, "Attack these")
    assert panel.words.startswith("The attack panel has BN and no normalization now.")
    assert list(attack.models) == ["BN", "no normalization"]
    assert "no normalization: " in attack.words
    theirs, ours = attack.models["BN"], panel.runs[0].model
    assert theirs is not ours
    torch.testing.assert_close(theirs.state_dict(), ours.state_dict(), rtol=0, atol=0)
    press(panel, "Clear")
    press(panel, "Clear all?")
    press(panel, "Attack these")
    assert panel.words.startswith("there are no networks yet: press Start first.")
    assert panel.words.alert


def test_without_an_attack_panel_there_is_no_button():
    panel = small("plain")
    with pytest.raises(StopIteration):
        press(panel, "Attack these")
    with pytest.raises(ValueError, match="no attack panel was given"):
        panel.hand_over()
