"""The tables of Liang & Huang 2021 as protocols."""

from typing import Any

from convkit.papers.protocols import PAPERS, Cell, Claim, Protocol, Scale

# AutoAttack as the authors' script ran it for Table 2: two of its four attacks, on the first 1024 test images
AUTO: dict[str, Any] = {"attack": "autoattack", "attacks": ["apgd-ce", "apgd-t"], "eps": 1 / 255, "images": 1024}
DECAYED = [75 / 120, 90 / 120, 100 / 120]  # where the learning rate falls, as parts of the 120 epochs
PLAIN = {"mean": None, "std": None}  # the networks take images in [0, 1] as they are
TABLE2: dict[str, Any] = {"batch_size": 128, "schedule": "steps", "milestones": DECAYED, "augmentation": "crop+flip"}
GPU = {"precision": "bfloat16", "channels_last": True, "record_every": 50}

PAPERS.register(
    "L-table2",
    Protocol(
        "L",
        "Table 2, ResNet-18",
        "clean and robust accuracy under four regularizers of the layers' norms",
        [
            Cell("none", "batchnorm", {"lr": 0.01}, {"clean": 93.2, "robust": 37.0}),
            Cell(
                "weight decay 0.01", "weight_decay", {"lr": 0.01, "weight_decay": 1e-2}, {"clean": 94.3, "robust": 28.2}
            ),
            Cell(
                "weight decay 0.001",
                "weight_decay",
                {"lr": 0.01, "weight_decay": 1e-3},
                {"clean": 94.1, "robust": 33.7},
            ),
            Cell("clip 0.5", "norm_clip", {"lr": 0.01, "bound": 0.5}, {"clean": 93.6, "robust": 35.2}),
            Cell("clip 1", "norm_clip", {"lr": 0.01, "bound": 1.0}, {"clean": 94.0, "robust": 41.7}),
            Cell("l1 decay 0.01", "norm_decay_l1", {"lr": 0.01, "beta": 1e-2}, {"clean": 92.5, "robust": 24.5}),
            Cell("l∞ decay 0.01", "norm_decay_linf", {"lr": 0.01, "beta": 1e-2}, {"clean": 93.0, "robust": 20.0}),
        ],
        {
            "tiny": Scale(
                minutes=0.2,
                data="shapes",
                model="resnet18",
                options={"width": 1 / 8, **PLAIN},
                plan={**TABLE2, "steps": 3, "batch_size": 8},
                seeds=[0],
                images=40,
                tests=20,
                attacks={"robust": {**AUTO, "attacks": ["apgd-ce"], "images": 8}},
            ),
            "short": Scale(
                minutes=10,
                data="cifar10-jpeg",
                model="resnet18",
                options=PLAIN,
                plan={**TABLE2, **GPU, "epochs": 15},
                seeds=[0],
                attacks={"robust": {**AUTO, "batch_size": 512}},
                paper=True,
            ),
            "full": Scale(
                minutes=70,
                data="cifar10-jpeg",
                model="resnet18",
                options=PLAIN,
                plan={**TABLE2, **GPU, "epochs": 120},
                seeds=[0, 1, 2],
                attacks={"robust": {**AUTO, "batch_size": 512}},
                paper=True,
            ),
        },
        [
            Claim("the strongest weight decay lowers robust accuracy", "weight decay 0.01", "none", "robust", "lower"),
            Claim("the strongest clip lowers robust accuracy", "clip 0.5", "none", "robust", "lower"),
            Claim("the strongest l1 decay lowers robust accuracy", "l1 decay 0.01", "none", "robust", "lower"),
            Claim("the strongest l∞ decay lowers robust accuracy", "l∞ decay 0.01", "none", "robust", "lower"),
            Claim("weight decay raises clean accuracy", "weight decay 0.01", "none", "clean", "higher"),
        ],
    ),
)
