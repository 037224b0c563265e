"""Training runs on several processes of Gloo; each process writes what it saw: ``python FILE FOLDER``, by torchrun."""

import contextlib
import io
import json
import math
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from convkit.data.registry import digits
from convkit.data.subsets import subset
from convkit.methods.build import network
from convkit.papers import train
from convkit.papers.protocols import PAPERS, Cell, Protocol, Scale
from convkit.training.distributed import ALONE, joined
from convkit.training.loop import cross_entropy, fit

PLAN = {"steps": 6, "batch_size": 12, "evaluate_every": 3}
METHOD, KNOBS = "sphere_without_noise", {"lr": 0.05}  # a constraint, and no BatchNorm


def begin(folder, ranks=ALONE, method=METHOD, knobs=KNOBS, **options):
    data = subset(digits(), 60)
    model = network("cnn9", data, method, dtype=torch.float64, knobs=knobs, widths=(3, 4, 5))
    return fit(model, data, method, knobs=knobs, ranks=ranks, **{**PLAN, **options}), model


def sentence(call):
    try:
        call()
    except ValueError as error:
        return str(error)


def main(folder):
    seen = {}
    with joined(torch.device("cpu")) as ranks:
        rank = seen["rank"] = ranks.rank
        file = folder / "run.pt"
        run, _ = begin(folder, ranks, checkpoint=file)
        seen["first"] = [next(run).loss for _ in range(3)]
        run.close()
        dist.barrier()
        run, model = begin(folder, ranks, checkpoint=file)
        seen["losses"] = [record.loss for record in run]
        if rank == 0:
            torch.save(model.state_dict(), folder / "weights.pt")
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        seen["apart"] = float((weights - ranks.mean(weights)[0]).abs().max())

        drawn = []

        def noisy(model, x, y):
            drawn.append([float(torch.rand(())), float(x.sum())])
            return cross_entropy(model, x, y)

        _ = list(begin(folder, ranks, objective=noisy, augmentation="crop", steps=2)[0])
        seen["drawn"] = list(drawn)

        def breaking(model, x, y):  # at the third step of one process
            drawn.append(None)
            logits = model(x)
            return F.cross_entropy(logits, y) * (math.inf if rank == 1 and len(drawn) == 5 else 1), logits

        seen["diverged"] = [record.diverged for record in begin(folder, ranks, objective=breaking)[0]]
        seen["seeds"] = sentence(lambda: begin(folder, ranks, seed=rank))
        seen["knobs"] = sentence(lambda: begin(folder, ranks, knobs={**KNOBS, "lr": 0.1 + rank}))
        seen["batch"] = sentence(lambda: begin(folder, ranks, batch_size=9))
        seen["batchnorm"] = sentence(lambda: begin(folder, ranks, method="batchnorm", knobs={}))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            seen["status"] = command(folder)
        seen["said"] = said.getvalue()
        dist.barrier()
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))


def command(folder):
    """Train a cell of a small table by the command."""
    size = {"minutes": 0, "data": "digits", "images": 60, "tests": 20, "seeds": [0]}
    small = Scale(**size, model="cnn9", options={"widths": (3, 4, 5)}, plan={"epochs": 1, "batch_size": 12})
    PAPERS.register("X-table1", Protocol("X", "Table 1", "", [Cell("one", METHOD, KNOBS)], {"small": small}))
    return train.main(["X-table1", "--checkpoint", str(folder / "command.pt"), "--seed", "3"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
