"""Every notebook keeps the promises that all notebooks make."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nbval")

import nbformat

from convkit.teaching import execute, read_notebook, stored
from tests import NOTEBOOKS
from tests.notebooks.rules import (
    RULES,
    Book,
    bets,
    checks,
    closing,
    file_text,
    folding,
    html_after_a_site,
    imports,
    judging,
    links,
    names,
    no_global_dtype,
    opening,
    outputs,
    panel,
    three_exercises,
)  # fmt: skip


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps(path, rule):
    assert rule(read_notebook(path), path) == []


def text(source: str, **more) -> Book:
    return nbformat.v4.new_markdown_cell(source, **more)


def code(source: str, *tags: str, folded: bool = False) -> Book:
    metadata = ({"tags": list(tags)} if tags else {}) | ({"jupyter": {"source_hidden": True}} if folded else {})
    return nbformat.v4.new_code_cell(source, metadata=metadata)


SETUP = """
from types import SimpleNamespace
from matplotlib import pyplot as plt
from convkit.teaching import check, check_that, exercise, show
from convkit.widgets.controls import slider
from convkit.widgets.panel import Panel
n00 = SimpleNamespace(**{f"is_{n}": lambda answer, n=n: None if answer == n else "no" for n in (4, 5, 6)})"""
PANEL = """
class Line(Panel):
    title, size = "A line", (3, 2)
    def controls(self):
        return {"slope": slider("slope", 1, 0, 3)}
    def draw(self, figure, slope):
        figure.subplots().plot([0, slope])
        return f"A line of slope {slope}."
Line()"""
CLAIMS = """
check("(1) one is one", 0, 1e-9)
check_that("(2a) order", True)
check("three", 0, 1)"""
DRAWN = "figure, ax = plt.subplots(figsize=(2, 1))\nshow(figure, 'a frame', folded='What settles it')\n"


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Book, Path]:
    """A small notebook that keeps every rule."""
    folder = tmp_path_factory.mktemp("sample")
    path = folder / "00_sample.ipynb"
    cells = [
        text("# 00 · A sample\n**Is it so?**\n\nYou need: nothing. You will learn: little. Two minutes."),
        text("$$1 = 1 \\tag{1}$$ and $$2 \\tag{2a}$$ see [the next](01_next.ipynb#top) and [out](https://example.org)"),
        code(SETUP, folded=True),
        code(CLAIMS),
        code(PANEL),
    ]
    for answer in (4, 5, 6):
        bet = answer == 4
        judge = f"exercise('the number {answer}', {'bet' if bet else 'number'}, n00.is_{answer})"
        folded = (
            f"<details><summary>Solution</summary>\n\n```python\nnumber = {answer}\n```\n\nFor a reason.\n\n</details>"
        )
        attempt = code("bet = ...", "bet", "exercise") if bet else code("number = ...", "exercise")
        cells += [
            attempt,
            code(DRAWN * bet + judge, folded=bet),
            text(folded.replace("number", "bet") if bet else folded),
        ]
    cells.append(text("On to [the next](01_next.ipynb)."))
    (folder / "01_next.ipynb").write_text("{}")
    book = execute(nbformat.v4.new_notebook(cells=cells), folder)
    path.write_text(stored(book), encoding="utf-8")
    return read_notebook(path), path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sample_keeps(sample, rule):
    assert rule(*sample) == []


def edit(place: int, old: str, new: str) -> Callable[[Book], None]:
    def change(book):
        assert old in book.cells[place].source
        book.cells[place].source = book.cells[place].source.replace(old, new)

    return change


def printed(place: int, line: str, name: str = "stdout") -> Callable[[Book], None]:
    return lambda book: book.cells[place].outputs.append(nbformat.v4.new_output("stream", name=name, text=line))


def edit_output(place: int, old: str, new: str) -> Callable[[Book], None]:
    def change(book):
        (data,) = [output.data for output in book.cells[place].outputs if "text/html" in output.get("data", {})]
        assert old in data["text/html"]
        data["text/html"] = data["text/html"].replace(old, new)

    return change


def edit_tags(place: int, *tags: str) -> Callable[[Book], None]:
    return lambda book: book.cells[place].metadata.update(tags=list(tags))


def fold(place: int) -> Callable[[Book], None]:
    return lambda book: book.cells[place].metadata.update(jupyter={"source_hidden": True})


def unfold(place: int) -> Callable[[Book], None]:
    return lambda book: book.cells[place].metadata.pop("jupyter")


def edited_sections(one: str, other: str) -> Callable[[Book], None]:
    """Two sections at the end, each with one cell."""
    return lambda book: book.cells.extend([text("## One"), code(one), text("## Other"), code(other)])


BROKEN = {
    "another number in the heading": (edit(0, "# 00", "# 01"), opening, "heading"),
    "no question": (edit(0, "?", "."), opening, "a question"),
    "no needs": (edit(0, "You need: nothing.", ""), opening, "needs"),
    "no gain": (edit(0, "You will learn", "There is"), opening, "learns"),
    "no minutes": (edit(0, "minutes", "hours"), opening, "minutes"),
    "no way on": (edit(-1, "01_next", "02_next"), closing, "01_next.ipynb"),
    "no panel": (lambda book: book.cells[4].update(outputs=[]), panel, "no panel"),
    "a lost exercise": (lambda book: book.cells[5].update(metadata={}), three_exercises, "has 2"),
    "a lost solution": (edit(7, "Solution", "Hint"), three_exercises, "cell 5: needs an exercise"),
    "two solutions": (
        edit(7, "For a reason.", "```python\nnumber = 5\n```"),
        three_exercises,
        "cell 5: needs an exercise",
    ),
    "a given answer": (edit(5, "...", "4"), three_exercises, "cell 5: the attempt has no blank"),
    "a stored answer": (
        lambda book: book.cells[6].update(outputs=[nbformat.v4.new_output("stream", text="✓ it\n")]),
        three_exercises,
        "cell 6: an exercise that waits",
    ),
    "an equation without check": (edit(1, "tag{1}", "tag{7}"), checks, "equation (7)"),
    "few checks": (lambda book: book.cells[3].update(outputs=[]), checks, "has 0"),
    "import from the root": (edit(2, "convkit.teaching", "convkit"), imports, "cell 2"),
    "import of the root": (
        edit(2, "from convkit.teaching import check,", "import convkit; from x import"),
        imports,
        "cell 2",
    ),
    "a broken link": (edit(1, "01_next", "03_next"), links, "03_next.ipynb#top"),
    "a path": (printed(3, "saved in /home/me/x.pt\n"), outputs, "/home/me/x.pt"),
    "a path of Windows": (printed(3, "saved in C:\\me\\x.pt\n"), outputs, "C:\\me"),
    "a warning": (printed(3, "UserWarning: slow\n"), outputs, "UserWarning"),
    "stderr": (printed(3, "slow\n", "stderr"), outputs, "stderr"),
    "no alt": (edit_output(4, "alt=", "title="), outputs, "cell 4: a picture with"),
    "open imports": (unfold(2), folding, "cell 2 imports or draws"),
    "open drawing": (unfold(6), folding, "cell 6 imports or draws"),
    "a late import": (edit(4, "class Line", "import os\nclass Line"), folding, "cell 4 imports"),
    "a hidden check": (fold(3), folding, "cell 3 hides a check"),
    "a judge in the open": (edit(9, "n00.is_5", "lambda n: None"), judging, "cell 9: the last line"),
    "a judge of another notebook": (edit(9, "n00.is_5", "n01.is_5"), judging, "cell 9: the last line"),
    "a judge that is not the last line": (edit(9, "exercise(", "_ = exercise("), judging, "cell 9: the last line"),
    "a long judge": (edit(9, "exercise(", "six = 6\nexercise("), judging, "cell 9: a visible cell"),
    "no bet": (edit_tags(5, "exercise"), bets, "has 0"),
    "two bets": (edit_tags(8, "bet", "exercise"), bets, "has 2"),
    "a bet in a plain cell": (edit_tags(5, "bet"), bets, "neither blank nor panel"),
    "a bet settled at sight": (edit_output(6, "<details>", "<p>"), bets, "cell 6: needs one folded picture"),
    "a bet without a picture": (lambda book: book.cells[6].update(outputs=[]), bets, "cell 6: needs one folded"),
    "a name twice": (edited_sections("kept = 1", "kept = 2"), names, "'kept' is bound in 2 sections"),
    "a function twice": (edited_sections("def kept(): pass", "kept = 1"), names, "'kept' is bound in 2 sections"),
    "a name in two branches": (edited_sections("if True:\n    kept = 1", "kept, _ = 1, 2"), names, "2 sections"),
    "a loop over a name": (edited_sections("kept = 1", "for kept in (1, 2): pass"), names, "overwrites 'kept'"),
    "a figure over a name": (edited_sections("kept = 1", "figure, kept = plt.subplots()"), names, "overwrites 'kept'"),
    "a default dtype": (
        edit(2, "from types", "torch.set_default_dtype(torch.float64)\nfrom types"),
        no_global_dtype,
        "cell 2 changes",
    ),
    "HTML with a style sheet": (
        edit_output(4, "<p", "<style>p { color: red }</style><p"),
        html_after_a_site,
        "cell 4 has HTML",
    ),
    "a picture from a script": (
        edit_output(4, "<img ", "<canvas></canvas><img "),
        html_after_a_site,
        "cell 4 has HTML",
    ),
    "a picture of another page": (edit_output(4, 'src="data:', 'src="file:'), html_after_a_site, "cell 4 has HTML"),
    "an editor's metadata": (lambda book: book.cells[3].outputs[0].update(text="other"), file_text, "build"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sample_is_told_by_its_rule(sample, name):
    change, rule, message = BROKEN[name]
    book, path = copy.deepcopy(sample[0]), sample[1]
    change(book)
    assert any(message in fault for fault in rule(book, path))
