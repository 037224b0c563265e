"""Two small networks for each data set that the attack panel offers: trained plainly, and against attacks."""

import functools
from pathlib import Path

from torch import nn

from convkit.data.dataset import Data
from convkit.data.registry import DATA, load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.training.adversarial import get_objective
from convkit.training.loop import fit

Models = dict[str, nn.Module]
PLANS = {  # name, objective, steps and learning rate of each network, on digits and on larger images
    True: (("plain", "clean", 150, 0.1), ("adversarial", "free", 400, 0.1)),
    False: (("plain", "clean", 200, 0.05), ("adversarial", "free", 300, 0.03)),
}


def panel_data(name: str, folder: str | Path | None = None) -> Data:
    """Return a data set of the panel: a part of it where it is large."""
    data = load(name) if DATA[name].offline else load(name, folder)
    return data if name == "digits" else subset(data, min(2000, len(data)), test_count=100)


@functools.cache
def two_networks(name: str = "digits", folder: str | Path | None = None) -> Models:
    """Return two nine-layer networks with the same initial weights, trained plainly and adversarially.

    The attacks of the second one have epsilon 0.15 on images without colors, and 0.03 on others. On larger images than
    digits both are trained less (about 20 seconds), and know their classes less well.
    """
    data, made = panel_data(name, folder), Models()
    eps, small = (0.15 if data.in_channels == 1 else 0.03), name == "digits"
    for kind, objective, steps, lr in PLANS[small]:
        model = network("cnn9", data, "batchnorm", seed=0, widths=(8, 16, 32))
        how = {"steps": steps, "seed": 0, "schedule": "cosine", "batch_size": 64 if small else 32, "knobs": {"lr": lr}}
        for _ in fit(model, data, "batchnorm", objective=get_objective(objective, eps), **how):
            pass
        made[kind] = model.eval()
    return made
