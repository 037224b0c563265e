"""The commands of a clone, `python3 -m convkit lab | test | build | ...`, in their own environment.

Where convkit is installed without its repository, those of ``ANYWHERE`` run in the environment that it is in.
Only the standard library is imported until the environment is complete. This file parses and runs to its first check on
Python 3.6, so that an old Python is refused in one sentence.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (in a clone no installer has checked the version)
    sys.exit(
        "convkit: Python 3.11 or newer is needed and this is {}.{}: install one and call it by its name, "
        "as in `python3.12 -m convkit lab` (Windows: `py -3.12 -m convkit lab`).".format(*sys.version_info)
    )

from convkit.commands.environment import (
    PROJECT,
    PYTHON,
    ROOT,
    SentenceError,
    in_own_environment,
    in_venv,
    make_environment,
)
from convkit.loading import MissingExtraError

USAGE = """usage: python3 -m convkit COMMAND [...]      (Windows: py -m convkit COMMAND [...])

  lab          check this machine with the first notebook, then open JupyterLab on it
  test         run tests and notebooks, and compare the notebooks' outputs (`test --quick`, `test --all`)
  build        run notebooks anew and save their outputs (all of them, or those named)
  book         write all of it as pages for a browser, whose panels need no Python (`book DIR`)
  bench        measure the kit against what people use today (`bench --quick`, `bench --help`)
  papers       run the papers' tables and figures in small, by name (`papers` lists them, `papers --help`)
  train        train one network of such a table (`torchrun --nproc-per-node 8 -m convkit train KEY`: on several GPUs)
  audit        write a page about the layers of a network in a file (`audit --help`)
  notebooks    copy the notebooks and the results that they read to a folder (`notebooks DIR`)
  handout      the same for a class: without solutions and stored pictures (`handout DIR`)
  setup        only make or refresh the environment in .venv; the other commands do so by themselves

What follows `lab` goes to JupyterLab (`lab --port 9000`), what follows `test` to pytest
(`test -k spectra`, `test tests/test_norms.py`). `test --pretend-gpu` runs the tests that take a GPU, on a pretended one
where there is none.
Installed by pip, without the repository, convkit has `bench`, `papers`, `train`, `audit`, `notebooks` and `handout`
alone, also as `convkit COMMAND`.
"""

CODESPACE = ("CODESPACE_NAME", "GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN")  # set on GitHub's machines
FIRST = ROOT / "notebooks" / "00_start_here.ipynb"


def hand_over(command: list[str]) -> int:
    """Replace this process by another program, which then owns the terminal and Ctrl-C; return only on Windows."""
    sys.stdout.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    with subprocess.Popen(command) as process:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the program has received it too
                return process.wait()


def run_aside(work: Callable[[], object]) -> None:
    """Run `work` in a thread, so that Ctrl-C ends it without tracebacks of nbclient."""
    failures: list[BaseException] = []

    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # in slices: Windows answers no Ctrl-C within one
    except KeyboardInterrupt:
        print("\nconvkit: stopped.", file=sys.stderr, flush=True)
        os._exit(130)  # without a word from the thread; its kernel sees that it is alone, and ends
    if failures:
        raise failures[0]


def run_first_notebook() -> None:
    """Run the first notebook and print the claims that it checked; raise ``SentenceError`` if it fails."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    from convkit.teaching.notebooks import execute, read_notebook

    if not FIRST.exists():
        raise SentenceError(f"notebooks/{FIRST.name} is missing: clone the repository anew.")
    print(f"Checking this machine by running notebooks/{FIRST.name} ...", flush=True)
    notebook, failure = read_notebook(FIRST), ""
    try:
        run_aside(lambda: execute(notebook, FIRST.parent))
    except CellExecutionError as error:
        failure = f"{error.ename}: {error.evalue}"
    except (CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel died, or did not start
        failure = str(error) or repr(error)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for line in "".join(output.get("text", "") for output in outputs).splitlines():
        if line.startswith("✓"):
            print("  " + line, flush=True)
    if failure:
        raise SentenceError(f"notebooks/{FIRST.name} fails on this machine: {failure.splitlines()[0]}")


def can_open_browser() -> bool:
    """Return whether a person sits at the terminal and a browser can show JupyterLab."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ):
        return False  # at most a text browser
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def lab_command(extra: list[str], browser: bool) -> list[str]:
    """Return the command that starts JupyterLab on the first notebook; the user's arguments come last."""
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={ROOT}"]
    command += [f"--LabApp.default_url=/lab/tree/notebooks/{FIRST.name}"]
    command += ["--log-level=WARN", "--LabApp.log_level=WARN", "-y"]  # -y: one Ctrl-C ends it, without a question
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if os.name != "nt" and os.geteuid() == 0 else []
    name, domain = (os.environ.get(key, "") for key in CODESPACE)
    if name and domain:  # the browser is elsewhere: its pages come from an address of the codespace
        command.append(f"--ServerApp.allow_origin_pat=https://{re.escape(name)}-[0-9]+\\.{re.escape(domain)}$")
    return command + extra


def lab(extra: list[str]) -> int:
    """Run the first notebook as a check, then start JupyterLab."""
    run_first_notebook()
    # a notebook's `!python` and JupyterLab's terminals then find this environment first
    os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    browser = can_open_browser()
    print(f"JupyterLab opens {'in your browser' if browser else 'at the address below'}; Ctrl-C here ends it.")
    return hand_over(lab_command(extra, browser))


def test(extra: list[str]) -> int:
    """Run pytest on tests and notebooks."""
    from convkit.commands.testing import prepared_command

    command = prepared_command(extra)
    return hand_over(command) if command else 0


def build(extra: list[str]) -> int:
    """Run the named notebooks, or all in order, and write their outputs."""
    from convkit.teaching.notebooks import build as build_outputs

    paths = [Path(name) for name in extra] or sorted(FIRST.parent.glob("*.ipynb"))
    for path in paths:
        if not path.is_file():
            raise SentenceError(f"there is no notebook {path}: name one as in `build notebooks/{FIRST.name}`.")
    run_aside(lambda: build_outputs(paths))
    return 0


def book(extra: list[str]) -> int:
    """Write the book as pages for a browser, to the folder that the user has named or to ``.book/made/html``."""
    from convkit.teaching.book import MADE, write_book

    if len(extra) > 1 or any(word.startswith("-") for word in extra):
        raise SentenceError(f"`book` takes one folder, as in `book site`, got {' '.join(extra)!r}.")
    target = Path(extra[0] if extra else MADE / "html").resolve()
    try:
        write_book(target, sorted(FIRST.parent.glob("*.ipynb")))
    except (OSError, RuntimeError) as error:
        raise SentenceError(str(error)) from None
    print(f"The book is in {target}: open {target / 'index.html'} in a browser.")
    return 0


def bench(extra: list[str]) -> int:
    """Run the benchmark with its own options."""
    from convkit.bench.timing import main as run

    return run(extra)


def papers(extra: list[str]) -> int:
    """Run experiments of the papers by name, or list them."""
    from convkit.papers.command import main as run

    return run(extra)


def train(extra: list[str]) -> int:
    """Train one network of a paper's table, alone or as one of the processes of torchrun."""
    from convkit.papers.train import main as run

    return run(extra)


def audit(extra: list[str]) -> int:
    """Print and write what the layers of a network in a file do."""
    from convkit.methods.report import main as run

    return run(extra)


def notebooks(extra: list[str]) -> int:
    """Copy the notebooks to a folder."""
    from convkit.teaching.copies import copy_notebooks

    return _written("notebooks", extra, copy_notebooks)


def handout(extra: list[str]) -> int:
    """Copy the notebooks to a folder for a class, without solutions."""
    from convkit.teaching.copies import write_handout

    return _written("handout", extra, write_handout)


def _written(command: str, extra: list[str], copy: Callable[[str], list[Path]]) -> int:
    """Copy notebooks to the folder that the user has named, and say where they are."""
    if len(extra) != 1:
        raise SentenceError(f"`{command}` needs the folder that it writes to, as in `convkit {command} course`.")
    try:
        copied = copy(extra[0])
    except OSError as error:
        raise SentenceError(str(error)) from None
    print(f"{len(copied)} notebooks are in {extra[0]}; open them by `jupyter lab {extra[0]}`.")
    return 0


def setup(extra: list[str]) -> int:
    """Say that the environment is complete; `main` has made it."""
    print("The environment stands.")
    return 0


OWN_HELP = {"bench", "papers", "experiments", "train", "audit"}  # these answer --help themselves
ANYWHERE = {*OWN_HELP, "notebooks", "handout"}  # these need no repository, and read paths from where they are typed
COMMANDS = {
    "lab": lab,
    "test": test,
    "build": build,
    "book": book,
    "bench": bench,
    "papers": papers,
    "experiments": papers,
    "train": train,
    "audit": audit,
    "notebooks": notebooks,
    "handout": handout,
    "setup": setup,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the named command, in .venv if this is a clone; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or ({"-h", "--help"} & set(arguments) and arguments[0] not in OWN_HELP):
        print(USAGE, end="")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"convkit: there is no command {arguments[0]!r}.\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console without a check mark shows "?" and goes on
    try:
        if not PROJECT.exists():
            if arguments[0] not in ANYWHERE:
                raise SentenceError(
                    f"`{arguments[0]}` needs the repository, and this copy of convkit was installed without it: "
                    "clone the repository and type the command there, or take the notebooks by `convkit notebooks DIR`."
                )
            return COMMANDS[arguments[0]](arguments[1:])
        if arguments[0] not in {*ANYWHERE, "book"}:
            os.chdir(ROOT)
        if not in_own_environment():
            make_environment()
            if not in_venv():
                return hand_over([str(PYTHON), "-m", "convkit", *arguments])
        return COMMANDS[arguments[0]](arguments[1:])
    except (SentenceError, MissingExtraError) as error:
        print(f"convkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nconvkit: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
