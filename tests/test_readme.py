"""What the README prints must run, link and say the truth."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listing(place: int) -> str:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)[place]


def test_python_of_the_readme_runs_as_printed_and_is_about_ten_lines(tmp_path):
    code = listing(0)
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if "norm" in line]
    assert len(lines) == 3
    for line in lines:
        norm, bound = map(float, re.findall(r"(?:norm|bound) ([0-9.]+)", line))
        assert 0 < norm <= bound


def test_training_of_the_readme_runs_as_printed_and_is_about_ten_lines():
    code = listing(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    accuracies = [float(number) for number in re.findall(r"accuracy ([0-9.]+), largest norm [0-9.]+", run.stdout)]
    assert len(accuracies) == 4
    assert min(accuracies) > 0.8


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_and_pictures_of_the_readme_exist(target):
    assert (ROOT / target).is_file()


def test_readme_maps_every_notebook():
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    rows = re.findall(r"^\| \[.*\]\(notebooks/(.+\.ipynb)\) \|.*\| (\d+) \|$", README, re.MULTILINE)
    assert [name for name, _ in rows] == notebooks
    for name, minutes in rows:
        assert f"**Minutes:** {minutes}" in (ROOT / "notebooks" / name).read_text(encoding="utf-8")


def test_notebook_00_has_the_map_of_the_readme():
    rows = re.findall(r"^\| \[(.*)\]\(notebooks/(.+)\) \| (.*) \| \d+ \|$", README, re.MULTILINE)
    book = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
    assert re.findall(r"^\| \[(.*)\]\((.+\.ipynb)\) \| (.*) \|$", text, re.MULTILINE) == rows[1:]


def test_picture_of_the_readme_is_the_first_one_of_notebook_00():
    book = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    outputs = [
        output for cell in book["cells"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    first = base64.b64decode(outputs[0]["data"]["image/png"])
    assert (ROOT / ".github" / "convkit.png").read_bytes() == first, "save that picture as .github/convkit.png"
