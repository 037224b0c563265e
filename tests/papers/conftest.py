"""Experiments whose networks are narrow and whose data are few."""

import copy

import pytest

from convkit.papers import clipping, methods, robustness_images, runs, separation, spectra, spectra_network


@pytest.fixture
def few(monkeypatch):
    from convkit.data import digits, shapes, subset
    from tests.helpers.experiments import PROTOCOL

    monkeypatch.setitem(runs.NINE, "widths", [4, 4, 4])
    monkeypatch.setitem(clipping.OPTIONS, "resnet32", {"width": 0.25})
    monkeypatch.setitem(methods.PROTOCOLS, "digits", PROTOCOL)
    photographs, handwriting = subset(shapes(100, 20), 70, test_count=10), subset(digits(), 40, test_count=20)
    monkeypatch.setattr(robustness_images, "load_part", lambda *of: photographs.to(of[-1]))
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
