"""Stored numbers of the protocols come out again when their runs are run again."""

import json

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.papers import PAPERS, tables
from convkit.papers.cells import run_cell
from tests import RESULTS

pytestmark = pytest.mark.slow

IMAGES = 5 / 360 + 1e-4  # of the digits' test images; rounding differs between kinds of CPUs, and training enlarges it
ROWS = [("S-figure2", "none"), ("W-table1-cifar10-standard-cnn9", "WS+GN"), ("C-figure3-scarce", "BN")]


@pytest.mark.parametrize("key, name", ROWS)
def test_a_run_on_few_digits_is_reproduced_to_five_images(key, name):
    protocol, scale = PAPERS[key], PAPERS[key].scales["small"]
    stored = json.loads((RESULTS / "papers" / f"{key}-small.json").read_text(encoding="utf-8"))
    row = tables.finals(protocol, stored)[name][0]
    (cell,) = [cell for cell in protocol.cells if cell.name == name]
    run = run_cell(name, cell.method, row["knobs"], tables.setting_of(cell, scale), seed=0)
    assert run["lost"] is None is row["lost"]
    assert run["clean"] == pytest.approx(row["clean"], abs=IMAGES)
