"""Experiments whose networks are narrow and whose data are few."""

import copy

import pytest

from convkit.papers import runs, separation, spectra, spectra_network


@pytest.fixture
def few(monkeypatch):
    from convkit.data import digits, subset

    monkeypatch.setitem(runs.NINE, "widths", [4, 4, 4])
    handwriting = subset(digits(), 40, test_count=20)
    monkeypatch.setattr(separation, "load_part", lambda *_, device="cpu", **__: handwriting.to(device))
    for key, value in {"steps": 2, "images": 3}.items():
        monkeypatch.setitem(spectra.SMALL, key, value)
    for key, value in {"batch_size": 10, "width": 0.03}.items():
        monkeypatch.setitem(spectra_network.NETWORK, key, value)


RESULTS = {}


@pytest.fixture
def tiny(few):
    """The results of an experiment in a few steps, by its name; each is carried out once in a process."""
    from tests.helpers.experiments import TINY

    def results(name):
        if name not in RESULTS:
            RESULTS[name] = TINY[name]()
        return copy.deepcopy(RESULTS[name])

    return results
