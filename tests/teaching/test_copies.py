"""Copies of the notebooks: whole, or as a handout for a class."""

import json

import pytest

from convkit.teaching import copy_notebooks, write_handout
from tests import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def handout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class") / "course"
    write_handout(folder)
    return folder


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def sources(path, kind):
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_a_handout_has_all_code_all_blanks_and_no_solution(handout, path):
    copy = handout / path.name
    assert sources(copy, "code") == sources(path, "code")
    assert all(cell["outputs"] == [] for cell in cells(copy) if cell["cell_type"] == "code")
    before, after = ("\n\n".join(sources(one, "markdown")) for one in (path, copy))
    assert before.count("<summary>Solution</summary>") >= 3
    assert "Solution</summary>" not in after
    headings = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in after.splitlines() if line.startswith("#")] == headings
    assert all(text.strip() for text in sources(copy, "markdown"))


def test_the_results_come_along_and_a_full_folder_is_left_alone(handout):
    results = {path.relative_to(ROOT / "notebooks") for path in (ROOT / "notebooks" / "results").rglob("*.json")}
    assert results == {path.relative_to(handout) for path in handout.rglob("*.json")}
    before = {path: path.read_bytes() for path in handout.rglob("*") if path.is_file()}
    for copy in (write_handout, copy_notebooks):
        with pytest.raises(FileExistsError, match="new or empty folder"):
            copy(handout)
    assert before == {path: path.read_bytes() for path in handout.rglob("*") if path.is_file()}


def test_a_copy_is_the_notebook_byte_for_byte(tmp_path):
    for path in copy_notebooks(tmp_path):
        assert path.read_bytes() == (ROOT / "notebooks" / path.name).read_bytes()
