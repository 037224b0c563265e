"""The distance between the nearest images of different classes, a limit of Theorem 2 of Liang & Huang 2021."""

from collections.abc import Mapping, Sequence
from typing import Any

from convkit.attacks.checks import Norm
from convkit.papers.runs import Runs, experiment, load_part, short
from convkit.robustness.constructions import separation

NORMS = ("inf", "2")
PARTS = [  # the training part of cifar10-jpeg takes ten minutes in each norm, and is left out
    *(("digits", part) for part in ("training", "test")),
    *(("shapes", part) for part in ("training", "test")),
    *(("mnist", part) for part in ("training", "test")),
    ("cifar10-jpeg", "test"),
]


def job(name: str, part: str, norm: Norm, folder: str | None, device: str = "cpu") -> dict[str, Any]:
    """Return the smallest distance between two images of different classes in a part of the data, and which two."""
    data = load_part(name, folder=folder, device=device)
    images, labels = (
        (data.images, data.labels) if part == "training" else (data.test_images, data.test_labels)
    )  # bytes are read as multiples of 1/255
    found = separation(images, labels, norm)
    return {
        "images": len(labels),
        "distance": short(found.distance),
        "pair": list(found.pair),
        "classes": [data.class_names[int(labels[i])] for i in found.pair],
    }


def show(results: Mapping[str, Any]) -> str:
    """Return a line of text per part: half the smallest distance in both norms, an upper limit of epsilon."""
    lines = [f"{'data':<24}{'images':>8}{'epsilon below, l-infinity':>28}{'2-norm':>10}"]
    for row in results["rows"]:
        half = [row[norm]["distance"] / 2 for norm in NORMS]
        lines.append(f"{row['data'] + ', ' + row['part']:<24}{row['images']:>8}{half[0]:>28.3f}{half[1]:>10.3f}")
    return "\n".join(lines)


@experiment(
    "separation",
    "the nearest images of different classes in digits, shapes, MNIST and cifar10-jpeg",
    3,
    show,
    needs_folder=True,
)
def run(runs: Runs, parts: Sequence[tuple[str, str]] = PARTS) -> dict[str, Any]:
    """Return the table, as JSON holds it; the folder has mnist and cifar-10-batches-bin."""
    jobs = {
        f"{name} {part} {norm}": {"name": name, "part": part, "norm": norm, "folder": runs.folder}
        for name, part in parts
        for norm in NORMS
    }
    done = runs.sweep(job, jobs)
    rows = []
    for name, part in parts:
        both = {norm: done[f"{name} {part} {norm}"] for norm in NORMS}
        distances = {norm: {key: both[norm][key] for key in ("distance", "pair", "classes")} for norm in NORMS}
        rows.append({"data": name, "part": part, "images": both["2"]["images"], **distances})
    return {"rows": rows}
