"""How far apart images of different classes are, as the experiment measures it."""

import math

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.papers import separation


def test_separation_is_the_smallest_distance_between_classes(tiny):
    data = separation.load_part()
    rows = tiny("separation")["rows"]
    parts = ((data.labels, data.images), (data.test_labels, data.test_images))
    for row, (labels, images) in zip(rows, parts, strict=True):
        apart = labels[:, None] != labels
        for norm, p in (("inf", math.inf), ("2", 2.0)):
            dense = torch.cdist(images.flatten(1), images.flatten(1), p)[apart].min()
            assert row[norm]["distance"] == pytest.approx(float(dense), rel=1e-3)
            i, j = row[norm]["pair"]
            assert labels[i] != labels[j]
