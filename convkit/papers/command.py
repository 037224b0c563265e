"""The command ``python3 -m convkit papers``, which runs experiments by name and stores their results."""

import argparse
import functools
import json
import sys
from pathlib import Path

from convkit.checks import UnknownNameError
from convkit.loading import ROOT, MissingExtraError

NOTEBOOKS = ROOT / "notebooks"
RESULTS = NOTEBOOKS / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``python3 -m convkit papers`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="convkit papers", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="an experiment; without it, all are listed")
    parser.add_argument("--scale", metavar="NAME", help="how large a table is run: tiny, small, short or full")
    parser.add_argument("--folder", "--data", metavar="DIR", help="where the data lies, if it is not in the kit")
    place = "notebooks/results/NAME.json, on a GPU NAME-cuda.json; without a clone in this folder"
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, or cuda for a GPU (cuda:1, ...)")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"where the results go ({place})")
    options = parser.parse_args(arguments)

    import torch

    from convkit.papers.protocols import PAPERS, run
    from convkit.papers.runs import Runs, load_experiments
    from convkit.provenance import missing_memory, refuse_other_device, usable_device, versions

    experiments = load_experiments()
    if options.name is None:
        print("experiments, with their minutes on two cores:")
        for name, experiment in experiments.items():
            print(f"  {name:<28} {experiment.label} ({experiment.minutes:g} min)")
        print("tables of the papers, with their scales and minutes:")
        for name, protocol in PAPERS.items():
            sizes = ", ".join(f"{scale} {found.minutes:g} min" for scale, found in protocol.scales.items())
            print(f"  {name:<28} {protocol.item}: {protocol.words} ({sizes})")
        return 0
    more = "" if options.device == "cpu" else "-cuda"  # the stored numbers of a CPU stay
    if options.name in PAPERS:
        protocol = PAPERS[options.name]
        chosen = options.scale or next(iter(protocol.scales))
        if chosen not in protocol.scales:
            parser.error(f"{options.name} has the scales {', '.join(protocol.scales)}, got {chosen!r}")
        scale = protocol.scales[chosen]
        name, needs_folder = f"papers/{options.name}-{chosen}", scale.data not in ("digits", "shapes")
        begin, show = functools.partial(run, protocol, scale), str
        given = f"{options.name} --scale {chosen}"
    else:
        try:
            experiment = experiments[options.name]
        except UnknownNameError as error:
            parser.error(str(error))
        name, needs_folder, begin, show = options.name, experiment.needs_folder, experiment.run, experiment.show
        given = name
    if needs_folder and options.folder is None:
        parser.error(f"{options.name} needs --folder DIR, where its data lies")
    target = options.json or (RESULTS if NOTEBOOKS.is_dir() else Path.cwd()) / f"{name}{more}.json"
    try:
        device = usable_device(options.device)
        refuse_other_device(target, device)
    except ValueError as error:
        parser.error(str(error))
    target.parent.mkdir(parents=True, exist_ok=True)
    results_file = target.with_suffix(".jsonl")
    again = f"what had finished is in {results_file}, and the same command goes on from there"
    try:
        results = begin(Runs(results_file, options.folder, str(device)))
    except KeyboardInterrupt:
        print(f"\nstopped; {again}", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        text = f"{missing_memory(error)}; end other programs that use it, or take --device cpu; {again}"
        print(f"convkit papers: {text}", file=sys.stderr)
        return 1
    except (ValueError, MissingExtraError) as error:
        print(f"convkit papers: {error}", file=sys.stderr)
        return 1
    command = f"python3 -m convkit papers {given}" + (" --folder DIR" if needs_folder else "")
    command += "" if device.type == "cpu" else f" --device {device}"
    header = {"experiment": options.name, "command": command, "device": str(device), "versions": versions(device)}
    target.write_text(json.dumps(header | results, indent=1) + "\n", encoding="utf-8")
    results_file.unlink(missing_ok=True)
    print(show(results))
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
