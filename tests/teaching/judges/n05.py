"""Notebook 05: the bet on one round, the clip of blocks, a bound asked too low, a norm after a flat clip."""

import math

import numpy as np
from torch.linalg import svd, svdvals

from convkit.teaching.judges.n05 import asked, bet, clip, rounds, true_norm
from tests.teaching.judges import Case


def right_clip(blocks, bound):
    U, S, Vh = svd(blocks, full_matrices=False)
    return U @ (S.clamp(max=bound)[..., None] * Vh)


def with_v(blocks, bound):
    U, S, Vh = svd(blocks, full_matrices=False)
    return (U * S.clamp(max=bound)[..., None, :]) @ Vh.conj()


def right_norm(t, h, w, c):
    return min(c * (h * w) ** 0.5, t * h * w)


CASES = {
    Case(bet, "one number, the percent above the bound", "36|48|50|60"): {
        **{None: [36, 48, 60, 50.5, np.int8(40)], "the tempting belief": [0, 0.0]},
        **{"does not fall below the bound": [-5, -1e9], "the bet is in percent": [0.4, 0.48]},
        **{"^it is more than that": [1, 10, 35.9], "it is less than that": [60.1, 100, 232]},
        "the norm was 233 percent above": [233, 1e9],
    },
    Case(clip): {
        **{None: [right_clip], "full_matrices=False": [lambda B, c: svd(B)[0]], "the vectors are not": [with_v]},
        "these are not blocks": [lambda B, c: svdvals(B).clamp(max=c), lambda *of: right_clip(*of)[0]],
        "you rescaled all blocks": [lambda B, c: B * c / svdvals(B).max()],
        **{"these blocks are real": [lambda *of: right_clip(*of).real], "NaN or infinite": [lambda B, c: B * math.nan]},
        "of blocks is needed, got int": [lambda B, c: 3],
        "not the nearest": [lambda B, c: B * (c / svdvals(B)[..., :1, None]).clamp(max=1), lambda B, c: B.mul_(0)],
        "a singular value is above": [lambda B, c: B, lambda B, c: right_clip(B, c) if B.shape[-2:] == (3, 2) else B],
    },
    Case(asked, "one number, the bound as a part", r"0\.37"): {
        **{None: [0.37], "^this is the belief of the bet; the round ends at 0.647": [0.5]},
        **{"between 0 and 1": [0, -0.37, 37, 1.5], "^the round .* above a half: ask for less": [0.45, 0.9, 1]},
        "ask for more": [0.3, 0.1, 1e-9],
    },
    Case(true_norm, "a function that gives one number|should give one number"): {
        **{None: [right_norm], "think of its root": [lambda t, h, w, c: c * h * w]},
        "the flattened kernel": [lambda t, h, w, c: c, lambda t, h, w, c: min(c, t * (h * w) ** 0.5)],
        "0.245 is below the bound": [lambda t, h, w, c: c * (h * w) ** 0.5],
        **{"before the clip": [lambda t, h, w, c: t * h * w], "should give one number": [lambda t, h, w, c: (c, c)]},
        "it is too small": [lambda t, h, w, c: 3 * min(c, 3 * t), lambda *of: -right_norm(*of)],
    },
    Case(rounds, "two whole numbers of rounds|rounds are counted", r"\b(25|54)\b"): {
        **{None: [(25, 54), [25.0, 54]], "in the other order": [(54, 25)]},
        "on 10 × 10 pixels after .* rounds: the excess is still": [(24, 54), (1, 1), (5, 100)],
        "on 10 × 10 pixels after .* rounds: the excess was below": [(26, 54), (100, 10)],
        "on 20 × 20 pixels after .* rounds: the excess is still": [(25, 53), (25, 30)],
        "on 20 × 20 pixels after .* rounds: the excess was below": [(25, 55), (25, 200)],
        "whole numbers from 1 on": [(0, 54), (-25, 54), (25.5, 54)],
        "two whole numbers of rounds, got": [25, (25,), (25, 54, 108), "25", ("25", "54")],
    },
}
