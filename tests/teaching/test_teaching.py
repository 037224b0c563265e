"""Claims fail when they are false, pictures carry words, exercises never raise, and builds repeat byte by byte."""

import base64
import functools
import io
import json
import math
import re
import sys

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")

import matplotlib
import nbformat
import numpy as np
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from convkit.teaching import build, check, check_that, execute, exercise, hints, read_notebook, show, stored
from convkit.teaching.pictures import DPI, few_colors, png_bytes
from tests.helpers.refusals import refused
from tests.notebooks import LINE


def test_check_prints_the_claim_and_its_tolerance(capsys):
    weight = torch.tensor(1e-6, requires_grad=True)
    for error in (0, 1e-6, 1e-5, torch.tensor(1e-6), np.float32(1e-6), np.array(0.0), weight):
        check("(3) rows are shifts", error, 1e-5)
        assert capsys.readouterr().out == "✓ (3) rows are shifts: error ≤ 1e-05\n"
    assert weight.requires_grad


@pytest.mark.parametrize("kind", [float, np.float64, torch.tensor, lambda x: torch.nn.Parameter(torch.tensor(x))])
@pytest.mark.parametrize("error, size", [(1.1e-5, "1.1e-05"), (2.0, "2"), (math.inf, "inf"), (math.nan, "nan")])
def test_check_raises_with_claim_error_and_tolerance(capsys, error, size, kind):
    words = f"rows are shifts: error {size} is not ≤ 1e-05"
    refused(words, check, "rows are shifts", kind(error), 1e-5, error=AssertionError)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", [bool, np.bool_, torch.tensor], ids=["Python", "NumPy", "torch"])
def test_check_that_prints_a_true_claim_and_raises_for_a_false_one(capsys, kind):
    check_that("the order is right", kind(True))
    assert capsys.readouterr().out == "✓ the order is right\n"
    refused("the order is right", check_that, "the order is right", kind(False), error=AssertionError)
    for holds in (True, False):
        refused("check_that", check, "rows are shifts", kind(holds), 1, error=TypeError)


def test_checks_refuse_a_negative_error_and_what_is_no_bool():
    refused("at least 0, got -1; take its absolute value", check, "rows are shifts", -1.0, 1)
    for holds in (1, 0.0, None, "yes", torch.tensor(1.0)):
        refused(r"check\(claim, error, tolerance\)", check_that, "the order is right", holds, error=TypeError)


@pytest.fixture(autouse=True)
def _agg():
    with matplotlib.rc_context():
        pyplot.switch_backend("agg")
        yield
        pyplot.close("all")


def shown(alt: str, **options) -> dict:
    InteractiveShell.instance()  # display() prints outside IPython
    figure, ax = pyplot.subplots(figsize=(4, 2))
    ax.plot([0, 1], [0, 1])
    with capture_output() as captured:
        show(figure, alt, **options)
    (output,) = captured.outputs
    assert not pyplot.fignum_exists(figure.number)
    return output.data


def test_show_displays_the_picture_with_its_words_once_in_few_colors_and_repeats():
    data = shown('a "straight" line & <more>')
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/plain"] == 'a "straight" line & <more>'
    assert 'alt="a &quot;straight&quot; line &amp; &lt;more&gt;"' in data["text/html"]
    (code,) = re.findall(r'src="data:image/png;base64,([^"]*)"', data["text/html"])
    image = Image.open(io.BytesIO(base64.b64decode(code)))
    assert not {"Software", "Date"} & set(image.info)
    assert image.mode == "P"
    assert shown('a "straight" line & <more>') == data


def test_a_folded_picture_stands_closed_behind_its_words():
    data = shown("a line", folded="what <settles> it")
    summary = "<summary>what &lt;settles&gt; it</summary>"
    html = f"<details>{summary}{shown('a line')['text/html']}</details>"
    assert data == {"text/html": html, "text/plain": "a line"}


def test_show_refuses_a_picture_without_words():
    for alt in ("", "  \n"):
        refused("empty alt", show, pyplot.figure(), alt)


def drawing(layout: str, dpi: int = DPI) -> Figure:
    figure = Figure((4, 2), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    figure.subplots().plot([0, 1, 2], [0, 1, 0], label="a line")
    figure.axes[0].legend()
    return figure


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("layout", ["none", "constrained"])
def test_a_panels_figure_is_drawn_once_and_looks_as_when_it_is_saved(layout):
    figure, draws = drawing(layout), []
    figure.axes[0].draw = lambda *args, draw=figure.axes[0].draw: (draws.append(1), draw(*args))
    png = png_bytes(figure)
    assert len(draws) == 1
    np.testing.assert_array_equal(pixels(png), pixels(png_bytes(drawing(layout, dpi=100))))
    assert png == png_bytes(figure)
    assert pixels(png).shape == (2 * DPI, 4 * DPI, 3)


def test_few_colors_change_little_and_take_less():
    figure = drawing("none")
    figure.axes[0].imshow(np.linspace(0, 1, 600).reshape(20, 30), extent=(0, 2, 0, 1), aspect="auto")
    png = png_bytes(figure, bbox_inches="tight")
    few = few_colors(png)
    before, after = pixels(png), pixels(few)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 256 >= len(np.unique(after.reshape(-1, 3), axis=0))
    assert np.abs(before - after).mean() < 1
    assert (after[0, 0] == 255).all()
    assert len(few) < 0.7 * len(png)
    assert few == few_colors(png)


def judge_number(answer):
    return None if answer == 4 else "four was asked for"


def judge_function(answer):
    try:
        return None if answer(2) == 4 else f"at 2 it gives {answer(2)}"
    except Exception:  # a judge may not hide what the reader's function raised
        return "swallowed"


def raising(_):
    raise ValueError("too  small\nby far")


def half_done(x):
    return x + ...


WAITING = "○ squares: replace the ... above by your answer, then run this cell again"
BLANKS = [..., (1, ...), [...], [[1, ...], (2, 3)], (1, [2, [..., 3]])]


@pytest.mark.parametrize(
    "answer, judge, line",
    [
        *((4, judge_number, "✓ squares"), (5, judge_number, "✗ squares: four was asked for")),
        *((blank, judge_number, WAITING) for blank in BLANKS),
        *((answer, judge_function, "✓ squares") for answer in (lambda x: x * x, functools.partial(pow, 2))),
        (lambda x: 3 * x, judge_function, "✗ squares: at 2 it gives 6"),
        *((answer, judge_function, WAITING) for answer in (lambda x: ..., lambda x: (x, ...), half_done)),
        (raising, judge_function, "✗ squares: your function raised ValueError: too small by far"),
        (lambda: 4, judge_function, "✗ squares: your function raised TypeError: "),
        (None, lambda answer: answer.shape, "✗ squares: this answer cannot be judged (AttributeError: "),
        (4, lambda answer: "", "✗ squares: "),
        (torch.tensor([1.0, 2.0]), judge_number, "✗ squares: this answer cannot be judged (RuntimeError: "),
        (half_done, lambda answer: f"it is called {answer.__name__}", "✗ squares: it is called half_done"),
    ],
)
def test_exercise_says_right_wrong_or_waiting_and_never_raises(capsys, answer, judge, line):
    exercise("squares", answer, judge)
    said = capsys.readouterr().out
    assert said.startswith(line)
    assert said.count("\n") == 1
    assert said.rstrip("\n") == line or line.endswith(": ")


def test_each_wrong_answer_brings_the_next_hint(capsys):
    judge = hints("look at 2", "multiply")(lambda answer: judge_number(answer))
    for answer in (5, ..., 6, 7, 4):
        exercise("squares", answer, judge)
    told, *steps = "✗ squares: four was asked for", "  Hint 1 of 2: look at 2", "  Hint 2 of 2: multiply"
    lines = [told, steps[0], WAITING, told, steps[1], told, steps[1], "✓ squares"]
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("answer", [raising, "four"])
def test_an_answer_that_fails_brings_a_hint_too(capsys, answer):
    exercise("squares", answer, hints("look at 2")(lambda answer: answer(2)))
    assert capsys.readouterr().out.splitlines()[1:] == ["  Hint 1 of 1: look at 2"]


CELLS = [
    *("import sys\nprint('one')\nsys.stdout.flush()\nprint('two')", "40 + 2", "7;"),
    "print({'words', 'in', 'a', 'set'}, hash('a word'))",
    "from matplotlib import pyplot\nfrom convkit.teaching import show\nshow(pyplot.figure(figsize=(3, 2)), 'a line')",
    *(f"{LINE}Line()", "import ipywidgets\nipywidgets.IntSlider()", "import os\nprint(os.path.basename(os.getcwd()))"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    cells = [new_code_cell(source) for source in CELLS]
    cells[1].metadata = {"tags": ["kept"], "execution": {"started": "now"}, "collapsed": True}
    cells[2].metadata = {"jupyter": {"source_hidden": True, "outputs_hidden": True}, "editable": True}
    widgets = {"application/vnd.jupyter.widget-state+json": {}}
    metadata = {"widgets": widgets, "toc": {}, "language_info": {"name": "x", "version": "2"}}
    raw = new_notebook(cells=[new_markdown_cell("# 00 · é"), *cells], metadata=metadata)
    del raw.cells[0]["id"]
    raw.cells[2]["id"] = raw.cells[1]["id"]
    path = tmp_path_factory.mktemp("here") / "00_a.ipynb"
    path.write_text(json.dumps(raw))
    return path, build_once(path), build_once(path)


def build_once(path) -> bytes:
    with capture_output() as captured:
        build([path])
    assert captured.stdout.startswith("00_a.ipynb: ")
    assert captured.stdout.endswith(" s\n")
    return path.read_bytes()


@pytest.mark.slow
def test_two_builds_are_byte_identical_and_stored_text_is_a_fixed_point(built):
    path, first, second = built
    assert first == second
    assert stored(read_notebook(path)) == first.decode("utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_build_keeps_what_a_reader_sees_and_nothing_else(built):
    text = built[1].decode("utf-8")
    assert text.endswith("}\n")
    assert "é" in text
    book = json.loads(text)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    assert book["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert [book["cells"][place]["id"] for place in (0, 2)] == ["cell-00", "cell-02"]
    code = book["cells"][1:]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    folded = {"jupyter": {"source_hidden": True}}
    assert [cell["metadata"] for cell in code] == [{}, {"tags": ["kept"]}, folded, *({} for _ in code[3:])]
    outputs = [cell["outputs"] for cell in code]
    assert outputs[0] == [{"name": "stdout", "output_type": "stream", "text": ["one\n", "two\n"]}]
    assert outputs[1][0]["data"] == {"text/plain": ["42"]}
    assert outputs[2] == []
    assert outputs[4][0]["data"]["text/plain"] == ["a line"]
    assert set(outputs[5][0]["data"]) == {"text/html", "text/plain"}  # a picture before the first run
    assert "A line of slope 1." in "".join(outputs[5][0]["data"]["text/html"])
    assert outputs[6][0]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == "0" * 32
    assert outputs[7][0]["text"] == [built[0].parent.name + "\n"]


def test_build_leaves_the_file_alone_when_a_cell_fails(tmp_path):
    path = tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    refused("ZeroDivisionError", build, [path], error=CellExecutionError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_execute_runs_this_interpreter_without_the_users_startup_files(tmp_path, monkeypatch):
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("print('startup'); secret = 1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    source = "import sys; print(sys.executable, 'secret' in globals())"
    notebook = execute(new_notebook(cells=[new_code_cell(source)]), tmp_path)
    assert notebook.cells[0].outputs[0].text == f"{sys.executable} False\n"
