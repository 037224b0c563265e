"""The judges of notebook 09 accept every right answer, and say what is wrong with others without giving it away."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convkit.teaching.judges import n09
from tests.teaching.judges import said, shown, spoken

# ---- the bet -------------------------------------------------------------------------------------------------------
WRONG_BETS = [
    *((90, 10), (100, 5), (50, 50), (50, 100), (5, 50), (5, 98), (0, 0), (100, 100), (-5, 1e9), (-5, 100), (5, 101)),
    *((math.nan, 100), (5, math.inf), (5,), (1, 2, 3), 5, "5, 100", ("5", "100"), "a", None, True, [], {5, 100}),
]


@pytest.mark.parametrize("kind", [tuple, list, np.array, torch.tensor])
@pytest.mark.parametrize("pair", [(5, 100), (0, 100), (30, 99)])
def test_few_and_all_win_as_any_pair(pair, kind):
    assert said(n09.bet, kind(pair)) is None


@pytest.mark.parametrize("bet", WRONG_BETS, ids=shown)
def test_other_bets_are_told_why(bet):
    assert said(n09.bet, bet)


def test_no_sentence_says_that_b_keeps_all():
    assert not re.search(r"B (keeps|gets) all|no error|of all", spoken(n09.bet, WRONG_BETS[:11]))


# ---- the exact answer ----------------------------------------------------------------------------------------------
def by_norm(p):
    def robust(W, b, x, y, eps):
        logits = x @ W.T + b
        lead = logits.gather(1, y[:, None]) - logits
        gain = eps * torch.linalg.vector_norm(W[y][:, None] - W, p, dim=2)
        return ((lead > gain) | (F.one_hot(y, len(W)) == 1)).all(1)

    return robust


def second_only(W, b, x, y, eps):
    logits = x @ W.T + b
    top = logits.topk(2, dim=1)
    rival = top.indices[:, 1]
    return top.values[:, 0] - top.values[:, 1] > eps * (W[y] - W[rival]).abs().sum(1)


WRONG_ROBUST = {
    "norm 2": by_norm(2),
    "norm inf": by_norm(math.inf),
    "second": second_only,
    "own rows": lambda W, b, x, y, eps: (
        (x @ W.T + b).topk(2, dim=1).values.diff(dim=1)[:, 0] < -eps * W[y].abs().sum(1)
    ),
    "twice": lambda W, b, x, y, eps: by_norm(1)(W, b, x, y, 2 * eps),
    "opposite": lambda *of: ~by_norm(1)(*of),
    "all": lambda W, b, x, y, eps: torch.ones(len(x), dtype=torch.bool),
    "none": lambda W, b, x, y, eps: torch.zeros(len(x), dtype=torch.bool),
    "numbers": lambda *of: by_norm(1)(*of).double(),
    "a count": lambda *of: by_norm(1)(*of).sum(),
    "text": lambda *of: "yes",
    "nothing": lambda *of: None,
}


@pytest.mark.parametrize("kind", [lambda found: found, lambda found: found.numpy(), lambda found: found.tolist()])
def test_the_dual_norm_is_right_as_any_kind_of_truths(kind):
    assert said(n09.exact, lambda *of: kind(by_norm(1)(*of))) is None


@pytest.mark.parametrize("name", WRONG_ROBUST)
def test_other_answers_are_told_why(name):
    assert said(n09.exact, WRONG_ROBUST[name])


# ---- the loss ------------------------------------------------------------------------------------------------------
def margin(logits, labels):
    own = F.one_hot(labels, logits.shape[1]) == 1
    return logits.masked_fill(own, -math.inf).amax(1) - logits[own]


def ratio(logits, labels):  # the margin over the spread of the logits
    ranked = logits.topk(3, dim=1).values
    return margin(logits, labels) / (ranked[:, 0] - ranked[:, 2]).detach()


WRONG_LOSSES = {
    "cross-entropy": lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
    "its mean": F.cross_entropy,
    "minus the probability": lambda logits, labels: -logits.softmax(1).gather(1, labels[:, None])[:, 0],
    "minus the label's logit": lambda logits, labels: -logits.gather(1, labels[:, None])[:, 0],
    "the best other": lambda logits, labels: logits.masked_fill(F.one_hot(labels, logits.shape[1]) == 1, -1e9).amax(1),
    "downwards": lambda logits, labels: -margin(logits, labels),
    "whether wrong": lambda logits, labels: (logits.argmax(1) != labels).float(),
    "nan": lambda logits, labels: margin(logits, labels) * math.nan,
    "exponential": lambda logits, labels: logits.exp().sum(1),
    "text": lambda logits, labels: "margin",
    "one number": lambda logits, labels: 0.0,
}


@pytest.mark.parametrize(
    "loss",
    [margin, ratio, lambda logits, labels: F.cross_entropy(logits / 1000, labels, reduction="none")],
    ids=["margin", "ratio", "cooled"],
)
def test_losses_that_keep_their_gradient_are_right(loss):
    assert said(n09.unmasking, loss) is None


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_other_losses_are_told_why(name):
    assert said(n09.unmasking, WRONG_LOSSES[name])


# ---- the standard errors -------------------------------------------------------------------------------------------
WRONG_ERRORS = {
    "no root": lambda a, s, b, t, n: (a - b) / math.hypot(s, t),
    "added": lambda a, s, b, t, n: (a - b) / ((s + t) / n**0.5),
    "one": lambda a, s, b, t, n: (a - b) / (s / n**0.5),
    "n": lambda a, s, b, t, n: (a - b) / (math.hypot(s, t) / n),
    "difference": lambda a, s, b, t, n: a - b,
    "the error": lambda a, s, b, t, n: math.hypot(s, t) / n**0.5,
    "text": lambda *of: "2.4",
    "nan": lambda *of: math.nan,
    "n - 1": lambda a, s, b, t, n: (a - b) / (math.hypot(s, t) / (n - 1) ** 0.5),
}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_difference_over_its_error_is_right_with_either_sign(sign):
    assert said(n09.standard_errors, lambda a, s, b, t, n: sign * (a - b) / math.sqrt((s**2 + t**2) / n)) is None


@pytest.mark.parametrize("name", WRONG_ERRORS)
def test_other_errors_are_told_why(name):
    assert said(n09.standard_errors, WRONG_ERRORS[name])


def test_no_sentence_gives_the_number():
    assert not re.search(r"2\.38|1\.39|2\.4\b", spoken(n09.standard_errors, list(WRONG_ERRORS.values())[:7]))
