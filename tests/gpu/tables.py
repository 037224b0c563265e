"""Makes the result files of a run of ``slot/slot.sh``: ``python3 tests/gpu/tables.py FOLDER`` from the root.

Writes ``notebooks/results/bench-cuda.json`` from eigen and calls, and ``training-cuda.json`` from train. Stored
timings that this run did not repeat stay, if they were made with the same card and versions.
"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results"
COMMAND = "OUT=FOLDER bash tests/gpu/slot/slot.sh && python3 tests/gpu/tables.py FOLDER"


def lines(path):
    """The entries of a file of JSON lines, with numbers to four digits, which is more than a timing has."""
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in e.items()} for e in entries]


def versions(path):
    """What ran: the first two lines of ``env.txt``."""
    card, rest = path.read_text().splitlines()[:2]
    device, driver, memory = card.split(", ")
    python, torch, cuda, numpy, scipy = rest.split()[:5]
    return dict(
        device=device, driver=driver, memory=memory, python=python, torch=torch, cuda=cuda, numpy=numpy, scipy=scipy
    )


def asked(entry):
    """What an entry answers."""
    return tuple(entry.get(key) for key in ("question", "case", "name"))


def kept(name, new):
    """The stored entries that are not measured anew."""
    stored = json.loads((RESULTS / name).read_text())
    again = {asked(entry) for entry in new}
    old = [entry for entry in stored["results"] if asked(entry) not in again]
    if old and stored["versions"] != head["versions"]:
        raise SystemExit(
            f"{name} was measured with {stored['versions']}, this run with {head['versions']}: run all parts"
        )
    return old


def write(name, **content):
    (RESULTS / name).write_text(json.dumps(content, indent=1) + "\n")


folder = Path(sys.argv[1])
head = {"versions": versions(folder / "env.txt"), "command": COMMAND}
shared = {"unit": "milliseconds, the median of some rounds after one call; scale: times this for the whole batch"}
measured = lines(folder / "eigen.jsonl") + lines(folder / "calls.jsonl")
if measured:
    write("bench-cuda.json", **head, **shared, results=kept("bench-cuda.json", measured) + measured)
data = {"data": "uniform noise, 50,000 images of 3 x 32 x 32, 10 classes; ResNet-18, 128 images a step"}
if (folder / "train.jsonl").exists():
    write("training-cuda.json", **head, **data, results=lines(folder / "train.jsonl"))
