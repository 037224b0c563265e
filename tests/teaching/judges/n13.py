"""Notebook 13: the bet on a spiral, the largest step under a penalty, the best slope, a Fréchet distance."""

import numpy as np
import torch

from convkit.teaching.judges.n13 import best_slope, bet, distance, largest_step, momentum
from tests.teaching.judges import Case

CASES = {
    Case(bet, "one number, the distance after 400 steps", r"7\.3|1\.01"): {
        **{None: [7.3, 7.316, 6.5, np.float32(8)], "is not negative": [-1, -7.3]},
        **{"the tempting belief": [0, 0.0, 0.4], "infinitely small": [1, 1.0, 1.1]},
        **{"it is more than that": [1.5, 3, 5.9], "it is less than that": [10, 50, 1e9]},
    },
    Case(largest_step, "a function that gives one number, a step size"): {
        None: [lambda gamma: gamma, lambda gamma: torch.tensor(gamma), lambda gamma: np.float64(gamma)],
        "small positive steps do come to rest": [lambda gamma: 0, lambda gamma: -gamma],
        "still goes outward": [lambda gamma: 2 * gamma, lambda gamma: gamma + 0.01, lambda gamma: 1 / gamma],
        "somewhat larger steps": [lambda gamma: gamma / 2, lambda gamma: 0.1, lambda gamma: gamma - 0.001],
    },
    Case(best_slope, "one number, the slope k", r"1\.27|1\.28"): {
        None: [1.278, 1.2785, 1.28, torch.tensor(1.2785), np.float64(1.275)],
        **{"the slope is positive": [0, -1.28], "sure of itself": [5, 10.0, 1e6], "still grows a little": [1, 1.0]},
        **{"still grows with the slope at": [0.5, 1.2, 1.1], "it is less steep than that": [1.3, 2, 4.9]},
    },
    Case(distance, "one number, the distance by", r"\b10\b"): {
        None: [10, 10.0, np.int64(10), torch.tensor(10.0)],
        **{"difference of the variances": [18], "part of the means alone": [9], "no root": [10**0.5]},
        **{"part of the deviations alone": [1, 1.0], "not the sum of both parts": [0, 5, -10, 12, 1e9]},
    },
    Case(momentum, "one number, the momentum", r"-0\.|negative"): {
        **{None: [-0.5, -0.3, -0.7], "between -1 and 1 is meant": [1, -1, 5]},
        **{"the distance grows": [0.9, 0.1, -0.9], "the distance is still": [0, -0.05, -0.1]},
    },
}
