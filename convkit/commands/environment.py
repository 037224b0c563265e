"""The environment .venv of a clone, made from pyproject.toml by the standard library alone."""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"  # the versions that .venv gets; a copy without the file has no pins
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "convkit-stamp.txt"
UNFINISHED = "the installation was interrupted\n"
THEIRS = "made by somebody else, whose versions stay\n"
VERSION = "{}.{}".format(*sys.version_info)
DRIVERS = ("/proc/driver/nvidia/version", "/dev/dxg")  # where Linux has NVIDIA's driver, and where Windows lends it one
NO_NETWORK = r"connection broken|ConnectionError|HTTPS?ConnectionPool|name resolution|SSLError|timed out"


class SentenceError(Exception):
    """A failure with a message of one sentence that says what to do."""


class PinError(SentenceError):
    """pip finds no versions that satisfy both pyproject.toml and the constraints."""


def explain(output: str) -> str:
    """Return a sentence that explains the output of a failed venv or pip, or an error of the system."""
    if re.search(r"Errno 28\b|WinError 112\b|No space left|[Qq]uota exceeded", output):
        return (
            f"the disk is full: make 3 GB of room for {ROOT} (and for temporary files in {tempfile.gettempdir()}), "
            "then type the command again."
        )
    if re.search(r"Errno 13\b|Errno 30\b|WinError 5\b|Permission denied|Read-only file system", output):
        return f"{VENV} cannot be written: clone into a folder of your own, then type the command again."
    if re.search(NO_NETWORK, output):
        return "pip cannot reach the package index: check the network or the proxy, then type the command again."
    if "editable mode currently requires" in output:
        return f"the pip in .venv is too old: type `{PYTHON} -m pip install --upgrade pip`, then the command again."
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"pip finds no {missing[1]} for Python {VERSION} on this system: torch comes for 64-bit Python 3.11 to 3.14"
            " on Linux, Windows (x86-64) and Macs with Apple silicon; with one of these, type the command again."
        )
    last = [line.strip() for line in output.splitlines() if line.strip()][-12:]
    return "the installation failed: mend what these last lines name, then type the command again.\n" + "\n".join(last)


def run_step(command: list[object]) -> None:
    """Run one command of the set-up and show its latest line; raise ``SentenceError`` if it fails."""
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 0
    lines: list[str] = []
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if width:
                print("\r" + line.strip()[:width].ljust(width), end="", flush=True)
    if width:
        print("\r" + " " * width, end="\r", flush=True)
    if process.returncode:
        if shutil.disk_usage(ROOT).free < 2**24:
            lines.append("No space left")  # ensurepip fails without saying why
        output = "".join(lines)
        pinned = "The user requested (constraint)" in output and not re.search(NO_NETWORK, output)
        raise (PinError if pinned else SentenceError)(explain(output))


def stamp(theirs: bool = False) -> str:
    """Return the stamp of an up-to-date .venv: a hash of the requirements, the folder, the Python, and whether
    ``theirs``.
    """
    requirements = hashlib.sha256(PROJECT.read_bytes())
    if CONSTRAINTS.exists() and not theirs:
        requirements.update(CONSTRAINTS.read_bytes())
    return f"{requirements.hexdigest()}\n{ROOT}\n{os.path.realpath(PYTHON)}\n" + THEIRS * theirs


def read_stamp() -> str:
    """Return the stamp of .venv; ``""`` if it has none."""
    return STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""


def environment_stands() -> bool:
    """Return whether .venv is complete, up to date and in this folder, and its Python still exists."""
    return PYTHON.exists() and read_stamp() in (stamp(), stamp(theirs=True))


def make_venv() -> None:
    """Make .venv with pip alone, marked as unfinished; raise ``SentenceError`` if this Python lacks venv."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise SentenceError(
            f"this Python lacks {' and '.join(missing)}: install it, on Debian and Ubuntu with "
            f"`sudo apt install python{VERSION}-venv`, then type the command again."
        )
    VENV.mkdir(exist_ok=True)
    STAMP.write_text(UNFINISHED, encoding="utf-8")
    print(
        f"Installing torch, JupyterLab and the rest into .venv (Python {VERSION}), once: "
        "a minute or more and 2 GB of disk, several more where torch brings CUDA ...",
        flush=True,
    )
    # the resolved name, python3.11 and not python3, so that .venv outlives a change of the system's default
    run_step([sys.executable if os.name == "nt" else os.path.realpath(sys.executable), "-m", "venv", VENV])


def refuse_older_torch() -> None:
    """Raise ``SentenceError`` if somebody else's .venv has a torch that pip would replace."""
    needed = re.search(r'"torch>=(\d+)\.(\d+)"', PROJECT.read_text(encoding="utf-8"))
    for place in ("lib/*/site-packages", "Lib/site-packages"):
        for path in VENV.glob(f"{place}/torch-*.dist-info"):
            found = re.match(r"torch-(\d+)\.(\d+)", path.name)
            if needed and found and tuple(map(int, found.groups())) < tuple(map(int, needed.groups())):
                raise SentenceError(
                    f"torch {needed[1]}.{needed[2]} or newer is needed, and .venv, which you made yourself, has "
                    f"{found[1]}.{found[2]}: update torch there or move .venv away, then type the command again."
                )


def lacks_nvidia() -> bool:
    """Return whether this is Linux without an NVIDIA driver, where a torch with CUDA would be of no use."""
    return sys.platform == "linux" and not any(map(os.path.exists, DRIVERS))


def uv_install(kit: list[object]) -> bool:
    """Let uv install the kit with a torch without CUDA, where there is no NVIDIA driver; return whether it did."""
    if not lacks_nvidia() or {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"} & set(os.environ):  # the user has chosen a torch
        return False
    uv = shutil.which("uv")
    if uv is None:
        if not any(VENV.glob("lib/*/site-packages/torch")):
            print(
                "There is no NVIDIA driver, and the torch of most package indexes brings 2.7 GB of CUDA with it: for "
                "one without, stop here, type `pip install uv`, then the command again.",
                flush=True,
            )
        return False
    try:
        run_step([uv, "pip", "install", "--python", PYTHON, "--torch-backend=auto", *kit])
    except SentenceError as error:
        print(f"uv could not take a torch without CUDA, so pip installs: {str(error).splitlines()[-1]}", flush=True)
        return False
    return True


def pip_install(theirs: bool) -> None:
    """Install the kit and its requirements in .venv, in the tested versions where that is possible."""
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    kit: list[object] = ["--editable", f"{ROOT}[test]"]
    if theirs:
        refuse_older_torch()
    if theirs or not CONSTRAINTS.exists():
        run_step([*pip, *kit])
        return
    pinned: list[object] = ["--constraint", CONSTRAINTS, *kit]
    if uv_install(pinned):
        return
    try:
        run_step([*pip, *pinned])
    except PinError:
        print(
            "pip cannot have the versions of .ci/constraints.txt here: installing the newest that it finds. "
            "Pictures and last digits in the notebooks may then differ from the stored ones.",
            flush=True,
        )
        run_step([*pip, *kit])


def install(before: str, theirs: bool = False) -> None:
    """Install the requirements; if pip fails, restore the stamp ``before``."""
    if before and not theirs:
        STAMP.write_text(UNFINISHED, encoding="utf-8")
    try:
        pip_install(theirs)
    except SentenceError:
        if before and not theirs:
            STAMP.write_text(before, encoding="utf-8")
        raise


def make_environment() -> None:
    """Make .venv or update it; delete only a .venv that this command made."""
    if environment_stands():
        return
    try:
        with one_at_a_time():
            if environment_stands():  # another terminal was faster
                return
            old = read_stamp()
            theirs = PYTHON.exists() and (not old or old.endswith(THEIRS))
            ours = old and not old.endswith(THEIRS)
            if ours and (not PYTHON.exists() or old.splitlines()[1:] != stamp().splitlines()[1:]):
                print("The environment in .venv was interrupted or moved, or lost its Python: removing it.", flush=True)
                shutil.rmtree(VENV)
            if PYTHON.exists():
                print("Bringing the environment in .venv up to date ...", flush=True)
                install(before=old, theirs=theirs)
            else:
                make_venv()
                install(before=UNFINISHED)
            STAMP.write_text(stamp(theirs), encoding="utf-8")
    except OSError as error:
        raise SentenceError(explain(str(error))) from None


@contextlib.contextmanager
def one_at_a_time():
    """Context manager that lets a second terminal wait while the first makes the environment (not on Windows)."""
    if os.name == "nt":
        yield
        return
    import fcntl

    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another convkit command is making the environment: waiting for it ...", flush=True)
        fcntl.flock(folder, fcntl.LOCK_EX)
    except OSError:
        pass  # some network file systems cannot lock
    try:
        yield
    finally:
        os.close(folder)


def in_venv() -> bool:
    """Return whether this Python is that of .venv."""
    return os.path.realpath(sys.prefix) == os.path.realpath(VENV)


def in_own_environment() -> bool:
    """Return whether the user installed the kit in this Python's environment (conda, or a venv of theirs)."""
    installed = any(Path(sysconfig.get_path("purelib")).glob("convkit-*.dist-info"))
    return installed and not in_venv() and all(importlib.util.find_spec(name) for name in ("jupyterlab", "nbval"))
