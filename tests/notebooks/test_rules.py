"""Every notebook keeps the promises that all notebooks make."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nbval")

import nbformat

from convkit.teaching import execute, read_notebook, stored
from tests import NOTEBOOKS
from tests.notebooks import LINE, rules
from tests.notebooks.rules import RULES, Book


def broken_rules(book: Book, path: Path) -> dict[str, list[str]]:
    found = {rule.__name__: rule(book, path) for rule in RULES}
    return {name: faults for name, faults in found.items() if faults}


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_all_rules(path):
    assert broken_rules(read_notebook(path), path) == {}


def text(source: str, **more) -> Book:
    return nbformat.v4.new_markdown_cell(source, **more)


def code(source: str, *tags: str, folded: bool = False) -> Book:
    metadata = ({"tags": list(tags)} if tags else {}) | ({"jupyter": {"source_hidden": True}} if folded else {})
    return nbformat.v4.new_code_cell(source, metadata=metadata)


SETUP = """
from types import SimpleNamespace
from matplotlib import pyplot as plt
from convkit.teaching import check, check_that, exercise, show
n00 = SimpleNamespace(**{f"is_{n}": lambda answer, n=n: None if answer == n else "no" for n in (4, 5, 6)})"""
CLAIMS = """
check("(1) one is one", 0, 1e-9)
check_that("(2a) order", True)
check("three", 0, 1)"""
MINUTES = "**Minutes:** 1 to read, 25 with exercises and panels"
DRAWN = "figure, ax = plt.subplots(figsize=(2, 1))\nshow(figure, 'a frame', folded='What settles it')\n"


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Book, Path]:
    """A small notebook that keeps every rule."""
    folder = tmp_path_factory.mktemp("sample")
    path = folder / "00_sample.ipynb"
    cells = [
        text(f"# 00 · A sample\n**Is it so?**\n\nYou need: nothing. You will learn: little.\n\n{MINUTES}"),
        text("$$1 = 1 \\tag{1}$$ and $$2 \\tag{2a}$$ see [the next](01_next.ipynb#top) and [out](https://example.org)"),
        *(code(SETUP + LINE, folded=True), code(CLAIMS), code("Line()")),
    ]
    for answer, name in ((4, "bet"), (5, "number"), (6, "number")):
        judge = f"exercise('the number {answer}', {name}, n00.is_{answer})"
        solution = f"```python\n{name} = {answer}\n```\n\nFor a reason."
        folded = text(f"<details><summary>Solution</summary>\n\n{solution}\n\n</details>")
        if name == "bet":
            cells += [code("bet = ...", "bet", "exercise"), code(DRAWN + judge, folded=True), folded]
        else:
            cells += [code("number = ...", "exercise"), code(judge), folded]
    cells.append(text("On to [the next](01_next.ipynb)."))
    (folder / "01_next.ipynb").write_text("{}")
    book = execute(nbformat.v4.new_notebook(cells=cells), folder)
    path.write_text(stored(book), encoding="utf-8")
    return read_notebook(path), path


def test_sample_keeps_all_rules(sample):
    assert broken_rules(*sample) == {}


def edit(place: int, old: str, new: str) -> Callable[[Book], None]:
    def change(book):
        assert old in book.cells[place].source
        book.cells[place].source = book.cells[place].source.replace(old, new)

    return change


def add_output(place: int, kind: str, data: dict | None = None, **more) -> Callable[[Book], None]:
    return lambda book: book.cells[place].outputs.append(nbformat.v4.new_output(kind, data, **more))


def printed(place: int, line: str, name: str = "stdout") -> Callable[[Book], None]:
    return add_output(place, "stream", name=name, text=line)


def edit_output(place: int, old: str, new: str) -> Callable[[Book], None]:
    def change(book):
        (data,) = [output.data for output in book.cells[place].outputs if "text/html" in output.get("data", {})]
        assert old in data["text/html"]
        data["text/html"] = data["text/html"].replace(old, new)

    return change


def edit_metadata(place: int, **metadata) -> Callable[[Book], None]:
    return lambda book: book.cells[place].metadata.update(metadata)


def sections(one: str, other: str) -> Callable[[Book], None]:
    """Two sections at the end, each with one cell."""
    return lambda book: book.cells.extend([text("## One"), code(one), text("## Other"), code(other)])


def ignore_outputs(book: Book) -> None:
    for cell in book.cells[2:6]:
        cell.metadata.tags = ["nbval-ignore-output"]


def lost(place: int) -> Callable[[Book], None]:
    return lambda book: book.cells[place].update(outputs=[])


TWO = "```python\nnumber = 5\n```"
DEFAULT = "torch.set_default_dtype(torch.float64)\nfrom types"
STYLE = "<style>p { color: red }</style><p"
BROKEN: dict[str, dict[str, tuple[Callable[[Book], None], str]]] = {
    "opening": {
        "another number in the heading": (edit(0, "# 00", "# 01"), "heading"),
        "no question": (edit(0, "?", "."), "a question"),
        "no needs": (edit(0, "You need: nothing.", ""), "needs"),
        "no gain": (edit(0, "You will learn", "There is"), "learns"),
        "no minutes": (edit(0, MINUTES, ""), "minutes"),
    },
    "minutes": {"guessed minutes": (edit(0, MINUTES, MINUTES.replace("25", "20")), "the opening must say")},
    "closing": {"no way on": (edit(-1, "01_next", "02_next"), "01_next.ipynb")},
    "panel": {"no panel": (lost(4), "no panel")},
    "three_exercises": {
        "a lost exercise": (edit_metadata(5, tags=[]), "has 2"),
        "a lost solution": (edit(7, "Solution", "Hint"), "cell 5: needs an exercise"),
        "two solutions": (edit(7, "For a reason.", TWO), "cell 5: needs an exercise"),
        "a given answer": (edit(5, "...", "4"), "cell 5: the attempt has no blank"),
        "an exercise that says nothing": (lost(6), "cell 6: an exercise that waits"),
    },
    "checks": {
        "an equation without check": (edit(1, "tag{1}", "tag{7}"), "equation (7)"),
        "few checks": (lost(3), "has 0"),
    },
    "imports": {
        "import from the root": (edit(2, "convkit.teaching", "convkit"), "cell 2"),
        "import of the root": (edit(2, "from convkit.teaching import", "import convkit; from x import"), "cell 2"),
    },
    "runs": {
        "a stripped cell": (lambda book: book.cells[2].update(execution_count=None), "execution counts [None, 2"),
        "a wrong count": (lambda book: book.cells[4].update(execution_count=9), "execution counts [1, 2, 9"),
        "a cell skipped by a tag": (edit_metadata(3, tags=["nbval-skip"]), "cell 3 may not be skipped"),
        "a cell marked by a comment": (edit(4, "Line", "# NBVAL_SKIP\nLine"), "cell 4 may not be skipped"),
        "many ignored cells": (ignore_outputs, "more than 3 cells"),
    },
    "links": {"a broken link": (edit(1, "01_next", "03_next"), "03_next.ipynb#top")},
    "outputs": {
        "a path": (printed(3, "saved in /home/me/x.pt\n"), "/home/me/x.pt"),
        "a path of Windows": (printed(3, "saved in C:\\me\\x.pt\n"), "C:\\me"),
        "a warning": (printed(3, "UserWarning: slow\n"), "UserWarning"),
        "stderr": (printed(3, "slow\n", "stderr"), "stderr"),
        "an error": (add_output(3, "error", ename="E", evalue="v", traceback=[]), "cell 3 stores an error"),
        "no alt": (edit_output(4, "alt=", "title="), "cell 4: a picture with"),
        "a blank alt": (edit_output(4, 'alt="', 'alt="&nbsp;" title="'), "cell 4: a picture with"),
        "a picture without HTML": (add_output(4, "display_data", {"image/png": ""}), "cell 4: a picture outside"),
    },
    "folding": {
        "open imports": (edit_metadata(2, jupyter={}), "cell 2 imports or draws"),
        "open drawing": (edit_metadata(6, jupyter={}), "cell 6 imports or draws"),
        "a late import": (edit(4, "Line", "import os\nLine"), "cell 4 imports"),
        "a hidden check": (edit_metadata(3, jupyter={"source_hidden": True}), "cell 3 hides a check"),
    },
    "judging": {
        "a judge in the open": (edit(9, "n00.is_5", "lambda n: None"), "cell 9: the last line"),
        "a judge of another notebook": (edit(9, "n00.is_5", "n01.is_5"), "cell 9: the last line"),
        "a judge that is not the last line": (edit(9, "exercise(", "_ = exercise("), "cell 9: the last line"),
        "a long judge": (edit(9, "exercise(", "six = 6\nexercise("), "cell 9: a visible cell"),
    },
    "bets": {
        "no bet": (edit_metadata(5, tags=["exercise"]), "has 0"),
        "two bets": (edit_metadata(8, tags=["bet", "exercise"]), "has 2"),
        "a bet in a plain cell": (edit_metadata(5, tags=["bet"]), "neither blank nor panel"),
        "a bet settled at sight": (edit_output(6, "<details>", "<p>"), "cell 6: needs one folded picture"),
        "a bet without a picture": (lost(6), "cell 6: needs one folded"),
    },
    "names": {
        "a name twice": (sections("kept = 1", "kept = 2"), "'kept' is bound in 2 sections"),
        "a function and a class": (sections("def kept(): pass", "class kept: pass"), "'kept' is bound in 2 sections"),
        "a name in two branches": (sections("if True:\n    kept = 1", "kept, _ = 1, 2"), "2 sections"),
        "a loop over a name": (sections("kept = 1", "for kept in (1, 2): pass"), "overwrites 'kept'"),
        "a figure over a name": (sections("kept = 1", "figure, kept = plt.subplots()"), "overwrites 'kept'"),
    },
    "no_global_dtype": {"a default dtype": (edit(2, "from types", DEFAULT), "cell 2 changes")},
    "html_after_a_site": {
        "HTML with a style sheet": (edit_output(4, "<p", STYLE), "cell 4 has HTML"),
        "a picture from a script": (edit_output(4, "<img ", "<canvas></canvas><img "), "cell 4 has HTML"),
        "a picture of another page": (edit_output(4, 'src="data:', 'src="file:'), "cell 4 has HTML"),
    },
    "comparisons": {
        "a sentence": (edit(1, "see", "and OCNN beats BatchNorm, see"), "compares methods by hand"),
        "a claim of a check": (edit(3, "order", "Muon trains faster than SGD"), "compares methods by hand"),
    },
    "file_text": {"an editor's metadata": (lambda book: book.cells[3].outputs[0].update(text="other"), "build")},
}


@pytest.mark.parametrize("rule, name", [(rule, name) for rule, faults in BROKEN.items() for name in faults])
def test_broken_sample_is_told_by_its_rule(sample, rule, name):
    (change, message), (book, path) = BROKEN[rule][name], copy.deepcopy(sample)
    change(book)
    assert any(message in fault for fault in getattr(rules, rule)(book, path))


def test_every_rule_is_broken_once():
    assert BROKEN.keys() == {rule.__name__ for rule in RULES}


REFUSED = (
    "ConvNorm is better than BatchNorm here.",
    "With three seeds, weight decay improves on the clip.",
    "The sphere is more accurate than GN, and OCNN falls behind.",
    "All of ONI's runs beat those of the flattened clip.",
)
KEPT = (
    "BatchNorm divides by the deviation of the batch.",
    "A second layer is better than one.",
    "Is ConvNorm the right name? The larger number is higher than 3.",
    "$$\\text{BN beats GN}$$",
)


@pytest.mark.parametrize("sentence", REFUSED + KEPT)
def test_only_a_sentence_that_compares_methods_is_refused(sentence):
    book = nbformat.v4.new_notebook(cells=[text(sentence)])
    assert bool(rules.comparisons(book, Path("06_x.ipynb"))) == (sentence in REFUSED)


def test_a_cell_on_the_list_may_compare_methods_and_each_one_does(monkeypatch):
    book = nbformat.v4.new_notebook(cells=[text(REFUSED[0], id="named")])
    monkeypatch.setitem(rules.ALLOWED, ("06", "named"), "for a reason")
    assert rules.comparisons(book, Path("06_x.ipynb")) == []
    assert rules.comparisons(book, Path("07_x.ipynb")) != []
    monkeypatch.undo()
    needed = dict(rules.ALLOWED)
    monkeypatch.setattr(rules, "ALLOWED", {})
    found = {path.name[:2]: str(rules.comparisons(read_notebook(path), path)) for path in NOTEBOOKS}
    assert [key for key in needed if f"cell {key[1]} " not in found[key[0]]] == []
