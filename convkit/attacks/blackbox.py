"""SimBA, a black-box attack: it changes one coordinate at a time and needs the logits, but no gradient."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    at_the_end,
    borrowed,
    check_classes,
    check_finite,
    check_images,
    check_labels,
    check_limits,
    check_logits,
    check_size,
    log_odds,
    own_copy,
    uniform,
)
from convkit.checks import whole


def simba(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: float,
    basis: Literal["pixel", "dct"] = "pixel",
    steps: int | None = None,
    generator: torch.Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return adversarial images in [0, 1] and the number of queries for each image, by SimBA (Guo et al. 2019).

    ``x`` is ``(N, ...)`` in [0, 1], ``y`` holds class numbers ``(N,)``; the queries are ``(N,)``, the one for the clean
    image included. For each image the vectors of the basis are tried one by one in a random order: ``+step``, then
    ``-step`` if that does not lower the probability of the label; a step that lowers it is kept. Probabilities are
    compared by their odds, computed from the logits: these differ even where the probability rounds to 1, so a
    large scale of the logits hides nothing. An image is done once the model gets it wrong. ``basis`` is ``"pixel"`` or
    ``"dct"``, the orthonormal cosines of a channel with all frequencies. ``steps`` is the number of vectors to try, by
    default each once; more start a new round. The change is at most ``step * sqrt(steps)`` in the 2-norm, and for
    ``"pixel"`` at most ``step`` per coordinate and round.

    ``low`` and ``high`` take the place of 0 and 1 for other inputs than images. The model runs in evaluation mode.
    Raises ``ValueError`` for images, labels, steps, limits or logits that are out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = model[1].load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 0.5])})
    >>> simba(model, torch.tensor([[0.6]]), torch.tensor([0]), step=0.25)
    (tensor([[0.3500]]), tensor([3]))
    """
    limits = check_limits(low, high)
    with at_the_end() as read:
        check_images(x, read, limits)
        check_labels(y, x)
        size = check_size("step", step, x, above=True, read=read)
        number = x[0].numel()
        steps = number if steps is None else steps
        steps = whole("steps", steps, 1)
        if basis not in ("pixel", "dct") or (basis == "dct" and x.ndim < 3):
            raise ValueError(f'basis must be "pixel" or, for images (N, ..., height, width), "dct", got {basis!r}')
        with borrowed(model, x) as copy, torch.no_grad():
            x, y = own_copy(x), own_copy(y)
            logits = copy(x.clone())  # a first step may be in place
            check_logits(logits, x, read)
            y = check_classes(y, logits.shape[1], read=read)
            loss, queries = log_odds(logits, y), torch.ones_like(y)
            finite = torch.ones((), dtype=torch.bool, device=x.device)
            at = x.clone()  # before clamping: changes along a basis stay orthogonal
            left = (logits.argmax(1) == y).nonzero()[:, 0]
            vectors = _Cosines(x) if basis == "dct" else _Pixels(x)
            order = y
            for turn in range(steps):
                if not len(left):
                    break
                if turn % number == 0:
                    order = uniform(x.flatten(1), generator).argsort(1)
                change = size * vectors(order[left, turn % number])
                done = torch.zeros_like(left, dtype=torch.bool)
                asked = torch.arange(len(left), device=x.device)
                for sign in (1, -1):  # each of the two waits for a GPU once: to know how many images are left
                    rows = left[asked]
                    trial = at[rows] + sign * change[asked]
                    logits = copy(trial.clamp(*limits))
                    finite = finite & logits.isfinite().all()
                    losses = log_odds(logits, y[rows])
                    queries[rows] += 1
                    better = losses > loss[rows]
                    at[rows] = torch.where(better.view(-1, *[1] * (x.ndim - 1)), trial, at[rows])
                    loss[rows] = torch.where(better, losses, loss[rows])
                    done[asked] = better & (logits.argmax(1) != y[rows])
                    if sign > 0:
                        asked = asked[(~better).nonzero()[:, 0]]
                        if not len(asked):
                            break
                left = left[(~done).nonzero()[:, 0]]
            check_finite(finite, read)
        return at.clamp(*limits), queries


# ---- private -------------------------------------------------------------------------------------------------------
class _Pixels:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __call__(self, which: Tensor) -> Tensor:
        """Return the basis vectors with these numbers, as images."""
        vectors = self.x.new_zeros(len(which), self.x[0].numel())
        return vectors.scatter_(1, which[:, None], 1.0).view(-1, *self.x.shape[1:])


class _Cosines:
    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.down, self.across = (_cosines(n).to(x.device, x.dtype) for n in x.shape[-2:])

    def __call__(self, which: Tensor) -> Tensor:
        *_, height, width = self.x.shape
        waves = self.down[which // width % height, :, None] * self.across[which % width, None, :]
        vectors = self.x.new_zeros(len(which), self.x[0].numel() // (height * width), height, width)
        vectors[torch.arange(len(which), device=which.device), which // (height * width)] = waves
        return vectors.view(-1, *self.x.shape[1:])


def _cosines(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix: row k is the wave of frequency k."""
    i = torch.arange(n, dtype=torch.float64, device="cpu")
    waves = torch.cos(math.pi * (i + 0.5) * i[:, None] / n) * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    return waves
