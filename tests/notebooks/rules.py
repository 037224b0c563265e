"""The promises that every notebook makes: a rule looks at one notebook and says what is wrong with it."""

import ast
import copy
import html
import math
import re
from collections.abc import Callable
from pathlib import Path

import bleach
import nbformat

from convkit.teaching import stored

FOLDED = re.compile(r"<details>\s*<summary>Solution</summary>\s*\n\n(.*?)\n</details>", re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
ABSOLUTE = re.compile(r"(?<![\w/.:])/(?:home|root|tmp|usr|opt|var|work|mnt|Users|private)/\S*|\b[A-Z]:\\\w\S*")
IMAGE = re.compile(r"<img\b[^>]*>")
ALT = re.compile(r'\balt="([^"]*)"')
IMAGE_PARTS = re.compile(r'(alt|src)="([^"]*)"')
WARNING = re.compile(r"\b\w*Warning\b|\bwarnings?\.warn\b")
Book = nbformat.NotebookNode


def text_of(cell: Book) -> str:
    """What the cell printed on stdout."""
    return "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stdout")


def words_of(cell: Book) -> list[str]:
    """All stored text of the cell's outputs, without pictures."""
    words = [text_of(cell)]
    for data in (output.data for output in cell.get("outputs", []) if "data" in output):
        for kind, value in data.items():
            if kind.startswith("text/"):
                words.append(re.sub(r'src="data:[^"]*"', "", str(value)))
    return words


def exercises(book: Book) -> list[tuple[int, str | None]]:
    """(place of the attempt cell, code of its solution or None): a cell tagged `exercise`, its judge, the solution."""
    found = []
    for place, cell in enumerate(book.cells):
        if "exercise" in cell.metadata.get("tags", []):
            judge, folded = [*book.cells[place + 1 : place + 3], None, None][:2]
            blocks: list[str] = []
            if judge and folded and judge.cell_type == "code" and "exercise(" in judge.source:
                blocks = [block for text in FOLDED.findall(folded.source) for block in PYTHON.findall(text)]
            found.append((place, blocks[0] if len(blocks) == 1 else None))
    return found


def opening(book: Book, path: Path) -> list[str]:
    first = book.cells[0]
    if first.cell_type != "markdown":
        return ["the first cell is not text"]
    top = " ".join(cell.source for cell in book.cells[:3] if cell.cell_type == "markdown").lower()
    number = path.name.partition("_")[0]
    wanted = {
        f"the heading '# {number} · ...'": re.match(rf"# {number} · \S", first.source),
        "a question": "?" in first.source,
        "what the reader needs ('you need')": re.search(r"\byou (will )?need\b", top),
        "what the reader learns ('you will learn')": re.search(r"\byou (will )?learn\b", top),
        "how many minutes it takes": re.search(r"\bminutes?\b", top),
    }
    return [f"the opening lacks {what}" for what, there in wanted.items() if not there]


def minutes_of(book: Book) -> tuple[int, int]:
    """Minutes to read the prose, 150 words each; and with 5 more for each exercise and panel, rounded up to 5."""
    prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    prose = re.sub(r"<details>.*?</details>", "", prose, flags=re.DOTALL)
    prose = re.sub(r"\*\*Minutes:\*\*.*|\]\([^)]*\)", "", prose)
    prose = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", " formula ", prose, flags=re.DOTALL)
    read = math.ceil(len(re.findall(r"[^\W_][\w'’.-]*", prose)) / 150)
    panels = sum(any("convkit-words" in word for word in words_of(cell)) for cell in book.cells)
    return read, 5 * math.ceil((read + 5 * len(exercises(book)) + 5 * panels) / 5)


def minutes(book: Book, path: Path) -> list[str]:
    """The minutes that a notebook names are computed from what is in it."""
    read, whole = minutes_of(book)
    wanted = f"**Minutes:** {read} to read, {whole} with exercises and panels"
    return [] if any(wanted in cell.source for cell in book.cells[:3]) else [f"the opening must say {wanted!r}"]


def closing(book: Book, path: Path) -> list[str]:
    later = [other.name for other in sorted(path.parent.glob("*.ipynb")) if other.name > path.name]
    last = book.cells[-1]
    if later and not (last.cell_type == "markdown" and f"]({later[0]})" in last.source):
        return [f"the last cell does not link to {later[0]}"]
    return []


def panel(book: Book, path: Path) -> list[str]:
    shown = [word for cell in book.cells for word in words_of(cell) if "convkit-words" in word]
    faults = [f"a panel was stored with a mistake: {word}" for word in shown if "bug in the panel" in word]
    return faults if shown else ["no panel is shown"]


def three_exercises(book: Book, path: Path) -> list[str]:
    faults = []
    found = exercises(book)
    if len(found) < 3:
        faults.append(f"needs three cells tagged 'exercise', has {len(found)}")
    for place, solution in found:
        if solution is None:
            faults.append(f"cell {place}: needs an exercise(...) cell, then a folded solution with one block of Python")
        if "..." not in book.cells[place].source:
            faults.append(f"cell {place}: the attempt has no blank")
        if not text_of(book.cells[place + 1]).startswith("○ "):
            faults.append(f"cell {place + 1}: an exercise that waits for its answer must say so")
    return faults


def checks(book: Book, path: Path) -> list[str]:
    lines = [line for cell in book.cells for line in text_of(cell).splitlines() if line.startswith("✓ ")]
    equations = [
        tag for cell in book.cells if cell.cell_type == "markdown" for tag in re.findall(r"\\tag\{(.+?)\}", cell.source)
    ]
    faults = [f"equation ({tag}) has no check" for tag in equations if not any(f"({tag})" in line for line in lines)]
    return faults if len(lines) >= 3 else [*faults, f"needs at least three checked claims, has {len(lines)}"]


def imports(book: Book, path: Path) -> list[str]:
    faults = []
    for place, cell in code_cells(book):
        for node in ast.walk(ast.parse(cell.source)):
            root = isinstance(node, ast.ImportFrom) and node.module == "convkit"
            if root or (isinstance(node, ast.Import) and any(name.name == "convkit" for name in node.names)):
                faults.append(f"cell {place} imports from the package root instead of the defining module")
    return faults


def code_cells(book: Book) -> list[tuple[int, Book]]:
    return [(place, cell) for place, cell in enumerate(book.cells) if cell.cell_type == "code"]


def is_folded(cell: Book) -> bool:
    """Whether the code of the cell opens only with a click."""
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def called(source: str) -> set[str]:
    """The functions that a source calls by their bare name."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name)}


def folding(book: Book, path: Path) -> list[str]:
    """Imports stand in the first cell; they and code that draws are folded; a check is never folded away."""
    faults = []
    for number, (place, cell) in enumerate(code_cells(book)):
        imports = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(ast.parse(cell.source)))
        names = called(cell.source)
        if imports and number:
            faults.append(f"cell {place} imports: move it to the first code cell, so that later cells can run alone")
        if (not number or "show" in names) and not is_folded(cell):
            faults.append(f"cell {place} imports or draws: fold its code (metadata jupyter.source_hidden)")
        if is_folded(cell) and names & {"check", "check_that"}:
            faults.append(f"cell {place} hides a check: give the check a cell of its own")
    return faults


def judging(book: Book, path: Path) -> list[str]:
    """Judges live in the package: a notebook has one line for each exercise, and no answer."""
    faults = []
    judges = f"n{path.name[:2]}"
    for place, cell in code_cells(book):
        if "exercise" not in called(cell.source):
            continue
        *others, last = ast.parse(cell.source).body
        call = last.value if isinstance(last, ast.Expr) else None
        judge = call.args[-1] if isinstance(call, ast.Call) and call.args else None
        if not (isinstance(judge, ast.Attribute) and getattr(judge.value, "id", "") == judges):
            faults.append(f"cell {place}: the last line must be exercise(name, answer, {judges}.SOMETHING)")
        if others and not is_folded(cell):
            faults.append(f"cell {place}: a visible cell that judges has one line")
    return faults


def bets(book: Book, path: Path) -> list[str]:
    """One bet: a cell to fill, and in the next one the picture that settles it, closed; or a panel that asks for it."""
    places = [place for place, cell in enumerate(book.cells) if "bet" in cell.metadata.get("tags", [])]
    if len(places) != 1:
        return [f"needs one cell tagged 'bet', has {len(places)}"]
    cell, after = book.cells[places[0]], book.cells[places[0] + 1]
    if "exercise" not in cell.metadata.tags:
        return [] if any("convkit-words" in word for word in words_of(cell)) else ["the bet is neither blank nor panel"]
    closed = [word for word in words_of(after) if "<img" in word]
    if len(closed) != 1 or not closed[0].startswith("<details><summary>"):
        return [f"cell {places[0] + 1}: needs one folded picture that settles the bet: show(figure, alt, folded=...)"]
    return []


THROWN_AWAY = {"_", "ax", "axes", "figure"}  # the last three: of the picture that a cell shows and closes


class Names(ast.NodeVisitor):
    """The names that a cell binds outside functions and classes.

    ``kept`` is for later cells: assigned names, functions, classes. ``passing`` are the names of loops and figures.
    """

    def __init__(self, source: str) -> None:
        self.kept: set[str] = set()
        self.passing: set[str] = set()
        self.visit(ast.parse(source))
        self.kept -= THROWN_AWAY
        self.passing -= self.kept | THROWN_AWAY

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.kept.add(node.name)

    visit_ClassDef = visit_FunctionDef

    def visit_For(self, node: ast.For) -> None:
        self.passing |= _targets(node.target)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = node.value.func if isinstance(node.value, ast.Call) else None
        figure = isinstance(value, ast.Attribute) and value.attr == "subplots"
        (self.passing if figure else self.kept).update(*map(_targets, node.targets))

    def visit_AnnAssign(self, node: ast.AnnAssign | ast.AugAssign) -> None:
        self.kept |= _targets(node.target)

    visit_AugAssign = visit_AnnAssign


def _targets(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def names(book: Book, path: Path) -> list[str]:
    """No name means two things: each is bound in one section (from one heading ## to the next)."""
    bound: dict[str, set[int]] = {}
    section, passing = 0, {}
    for place, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            section += bool(re.search(r"^## ", cell.source, re.MULTILINE))
        else:
            found = Names(cell.source)
            passing[place] = found.passing
            for name in found.kept:
                bound.setdefault(name, set()).add(section)
    faults = [f"{name!r} is bound in {len(where)} sections" for name, where in bound.items() if len(where) > 1]
    for place, overwritten in passing.items():
        clash = sorted(overwritten & bound.keys())
        faults += [f"cell {place}: a loop or figure overwrites {name!r} of another cell" for name in clash]
    return faults


def no_global_dtype(book: Book, path: Path) -> list[str]:
    return [
        f"cell {place} changes torch's default" for place, cell in code_cells(book) if "set_default_" in cell.source
    ]


MOST_IGNORED = 3  # cells whose outputs differ from run to run, such as times


def runs(book: Book, path: Path) -> list[str]:
    """The cells were run from top to bottom; the tests skip none and compare almost all."""
    cells = code_cells(book)
    counts = [cell.execution_count for _, cell in cells if cell.source.strip()]
    faults = [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts {counts}: build it again"]
    tags = {place: cell.metadata.get("tags", []) for place, cell in cells}
    if sum("nbval-ignore-output" in tags[place] for place in tags) > MOST_IGNORED:
        faults.append(f"more than {MOST_IGNORED} cells ignore their outputs")
    skipped = (place for place, cell in cells if "nbval-skip" in tags[place] or "NBVAL_" in cell.source)
    return faults + [f"cell {place} may not be skipped, or marked by a comment for nbval" for place in skipped]


def links(book: Book, path: Path) -> list[str]:
    source = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", source) + re.findall(r"(?:src|href)=\"([^\"]+)\"", source)
    local = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    return [f"broken link {target}" for target in local if not (path.parent / target.partition("#")[0]).exists()]


def outputs(book: Book, path: Path) -> list[str]:
    """No error, warning or path is stored, and each picture has words for readers who do not see it."""
    faults = []
    for place, cell in code_cells(book):
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type == "error" or output.get("name") == "stderr":
                faults.append(f"cell {place} stores an error or text on stderr")
            if any(kind.startswith("image/") for kind in data):
                faults.append(f"cell {place}: a picture outside text/html loses its alt text (use show)")
            for image in IMAGE.findall(data.get("text/html", "")):
                alt = ALT.search(image)
                if alt is None or not html.unescape(alt[1]).strip():
                    faults.append(f"cell {place}: a picture with an empty alt text")
        for word in words_of(cell):
            for pattern, what in ((ABSOLUTE, "a path of one machine"), (WARNING, "a warning")):
                match = pattern.search(word)
                if match:
                    faults.append(f"cell {place} stores {what}: {match[0]}")
    return faults


# What a site that shows notebooks leaves of their HTML (GitHub's list, in short), beside pictures inside the file
KEPT_TAGS = {"a", "b", "br", "code", "details", "div", "em", "img", "li", "ol", "p", "pre", "small", "span", "strong"}
KEPT_TAGS |= {"sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"}
KEPT_ATTRIBUTES = {"img": ["alt", "src", "width"], "a": ["href"]}


def html_after_a_site(book: Book, path: Path) -> list[str]:
    """Pictures, their words and all tags are still there after a site has taken out what it does not allow."""
    faults = []
    for place, cell in code_cells(book):
        for data in (output.data for output in cell.get("outputs", []) if "data" in output):
            text = data.get("text/html", "")
            clean = bleach.clean(text, tags=KEPT_TAGS, attributes=KEPT_ATTRIBUTES, protocols={"data", "https"})
            before, after = ([html.unescape(part) for _, part in IMAGE_PARTS.findall(one)] for one in (text, clean))
            if before != after or text.count("&lt;") != clean.count("&lt;"):
                faults.append(f"cell {place} has HTML that a site such as GitHub takes out")
    return faults


def file_text(book: Book, path: Path) -> list[str]:
    same = path.read_text(encoding="utf-8") == stored(copy.deepcopy(book))
    return [] if same else ["the file is not as `python3 -m convkit build` writes it"]


METHOD = re.compile(
    r"\b(?:\w+Norm|BN|GN|OCNN|ONI|Muon|SGD|Adam|(?:centered )?sphere|(?:weight|norm|l1|l∞) decay|clip(?:s|ped|ping)?"
    r"|weight standardization|spectral norm|flattened (?:norm|clip)|true norm|free training)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(
    r"\b(?:(?:better|worse|faster|slower|higher|lower) than|beats?|outperform\w*|(?:more|less) (?:accurate|robust) than"
    r"|improves? (?:on|upon|over)|superior|inferior|ahead of|(?:falls?|fell|not|points) behind|wins?"
    r"|loses? (?:less|more|to)|as (?:good|well|robust|accurate) as|(?:best|worst) method"
    r"|(?:most|least) (?:robust|accurate))\b",
    re.IGNORECASE,
)
ALLOWED = {  # notebook and cell -> why it may compare methods
    (
        "07",
        "race-again",
    ): "a check of a race in this notebook, whose gap comes from running averages",
    ("09", "table2"): "counts in the numbers that the paper prints",
    ("10", "take-along"): "says that it is not shown",
    ("14", "claim-text"): "quotes the paper",
    ("15", "rates-text"): "what a paper expects",
    ("11", "c-text"): "what a paper expects",
    ("11", "proof-check"): "a check of the words of convkit.statistics.compare",
}


def sentences(cell: Book) -> list[str]:
    """The sentences of a text without formulas and code; the texts in code, such as claims and alt texts."""
    if cell.cell_type == "markdown":
        text = re.sub(r"```.*?```|\$\$.*?\$\$", "", cell.source, flags=re.DOTALL)
        return re.split(r"(?<=[.!?:;])\s+|\n+", text)
    constants = (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str)]


def comparisons(book: Book, path: Path) -> list[str]:
    """Which method is better is said by verdicts over paired seeds, not by hand."""
    return [
        f"cell {cell.id} compares methods by hand: {sentence!r}; show a verdict of convkit.papers.claims instead"
        for cell in book.cells
        if (path.name[:2], cell.id) not in ALLOWED
        for sentence in sentences(cell)
        if METHOD.search(sentence) and COMPARED.search(sentence)
    ]


RULES: list[Callable[[Book, Path], list[str]]] = [
    opening, minutes, closing, panel, three_exercises, checks, imports, folding, judging, bets, names,
    no_global_dtype, runs, links, outputs, html_after_a_site, file_text, comparisons,
]  # fmt: skip
