"""The whole book: pages without a warning, formulas, search, the dark theme, panels that move, nothing from outside."""

import base64
import functools
import json
import re
import tarfile
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import convkit.__main__ as commands
from convkit.commands.environment import SentenceError
from convkit.teaching import book
from convkit.teaching.notebooks import read_notebook
from convkit.widgets.states import MOST_BYTES
from tests import NOTEBOOKS, ROOT
from tests.book.test_page import Shown
from tests.helpers.refusals import refused

whole = [pytest.mark.slow, pytest.mark.full]


# ---- the pieces ------------------------------------------------------------------------------------------------------
def test_stored_panels_become_places_for_live_ones_and_those_that_train_stay_pictures():
    for path in NOTEBOOKS:
        cells = book.panel_cells(read_notebook(path))
        assert all(re.search(r"(Panel|Animation)\(", cell.source) for cell in cells[1:])
        assert not any("TrainingPanel(" in cell.source for cell in cells[1:])
        names = [f"{path.stem}-{number}" for number in range(len(cells))]
        text = book.with_places(path, names)
        outputs = [o for cell in json.loads(text)["cells"] for o in cell.get("outputs", [])]
        shown = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
        assert re.findall(r'<div data-panel="([^"]+)"><img alt="[^"]{20,}" src=', shown) == names
        source = "\n".join(cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        trained = len(re.findall(r"^(?:Training|Gan)Panel\(", source, re.MULTILINE))
        assert (shown.count(book.TRAINS), shown.count(book.HINT)) == (trained, 0)


def test_the_graph_for_teachers_becomes_a_table():
    page = (ROOT / ".github" / "TEACHING.md").read_text(encoding="utf-8")
    graph = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert graph
    rows = book.table_of_arrows(graph).splitlines()[2:]
    assert rows[2] == "| 03 | 02 |  |"
    assert "| 04 | 01 | 03 |" in rows
    assert sum(row.count(",") + sum(bool(c.strip()) for c in row.split("|")[2:4]) for row in rows) == graph[1].count(
        "-> n"
    )


def test_the_reference_has_a_page_for_each_folder_of_names_and_a_name_once():
    pages = book.reference()
    assert {"convkit", "convkit.audit", "convkit.training", "convkit.widgets"} <= set(pages)
    assert "ConvOperator" in pages["convkit.operators"].partition(":exclude-members:")[2]
    assert ".. autoclass:: convkit.widgets.matrices.MatrixPanel" in pages["convkit.widgets"]


def test_a_folder_with_other_files_is_left_alone_and_a_command_needs_one_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    refused("has other files", book.write_book, tmp_path, [], error=FileExistsError)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    for words in (["a", "b"], ["--all"]):
        refused("takes one folder", commands.book, words, error=SentenceError)


def test_another_mathjax_than_the_known_one_is_refused_and_npm_without_network_is_a_sentence(tmp_path, monkeypatch):
    brought = []

    def pack(command, **_):
        folder = Path(command[-1])
        if brought:
            with tarfile.open(folder / "mathjax-3.2.2.tgz", "w:gz") as packed:
                packed.add(__file__, "package/es5/tex-chtml-full.js")
        return type("Done", (), {"returncode": int(not brought), "stdout": "npm error network\n"})()

    monkeypatch.setattr(book.subprocess, "run", pack)
    for words in (r"(?s)check the network.*npm error network", "another one than it was"):
        refused(words, book.fetch_mathjax, tmp_path / "static", error=RuntimeError)
        brought.append(True)
        assert list((tmp_path / "static").iterdir()) == []


def test_the_environment_of_the_book_has_exact_versions():
    lines = (ROOT / ".book" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 20
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line)] == []


# ---- all of it -------------------------------------------------------------------------------------------------------
class Pictures(HTMLParser):
    """The pictures of a page, and those without words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.count, self.silent = 0, []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        if tag == "img":
            self.count += 1
            if not dict(attrs).get("alt"):
                self.silent.append(self.get_starttag_text())


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The book, on the disk."""
    folder = tmp_path_factory.mktemp("book") / "site"
    book.write_book(folder, NOTEBOOKS)
    return folder


def of(site, start: str) -> Path:
    [page] = (site / "notebooks").glob(f"{start}*.html")
    return page


class TestBook:
    """What a reader of the book meets; it is made once."""

    pytestmark = whole

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_each_panel_that_does_not_train_has_states_that_open_as_the_notebook_shows_it(self, path):
        names, cells = book.write_states(path, book.MADE), book.panel_cells(read_notebook(path))
        assert len(names) == len(cells)
        for name, cell in zip(names, cells, strict=True):
            script = (book.MADE / "static" / "panels" / f"{name}.js").read_text(encoding="utf-8")
            called, found = json.loads(f"[{script.partition('(')[2].rstrip().removesuffix(');')}]")
            assert called == name
            assert len(script) <= MOST_BYTES + 100
            opening = found["states"][",".join(str(control["at"]) for control in found["controls"])]
            assert len(base64.b64decode(opening.get("data") or found["data"])) > 100
            [stored] = [o.data["text/plain"] for o in cell.outputs if "data" in o]
            words = opening["words"]
            assert (words["each"][-1] if "moments" in opening else words) == stored
            assert len(found["states"]) > sum(len(control["texts"]) - 1 for control in found["controls"])

    def test_it_has_every_page_and_all_pictures_have_words(self, site):
        names = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
        expected = {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} | {
            "index.html",
            "search.html",
            "teaching.html",
        }
        expected |= {"notebooks/GLOSSARY.html", "notebooks/results/papers/README.html", "recipes.html"}
        assert expected | {f"api/{name}.html" for name in book.reference()} <= names
        pictures = [Pictures(site / name) for name in names]
        assert [silent for found in pictures for silent in found.silent] == []
        assert sum(found.count for found in pictures) > 90

    def test_formulas_are_set(self, site, visit):
        visit.open(of(site, "02"))
        visit.page.wait_for_function("document.querySelectorAll('mjx-container').length > 50")
        visit.page.wait_for_function("MathJax.startup.promise.then(() => true)")
        assert visit.page.locator("mjx-merror, .MathJax_Error").count() == 0
        assert visit.page.evaluate(
            "[...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))"
        )

    @pytest.mark.parametrize("width", [1400, 600])
    def test_a_formula_begins_in_its_column_and_a_long_one_scrolls(self, site, visit, width):
        visit.page.set_viewport_size({"width": width, "height": 900})
        places = """[...document.querySelectorAll('div.math')].map(place => {
            const left = place.querySelector('mjx-math').getBoundingClientRect().left;
            const hidden = place.scrollWidth - place.clientWidth, look = getComputedStyle(place).overflowX;
            return [left - place.getBoundingClientRect().left, hidden, look];
        })"""
        found = []
        for path in NOTEBOOKS:
            visit.open(of(site, path.stem[:2]))
            visit.page.wait_for_function("MathJax.startup.promise.then(() => true)")
            found += visit.page.evaluate(places)
        assert len(found) > 10
        assert min(left for left, _, _ in found) > -1
        assert {look for _, _, look in found} == {"auto"}
        if width == 1400:
            assert max(hidden for _, hidden, _ in found) <= 0

    def test_search_finds_a_word(self, site, visit):
        handler = functools.partial(Quiet, directory=str(site))  # a disk gives the titles alone, without the sentences
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            visit.open(f"http://127.0.0.1:{server.server_port}/search.html?q=circulant")
            found = visit.page.locator("#search-results li", has_text="01 · A convolution is a matrix").first
            found.locator("a").first.wait_for()
            found.locator("p.context").first.wait_for()
            visit.page.goto("about:blank")  # the page still asks for the sentences of other results
            server.shutdown()

    def test_a_panel_answers_in_both_themes(self, site, visit):
        page = visit.open(of(site, "01")).page
        name = "01_a_convolution_is_a_matrix-2"  # behind two animations
        page.locator(f"[data-panel='{name}']").scroll_into_view_if_needed()
        panel = Shown(visit, name)
        first = panel.seen()
        panel.drag("Row of the matrix", 0.9)
        assert panel.seen()["words"] == panel.seen()["alt"] != first["words"]
        assert panel.seen()["picture"] != first["picture"]
        paper = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(paper)
        page.locator(".theme-switch-button").first.click()
        page.locator(".theme-change-button[data-mode=dark]").first.click()
        page.wait_for_function(f"{paper} !== '{light}'")
        panel.root.locator("svg text[fill='rgb(238,238,238)']").first.wait_for()

    @pytest.mark.parametrize("width", [1400, 600])
    def test_code_is_not_cut_and_no_page_is_wider_than_the_window(self, site, visit, width):
        visit.page.set_viewport_size({"width": width, "height": 1000})
        for page in [of(site, path.stem[:2]) for path in NOTEBOOKS] + [site / "index.html", site / "recipes.html"]:
            visit.open(page)
            wide = "[...document.querySelectorAll('pre')].filter(p => p.scrollWidth > p.clientWidth + 1).length"
            assert visit.page.evaluate(wide) == 0, page
            assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page
