"""The command that runs all tests: pytest on tests and notebooks, and a pretended GPU where there is none."""

import hashlib
import os
import shutil
import subprocess
import sys

from convkit.commands.environment import ROOT

FIRST = "notebooks/00_start_here.ipynb"
PRETENDED = ROOT / "tests" / "gpu" / "pretended"  # a GPU on paper, compiled for the torch that is installed
CELL_SECONDS = 300  # no cell takes a minute; a slow or busy machine gets five
MOST_WORKERS = 8  # each pytest worker loads torch: more of them cost memory and save no time


def missing_gpu() -> str:
    """Return why there is no GPU to test on, not even a pretended one, or ``""``; compile that one where needed."""
    import torch

    if torch.cuda.is_available():
        return ""
    if not sys.platform.startswith("linux") or torch.version.cuda or torch.version.hip:
        return "a pretended GPU needs Linux and a CPU build of torch"
    script, built = PRETENDED / "build.sh", PRETENDED / "out" / "stamp.txt"
    source = hashlib.sha256(b"".join(path.read_bytes() for path in (script, PRETENDED / "fakecuda.cpp"))).hexdigest()
    stamp = f"{source}\n{sys.executable}\n{sys.version}\ntorch {torch.__version__} {torch.version.git_version}\n"
    if built.exists() and built.read_text(encoding="utf-8") == stamp:
        return ""
    if shutil.which("g++") is None:
        return "a pretended GPU needs the compiler g++, which is not there"
    print("Compiling the pretended GPU for this torch, once: half a minute ...", flush=True)
    built.parent.mkdir(exist_ok=True)
    built.unlink(missing_ok=True)
    log = built.with_name("build.log")
    with log.open("wb") as output:
        done = subprocess.run(["sh", str(script), sys.executable], stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        return f"the pretended GPU does not compile with this torch, as {log} shows"
    built.write_text(stamp, encoding="utf-8")
    return ""


def test_command(extra: list[str]) -> list[str]:
    """Return the pytest command for tests and notebooks.

    `--quick` leaves out the browser, all notebooks but the first, and tests marked slow; `--all` includes those marked
    full. `--pretend-gpu` runs what needs a GPU and nothing else. If `extra` names paths, pytest runs these alone.
    """
    quick, everything, gpu = (option in extra for option in ("--quick", "--all", "--pretend-gpu"))
    extra = [argument for argument in extra if argument not in ("--quick", "--all", "--pretend-gpu")]
    paths = "tests" if gpu else f"tests {FIRST}" if quick else "tests notebooks"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = [sys.executable, "-m", "pytest", "-o", f"testpaths={paths}"]
    command += ["-p", "tests.gpu.pretended.fakecuda_quick" if gpu else "tests.notebooks.plugin"]
    command += ["--ignore=tests/browser"] if quick or gpu else []
    command += ["-m", "not slow and not full"] if quick else []
    command += ["-m", "not full"] if not (quick or everything) else []
    command += [] if gpu else ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}"]
    # loadfile: the cells of a notebook share a kernel, so one worker must run them all; in their order: the browser's
    # files take longest and come first
    workers = ["-n", str(min(cores, MOST_WORKERS)), "--dist", "loadfile", "--no-loadscope-reorder"]
    # no new worker in place of one that a test has ended: it would begin with that test, again and again
    workers.append("--max-worker-restart=0")
    return [*command, *workers, *extra]


def prepared_command(extra: list[str]) -> list[str]:
    """Set and compile what the tests need; return the command for them, or ``[]`` where there is nothing to run on.

    Each worker gets one thread, since a worker per core already uses the whole machine.
    """
    import matplotlib.font_manager  # noqa: F401  builds its cache now: the message must not land in a notebook

    missing = missing_gpu() if "--pretend-gpu" in extra else ""
    if missing:
        print(f"No test ran on a GPU: {missing}.", flush=True)
        return []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    return test_command(extra)
