"""Reading, running and storing notebooks, so that two builds write the same bytes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.loading import needs

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook at ``path``, with an id for every cell.

    Missing and duplicate ids are replaced by the number of the cell, where nbformat would draw random ones. Raises
    ``ModuleNotFoundError`` without nbformat.
    """
    with needs("kit", "read_notebook"):
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
    """Run all cells of a notebook in a fresh kernel of this interpreter; change ``notebook`` and return it.

    Args:
        notebook: The notebook.
        folder: The working directory of the kernel.
        timeout: Seconds that a cell may take.

    Raises nbclient's ``CellExecutionError`` where a cell fails and ``CellTimeoutError`` where it takes too long.
    """
    with needs("kit", "running a notebook"):
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
    """Return the text of a notebook's file, with what a reader sees and nothing that differs from run to run.

    Changes ``notebook``: it loses most metadata, and random ids of widgets are replaced by numbers.
    """
    with needs("kit", "storing a notebook"):
        import nbformat

    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    views: dict[str, str] = {}  # widget ids are random: number them
    for cell in notebook.cells:
        metadata = {"tags": cell.metadata.get("tags")}
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            metadata["jupyter"] = {"source_hidden": True}  # folded code: the reader opens it with a click
        cell.metadata = nbformat.from_dict({name: value for name, value in metadata.items() if value})
        if cell.cell_type != "code":
            continue
        cell.outputs = _merge_streams(cell.outputs)
        for data in (output.data for output in cell.outputs if "data" in output):
            if WIDGET_VIEW in data and "<img" in data.get("text/html", ""):
                # The view names a model that has died with its kernel. JupyterLab 4.6 then shows the stored picture and
                # words, which are all that is left here; not every viewer falls back so. A run brings the view back.
                del data[WIDGET_VIEW]
            elif WIDGET_VIEW in data:
                model = data[WIDGET_VIEW]["model_id"]
                data[WIDGET_VIEW]["model_id"] = views.setdefault(model, f"{len(views):032x}")
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _merge_streams(outputs: list[Any]) -> list[Any]:
    """Merge neighboring pieces of one output stream, since where a stream is cut depends on the clock."""
    merged: list[Any] = []
    for output in outputs:
        same = merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name
        if same:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def build(paths: list[Path]) -> None:
    """Run each notebook and write its outputs into its file; a second build writes the same bytes.

    Raises nbclient's ``CellExecutionError`` where a cell fails; the file is then as before.
    """
    for path in map(Path, paths):
        start = time.perf_counter()
        text = stored(execute(read_notebook(path), path.parent))
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)  # whole or not at all: an interrupt leaves the old file
        print(f"{path.name}: {time.perf_counter() - start:.1f} s", flush=True)
