"""`fit_gan`: trains a generator against a discriminator that has the layers of a method; a generator of records."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Unpack

from torch import nn

from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.methods.method import Method
from convkit.methods.registry import get_method
from convkit.training.checkpoint import check_place, check_resumable, check_state
from convkit.training.gan_plan import GanOptions, GanPlan, GanRecord
from convkit.training.gan_run import GanRun
from convkit.training.loop import records_of
from convkit.training.resuming import RunCheckpoint, state_of_run


def fit_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    data: Data,
    method: str | Method,
    *,
    steps: int,
    knobs: Mapping[str, object] | None = None,
    averaged: nn.Module | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    **plan: Unpack[GanOptions],
) -> Generator[GanRecord, None, None]:
    """Train a generator and a discriminator in place, as SN-GAN does, and yield records as ``fit`` does.

    Each step has ``discriminator_steps`` steps of the discriminator on the hinge loss, then one of the generator; both
    by Adam with betas 0 and 0.9, rates that fall linearly to 0, and batches drawn with replacement (Miyato et al. 2018,
    section 4 and appendix B). Every step depends on the state, the seed and its number alone.

    A run ends with a record that says so when a loss is not finite or above ``DIVERGED`` (10,000), and when the made
    images have differed by less than ``COLLAPSED`` (5 %) of what real ones do for ``PATIENCE`` (50) steps.

    Args:
        generator: A network from z ``(batch, latent)`` to images in [0, 1] like those of the data.
        discriminator: A network from images to one number, with the layers of the method (see ``gan_pair``).
        data: Of which the training images are used.
        method: A name in ``METHODS``, or a ``Method``: what bounds, constrains or penalizes the discriminator.
        steps: Number of steps of the generator.
        knobs: ``lr``, ``discriminator_lr``, ``discriminator_steps``, and the method's own. The mapping is read at each
            step, so changing a live knob in it steers the run.
        averaged: A copy of the generator, which becomes the exponential mean of its weights; ``None`` for no mean.
        checkpoint, checkpoint_every: As of ``fit``: called again with the same file, ``fit_gan`` yields the records of
            the steps that are done, then goes on; on the CPU the history is the same bit for bit.
        plan: The other fields of ``GanPlan``, such as ``seed``, ``batch_size``, ``measure_every`` and ``sample_every``.

    Raises ``ValueError``, before the first step, for impossible settings, a batch of one, networks that do not fit each
    other or the data, and a checkpoint of another run.

    >>> from convkit.data import digits
    >>> from convkit.methods import gan_pair
    >>> networks = gan_pair(digits(), "spectral_norm", channels=(8, 8), latent=16)
    >>> [record.step for record in fit_gan(*networks, digits(), "spectral_norm", steps=2, batch_size=8)]
    [1, 2]
    """
    every = whole("checkpoint_every", checkpoint_every, 1)
    run = GanRun(
        generator,
        discriminator,
        data,
        get_method(method),
        {} if knobs is None else knobs,
        GanPlan(steps, **plan),
        averaged,
    )
    place = None
    if checkpoint is not None:
        check_resumable(run.model, run.objective)
        place = RunCheckpoint(run, checkpoint)
        check_state(state_of_run(run))
        check_place(place.path)
        if place.path.exists():
            place.load()
    return records_of(run, place, every)
