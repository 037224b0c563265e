"""Figure 1 of Sedghi et al. 2019: the time that all singular values take, over the number of channels."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from convkit.bench.baselines import svdvals_of_full_symbol, two_lines
from convkit.bench.case import Task, numpy_kernel
from convkit.bench.cases import random_operator
from convkit.loading import needs
from convkit.operators.operator import ConvOperator
from convkit.provenance import missing_memory, versions
from convkit.spectra import singular_values

SECONDS, QUICK_SECONDS = 60.0, 2.0  # a curve ends before the point that would take longer
COPIES = 3  # of a route's largest array, in memory at once
REPEATS = 3  # calls of a point that takes less than a second; the fastest counts


@dataclass(frozen=True)
class Graph:
    """A graph of the figure: the side of the image, that of the kernel, and the numbers of channels."""

    image: int
    kernel: int
    channels: tuple[int, ...]


LEFT = Graph(16, 3, (2, 4, 8, 16, 32, 64, 100, 200, 300, 400, 600, 800, 1000))
RIGHT = Graph(64, 11, (2, 4, 8, 16, 32, 50, 100, 150, 200, 250))


@dataclass(frozen=True)
class Route:
    """A way to all singular values.

    Args:
        name: Its name in tables and pictures.
        task: Returns what is timed, for an operator.
        numbers: Returns how many numbers of 16 bytes its largest array has, for a graph and the channels.
        on_cpu: Whether it computes on the CPU, wherever the kernel is.
    """

    name: str
    task: Callable[[ConvOperator], Task]
    numbers: Callable[[Graph, int], float]
    on_cpu: bool = False


@dataclass
class Curve:
    """The times of one route in one graph, and why it ended, ``""`` where it reached the last number of channels."""

    route: str
    image: int
    kernel: int
    channels: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: str = ""


def _dense_svdvals(A: ConvOperator) -> torch.Tensor:
    return torch.linalg.svdvals(A.matrix())


def _two_lines(A: ConvOperator) -> Task:
    return partial(two_lines, numpy_kernel(A), A.input_shape)


def _blocks(graph: Graph, c: int) -> float:
    return graph.image**2 * c**2


def _windows(graph: Graph, c: int) -> float:  # the matrix is made by a convolution of all unit vectors
    return (graph.image**2 * c * graph.kernel) ** 2 / 2


ROUTES = (
    Route("full matrix, SVD", lambda A: partial(_dense_svdvals, A), _windows),
    Route("FFT, the two NumPy lines", _two_lines, _blocks, on_cpu=True),
    Route("FFT, torch svdvals", lambda A: partial(svdvals_of_full_symbol, A), _blocks),
    Route("convkit", lambda A: partial(singular_values, A), _blocks),
)


def curve(graph: Graph, route: Route, device: torch.device, limit: float, memory: float, synchronize: Task) -> Curve:
    """Return the times of a route, up to the last point that is expected to fit into ``limit`` seconds and the memory.

    The time of the next point is expected to grow with the cube of the channels, as decompositions do.
    """
    result = Curve(route.name, graph.image, graph.kernel)
    for c in graph.channels:
        size = 16 * COPIES * route.numbers(graph, c)
        if size > memory:
            result.ended = f"{c} channels need {size / 2**30:.3g} GiB, and there are {memory / 2**30:.3g}"
            break
        expected = result.seconds[-1] * (c / result.channels[-1]) ** 3 if result.seconds else 0.0
        if expected > limit:
            result.ended = f"{c} channels would take about {expected:.3g} s, more than {limit:.3g}"
            break
        task = route.task(
            random_operator(c, c, graph.image, graph.kernel, torch.device("cpu") if route.on_cpu else device)
        )
        try:
            if not result.seconds:
                task()  # not timed: the first call of all also loads what it needs
            result.seconds.append(_least_seconds(task, synchronize))
        except (torch.OutOfMemoryError, ValueError) as error:  # ValueError: a matrix above the limit of A.matrix()
            memory_error = isinstance(error, torch.OutOfMemoryError)
            result.ended = f"{c} channels: {missing_memory(error) if memory_error else error}"
            break
        result.channels.append(c)
    return result


def run(device: torch.device, limit: float, json_file: Path | None, picture: Path | None, synchronize: Task) -> int:
    """Measure both graphs, print them as tables, write them to the files that are given; return the exit status.

    An interrupted run prints and writes the curves that it has finished.
    """
    curves: list[Curve] = []
    try:
        for graph in (LEFT, RIGHT):
            for route in ROUTES:
                memory = free_memory(torch.device("cpu") if route.on_cpu else device)
                curves.append(curve(graph, route, device, limit, memory, synchronize))
                print(f"{graph.image} x {graph.image} image: {route.name} measured", flush=True)
    except KeyboardInterrupt:
        print(f"stopped after {len(curves)} of {2 * len(ROUTES)} curves")
    print(table(curves))
    print(", ".join(f"{name} {value}" for name, value in versions(device).items()))
    if json_file:
        record = {"versions": versions(device), "limit": limit, "curves": [asdict(one) for one in curves]}
        json_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if picture and curves:
        plot(curves, picture)
    return 0


def table(curves: list[Curve]) -> str:
    """Return the curves as text: for each graph a table of seconds by channels, and why curves ended."""
    lines: list[str] = []
    for image, kernel in dict.fromkeys((one.image, one.kernel) for one in curves):
        some = [one for one in curves if one.image == image]
        lines.append(f"seconds for all singular values, {kernel} x {kernel} kernels, {image} x {image} image")
        channels = sorted({c for one in some for c in one.channels})
        lines.append(f"{'channels':<26}" + "".join(f"{c:>9}" for c in channels))
        for one in some:
            seconds = dict(zip(one.channels, one.seconds, strict=True))
            cells = (f"{seconds[c]:>9.3g}" if c in seconds else f"{'-':>9}" for c in channels)
            lines.append(f"{one.route:<26}" + "".join(cells))
        lines += [f"    {one.route} ends: {one.ended}" for one in some if one.ended]
    return "\n".join(lines)


def plot(curves: list[Curve], file: Path) -> None:
    """Draw both graphs side by side, on logarithmic axes."""
    with needs("kit", "the picture"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator

    from convkit.plots.curves import plot_curves
    from convkit.plots.style import styles

    names = list(dict.fromkeys(one.route for one in curves))
    looks = dict(zip(names, styles(len(names)), strict=True))
    graphs = list(dict.fromkeys((one.image, one.kernel) for one in curves))
    figure = Figure((5 * len(graphs), 4), layout="constrained")
    for number, (image, kernel) in enumerate(graphs, start=1):
        some = {one.route: (one.channels, one.seconds) for one in curves if one.image == image and one.channels}
        ax = figure.add_subplot(1, len(graphs), number)
        plot_curves(some, ax, math.inf, None, [looks[route] for route in some])
        ax.set(xlabel="input and output channels", ylabel="seconds", xscale="log", yscale="log")
        ax.set_title(f"{kernel} × {kernel} kernels, {image} × {image} image")
        shown = sorted({c for channels, _ in some.values() for c in channels})[::2]
        ax.set_xticks(shown, [str(c) for c in shown], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
    lines = {str(line.get_label()): line for ax in figure.axes for line in ax.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    figure.savefig(file, dpi=120)


def free_memory(device: torch.device) -> float:
    """Return the bytes of memory that may be used: what is free on a GPU, half of the machine's on the CPU.

    Where the system does not tell, it is 4 GiB.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, ValueError, OSError):
        return 4 * 2.0**30


# ---- private ---------------------------------------------------------------------------------------------------------
def _least_seconds(task: Task, synchronize: Task) -> float:
    """Return the seconds of a call: of the first alone if it takes a second or more, else the least of some more."""
    first = _seconds(task, synchronize)
    return first if first >= 1 else min(_seconds(task, synchronize) for _ in range(REPEATS))


def _seconds(task: Task, synchronize: Task) -> float:
    synchronize()
    start = time.perf_counter()
    task()
    synchronize()
    return time.perf_counter() - start
