"""The runner: records as the bare loop gives them, messages let in, few pictures, and every end in order."""

import asyncio
import itertools
import threading

import pytest

from convkit.training.plan import Record
from convkit.widgets.training import live, runner
from convkit.widgets.training.knobs import knob_sliders
from convkit.widgets.training.live import progress
from convkit.widgets.training.runner import GRACE, PAINTS, SHARE, SLICE, Runner, Track, statuses
from tests.helpers.refusals import refused
from tests.helpers.training_panels import on_a_loop, rests, until


def records(count, loss=1.0, **last):
    """The records of an invented run; ``last`` belongs to the last of them."""
    for step in range(1, count + 1):
        yield Record(step, loss / step, 0.5, 0.1, **(last if step == count else {}))


def noted(steps, given):
    """The records of an invented run with these steps, each put down when it is given."""
    for step in steps:
        given.append(Record(step, 1 / step, 0.5, 0.1))
        yield given[-1]


def nothing() -> None:
    """No picture."""


class Clock:
    """A clock that only moves when something takes time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def ticking(self, records, seconds):
        for record in records:
            self.now += seconds
            yield record


# ---- turns and slices ------------------------------------------------------------------------------------------------
def test_tracks_advance_by_turns_and_a_longer_one_goes_on_alone():
    order = []

    def noted(name, count):
        for record in records(count):
            order.append(name)
            yield record

    histories = asyncio.run(live.run({"a": noted("a", 2), "b": noted("b", 4)}))
    assert order == ["a", "b", "a", "b", "b", "b"]
    assert histories == {"a": list(records(2)), "b": list(records(4))}


@pytest.mark.parametrize("step_seconds, steps_of_a_slice", [(SLICE / 3.5, 4), (10 * SLICE, 1)])
@on_a_loop
async def test_messages_get_in_after_each_slice(step_seconds, steps_of_a_slice):
    clock, seen = Clock(), []
    track = Track("a", clock.ticking(records(12), step_seconds))
    one = Runner([track], nothing, clock=clock)
    task = asyncio.create_task(one.run())
    while not one.over:
        await asyncio.sleep(0)
        seen.append(len(track.history))
    await task
    assert seen[:3] == [steps_of_a_slice, 2 * steps_of_a_slice, 3 * steps_of_a_slice]


@pytest.mark.parametrize("paint_seconds", [0.001, 0.1])
def test_pictures_take_a_fifth_of_the_time_and_come_six_times_a_second_at_most(paint_seconds):
    clock, painted = Clock(), []

    def paint():
        painted.append(clock.now)
        clock.now += paint_seconds

    asyncio.run(Runner([Track("a", clock.ticking(records(1000), 0.02))], paint, clock=clock).run())
    apart = [after - before for before, after in itertools.pairwise(painted[:-1])]
    assert min(apart) >= 1 / PAINTS
    assert paint_seconds / min(apart) <= SHARE + 1e-9
    assert max(apart) < max(1 / PAINTS, paint_seconds / SHARE) + 2 * SLICE  # no fewer than that, either
    assert painted[-1] == clock.now - paint_seconds  # the end is always painted


def test_the_time_left_follows_the_pace_and_leaves_pauses_out():
    clock, left = Clock(), []

    async def sleep(seconds):  # a pause is long, and the next turn goes on
        clock.now += 1000 if seconds else 0
        one.paused = False

    def paint():
        left.append(one.seconds_left(10))
        one.paused = one.step == 4

    one = Runner(
        [Track("a", clock.ticking(records(10), 1)), Track("b", clock.ticking(records(10), 1))], paint, clock, sleep
    )
    assert one.seconds_left(10) is None
    asyncio.run(one.run())
    assert left[:20] == pytest.approx([*range(19, -1, -1)])  # a second a step
    assert {*left[20:]} == {0.0}


@on_a_loop
async def test_what_nobody_sees_any_more_ends_after_a_while_and_a_view_that_comes_back_keeps_it():
    clock = Clock()
    one = Runner([Track("a", clock.ticking(noted(itertools.count(1), []), 1))], nothing, clock)
    task = asyncio.create_task(one.run())
    await until(lambda: one.step >= 3)
    one.look(False)
    await until(lambda: clock.now > one.unseen + GRACE / 2)
    one.look(True)
    step = one.step
    await until(lambda: one.step > step + 2 * GRACE)
    one.look(False)
    await task
    assert progress(one).startswith(f"Stopped at step {one.step}, because nobody can see it any more.")


def test_groups_are_told_by_their_means_and_a_failed_seed_by_itself():
    def track(seed, *records):
        one = Track(f"sphere, seed {seed}", iter(records), group="sphere")
        while not one.ended:
            one.step()
        return one

    first = track(0, Record(1, 1.0, 0.5, 0.1, 0.9, {"a": 2.0}), Record(2, 3.0, 0.5, 0.1))
    second = track(1, Record(1, 5.0, 0.5, 0.1, 0.7, {"a": 4.0, "b": 1.0}))
    lost = track(2, Record(1, 2.0, 0.5, 0.1, diverged="the loss is nan at step 1"))
    alone = Track("plain", iter(()))
    assert statuses([first, second, lost, alone]) == [
        "Sphere, means of 2 seeds: loss 4, test accuracy 80.0 % (70.0 to 90.0), largest norm 3.",
        "Sphere, seed 2: the run has ended, the loss is nan at step 1.",
        "Plain: no step yet.",
    ]


# ---- pause, stop, interrupt ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("paused", [False, True])
@on_a_loop
async def test_stop_ends_the_run_after_the_slice_it_is_in(paused):
    clock, closed = Clock(), []

    def endless():
        try:
            yield from clock.ticking(noted(itertools.count(1), []), SLICE)
        finally:
            closed.append(True)

    track = Track("a", endless())
    one = Runner([track], nothing, clock=clock)
    task = asyncio.create_task(one.run())
    await until(lambda: len(track.history) >= 5)
    one.paused, one.stopping = paused, True
    await task
    assert len(track.history) <= 6
    assert (track.ended, one.over, closed) == ("stopped", True, [True])


@on_a_loop
async def test_an_interrupt_ends_the_run_cleanly_and_the_history_stays():
    given = []
    task = asyncio.create_task(live.run(noted(itertools.count(1), given)))
    await until(lambda: given)
    task.cancel()
    assert len(await task) == len(given) >= 1


# ---- ends that are worth a sentence ----------------------------------------------------------------------------------
def broken(error):
    yield from records(3)
    raise error


ENDS = {
    "every cannot change": lambda: broken(ValueError("every cannot change")),
    "this is a bug: KeyError: 'lost'": lambda: broken(KeyError("lost")),
    "the loss is nan at step 3": lambda: records(3, diverged="the loss is nan at step 3"),
}


@pytest.mark.parametrize("why", ENDS)
def test_what_ends_a_run_becomes_a_sentence_and_the_other_goes_on(why):
    tracks = [Track("a", ENDS[why]()), Track("b", records(7))]
    one = Runner(tracks, nothing)
    asyncio.run(one.run())
    assert (len(tracks[0].history), len(tracks[1].history)) == (3, 7)
    assert f"A: the run has ended, {why}." in progress(one)
    assert progress(one).alert


def test_run_raises_what_a_run_raised_once_all_have_ended_and_no_divergence():
    refused("the run: this is a bug: KeyError: 'lost'", asyncio.run, live.run(broken(KeyError("lost"))))
    assert len(asyncio.run(live.run(records(3, diverged="the loss is nan")))) == 3


def test_a_picture_that_fails_does_not_end_the_run(monkeypatch):
    views = []

    def shown(view):
        views.append(view)
        monkeypatch.setattr(live, "plot_training", lambda *_: 1 / 0)

    monkeypatch.setattr(live, "_display", shown)
    assert len(asyncio.run(live.run(records(5)))) == 5
    assert views[0].words == "this is a bug in the panel: ZeroDivisionError: division by zero"


# ---- steering --------------------------------------------------------------------------------------------------------
def test_a_knob_is_moved_between_two_steps_and_written_down_once():
    knobs, seen = {"lr": 0.1}, []

    def reading():
        for record in records(6):
            seen.append(knobs["lr"])
            yield record

    track = Track("a", reading(), knobs)
    track.step()
    for value in (0.1, 0.2, 0.3):
        track.steer("lr", value)
    assert knobs == {"lr": 0.1}  # not before the next step
    track.step()
    track.steer("lr", 0.3)
    track.step()
    assert seen == [0.1, 0.3, 0.3]
    assert track.steered == {1: {"lr": 0.3}}


# ---- the view --------------------------------------------------------------------------------------------------------
def test_the_view_is_shown_once_and_brought_up_to_date_at_the_end(monkeypatch):
    shown = []

    class Handle:
        def update(self, view):
            shown.append((view.words, view.png))

    monkeypatch.setattr(live, "_display", lambda view: shown.append((view.words, view.png)) or Handle())
    control = knob_sliders("plain", {}, "lr")
    asyncio.run(live.run(records(4, test_accuracy=0.5, norms={"a": 1.0, "b": 3.0}), controls=control))
    (before, first), (after, last) = shown
    assert before == "Training: step 0. The run: no step yet."
    assert after == "After 4 steps. The run: loss 0.25, test accuracy 50.0 %, largest norm 3."
    assert first != last


@on_a_loop
async def test_a_pause_is_told_when_its_step_is_done_and_the_view_resumes_and_stops(views, monkeypatch):
    monkeypatch.setattr(runner, "SLICE", 0)
    monkeypatch.setattr(runner, "PAINTS", 1e-6)  # after the first step no picture is due
    said = []

    def pausing():  # as a page does it, on another thread
        for record in noted(itertools.count(1), []):
            if record.step == 5:
                thread = threading.Thread(target=views[0]._pause.click)
                thread.start()
                thread.join()
                said.append(views[0].words)
            yield record

    task = asyncio.create_task(live.run(pausing()))
    await until(lambda: said)
    (view,) = views
    await rests(view.runner)
    assert said[0].startswith("Training: step ")
    assert view.words.startswith("Paused at step 5. ")
    assert view._pause.description == "Resume"
    view._pause.click()
    await until(lambda: view.runner.step > 7)
    view._stop.click()
    history = await task
    assert (view._pause.disabled, view._stop.disabled) == (True, True)
    assert view.words.startswith(f"Stopped at step {len(history)}.")
