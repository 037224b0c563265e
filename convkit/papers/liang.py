"""The tables and figures of Liang & Huang 2021 as protocols."""

from dataclasses import replace
from typing import Any

from convkit.papers.protocols import GPU, MEDIUM, NARROW, PAPERS, SMALL, Cell, Claim, Protocol, Scale, tiny

DECAYED = [75 / 120, 90 / 120, 100 / 120]  # where the learning rate falls, as parts of the 120 epochs
PLAIN = {"mean": None, "std": None}  # the networks take images in [0, 1] as they are
PUBLISHED: dict[str, Any] = {
    **{"batch_size": 128, "schedule": "steps", "milestones": DECAYED, "augmentation": "crop+flip"},
    **GPU,
}
# two of AutoAttack's four attacks, on 1024 test images, as the authors' script ran it for Table 2 (there a random draw,
# here the first)
AUTO: dict[str, Any] = {"attack": "autoattack", "attacks": ["apgd-ce", "apgd-t"], "images": 1024, "eps": 1 / 255}
FIGURE2: dict[str, Any] = {"attack": "l-autoattack-figure2", "images": 1024}
FULL = Scale(
    minutes=210,
    seeds=3,
    data="cifar10-jpeg",
    model="resnet18",
    options=PLAIN,
    plan={**PUBLISHED, "epochs": 120},
    attacks={"robust": {**AUTO, "batch_size": 512}},
    norms=True,
    paper=True,
)
NETWORKS = {"resnet18": "ResNet-18", "vgg11": "VGG-11", "senet18": "SENet-18", "regnetx_200mf": "RegNetX-200MF"}
# network -> clean and robust accuracy of each column of Table 2 that is run here
COLUMNS: list[tuple[str, str, dict[str, Any]]] = [
    ("none", "batchnorm", {}),
    ("weight decay 0.01", "weight_decay", {"weight_decay": 1e-2}),
    ("weight decay 0.001", "weight_decay", {"weight_decay": 1e-3}),
    ("clip 0.5", "norm_clip", {"bound": 0.5}),
    ("clip 1", "norm_clip", {"bound": 1.0}),
    ("l1 decay 0.01", "norm_decay_l1", {"beta": 1e-2}),
    ("l1 decay 0.001", "norm_decay_l1", {"beta": 1e-3}),
    ("l∞ decay 0.01", "norm_decay_linf", {"beta": 1e-2}),
    ("l∞ decay 0.001", "norm_decay_linf", {"beta": 1e-3}),
]
CLEAN = {
    "resnet18": (93.2, 94.3, 94.1, 93.6, 94.0, 92.5, 93.4, 93.0, 93.8),
    "vgg11": (90.4, 91.6, 91.7, 87.6, 89.1, 88.1, 91.1, 91.8, 91.1),
    "senet18": (93.1, 94.2, 93.9, 93.8, 94.2, 92.3, 93.8, 93.0, 93.6),
    "regnetx_200mf": (91.8, 93.6, 94.4, 93.9, 93.4, 93.7, 92.3, 93.4, 92.0),
}
ROBUST = {
    "resnet18": (37.0, 28.2, 33.7, 35.2, 41.7, 24.5, 37.7, 20.0, 34.7),
    "vgg11": (60.2, 56.3, 60.5, 48.8, 52.2, 56.5, 62.5, 56.9, 60.0),
    "senet18": (35.7, 23.5, 32.8, 30.5, 35.6, 33.6, 36.0, 28.6, 31.0),
    "regnetx_200mf": (None, 23.7, 30.3, 27.7, 28.8, 29.2, 31.1, 23.2, 27.7),
}


def cells(model: str) -> list[Cell]:
    """Return the cells of Table 2 for a network, with the numbers that the paper prints."""
    found = []
    for (name, method, knobs), clean, robust in zip(COLUMNS, CLEAN[model], ROBUST[model], strict=True):
        printed = {"clean": clean} | ({} if robust is None else {"robust": robust})
        found.append(Cell(name, method, {"lr": 0.01, **knobs}, printed))
    return found


STRONGEST = ("weight decay 0.01", "clip 0.5", "l1 decay 0.01", "l∞ decay 0.01")
CLAIMS = [
    *(Claim(f"{name} lowers robust accuracy", (name,), ("none",), "robust", "lower") for name in STRONGEST),
    Claim("weight decay 0.01 raises clean accuracy", ("weight decay 0.01",), ("none",), "clean", "higher"),
    Claim(
        "norm decay of 0.001, mean of l1 and l∞, raises clean accuracy",
        ("l1 decay 0.001", "l∞ decay 0.001"),
        ("none",),
        "clean",
        "higher",
    ),
]
EARLY = Cell("none, stopped early", "batchnorm", changes={"early_stop": True})
SMALL_TABLE2 = replace(
    SMALL,
    minutes=25,
    options={**NARROW, **PLAIN},
    attacks={"robust": {**AUTO, "images": 360, "eps": 0.05}},
    norms=True,
    note="Attacks of 0.05, since 1/255 is about a sixteenth of a level of gray there.",
)
for model, words in NETWORKS.items():
    options = {**PLAIN, "norm_first": True} if model == "senet18" else PLAIN  # as the authors' code has it
    scales = {
        "short": replace(FULL, minutes=10, seeds=1, model=model, options=options, plan={**PUBLISHED, "epochs": 15}),
        "full": replace(FULL, model=model, options=options),
    }
    own = cells(model)
    if model == "resnet18":
        medium = replace(
            MEDIUM,
            minutes=60,
            options={**NARROW, **PLAIN},
            attacks={"robust": {**AUTO, "images": 512, "eps": 1 / 255}},
            norms=True,
        )
        scales = {"tiny": tiny(SMALL_TABLE2), "small": SMALL_TABLE2, "medium": medium, **scales}
        own.append(EARLY)
    PAPERS.register(
        "L-table2" if model == "resnet18" else f"L-table2-{model}",
        Protocol(
            "L",
            f"Table 2, {words}",
            "clean and robust accuracy under four regularizers of the layers' norms",
            own,
            scales,
            CLAIMS,
        ),
    )

FREE_OF_ATTACKS = Cell("none", "batchnorm", {"lr": 0.1})
TRAINED = {"PGD-AT": "l-pgd-at", "ALP": "l-alp", "TRADES": "l-trades"}
SMALL_FIGURE2 = replace(
    SMALL,
    minutes=20,
    eps=0.1,
    attacks={"robust": {**FIGURE2, "images": 360, "eps": 0.1}},
    choose="robust",
    norms=True,
    note="Attacks of 0.1.",
)
PAPERS.register(
    "L-figure2",
    Protocol(
        "L",
        "Figure 2",
        "norms of the layers of adversarially trained networks",
        [
            FREE_OF_ATTACKS,
            *(Cell(n, "batchnorm", {"lr": 0.1}, changes={"objective": o}) for n, o in TRAINED.items()),
            # norms grow with the rate, too: without attacks at the other rates, to compare with
            *(Cell(f"none, lr {lr:g}", "batchnorm", {"lr": lr}, tuned={"lr": (lr,)}) for lr in (0.05, 0.1)),
        ],
        {
            "tiny": tiny(SMALL_FIGURE2),
            "small": SMALL_FIGURE2,
            "full": replace(FULL, minutes=900, attacks={"robust": FIGURE2}, eps=0.031),
        },
        [
            *(Claim(f"l∞ norms under {n} are not smaller", (n,), ("none",), "norm_inf", "not lower") for n in TRAINED),
            *(Claim(f"{n} raises robust accuracy", (n,), ("none",), "robust", "higher") for n in TRAINED),
        ],
    ),
)
PAPERS.register(
    "L-figure1", Protocol("L", "Figure 1", "the matrix of a convolution", instead="a drawing; notebook 01 draws ours")
)
PAPERS.register(
    "L-table1",
    Protocol("L", "Table 1", "seconds to compute norms of a layer", instead="`python3 -m convkit bench`"),
)
