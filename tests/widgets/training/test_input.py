"""The training panel: bad input gets a sentence and leaves the runs alone; Clear and Reset; the table and its files."""

import asyncio
import base64
import csv
import io
import re

import pytest

from convkit.methods.registry import METHODS
from convkit.widgets.training.runs import records_csv, table_csv
from tests.helpers.panels import press
from tests.helpers.training_panels import DATA, PATIENCE, bare, in_a_notebook, reached, small, told, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


# ---- what can go wrong -----------------------------------------------------------------------------------------------
INVALID = {
    "fraction": ({"batch size": "64.5"}, {"batch size": "batch size needs a whole number from 1 to 10000, got '64.5'"}),
    "two": (
        {"batch size": "0", "steps": "many"},
        {
            "batch size": "batch size needs a whole number from 1 to 10000, got '0'",
            "steps": "steps needs a whole number from 1 to 100000, got 'many'",
        },
    ),
    "words": ({"attack ε": "8/255"}, {"attack ε": "attack ε needs a number from 0 to 1, got '8/255'"}),
    "negative": ({"attack ε": "-0.1"}, {"attack ε": "attack ε needs a number from 0 to 1, got '-0.1'"}),
    "nan": ({"attack ε": "nan"}, {"attack ε": "attack ε needs a number from 0 to 1, got 'nan'"}),
    "seed": ({"seed": "-1"}, {"seed": "seed needs a whole number from 0 to 2147483647, got '-1'"}),
    "files": (
        {"data": "mnist"},
        {"data": "mnist is read from files: name their folder, as in TrainingPanel(folder=...)"},
    ),
    "none": (
        {"first": {"method": None}, "second": {"method": None}},
        {"first": "no method is chosen: take one from a list"},
    ),
}


@pytest.mark.parametrize("kind", INVALID)
def test_bad_input_gets_a_sentence_beside_its_field_and_only_there(panel, kind):
    before = panel.png, panel.words, list(panel.runs)
    values, sentences = INVALID[kind]
    panel.set(**values)
    assert told(panel) == sentences
    fields = " and ".join("first method" if name == "first" else name for name in sentences)
    assert panel.words == f"{before[1]} The next Start waits: see {fields}."
    assert not panel.words.alert
    assert "words" not in panel._access.fault  # the picture is right and stays as it is
    press(panel, "Start")
    assert panel.words == f"nothing was started: see {fields}. {before[1]}"
    assert panel.words.alert
    assert told(panel) == sentences
    assert (panel.png, panel.runs) == (before[0], before[2])
    press(panel, "Reset")
    assert (panel.words, panel._access.fault) == (before[1], {})


MISFITS = {
    f"batch_size must be from 1 to the 200 training images of {DATA.name}, got 201": ("batch size", "201"),
    "GroupNorm needs groups that divide the channels, got 16 groups and 4": ("first", {"method": "groupnorm"}),
    "cifar10 needs data_batch_1.bin": ("data", "cifar10"),
}


@pytest.mark.parametrize("words", MISFITS)
def test_what_does_not_fit_together_gets_a_sentence_at_start_and_the_old_runs_stay(tmp_path, words):
    panel = small(folder=tmp_path)
    press(panel, "Start")
    before = panel.png, list(panel.runs), panel.history
    name, value = MISFITS[words]
    panel.set(**{name: value})
    assert not panel.words.alert
    assert told(panel) == {}
    press(panel, "Start")
    assert panel.words.startswith("nothing was started: see ")
    assert panel.words.alert
    assert [*told(panel)] == [name]
    assert told(panel)[name].startswith(words)
    assert (panel.png, panel.runs, panel.history) == before
    panel.control("batch size").value = "16"
    panel.set(**{"first": {"method": "plain"}, "data": DATA.name})
    assert not panel.words.alert
    press(panel, "Start")
    assert (told(panel), len(panel.runs)) == ({}, 6)


def test_pause_and_stop_say_when_nothing_trains(panel):
    for name in ("Pause", "Stop"):
        press(panel, name)
        assert panel.words.startswith("nothing trains: press Start first. After 2 steps")
        assert panel.words.alert


def test_clear_forgets_all_runs_and_reset_brings_the_first_picture_back(panel):
    first = panel.png, panel.words
    press(panel, "Start")
    assert (panel.png, panel.words) != first
    press(panel, "Reset")
    assert (panel.png, panel.words, len(panel.runs)) == (*first, 4)
    press(panel, "Clear")
    assert panel.words.startswith("Press Clear again to forget all 4 runs for good.")
    assert (panel._clear.description, len(panel.runs), panel.words.alert) == ("Clear all?", 4, False)
    press(panel, "Pause")  # something else comes in between
    assert panel._clear.description == "Clear"
    press(panel, "Clear")
    panel.control("seed").value = "3"
    assert panel._clear.description == "Clear"
    press(panel, "Clear")
    press(panel, "Clear all?")
    assert panel.words.startswith("No runs yet: choose, and press Start.")
    assert (panel.runs, panel.history) == ([], {})
    assert "<tr>" not in panel._below.value
    press(panel, "Reset")
    assert (panel.png, panel.words) == first


def clear(panel):
    """Press Clear, and again where it asks."""
    press(panel, "Clear")
    if panel._clear.description != "Clear":
        press(panel, "Clear all?")


@pytest.mark.parametrize("name, kept", [("Clear", 0), ("Reset", 4)])
def test_clear_and_reset_end_what_is_under_way(name, kept):
    async def story(panel):
        press(panel, "Start")
        await reached(panel, 2)
        left = panel._task
        clear(panel) if name == "Clear" else press(panel, name)
        seen = panel.png, panel.words
        await asyncio.wait_for(left, PATIENCE)
        assert (panel.png, panel.words) == seen
        press(panel, "Start")
        clear(panel) if name == "Clear" else press(panel, name)  # before it has begun
        await until(lambda: panel._task is not left and panel._task.done())
        assert (panel.png, panel.words, panel.runner) == (*seen, None)

    assert len(in_a_notebook(story, steps=5000).runs) == kept


# ---- the table -------------------------------------------------------------------------------------------------------
def test_the_runs_before_stay_in_gray_and_the_table_and_the_files_hold_what_the_runs_did(panel):
    press(panel, "Start")
    rows = list(csv.DictReader(io.StringIO(table_csv(panel.runs))))
    last, depth = panel.history["sphere"][-1], METHODS["sphere"].knobs["noise"].default
    expected = {
        "method": "centered sphere with noise",
        "schedule": "constant",
        "other knobs": f"norm of a row 1.41; noise σ 0.2; noise over depth {depth}",
        **{"steps": "6", "end": "done", "seed": "0", "test accuracy": f"{100 * last.test_accuracy:.1f} %"},
        "largest norm": f"{max(last.norms.values()):.3g}",
    }
    assert expected.items() <= rows[-1].items()
    steps = list(csv.DictReader(io.StringIO(records_csv(panel.runs))))
    assert len(steps) == 2 * (2 + 6)
    assert float(steps[-1]["loss"]) == last.loss
    assert {name: float(steps[-1][f"norm {name}"]) for name in last.norms} == last.norms
    page = panel._below.value
    assert page.partition("convkit-runs")[2].count("<tr>") == 1 + 4
    assert f"(in all: schedule constant; data {DATA.name}; model cnn9, 4-6-8 channels; batch size 16)</caption>" in page
    assert re.findall(r"<th style='[^']*'>(.*?)</th>", page.partition("convkit-runs")[2]) == [
        *("run", "method", "learning rate", "other knobs", "seed", "steps", "loss", "test accuracy", "largest norm"),
        *("median condition", "seconds", "end"),
    ]
    links = re.findall(r'download="(\S+)".*?base64,(\S+?)"', page)
    files = {name: base64.b64decode(code).decode() for name, code in links}
    assert files == {"runs.csv": table_csv(panel.runs), "steps.csv": records_csv(panel.runs)}
    panel.set(seed="1")
    press(panel, "Start")
    names = [text.get_text() for text in panel.figure.axes[4].get_legend().get_texts()]
    assert names == ["BN: BatchNorm", "centered sphere with noise", "the runs before"]
    assert panel.history == {"batchnorm": bare("batchnorm", seed=1), "sphere": bare("sphere", seed=1)}
