"""Cells run in a reader's order: each twice in a row, and those of panels with nothing but the first cell before."""

import copy

import pytest

pytest.importorskip("nbclient")

from convkit.teaching import execute, read_notebook
from tests import NOTEBOOKS
from tests.notebooks.rules import Book, code_cells, text_of, words_of


def of_cells(book: Book, places: list[int]) -> Book:
    """A notebook of the named cells in that order, without outputs, each with an id of its own."""
    cells = []
    for number, place in enumerate(places):
        cell = copy.deepcopy(book.cells[place])
        cell.outputs, cell.execution_count, cell.id = [], None, f"cell-{number:03d}"
        cells.append(cell)
    return book | {"cells": cells}


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_twice_in_a_row(path):
    book = read_notebook(path)
    places = [place for place, _ in code_cells(book) for _ in range(2)]
    twice = execute(type(book)(of_cells(book, places)), path.parent)
    for first, second in zip(twice.cells[::2], twice.cells[1::2], strict=True):
        if "nbval-ignore-output" not in first.metadata.get("tags", []) and "convkit-words" not in str(first.outputs):
            assert text_of(first) == text_of(second)


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_panels_run_after_the_first_cell_alone(path):
    book = read_notebook(path)
    first, *later = [place for place, _ in code_cells(book)]
    panels = [place for place in later if any("convkit-words" in word for word in words_of(book.cells[place]))]
    assert panels
    alone = execute(type(book)(of_cells(book, [first, *panels])), path.parent)
    for cell in alone.cells[1:]:
        assert any("convkit-words" in word for word in words_of(cell))
        assert not any("bug in the panel" in word for word in words_of(cell))
