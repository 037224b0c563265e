"""A notebook is tampered with in every cell, each in another way, and each is refused; the untouched one passes."""

import base64
import copy
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

pytest.importorskip("nbval")

import nbformat
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from convkit.teaching import execute, stored
from convkit.teaching.pictures import png_bytes
from tests import ROOT
from tests.notebooks import LINE
from tests.notebooks.plugin import SHARE, figure_distance

START = f"""
import time
import torch
from matplotlib.figure import Figure
from convkit.teaching import exercise, show
{LINE}
def line(slope):
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, slope])
    return figure
"""


def code_of(figure: Figure, **options) -> str:
    return base64.b64encode(png_bytes(figure, **options)).decode()


def replace_html(old: str, new: str) -> Callable:
    return lambda cell: data(cell).update({"text/html": re.sub(old, new, data(cell)["text/html"])})


def change_picture(figure: Figure, **options) -> Callable:
    """Another picture with the same words."""
    return replace_html(r"base64,[^\"]*", f"base64,{code_of(figure, **options)}")


def falling() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, -1])
    return figure


def data(cell) -> dict:
    return cell.outputs[0].data


def change(**values) -> Callable:
    return lambda cell: cell.update(values)


def change_data(**values) -> Callable:
    return lambda cell: data(cell).update({kind.replace("_", "/"): value for kind, value in values.items()})


def no_html(cell) -> None:
    data(cell).pop("text/html")


def stream(text: str) -> list:
    return [nbformat.v4.new_output("stream", text=text)]


class Fault(NamedTuple):
    source: str
    tamper: Callable
    message: str  # what the refusal says
    tags: tuple[str, ...] = ()


SHOW = "show(line(1), 'A rising line.')"
TICK = "print(time.perf_counter())"
IGNORED = ("nbval-ignore-output",)
FAULTS = {
    "a changed result": Fault("6 * 7", change_data(text_plain="43"), "text/plain differs"),
    "a changed line": Fault("print('1\\n2')", change(outputs=stream("1\n3\n")), "text on stdout differs"),
    "a lost output": Fault("print('here')", change(outputs=[]), "stored outputs [], the run gives ['stdout']"),
    "an output too many": Fault("kept = 1", change(outputs=stream("1\n")), "stored outputs ['stdout']"),
    "a semicolon added": Fault("3 * 5", change(source="3 * 5;"), "the run gives []"),
    "another figure": Fault(SHOW, change_picture(falling(), bbox_inches="tight"), "the figure differs in"),
    "a figure of another size": Fault(SHOW, change_picture(Figure(figsize=(2, 2))), "the figure differs in 100.00%"),
    "a figure without html": Fault(SHOW, no_html, "kinds of data differs"),
    "a figure with other words": Fault(SHOW, replace_html("rising", "falling"), "html"),
    "a panel without picture": Fault("Line()", no_html, "the cell shows a panel, but no picture"),
    "a panel with an old picture": Fault("Line()", change_picture(falling()), "the figure differs in"),
    "a panel without words": Fault("Line()", change_data(text_plain=" "), "has no words"),
    "a stripped ignored cell": Fault(TICK, change(outputs=[]), "an ignored cell are gone", IGNORED),
    "an ignored cell that fails": Fault(TICK, change(source=f"{TICK}; 1 / 0"), "caused an exception", IGNORED),
}
SOLUTION = "```python\nnumber = 5 + 0 * int(torch.rand(1))\n```"
EXERCISE = [  # an attempt, its judge, the folded solution, and a cell that would notice the solution
    nbformat.v4.new_code_cell("torch.manual_seed(3)\nnumber = ...", metadata={"tags": ["exercise"]}),
    nbformat.v4.new_code_cell("exercise('five', number, lambda answer: None if answer == 5 else 'no')"),
    nbformat.v4.new_markdown_cell(f"<details><summary>Solution</summary>\n\n{SOLUTION}\n\n</details>"),
    nbformat.v4.new_code_cell("print(number, torch.rand(1))"),
]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[tuple[str, str], str]:
    """(notebook, cell) -> what pytest said against it, empty where it passed."""
    folder = tmp_path_factory.mktemp("tampered")
    cells = [nbformat.v4.new_code_cell(START)]
    for fault in FAULTS.values():
        cells.append(nbformat.v4.new_code_cell(fault.source, metadata={"tags": list(fault.tags)}))
    notebook = execute(nbformat.v4.new_notebook(cells=[*cells, *EXERCISE]), folder)
    (folder / "untouched.ipynb").write_text(stored(notebook), encoding="utf-8")
    tampered = copy.deepcopy(notebook)
    for cell, fault in zip(tampered.cells[1 : len(FAULTS) + 1], FAULTS.values(), strict=True):
        fault.tamper(cell)
    tampered.cells[-2].source = tampered.cells[-2].source.replace("number = 5", "number = 7")
    nbformat.write(tampered, folder / "tampered.ipynb")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\njunit_family = xunit1\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "tests.notebooks.plugin", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command += ["--color=no", "--junitxml=report.xml"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "outputs run and not compared: 4 (" in done.stdout  # two cells of each notebook
    verdict = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        said = "".join((fault.text or "") for fault in case if fault.tag in ("failure", "error", "skipped"))
        verdict[Path(case.get("file", "")).stem, case.get("name", "")] = said
    return verdict


@pytest.mark.slow
def test_untouched_cells_pass(verdicts):
    said = {name: text for (book, name), text in verdicts.items() if book == "untouched"}
    assert said == {f"Cell {place}": "" for place in range(len(FAULTS) + 4)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_tampered_cell_is_refused_with_its_reason(verdicts, name):
    place = list(FAULTS).index(name) + 1
    assert FAULTS[name].message in verdicts["tampered", f"Cell {place}"]


@pytest.mark.slow
def test_a_folded_solution_that_its_judge_does_not_take_is_refused_and_leaves_no_trace(verdicts):
    attempt, judge, behind = (verdicts["tampered", f"Cell {len(FAULTS) + place}"] for place in (1, 2, 3))
    assert (attempt, behind) == ("", "")
    assert "the folded solution of this exercise is not taken: ✗ five: no" in judge


def drawn(slope: float = 1, width: float = 1.5, last: str = "1") -> str:
    figure = Figure(figsize=(6, 3))
    ax = figure.subplots()
    ax.plot([0, 1], [0, slope], linewidth=width)
    ax.set_xticks([0, 1], ["0", last])
    return code_of(figure)


@pytest.mark.parametrize("other", [{"slope": 0.95}, {"width": 3}, {"last": "tenth"}])
def test_figure_distance_sees_a_moved_line_a_thick_line_and_a_word(other):
    assert figure_distance(drawn(), drawn()) == 0
    assert figure_distance(drawn(), drawn(**other)) > SHARE


def test_figure_distance_overlooks_a_little_noise():
    generator = np.random.default_rng(0)
    image = generator.random((40, 60, 3))
    noisy = np.clip(image + 0.05 * generator.standard_normal(image.shape), 0, 1)
    assert 0 <= figure_distance(_png(image), _png(noisy)) <= SHARE


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray((255 * image).astype(np.uint8)).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
