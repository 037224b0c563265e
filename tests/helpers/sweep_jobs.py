"""Jobs of sweeps for other processes, which need not load torch for them."""

import os
import signal
import time
from pathlib import Path

from convkit.training.sweeps import sweep

NAMES = [f"job {number}" for number in range(18)]


def tick(name, folder):
    with (Path(folder) / name).open("a") as file:
        file.write("x")
    time.sleep(0.03)
    return name.upper()


def launch(folder):
    """Run the sweep in the foreground, as a command does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
    jobs = {name: {"name": name, "folder": folder} for name in NAMES}
    sweep(tick, jobs, Path(folder) / "results", devices=["cpu", "cpu"])


def leave(marks, times=0, result=0):
    """Note the call in a file; end this process suddenly at the first calls."""
    with Path(marks).open("a") as file:
        file.write("x")
    if len(Path(marks).read_text()) <= times:
        os._exit(3)
    return result


def quotient(a, b):
    return a // b
