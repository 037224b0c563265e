"""`PAPERS`: the tables and figures of the papers as data: networks, plans, attacks, printed numbers, claims."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from convkit.checks import Registry

NORMS = ("norm1", "norm2", "norm_inf")  # columns of the layer table
SCORES = ("IS", "FID", "FD", "classes")  # beginnings of numbers that judge made images: no percents
CHOOSING_SEEDS = (100, 101, 102)  # of the runs on which learning rates are chosen


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper: a number of some cells is higher, lower or not lower than that of others.

    Attributes:
        words: The sentence, in our words.
        ours, theirs: Names of cells; the mean over the cells is compared, seed by seed.
        metric: The number: ``"clean"``, the name of an attack, ``"mean class"`` of clouds (see
            ``mean_class_accuracy``), or what else ``Scale`` lets a run measure.
        printed: What the paper says of ours.
        over_cells: ``"highest"`` compares the highest number of the cells of each side in place of the mean.
    """

    words: str
    ours: Sequence[str]
    theirs: Sequence[str]
    metric: str
    printed: Literal["higher", "lower", "not lower"]
    over_cells: Literal["mean", "highest"] = "mean"


@dataclass(frozen=True)
class Cell:
    """One way to train in a table.

    Attributes:
        method, knobs: A name of ``METHODS``, or of ``VARIANTS`` in ``runs``, and knobs other than their defaults.
        printed: The paper's numbers, in percent, by metric.
        tuned: Strengths that are tried on held-out images together with the learning rates, by knob.
        changes: Fields of the scale that differ in this cell; those of its ``plan`` and ``attacks`` one by one.
    """

    name: str
    method: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    printed: Mapping[str, float] = field(default_factory=dict)
    tuned: Mapping[str, Sequence[float]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How large a table is run.

    Attributes:
        minutes: What all seeds take on two cores, or on one GPU where ``paper`` is true.
        seeds: The number of paired seeds.
        data: A name of ``DATA``, or ``"cifar10-jpeg"``.
        model, options: A name of ``MODELS`` and arguments of its builder.
        plan: Arguments of ``fit``, with ``epochs`` in place of ``steps`` where it counts those.
        knobs: Knobs in place of those of all cells whose method has them, such as steps between two clips.
        rates: The learning rates that are tried on held-out images for each cell; none leaves that of the cell.
        choose: The metric by which they are chosen.
        images, tests: Stratified parts of the training images, drawn by the seed, and of the test images; ``None`` for
            all.
        noise: The part of the training labels that are drawn anew, some of which come out right.
        objective, eps: A name of ``OBJECTIVES``, and the size of its attacks.
        early_stop: Whether the best of twenty states on held-out images is tested, in place of the last one.
        looks: Parts of a run after which the test accuracy is measured, too: metric ``"after 10 %"``.
        attacks: By metric, an attack of ``ATTACKS`` by name, the number of images, and arguments.
        norms: Whether the geometric means of the layers' norms are measured, as ``norm1``, ``norm2``, ``norm_inf``.
        paper: Whether network and data are the paper's own, or the JPEG copy of its data.
        note: What else a reader of the results should know.
    """

    minutes: float
    seeds: int
    data: str
    model: str
    options: Mapping[str, Any]
    plan: Mapping[str, Any]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    rates: Sequence[float] = ()
    choose: str = "clean"
    images: int | None = None
    tests: int | None = None
    noise: float = 0.0
    objective: str = "clean"
    eps: float = 8 / 255
    early_stop: bool = False
    looks: Sequence[float] = ()
    attacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    norms: bool = False
    paper: bool = False
    note: str = ""


@dataclass(frozen=True)
class Protocol:
    """One table or figure of a paper.

    Attributes:
        paper: ``"S"``, ``"C"``, ``"W"`` or ``"L"`` (see ``METHODS``); ``"M"`` for what this kit asks beside them.
        item: Its name in the paper.
        words: What it shows.
        cells, scales, claims: What is trained, how large, and what is compared.
        instead: For items without cells: which command makes it, or why it cannot be made here.
        run: Trains one cell and returns its numbers; ``None`` for a classifier (``run_cell``).
    """

    paper: str
    item: str
    words: str
    cells: Sequence[Cell] = ()
    scales: Mapping[str, Scale] = field(default_factory=dict)
    claims: Sequence[Claim] = ()
    instead: str = ""
    run: Callable[..., dict[str, Any]] | None = None


PAPERS: Registry[Protocol] = Registry("PAPERS")
"""The tables and figures by key, such as ``"L-table2"``; ``python3 -m convkit papers`` lists them.

The scales: ``"tiny"`` is for tests; ``"small"`` trains narrow networks on digits or drawn figures; ``"medium"`` on
10,000 photographs of the JPEG copy of CIFAR-10; ``"short"`` is the paper's network and data with fewer epochs, for a
GPU; ``"full"`` is what the paper ran.
"""


# ---- scales ----------------------------------------------------------------------------------------------------------
RATES = (0.02, 0.05, 0.1)
NARROW: dict[str, Any] = {"widths": [16, 32, 64]}  # of cnn9
GPU: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "record_every": 50}
SMALL = Scale(
    minutes=10,
    seeds=8,
    data="digits",
    model="cnn9",
    options=NARROW,
    plan={"steps": 300, "batch_size": 64, "schedule": "cosine"},
    knobs={"every": 45},
    rates=RATES,
    images=300,
)
ALL = replace(SMALL, images=None)  # for what is hard enough with all 1437 digits
MEDIUM = replace(
    SMALL,
    minutes=30,
    seeds=4,
    data="cifar10-jpeg",
    images=10_000,
    tests=2_000,
    plan={"steps": 600, "batch_size": 64, "schedule": "cosine", "augmentation": "crop+flip"},
    knobs={"every": 90},
)


def tiny(scale: Scale) -> Scale:
    """Return a scale of seconds, for tests: a few steps of narrow networks with few images."""
    narrow = {"widths": [16, 16, 16]} if scale.model == "cnn9" else {"width": 1 / 8}
    plan = {name: value for name, value in scale.plan.items() if name != "epochs"}
    fast = {"attacks": ["apgd-ce"]}
    attacks = {
        name: {**attack, "images": 4, **(fast if "attacks" in attack else {})} for name, attack in scale.attacks.items()
    }
    return replace(
        scale,
        minutes=0.1,
        seeds=1,
        options={**scale.options, **narrow},
        plan={**plan, "steps": 3, "batch_size": 10},
        rates=scale.rates[:1],
        images=60,
        tests=20,
        attacks=attacks,
    )
