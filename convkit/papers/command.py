"""The command ``python3 -m convkit papers``: runs tables of the papers and other experiments, and stores the results.

Without a name it lists them. ``papers scoreboard`` writes the page of all claims.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convkit.checks import Registry
from convkit.loading import ROOT, MissingExtraError

NOTEBOOKS = ROOT / "notebooks"
RESULTS = NOTEBOOKS / "results"


@dataclass(frozen=True)
class Task:
    """What a name of the command stands for.

    Attributes:
        given: The name, and the scale of a table, as they are typed.
        file: The file of its results, without a folder and an ending.
        needs_folder: Whether its data are not in the kit.
        run: Returns the results.
        show: Words the results.
        begin: Is called with the stored results, if there are any, before it runs.
        stopped: Returns the results of what had finished when a run was stopped.
    """

    given: str
    file: str
    needs_folder: bool
    run: Callable[[Any], dict[str, Any]]
    show: Callable[[dict[str, Any]], str]
    begin: Callable[[dict[str, Any], Any], None] = lambda stored, runs: None
    stopped: Callable[[Path], dict[str, Any]] | None = None


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``python3 -m convkit papers`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="convkit papers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", metavar="NAME", help="a table or an experiment; without it, all are listed")
    parser.add_argument("--scale", metavar="NAME", help="how large a table is run, such as small or full")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds of a table; its scale has a default")
    parser.add_argument("--workers", type=int, metavar="N", help="number of runs at once; by default one per core")
    parser.add_argument("--data", "--folder", metavar="DIR", help="where the data lies, if it is not in the kit")
    place = "notebooks/results/papers/NAME-SCALE.json; experiments notebooks/results/NAME.json, on a GPU NAME-cuda.json"
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, or cuda for a GPU (cuda:1, ...)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"where the results go ({place}; without a clone in this folder)"
    )
    options = parser.parse_args(arguments)
    folder = RESULTS if NOTEBOOKS.is_dir() else Path.cwd()
    if options.name == "scoreboard":
        return _write_page(options.json or folder / "papers" / "README.md")

    import torch

    from convkit.papers.runs import Runs, load_experiments
    from convkit.provenance import missing_memory, refuse_other_device, usable_device, versions

    load_experiments()
    if options.name is None:
        _list()
        return 0
    for option, value in (("--seeds", options.seeds), ("--workers", options.workers)):
        if value is not None and value < 1:
            parser.error(f"{option} must be at least 1, got {value}")
    try:
        task = _task(options)
        if task.needs_folder and options.data is None:
            raise ValueError(f"{options.name} needs --data DIR, where its data lies")
        device = usable_device(options.device)
        target = options.json or folder / f"{task.file}{_ending(options)}.json"
        refuse_other_device(target, device)
    except ValueError as error:
        parser.error(str(error))
    target.parent.mkdir(parents=True, exist_ok=True)
    results_file = target.with_suffix(".jsonl")
    again = f"what had finished is in {results_file}, and the same command goes on from there"
    command = f"python3 -m convkit papers {task.given}" + (" --data DIR" if task.needs_folder else "")
    command += "" if device.type == "cpu" else f" --device {device}"
    header = {"experiment": options.name, "command": command, "device": str(device), "versions": versions(device)}

    def write(results: dict[str, Any]) -> None:
        target.write_text(json.dumps(header | results, indent=1) + "\n", encoding="utf-8")
        results_file.unlink(missing_ok=True)

    try:
        runs = Runs(results_file, options.data, str(device), options.workers)
        if target.exists() and not results_file.exists():
            task.begin(json.loads(target.read_text(encoding="utf-8")), runs)
        results = task.run(runs)
    except KeyboardInterrupt:
        if task.stopped is not None and results_file.exists():
            write(task.stopped(results_file))
            again = f"what had finished is in {target}, and the same command goes on from there"
        print(f"\nstopped; {again}", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        text = f"{missing_memory(error)}; end other programs that use it, or take --device cpu; {again}"
        print(f"convkit papers: {text}", file=sys.stderr)
        return 1
    except (ValueError, MissingExtraError) as error:
        print(f"convkit papers: {error}", file=sys.stderr)
        return 1
    write(results)
    print(task.show(results))
    print(f"written to {target}")
    return 0


# ---- private ---------------------------------------------------------------------------------------------------------
def _task(options: argparse.Namespace) -> Task:
    """Return what the name stands for; raise ``ValueError`` for an unknown name or scale."""
    from convkit.papers.protocols import PAPERS
    from convkit.papers.runs import EXPERIMENTS, Experiment
    from convkit.papers.scoreboard import table
    from convkit.papers.tables import collected, restore, run_protocol

    name = options.name
    found = Registry("papers", {**PAPERS, **EXPERIMENTS})[name]
    if isinstance(found, Experiment):
        if options.scale is not None or options.seeds is not None:
            raise ValueError(f"{name} is an experiment of one size: leave --scale and --seeds out")
        return Task(name, name, found.needs_folder, found.run, found.show)
    protocol = found
    if not protocol.scales:
        raise ValueError(f"{name} ({protocol.item}) is not trained: {protocol.instead}")
    size = options.scale or next(scale for scale in protocol.scales if scale != "tiny")
    if size not in protocol.scales:
        raise ValueError(f"{name} has the scales {', '.join(protocol.scales)}, got {size!r}")
    scale = protocol.scales[size]
    return Task(
        f"{name} --scale {size}",
        f"papers/{name}-{size}",
        scale.data not in ("digits", "shapes"),
        functools.partial(run_protocol, protocol, scale, seeds=options.seeds),
        functools.partial(table, protocol, scale),
        functools.partial(restore, protocol, scale),
        functools.partial(collected, scale),
    )


def _ending(options: argparse.Namespace) -> str:
    """Return what sets results of a GPU apart from stored ones of a CPU; a table has its own scales for both."""
    from convkit.papers.protocols import PAPERS

    return "" if options.device == "cpu" or options.name in PAPERS else "-cuda"


def _list() -> None:
    """Print all names with their minutes."""
    from convkit.papers.protocols import PAPERS
    from convkit.papers.runs import EXPERIMENTS
    from convkit.papers.scoreboard import NAMES

    print("tables and figures of the papers, with the minutes of each scale (two cores; short and full: a GPU):")
    for name, protocol in sorted(PAPERS.items(), key=lambda pair: [*NAMES].index(pair[1].paper)):
        sizes = ", ".join(f"{size} {scale.minutes:g}" for size, scale in protocol.scales.items() if size != "tiny")
        print(f"  {name:<36} {protocol.item}: {protocol.words} ({sizes or protocol.instead})")
    print("other experiments, with their minutes on two cores:")
    for name, experiment in EXPERIMENTS.items():
        print(f"  {name:<36} {experiment.label} ({experiment.minutes:g})")
    print("scoreboard: writes the page of all claims from the stored results")


def _write_page(target: Path) -> int:
    """Write the page of all claims from the results beside it."""
    from convkit.papers.runs import load_experiments
    from convkit.papers.scoreboard import page

    load_experiments()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(target.parent), encoding="utf-8")
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
