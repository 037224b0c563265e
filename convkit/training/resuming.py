"""`RunCheckpoint`: a training run in a file, its history in another one to which each save appends."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from convkit.checks import plain
from convkit.training.checkpoint import EXTRA, load_checkpoint, save_checkpoint, state_of
from convkit.training.plan import Plan

FORMAT = 2  # of a run's checkpoint; in format 1, without a number, each save wrote the whole history


class RunCheckpoint:
    """The checkpoint of a training run at a path.

    Until the run is done, its records are lines of JSON in a second file, ``PATH.history``, which only grows. The
    checkpoint holds the length and the digest of the lines that belong to it. A kill between the two writes leaves
    lines behind them, which are ignored. The last checkpoint of a run holds all records, and the second file goes.

    Args:
        run: The run, a ``TrainingRun`` or a ``GanRun``.
        path: The file.
    """

    def __init__(self, run: Any, path: str | Path) -> None:
        self.run, self.path = run, Path(path)
        self.lines = _Lines(self.path.with_name(f"{self.path.name}.history"))

    def save(self) -> None:
        """Write the state of the run, and the records that are new."""
        history: Any = _as_lines(self.run.history) if self.run.done else self.lines.append(self.run.history)
        save_checkpoint(self.path, {**state_of_run(self.run), "history": history})
        if self.run.done:
            self.lines.path.unlink(missing_ok=True)

    def load(self) -> None:
        """Continue the run; raise ``ValueError``, before any change, for a checkpoint of another run."""
        run, state = self.run, load_checkpoint(self.path)
        if state.get("format", 1) > FORMAT:
            raise ValueError(
                f"the checkpoint {self.path} has format {state['format']}, and this version of the kit reads formats "
                f"1 to {FORMAT}; finish it with the version of the kit that began it"
            )
        _check_same(self.path, belongs_to(run), state)
        groups, found = _sizes(run.optimizer.state_dict()), _sizes(state["optimizer"])
        if groups != found:
            raise ValueError(
                f"the checkpoint {self.path} belongs to another run: its optimizer has groups of {found} parameters, "
                f"this one's {groups}; finish it with the version of the kit that began it"
            )
        history = state["history"]
        if isinstance(history, Mapping):
            history = self.lines.read(history, self.path)
        elif isinstance(history, str):
            history = list(map(json.loads, history.splitlines()))
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = run.fused  # as this device steps, not as the one did that the checkpoint is from
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if run.handle is not None:
            run.handle.load_state_dict(state["handle"])
        run.scaler.load_state_dict(state["scaler"])
        run.prepared = False
        if hasattr(run.objective, "load_state_dict"):
            run.objective.load_state_dict(state["objective"])  # pyright: ignore
        run.history = [run.entry(**record) for record in history]
        run.first_loss = state.get("first_loss", run.history[0].loss if run.history else None)
        if run.done:
            self.lines.path.unlink(missing_ok=True)  # a kill after the last save left it


def state_of_run(run: Any) -> dict[str, object]:
    """Return what a checkpoint of the run holds, besides its history."""
    return {
        "format": FORMAT,
        "belongs_to": belongs_to(run),
        "first_loss": run.first_loss,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "handle": state_of(run.handle),
        "scaler": run.scaler.state_dict(),
        "objective": state_of(run.objective),
    }


# ---- history ---------------------------------------------------------------------------------------------------------
class _Lines:
    """A file of records, one per line, of which the first ``count`` are known to be as this run has them."""

    def __init__(self, path: Path) -> None:
        self.path, self.count, self.size, self.digest = path, 0, 0, hashlib.sha256()

    def append(self, history: Sequence[Any]) -> dict[str, object]:
        """Write the records that the file does not have; return what identifies all of them."""
        if not self.path.exists() or self.path.stat().st_size < self.size:  # somebody has removed it: all anew
            self.count, self.size, self.digest = 0, 0, hashlib.sha256()
        new = _as_lines(history[self.count :]).encode()
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.seek(self.size)
            file.write(new)
            file.truncate()  # what a kill has left behind
        self.digest.update(new)
        self.count, self.size = len(history), self.size + len(new)
        return {"records": self.count, "bytes": self.size, "digest": self.digest.hexdigest()}

    def read(self, mark: Mapping[str, Any], checkpoint: Path) -> list[dict[str, Any]]:
        """Return the records of a checkpoint; raise ``ValueError`` if they are not in the file."""
        if not self.path.exists():
            raise ValueError(
                f"the checkpoint {checkpoint} needs its history, the file {self.path.name} beside it, which is not "
                "there; put it back, or take another file"
            )
        with self.path.open("rb") as file:
            text = file.read(mark["bytes"])
        digest = hashlib.sha256(text)
        if digest.hexdigest() != mark["digest"]:
            raise ValueError(
                f"the history {self.path} does not belong to the checkpoint {checkpoint.name}, or has been changed; "
                "copy both files from one place, or take another file"
            )
        self.count, self.size, self.digest = mark["records"], mark["bytes"], digest
        return list(map(json.loads, text.decode().splitlines()))


def _as_lines(history: Sequence[Any]) -> str:
    """Return records as lines of JSON, without the fields that are ``None`` or hold images."""
    entries = (
        {name: value for name, value in vars(record).items() if not isinstance(value, Tensor | None)}
        for record in history
    )
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


# ---- identity --------------------------------------------------------------------------------------------------------
def belongs_to(run: Any) -> dict[str, Any]:
    """Return what identifies the run in a checkpoint."""
    tensors = {name: t for name, t in run.model.state_dict().items() if not name.endswith(EXTRA)}
    weights = {name: [str(t.dtype), *t.shape] for name, t in tensors.items()}
    data = [run.data.name, len(run.data), len(run.data.test_labels)]
    objective = repr(run.objective) if is_dataclass(run.objective) else run.objective
    objective = getattr(
        objective, "__qualname__", objective if isinstance(objective, str) else type(objective).__qualname__
    )
    plan = _as_lists(asdict(run.plan))
    return plain({"method": run.method.name, **plan, "objective": objective, "data": data, "weights": weights})


def _check_same(path: Path, ours: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the checkpoint belongs to another run; a field that it does not know has its default."""
    defaults = {field.name: field.default for field in fields(Plan) if field.default is not MISSING}
    theirs = _as_lists(defaults) | state.get("belongs_to", {})
    weights = theirs.get("weights", {})
    theirs["weights"] = {name: kind for name, kind in weights.items() if not name.endswith(EXTRA)}
    for name in ours:
        if ours[name] != theirs.get(name):
            raise ValueError(
                f"the checkpoint {path} belongs to another run: its {name} is {theirs.get(name)!r}, this one's "
                f"{ours[name]!r}; go on with the same, or take another file"
            )


def _as_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _sizes(state: Mapping[str, Any]) -> list[int]:
    """Return the number of parameters in each group of an optimizer's state."""
    return [len(group["params"]) for group in state["param_groups"]]
