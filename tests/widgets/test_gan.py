"""The GAN panel trains what it says, is steered while it trains, and tells how a run ended."""

import asyncio

import pytest

from convkit.widgets import panel as module
from convkit.widgets.gan import BOUNDS, GanPanel
from tests.helpers.panels import drawn, press


@pytest.fixture
def panel(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", drawn)
    return GanPanel(first=2, steps=12)


def test_start_trains_a_new_pair_with_the_chosen_method_and_steps(panel):
    assert "After 2 steps" in panel.words
    panel.set(method="operator_norm", **{"judge steps": 1})
    assert f"The next Start bounds it by {BOUNDS['operator_norm']}." in panel.words
    press(panel, "Start")
    assert "After 12 steps with the discriminator bounded by true operator norm" in panel.words
    assert "The largest norm of its layers was 1.00" in panel.words
    assert panel.track.knobs["discriminator_steps"] == 1
    assert len(panel.track.history) == 12
    assert not panel.words.alert


def test_a_knob_that_moves_while_it_trains_acts_at_the_next_step(panel):
    panel.track.step()
    panel.control("maker rate").value = 2e-3
    for _ in range(2):
        panel.track.step()
    rates = [record.lr for record in panel.track.history]
    assert rates[2] == pytest.approx(1e-3)
    assert rates[3:] == [pytest.approx(2e-3)] * 2
    assert panel.track.steered == {3: {"lr": 2e-3}}


def test_a_button_that_has_nothing_to_do_says_so_and_the_walk_moves_through_z(panel):
    for name in ("Pause", "Stop"):
        press(panel, name)
        assert "nothing trains: press Start first." in panel.words
        assert panel.words.alert
    first = panel.png
    panel.set(z=100)
    assert panel.png != first
    assert not panel.words.alert


def test_a_run_that_is_lost_is_told_in_red(panel):
    panel.track.ended = "the generator has collapsed"
    panel._redraw()
    assert panel.words.alert
    assert "The run has ended: the generator has collapsed." in panel.words


def test_start_is_answered_before_the_first_step(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", drawn)

    async def notebook():
        panel = GanPanel(first=2, steps=12)
        panel.start()
        return panel.words

    assert asyncio.run(notebook()).startswith("After 0 of 12 steps with the discriminator")
