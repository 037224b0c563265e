"""Shared parts of the experiments: their registry, one training run, runs over seeds, and rounding."""

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from convkit.checks import Registry
from convkit.data.dataset import Data
from convkit.data.registry import DATA, cifar10, load
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.methods.registry import METHODS
from convkit.training.loop import fit
from convkit.training.plan import Record
from convkit.training.sweeps import cores, sweep

ROOM = 2 * 2**30  # bytes of a GPU for one process: half of it for CUDA and its libraries
NINE: dict[str, Any] = {"widths": [16, 32, 64]}  # the options of cnn9, the network of most experiments
# Methods that only an experiment needs.
VARIANTS = {
    # the missing case of Table 3 of Ikami et al.: scale, bias and noise as for the sphere, without a constraint
    "neither": replace(METHODS["centre_only"], name="neither", words="no constraint", constrain=None),
}


@dataclass(frozen=True)
class Runs:
    """Where an experiment stores its results, where it finds data that the kit does not have, and where it trains.

    Jobs whose results are in ``results_file`` are not run again.
    """

    results_file: Path
    folder: str | None = None
    device: str = "cpu"
    workers: int | None = None  # runs at once; ``None`` for one per core, or as many as a GPU has room for

    def sweep(self, job: Callable[..., Any], jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return ``job(**arguments)`` for each of the named jobs, by name, with ``device`` if that is a GPU."""
        if self.device == "cpu":
            devices = None if self.workers is None else ["cpu"] * self.workers
            return sweep(job, jobs, self.results_file, devices=devices)
        jobs = {name: {**arguments, "device": self.device} for name, arguments in jobs.items()}
        devices = processes_on_gpus(self.device)
        if self.workers is not None:
            devices = [devices[turn % len(devices)] for turn in range(self.workers)]
        return sweep(job, jobs, self.results_file, devices=devices)

    def over_seeds(
        self, job: Callable[..., Any], cases: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
    ) -> dict[str, list[Any]]:
        """Run each case with each seed and return the results of each case, seed by seed."""
        results = self.sweep(job, {f"{name} seed {s}": {**cases[name], "seed": s} for name in cases for s in seeds})
        return {name: [results[f"{name} seed {seed}"] for seed in seeds] for name in cases}


def processes_on_gpus(device: str) -> list[str]:
    """Return the GPU of each process: ``"cuda"`` takes all GPUs, each with as many processes as cores and memory allow.

    The cores are shared by the GPUs, and a process needs room for CUDA and a network. Each GPU has one process at
    least, and the first ones of the list are on different GPUs.
    """
    gpus = [device] if ":" in device else [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    room = {gpu: min(cores() // len(gpus), torch.cuda.mem_get_info(gpu)[0] // ROOM) for gpu in gpus}
    return [gpu for turn in range(max(1, *room.values())) for gpu in gpus if turn < max(1, room[gpu])]


Run = TypeVar("Run", bound=Callable[..., dict[str, Any]])


@dataclass(frozen=True)
class Experiment:
    """A table or figure: ``run(Runs(...))`` returns its results, which JSON can hold; ``show`` words them."""

    label: str
    minutes: float  # on two cores
    run: Callable[..., dict[str, Any]]
    show: Callable[[dict[str, Any]], str]
    needs_folder: bool = False


EXPERIMENTS: Registry[Experiment] = Registry("EXPERIMENTS")


def experiment(
    name: str, label: str, minutes: float, show: Callable[[dict[str, Any]], str], needs_folder: bool = False
) -> Callable[[Run], Run]:
    """Return a decorator that registers a function as the run of an experiment."""

    def register(run: Run) -> Run:
        EXPERIMENTS.register(name, Experiment(label, minutes, run, show, needs_folder))
        return run

    return register


def load_experiments() -> Registry[Experiment]:
    """Import every file of this folder, each of which registers its experiments, and return ``EXPERIMENTS``."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], "convkit.papers."):
        import_module(module.name)
    return EXPERIMENTS


# ---- training --------------------------------------------------------------------------------------------------------
class Trained(NamedTuple):
    """A trained network; ``diverged`` says why the run ended early."""

    model: nn.Module
    diverged: str | None


def train(
    data: Data,
    method: str,
    *,
    seed: int,
    model: str | nn.Module = "cnn9",
    options: Mapping[str, Any] = NINE,
    knobs: Mapping[str, Any] | None = None,
    watch: Callable[[nn.Module, Record], object] | None = None,
    **plan: Any,
) -> Trained:
    """Make a network (``options`` go to its builder) and train it by ``fit``, both with this seed and these knobs.

    ``method`` is a name of ``METHODS`` or ``VARIANTS``. ``watch(network, record)`` is called after each step of a run
    that has not diverged.
    """
    chosen = VARIANTS.get(method) or METHODS[method]
    built = network(model, data, chosen, seed=seed, knobs=knobs, **options)
    for record in fit(built, data, chosen, seed=seed, knobs=knobs, **plan):
        if record.diverged:
            return Trained(built, record.diverged)
        if watch is not None:
            watch(built, record)
    return Trained(built, None)


def load_part(
    name: str,
    images: int | None = None,
    tests: int | None = None,
    folder: str | Path | None = None,
    device: str = "cpu",
) -> Data:
    """Return the data by name, on the device; stratified parts of both parts of it where counts are given."""
    place = None if name in DATA and DATA[name].offline else folder
    data = cifar10(place, name) if name == "cifar10-jpeg" else load(name, place)
    data = data if images is None else subset(data, images, test_count=tests)
    return data if device == "cpu" else data.to(device)


# ---- numbers ---------------------------------------------------------------------------------------------------------
def short(value: float | Tensor, digits: int = 4) -> float:
    """Round to ``digits`` significant digits."""
    return float(f"{float(value):.{digits}g}")


def rounded(value: Any) -> Any:
    """Return numbers as JSON holds them: four digits, and ``None`` for a number that is not finite."""
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, Tensor):
        return rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return (short(value) if math.isfinite(value) else None) if isinstance(value, float) else value
