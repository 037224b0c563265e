"""A cell that runs again ends the training that it had started, both panels say so, and other cells are left alone."""

import asyncio
import itertools
import weakref

import pytest

from convkit.training.plan import Record
from convkit.widgets.kernel import Cell
from convkit.widgets.training import live
from tests.helpers.panels import press
from tests.helpers.training_panels import on_a_loop, over, reached, rests, small, until

STEPS = 100_000


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


@pytest.fixture
def cell(monkeypatch):
    """Enter a cell: code after ``cell("a")`` belongs to a new run of the cell named a."""
    monkeypatch.setattr(live, "_live", weakref.WeakSet())
    runs = itertools.count()

    def enter(name):
        here = Cell(("id", name), str(next(runs))) if name else None
        monkeypatch.setattr(live, "running_cell", lambda: here)

    return enter


def endless():
    for step in itertools.count(1):
        yield Record(step, 1 / step, 0.5, 0.1)


@pytest.mark.parametrize("paused", [False, True])
@on_a_loop
async def test_the_training_ends_and_both_panels_say_so(cell, paused):
    cell("a")
    old = small(steps=STEPS)
    first = old.words
    press(old, "Start")
    await reached(old, 2)
    if paused:
        press(old, "Pause")
    cell("a")
    new = small(steps=STEPS)
    step = old.runner.step
    assert old.words.startswith(f"Stopped at step {step} of {STEPS}, because its cell ran again. BatchNorm: loss ")
    assert new.words == f"This cell ran again: the training that it had started was stopped at step {step}. {first}"
    assert not old.words.alert
    assert not new.words.alert
    await over(old)
    assert old.words.startswith(f"Stopped at step {step} of {STEPS}, because its cell ran again.")
    assert [run.end for run in old.runs] == ["done", "done", "stopped", "stopped"]
    assert {len(run.history) for run in old.runs[2:]} <= {step, step + 1}
    press(new, "Start")
    assert new.words.startswith("Starting")  # news is told once
    await reached(new, 2)
    press(new, "Stop")
    await over(new)
    assert "because" not in new.words


@on_a_loop
async def test_a_start_that_waits_for_its_turn_is_given_up(cell):
    cell("a")
    old = small(steps=STEPS)
    press(old, "Start")
    cell("a")
    new = small(steps=STEPS)
    assert old.words.startswith("The training did not start, because its cell ran again. After 2 steps each")
    assert new.words.startswith("This cell ran again: the training that it had started was stopped before its ")
    await until(lambda: old._task is not None and old._task.done())
    assert (old.runner, len(old.runs)) == (None, 2)


@on_a_loop
async def test_panels_of_the_same_run_of_other_cells_and_of_none_go_on(cell):
    cell("a")
    one = small(steps=STEPS)
    press(one, "Start")
    await reached(one, 1)
    two = small(steps=STEPS)  # the same run of the same cell
    cell("b")
    other = small(steps=STEPS)
    cell(None)  # a callback, or no notebook
    free, more = small(steps=STEPS), small(steps=STEPS)
    for panel in (two, other, free):
        press(panel, "Start")
    await reached(free, 1)
    assert not any("ran again" in panel.words for panel in (one, two, other, free, more))
    cell("a")
    new = [small(steps=STEPS), small(steps=STEPS)]
    steps = other.runner.step, free.runner.step
    told = "This cell ran again: the trainings that it had started were stopped at step "
    assert all(panel.words.startswith(told) for panel in new)
    assert all("because its cell ran again" in panel.words for panel in (one, two))
    await over(one)
    await over(two)
    await reached(other, steps[0] + 2)
    await reached(free, steps[1] + 2)
    for panel in (other, free):
        press(panel, "Stop")
        await over(panel)


@pytest.mark.parametrize("end", ["nothing started", "Stop", "Clear", "Reset", "the end"])
@on_a_loop
async def test_a_training_that_is_not_under_way_is_not_told_of(cell, end):
    cell("a")
    old = small(steps=4)
    if end != "nothing started":
        press(old, "Start")
        await (over(old) if end == "the end" else reached(old, 1))
    if end in ("Stop", "Clear", "Reset"):
        press(old, end)
    if end == "Clear":
        press(old, "Clear all?")
    cell("a")
    assert "ran again" not in small().words + old.words


@on_a_loop
async def test_a_panel_that_cannot_open_ends_nothing(cell):
    cell("a")
    old = small(steps=STEPS)
    press(old, "Start")
    await reached(old, 1)
    cell("a")
    with pytest.raises(ValueError, match="batch size"):
        small(batch_size=0)
    await reached(old, old.runner.step + 2)
    press(old, "Stop")
    await over(old)


@pytest.mark.parametrize("paused", [False, True])
@on_a_loop
async def test_a_run_beside_the_cells_ends_and_both_views_say_so(cell, views, paused):
    cell("a")
    first = asyncio.create_task(live.run(endless()))
    await until(lambda: views and views[0].runner.step > 2)
    if paused:
        views[0]._pause.click()
        await rests(views[0].runner)
    cell("a")
    second = asyncio.create_task(live.run({"one": endless()}))
    step = len(await first)
    assert views[0].words.startswith(f"Stopped at step {step}, because its cell ran again. The run: loss ")
    told = f"This cell ran again: the training that it had started was stopped at step {step}. Training: step "
    assert views[1].words.startswith(told)
    assert views[1]._drawing.scene["words"] == views[1].words
    views[1]._stop.click()
    assert list(await second) == ["one"]
    assert "because" not in views[1].words
