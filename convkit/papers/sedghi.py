"""The tables and figures of Sedghi et al. 2019 as protocols."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from convkit.papers.protocols import GPU, PAPERS, SMALL, Cell, Claim, Protocol, Scale, tiny

WIDE: dict[str, Any] = {"width": 2.28}  # ResNet-32 with 2.4 million parameters
FULL = Scale(
    minutes=200,
    seeds=3,
    data="cifar10-jpeg",
    model="resnet32",
    options=WIDE,
    plan={"epochs": 250, "batch_size": 128, "schedule": "steps", "augmentation": "crop+flip", **GPU},
    rates=(0.03, 0.1, 0.3),
    paper=True,
    note="The paper's schedule, found by a grid search, is not printed.",
)
BOUNDS = {"clip 0.1": (0.1, 93.3), "clip 0.5": (0.5, 94.7), "clip 1": (1.0, 94.5)}
PAPERS.register(
    "S-figure2",
    Protocol(
        "S",
        "Section 4.2, Figure 2",
        "test accuracy with operator norms clipped",
        [
            Cell("none", "batchnorm", {"lr": 0.1}, {"clean": 93.8}),
            *(
                Cell(name, "norm_clip", {"lr": 0.1, "bound": bound}, {"clean": clean})
                for name, (bound, clean) in BOUNDS.items()
            ),
            Cell("none, stopped early", "batchnorm", {"lr": 0.1}, changes={"early_stop": True}),
        ],
        {"tiny": tiny(SMALL), "small": SMALL, "full": FULL},
        [
            Claim("clipping at 0.5 raises test accuracy", ("clip 0.5",), ("none",), "clean", "higher"),
            Claim("clipping at 1 raises test accuracy", ("clip 1",), ("none",), "clean", "higher"),
        ],
    ),
)


GRID_BOUNDS = (0.5, 1.0, 1.5, 2.0)
NUMBERS = {"mean": "mean", "highest": "highest accuracy"}


def grid(batchnorm: bool, rates: tuple[float, ...]) -> list[Cell]:
    """Return a cell for each bound and learning rate."""
    clip = {"batchnorm": batchnorm}
    bounds = {"no clip": ("batchnorm" if batchnorm else "plain", {})}
    bounds |= {f"clip {b:g}": ("norm_clip", {**clip, "bound": b}) for b in GRID_BOUNDS}
    return [
        Cell(f"{name}, lr {lr:g}", method, {**knobs, "lr": lr})
        for name, (method, knobs) in bounds.items()
        for lr in rates
    ]


def raised(cells: list[Cell], how: str, numbers: Sequence[Literal["mean", "highest"]]) -> list[Claim]:
    """Return the claims that each bound raises the mean, or the highest, of the accuracies at all rates.

    The highest is taken on the test images, as in the paper, on both sides from as many rates.
    """
    return [
        Claim(
            f"{how} BatchNorm, clipping at {b:g} raises the {NUMBERS[number]} over all learning rates",
            named(cells, f"clip {b:g},"),
            named(cells, "no clip,"),
            "clean",
            "higher",
            number,
        )
        for number in numbers
        for b in GRID_BOUNDS
    ]


def named(cells: list[Cell], beginning: str) -> list[str]:
    """Return the names of the cells that begin so."""
    return [cell.name for cell in cells if cell.name.startswith(beginning)]


SLOWING = {**FULL.plan, "epochs": 100, "schedule": "exponential", "factor": 0.95, "factor_epochs": 1}
GRIDS = {"a": (False, (0.001, 0.003, 0.01, 0.03, 0.1)), "b": (True, (0.01, 0.03, 0.1, 0.2, 0.3))}
# Without BatchNorm the paper says "improved the best result" and "more robust", with it that the clip "helps".
CLAIMED: dict[str, Sequence[Literal["mean", "highest"]]] = {"a": ("mean", "highest"), "b": ("mean",)}
RESIDUAL: dict[str, Any] = {"model": "resnet18", "options": {"width": 1 / 8}}  # residual, as the paper's network is
GRID = replace(SMALL, **RESIDUAL, minutes=10, rates=(), plan={**SMALL.plan, "steps": 200})
for letter, (batchnorm, rates) in GRIDS.items():
    how = "with" if batchnorm else "without"
    own = grid(batchnorm, rates)
    PAPERS.register(
        f"S-figure3{letter}",
        Protocol(
            "S",
            f"Section 4.3, Figure 3{letter}",
            f"bounds and learning rates, {how} BatchNorm",
            own,
            {
                "tiny": tiny(GRID),
                "small": GRID,
                "full": replace(FULL, minutes=3000, seeds=1, rates=(), plan=SLOWING),
            },
            raised(own, how, CLAIMED[letter]),
        ),
    )
PAPERS.register(
    "S-section4.4",
    Protocol(
        "S",
        "Section 4.4",
        "the reshaped kernel clipped in place of the operator",
        [
            Cell("clip 0.5", "norm_clip", {"lr": 0.1, "bound": 0.5}, {"clean": 94.7}),
            *(Cell(f"reshaped, clip {b:g}", "reshaped_clip", {"lr": 0.1, "bound": b}) for b in (0.05, 0.1, 0.2, 0.5)),
        ],
        {"tiny": tiny(SMALL), "small": SMALL, "full": FULL},
        [
            Claim(
                "the reshaped kernel clipped at 0.2 is as good",
                ("reshaped, clip 0.2",),
                ("clip 0.5",),
                "clean",
                "not lower",
            )
        ],
    ),
)
ELSEWHERE = {
    "S-figure1": ("Figure 1", "seconds to compute singular values", "`python3 -m convkit bench --figure1`"),
    "S-figure4": ("Figure 4", "test error over seconds", "not run here; `python3 -m convkit bench` times the clips"),
    "S-figures5-7": ("Figures 5-7", "spectra of a trained network", "`python3 -m convkit papers spectra-network`"),
}
for key, (item, words, command) in ELSEWHERE.items():
    PAPERS.register(key, Protocol("S", item, words, instead=command))
