"""The command ``python3 -m convkit train``, which trains one network of a paper's table, also on several processes."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from convkit.loading import MissingExtraError

NOTICES = 20  # lines of progress of a run
Entry = TypeVar("Entry")


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``python3 -m convkit train`` and return its exit status.

    Started by ``torchrun``, its processes train together, each with its part of every batch. Process 0 prints the
    progress and the test accuracy and writes the checkpoint, which holds all records.
    """
    parser = argparse.ArgumentParser(prog="convkit train", description=__doc__)
    parser.add_argument("key", metavar="KEY", help="a table of the papers, as `convkit papers` lists them")
    parser.add_argument("--cell", metavar="NAME", help="the network of the table; without it, the first one")
    parser.add_argument("--scale", metavar="NAME", help="how large it is trained; without it, the smallest scale")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--data", metavar="DIR", help="where the data lies, if it is not in the kit")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the run is saved there and gone on with")
    parser.add_argument("--device", default="cpu", help="where it trains: cpu, or cuda, for one GPU per process")
    options = parser.parse_args(arguments)
    rank = int(os.environ.get("RANK", "0"))
    try:
        train(options, say=print if rank == 0 else _silent)
    except KeyboardInterrupt:
        more = f"; the same command goes on from {options.checkpoint}" if options.checkpoint else ""
        print(f"\nstopped{more}", file=sys.stderr)
        return 130
    except (ValueError, MissingExtraError, OSError) as error:
        print(f"convkit train{f' (process {rank})' if rank else ''}: {error}", file=sys.stderr)
        return 1
    return 0


def train(options: argparse.Namespace, say: Callable[[str], object]) -> None:
    """Train the network that the options name, and say how it goes."""
    from convkit.methods.build import network
    from convkit.methods.registry import METHODS
    from convkit.papers.cells import data_of
    from convkit.papers.protocols import PAPERS
    from convkit.papers.runs import VARIANTS, load_experiments
    from convkit.papers.tables import knobs_of, setting_of
    from convkit.provenance import usable_device
    from convkit.training.adversarial import get_objective
    from convkit.training.distributed import joined, local_device
    from convkit.training.evaluation import evaluate
    from convkit.training.loop import fit
    from convkit.training.plan import Plan

    load_experiments()
    protocol = PAPERS[options.key]
    if protocol.run is not None:
        raise ValueError(f"{options.key} trains no classifier; take convkit papers {options.key}")
    scale = _named(protocol.scales, options.scale, f"{options.key} has the scales")
    cell = _named({cell.name: cell for cell in protocol.cells}, options.cell, f"{options.key} has the cells")
    setting, knobs = setting_of(cell, scale), knobs_of(cell, scale)
    if setting["early_stop"]:
        raise ValueError(
            f"{cell.name!r} is stopped early, and train goes to the end; take convkit papers {options.key}"
        )
    if options.data is None and setting["data"] not in ("digits", "shapes"):
        raise ValueError(f"{options.key} needs --data DIR, where {setting['data']} lies")
    device = local_device(usable_device(options.device))
    with joined(device) as ranks:
        data = data_of(setting, options.seed, False, options.data, str(device))
        method = VARIANTS.get(cell.method) or METHODS[cell.method]
        model = network(setting["model"], data, method, seed=options.seed, knobs=knobs, **setting["options"])
        plan = {**setting["plan"], "seed": options.seed}
        plan["batch_size"] = min(plan["batch_size"], len(data))
        goal = get_objective(setting["objective"], setting["eps"])
        run = fit(
            *(model, data, method), knobs=knobs, objective=goal, checkpoint=options.checkpoint, ranks=ranks, **plan
        )
        steps = Plan.of(len(data), **plan).steps
        say(f"{options.key}, {cell.name}, seed {options.seed}: {steps} steps on {ranks.count} x {device.type}")
        told = 0
        for record in run:
            if record.step * NOTICES // steps > told or record.diverged:
                told = record.step * NOTICES // steps
                now = f"loss {record.loss:8.4f}  accuracy {record.accuracy:7.1%}  lr {record.lr:.4g}"
                say(f"step {record.step:>7}  {now}")
            if record.diverged:
                say(f"lost: {record.diverged}")
                return
        say(f"test accuracy {evaluate(model, data):.2%}")


def _silent(words: str) -> None:
    """Say nothing: process 0 does."""


def _named(found: Mapping[str, Entry], name: str | None, words: str) -> Entry:
    """Return the entry of this name, or the first one; raise ``ValueError`` for a name that is not there."""
    if name is not None and name not in found:
        raise ValueError(f"{words} {', '.join(map(repr, found))}, got {name!r}")
    return found[next(iter(found)) if name is None else name]


if __name__ == "__main__":
    sys.exit(main())
