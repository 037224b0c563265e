"""The Jupyter kernel that runs a panel: its version, messages while a cell is busy, and the running cell."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import ipywidgets


class Cell(NamedTuple):
    """A run of a notebook's cell: ``name`` is the same at every run of the cell, ``run`` differs from run to run."""

    name: tuple[str, str]
    run: str


def running_cell() -> Cell | None:
    """Return the cell whose code is running, or ``None`` outside of a notebook and in a widget's callback.

    JupyterLab, Notebook and VS Code send the cell's id with its code. nbclient and plain clients send none: there a
    cell is identified by its code, so that an edited cell counts as another one.
    """
    request = getattr(_kernel(), "get_parent", dict)() or {}
    if request.get("header", {}).get("msg_type") != "execute_request":
        return None
    cell_id = (request.get("metadata") or {}).get("cellId")
    name = ("id", cell_id) if cell_id else ("code", request["content"]["code"])
    return Cell(name, request["header"]["msg_id"])


@functools.cache
def prepare() -> ipywidgets.Widget | None:
    """Prepare the kernel for panels, once: warn of unfit versions, let messages past a busy cell, and open a comm.

    Every panel calls this before its own widgets are made. JupyterLab sends widget messages past a busy cell (on a
    subshell) once the kernel has opened a comm; the widget of that comm is returned, and cached. Outside of a kernel
    nothing happens.
    """
    if _kernel() is None:
        return None
    try:
        from ipykernel._version import version_info
    except ImportError:  # another kernel of Python
        return ipywidgets.Layout()
    if sentence := kernel_sentence(version_info):
        print(sentence)
    else:  # older ones have other classes
        answer_on_the_subshell_that_asked()
    return ipywidgets.Layout()


def kernel_sentence(version: Sequence[Any]) -> str:
    """Return a sentence if this version of ipykernel is unfit for panels, else ``""``."""
    if tuple(version[:2]) >= (7, 4):
        return ""
    name = ".".join(map(str, version[:3]))
    return (
        f"this kernel is ipykernel {name}, and panels need 7.4 or newer: older ones lose requests, or let no message "
        'of a panel past a busy cell; run pip install "ipykernel>=7.4" and restart the kernel'
    )


def answer_on_the_subshell_that_asked() -> None:
    """Undo what ipykernel 7.4 does to the messages of widgets; without effect elsewhere.

    A page sends the messages of widgets on a subshell, a thread beside the cells. ipykernel 7.4.0 sends each of them on
    to the shell that last wrote to that widget, which is the main one for a widget made in a cell: a Stop button or a
    slider then waits until the cell is done. Without this method ipykernel goes by the message itself.
    ``tests/widgets/test_kernel.py`` has the test that fails once this is no longer needed.
    """
    from ipykernel.comm.comm import BaseComm

    if hasattr(BaseComm, "_reply_subshell_for"):
        BaseComm._reply_subshell_for = None  # pyright: ignore[reportAttributeAccessIssue]


def _kernel() -> Any:
    """Return the kernel object, or ``None`` where Python does not run in a kernel."""
    try:
        from IPython import get_ipython  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        return None
    return getattr(get_ipython(), "kernel", None)
