"""Makes the result files of a run of ``slot/slot.sh``: ``python3 tests/gpu/tables.py FOLDER`` from the root.

Writes ``notebooks/results/bench-cuda.json`` from eigen and calls, and ``training-cuda.json`` from train.
"""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results"
COMMAND = "OUT=FOLDER bash tests/gpu/slot/slot.sh && python3 tests/gpu/tables.py FOLDER"


def lines(path):
    """The entries of a file of JSON lines, with numbers to four digits, which is more than a timing has."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in e.items()} for e in entries]


def versions(path):
    """What ran: the first two lines of ``env.txt``."""
    card, rest = path.read_text().splitlines()[:2]
    device, driver, memory = card.split(", ")
    python, torch, cuda, numpy, scipy = rest.split()[:5]
    return dict(
        device=device, driver=driver, memory=memory, python=python, torch=torch, cuda=cuda, numpy=numpy, scipy=scipy
    )


def write(name, **content):
    (RESULTS / name).write_text(json.dumps(content, indent=1) + "\n")


folder = Path(sys.argv[1])
head = {"versions": versions(folder / "env.txt"), "command": COMMAND}
shared = {"unit": "milliseconds, the median of some rounds after one call; scale: times this for the whole batch"}
write("bench-cuda.json", **head, **shared, results=lines(folder / "eigen.jsonl") + lines(folder / "calls.jsonl"))
data = {"data": "uniform noise, 50,000 images of 3 x 32 x 32, 10 classes; ResNet-18, 128 images a step"}
write("training-cuda.json", **head, **data, results=lines(folder / "train.jsonl"))
