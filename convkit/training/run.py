"""The state of a run of training between two steps, and what is measured on the way."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.checks import plain, whole
from convkit.data.augmentation import augment
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import shown_knobs
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.network import input_shapes
from convkit.randomness import seeded
from convkit.training.checkpoint import EXTRA, load_checkpoint, save_checkpoint, state_of
from convkit.training.evaluation import evaluate, recalibrate_batchnorm
from convkit.training.plan import PRECISIONS, Plan, Record

DIVERGED = 100.0  # times the loss at the start (or of guessing, if that is larger): there the run ends
MEASURED = 10  # batches from which BatchNorm's statistics are taken anew after a clip
Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]  # the loss and the outputs it judged


class Run:
    """The state of a run between two steps."""

    def __init__(
        self, model: nn.Module, data: Data, method: Method, knobs: Mapping[str, Any], plan: Plan, objective: Objective
    ) -> None:
        plan.check(data)
        self.model, self.data, self.method, self.plan, self.objective = model, data, method, plan, objective
        self.knobs, self.shown = knobs, shown_knobs(model, method)
        self.start = method.settings({**self.shown, **knobs})
        self.augment = augment(plan.augmentation)
        self.replays = whole("the objective's replays", getattr(objective, "replays", 1), 1)
        parameters = [p for p in model.parameters() if p.requires_grad]
        x = as_input(model, data.train_batch(torch.arange(min(2, len(data))))[0])
        if not parameters or parameters[0].device != x.device:
            where = parameters[0].device if parameters else "no device (nothing to train)"
            raise ValueError(
                f"the network and the data must be on one device, got {where} and {x.device}; use data.to(device)"
            )
        if plan.precision != "float32" and x.dtype != torch.float32:
            raise ValueError(
                f"precision {plan.precision} needs a network in float32, got one in {x.dtype}, which autocast would "
                "leave as it is; use model.float(), or leave precision out"
            )
        if int(data.labels.max()) >= data.classes or int(data.labels.min()) < 0:
            raise ValueError(
                f"labels must be from 0 to {data.classes - 1}, got {int(data.labels.min())} to {int(data.labels.max())}"
            )
        self.x = x
        gains = _gains(model)
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in gains]
        others = [p for p in parameters if p.ndim <= 1 or id(p) in gains]
        groups = [{"params": decayed, "decayed": True}, {"params": others, "decayed": False}]
        self.optimizer = torch.optim.SGD(
            [g for g in groups if g["params"]], lr=self.start["lr"], momentum=self.start["momentum"]
        )
        self.shapes = input_shapes(model, x)
        with evaluation_copy(model, x, apart, compiled=True) as copy, torch.no_grad():
            outputs = tuple(copy(x).shape)
        if outputs != (len(x), data.classes):
            raise ValueError(f"the network must give {data.classes} logits an image, got outputs of shape {outputs}")
        self.handle = method.constrain and method.constrain(self.optimizer, model, self.shapes, self.start)
        self.scaler = torch.amp.GradScaler(x.device.type, enabled=plan.precision == "float16")
        self.history: list[Record] = []

    @property
    def done(self) -> bool:
        return len(self.history) >= self.plan.steps or bool(self.history and self.history[-1].diverged)

    def step(self) -> Record:
        began = time.perf_counter()
        number, plan = len(self.history), self.plan
        settings = self._steer(number)
        with seeded(_mixed(plan.seed, number), self.x.device):
            x, y = self._batch(number)
            self.model.train()
            self.optimizer.zero_grad()
            with torch.autocast(x.device.type, PRECISIONS[plan.precision], enabled=plan.precision != "float32"):
                loss, logits = self.objective(self.model, x, y)
            total = (
                loss if self.method.penalty is None else loss + self.method.penalty(self.model, self.shapes, settings)
            )
            value, accuracy = float(total.detach()), float((logits.argmax(1) == y).float().mean())
            diverged = self._lost(value)
            if diverged is None:
                self.scaler.scale(total).backward()
                diverged = self._update()
                if diverged is None and self.method.unsettles and self.method.unsettles(number + 1, settings):
                    recalibrate_batchnorm(self.model, (self._batch(number + 1 + i)[0] for i in range(MEASURED)))
        last = number + 1 == plan.steps
        due = {
            name: every and (last or (number + 1) % every == 0) and not diverged
            for name, every in (("evaluate", plan.evaluate_every), ("measure", plan.measure_every))
        }
        test = evaluate(self.model, self.data) if due["evaluate"] else None
        norms, conditions = measure(self.model, self.x) if due["measure"] else (None, None)
        seconds = time.perf_counter() - began + (self.history[-1].seconds if self.history else 0)
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append(Record(number + 1, value, accuracy, rate, test, norms, conditions, diverged, seconds))
        return self.history[-1]

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds."""
        return {
            "belongs_to": self._belongs_to(),
            "history": [asdict(record) for record in self.history],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "handle": state_of(self.handle),
            "scaler": self.scaler.state_dict(),
            "objective": state_of(self.objective),
        }

    def save(self, path: str | Path) -> None:
        save_checkpoint(path, self.state())

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint; nothing is changed unless it is one of this run."""
        state = load_checkpoint(path)
        ours, theirs = self._belongs_to(), dict(state.get("belongs_to", {}))
        weights = theirs.get("weights", {})
        theirs["weights"] = {name: kind for name, kind in weights.items() if not name.endswith(EXTRA)}
        for name in ours:
            if ours[name] != theirs.get(name):
                raise ValueError(
                    f"the checkpoint {path} belongs to another run: its {name} is {theirs.get(name)!r}, this one's "
                    f"{ours[name]!r}; go on with the same, or take another file"
                )
        groups, found = _sizes(self.optimizer.state_dict()), _sizes(state["optimizer"])
        if groups != found:
            raise ValueError(
                f"the checkpoint {path} belongs to another run: its optimizer has groups of {found} parameters, this "
                f"one's {groups}; finish it with the version of the kit that began it"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.handle is not None:
            self.handle.load_state_dict(state["handle"])
        self.scaler.load_state_dict(state["scaler"])
        if hasattr(self.objective, "load_state_dict"):
            self.objective.load_state_dict(state["objective"])  # pyright: ignore
        self.history = [Record(**record) for record in state["history"]]

    def _belongs_to(self) -> dict[str, Any]:
        tensors = {name: t for name, t in self.model.state_dict().items() if not name.endswith(EXTRA)}
        weights = {name: [str(t.dtype), *t.shape] for name, t in tensors.items()}
        data = [self.data.name, len(self.data), len(self.data.test_labels)]
        plan = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.plan).items()}
        objective = repr(self.objective) if is_dataclass(self.objective) else self.objective
        objective = getattr(
            objective, "__qualname__", objective if isinstance(objective, str) else type(objective).__qualname__
        )
        return plain({"method": self.method.name, **plan, "objective": objective, "data": data, "weights": weights})

    def _steer(self, number: int) -> dict[str, Any]:
        """Give the knobs as they are now to all that listens."""
        settings = self.method.settings({**self.shown, **self.knobs})
        for name, knob in self.method.knobs.items():
            if not knob.live and settings[name] != self.start[name]:
                raise ValueError(
                    f"{name} cannot change while {self.method.name} trains: it is {self.start[name]!r}, got "
                    f"{settings[name]!r}; start a new run"
                )
        for group in self.optimizer.param_groups:
            group["lr"] = settings["lr"] * self.plan.rate(number)
            group["momentum"] = settings["momentum"]
            group["weight_decay"] = settings["weight_decay"] if group["decayed"] else 0.0
        if self.handle is not None:
            self.handle.update(settings)
        if self.method.steer is not None:
            self.method.steer(self.model, settings)
        return settings

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Epochs are permutations drawn by the seed and the epoch; an incomplete last batch is left out.

        An objective with ``replays`` (free adversarial training) sees each batch that many times.
        """
        number //= self.replays
        epoch, place = divmod(number, len(self.data) // self.plan.batch_size)
        order = torch.randperm(
            len(self.data), generator=torch.Generator().manual_seed(_mixed(self.plan.seed, -1 - epoch))
        )
        x, y = self.data.train_batch(order[place * self.plan.batch_size :][: self.plan.batch_size])
        return self.augment(x, torch.Generator().manual_seed(_mixed(self.plan.seed, number))).to(self.x.dtype), y

    def _lost(self, loss: float) -> str | None:
        start = max(self.history[0].loss if self.history else loss, math.log(self.data.classes))
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {len(self.history) + 1}"
        if loss > DIVERGED * start:
            step = len(self.history) + 1
            return f"the loss {loss:.3g} at step {step} is above {DIVERGED:g} times its start, {start:.3g}"
        return None

    def _update(self) -> str | None:
        try:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        except ValueError:  # a hook has met weights that are not finite
            if all(bool(p.isfinite().all()) for p in self.model.parameters()):
                raise
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            return f"the weights are not finite after step {len(self.history) + 1}"
        return None


def _gains(model: nn.Module) -> set[int]:
    """The ids of what only scales the rows of another weight, one number a row: g of weight norm, whatever its axes."""
    gains = set()
    for module in model.modules():
        for names in (("original0", "original1"), ("weight_g", "weight_v")):
            g, v = (getattr(module, name, None) for name in names)
            if isinstance(g, Tensor) and isinstance(v, Tensor) and g.shape == (len(v), *[1] * (v.ndim - 1)) != v.shape:
                gains.add(id(g))
    return gains


def _sizes(state: Mapping[str, Any]) -> list[int]:
    return [len(group["params"]) for group in state["param_groups"]]


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number * 7919 + 2**40) % 2**63
