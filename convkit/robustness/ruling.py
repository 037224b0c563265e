"""`referee`: what a layer that claims to be 1-Lipschitz really has, from below and from above."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from convkit.audit.product.bound import product_bound
from convkit.checks import positive, sequence, whole
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.randomness import seeded

SCALES = (0.1, 1.0, 10.0)  # sizes of the numbers in the inputs, around which the layer is measured
EXAMPLES = 4  # inputs in a batch: in training mode a layer may look at all of them
STEP = 1e-4  # of the size of the inputs: how far apart the two points of a pair are


@dataclass(frozen=True)
class Ruling:
    """What was found about a layer: its constant in evaluation mode is from ``at_least`` to ``at_most``.

    ``at_least`` and ``in_training``, the same for training mode, were reached by two evaluated inputs; ``at_most`` is
    proven, or infinite where no theory is known. ``verdict`` says what becomes of the ``claim``: ``"holds"``,
    ``"is broken"`` or ``"cannot be decided"``, each up to ``tolerance`` relative. ``print(ruling)`` shows a sentence.

    >>> print(Ruling(claim=1.0, at_least=2.0, at_most=2.001, in_training=2.0))
    norm at least 2, at most 2.001; the claim of 1 is broken
    """

    claim: float
    at_least: float
    at_most: float
    in_training: float
    tolerance: float = 1e-4

    @property
    def verdict(self) -> str:
        """Return what becomes of the claim, in evaluation mode."""
        most = self.claim * (1 + self.tolerance)
        return "is broken" if self.at_least > most else "holds" if self.at_most <= most else "cannot be decided"

    def __str__(self) -> str:
        above = f"at most {self.at_most:.4g}" if math.isfinite(self.at_most) else "no bound from above is known"
        text = f"norm at least {self.at_least:.4g}, {above}; the claim of {self.claim:.4g} {self.verdict}"
        if abs(self.in_training - self.at_least) > max(self.tolerance, 0.01) * self.at_least:
            text += f"; in training mode it is at least {self.in_training:.4g}"
        return text


def referee(
    layer: nn.Module,
    shape: tuple[int, ...],
    claim: float = 1.0,
    points: int = 3,
    steps: int = 30,
    seed: int = 0,
) -> Ruling:
    """Return what the Lipschitz constant of a layer in 2-norms really is, beside the one that it claims.

    Takes any module from one tensor to one tensor, with activations or without, of this library or another.

    From below: around ``points`` random batches, of numbers around 0.1, 1 and 10, power iteration goes by
    vector-Jacobian products and by pairs of inputs a small step apart. What counts is ``|f(a) - f(b)| / |a - b|`` of
    these pairs, in float64: no derivative has to be trusted. Once in evaluation mode, and once in training mode, with
    the same state and the same random numbers at each call, where ``f`` maps the batch as a whole (BatchNorm).
    From above: ``product_bound`` in evaluation mode, which is the operator norm for a convolution.

    Args:
        layer: The layer or network, which is left as it is.
        shape: The shape of one input, such as ``(channels, height, width)``.
        claim: The constant that is claimed.
        points: Number of batches from which it starts.
        steps: Number of steps of power iteration from each.
        seed: Determines inputs and directions.

    Raises ``ValueError`` for shapes that the layer does not take, and for results that are no finite tensor.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 3.0], [0.5, 0.0]]))
    >>> print(referee(layer, (2,)))
    norm at least 3, at most 3; the claim of 1 is broken
    """
    claim = positive("claim", claim, "; 1 is usual")
    points, steps = whole("points", points, 1), whole("steps", steps, 1)
    size = [whole("each of shape", n, 1) for n in sequence("shape", shape)]
    device = next((t.device for t in (*layer.parameters(), *layer.buffers())), torch.device("cpu"))
    generator = torch.Generator().manual_seed(whole("seed", seed))
    inputs = torch.randn(points, EXAMPLES, *size, dtype=torch.float64, generator=generator, device="cpu").to(device)
    inputs *= (
        torch.tensor([SCALES[i % len(SCALES)] for i in range(points)], device="cpu")
        .view(-1, *[1] * (len(size) + 1))
        .to(inputs)
    )
    with torch.inference_mode(False), evaluation_copy(layer, inputs[0].float(), apart) as evaluated:
        evaluated.double()
        at_least = max(_steepest(_frozen(evaluated), x, steps) for x in inputs)
    trained = copy.deepcopy(layer).double().train()
    in_training = max(_steepest(_frozen(trained), x, steps) for x in inputs)
    try:
        at_most = product_bound(layer, inputs[0].to(_dtype(layer)))
    except ValueError:  # a step without a bound, or a network that cannot be traced
        at_most = math.inf
    return Ruling(claim, at_least, at_most, in_training)


# ---- private ---------------------------------------------------------------------------------------------------------
def _dtype(layer: nn.Module) -> torch.dtype:
    return next((t.dtype for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point()), torch.float32)


def _frozen(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the layer as a function: each call has the same state and draws the same random numbers."""
    state = {name: t.detach().clone() for name, t in layer.state_dict(keep_vars=True).items()}

    def answer(x: Tensor) -> Tensor:
        with seeded(0, x.device):
            y = functional_call(layer, {name: t.clone() for name, t in state.items()}, (x,))
        if not isinstance(y, Tensor):
            raise ValueError(f"referee needs a layer that returns one tensor, got {type(y).__name__}; wrap it in one")
        return y

    return answer


def _steepest(answer: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> float:
    """Return the largest ``|f(a) - f(b)| / |a - b|`` that power iteration from ``x`` meets."""
    with torch.enable_grad():
        at = x.clone().requires_grad_()
        y = answer(at.clone())  # a first step may be in place
    if not y.isfinite().all():
        raise ValueError("referee needs finite results, got NaN or infinity; look for a layer that divides by zero")
    apart, best = STEP * float(x.norm()), 0.0
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0), device="cpu").to(
        x.device
    )
    for _ in range(steps):
        direction = direction / direction.norm()
        with torch.no_grad():
            a, b = x + apart / 2 * direction, x - apart / 2 * direction
            change = answer(a.clone()) - answer(b.clone())
        best = max(best, float(change.norm() / (a - b).norm()))
        if not y.requires_grad or not change.any():
            break
        (direction,) = torch.autograd.grad(y, at, change, retain_graph=True, materialize_grads=True)
        if not direction.any():
            break
    return best
