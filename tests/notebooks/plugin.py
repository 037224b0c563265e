"""What nbval leaves out (``pytest --nbval -p tests.notebooks.plugin``): stored outputs are those of a run.

Each code cell is run in a fresh kernel, and its stored outputs must be the same: text exactly, figures by pixels
(``figure_distance``), a trailing ``;`` honored. What is seen without a run is up to the rules in ``rules.py``.

After the cell that judges an exercise, the folded solution is judged in the same kernel, and taken back.
A cell that holds a widget is run, and needs its stored picture and words; of these only the picture is compared.
A cell tagged ``nbval-ignore-output`` is run and not compared; these cells are named at the end.
"""

import base64
import io
import os
import re
import subprocess
import tempfile

import numpy as np
import pytest
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel, start_new_kernel
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image

BLOCK, CONTRAST, SHARE = 4, 0.1, 5e-4
TOLERANCE = f"at most {SHARE:.2%} may differ by more than {CONTRAST:.0%} of full scale"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# around a solution that is judged: the cells behind draw the same random numbers as without it
KEEP = "import numpy as _numpy, torch as _torch\n_kept = _numpy.random.get_state(), _torch.get_rng_state()"
GIVE_BACK = "_numpy.random.set_state(_kept[0]), _torch.set_rng_state(_kept[1])\ndel _numpy, _torch, _kept"
_DATA = re.compile(r'src="data:([^";]*);base64,([^"]*)"')


def figure_distance(one: str, other: str) -> float:
    """The share of blocks that differ between two base64 PNGs, from 0 to 1; 1 when their sizes differ.

    Blocks, because another processor or font library moves the gray at the edge of a letter, but no line.
    """
    first, second = (_blocks(Image.open(io.BytesIO(base64.b64decode(png)))) for png in (one, other))
    if first.shape != second.shape:
        return 1.0
    return float((np.abs(first - second).max(axis=-1) > CONTRAST).mean())


def _blocks(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB"), dtype=float) / 255
    height, width, _ = pixels.shape
    pixels = np.pad(pixels, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), constant_values=1.0)
    return pixels.reshape(len(pixels) // BLOCK, BLOCK, -1, BLOCK, 3).mean(axis=(1, 3))


class StrictKernel(RunningKernel):
    """A kernel free of the user's own start-up files, which keeps a history."""

    def __init__(self, cwd: str, seconds: float) -> None:
        self.private = tempfile.TemporaryDirectory()
        more = {"IPYTHONDIR": self.private.name, "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        options = {"stderr": subprocess.DEVNULL, "cwd": cwd, "env": os.environ | more}
        self.km, self.kc = start_new_kernel(seconds, CURRENT_ENV_KERNEL_NAME, **options)
        self._ensure_iopub_up()

    def execute_cell_input(self, cell_input, allow_stdin=None):
        # with history: IPython looks there for the trailing ";" that mutes a result
        return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    def printed(self, source: str, seconds: float) -> str:
        """What a piece of code prints that is run aside: the count of the cells goes on as if it were not there."""
        asked = self.kc.execute(source, store_history=False, allow_stdin=False, stop_on_error=False)
        text, idle = "", False
        while not idle:
            message = self.get_message("iopub", seconds)
            if message["parent_header"].get("msg_id") == asked:
                content = message["content"]
                text += content.get("text", "") if message["msg_type"] == "stream" else ""
                text += f"{content['ename']}: {content['evalue']}" if message["msg_type"] == "error" else ""
                idle = content.get("execution_state") == "idle"
        self.await_reply(asked, seconds)
        return text

    def stop(self):
        super().stop()
        self.private.cleanup()


class StrictFile(IPyNbFile):
    """Runs its cells with the Python that runs the tests, and finds the solutions of exercises."""

    def setup(self):
        self.kernel = StrictKernel(str(self.path.parent), self.config.option.nbval_kernel_startup_timeout)

    def collect(self):
        cells = [
            StrictCell.from_parent(self, name=item.name, cell_num=item.cell_num, cell=item.cell, options=item.options)
            for item in super().collect()
        ]
        if not cells:
            raise self.CollectError(f"{self.path.name} has no code cell")
        judges = {}
        if any("exercise" in cell.metadata.get("tags", []) for cell in self.nb.cells):
            from tests.notebooks.rules import exercises  # needs more packages than this file

            judges = {id(self.nb.cells[at + 1]): (at, solution) for at, solution in exercises(self.nb) if solution}
        for item in cells:
            place, item.solution = judges.get(id(item.cell), (0, ""))
            item.attempt = self.nb.cells[place].source
            if not item.options["check"]:
                item.user_properties.append(("ignored output", f"{self.path.name} {item.name}"))
        return cells


class StrictCell(IPyNbCell):
    """Compares figures by their pixels, and judges the solution of an exercise."""

    solution = attempt = ""  # of the exercise that this cell judges

    def runtest(self):
        super().runtest()
        if not self.options["check"] and bool(self.test_outputs) != bool(self.cell.outputs):
            self.raise_cell_error(
                "the stored outputs of an ignored cell are gone, or are new: build the notebook again"
            )
        if self.solution:
            source = "\n".join([KEEP, self.solution, self.cell.source, self.attempt, GIVE_BACK])
            printed = self.parent.kernel.printed(source, self.config.option.nbval_cell_timeout)
            if not all(line.startswith("✓ ") for line in printed.splitlines() or [""]):
                self.raise_cell_error(f"the folded solution of this exercise is not taken: {printed or 'nothing said'}")

    def compare_outputs(self, test, ref, skip_compare=None):
        """Called by nbval with the outputs of the run and the stored ones; says what differs in the traceback."""
        self.comparison_traceback = []
        try:
            has_widget = any(WIDGET_VIEW in output.get("data", {}) for output in test)
            compare = self._compare_widget if has_widget else self._compare
            compare(test, ref)
        except _Differs as difference:
            self.comparison_traceback.append(str(difference))
        return not self.comparison_traceback

    def _compare(self, test, ref) -> None:
        if [output.output_type for output in test] != [output.output_type for output in ref]:
            raise _Differs(f"stored outputs {list(map(_kind, ref))}, the run gives {list(map(_kind, test))}")
        for new, old in zip(test, ref, strict=True):
            if new.output_type == "stream":
                _same(f"text on {new.name}", (new.name, new.text), (old.name, old.text))
            elif new.output_type == "error":
                _same("error", (new.ename, new.evalue), (old.ename, old.evalue))
            else:
                _same("kinds of data", sorted(new.data), sorted(old.data))
                for kind, value in new.data.items():
                    _same(kind, _DATA.sub("", str(value)), _DATA.sub("", str(old.data[kind])))
                self._compare_figures(*(one.data.get("text/html", "") for one in (new, old)))

    def _compare_figures(self, new: str, old: str) -> None:
        """The pictures of two pieces of HTML, compared one by one."""
        new_figures, old_figures = (_DATA.findall(text) for text in (new, old))
        _same("number of pictures", len(new_figures), len(old_figures))
        for (_, one), (_, other) in zip(new_figures, old_figures, strict=True):
            distance = figure_distance(one, other)
            if distance > SHARE:
                raise _Differs(
                    f"the figure differs in {distance:.2%} of its blocks of {BLOCK} x {BLOCK} pixels: {TOLERANCE}"
                )

    def _compare_widget(self, test, ref) -> None:
        new, old = (
            [output.data for output in outputs if _DATA.search(output.get("data", {}).get("text/html", ""))]
            for outputs in (test, ref)
        )
        if not old:
            raise _Differs("the cell shows a panel, but no picture of it is stored: build the notebook again")
        if not all(data.get("text/plain", "").strip() for data in old):
            raise _Differs("the stored picture of a panel has no words")
        _same("number of panels", len(new), len(old))
        for new_data, old_data in zip(new, old, strict=True):
            self._compare_figures(new_data["text/html"], old_data["text/html"])


class _Differs(Exception):
    pass


def _kind(output) -> str:
    return output.get("name") or ", ".join(output.get("data", {})) or output.output_type


def _same(what: str, new, old) -> None:
    if new != old:
        raise _Differs(f"{what} differs\nstored:\n{old}\nthe run gives:\n{new}")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    return [StrictFile.from_parent(parent, path=node.path) if type(node) is IPyNbFile else node for node in (yield)]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    reports = (report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, []))
    ignored = [value for report in reports for name, value in report.user_properties if name == "ignored output"]
    if ignored:
        terminalreporter.write_line(f"outputs run and not compared: {len(ignored)} ({', '.join(sorted(ignored))})")
