"""Stored numbers of the experiments come out again when their jobs are run again."""

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.papers import decay, sphere
from tests.helpers.experiments import planned, stored

pytestmark = pytest.mark.slow

IMAGE = 1 / 360  # one of the test images of the digits

# Rounding differs between kinds of CPUs and numbers of threads, and training enlarges the difference. Run with the
# instructions of AVX-512, AVX2 and SSE in turn, these three came out with the same accuracies, and with norms that
# differed by at most one in the last of their four digits, since 150 steps on 100 images settle in one minimum.
SETTLED = [("batchnorm", None), ("norm_clip", 1.0), ("norm_decay_l1", 0.001)]


@pytest.mark.parametrize("method, number", SETTLED)
def test_a_row_on_100_digits_is_reproduced_to_the_stored_digits(method, number):
    task = "100 images"
    (row,) = [
        row
        for row in stored("decay-generalization")["rows"]
        if (row["task"], row["method"], row["number"]) == (task, method, number)
    ]
    run = decay.job(**planned("decay-generalization")[f"{task}: {method} {number} seed 0"])
    assert run["lost"] is None is row["lost"][0]
    assert run["accuracy"] == pytest.approx(row["accuracy"][0], abs=IMAGE + 1e-4)
    for name in ("norm1", "folded"):
        assert decay._mean(run["layers"][name]) == pytest.approx(row[name][0], rel=1e-3)


def test_a_row_of_the_sphere_on_all_digits_is_reproduced_to_five_images():
    """With the same three sets of instructions, it was 355, 355 and 352 of 360 images, and 357 with two threads."""
    case = "sphere 0 constant 1437"
    (row,) = [row for row in stored("sphere-ablation")["rows"] if row["name"] == case]
    run = sphere.job(**planned("sphere-ablation")[f"{case} seed 0"])
    assert run["lost"] is None is row["lost"][0]
    assert run["accuracy"] == pytest.approx(row["accuracy"][0], abs=5 * IMAGE + 1e-5)
    assert run["row_norm"][-1] == pytest.approx(2**0.5, rel=1e-4)
