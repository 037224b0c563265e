"""The command ``python3 -m convkit experiments``: it runs an experiment by name and keeps what is finished."""

import argparse
import json
import sys
from pathlib import Path

import torch

from convkit.loading import ROOT, MissingExtraError
from convkit.papers import EXPERIMENTS
from convkit.provenance import versions

NOTEBOOKS = ROOT / "notebooks"
RESULTS = NOTEBOOKS / "results"


def main(arguments: list[str] | None = None) -> int:
    listing = "\n".join(f"  {name:<28} {e.words} ({e.minutes:g} min)" for name, e in EXPERIMENTS.items())
    parser = argparse.ArgumentParser(
        prog="convkit experiments",
        description=f"{__doc__}\n\nexperiments, with their minutes on two cores:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=list(EXPERIMENTS), metavar="NAME", help="one of those above")
    parser.add_argument("--folder", metavar="DIR", help="where the data lies, if it is not in the kit")
    place = "notebooks/results/NAME.json; without a clone NAME.json in this folder"
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"where the results go ({place})")
    options = parser.parse_args(arguments)
    if options.name is None:
        parser.print_help()
        return 0
    experiment = EXPERIMENTS[options.name]
    if experiment.needs_folder and options.folder is None:
        parser.error(f"{options.name} needs --folder DIR, where its data lies")
    target = options.json or (RESULTS if NOTEBOOKS.is_dir() else Path.cwd()) / f"{options.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    keep = target.with_suffix(".jsonl")
    try:
        results = experiment.run(options.folder, keep)
    except KeyboardInterrupt:
        print(f"\nstopped; what had finished is in {keep}, and the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, MissingExtraError) as error:
        print(f"convkit experiments: {error}", file=sys.stderr)
        return 1
    command = f"python3 -m convkit experiments {options.name}" + (" --folder DIR" if experiment.needs_folder else "")
    about = {"experiment": options.name, "command": command, "versions": versions(torch.device("cpu"))}
    target.write_text(json.dumps(about | results, indent=1) + "\n", encoding="utf-8")
    keep.unlink(missing_ok=True)
    print(experiment.show(results))
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
