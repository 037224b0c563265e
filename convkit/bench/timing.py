"""The timing of the benchmark: it runs each case and prints times relative to the baselines."""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from convkit.bench import figure1
from convkit.bench.case import Case, Task
from convkit.bench.cases import cases, random_operator
from convkit.loading import MissingExtraError, progress_bar
from convkit.provenance import missing_memory, refuse_other_device, usable_device, versions
from convkit.spectra import singular_values


@dataclass(frozen=True)
class Budget:
    """How often the implementations of a case are timed, and the seconds in one of them after which they are not."""

    rounds: int
    seconds: float


FULL, QUICK = Budget(5, 12.0), Budget(3, 1.0)
SPAN = 0.02  # seconds that one turn takes at least: quick tasks are called several times in it
REST = 0.05  # seconds between two implementations: BLAS threads keep a core busy for a while after their last work


@dataclass
class Result:
    """The median seconds of each implementation, and the number of rounds in which it was timed."""

    question: str
    case: str
    ours: float
    others: dict[str, float]
    targets: dict[str, float]
    rounds: dict[str, int]
    limit: str = ""

    @property
    def ratios(self) -> dict[str, float]:
        """Return the time of each baseline divided by ours."""
        return {name: seconds / self.ours for name, seconds in self.others.items()}


def time_case(case: Case, budget: Budget, synchronize: Task) -> Result:
    """Return median times of ours and the baselines, timed in turn equally often, after one untimed call of each."""
    tasks = {"convkit": case.ours, **case.baselines}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    calls = dict.fromkeys(tasks, 1)
    for task in tasks.values():
        task()
    spent = 0.0
    for _ in range(budget.rounds):
        if spent > budget.seconds:
            break
        for name, task in tasks.items():
            time.sleep(REST)
            synchronize()
            start = time.perf_counter()
            for _ in range(calls[name]):
                task()
            synchronize()
            seconds[name].append((time.perf_counter() - start) / calls[name])
            spent = max(spent, sum(seconds[name]))
            calls[name] = max(1, min(1000, int(SPAN / seconds[name][-1])))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians.pop("convkit")
    counts = {name: len(times) for name, times in seconds.items()}
    return Result(case.question, case.inputs, ours, medians, dict(case.targets), counts, case.limit)


def growth(device: torch.device, budget: Budget, synchronize: Task) -> dict[str, float]:
    """Return the exponents p of time ~ size^p of ``singular_values``, for image side, channels and kernel side."""
    exponents = {}
    for name, sizes in (
        ("image side", [(48, 48, n, 3) for n in (8, 16, 32)]),
        ("channels", [(c, c, 16, 3) for c in (32, 64, 128)]),
        ("kernel side", [(48, 48, 16, k) for k in (3, 5, 9)]),
    ):
        axis = {"image side": 2, "channels": 0, "kernel side": 3}[name]
        seconds = []
        for size in sizes:
            A = random_operator(*size, device)
            case = Case(name, str(size), partial(singular_values, A), {})
            seconds.append(time_case(case, budget, synchronize).ours)
        exponents[name] = float(np.polyfit(np.log([size[axis] for size in sizes]), np.log(seconds), 1)[0])
    return exponents


def table(results: list[Result]) -> str:
    """Return the results as text: each case with our time, the baselines' as multiples of it, and the target."""
    lines = []
    for result in results:
        lines.append(f"{result.question}: {result.case}   ({result.ours * 1e3:.3g} ms)")
        for name, ratio in result.ratios.items():
            wanted = result.targets.get(name)
            verdict = "" if wanted is None else f"   target {wanted:.3g}: {'met' if ratio >= wanted else 'MISSED'}"
            lines.append(f"    {name:<44} {ratio:>10.3g} x{verdict}")
        if result.limit and any(result.ratios[name] < wanted for name, wanted in result.targets.items()):
            lines.append(f"    what limits ours: {result.limit}")
    return "\n".join(lines)


def plot(results: list[Result], file: Path) -> None:
    """Draw the ratios as bars on a logarithmic axis, with ticks at the targets."""
    from convkit.plots.bars import plot_ratios

    rows = [
        (f"{r.question}: {r.case}\nover {name}", ratio, r.targets.get(name))
        for r in results
        for name, ratio in r.ratios.items()
    ]
    plot_ratios(rows).figure.savefig(file, dpi=120, bbox_inches="tight")  # pyright: ignore[reportAttributeAccessIssue]


def _write(file: Path | None, device: torch.device, exponents: dict[str, float], results: list[Result]) -> None:
    """Write what was measured so far, if there is a file for it."""
    if file is not None:
        record = {
            "versions": versions(device),
            "growth": exponents,
            "results": [asdict(r) | {"ratios": r.ratios} for r in results],
        }
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``python3 -m convkit bench`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="convkit bench", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU (cuda:1, ...)")
    parser.add_argument("--quick", action="store_true", help="small cases and few rounds: about a minute")
    figure = "in place of the cases, Figure 1 of Sedghi et al. 2019: seconds over channels, up to 60 s a point"
    parser.add_argument("--figure1", action="store_true", help=f"{figure} (2 s with --quick)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only cases with these words in their question")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the ratios or curves there")
    options = parser.parse_args(arguments)
    try:
        device = usable_device(options.device)
        if options.json:
            refuse_other_device(options.json, device)
    except ValueError as error:
        parser.error(str(error))
    for file in filter(None, (options.json, options.plot)):
        if not file.parent.is_dir():
            parser.error(f"{file} cannot be written: there is no folder {file.parent}; make it first")
    if options.plot:
        try:
            import convkit.plots  # noqa: F401  told now, not after minutes of measuring
        except MissingExtraError as error:
            parser.error(f"--plot cannot draw here: {error}")
    synchronize = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    if options.figure1:
        limit = figure1.QUICK_SECONDS if options.quick else figure1.SECONDS
        return figure1.run(device, limit, options.json, options.plot, synchronize)
    budget = QUICK if options.quick else FULL
    results: list[Result] = []
    exponents: dict[str, float] = {}
    planned: list[Case] = []
    status = 0
    try:
        planned += (case for case in cases(device, options.quick) if options.only in case.question)
        if not planned:
            known = ", ".join(dict.fromkeys(case.question for case in cases(device, options.quick)))
            parser.error(f"no case has {options.only!r} in its question; there are {known}")
        for case in progress_bar(planned, desc="cases", disable=not sys.stderr.isatty()):
            targets = case.targets if device.type == "cpu" else {}  # they are for a CPU
            results.append(time_case(replace(case, targets=targets), budget, synchronize))
            _write(options.json, device, exponents, results)  # a run that is ended keeps what it measured
        exponents = {} if options.only else growth(device, budget, synchronize)
    except KeyboardInterrupt:
        print(f"stopped after {len(results)} of {len(planned)} cases")
    except torch.OutOfMemoryError as error:
        lower = "end other programs that use it" + ("" if options.quick else ", or take --quick: its cases are smaller")
        print(
            f"convkit bench: stopped after {len(results)} of {len(planned)} cases: {missing_memory(error)}; {lower}",
            file=sys.stderr,
        )
        status = 1
    print(table(results))
    if exponents:
        print("all singular values take time ~ " + ", ".join(f"({name})^{p:.1f}" for name, p in exponents.items()))
    print(", ".join(f"{name} {value}" for name, value in versions(device).items()))
    _write(options.json, device, exponents, results)
    if options.plot:
        plot(results, options.plot)
    return status


if __name__ == "__main__":
    sys.exit(main())
