"""How many images a model still gets right under attack."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convkit.attacks.checks import borrowed, check_classes, check_images, check_labels, check_logits
from convkit.loading import progress_bar

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor | tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RobustAccuracy:
    """Shares of ``images`` that the model gets right: clean, after each attack, and after whichever was worst."""

    images: int
    clean: float
    attacks: Mapping[str, float]
    worst: float  # an image counts only if it survives every attack


def robust_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attacks: Mapping[str, Attack] | Attack,
    progress: bool = True,
) -> RobustAccuracy:
    """The accuracy of ``model`` on ``batches`` of ``(x, y)``, clean and under each of ``attacks``.

    An attack is a function of ``(model, x, y)`` that returns the changed images, such as
    ``functools.partial(pgd, eps=8 / 255, step=2 / 255, steps=20)``; what comes after the images (queries) is not used.
    Several have names: ``{"PGD-20": ..., "SimBA": ...}``. Each begins from the clean images that the model gets
    right; the others count as wrong. Batches are moved to where the model is. An upper bound of the true robust
    accuracy: a better attack may find more.
    """
    named = attacks if isinstance(attacks, Mapping) else {getattr(attacks, "__name__", "attack"): attacks}
    if not named:
        raise ValueError("robust_accuracy needs at least one attack, got none")
    device = next((t.device for t in (*model.parameters(), *model.buffers())), None)
    images = clean = worst = 0
    survived = dict.fromkeys(named, 0)
    with progress_bar(batches, desc="robust accuracy", unit="batch", disable=not progress) as bar:
        for x, y in bar:
            x, y = x.to(device), y.to(device)
            right = _right(model, x, y)
            images, clean = images + len(x), clean + int(right.sum())
            x, y = x[right], y[right]
            always = torch.ones_like(y, dtype=torch.bool)
            for name, attack in named.items() if len(x) else ():
                result = attack(model, x, y)
                found = result[0] if isinstance(result, tuple) else result
                if found.shape != x.shape:
                    raise ValueError(
                        f"{name} must return images of shape {tuple(x.shape)}, got shape {tuple(found.shape)}"
                    )
                still = _right(model, found, y)
                survived[name] += int(still.sum())
                always &= still
            worst += int(always.sum())
            bar.set_postfix({name: f"{count / images:.1%}" for name, count in survived.items()}, refresh=False)
    if not images:
        raise ValueError("robust_accuracy needs at least one image, got an empty loader")
    return RobustAccuracy(images, clean / images, {n: c / images for n, c in survived.items()}, worst / images)


def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    check_images(x)
    check_labels(y, x)
    with borrowed(model, x) as copy, torch.no_grad():
        logits = copy(x.clone())  # a first step may be in place
    check_logits(logits, x)
    check_classes(y, logits.shape[1])
    return logits.argmax(1) == y
