"""`fit`: the training loop, a generator of records, one per step."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.training.checkpoint import check_place, check_resumable, check_state
from convkit.training.distributed import ALONE, Ranks, code_version, content
from convkit.training.evaluation import evaluate
from convkit.training.plan import Plan, PlanOptions, Record
from convkit.training.resuming import RunCheckpoint, belongs_to, state_of_run
from convkit.training.run import Objective, TrainingRun

__all__ = ["cross_entropy", "evaluate", "fit", "measure"]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of a batch, and the logits: the objective of plain training.

    Args:
        model: The network.
        x: Images ``(batch, channels, height, width)``.
        y: Labels ``(batch,)``.
    """
    logits = model(x)
    return F.cross_entropy(logits, y), logits


def fit(
    model: nn.Module,
    data: Data,
    method: str | Method,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    knobs: Mapping[str, object] | None = None,
    objective: Objective = cross_entropy,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    channels_last: bool = False,
    factor_epochs: float | None = None,
    ranks: Ranks = ALONE,
    **plan: Unpack[PlanOptions],
) -> Generator[Record, None, None]:
    """Train ``model`` in place by SGD with momentum, and yield a ``Record`` per step, or per ``record_every`` steps.

    ``model`` must have the layers of ``method``, as ``network`` makes it, and lie on the device of the data. Weight
    decay acts on weights of two or more axes, not on biases and gains (those of ``weight_norm`` included), unless the
    plan has ``decay_gains``. Batches are converted to the dtype of the weights. Every step depends on the state, the
    seed and its number alone, even if other code draws random numbers in between.

    A run whose loss is not finite, or above ``DIVERGED`` (100) times its start, ends with a record that says so. After
    a clip, BatchNorm's running statistics are computed anew from the next 10 batches.

    On a GPU, batches and augmentations are drawn by a generator of that device, so a seed gives other ones than on the
    CPU, and the weights of a diverged run are those after the last step, which the CPU does not do.

    Args:
        model: The network.
        data: Training and test images.
        method: A name in ``METHODS``, or a ``Method``.
        steps: Number of optimizer steps.
        epochs: In place of ``steps``, how often all training images are shown: see ``Plan.of``.
        knobs: Settings of the method. The mapping is read at each step, so changing a live knob in it steers the run.
            Of the others, those that shaped the network are read from its layers and the rest have their defaults:
            give a learning rate or a bound here, not to ``network`` alone.
        objective: Returns loss and logits of a batch; see ``OBJECTIVES`` for adversarial training.
        checkpoint: A file. The run is saved in it every ``checkpoint_every`` steps (at the next record), at its end and
            when the generator is closed. Until the end a second file, ``CHECKPOINT.history``, holds its records. Called
            again with the same file, ``fit`` yields the records of the steps that are done, then goes on; on the CPU
            the history is the same bit for bit.
        checkpoint_every: Number of steps between two checkpoints.
        channels_last: Whether the network is converted to torch's memory format ``channels_last``.
        factor_epochs: In place of the plan's ``factor_steps``: see ``Plan.of``.
        ranks: The place of this process among several that train together (see ``joined``). All of them call ``fit``
            with the same arguments and get the same records. Each takes its part of every batch and has random numbers
            of its own; process 0 writes the checkpoints, which all of them read.
        plan: The other fields of ``Plan``, such as ``seed``, ``batch_size``, ``schedule``, ``evaluate_every`` and
            ``record_every``.

    Raises ``ValueError``, before the first step, for impossible settings, a network made for another method, data on
    another device, a checkpoint of another run, and, with a checkpoint, for a network or an objective whose state it
    could not hold. State that only exists after the first step is checked then.
    """
    every = whole("checkpoint_every", checkpoint_every, 1, floats=True)
    if checkpoint is not None:
        check_resumable(model, objective)
        if ranks.count > 1 and hasattr(objective, "state_dict"):
            raise ValueError(
                f"the objective {type(objective).__name__} has a state in each of the {ranks.count} processes, and a "
                "checkpoint holds that of one; leave the checkpoint out, or take one process"
            )
    whole_plan = Plan.of(len(data), steps=steps, epochs=epochs, factor_epochs=factor_epochs, **plan)
    settings = knobs if knobs is not None else {}
    run = TrainingRun(model, data, get_method(method), settings, whole_plan, objective, ranks)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    place = None if checkpoint is None else RunCheckpoint(run, checkpoint)
    if place is not None:
        check_state(state_of_run(run))
        check_place(place.path)
        if place.path.exists():
            place.load()
    if ranks.count > 1:
        facts = {"its data": content(data), "its code": code_version(), "knobs": run.start, "steps done": run.steps}
        ranks.agree(facts | belongs_to(run))
        run.network = ranks.wrap(model, run.device)
    return records_of(run, place, every)


def records_of(run: Any, place: RunCheckpoint | None, every: int) -> Generator[Any, None, None]:
    """Yield the records of the steps that are done, then those of further steps; write the checkpoints."""
    for record in list(run.history):
        yield record
    while not run.done:
        before = run.steps
        record = run.advance()
        if place is not None and before == 0:
            check_state(state_of_run(run))  # also what a handle or an objective has since its first step
        if place is not None and run.ranks.rank == 0 and (run.done or before // every < run.steps // every):
            place.save()
        try:
            yield record
        except GeneratorExit:
            if place is not None and run.ranks.rank == 0:
                place.save()
            raise
