"""The command `audit`: it reads weights under every name they have, says what does not fit, and writes one page."""

import re
from pathlib import Path

import pytest
import torch

import convkit
import convkit.methods.report as report
from convkit.audit.table import layer_table
from convkit.data.registry import shapes
from convkit.methods.build import network
from convkit.models.checkpoints import torchvision_names
from convkit.models.layers import batchnorm_layer, plain_layer
from convkit.models.registry import build_model
from tests.helpers.refusals import refused

SMALL = {"widths": (4, 8, 8), "in_channels": 2, "image_size": 12, "classes": 3}
OPTIONS = ["--option", "widths=[4,8,8]"]


def audit(folder: Path, state: object, *arguments: str, name: str = "weights.pt") -> int:
    """The exit status of the command for this content of a file; the page lies beside it."""
    torch.save(state, folder / name)
    return report.main([str(folder / name), "--page", str(folder / "page.html"), *arguments])


@pytest.mark.parametrize("layer", [plain_layer, batchnorm_layer])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_the_printed_table_and_the_page_are_those_of_the_network(tmp_path, capsys, layer, prefix):
    model = build_model("cnn9", layer=layer, **SMALL)
    state = {"epoch": 3, "state_dict": {prefix + name: value for name, value in model.state_dict().items()}}
    assert audit(tmp_path, state, "--arch", "cnn9", "--size", "12", *OPTIONS) == 0
    table = layer_table(model, torch.zeros(1, 2, 12, 12), columns=report.COLUMNS, torus=True)
    assert capsys.readouterr().out == f"{table}\nwritten to {tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert table._repr_html_() in page
    assert "weights.pt as cnn9, on images of 12 × 12 pixels" in page
    assert f"convkit {convkit.__version__} with torch {torch.__version__}" in page
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page
    assert not re.findall(r"src=|href=|url\(|@import|https?:", page)


def test_exact_and_folded_are_handed_on(tmp_path, capsys):
    model = network("cnn9", shapes(8, 4), "batchnorm", widths=(4, 4, 4))
    model(torch.rand(5, 3, 32, 32))  # BatchNorm's statistics, and so its gains, are not 1
    arguments = ["--arch", "cnn9", "--size", "16", "--option", "widths=[4,4,4]", "--exact", "--folded"]
    assert audit(tmp_path, model.state_dict(), *arguments) == 0
    table = layer_table(model, torch.zeros(1, 3, 16, 16), columns=report.COLUMNS, folded=True)
    assert capsys.readouterr().out.startswith(str(table))


def test_layers_of_a_method_are_read_by_its_name(tmp_path, capsys):
    model = network("cnn9", shapes(8, 4), "convnorm", widths=(4, 4, 4))
    arguments = ["--arch", "cnn9", "--size", "16", "--option", "widths=[4,4,4]"]
    assert audit(tmp_path, model.state_dict(), *arguments) == 1
    assert "name the network by --arch, its layers by --method" in capsys.readouterr().err
    assert audit(tmp_path, model.state_dict(), *arguments, "--method", "convnorm") == 0
    assert "ConvNorm2d" in capsys.readouterr().out


def test_the_names_of_torchvision_are_read(tmp_path, capsys):
    options = {"layer": batchnorm_layer, "stem": "imagenet", "in_channels": 1, "classes": 7}
    model = build_model("resnet18", width=1 / 16, **options)
    state = {name: model.state_dict()[ours] for name, ours in torchvision_names(model).items()}
    assert audit(tmp_path, state, "--arch", "resnet18", "--size", "64") == 0
    table = layer_table(model, torch.zeros(1, 1, 64, 64), columns=report.COLUMNS, torus=True)
    assert capsys.readouterr().out.startswith(str(table))
    assert audit(tmp_path, state, "--arch", "resnet50", "--size", "64") == 1
    assert "names of the same network in torchvision" in capsys.readouterr().err
    assert audit(tmp_path, state, "--arch", "cnn9", "--size", "64") == 1
    assert "torchvision's names are read for resnet18 and resnet50, got 'cnn9'" in capsys.readouterr().err


def test_what_could_not_be_measured_is_named_on_the_page(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.lost = torch.nn.Linear(2, 3), torch.nn.GRU(3, 2)

        def forward(self, x):
            return self.lost(self.layer(x))[0]

    table = layer_table(Odd(), torch.zeros(1, 2), columns=report.COLUMNS)
    file = tmp_path / "<odd>"
    file.touch()
    page = report.as_page("<odd>", file, Odd(), table)
    assert "not in the table: lost" in page
    assert "is named below the table" in page
    assert "<odd>" not in page


class Code:
    """An object whose pickle runs code when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    "state, arguments, words",
    [
        ({"weight": Code()}, (), "without running code that it may hold"),
        ([1, 2], (), r"needed a state_dict, names and tensors, got .* with \[1, 2\]"),
        ({}, (), "needed a state_dict"),
        ({"a": torch.ones(3)}, (), "weights of a convolutional network"),
        ({"a": torch.ones(3, 2, 1, 1)}, (), "needed the weights of a classifier"),
        ("right", ("--arch", "cnn8"), "MODELS has no 'cnn8'; near it: cnn9"),
        ("right", ("--method", "spher"), "METHODS has no 'spher'"),
        ("right", ("--size", "7"), "image_size must be a whole number of at least 8, got 7"),
        ("right", ("--size", "-7"), "--size must be a whole number of at least 1, got -7"),
        ("right", ("--option", "bidth=2"), "--option does not fit the network: .*bidth"),
        ("right", ("--option", "bidth"), "--option needs NAME=VALUE"),
        ("right", ("--option", "widths=[4,8,9]"), r"others: of another shape .*--option$"),
        ("right", ("--arch", "resnet18"), r"others: missing .* and unknown "),
        ("right", ("--page", "no/such/folder"), "No such file or directory: 'no/such/folder'"),
    ],
)
def test_bad_input_ends_in_one_sentence(tmp_path, monkeypatch, capsys, state, arguments, words):
    monkeypatch.chdir(tmp_path)
    state = build_model("cnn9", **SMALL).state_dict() if state == "right" else state
    defaults = [] if "widths=[4,8,9]" in arguments or "resnet18" in arguments else OPTIONS
    assert audit(tmp_path, state, "--arch", "cnn9", "--size", "12", *defaults, *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(rf"^convkit audit: .*{words}", lines[0])
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "page.html").exists()


def test_a_file_that_is_missing_or_damaged_ends_in_one_sentence(tmp_path, capsys):
    assert report.main([str(tmp_path / "none.pt"), "--arch", "cnn9", "--size", "12"]) == 1
    (tmp_path / "text.pt").write_text("no weights")
    assert report.main([str(tmp_path / "text.pt"), "--arch", "cnn9", "--size", "12"]) == 1
    missing, damaged = capsys.readouterr().err.splitlines()
    assert "No such file or directory" in missing
    assert "cannot be read as one" in damaged


def test_safetensors_are_read_or_their_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "text.safetensors").write_text("no weights")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "safetensors.torch", None)
        patch.setitem(__import__("sys").modules, "safetensors", None)
        refused(
            r"needs safetensors, .*\[safetensors\]", report.read_state, tmp_path / "text.safetensors", error=ImportError
        )
    files = pytest.importorskip("safetensors.torch")
    refused("cannot be read as one", report.read_state, tmp_path / "text.safetensors")
    state = build_model("cnn9", **SMALL).state_dict()
    files.save_file(state, tmp_path / "weights.safetensors")
    found = report.read_state(tmp_path / "weights.safetensors")
    assert {*found} == {*state}
    assert all(torch.equal(found[name], state[name]) for name in state)
