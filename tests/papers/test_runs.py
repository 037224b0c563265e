"""One training of an experiment or a protocol: its knobs and its seed, and the variants of methods."""

import pytest
from torch import nn

pytest.importorskip("sklearn")
from convkit.data import digits
from convkit.methods.registry import METHODS
from convkit.papers import runs
from convkit.papers.ikami import PARTS

HELD = {"neither": (False, False), "centered": (True, False), "sphere": (False, True), "both": (True, True)}


def test_a_network_is_made_and_trained_with_the_same_knobs_and_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "network", lambda *of, **how: seen.append((of[2], how["seed"], how["knobs"])))
    monkeypatch.setattr(runs, "fit", lambda *of, **how: seen.append((of[2], how["seed"], how["knobs"])) or iter(()))
    for method, chosen in {"oni": METHODS["oni"], "neither": runs.VARIANTS["neither"]}.items():
        runs.train(None, method, seed=3, knobs={"lr": 0.5}, steps=1)
        assert seen[-2:] == [(chosen, 3, {"lr": 0.5})] * 2


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_sphere_holds_what_it_names(part):
    knobs = {"lr": 0.5, "sigma": 0.2}
    model, _ = runs.train(digits(), PARTS[part], seed=0, options={"widths": [4, 5, 6]}, knobs=knobs, steps=3)
    rows = [layer.weight.detach().flatten(1) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert len(rows) == 9
    centered = max(float(row.mean(1).abs().max()) for row in rows) < 1e-6
    scaled = max(float((row.norm(dim=1) - 2**0.5).abs().max()) for row in rows) < 1e-5
    assert (centered, scaled) == HELD[part]
