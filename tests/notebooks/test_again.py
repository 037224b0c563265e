"""Cells run in a reader's order: each twice in a row."""

import copy

import pytest

pytest.importorskip("nbclient")

from convkit.teaching import execute, read_notebook
from tests import NOTEBOOKS
from tests.notebooks.rules import code_cells, text_of


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_twice_in_a_row(path):
    book = read_notebook(path)
    cells = [copy.deepcopy(cell) for _, cell in code_cells(book) for _ in range(2)]
    for number, cell in enumerate(cells):
        cell.outputs, cell.execution_count, cell.id = [], None, f"cell-{number:03d}"
    twice = execute(type(book)(book | {"cells": cells}), path.parent)
    for first, second in zip(twice.cells[::2], twice.cells[1::2], strict=True):
        if "nbval-ignore-output" not in first.metadata.get("tags", []) and "convkit-words" not in str(first.outputs):
            assert text_of(first) == text_of(second)
