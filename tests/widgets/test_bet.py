"""The panel that opens notebook 00: no answer before the button, then the one that the layers themselves give."""

import math
import re

import pytest
import torch
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.teaching import read_notebook
from convkit.teaching.pictures import png_bytes
from convkit.widgets import bet, depth
from convkit.widgets import panel as module
from convkit.widgets.bet import DEPTH, BetPanel
from tests import ROOT
from tests.helpers.panels import drawn, press
from tests.notebooks.rules import text_of, words_of

PANEL = BetPanel
OPTIONS = BetPanel().control("bet").options
BETS = [value for _, value in OPTIONS]
ALL_PASSED = (1.0, DEPTH, "random 3 × 3", "photograph")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "png_bytes", drawn)
    monkeypatch.setattr(bet, "SECONDS", 1e-9)


def nearest(value):
    return min(BETS, key=lambda other: abs(math.log(other / value)))


def test_the_bets_go_from_all_to_a_trillionth_and_read_well():
    assert len(BETS) == 25
    assert sorted(BETS, reverse=True) == BETS
    assert_close(torch.tensor([BETS[0], BETS[-1]], dtype=torch.float64), torch.tensor([1, 1e-12], dtype=torch.float64))
    names = [name for name, _ in OPTIONS[:9]]
    assert names == ["1", "0.3", "0.1", "0.03", "0.01", "0.003", "0.001", "3 · 10⁻⁴", "10⁻⁴"]


def test_before_the_button_nothing_computes_the_answer_and_every_bet_moves_picture_and_words(monkeypatch):
    def refuse(*_):
        raise AssertionError("the answer was computed before the button was pressed")

    for name in ("norms_by_layer", "after_layers", "other_draws"):
        monkeypatch.setattr(bet, name, refuse)
    panel, seen = BetPanel(), set()
    monkeypatch.setattr(panel, "_png", png_bytes(panel.figure))
    assert "Run this cell" in str(panel._repr_mimebundle_())  # what the notebook stores
    for value in BETS:
        panel.set(bet=value)
        assert not panel.words.alert, panel.words
        assert panel.words.startswith("You bet that")
        seen.add((panel.png, panel.words))
    assert len(seen) == len(BETS)


def test_words_of_the_bet_say_what_one_layer_would_keep_and_those_of_the_answer_compare_it(says):
    says(False, "all of it")
    says(False, "0.001 comes out", f"each layer kept {100 * 0.001 ** (1 / 30):.0f}%", bet=BETS[6])
    answer = depth.norms_by_layer(*ALL_PASSED)[0][-1].item()
    says(False, "very good bet", bet=nearest(answer), shown=True)
    says(False, "times less than you bet", bet=1.0, shown=True)
    says(False, "times more than you bet", bet=BETS[-1], shown=True)


def test_the_button_draws_what_the_layers_do_to_the_photograph(panel, says):
    image = depth.pictures()["photograph"][None, None]
    norms = [image.norm()]
    for A in depth.layers("random 3 × 3", tuple(image.shape[2:]))[:DEPTH]:
        assert_close(operator_norm(A, 2), torch.tensor(1.0, dtype=torch.float64))
        image = A(image)
        norms.append(image.norm())
    assert len(norms) == 31
    says(False, f"and {bet.number(norms[-1].item())} comes out", bet=0.1, shown=True)
    way = panel.figure.axes[1]
    answer = next(line for line in way.lines if line.get_color() == bet.VERMILION and len(line.get_xdata()) == 31)
    assert_close(torch.tensor(answer.get_ydata(), dtype=torch.float64), torch.stack(norms))
    shown = torch.as_tensor(panel.figure.axes[3].images[0].get_array(), dtype=torch.float64)
    assert_close(shown, image[0, 0])


def test_the_other_draws_are_what_their_layers_leave():
    kernels = torch.randn(bet.OTHERS, DEPTH, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    image = depth.pictures()["photograph"]
    draws = bet.other_draws(seed=5)
    assert draws.shape == (bet.OTHERS, DEPTH + 1)
    for place in (0, 7):
        x = image[None, None]
        for layer in range(3):
            A = ConvOperator(kernels[place, layer][None, None], tuple(image.shape))
            x = A(x) / operator_norm(A, 2)
            assert_close(draws[place, layer + 1], x.norm())
    assert_close(operator_norm(A, 2), torch.linalg.matrix_norm(A.matrix(), 2))
    assert (draws[:, 1:] <= draws[:, :-1] * (1 + 1e-12)).all()  # norm 1: nothing grows


def test_once_the_answer_is_drawn_the_bet_stands_until_reset(panel):
    first = panel.png, panel.words
    slider, button = panel.control("bet"), panel.control("shown")
    assert not slider.disabled
    panel.set(bet=BETS[3])
    button.click()
    assert panel.values == {"bet": BETS[3], "shown": True}
    assert (slider.disabled, button.disabled) == (True, True)
    press(panel, "Reset")
    assert (slider.disabled, button.disabled) == (False, False)
    assert (panel.png, panel.words) == first


@pytest.mark.slow
def test_the_answer_passes_the_layers_one_after_the_other(panel, monkeypatch):
    clock = iter(0.06 * step for step in range(1000))
    monkeypatch.setattr(bet, "SECONDS", 2.5)
    monkeypatch.setattr(bet.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(bet.time, "sleep", lambda _: None)
    passed, draw = [], panel._redraw
    monkeypatch.setattr(panel, "_redraw", lambda: passed.append(panel._passed) or draw())
    panel.control("shown").click()
    assert passed == sorted(set(passed))
    assert 20 <= len(passed) <= DEPTH + 1
    assert passed[-1] == DEPTH
    assert "comes out" in panel.words


def test_a_failure_on_the_way_is_told_and_the_next_drawing_is_whole(panel, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(bet, "after_layers", lambda *_: 1 / 0)
        panel.control("shown").click()
        assert "bug in the panel" in panel.words
    panel.set()
    assert "comes out" in panel.words


def test_numbers_read_well():
    small = {1: "1", 0.3: "0.3", 0.001: "0.001", 9.96e-4: "0.001", 4.04e-9: "4 · 10⁻⁹", 1e-10: "10⁻¹⁰"}
    assert {value: bet.number(value) for value in small} == small
    large = {3.2: "3", 260: "300", 9999: "10 thousand", 250_000: "200 thousand", 2.5e8: "200 million", 3e11: "3 · 10¹¹"}
    assert {ratio: bet.size(ratio) for ratio in large} == large


ANSWER = re.compile(r"(m|b|tr)illion|⁻|1e-\d|10\^\{?-|vanish|almost nothing|nearly nothing|little", re.IGNORECASE)


def test_neither_the_opening_of_the_notebook_nor_what_lab_prints_before_it_gives_the_answer_away():
    cells = read_notebook(ROOT / "notebooks" / "00_start_here.ipynb").cells
    heading = next(place for place, cell in enumerate(cells) if cell.source.startswith("## "))
    opening = [cell.source for cell in cells[:heading]] + [str(words_of(cell)) for cell in cells[:heading]]
    marks = [line for cell in cells for line in text_of(cell).splitlines() if line.startswith("✓")]
    assert len(marks) > 10
    told = "\n".join(opening + [mark.partition(": error ≤")[0] for mark in marks])
    assert "Show what comes out" in told
    assert not ANSWER.search(told), ANSWER.search(told)
