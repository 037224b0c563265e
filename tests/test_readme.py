"""What the README prints must run, link and say the truth."""

import base64
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convkit.audit.table import layer_table
from convkit.data.trained import trained_kernels
from convkit.models import batchnorm_layer, build_model
from convkit.norms import operator_norm
from convkit.operators.network import conv_operators
from tests import RESULTS, ROOT
from tests.notebooks.plugin import SHARE, figure_distance

README = (ROOT / "README.md").read_text(encoding="utf-8")
SURPRISE, OWN_NETWORK, TRAINING = range(3)  # the listings


def listing(place: int) -> str:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)[place]


def below(place: int) -> str:
    """The block that stands below the listing, of what it prints."""
    return README.partition(listing(place) + "```\n\n```\n")[2].partition("```")[0]


def printed(place: int, python: str = sys.executable, folder: Path = ROOT) -> str:
    """What the listing prints, run as it stands there, by this Python in this folder."""
    code = listing(place)
    assert len([line for line in code.splitlines() if line.strip()]) <= 11, "about ten lines"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run([python, "-W", "error", "-c", code], capture_output=True, text=True, cwd=folder, env=own)
    assert run.returncode == 0, run.stderr
    return run.stdout


# ---- the listings --------------------------------------------------------------------------------------------------
def test_every_listing_of_the_readme_is_run_here():
    assert README.count("```python\n") == len((SURPRISE, OWN_NETWORK, TRAINING))


@pytest.mark.slow
def test_the_surprise_runs_as_printed_and_prints_what_stands_below_it():
    assert below(SURPRISE)
    assert printed(SURPRISE) == below(SURPRISE)
    flattened = torch.linalg.matrix_norm(trained_kernels()["64 to 64"].flatten(1), 2)
    assert f"here {flattened:.2f}" in README


def test_norms_of_the_residual_network_exceed_the_flattened_ones_as_the_readme_says():
    model = build_model("resnet18", layer=batchnorm_layer, width=0.11, in_channels=3, classes=10, image_size=32)
    weights = torch.load(ROOT / "notebooks" / "results" / "spectra-network.pt", weights_only=True)
    model.load_state_dict(weights, strict=False)  # the images' mean and spread, at the input, are no layer
    operators = conv_operators(model.requires_grad_(False), torch.zeros(1, 3, 32, 32)).values()
    square = [A for A in operators if A.kernel.shape[2:] == (3, 3)]
    ratios = [float(operator_norm(A, 2) / torch.linalg.matrix_norm(A.kernel.flatten(1), 2)) for A in square]
    low, high = map(float, re.findall(r"seventeen 3 × 3 convolutions are ([0-9.]+) to ([0-9.]+) times", README)[0])
    assert len(ratios) == 17
    assert (round(min(ratios), 1), round(max(ratios), 1)) == (low, high)


@pytest.mark.slow
def test_own_network_of_the_readme_runs_and_its_bounds_hold():
    lines = [line for line in printed(OWN_NETWORK).splitlines() if "norm" in line]
    assert len(lines) == 3
    for line in lines:
        norm, bound = map(float, re.findall(r"(?:norm|bound) ([0-9.]+)", line))
        assert 0 < norm <= bound


@pytest.mark.slow
@pytest.mark.full
def test_training_of_the_readme_runs_and_learns():
    accuracies = re.findall(r"accuracy ([0-9.]+), largest norm [0-9.]+", printed(TRAINING))
    assert len(accuracies) == 4
    assert min(map(float, accuracies)) > 0.8


# ---- on a GPU ------------------------------------------------------------------------------------------------------
SECTION = README.partition("\n## On a GPU\n")[2].partition("\n## ")[0]
BATCH, TRAINED = "64@32, 128 images", "trained 64@32"
ROWS = [  # of the table: what was timed, by question, case and name; the first is ours
    [("singular_values", "64@32", "convkit"), ("singular_values", "64@32", "torch svdvals of the full symbol")],
    [
        ("operator_norm 2", TRAINED, "convkit"),
        ("operator_norm 2", TRAINED, "power method, 100 steps"),
        ("operator_norm 2", TRAINED, "Gram iteration, 6 steps"),
    ],
    [("operator_norm 2", "random 512@32", "convkit")],
    [("operator_norm 2", "64@32 zeros", "convkit")],
    [("clip_and_crop", f"{TRAINED}, all over", "convkit")],
    [
        ("forward + backward", BATCH, "ConvNorm2d zeros"),
        ("forward + backward", BATCH, "conv + BatchNorm"),
        ("forward + backward", BATCH, "as published"),
    ],
    [("forward + backward", BATCH, "ConvNorm2d zeros in a CUDA graph")],
    ["fit batchnorm bfloat16, channels last", "plain loop, bfloat16, channels last"],
    ["fit operator_norm bfloat16, channels last"],
]


@pytest.fixture(scope="module")
def measured():
    """The entries of both files by question, case and name, or by what was trained."""
    calls, training = (json.loads((RESULTS / f"{name}-cuda.json").read_text("utf-8")) for name in ("bench", "training"))
    assert {file["versions"]["device"] for file in (calls, training)} == {"NVIDIA H200"}
    found = {(e["question"], e["case"], e["name"]): e for e in calls["results"] if "ms" in e}
    return found | {e["what"]: e for e in training["results"]}


def test_times_on_a_gpu_are_those_of_the_stored_run(measured):
    rows = [line.split("|")[2:4] for line in SECTION.splitlines() if line.startswith("|")][2:]
    times = [
        re.findall(r"(?:^|; ) ?([0-9.]+)(?=:| $)", ours) + re.findall(r"([0-9.]+):", others) for ours, others in rows
    ]
    expected = [[measured[key]["ms"] for key in row] for row in ROWS]
    assert times == [
        [f"{ms:.1f}" if ms < 100 or place == 0 else f"{ms:.0f}" for place, ms in enumerate(row)] for row in expected
    ]


def test_errors_on_a_gpu_are_those_of_the_stored_run(measured):
    def error(*key):
        return f"{measured[key]['error']:.0e}".replace("e-0", "e-")

    assert f"wrong by {error('A(x) float32', '64@16', 'as torch is by default')} with it" in " ".join(SECTION.split())
    assert f"by {error('A(x) float32', '64@16', 'conv.fp32_precision = ieee')} with" in " ".join(SECTION.split())
    svd = measured["one svdvals", "1 x 512", "torch c64"]["error"]
    assert f"{svd:.1e}".replace("e-0", "e-") in SECTION
    ours = [e for key, e in measured.items() if key[0] == "operator_norm 2" and key[2] == "convkit"]
    norms = [e["error"] for e in ours if e["error"] is not None]
    assert len(norms) == 4
    assert f"{max(norms):.0e}".replace("e-0", "e-") + " at most" in " ".join(SECTION.split())


# ---- limits --------------------------------------------------------------------------------------------------------


class OtherUses(nn.Module):
    """Attention, a recurrent layer and a convolution as a function, before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.kernel = nn.Parameter(torch.ones(8, 8, 3))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.recurrent(self.attention(x, x, x)[0])[0]
        return self.head(nn.functional.conv1d(x.mT, self.kernel, padding=1).mT)


def test_weights_used_in_other_ways_are_read_or_named_as_the_readme_says():
    table = layer_table(OtherUses(), torch.zeros(1, 5, 8), columns=["norm1"])
    assert [row.name for row in table] == [*(f"attention.{part}" for part in ("q", "k", "v", "out")), "", "head"]
    assert [name for name, _ in table.missing] == ["recurrent"]


# ---- links, notebooks ----------------------------------------------------------------------------------------------


def test_links_and_pictures_of_the_readme_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"src(?:set)?=\"([^\"]+)\"", README)
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_readme_and_notebook_00_map_every_notebook():
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    rows = re.findall(r"^\| \[(.*)\]\(notebooks/(.+\.ipynb)\) \| (.*) \| (\d+ / \d+) \|$", README, re.MULTILINE)
    assert [name for _, name, _, _ in rows] == notebooks != []
    for _, name, _, minutes in rows:
        read, whole = minutes.split(" / ")
        assert f"**Minutes:** {read} to read, {whole} with exercises and panels" in (
            ROOT / "notebooks" / name
        ).read_text(encoding="utf-8")
    book = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
    found = re.findall(r"^\| \[(.*)\]\((.+\.ipynb)\) \| (.*) \|$", text, re.MULTILINE)
    assert found == [row[:3] for row in rows[1:]]
    assert f"| {rows[0][0]} | {rows[0][2]} |" in text


# ---- the moving picture ----------------------------------------------------------------------------------------------
def script():
    spec = importlib.util.spec_from_file_location("moving_picture", ROOT / ".github" / "moving_picture.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks there for its annotations
    spec.loader.exec_module(module)
    return module


moving = script()


def base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("theme", moving.THEMES)
def test_the_committed_picture_is_what_its_script_draws(theme):
    path, moments, scene = moving.path(theme), moving.moments(), moving.Scene(theme)
    assert path.stat().st_size < 1e6
    with Image.open(path) as film:
        assert film.info["loop"] == 0  # for ever
        assert film.n_frames == len(moments)
        for place in (0, 8, 40, 63, 67, 75, 80, len(moments) - 1):
            film.seek(place)
            assert film.info["duration"] == moments[place].milliseconds
            distance = figure_distance(base64_png(film), base64_png(scene.draw(moments[place])))
            assert distance <= SHARE, f"picture {place}: run `python .github/moving_picture.py` and commit its files"


def test_the_moving_picture_shows_what_torch_computes():
    A, scene = moving.layer(), moving.Scene("light")
    image = torch.arange(64, dtype=torch.float64).view(1, 1, 8, 8)
    kernel = torch.tensor(moving.KERNEL, dtype=torch.float64)
    wrapped = nn.functional.pad(image, (1, 1, 1, 1), mode="circular")
    expected = nn.functional.conv2d(wrapped, kernel[None, None]).flatten()
    torch.testing.assert_close(torch.as_tensor(scene.matrix) @ image.flatten(), expected)
    assert np.abs(scene.dense - torch.linalg.svdvals(A.matrix()).numpy()).max() < 1e-12
    assert np.abs(scene.dense - scene.fourier).max() < 1e-12
    ends = [moving.falling(scene.fourier, 10.0, share) for share in (0.0, 0.5, 1.0)]
    assert (ends[0] == 10).all()
    assert (ends[1] >= scene.fourier).all()
    np.testing.assert_allclose(ends[2], scene.fourier, rtol=1e-12)


def test_the_moving_picture_can_be_read():
    moments = moving.moments()
    for words in {moment.words for moment in moments}:
        seconds = sum(moment.milliseconds for moment in moments if moment.words == words) / 1000
        assert seconds >= len(words.split()) / 4, words  # slow enough for somebody who looks at the picture, too
    assert moments[-1].milliseconds >= 4000
