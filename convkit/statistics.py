"""`compare`: what paired numbers of two ways, such as accuracies seed by seed, allow to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from convkit.checks import number

RESAMPLES = 10_000


@dataclass(frozen=True)
class Verdict:
    """What ``compare`` found: ``ours`` is ``"higher"``, ``"lower"``, or nothing can be said (``"cannot say"``).

    Attributes:
        word: The verdict, by the t interval alone.
        difference: The mean of ours minus theirs.
        interval: The 95 % interval of that mean by Student's t.
        bootstrap: The 95 % interval of that mean by resampling the pairs.
        pairs: Number of pairs.

    >>> print(Verdict("higher", 2.0, (0.5, 3.5), (1.0, 3.0), 8))
    higher, by 2 (95 % interval 0.5 to 3.5; bootstrap 1 to 3; 8 pairs)
    """

    word: Literal["higher", "lower", "cannot say"]
    difference: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    pairs: int

    def __str__(self) -> str:
        low, high = self.interval
        rest = f"(95 % interval {low:.3g} to {high:.3g}; bootstrap {self.bootstrap[0]:.3g} to {self.bootstrap[1]:.3g}"
        size = self.difference if self.word == "cannot say" else abs(self.difference)
        words = "cannot say, the difference is" if self.word == "cannot say" else f"{self.word}, by"
        return f"{words} {size:.3g} {rest}; {self.pairs} pairs)"


def compare(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Verdict:
    """Return whether ours are higher than theirs, where the numbers come in pairs, such as one per seed.

    A verdict is given where 0 lies outside the 95 % interval of the mean difference by Student's t, which is exact for
    independent normal differences. The percentile bootstrap stands beside it, from 10,000 samples of the pairs; for few
    pairs it is too narrow. Of twenty comparisons of equals one is expected to give a verdict.

    Raises ``ValueError`` for fewer than two pairs, for sequences of different lengths, and for numbers that are not
    finite.

    >>> compare([0.9, 0.8, 0.85], [0.5, 0.6, 0.5]).word
    'higher'
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(
            f"compare needs two or more pairs, got {len(ours)} and {len(theirs)} numbers; pair them by seed"
        )
    pairs = [[number("each of ours", a), number("each of theirs", b)] for a, b in zip(ours, theirs, strict=True)]
    differences = np.array([a - b for a, b in pairs])
    mean, count = float(differences.mean()), len(pairs)
    error = float(differences.std(ddof=1)) / count**0.5
    reach = float(student.ppf(0.975, count - 1)) * error
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    low, high = np.quantile(differences[drawn].mean(1), (0.025, 0.975))
    word = "higher" if mean - reach > 0 else "lower" if mean + reach < 0 else "cannot say"
    return Verdict(word, mean, (mean - reach, mean + reach), (float(low), float(high)), count)
