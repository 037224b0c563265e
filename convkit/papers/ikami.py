"""The tables and figures of Ikami et al. 2021 as protocols."""

from dataclasses import replace
from typing import Any

from convkit.papers.clouds import TABLE5
from convkit.papers.protocols import ALL, GPU, MEDIUM, PAPERS, SMALL, Cell, Claim, Protocol, Scale, tiny

PLAN: dict[str, Any] = {
    **{"epochs": 200, "batch_size": 128, "schedule": "cosine", "augmentation": "crop+flip"},
    **GPU,
}
FULL = Scale(minutes=400, seeds=3, data="cifar10-jpeg", model="cnn9", options={}, plan=PLAN, paper=True)
AUTO = {"augmentation": "auto"}  # a random policy in place of that of Fast AutoAugment; see convkit.data.with_policy
PUBLISHED = {"norm_first": True}  # of WRN-28-10: each normalization lies before its convolution
WRN = {"lr": 0.2, "weight_decay": 5e-3, "residual_start": "blocks"}
RATES = {"cnn9": (0.1, 1e-3), "resnet110": (0.2, 1e-3), "wrn28_10": (0.2, 5e-3)}  # learning rate, weight decay
METHODS = {
    "sphere": "sphere",
    "BN": "batchnorm",
    "GN": "groupnorm",
    "WS+BN": "weight_standardization+batchnorm",
    "WS+GN": "weight_standardization+groupnorm",
}
ERRORS = {  # Table 1, in the order of METHODS: data, augmentation, network
    ("cifar10", "standard", "cnn9"): (5.50, 5.36, 6.45, 5.43, 5.71),
    ("cifar10", "standard", "resnet110"): (5.65, 5.68, 6.34, 5.52, 6.69),
    ("cifar10", "standard", "wrn28_10"): (4.19, 3.70, 5.01, 4.78, 4.67),
    ("cifar10", "FastAA", "cnn9"): (4.18, 4.40, 4.93, 4.65, 4.37),
    ("cifar10", "FastAA", "resnet110"): (4.26, 4.11, 6.76, 3.92, 5.85),
    ("cifar10", "FastAA", "wrn28_10"): (2.59, 2.64, 3.68, 3.42, 3.29),
    ("cifar100", "standard", "cnn9"): (24.26, 25.11, 29.28, 25.51, 26.27),
    ("cifar100", "standard", "resnet110"): (25.16, 26.28, 29.75, 25.55, 28.51),
    ("cifar100", "standard", "wrn28_10"): (18.31, 18.48, 22.63, 19.82, 22.62),
    ("cifar100", "FastAA", "cnn9"): (21.03, 22.23, 25.34, 21.87, 22.31),
    ("cifar100", "FastAA", "resnet110"): (21.87, 21.84, 28.90, 22.10, 27.83),
    ("cifar100", "FastAA", "wrn28_10"): (16.40, 16.57, 19.96, 19.18, 19.41),
}


def accuracies(*errors: float) -> list[dict[str, float]]:
    """Return printed errors as accuracies, in percent."""
    return [{"clean": round(100 - error, 2)} for error in errors]


def start(name: str, model: str) -> dict[str, str]:
    """Return the knob without which the sphere does not train WRN-28-10; the paper leaves the start open."""
    return {"residual_start": "blocks"} if (name, model) == ("sphere", "wrn28_10") else {}


def direction(ours: float, theirs: float) -> Any:
    """Return which of two printed accuracies is higher."""
    return "higher" if ours > theirs else "lower"


for (data, augmentation, model), errors in ERRORS.items():
    lr, decay = RATES[model]
    printed = accuracies(*errors)
    cells = [
        Cell(name, method, {"lr": lr, "weight_decay": decay, **start(name, model)}, numbers)
        for (name, method), numbers in zip(METHODS.items(), printed, strict=True)
    ]
    policy = AUTO if augmentation == "FastAA" else {}
    options = PUBLISHED if model == "wrn28_10" else {}
    source = "cifar10-jpeg" if data == "cifar10" else data
    full = replace(FULL, options=options, model=model, data=source, plan={**PLAN, **policy})
    scales = {"full": full}
    key = f"W-table1-{data}-{augmentation.lower()}-{model}"
    if key == "W-table1-cifar10-standard-cnn9":
        scales = {"tiny": tiny(SMALL), "small": SMALL, "medium": replace(MEDIUM, minutes=45), **scales}
    claims = [
        Claim(
            f"the sphere against {name}", ("sphere",), (name,), "clean", direction(printed[0]["clean"], other["clean"])
        )
        for name, other in zip([*METHODS][1:], printed[1:], strict=True)
    ]
    item = f"Table 1, {data.upper().replace('CIFAR', 'CIFAR-')}, {augmentation}, {model}"
    PAPERS.register(key, Protocol("W", item, "test accuracy of five normalizations", cells, scales, claims))

# ---- Table 2 ---------------------------------------------------------------------------------------------------------
BATCHES = {4: (2.65, 3.08), 16: (2.64, 2.80), 128: (2.59, 2.64)}
table2 = []
for batch, errors in BATCHES.items():
    changes = {"plan": {"batch_size": batch}}
    for name, numbers in zip(("sphere", "BN"), accuracies(*errors), strict=True):
        knobs = {"lr": 0.2, **start(name, "wrn28_10")}
        table2.append(Cell(f"{name}, B = {batch}", METHODS[name], knobs, numbers, changes=changes))
SMALL2 = replace(ALL, minutes=30, plan={**SMALL.plan, "epochs": 9, "reference_batch": 128})
SMALL2 = replace(SMALL2, plan={key: value for key, value in SMALL2.plan.items() if key != "steps"})
PAPERS.register(
    "W-table2",
    Protocol(
        "W",
        "Table 2, CIFAR-10",
        "small batches, the learning rate in proportion",
        table2,
        {
            "tiny": tiny(SMALL2),
            "small": SMALL2,
            "full": replace(FULL, model="wrn28_10", options=PUBLISHED, plan={**PLAN, **AUTO, "reference_batch": 128}),
        },
        [Claim("batches of 4", ("sphere, B = 4",), ("BN, B = 4",), "clean", "higher")],
    ),
)

# ---- Tables 3 and 4 --------------------------------------------------------------------------------------------------
PARTS = {"neither": "neither", "centered": "centre_only", "sphere": "sphere_only", "both": "sphere"}
TABLE3 = {"neither": (5.36, 4.97), "centered": (5.58, 4.66), "sphere": (5.68, 5.29), "both": (4.45, 4.19)}
WIDE = replace(FULL, model="wrn28_10", options=PUBLISHED, minutes=2000)
table3 = [
    Cell(f"{part}, σ = {sigma:g}", PARTS[part], {**WRN, "sigma": sigma}, numbers)
    for part, errors in TABLE3.items()
    for sigma, numbers in zip((0.0, 1.0), accuracies(*errors), strict=True)
]
RESIDUAL = replace(
    SMALL,
    minutes=60,
    model="resnet32",
    options={"width": 0.5},
    plan={**SMALL.plan, "steps": 200},
    note="A residual network with half the channels.",
)
LESS = {"both, σ = 0": ("neither, σ = 0", "centered, σ = 0", "sphere, σ = 0")}
PAPERS.register(
    "W-table3",
    Protocol(
        "W",
        "Table 3, CIFAR-10",
        "centering, sphere and noise, alone and together",
        table3,
        {"tiny": tiny(RESIDUAL), "small": RESIDUAL, "full": WIDE},
        [
            *(
                Claim(f"both parts against {other}", (ours,), (other,), "clean", "higher")
                for ours, others in LESS.items()
                for other in others
            ),
            Claim("noise of 1 with both", ("both, σ = 1",), ("both, σ = 0",), "clean", "higher"),
        ],
    ),
)
CONSTANT = {0.1: 4.78, 0.2: 4.55, 0.3: 4.59, 0.4: 4.25}
LINEAR = {0.2: 4.49, 0.4: 4.49, 0.6: 4.45, 0.8: 4.45, 1.0: 4.19}
table4 = [Cell("no noise", "sphere", {**WRN, "sigma": 0.0}, {"clean": 95.55})]
table4 += [
    Cell(f"{kind} {sigma:g}", "sphere", {**WRN, "sigma": sigma, "noise": kind}, {"clean": round(100 - error, 2)})
    for kind, errors in (("constant", CONSTANT), ("linear", LINEAR))
    for sigma, error in errors.items()
]
PAPERS.register(
    "W-table4",
    Protocol(
        "W",
        "Table 4, CIFAR-10",
        "how large the noise is, constant or growing with depth",
        table4,
        {"tiny": tiny(RESIDUAL), "small": RESIDUAL, "full": WIDE},
        [
            Claim("linear noise of 1 against none", ("linear 1",), ("no noise",), "clean", "higher"),
            Claim(
                "linear noise against constant, means over their sizes",
                [f"linear {sigma:g}" for sigma in LINEAR],
                [f"constant {sigma:g}" for sigma in CONSTANT],
                "clean",
                "higher",
            ),
        ],
    ),
)
PAPERS.register("W-table5", TABLE5)
ELSEWHERE = {
    "W-figure1": ("Figure 1", "a step on the sphere", "a drawing; notebook 08 draws ours"),
    "W-figure2": ("Figure 2, CIFAR-100", "learning curves by noise", "no data here: CIFAR-100"),
    "W-table2-cifar100": ("Table 2, CIFAR-100", "small batches", "no data here: CIFAR-100"),
    "W-table3-cifar100": ("Table 3, CIFAR-100", "centering, sphere and noise", "no data here: CIFAR-100"),
    "W-table4-cifar100": ("Table 4, CIFAR-100", "how large the noise is", "no data here: CIFAR-100"),
    "W-table6": ("Table 6", "ResNet-50 on ImageNet", "needs ImageNet"),
}
for key, (item, words, how) in ELSEWHERE.items():
    PAPERS.register(key, Protocol("W", item, words, instead=how))
