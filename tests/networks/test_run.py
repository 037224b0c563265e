"""The parts of the run over 149 networks, on two small ones: what it counts as read, named and forgotten is so."""

import functools
import json

import pytest
import torch
from torch import nn

from convkit.models import build_model
from convkit.operators.network import read_network
from tests.helpers.geometries import normal
from tests.networks import run


class Both(nn.Module):
    """A linear layer, a product with a weight, one that is only added, and one that scales channels."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.layer, self.table = nn.Linear(4, 3, device=device), nn.Parameter(normal(2, 3, 4, device=device).float())
        self.added, self.gain = (nn.Parameter(torch.ones(1, 3, device=device)) for _ in range(2))

    def forward(self, x):
        y = self.layer(x) * self.gain + self.added
        return {"out": torch.einsum("bi,ij->bj", y, self.table[1] / 2)}


def test_149_networks_have_a_name_and_the_shape_of_an_input():
    names = run.names()
    assert len(names) == 149
    assert {name.partition("/")[0] for name in names} == {"tv", "timm", "smp"}
    assert all(shape[:2] == (1, 3) and len(shape) in (4, 5) for shape in names.values())


def test_a_weight_that_the_kit_forgets_is_found_by_what_meets_the_data(device):
    model, x = Both(device), normal(1, 4, device=device).float()
    operators, rows = read_network(model, x, "note")
    whole = {"covered": ["layer.weight (Addmm)"], "named": ["table (Bmm)"], "forgotten": []}
    assert run.coverage(model, x, operators, rows) == whole
    operators.missing = []
    assert run.coverage(model, x, operators, rows)["forgotten"] == ["table (Bmm)"]
    del operators["layer"]
    assert len(run.coverage(model, x, operators, rows)["forgotten"]) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_networks_become_two_lines_and_a_table(tmp_path, monkeypatch, capsys):
    makers = {"resnet": functools.partial(build_model, "resnet18", width=0.05), "both": Both}
    monkeypatch.setattr(run, "names", lambda: {"resnet": (1, 3, 8, 8), "both": (1, 4), "absent": (1, 4)})
    monkeypatch.setattr(run, "build", lambda name: makers[name]().eval())
    monkeypatch.setattr(run, "LIBRARIES", {"torch": ""})
    lines, table = tmp_path / "lines.jsonl", tmp_path / "table.json"
    for only in ("resnet", "both", "*"):
        run.main([str(lines), "--only", only, "--table", str(table), "--memory", "1000"])
    found = json.loads(table.read_text("utf-8"))
    resnet, both, absent = found["rows"]
    assert (resnet["rows"], resnet["covered"], resnet["forgotten"]) == (21, 21, 0)
    assert resnet["checked"] == run.CHECKED
    assert 0.5 < resnet["least"] <= resnet["greatest"] < 1 + 1e-5
    assert 0 < resnet["slope"] < resnet["bound"]
    assert (both["missing"], both["named"]) == ([["", "Both multiplies its weight by einsum"]], 1)
    assert 0 < both["slope"] <= both["bound"]
    assert both["refusal"] is None
    assert absent["error"] == "KeyError: 'absent'"
    assert found["summary"] == {
        "networks": 3,
        "without anything missing": 1,
        "with weights that do not run": 0,
        "with weights that run and are named": 1,
        "not whole": 1,
        "bounded": 2,
        "bounded on images in [-1, 1] only": 0,
        "unsound": 0,
    }
    assert len(lines.read_text("utf-8").splitlines()) == 3


def test_a_network_that_takes_too_long_or_too_much_is_a_result():
    class Endless(nn.Module):
        def forward(self, x):
            while True:
                x = x + 1

    result = run.in_a_process(Endless, (1, 4), limit=1, memory=40)
    assert result == {"error": "not done after 1 seconds and with 40 GiB"}
