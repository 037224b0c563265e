"""Table 5 of Ikami et al. 2021, point clouds, as a protocol."""

from dataclasses import replace
from typing import Any

from convkit.papers.protocols import GPU, SMALL, Cell, Claim, Protocol, Scale, tiny

KNOBS: dict[str, Any] = {"lr": 0.1, "weight_decay": 1e-4}  # those of Wang et al. 2019, whose settings W takes over
SMALL5 = replace(
    SMALL,
    minutes=10,
    data="solids",
    model="dgcnn",
    options={"width": 1 / 8, "k": 8, "dropout": 0.0},
    plan={"steps": 200, "batch_size": 16, "schedule": "cosine"},
    knobs={"groups": 4},
    rates=(0.03, 0.1),
    images=400,
    note="Clouds of 128 points on eight solids, equally frequent. In so few steps GroupNorm alone may still guess.",
)
FULL5 = Scale(
    minutes=1500,
    seeds=3,
    data="modelnet40",
    model="dgcnn",
    options={},
    plan={"epochs": 250, "batch_size": 32, "schedule": "cosine", "augmentation": "turn+jitter", **GPU},
    paper=True,
    note="The public files have 9,840 of the 9,843 training objects.",
)
ACCURACIES = {  # overall, mean over the classes; without noise W prints nothing
    "sphere": ("sphere", {"sigma": 0.4}, (91.4, 89.0)),
    "sphere, no noise": ("sphere_without_noise", {}, ()),
    "GN": ("groupnorm", {}, (89.7, 87.0)),
    "WS+GN": ("weight_standardization+groupnorm", {}, (91.2, 88.8)),
    "BN": ("batchnorm", {}, (91.7, 89.3)),
    "WS+BN": ("weight_standardization+batchnorm", {}, (92.0, 89.6)),
}
METRICS = ("clean", "mean class")
CELLS = {
    name: Cell(name, method, {**KNOBS, **own}, dict(zip(METRICS, printed, strict=True)) if printed else {})
    for name, (method, own, printed) in ACCURACIES.items()
}
TABLE5 = Protocol(
    "W",
    "Table 5, ModelNet40",
    "test accuracy of five normalizations on point clouds, over all objects and as a mean over the classes",
    [*CELLS.values()],
    {"tiny": tiny(SMALL5), "small": SMALL5, "full": FULL5},
    [
        *(
            Claim(
                f"the sphere against {name}",
                ("sphere",),
                (name,),
                "clean",
                "higher" if CELLS["sphere"].printed["clean"] > cell.printed["clean"] else "lower",
            )
            for name, cell in CELLS.items()
            if cell.printed and name != "sphere"
        ),
        Claim("the sphere against GN, mean over the classes", ("sphere",), ("GN",), "mean class", "higher"),
    ],
)
