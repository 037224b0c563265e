"""The glossary: words that the notebooks use, and a reference for every paper that code and notebooks cite."""

import re

import pytest

from tests import ROOT

PAGE = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8")
REFERENCES = PAGE.partition("## References")[2]
NAME = r"[A-Z][A-Za-zÀ-ž-]+"
CITATION = re.compile(rf"({NAME})(?: et al\.|(?: and| &) {NAME}|, {NAME}(?: and| &) {NAME})?,? \(?((?:19|20)\d\d)\)?")
NOT_AUTHORS = {"ICLR", "ICML", "NeurIPS", "AAAI", "WACV", "TOG", "January", "July", "Newhouse", "Anthology"}


def cited(text: str) -> set[tuple[str, str]]:
    """(name of the first author as the citation gives it, year)."""
    return {(name, year) for name, year in CITATION.findall(text) if name not in NOT_AUTHORS}


def test_citations_are_found_as_they_are_written():
    text = "Tsuzuku, Sato and Sugiyama 2018; (Wu & He 2018) of Jordan et al. 2024, or Gray (2006), at ICLR 2019"
    assert cited(text) == {("Tsuzuku", "2018"), ("Wu", "2018"), ("Jordan", "2024"), ("Gray", "2006")}


@pytest.mark.parametrize("place", ["convkit", "notebooks", "README.md"])
def test_every_paper_that_is_cited_has_a_reference(place):
    whole = ROOT / place
    files = [whole] if whole.is_file() else [*whole.rglob("*.py"), *whole.glob("*.ipynb")]
    for path in files:
        text = re.sub(r'"image/png": "[^"]*"|base64,[^\\"]*', "", path.read_text(encoding="utf-8"))
        for name, year in cited(re.sub(r"\s+", " ", text)):
            found = re.search(rf"^- (\*\*\w\*\* )?[^*\n]*\b{name}\b[^*\n]* {year}, \*", REFERENCES, re.MULTILINE)
            assert found, f"{path.name} cites {name} {year}, which is not in GLOSSARY.md"


def test_references_have_an_address_and_words_name_a_notebook_that_says_them():
    entries = [line for line in REFERENCES.splitlines() if line.startswith("- ") and not line.startswith("- **W**")]
    assert len(entries) > 45
    for line in entries:
        assert re.search(r"\]\(https://(doi\.org/10\.\d+/\S+|\S+\.(?:press|github\.io)/\S+)\)$", line), line
        doi = re.search(r"\[doi:(\S+)\]\(https://doi\.org/(\S+)\)", line)
        assert doi is None or doi[1] == doi[2], line
    rows = re.findall(r"^\| (\*\*.+?) \| .+ \| ([\d, ]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 25
    for words, numbers in rows:
        for number in numbers.split(", "):
            [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
            text = path.read_text(encoding="utf-8").lower()
            names = [name.partition(" of a ")[0].lower() for name in re.findall(r"\*\*(.+?)\*\*", words)]
            assert any(name in text for name in names), f"notebook {number} says none of {names}"
