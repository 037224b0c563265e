"""One loop for every method: a generator of records that can be watched, steered, stopped and resumed."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.audit.measurement import measure
from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.training.checkpoint import check_place, check_resumable, check_state
from convkit.training.evaluation import evaluate
from convkit.training.plan import Plan, Record
from convkit.training.run import Objective, Run

__all__ = ["cross_entropy", "evaluate", "fit", "measure"]


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The usual objective: the mean cross-entropy of the batch, and the logits."""
    logits = model(x)
    return F.cross_entropy(logits, y), logits


def fit(
    model: nn.Module,
    data: Data,
    method: str | Method,
    *,
    steps: int,
    knobs: Mapping[str, Any] | None = None,
    objective: Objective = cross_entropy,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    channels_last: bool = False,
    **plan: Any,
) -> Generator[Record, None, None]:
    """Train ``model`` in place, a network with the method's layers, on the data's device; one ``Record`` per step.

    ``plan`` takes the fields of ``Plan``: ``seed``, ``batch_size``, ``schedule`` (``"constant"``, ``"cosine"`` to 0, or
    ``"steps"``: a tenth at each of the ``milestones``, parts of the run), ``reference_batch`` (the learning rate is
    meant for that batch size and scaled in proportion), ``augmentation`` (a name of ``AUGMENTATIONS``),
    ``evaluate_every`` and ``measure_every`` (steps between two test accuracies, two sets of norms; 0: never; the last
    step has both unless 0) and ``precision`` (``"bfloat16"``, ``"float16"``: autocast, the latter with scaled
    gradients). SGD with momentum; weight decay acts on weights of two and more axes, not on biases, shifts and gains,
    those of ``weight_norm`` among them. Batches are given to the network in the dtype of its weights.

    ``knobs`` are the method's. The mapping is read at each step, so that a change in it steers the run. Of the knobs
    that are not in it, those that shaped the network are read from its layers, and the others have the method's
    defaults: give a learning rate or a bound here, not to ``network`` alone. Each step is a function of the state, the
    seed and its number, whatever else draws random numbers in between.

    With ``checkpoint`` the run is saved every ``checkpoint_every`` steps, at its end and when the generator is closed;
    started again with the same file it yields what was recorded and goes on, on the CPU to the same history bit for
    bit. A run whose loss is not finite, or above ``run.DIVERGED`` times its start, ends with a record that says so.
    After a clip the running statistics of BatchNorm are those of the ``run.MEASURED`` batches that follow: the old
    ones do not fit.

    Raises ``ValueError``, before any step, for a plan or knobs that are not possible, data on another device, a network
    without the method's layers or with those of another one, a checkpoint of something else, and, where there is to be
    one, a network or an objective whose state it could not hold (extra state of a layer that is a NumPy number, say).
    State that only the first step brings is checked after that step.
    """
    every = whole("checkpoint_every", checkpoint_every, 1, floats=True)
    if checkpoint is not None:
        check_resumable(model, objective)
    run = Run(model, data, get_method(method), knobs if knobs is not None else {}, Plan(steps, **plan), objective)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if checkpoint is not None:
        check_state(run.state())
        check_place(checkpoint)
        if Path(checkpoint).exists():
            run.load(checkpoint)
    return _records(run, checkpoint, every)


# ---- private ---------------------------------------------------------------------------------------------------------
def _records(run: Run, checkpoint: str | Path | None, every: int) -> Generator[Record, None, None]:
    for record in list(run.history):
        yield record
    while not run.done:
        record = run.step()
        if checkpoint is not None and len(run.history) == 1:
            check_state(run.state())  # what a handle or an objective keeps since its first step
        if checkpoint is not None and (run.done or len(run.history) % every == 0):
            run.save(checkpoint)
        try:
            yield record
        except GeneratorExit:
            if checkpoint is not None:
                run.save(checkpoint)
            raise
