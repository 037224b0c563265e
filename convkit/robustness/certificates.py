"""Certified accuracy: the share of images whose answer provably stands within a 2-norm distance."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from convkit.attacks.checks import check_images
from convkit.audit.product.bound import product_bound
from convkit.checks import number
from convkit.loading import progress_bar
from convkit.operators.dtypes import as_input
from convkit.robustness.lipschitz import margins


@dataclass(frozen=True)
class CertifiedAccuracy:
    """The shares of images that a model gets right: clean, and proven for all changes of 2-norm ``eps`` at most.

    ``images`` is their number, ``clean`` and ``certified`` lie in [0, 1], ``bound`` is the constant that proved it.

    >>> CertifiedAccuracy(images=200, clean=0.9, certified=0.7, eps=0.25, bound=1.0).certified
    0.7
    """

    images: int
    clean: float
    certified: float
    eps: float
    bound: float


def certified_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    eps: float,
    bound: float | None = None,
    progress: bool = True,
) -> CertifiedAccuracy:
    """Return the share of images of batches ``(x, y)`` whose prediction is right and stays so within ``eps``.

    In evaluation mode, for changes of 2-norm at most ``eps``, in the units of images in [0, 1]. Where the network is
    ``bound``-Lipschitz in 2-norms, the difference of two logits is ``sqrt(2) * bound``-Lipschitz; so a margin above
    ``sqrt(2) * bound * eps`` cannot be closed (Tsuzuku et al. 2018). A margin of just that size is not counted: a tie
    decides nothing. The share is a lower bound of the true robust accuracy in 2-norm, as ``robust_accuracy`` is an
    upper one, both up to rounding in the network. Batches are converted to the model's device and dtype.

    Args:
        model: The network.
        batches: Images ``(N, ...)`` in [0, 1] and labels ``(N,)``.
        eps: The largest change, at least 0.
        bound: An upper bound of the network's Lipschitz constant; ``None`` for ``product_bound`` of the first batch.
        progress: Whether a progress bar is shown.

    Raises ``ValueError`` for no images, for images, labels, logits, ``eps`` or ``bound`` that are out of range, and
    where ``product_bound`` does.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = model[1].load_state_dict({"weight": torch.tensor([[1.0], [0.0]]), "bias": torch.tensor([0.0, 0.5])})
    >>> batch = torch.tensor([[0.6], [0.9]]), torch.tensor([0, 0])
    >>> certified_accuracy(model, [batch], eps=0.2, bound=1.0, progress=False)
    CertifiedAccuracy(images=2, clean=1.0, certified=0.5, eps=0.2, bound=1.0)
    """
    eps = number("eps", eps, 0, advice="; it is in the units of images in [0, 1]")
    if bound is not None:
        bound = number("bound", bound, 0, advice="; product_bound(model, x) gives one")
    device = next((t.device for t in (*model.parameters(), *model.buffers())), None)
    images = clean = certified = 0
    with progress_bar(batches, desc="certified accuracy", unit="batch", disable=not progress) as bar:
        for x, y in bar:
            x, y = as_input(model, x.to(device)), y.to(device)
            check_images(x)
            if bound is None:
                bound = product_bound(model, x[:1])
            ahead = margins(model, x, y)
            images += len(x)
            clean += int((ahead > 0).sum())
            certified += int((ahead > math.sqrt(2) * bound * eps).sum())
            bar.set_postfix(certified=f"{certified / images:.1%}", refresh=False)
    if not images or bound is None:
        raise ValueError("certified_accuracy needs at least one image, got an empty loader")
    return CertifiedAccuracy(images, clean / images, certified / images, eps, bound)
