"""What a notebook says to its reader: checked claims, described pictures, judged exercises, and outputs built once."""

from __future__ import annotations

import base64
import functools
import html
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

DPI = 120  # a quarter sharper than the 96 pixels per inch of a page, and still small in a repository
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def check(claim: str, error: Any, tolerance: float) -> None:
    """Print ``✓ claim: error ≤ tolerance``, or raise ``AssertionError`` when ``error`` is larger or NaN.

    ``error`` is a number of any kind (float, 0-d tensor, 0-d array) that measures a distance. A tensor may need a
    gradient: only its value counts.
    """
    if isinstance(error, bool) or "bool" in str(getattr(error, "dtype", "")):
        raise TypeError(
            f"check({claim!r}) needs the size of an error, got a bool; use check_that(claim, holds) instead"
        )
    size = float(error.detach() if hasattr(error, "detach") else error)
    if size < 0:
        raise ValueError(f"check({claim!r}) needs an error of at least 0, got {size:g}; take its absolute value first")
    if not size <= tolerance:  # NaN is not <= anything
        raise AssertionError(f"{claim}: error {size:g} is not ≤ {tolerance:g}")
    print(f"✓ {claim}: error ≤ {tolerance:g}")


def check_that(claim: str, holds: Any) -> None:
    """Print ``✓ claim``, or raise ``AssertionError`` when ``holds`` is not true."""
    if not (isinstance(holds, bool) or "bool" in str(getattr(holds, "dtype", ""))):
        raise TypeError(
            f"check_that({claim!r}) needs a bool, got {holds!r}; use check(claim, error, tolerance) instead"
        )
    if not bool(holds):
        raise AssertionError(f"{claim}: this does not hold")
    print(f"✓ {claim}")


def png_bytes(figure: Figure, **options: Any) -> bytes:
    """The figure as a PNG: the same bytes whenever the same is drawn (no date, no program name)."""
    buffer, about = io.BytesIO(), {"Software": None}
    if options or figure.dpi != DPI or not hasattr(figure.canvas, "print_png"):
        figure.savefig(buffer, format="png", dpi=DPI, metadata=about, **options)
    else:  # a panel's: drawn once, where savefig draws a figure with a layout twice, and hardly packed; a slider waits
        figure.canvas.print_png(buffer, metadata=about, pil_kwargs={"compress_level": 1})  # pyright: ignore[reportAttributeAccessIssue]
    return buffer.getvalue()


def few_colors(png: bytes) -> bytes:
    """The same picture with at most 256 colors: what is stored takes a third of the bytes.

    What it costs is some of the grays at the edges of lines and letters.
    """
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)  # dots would cost more than colors
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def picture_bundle(png: bytes, alt: str, caption: str = "") -> dict[str, str]:
    """A picture for every viewer; ``caption`` is HTML put below it.

    ``text/html`` comes along because it keeps the alt text, which JupyterLab and nbconvert drop from ``image/png``.
    """
    code = base64.b64encode(png).decode()
    return {"text/html": picture_html(png, alt) + caption, "image/png": code, "text/plain": str(alt)}


def picture_html(png: bytes, alt: str) -> str:
    """The picture as an ``<img>``, an inch as wide as 96 pixels of the page, or less where there is no room."""
    code = base64.b64encode(png).decode()
    width = round(int.from_bytes(png[16:20], "big") * 96 / DPI)  # bytes 16-20 of a PNG are its width
    source = f'src="data:image/png;base64,{code}"'
    return f'<img alt="{html.escape(alt)}" {source} width="{width}" style="max-width: 100%">'


def show(figure: Figure, alt: str) -> None:
    """Display ``figure`` once; ``alt`` says what is to be seen, for those who do not see it."""
    if not alt.strip():
        raise ValueError("show needs a description of the picture, got an empty alt; say in words what is to be seen")
    from IPython.display import display
    from matplotlib import pyplot

    display(picture_bundle(few_colors(png_bytes(figure, bbox_inches="tight")), alt), raw=True)
    pyplot.close(figure)  # else the inline backend shows it a second time, without words


class _Told(BaseException):
    """Leaves the judge at once, past its own ``except Exception``; holds the line to print."""


def _blank(answer: Any) -> bool:
    return answer is ... or (isinstance(answer, (tuple, list)) and any(part is ... for part in answer))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def exercise(name: str, answer: Any, judge: Callable[[Any], str | None]) -> None:
    """Print whether ``answer`` is right (✓), wrong and why (✗), or not given yet (○); never raise.

    ``judge(answer)`` returns None for a right answer, else one sentence that says what is wrong. An answer that is a
    function reaches the judge wrapped: what it raises is told as a sentence, and returning ``...`` counts as not given.
    """
    waiting = f"○ {name}: replace the ... above by your answer, then run this cell again"

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            result = answer(*args, **kwargs)
        except Exception as error:
            # a blank inside a sum or a call: "unsupported operand type(s) for +: 'int' and 'ellipsis'"
            told = waiting if "ellipsis" in str(error) else f"✗ {name}: your function raised {_line(error)}"
            raise _Told(told) from None
        if _blank(result):
            raise _Told(waiting)
        return result

    if _blank(answer):
        print(waiting)
        return
    is_function = callable(answer) and hasattr(answer, "__name__") and not isinstance(answer, type)
    try:
        sentence = judge(functools.wraps(answer)(watched) if is_function else answer)
    except _Told as told:
        print(told)
    except Exception as error:
        print(f"✗ {name}: this answer cannot be judged ({_line(error)})")
    else:
        print(f"✓ {name}" if sentence is None else f"✗ {name}: {sentence}")


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at ``path``, with an id for every cell (nbformat would draw missing and double ones by chance)."""
    import nbformat

    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["nbformat_minor"] = max(raw.get("nbformat_minor", 5), 5)
    seen: set[str] = set()
    for number, cell in enumerate(raw["cells"]):
        if cell.get("id") in {None, *seen}:
            cell["id"] = f"cell-{number:02d}"
        seen.add(cell["id"])
    return nbformat.NotebookNode(nbformat.reads(json.dumps(raw), as_version=4))


def execute(notebook: NotebookNode, folder: Path, timeout: float = 600) -> NotebookNode:
    """Run all cells in ``folder`` with a fresh kernel of this interpreter.

    Raises nbclient's ``CellExecutionError`` where a cell fails. Changes ``notebook`` and returns it.
    """
    import matplotlib.font_manager  # noqa: F401  builds its cache here: its message must not land in an output
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    native = KernelSpecManager(kernel_dirs=[])  # only this interpreter's own kernel, whatever the user has installed
    with tempfile.TemporaryDirectory() as private:
        environment = os.environ | {"IPYTHONDIR": private, "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        client = NotebookClient(
            notebook,
            timeout=int(timeout),
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        client.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=native)
        client.execute(env=environment)
    return notebook


def stored(notebook: NotebookNode) -> str:
    """The text of the notebook's file: only what a reader sees, so that two runs write the same bytes."""
    import nbformat

    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    views: dict[str, str] = {}  # widget ids are random: number them
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        cell.outputs = _merge_streams(cell.outputs)
        for data in (output.data for output in cell.outputs if "data" in output):
            if WIDGET_VIEW in data and "image/png" in data:
                # The view names a model that has died with its kernel. JupyterLab 4.6 then shows the stored picture and
                # words, which are all that is left here; not every viewer falls back so. A run brings the view back.
                del data[WIDGET_VIEW]
            elif WIDGET_VIEW in data:
                model = data[WIDGET_VIEW]["model_id"]
                data[WIDGET_VIEW]["model_id"] = views.setdefault(model, f"{len(views):032x}")
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _merge_streams(outputs: list) -> list:
    """Neighboring pieces of one stream as one: where a stream is cut depends on the clock."""
    merged: list = []
    for output in outputs:
        same = merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name
        if same:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def build(paths: list[Path]) -> None:
    """Run each notebook and write its outputs into it; a second build writes the same bytes."""
    for path in map(Path, paths):
        start = time.perf_counter()
        text = stored(execute(read_notebook(path), path.parent))
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)  # whole or not at all: an interrupt leaves the old file
        print(f"{path.name}: {time.perf_counter() - start:.1f} s", flush=True)
