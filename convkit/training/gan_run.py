"""`GanRun`: the state of a run of `fit_gan` between two records, and the steps up to the next one."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.data.dataset import Data
from convkit.methods.method import Knob, Method, Settings
from convkit.methods.registry import read_knobs
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.network import input_shapes
from convkit.randomness import seeded
from convkit.training.distributed import ALONE
from convkit.training.gan_plan import GanPlan, GanRecord
from convkit.training.generation import latent_of, lipschitz_between, make_images
from convkit.training.run import step_seed

KNOBS = {
    "lr": Knob(2e-4, "generator's learning rate", 0, 1),
    "discriminator_lr": Knob(2e-4, "discriminator's learning rate", 0, 1),
    "discriminator_steps": Knob(5, "discriminator's steps per step", 1, 100),
}
DIVERGED = 1e4  # a run ends when a loss is above it: both begin near 1
COLLAPSED, PATIENCE = 0.05, 50  # the made images differ so much less than real ones, for so many steps


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator: ``mean(max(0, 1 - real)) + mean(max(0, 1 + made))``, a scalar.

    Lim & Ye 2017. ``real`` and ``made`` are its outputs for real and made images, of any shape.

    >>> hinge(torch.tensor([0.0, 3.0]), torch.tensor([-0.5, -2.0]))
    tensor(0.7500)
    """
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


class Both:
    """The optimizers of the discriminator and of the generator, as one to a checkpoint."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both, and the groups of all parameters."""
        states = [part.state_dict() for part in self.parts]
        return {"parts": states, "param_groups": [group for state in states for group in state["param_groups"]]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the states of both."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


class GanRun:
    """A run: both networks, their optimizers and the history; ``advance()`` does the steps up to the next record.

    For the arguments see ``fit_gan``.
    """

    entry = GanRecord
    ranks, fused, prepared = ALONE, None, True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        data: Data,
        method: Method,
        knobs: Mapping[str, object],
        plan: GanPlan,
        averaged: nn.Module | None = None,
    ) -> None:
        own = {name: knob for name, knob in method.knobs.items() if name not in ("lr", "weight_decay", "momentum")}
        self.method, self.knobs, self.plan, self.data = replace(method, knobs={**KNOBS, **own}), knobs, plan, data
        if method.optimizer is not None:
            raise ValueError(f"{method.name} has an optimizer of its own, and a GAN is trained by Adam; take another")
        self.network_knobs = read_knobs(discriminator, method)
        self.start = self.method.settings({**self.network_knobs, **knobs})
        self.generator, self.discriminator, self.averaged = generator, discriminator, averaged
        parts = {"generator": generator, "discriminator": discriminator}
        self.model = nn.ModuleDict(parts | ({} if averaged is None else {"averaged": averaged}))
        self.latent = latent_of(generator)
        self.x = as_input(discriminator, data.train_batch(torch.arange(2, device="cpu") % len(data))[0])
        self.device = self.x.device
        where = next(generator.parameters()).device
        if where != self.device or next(discriminator.parameters()).device != self.device:
            raise ValueError(f"both networks must be on the device of the data, {self.device}; use network.to(device)")
        self._check_shapes()
        self.shapes = input_shapes(discriminator, self.x)
        self.judging = [p for p in discriminator.parameters() if p.requires_grad]
        rates = float(self.start["discriminator_lr"]), float(self.start["lr"])
        betas = (0.0, 0.9)
        self.optimizer = Both(
            torch.optim.Adam(self.judging, rates[0], betas), torch.optim.Adam(generator.parameters(), rates[1], betas)
        )
        constrain = method.constrain
        self.handle = None
        if constrain is not None:
            self.handle = constrain(self.optimizer.parts[0], discriminator, self.shapes, self.start)
        self.scaler, self.objective, self.first_loss = torch.amp.GradScaler(enabled=False), hinge, None
        self.history: list[GanRecord] = []

    def _check_shapes(self) -> None:
        """Raise ``ValueError`` unless the generator makes images like the data's, and each gets one number."""
        made = make_images(self.generator, 2)
        with evaluation_copy(self.discriminator, self.x, apart) as copy, torch.no_grad():
            outputs = copy(self.x)
        if made.shape != self.x.shape or outputs.numel() != len(self.x):
            raise ValueError(
                f"needed a generator of images {tuple(self.x.shape[1:])} and a discriminator with one number for each, "
                f"got images {tuple(made.shape[1:])} and outputs {tuple(outputs.shape[1:])}; use gan_pair(data, method)"
            )

    @property
    def steps(self) -> int:
        """Return the number of steps that are done."""
        return self.history[-1].step if self.history else 0

    @property
    def done(self) -> bool:
        """Return whether all steps are done or the run has ended early."""
        return self.steps >= self.plan.steps or bool(self.history and self.history[-1].diverged)

    def advance(self) -> GanRecord:
        """Do the steps up to the next record, which is returned and appended to ``history``."""
        began, plan, step = time.perf_counter(), self.plan, self.steps
        while True:
            step += 1
            last = step == plan.steps
            due = {
                name: every > 0 and (last or step % every == 0)
                for name, every in (("measure", plan.measure_every), ("sample", plan.sample_every))
            }
            seen = self._step(step)
            if last or step % plan.record_every == 0 or any(due.values()):
                break
        values = dict(zip(seen, torch.stack([*seen.values()]).tolist(), strict=True))
        weight = values.pop("weight")
        ended = self._why_ended(step, values, weight)
        rate = self.optimizer.parts[1].param_groups[0]["lr"]
        record = GanRecord(step, **values, lr=rate, diverged=ended)
        if due["measure"] and math.isfinite(weight):
            real = as_input(self.discriminator, self.data.train_batch(torch.arange(min(64, len(self.data))))[0])
            made = make_images(self.generator, len(real), seed=plan.seed)
            norms, _ = measure(self.discriminator, self.x)
            slope = lipschitz_between(self.discriminator, real, made)
            record = replace(record, norms=norms, lipschitz=slope)
        if due["sample"]:
            shown = self.generator if self.averaged is None else self.averaged
            record = replace(record, samples=make_images(shown, plan.samples, seed=plan.seed))
        seconds = time.perf_counter() - began + (self.history[-1].seconds if self.history else 0)
        self.history.append(replace(record, seconds=seconds))
        return self.history[-1]

    def _steer(self, step: int) -> Settings:
        """Read the knobs, pass them to the optimizers, the constraint and the layers, and return them."""
        settings = self.method.settings({**self.network_knobs, **self.knobs})
        for name, knob in self.method.knobs.items():
            if not knob.live and settings[name] != self.start[name]:
                raise ValueError(f"{name} cannot change while {self.method.name} trains; start a new run")
        for part, name in zip(self.optimizer.parts, ("discriminator_lr", "lr"), strict=True):
            for group in part.param_groups:
                group["lr"] = float(settings[name]) * self.plan.rate(step)
        if self.handle is not None:
            self.handle.update(settings)
        if self.method.steer is not None:
            self.method.steer(self.discriminator, settings)
        return settings

    def _step(self, step: int) -> dict[str, Tensor]:
        """Do the discriminator's steps and one of the generator; return its numbers, on the device."""
        settings, maker = self._steer(step - 1), self.optimizer.parts[1]
        with seeded(step_seed(self.plan.seed, step - 1), self.device):
            self.generator.train()
            self.discriminator.train()
            seen = [self._judge(settings) for _ in range(int(settings["discriminator_steps"]))][-1]
            for parameter in self.judging:
                parameter.requires_grad_(False)
            try:
                made = self._made(self.plan.batch_size)
                against = -self.discriminator(made).mean()
                maker.zero_grad()
                against.backward()
                maker.step()
            finally:
                for parameter in self.judging:
                    parameter.requires_grad_(True)
        self._average(step)
        largest = torch.stack([p.detach().abs().amax() for p in self.model.parameters()]).amax()
        spread = made.detach().std(0).mean() / seen.pop("spread")
        return {"loss": against.detach(), **seen, "spread": spread, "weight": largest}

    def _judge(self, settings: Settings) -> dict[str, Tensor]:
        """Do a step of the discriminator; return its numbers, and the spread of its real images, on the device."""
        size, judge = self.plan.batch_size, self.optimizer.parts[0]
        x = self.data.train_batch(torch.randint(len(self.data), (size,), device=self.device))[0].to(self.x)
        with torch.no_grad():
            made = self._made(size)
        real, fake = self.discriminator(torch.cat([x, made])).flatten().chunk(2)
        loss = total = hinge(real, fake)
        if self.method.penalty is not None:
            total = loss + self.method.penalty(self.discriminator, self.shapes, settings)
        judge.zero_grad()
        total.backward()
        judge.step()
        numbers = {"discriminator_loss": loss, "real": real.mean(), "made": fake.mean(), "spread": x.std(0).mean()}
        return {name: value.detach() for name, value in numbers.items()}

    def _made(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, self.latent, dtype=self.x.dtype, device=self.device))

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the averaged generator towards the generator; its counts of batches are copied."""
        if self.averaged is None:
            return
        share = 1 - min(self.plan.ema, (1 + step) / (10 + step))
        for mean, now in zip(self.averaged.state_dict().values(), self.generator.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

    def _why_ended(self, step: int, values: Mapping[str, float], weight: float) -> str | None:
        """Return why the run has diverged, or its generator collapsed, at this step; ``None`` if neither."""
        for name in ("loss", "discriminator_loss"):
            if not abs(values[name]) <= DIVERGED:
                whose = "generator" if name == "loss" else "discriminator"
                return f"the {whose}'s loss is {values[name]:.3g} at step {step}; above {DIVERGED:g} it has diverged"
        if not math.isfinite(weight):
            return f"the weights are not finite after step {step}"
        if values["spread"] < COLLAPSED:
            alive = next((r.step for r in reversed(self.history) if r.spread >= COLLAPSED), 0)
            if step - alive >= PATIENCE:
                return (
                    f"the generator has collapsed: since step {alive + 1} its images differ by less than "
                    f"{100 * COLLAPSED:g} % of what real ones do"
                )
        return None
