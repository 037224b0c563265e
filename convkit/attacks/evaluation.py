"""Robust accuracy: the share of images that a model still gets right under attack."""

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    Read,
    at_the_end,
    borrowed,
    check_classes,
    check_images,
    check_labels,
    check_limits,
    check_logits,
    check_network,
)
from convkit.loading import progress_bar


class Attack(Protocol):
    """A function of a model, images ``(N, ...)`` and labels ``(N,)`` that returns the changed images.

    It may return a tuple whose first entry are the images, as ``simba`` does.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /) -> Tensor | tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class RobustAccuracy:
    """The shares of images that a model gets right: clean, after each attack, and after all of them.

    ``images`` is their number, ``clean`` and ``worst`` lie in [0, 1], ``attacks`` holds one share per attack.

    >>> RobustAccuracy(images=200, clean=0.9, attacks={"FGSM": 0.5, "PGD": 0.4}, worst=0.35).attacks["PGD"]
    0.4
    """

    images: int
    clean: float
    attacks: Mapping[str, float]
    worst: float  # an image counts only if it survives every attack


def robust_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attacks: Mapping[str, Attack] | Attack,
    progress: bool = True,
    attack_all: bool = False,
    low: float = 0.0,
    high: float = 1.0,
) -> RobustAccuracy:
    """Return the accuracy of ``model`` on batches ``(x, y)`` in evaluation mode, clean and under each attack.

    An attack is a function of ``(model, x, y)`` that returns the changed images, such as
    ``functools.partial(pgd, eps=8 / 255, step=2 / 255, steps=20)``; several have names, ``{"PGD-20": ..., "SimBA":
    ...}``. Each attack starts from the clean images that the model gets right; the others count as wrong. Batches are
    moved to the model's device. The shares are upper bounds of the true robust accuracy, since a better attack may
    find more. With ``attack_all`` the images that the model gets wrong are attacked, too, and one that it then gets
    right counts for that attack, as in the scripts of many papers; it never counts for ``worst``.

    Only success counts, so on the CPU a ``functools.partial`` of an attack with the argument ``until_wrong``, such as
    ``pgd``, gets ``until_wrong=True`` unless it says otherwise or asks for ``result="last"``: an image leaves the batch
    once one of its versions is wrong. The same images survive, up to rounding in batches of other sizes. On a GPU,
    which would be waited for at each step, and for other functions it has to be asked for.

    Clean and changed images lie in [0, 1]. For other inputs ``low`` and ``high`` take the place of these limits, and
    have to be given to the attack as well: points of a cloud lie within ``-math.inf`` and ``math.inf``.

    Raises ``ValueError`` for no images, no attack, and images, labels or logits that are out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = model[1].load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 0.5])})
    >>> batch = torch.tensor([[0.6], [0.9]]), torch.tensor([0, 0])
    >>> robust_accuracy(model, [batch], {"darker": lambda model, x, y: x - 0.2}, progress=False)
    RobustAccuracy(images=2, clean=1.0, attacks={'darker': 0.5}, worst=0.5)
    """
    named = attacks if isinstance(attacks, Mapping) else {getattr(attacks, "__name__", "attack"): attacks}
    limits = check_limits(low, high)
    if not named:
        raise ValueError("robust_accuracy needs at least one attack, got none")
    check_network(model)
    device = next((t.device for t in (*model.parameters(), *model.buffers())), None)
    images = clean = worst = 0
    survived = dict.fromkeys(named, 0)
    with progress_bar(batches, desc="robust accuracy", unit="batch", disable=not progress) as bar:
        for x, y in bar:
            x, y = x.to(device), y.to(device)
            images += len(x)
            with at_the_end() as read:  # a batch waits for a GPU twice, and when its attacks do
                counts, sums = dict[str, Tensor](), list[float]()
                with borrowed(model, x) as copy:
                    always = _right(copy, x, y, read, limits)
                    right = always.nonzero()[:, 0]
                    clean += len(right)
                    if not attack_all:
                        x, y, always = x[right], y[right], always[right]
                    for name, attack in named.items() if len(x) else ():
                        result = (attack if x.is_cuda else _until_wrong(attack))(model, x, y)
                        found = result[0] if isinstance(result, tuple) else result
                        if found.shape != x.shape:
                            raise ValueError(
                                f"{name} must return images of shape {tuple(x.shape)}, got shape {tuple(found.shape)}"
                            )
                        still = _right(copy, found, y, read, limits)
                        counts[name] = still.sum()
                        always &= still
                read(torch.stack([*counts.values(), always.sum()]), lambda *values, sums=sums: sums.extend(values))
            worst += int(sums.pop())
            for name, count in zip(counts, sums, strict=True):
                survived[name] += int(count)
            bar.set_postfix({name: f"{count / images:.1%}" for name, count in survived.items()}, refresh=False)
    if not images:
        raise ValueError("robust_accuracy needs at least one image, got an empty loader")
    return RobustAccuracy(images, clean / images, {n: c / images for n, c in survived.items()}, worst / images)


def _until_wrong(attack: Attack) -> Attack:
    """Return the attack, told to leave wrong images alone where it is known to have such an argument."""
    if not isinstance(attack, functools.partial) or "until_wrong" in attack.keywords:
        return attack
    if attack.keywords.get("result", "worst") != "worst":
        return attack
    known = inspect.signature(attack.func).parameters
    return functools.partial(attack, until_wrong=True) if "until_wrong" in known else attack


def _right(copy: nn.Module, x: Tensor, y: Tensor, read: Read, limits: tuple[float, float]) -> Tensor:
    """Return which images a copy in evaluation mode gets right."""
    check_images(x, read, limits)
    check_labels(y, x)
    with torch.no_grad():
        logits = copy(x.clone())  # a first step may be in place
    check_logits(logits, x, read)
    check_classes(y, logits.shape[1], read=read)
    return logits.argmax(1) == y
