"""The tables and figures of Liu et al. 2021 as protocols."""

from dataclasses import replace
from typing import Any

from convkit.papers.protocols import ALL, GPU, MEDIUM, PAPERS, SMALL, Cell, Claim, Protocol, Scale, tiny

PLAN: dict[str, Any] = {
    **{"epochs": 120, "batch_size": 128, "schedule": "steps", "milestones": [1 / 3, 2 / 3]},
    **{"augmentation": "crop+flip", "decay_gains": True, **GPU},
}
XAVIER = {"start": "xavier"}
FULL = Scale(minutes=250, seeds=4, data="cifar10-jpeg", model="resnet18", options=XAVIER, plan=PLAN, paper=True)
OWN = {"lr": 0.1, "weight_decay": 1e-4}
SLOW = {"lr": 0.01, "weight_decay": 1e-4}  # ONI, which diverges at 0.1
PENALTIES = (1e-3, 1e-2, 1e-1)  # of OCNN, tried like learning rates


def rivals(batchnorm: bool, printed: dict[str, dict[str, float]] | None = None) -> list[Cell]:
    """Return the cells of ConvNorm and the methods that the paper compares with it."""
    printed = printed or {}
    bn = {"batchnorm": batchnorm}
    found = [
        Cell("ConvNorm", "convnorm+batchnorm" if batchnorm else "convnorm", OWN),
        Cell("SN", "spectral_norm", {**OWN, **bn}),
        Cell("ONI", "oni", {**SLOW, **bn}),
        Cell("OCNN", "ocnn", {**OWN, **bn, "beta": 1e-3}, tuned={"beta": PENALTIES}),
    ]
    found += [Cell("BN", "batchnorm", OWN)] if batchnorm else []
    return [replace(cell, printed=printed.get(cell.name, {})) for cell in found]


def against(others: list[Cell], words: str, metric: str, printed: Any) -> list[Claim]:
    """Return the claims that ConvNorm is higher, or lower, than each of the others."""
    return [
        Claim(f"{words}: ConvNorm against {cell.name}", ("ConvNorm",), (cell.name,), metric, printed)
        for cell in others
        if cell.name not in ("ConvNorm", "BN, stopped early")
    ]


# ---- Table 1 ---------------------------------------------------------------------------------------------------------
TABLE1 = {
    "SN": {"clean": 82.52, "FGSM": 52.34, "PGD-10": 45.68, "PGD-20": 44.47},
    "BN": {"clean": 82.13, "FGSM": 51.72, "PGD-10": 45.31, "PGD-20": 44.04},
    "ONI": {"clean": 80.70, "FGSM": 48.33, "PGD-10": 42.30, "PGD-20": 41.08},
    "OCNN": {"clean": 82.90, "FGSM": 52.49, "PGD-10": 45.74, "PGD-20": 44.53},
    "ConvNorm": {"clean": 83.23, "FGSM": 52.87, "PGD-10": 46.12, "PGD-20": 44.75},
}


def attacks(eps: float, images: int) -> dict[str, dict[str, Any]]:
    """Return the attacks of Table 1, as the paper ran them."""
    given = {"images": images, "eps": eps}
    return {name: {"attack": f"c-{name.lower()}", **given} for name in ("FGSM", "PGD-10", "PGD-20")}


FREE = replace(
    ALL,
    minutes=40,
    plan={**SMALL.plan, "steps": 480},
    objective="c-free",
    eps=0.1,
    attacks=attacks(0.1, 360),
    choose="PGD-10",
    note="Attacks and training with 0.1 in place of 8/255; each batch is seen four times.",
)
PAPERS.register(
    "C-table1",
    Protocol(
        "C",
        "Table 1",
        "accuracy under attacks after free adversarial training",
        rivals(True, TABLE1),
        {
            "tiny": tiny(FREE),
            "small": FREE,
            "full": replace(FULL, minutes=700, objective="c-free", attacks=attacks(8 / 255, 10_000)),
        },
        [
            *against(rivals(True), "higher accuracy under PGD-20", "PGD-20", "higher"),
            Claim("higher clean accuracy: ConvNorm against BN", ("ConvNorm",), ("BN",), "clean", "higher"),
        ],
    ),
)

# ---- Table 2 ---------------------------------------------------------------------------------------------------------
QUERIES = {"SN": 2519.32, "ONI": 2817.09, "OCNN": 2892.81, "ConvNorm": 2966.16}
SUCCESS = {"SN": 60.60, "ONI": 55.90, "OCNN": 54.50, "ConvNorm": 53.50}
TABLE2 = {name: {"SimBA": 100 - SUCCESS[name], "queries of SimBA": QUERIES[name]} for name in QUERIES}
SIMBA = replace(
    ALL,
    minutes=30,
    plan={**SMALL.plan, "steps": 600},
    attacks={"SimBA": {"attack": "simba", "images": 200, "step": 0.2}},
)
PAPERS.register(
    "C-table2",
    Protocol(
        "C",
        "Table 2",
        "SimBA on networks without BatchNorm",
        rivals(False, TABLE2),
        {
            "tiny": tiny(SIMBA),
            "small": SIMBA,
            "full": replace(FULL, seeds=3, attacks={"SimBA": {"attack": "simba", "images": 1000, "step": 0.2}}),
        },
        [
            *against(rivals(False), "more images survive", "SimBA", "higher"),
            *against(rivals(False), "more queries", "queries of SimBA", "higher"),
        ],
    ),
)

# ---- Figure 3 --------------------------------------------------------------------------------------------------------
STOPPED = Cell("BN, stopped early", "batchnorm", OWN, changes={"early_stop": True})
for rate in (0.2, 0.4, 0.6, 0.8):
    noise = replace(ALL, noise=rate, minutes=20)
    scales = {"small": noise, "full": replace(FULL, noise=rate, seeds=3)}
    if rate == 0.8:
        medium = replace(MEDIUM, noise=rate)
        scales = {"tiny": tiny(noise), "small": noise, "medium": medium, "full": scales["full"]}
    PAPERS.register(
        f"C-figure3-noise{100 * rate:g}",
        Protocol(
            "C",
            f"Figure 3, left, {100 * rate:g} %",
            "test accuracy with a part of the labels replaced",
            [*rivals(True), STOPPED],
            scales,
            against(rivals(True), f"{100 * rate:g} % of the labels replaced", "clean", "higher"),
        ),
    )
SCARCE = replace(SMALL, images=144, minutes=15)
PAPERS.register(
    "C-figure3-scarce",
    Protocol(
        "C",
        "Figure 3, right",
        "test accuracy with a tenth of the training images",
        [*rivals(True), STOPPED],
        {"tiny": tiny(SCARCE), "small": SCARCE, "full": replace(FULL, images=5000, seeds=3)},
        against(rivals(True), "a tenth of the images", "clean", "not lower"),
    ),
)

# ---- Figure 4 --------------------------------------------------------------------------------------------------------
EARLY = replace(
    ALL,
    plan={"steps": 320, "batch_size": 64, "schedule": "constant"},
    looks=(0.125, 0.25, 0.5),
    choose="clean",
)
for model, words in {"resnet18": "middle, ResNet-18", "vgg16": "left, VGG-16"}.items():
    constant = {**PLAN, "epochs": 20, "schedule": "constant", "augmentation": "none"}
    scales = {"full": replace(FULL, model=model, plan=constant, minutes=30, looks=(0.125, 0.25, 0.5))}
    if model == "resnet18":
        scales = {"tiny": tiny(EARLY), "small": EARLY, **scales}
    PAPERS.register(
        f"C-figure4-{model}",
        Protocol(
            "C",
            f"Figure 4, {words}",
            "speed of convergence, without augmentation, weight decay or schedule",
            [
                Cell("ConvNorm", "convnorm+batchnorm", {"lr": 0.1}),
                Cell("BN", "batchnorm", {"lr": 0.1}),
                Cell("neither", "plain", {"lr": 0.1}),
            ],
            scales,
            [
                Claim("higher after an eighth of the run", ("ConvNorm",), ("BN",), "after 12.5 %", "higher"),
                Claim("higher at the end", ("ConvNorm",), ("BN",), "clean", "higher"),
            ],
        ),
    )
ELSEWHERE = {
    "C-figure1": ("Figure 1", "what is normalized", "a drawing"),
    "C-figure2": ("Figure 2", "condition numbers and norms by layer", "notebook 07 draws ours, in small"),
    "C-figure4-imagenet": ("Figure 4, right", "speed of convergence", "needs ImageNet"),
    "C-table8": ("Table 8", "training time", "`python3 -m convkit bench`"),
}
for key, (item, words, how) in ELSEWHERE.items():
    PAPERS.register(key, Protocol("C", item, words, instead=how))
