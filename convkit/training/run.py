"""`TrainingRun`: the state of a training run between two records, and the steps up to the next one."""

import math
import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.checks import whole
from convkit.data.augmentation import augment
from convkit.data.dataset import Data
from convkit.methods.method import Method, Settings
from convkit.methods.registry import read_knobs
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.network import input_shapes
from convkit.randomness import seeded
from convkit.training.distributed import ALONE, Ranks
from convkit.training.evaluation import evaluate, recalibrate_batchnorm
from convkit.training.plan import PRECISIONS, Plan, Record

DIVERGED = 100.0  # a run ends when its loss is so many times its first loss, or that of guessing if it is larger
RECALIBRATION_BATCHES = 10  # batches from which BatchNorm is recalibrated after a clip


class Objective(Protocol):
    """The signature of an objective: the loss of a batch, and the logits that it was computed from.

    Args:
        model: The network, in training mode.
        x: Images ``(batch, channels, height, width)`` in [0, 1].
        y: Labels ``(batch,)``, int64.

    Returns:
        The loss, a scalar with a gradient, and the logits ``(batch, classes)`` whose accuracy is recorded.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /) -> tuple[Tensor, Tensor]: ...


class TrainingRun:
    """A training run: network, optimizer, constraint and history; ``advance()`` does the steps up to the next record.

    Args:
        model: The network, which is trained in place.
        data: Training and test images.
        method: The method whose layers the network has.
        knobs: Settings of the method, read at each step.
        plan: The settings of the run.
        objective: Returns loss and logits of a batch.
        ranks: The place of this process among those of the run.

    Raises ``ValueError`` for arguments that do not fit each other (see ``fit``).
    """

    entry = Record  # of its history

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        method: Method,
        knobs: Mapping[str, object],
        plan: Plan,
        objective: Objective,
        ranks: Ranks = ALONE,
    ) -> None:
        plan.check(data)
        ranks.check(plan.batch_size)
        self.model, self.data, self.method, self.plan, self.objective = model, data, method, plan, objective
        self.ranks = ranks
        self.knobs, self.network_knobs = knobs, read_knobs(model, method)
        self.start = method.settings({**self.network_knobs, **knobs})
        self.augment = augment(plan.augmentation, data)
        self.replays = whole("the objective's replays", getattr(objective, "replays", 1), 1)
        parameters = [p for p in model.parameters() if p.requires_grad]
        x = as_input(model, data.train_batch(torch.arange(min(2, len(data)), device="cpu"))[0])
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
        self.x, self.device = x, x.device
        self.weights: list[Tensor] = [p for p in model.parameters() if p.numel()]
        gains = _gains(model)
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in gains]
        others = [p for p in parameters if p.ndim <= 1 or id(p) in gains]
        groups = [{"params": decayed, "decayed": True}, {"params": others, "decayed": False}]
        lr, momentum = float(self.start["lr"]), float(self.start["momentum"])
        self.shapes = input_shapes(model, x)
        # one launch for all weights, which also divides by the scale of the gradients, unread
        self.fused = True if self.device.type == "cuda" and method.optimizer is None else None
        self.optimizer: torch.optim.Optimizer
        if method.optimizer is None:
            self.optimizer = torch.optim.SGD([g for g in groups if g["params"]], lr, momentum, fused=self.fused)
        else:
            self.optimizer = method.optimizer(model, self.shapes, self.start)
        self.prepared = False
        with evaluation_copy(model, x, apart, compiled=True) as copy, torch.no_grad():
            outputs = tuple(copy(x).shape)
        if outputs != (len(x), data.classes):
            raise ValueError(f"the network must give {data.classes} logits per image, got outputs of shape {outputs}")
        constrain = method.constrain
        self.handle = None if constrain is None else constrain(self.optimizer, model, self.shapes, self.start)
        self.network = model  # what the objective calls
        self.scaler = torch.amp.GradScaler(x.device.type, enabled=plan.precision == "float16")
        self.history: list[Record] = []
        self.first_loss: float | Tensor | None = None  # that of step 1, on the device until it is read
        self.orders: dict[int, Tensor] = {}  # of the images, by epoch

    @property
    def steps(self) -> int:
        """Return the number of steps that are done."""
        return self.history[-1].step if self.history else 0

    @property
    def done(self) -> bool:
        """Return whether all steps are done or the run has diverged."""
        return self.steps >= self.plan.steps or bool(self.history and self.history[-1].diverged)

    def advance(self) -> Record:
        """Do the steps up to the next record, which is returned and appended to ``history``."""
        began = time.perf_counter()
        plan, number, seen = self.plan, self.steps, None
        due: dict[str, bool] = {}
        while seen is None:
            number += 1
            last = number == plan.steps
            for name, every in (("evaluate", plan.evaluate_every), ("measure", plan.measure_every)):
                due[name] = every > 0 and (last or number % every == 0)
            seen = self._step(number, last or number % plan.record_every == 0 or any(due.values()))
        loss, accuracy, diverged = seen
        test = evaluate(self.model, self.data) if due["evaluate"] and not diverged else None
        norms, conditions = measure(self.model, self.x) if due["measure"] and not diverged else (None, None)
        seconds = time.perf_counter() - began + (self.history[-1].seconds if self.history else 0)
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append(Record(number, loss, accuracy, rate, test, norms, conditions, diverged, seconds))
        return self.history[-1]

    def _steer(self, number: int) -> Settings:
        """Read the knobs, pass them to the optimizer, the constraint and the layers, and return them."""
        settings = self.method.settings({**self.network_knobs, **self.knobs})
        for name, knob in self.method.knobs.items():
            if not knob.live and settings[name] != self.start[name]:
                raise ValueError(
                    f"{name} cannot change while {self.method.name} trains: it is {self.start[name]!r}, got "
                    f"{settings[name]!r}; start a new run"
                )
        for group in self.optimizer.param_groups:
            group["lr"] = float(settings["lr"]) * self.plan.rate(number)
            group["momentum"] = settings["momentum"]
            decayed = self.plan.decay_gains or group.get("decayed", True)
            group["weight_decay"] = settings["weight_decay"] if decayed else 0.0
        if self.handle is not None:
            self.handle.update(settings)
        if self.method.steer is not None:
            self.method.steer(self.model, settings)
        return settings

    def _step(self, number: int, read: bool) -> tuple[float, float, str | None] | None:
        """Do a step, counted from 1; return its loss, its accuracy and why the run has diverged, if they are read.

        They are read at once and after all else, since reading makes the host wait for a GPU.
        """
        settings, precision, seen = self._steer(number - 1), self.plan.precision, dict[str, Tensor]()
        with seeded(step_seed(self.plan.seed, number - 1, self.ranks.rank), self.device):
            try:
                x, y = self._batch(number - 1)
                self.model.train()
                self.optimizer.zero_grad()
                with torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "float32"):
                    total, logits = self.objective(self.network, x, y)
                if self.method.penalty is not None:
                    total = total + self.method.penalty(self.model, self.shapes, settings)
                seen["loss"], seen["accuracy"] = total.detach().reshape(()), (logits.argmax(1) == y).float().mean()
                if read or self.first_loss is None:
                    seen["loss"], seen["accuracy"] = self.ranks.mean(seen["loss"], seen["accuracy"])
                if self.first_loss is None:
                    self.first_loss = seen["loss"]
                # the CPU, which waits for nothing, reads the loss before it changes a weight
                if not (read and self.device.type == "cpu" and self._divergence(number, float(seen["loss"]))):
                    self._prepare_momenta()
                    self.scaler.scale(total).backward()
                    if self.ranks.count > 1:  # what a constraint draws is the same in all processes
                        torch.manual_seed(step_seed(self.plan.seed, number - 1))
                    self.scaler.step(self.optimizer)
                    self.scaler.update()
            except ValueError:  # from a hook or a penalty that met weights that are not finite
                if self._largest_weight().isfinite():
                    raise
                read = True
            diverged, values = None, dict[str, float]()
            if read:
                seen["weight"] = self._largest_weight()
                if isinstance(self.first_loss, Tensor):
                    seen["first"] = self.first_loss
                values = dict(zip(seen, torch.stack([*seen.values()]).tolist(), strict=True))
                self.first_loss = values.get("first", self.first_loss)
                diverged = self._divergence(number, values["loss"]) if "loss" in values else None
                if not (diverged or math.isfinite(values["weight"])):
                    diverged = f"the weights are not finite after step {number}"
            if not diverged and self.method.unsettles and self.method.unsettles(number, settings):
                recalibrate_batchnorm(self.model, (self._batch(number + i)[0] for i in range(RECALIBRATION_BATCHES)))
        return (values.get("loss", math.nan), values.get("accuracy", math.nan), diverged) if read else None

    def _prepare_momenta(self) -> None:
        """Give each weight of a fused optimizer a momentum of its memory format, once, after a start or a load.

        The fused step does not convert between formats. It would leave new momenta without numbers if the scale of the
        gradients makes it skip the first step.
        """
        if self.fused and not self.prepared:
            for weight in (p for group in self.optimizer.param_groups for p in group["params"]):
                momentum, state = torch.zeros_like(weight), self.optimizer.state[weight]
                state["momentum_buffer"] = momentum.copy_(state.get("momentum_buffer", momentum))
        self.prepared = True

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a step, counted from 0.

        Each epoch is a permutation drawn from the seed and the number of the epoch; its incomplete last batch is
        dropped. Of several processes each takes its part of the batch. An objective with ``replays`` (free adversarial
        training) gets each batch that many times.
        """
        number //= self.replays
        epoch, place = divmod(number, len(self.data) // self.plan.batch_size)
        if epoch not in self.orders:
            order = torch.randperm(len(self.data), generator=self._generator(-1 - epoch), device=self.device)
            self.orders = {**dict(list(self.orders.items())[-1:]), epoch: order}  # two: recalibration looks ahead
        batch = self.ranks.part(self.orders[epoch][place * self.plan.batch_size :][: self.plan.batch_size])
        x, y = self.data.train_batch(batch, seed=step_seed(self.plan.seed, number))  # FolderData crops by it
        return self.augment(x, self._generator(number, self.ranks.rank)).to(self.x.dtype), y

    def _generator(self, number: int, rank: int = 0) -> torch.Generator:
        """Return a new generator on the device, seeded for one step or, from -1 down, for one epoch."""
        return torch.Generator(self.device).manual_seed(step_seed(self.plan.seed, number, rank))

    def _divergence(self, number: int, loss: float) -> str | None:
        """Return why a run with this loss at this step has diverged; ``None`` if it has not."""
        first = loss if self.first_loss is None else float(self.first_loss)
        start = max(first, math.log(self.data.classes))
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {number}"
        if loss > DIVERGED * start:
            return f"the loss {loss:.3g} at step {number} is above {DIVERGED:g} times its start, {start:.3g}"
        return None

    @torch.no_grad()
    def _largest_weight(self) -> Tensor:
        """Return the largest absolute value of all weights, which is NaN or infinite where one of them is."""
        if self.device.type == "cuda":  # a few launches for all
            sizes = torch._foreach_norm(self.weights, math.inf)  # pyright: ignore[reportPrivateImportUsage]
        else:
            sizes = [weight.abs().amax() for weight in self.weights]
        return torch.stack(sizes).amax()


def _gains(model: nn.Module) -> set[int]:
    """Return the ids of parameters that only scale the rows of another weight, such as g of weight norm."""
    gains = set()
    for module in model.modules():
        for names in (("original0", "original1"), ("weight_g", "weight_v")):
            g, v = (getattr(module, name, None) for name in names)
            if isinstance(g, Tensor) and isinstance(v, Tensor) and g.shape == (len(v), *[1] * (v.ndim - 1)) != v.shape:
                gains.add(id(g))
    return gains


def step_seed(seed: int, number: int, rank: int = 0) -> int:
    """Return a seed for one step of one process, different for every step."""
    return (seed * 1_000_003 + number * 7919 + rank * 15_485_863 * 2**24 + 2**40) % 2**63
