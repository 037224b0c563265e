"""FGSM and PGD: steps along the gradient of the loss with respect to the image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    Loss,
    Norm,
    Read,
    at_the_end,
    borrowed,
    check_classes,
    check_finite,
    check_images,
    check_labels,
    check_limits,
    check_logits,
    check_norm,
    check_size,
    chosen_loss,
    gaussian,
    own_copy,
    uniform,
)
from convkit.checks import described, number, plain, whole

Start = Literal["uniform", "normal", "clean"]
Result = Literal["worst", "last"]


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    targets: Tensor | None = None,
    loss: str | Loss = "ce",
    result: Result = "worst",
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Return adversarial images by one step of size ``eps`` along the sign of the gradient, in [0, 1].

    ``x`` is ``(N, ...)`` in [0, 1], ``y`` holds class numbers ``(N,)``; ``eps`` is in the units of ``x``, one number or
    one per image. Of all changes of at most ``eps`` per pixel this one raises the linearized loss most (Goodfellow et
    al. 2015). Where it lowers the loss, the clean image is returned, unless ``result`` is ``"last"``, which is what
    other libraries do. ``loss``, ``targets``, ``low`` and ``high`` are those of ``pgd``. Raises ``ValueError`` for
    images, labels, sizes, limits or logits that are out of range.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = model[1].load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 0.5])})
    >>> fgsm(model, torch.tensor([[0.6]]), torch.tensor([0]), eps=0.25)
    tensor([[0.3500]])
    """
    limits = check_limits(low, high)
    with at_the_end() as read:
        check_images(x, read, limits)
        x, sizes = own_copy(x), check_size("eps", eps, x, read=read)
        search = _Search(model, x, y, targets, loss, read, result)
        return search.run(_Ball(x, sizes, math.inf, *limits), sizes, 1)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    step: float | Tensor,
    steps: int,
    norm: Norm = "inf",
    start: Start = "uniform",
    restarts: int = 1,
    targets: Tensor | None = None,
    loss: str | Loss = "ce",
    generator: torch.Generator | None = None,
    until_wrong: bool = False,
    result: Result = "worst",
    spread: float = 0.001,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Return the worst images found within ``eps`` of ``x`` and in [0, 1] by projected gradient ascent.

    ``x`` is ``(N, ...)`` in [0, 1], ``y`` holds class numbers ``(N,)``; ``eps`` and ``step`` are in the units of ``x``,
    one number or one per image; ``norm`` is ``"inf"`` or 2. ``loss`` is ``"ce"``, ``"margin"`` (best other logit minus
    that of the label, Carlini & Wagner 2017) or a function of ``(logits, labels)`` that returns one number per image.
    With ``targets``, class numbers ``(N,)``, the loss of the targets is lowered instead. With ``until_wrong`` an image
    is left alone once the model gets it wrong: the same images survive, for less work. Madry et al. 2018.

    ``start`` is where the ascent begins: ``"uniform"``, an image drawn uniformly from the ball; ``"normal"``,
    ``x + spread * N(0, 1)``; or ``"clean"``, ``x`` itself.

    Each returned image is the worst of the clean one and all that were visited in all restarts: none has a lower loss
    than the clean one; among the rest those that the model gets wrong come first, then those of higher loss. An image
    that survives may still fall to another attack. With ``result="last"`` it is the one after the last step, whatever
    its loss, as in the code of many papers: that attack is weaker, and takes ``steps`` passes through the network
    instead of ``steps + 2``. Its normal start is taken as it is drawn, since the first step moves it into the ball and
    into [0, 1].

    ``low`` and ``high`` take the place of 0 and 1 for other inputs than images: points of a cloud may lie anywhere,
    within ``-math.inf`` and ``math.inf``. Raises ``ValueError`` for images, labels, sizes, limits or logits that are
    out of range.

    The attack runs on a copy in evaluation mode that shares the network's weights: no gradient reaches them, and
    another thread may train the network meanwhile. Without a ``generator`` the start is drawn from torch's global one;
    give one if another thread draws from the global one, too.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = model[1].load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 0.5])})
    >>> pgd(model, torch.tensor([[0.6]]), torch.tensor([0]), eps=0.25, step=0.1, steps=10)
    tensor([[0.3500]])
    """
    limits = check_limits(low, high)
    with at_the_end() as read:
        check_images(x, read, limits)
        x = own_copy(x)
        ball = _Ball(x, check_size("eps", eps, x, read=read), check_norm(norm), *limits)
        strides = check_size("step", step, x, above=True, read=read)
        steps = whole("steps", steps, 1)
        restarts = whole("restarts", restarts, 1)
        spread = number("spread", spread, 0)
        start = check_start(start)
        if restarts > 1 and start == "clean":
            raise ValueError(f'{restarts} restarts from the clean image all do the same; take start="uniform"')
        search = _Search(model, x, y, targets, loss, read, result, until_wrong)
        if result == "last" and (restarts > 1 or until_wrong):
            raise ValueError('restarts and until_wrong compare the images that are visited; take result="worst"')

        def drawn() -> Tensor:
            if start == "uniform":
                return ball.draw(generator)
            at = x + spread * gaussian(x, generator)
            return at if result == "last" else ball.project(at)

        return search.run(ball, strides, steps, restarts, None if start == "clean" else drawn)


def check_start(start: object) -> Start:
    """Return where an attack starts, as a plain word; raise ``ValueError`` for another one."""
    return _one_of("start", start, get_args(Start))


def check_result(result: object) -> Result:
    """Return which image an attack returns, as a plain word; raise ``ValueError`` for another one."""
    return _one_of("result", result, get_args(Result))


# ---- private -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Ball:
    """The images within ``eps`` of ``x`` and in [``low``, ``high``]."""

    x: Tensor
    eps: Tensor
    norm: float
    low: float
    high: float

    def project(self, at: Tensor) -> Tensor:
        """Return ``at`` moved into the ball: to the nearest point for infinity; for 2 into the box, then to ``x``."""
        if self.norm == math.inf:
            return torch.minimum(torch.maximum(at, self.x - self.eps), self.x + self.eps).clamp(self.low, self.high)
        change = at.clamp(self.low, self.high) - self.x
        length = _lengths(change).clamp(min=torch.finfo(change.dtype).tiny)
        return (self.x + change * (self.eps / length).clamp(max=1)).clamp(
            self.low, self.high
        )  # once more, for rounding

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the change of norm 1 along which the loss grows fastest; 0 where the gradient is 0."""
        if self.norm == math.inf:
            return gradient.sign()
        largest = _per_image(gradient.flatten(1).abs().amax(1), gradient)
        scaled = gradient / torch.where(largest > 0, largest, 1)  # else the square of a small number is 0
        return scaled / _lengths(scaled).clamp(min=1)

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Return images drawn uniformly from the ball, then clamped to the limits."""
        if self.norm == math.inf:
            change = (2 * uniform(self.x, generator) - 1) * self.eps
        else:
            direction = gaussian(self.x, generator)
            radius = uniform(self.x.flatten(1)[:, 0], generator) ** (1 / self.x[0].numel())
            change = direction / _lengths(direction) * _per_image(radius, direction) * self.eps
        return self.project(self.x + change)

    def part(self, kept: Tensor) -> "_Ball":
        return replace(self, x=self.x[kept], eps=self.eps[kept] if self.eps.ndim else self.eps)


@dataclass(frozen=True)
class _State:
    """The worst images so far, their losses, which ones succeed (wrong, or at the target), and the clean losses."""

    images: Tensor
    loss: Tensor
    wrong: Tensor
    clean_loss: Tensor

    def or_worse(self, tried: "_State") -> "_State":
        """Return the worse of both: wrong ones first, then higher losses, and none of lower loss than the clean one."""
        worse = torch.where(tried.wrong == self.wrong, tried.loss > self.loss, tried.wrong)
        worse = worse & (tried.loss >= self.clean_loss)
        return _State(
            torch.where(_per_image(worse, tried.images), tried.images, self.images),
            torch.where(worse, tried.loss, self.loss),
            torch.where(worse, tried.wrong, self.wrong),
            self.clean_loss,
        )

    def part(self, rows: Tensor) -> "_State":
        return _State(self.images[rows], self.loss[rows], self.wrong[rows], self.clean_loss[rows])

    def replaced(self, rows: Tensor, part: "_State") -> "_State":
        return _State(
            self.images.index_copy(0, rows, part.images),
            self.loss.index_copy(0, rows, part.loss),
            self.wrong.index_copy(0, rows, part.wrong),
            self.clean_loss,
        )


class _Search:
    """A running attack: the settings, and the worst version of each image so far."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None,
        loss: str | Loss,
        read: Read,
        result: Result,
        until_wrong: bool = False,
    ) -> None:
        check_labels(y, x)
        if targets is not None:
            check_labels(targets, x, "targets")
        self.network, self.y, self.until_wrong = model, own_copy(y), until_wrong
        self.model = model  # while it runs, a copy of it in evaluation mode
        self.targets = None if targets is None else own_copy(targets)
        self.measure, self.read = chosen_loss(loss), read
        self.clean, self.keeps, self.checked = x, check_result(result) == "worst", False
        self.worst: _State | None = None  # the clean images first
        self.finite = torch.ones((), dtype=torch.bool, device=x.device)  # read at the end: reading waits for a GPU

    def run(
        self, ball: _Ball, step: Tensor, steps: int, restarts: int = 1, drawn: Callable[[], Tensor] | None = None
    ) -> Tensor:
        """Run ``restarts`` ascents from images that are drawn, or from the clean ones; return the worst or the last."""
        at = self.clean
        with borrowed(self.network, self.clean) as self.model, torch.no_grad():
            if drawn and self.keeps:
                self._ask(self.clean)
            for _ in range(restarts):
                at = self._ascend(ball, drawn() if drawn else self.clean, step, steps)
            check_finite(self.finite, self.read)
        return self.worst.images.clone() if self.worst else at

    def _ascend(self, ball: _Ball, at: Tensor, step: Tensor, steps: int) -> Tensor:
        """Return the images after the last step, those that are still attacked."""
        rows = torch.arange(len(at), device=at.device)
        for done in range(steps + 1 if self.keeps else steps):
            if self.until_wrong and self.worst:
                left = (~self.worst.wrong[rows]).nonzero()[:, 0]
                if len(left) < len(rows):
                    rows, at, ball, step = rows[left], at[left], ball.part(left), step[left] if step.ndim else step
                if not len(rows):
                    break
            gradient = self._ask(at, rows if len(rows) < len(self.y) else None, gradient=done < steps)
            if done < steps:
                at = ball.project(at + step * ball.steepest(gradient))
        return at

    def _ask(self, at: Tensor, rows: Tensor | None = None, gradient: bool = False) -> Tensor:
        """Evaluate the images ``at``, versions of these ``rows``, keep the worse ones; return the loss gradient."""
        with torch.set_grad_enabled(gradient):
            point = at.detach().requires_grad_(gradient)
            logits = self.model(point.clone())  # a first step may be in place
            if not self.checked:
                self._check(logits)
            y = self.y if rows is None else self.y[rows]
            targets = self.targets if rows is None or self.targets is None else self.targets[rows]
            losses = self.measure(logits, y) if targets is None else -self.measure(logits, targets)
            if losses.shape != at.shape[:1]:
                raise ValueError(
                    f"the loss must return one number per image, shape {(len(at),)}, got {tuple(losses.shape)}"
                )
            if gradient and not losses.requires_grad:
                raise ValueError("the logits must have a gradient with respect to the images, got none; use simba")
            slope = torch.autograd.grad(losses.sum(), point)[0] if gradient else at
        losses = losses.detach()
        self.finite = self.finite & losses.isfinite().all()
        if not self.keeps:
            return slope
        answers = logits.detach().argmax(1)
        wrong = answers != y if targets is None else answers == targets
        tried = _State(at, losses, wrong, losses)
        if self.worst is None:
            self.worst = tried
        elif rows is None:
            self.worst = self.worst.or_worse(tried)
        else:
            self.worst = self.worst.replaced(rows, self.worst.part(rows).or_worse(tried))
        return slope

    def _check(self, logits: Tensor) -> None:
        self.checked = True
        check_logits(logits, self.clean, self.read)
        self.y = check_classes(self.y, logits.shape[1], read=self.read)
        if self.targets is not None:
            self.targets = check_classes(self.targets, logits.shape[1], "targets", self.read)


def _one_of(name: str, word: object, words: tuple[str, ...]) -> Any:
    found = plain(word)
    if not isinstance(found, str) or found not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, got {described(word)}")
    return found


def _lengths(change: Tensor) -> Tensor:
    """Return the 2-norm of each image, shaped to broadcast over the batch."""
    return _per_image(change.flatten(1).norm(dim=1), change)


def _per_image(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per image, shaped to broadcast over ``x``."""
    return values.view(-1, *[1] * (x.ndim - 1))
