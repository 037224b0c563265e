"""Each judge takes every right answer, tells every other one what is wrong with it, and gives nothing away."""

import functools
import importlib
import inspect
import json
import math
import pkgutil
import re

import pytest
import torch

import convkit.teaching.judges
from convkit.teaching.judges import n02, n12
from convkit.teaching.judges.numbers import array
from tests import RESULTS
from tests.teaching.judges import said

NOTEBOOKS = sorted(name for _, name, _ in pkgutil.iter_modules(convkit.teaching.judges.__path__) if name != "numbers")
CASES = {}
for notebook in NOTEBOOKS:
    CASES |= importlib.import_module(f"{__package__}.{notebook}").CASES
NAMES = {case: f"{case.judge.__module__[-3:]}.{case.judge.__name__}" for case in CASES}
WRONG = {f"{NAMES[case]}: {words}": (case, words) for case in CASES for words in CASES[case] if words}

JUNK = ["a", "3", math.nan, math.inf, -math.inf, True, None, 1j, {"a"}, {1: 2}, [], [[1], [2, 3], []], object(), len]
SPOILED = [  # right numbers x, made wrong
    *(lambda x: x * math.nan, lambda x: torch.where(x == x.max(), math.inf, x), lambda x: x == x, lambda x: x + 0j),
    *(lambda x: (x + 0j).tolist(), lambda x: str(x.tolist()), lambda x: x.numpy().astype(str).tolist()),
    *(lambda x, last=last: [*x.flatten().tolist()[1:], last] for last in ("1", True, None)),
    *(lambda x: x[..., :-1] if x.ndim else [x, x], lambda x: 1.0 if x.ndim else torch.ones(2, 3)),
]
KINDS = [  # the same numbers, written in another way
    *(lambda x: x.numpy()[()], lambda x: x.tolist(), lambda x: x.float(), lambda x: x.requires_grad_()),
    *(lambda x: tuple(x) if x.ndim else [x], lambda x: x if x.ndim else x[None]),
]


def changed(answer, change):
    """An answer with its numbers changed, or those that it returns if it is a function."""
    return (lambda *of: changed(answer(*of), change)) if callable(answer) else change(array(answer, "numbers"))


@functools.cache
def told(case, words):
    return [str(said(case.judge, answer)) for answer in CASES[case][words]]


@functools.cache
def told_to_junk(case):
    right = CASES[case][None][0]
    junk = [(lambda *_, value=value: value) if callable(right) else value for value in JUNK]
    junk += [changed(right, spoil) for spoil in SPOILED if case.needs]
    return [str(said(case.judge, answer)) for answer in junk]


each_case = pytest.mark.parametrize("case", CASES, ids=NAMES.get)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_judge_has_a_case(notebook):
    module = importlib.import_module(f"convkit.teaching.judges.{notebook}")
    own = [f for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
    judges = {f for f in own if not f.__name__.startswith("_")}
    assert judges == {case.judge for case in CASES if case.judge.__module__ == module.__name__}


@each_case
def test_right_answers_are_taken_in_any_kind_and_blanks_are_waited_for(case):
    before, right = torch.get_rng_state(), CASES[case][None]
    answers = right + [changed(right[0], kind) for kind in KINDS if case.needs]
    assert [said(case.judge, answer) for answer in answers] == [None] * len(answers)
    assert torch.equal(torch.get_rng_state(), before)
    blanks = [..., (right[0], ...), lambda *_: ..., lambda *of: of[0] + ...][: 4 if callable(right[0]) else 2]
    assert [said(case.judge, blank) for blank in blanks] == ["○"] * len(blanks)


@pytest.mark.parametrize("case, words", WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_told_its_mistake_and_no_other(case, words):
    for sentence in told(case, words):
        assert [other for other in CASES[case] if other and re.search(other, sentence)] == [words], sentence


@each_case
def test_junk_is_told_what_is_needed(case):
    heard = told_to_junk(case)
    assert not [sentence for sentence in heard if sentence in ("None", "○") or not re.search(case.needs, sentence)]
    if callable(CASES[case][None][0]):
        assert not [3 for answer in (3, "0", None, torch.ones(3)) if said(case.judge, answer) in (None, "○")]
        for fails in (lambda *of: of[99], lambda: 0):
            assert said(case.judge, fails).startswith("your function raised ")


@pytest.mark.parametrize("case", [case for case in CASES if case.secret], ids=NAMES.get)
def test_nothing_said_holds_the_answer(case):
    heard = [sentence for words in CASES[case] if words for sentence in told(case, words)] + told_to_junk(case)
    spoken = [sentence.partition(", got ")[0] for sentence in heard] + list(getattr(case.judge, "hints", ()))
    assert not [text for text in spoken if re.search(case.secret, text)]


def test_a_blur_removes_these_waves_alone_and_what_is_left_of_others_is_told_in_percent():
    heard = {(n, v): said(n02.blur, (n, v)) for n in range(10, 21) for v in range(n)}
    removed = [pair for pair in heard if heard[pair] is None]
    assert removed == [(12, 4), (12, 8), (15, 5), (15, 10), (18, 6), (18, 12)]
    assert heard[20, 5] == "on 20 pixels a wave of frequency 5 is left with 33% of its size"
    assert not [pair for pair in heard if "left with 0%" in str(heard[pair])]


def test_the_judge_knows_the_measured_gap():
    measured = json.loads((RESULTS / "spectra-slopes.json").read_text(encoding="utf-8"))
    assert abs(math.log10(measured["bound"] / max(measured["local"])) - n12._POWERS) < 0.01
