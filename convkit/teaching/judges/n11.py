"""Judges of notebook 11: two networks under attack, exact robustness, masked gradients, standard errors."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.attacks.gradient import pgd
from convkit.data.registry import digits
from convkit.teaching.checks import Feedback, hints
from convkit.teaching.judges.numbers import array, number

_NEAR = 1e-6  # what a reader may lose by rounding


@hints(
    "If all logits are divided by a billion, does another one become the largest?",
    "What counts is how fast the logits change near an image, compared with how far apart they are.",
)
def bet(answer: Any) -> str | None:
    """Judge how many of 100 images the networks A and B still classify correctly."""
    a, b = array(answer, "two numbers, as in (50, 50)", (2,)).tolist()
    if not (0 <= a <= 100 and 0 <= b <= 100):
        return "each number counts images, so it lies between 0 and 100"
    if a > b:
        return "this is the tempting belief: small norms are safe and large ones are not"
    if a > 30:
        return "dividing the logits of A by a billion has not changed one of its answers, to any image"
    if b < 99:
        return "B was built, from a theorem, around these very images; what did the theorem promise?"
    return None


@hints(
    "By (2) the best change for rival j is known, and so is what it gains. Compare that with the lead of y over j.",
    "Which norm of the difference of two rows of W goes with changes that are bounded pixel by pixel?",
    "An image is safe if its lead over every rival is larger than what that rival can gain.",
)
def exact(answer: Callable[..., Any]) -> str | None:
    """Judge a function that should say for which images no change of at most eps per pixel changes a linear network's
    answer.
    """
    generator = torch.Generator().manual_seed(2)
    W = torch.randn(5, 20, dtype=torch.float64, generator=generator)
    b = torch.randn(5, dtype=torch.float64, generator=generator)
    images = torch.rand(400, 20, dtype=torch.float64, generator=generator)
    logits = images @ W.T + b
    labels = logits.argmax(1)
    lead = logits.gather(1, labels[:, None]) - logits
    rivals = F.one_hot(labels, 5) == 0
    needs = {p: torch.linalg.vector_norm(W[:, None] - W, p, dim=2)[labels] for p in (1, 2, math.inf)}
    second = lead.masked_fill(~rivals, math.inf).argmin(1)[:, None]
    for eps in (0.02, 0.1):
        found = _truths(answer(W.clone(), b.clone(), images.clone(), labels.clone(), eps), len(images))
        by = {p: ((lead > eps * need) | ~rivals).all(1) for p, need in needs.items()}
        if torch.equal(found, by[1]):
            continue
        if torch.equal(found, by[math.inf]):
            return "that is the norm ∞ of the gradient; a change bounded in the norm ∞ meets its dual norm"
        if torch.equal(found, by[2]):
            return "that is for changes bounded in the norm 2"
        if torch.equal(found, (lead.gather(1, second) > eps * needs[1].gather(1, second))[:, 0]):
            return "the rival that is second now need not be the one that gets there first: ask all of them"
        if torch.equal(found, ~by[1]):
            return "the other way round: True is for the images whose answer stands"
        return f"wrong for {int((found != by[1]).sum())} of 400 images at eps = {eps}"
    return None


def _truths(answer: Any, count: int) -> Tensor:
    try:
        found = torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        found = torch.tensor(0)
    if found.dtype != torch.bool or found.shape != (count,):
        raise Feedback(f"the function should give {count} times True or False, one for each image")
    return found.cpu()


@hints(
    "The probability of the label is 1.0 to rounding, so its logarithm has no slope. Do not take probabilities at all.",
    "An image is wrong as soon as some other logit is larger than the label's. Say that by a difference of two logits.",
)
def unmasking(loss: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Judge a loss that should reveal the gradient of a network whose logits are a thousand times too large."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 10
    logits = torch.randn(60, 10, generator=generator)
    own = F.one_hot(labels, 10) == 1
    logits[own] = logits.masked_fill(own, -math.inf).amax(1) + 0.2 + torch.rand(60, generator=generator)
    rival = F.one_hot(logits.masked_fill(own, -math.inf).argmax(1), 10) == 1
    logits = (1000 * logits).requires_grad_()
    values = loss(logits, labels)
    if not isinstance(values, Tensor) or values.shape != (60,):
        return "one number for each image is wanted, not their mean or sum"
    if not values.isfinite().all():
        return "the loss is NaN or infinite for logits in the hundreds"
    slopes = torch.autograd.grad(values.sum(), logits)[0] if values.requires_grad else torch.zeros_like(logits)
    if not slopes.isfinite().all():
        return "the gradient of the loss is NaN or infinite for logits in the hundreds"
    if (slopes[own] > 0).any() or (slopes[rival] < 0).any():
        return "the attack climbs: the loss must grow where the label's logit falls or another one rises"
    if (slopes.abs().amax(1) < 1e-12).float().mean() > 0.2:
        return "the gradient is 0 for most images: the exponential of -1000 is 0 in float32"
    if (slopes[rival] == 0).any():
        return "is the logit that comes nearest to the label's part of the loss? Its gradient is 0"
    if (slopes[own] == 0).any():
        return "is the label's own logit part of the loss? Its gradient is 0"
    wrong = logits.detach().clone()
    wrong[own] -= 2000  # the label led by 200 to 1200
    if (loss(wrong, labels) <= values.detach()).any():
        return "where the answer is wrong the loss should be larger than where it is right"
    survivors, tried = _survivors(loss)
    return None if survivors < 0.4 * tried else f"{survivors} of {tried} images survive PGD on this loss"


def _survivors(loss: Callable[[Tensor, Tensor], Any]) -> tuple[int, int]:
    """Return how many images survive, on a random linear network with logits a thousand times too large."""
    generator = torch.Generator().manual_seed(1)
    linear = nn.Linear(16, 10, bias=False, device="meta").to_empty(device="cpu")  # no draw of torch's generator
    network = nn.Sequential(nn.Flatten(), linear).requires_grad_(False)
    linear.weight.copy_(1000 * torch.randn(10, 16, generator=generator))
    images = torch.rand(50, 1, 4, 4, generator=generator)
    labels = network(images).argmax(1)
    found = pgd(network, images, labels, 0.3, 0.06, 20, loss=loss, start="clean")
    return int((network(found).argmax(1) == labels).sum()), len(images)


@hints(
    "left_at(1) is small and left_at(1000) large. Try 10 and 100, then halve the interval.",
    "Your factor has to leave more than half of the images, and half of your factor must not.",
)
def loud_enough(factor: Any) -> str | None:
    """Judge the factor on the logits, within a factor of two, from which PGD leaves more than half of the images."""
    found = number(factor, "one number, the factor on the logits")
    if found <= 0:
        return "the factor is positive: another sign would change the answers"
    here, at_half = _left(found), _left(found / 2)
    if here <= 50:
        return f"at this factor {here} of 100 images survive: not yet more than half"
    if at_half > 50:
        return f"at half of this factor {at_half} of 100 images survive already"
    return None


def _left(factor: float) -> int:
    """Return how many of 100 digits PGD leaves of the linear network of section 3, in single precision."""
    data = digits()
    images, labels = data.train_batch(slice(None))
    X = torch.cat([images.flatten(1), torch.ones(len(images), 1)], 1).double()
    solved = torch.linalg.solve(
        X.T @ X + 0.1 * torch.eye(65, dtype=torch.float64), X.T @ F.one_hot(labels, 10).double()
    )

    def network(x: Tensor) -> Tensor:
        return factor * (x.flatten(1) @ solved[:-1].to(x) + solved[-1].to(x))

    tests, truth = data.test_batch(slice(None))
    chosen = (network(tests).argmax(1) == truth).nonzero()[:100, 0]
    x, y = tests[chosen], truth[chosen]
    found = pgd(_Module(network), x, y, 0.1, 0.025, 20, start="clean")
    return int((network(found).argmax(1) == y).sum())


class _Module(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@hints(
    "How uncertain is one mean of n seeds, if a single seed varies by the deviation given?",
    "Both means are uncertain, independently of each other. How do independent deviations add up?",
)
def standard_errors(answer: Callable[..., Any]) -> str | None:
    """Judge how many standard errors of the difference lie between two means."""
    for a, s, b, t, n in ((52.87, 0.24, 52.49, 0.21, 4), (44.75, 0.30, 44.53, 0.10, 4), (5.0, 0.3, 4.0, 0.4, 9)):
        found = abs(number(answer(a, s, b, t, n), "a function that gives one number"))
        case, apart, root = f"{a} ± {s} and {b} ± {t}, {n} seeds", a - b, math.sqrt(n)
        if abs(found - apart / (math.hypot(s, t) / root)) < _NEAR:
            continue
        if abs(found - apart / math.hypot(s, t)) < _NEAR:
            return f"{case}: a mean of {n} seeds varies less than one seed does"
        if abs(found - apart / ((s + t) / root)) < _NEAR:
            return f"{case}: deviations of independent numbers do not add, their squares do"
        if min(abs(found - apart / (d / root)) for d in (s, t)) < _NEAR:
            return f"{case}: both means are uncertain, not only one of them"
        if abs(found - apart / (math.hypot(s, t) / n)) < _NEAR:
            return f"{case}: the deviation of a mean does not fall as fast as the number of seeds grows"
        if abs(found - apart) < _NEAR:
            return f"{case}: that is the difference itself, in points"
        return f"{case}: {found:.2f} is not the number"
    return None
