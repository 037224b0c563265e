"""What paired numbers allow to say."""

import math

import numpy as np
import pytest
from scipy import stats

from convkit.statistics import Verdict, compare
from tests.helpers.refusals import refused

OURS, THEIRS = [0.91, 0.88, 0.93, 0.90, 0.87], [0.80, 0.86, 0.84, 0.82, 0.85]


def test_the_interval_is_that_of_the_paired_t_test_and_decides():
    expected = stats.ttest_rel(OURS, THEIRS)
    low, high = expected.confidence_interval(0.95)
    found = compare(OURS, THEIRS)
    assert found.interval == pytest.approx((low, high))
    assert (found.word, found.pairs) == ("higher", 5)
    assert found.difference == pytest.approx(np.mean(OURS) - np.mean(THEIRS))
    back = compare(THEIRS, OURS)
    assert back.word == "lower"
    assert back.interval == pytest.approx((-high, -low))
    assert compare(OURS, [1.1 - x for x in OURS]).word == "higher"
    assert compare([0.9, 0.8, 0.7], [0.8, 0.9, 0.7]).word == "cannot say"


def test_pairs_decide_where_the_spread_over_seeds_would_hide_the_difference():
    seeds = [0.1, 0.5, 0.9, 0.3]
    ours = [x + d for x, d in zip(seeds, (0.010, 0.011, 0.009, 0.010), strict=True)]
    assert compare(ours, seeds).word == "higher"
    assert compare(ours, seeds[::-1]).word == "cannot say"


def test_the_bootstrap_is_of_the_same_pairs_repeatable_and_does_not_decide():
    found = compare(OURS, THEIRS)
    differences = np.subtract(OURS, THEIRS)
    own = stats.bootstrap((differences,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    # each end by both is a quantile of 10,000 means or more: apart by a hundredth of the spread or so
    assert found.bootstrap == pytest.approx((own.low, own.high), abs=0.05 * differences.std())
    assert compare(OURS, THEIRS) == found
    two = compare([1.0, 1.2], [0.0, 0.0])
    assert two.bootstrap[0] > 0
    assert two.word == "cannot say"  # Student's t knows how little two pairs say


def test_equal_differences_have_no_spread():
    assert compare([2.0, 3.0], [1.0, 2.0]) == Verdict("higher", 1.0, (1.0, 1.0), (1.0, 1.0), 2)
    assert compare([2.0, 3.0], [2.0, 3.0]).word == "cannot say"


def test_sentences_and_refusals():
    assert str(compare(THEIRS, OURS)).startswith("lower, by 0.064 (95 % interval")
    assert str(compare([1.0, 0.0], [0.0, 1.0])).startswith(
        "cannot say, the difference is 0 (95 % interval -12.7 to 12.7"
    )
    for ours, theirs in (([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([], [])):
        refused("compare needs two or more pairs, got .* pair them by seed", compare, ours, theirs)
    refused("each of ours must be a finite number", compare, [1.0, math.nan], [0.0, 0.0])
