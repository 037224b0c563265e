"""AutoAttack, the standard ensemble of attacks, by the package pyautoattack."""

import functools
import math
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from convkit.attacks.checks import (
    Norm,
    borrowed,
    check_classes,
    check_images,
    check_labels,
    check_limits,
    check_logits,
    check_norm,
    check_size,
    own_copy,
)
from convkit.checks import whole
from convkit.loading import needs
from convkit.operators.dtypes import default_dtype
from convkit.randomness import drawing

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The attacks of standard AutoAttack, in their order.

>>> STANDARD
('apgd-ce', 'apgd-t', 'fab-t', 'square')
"""


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: Norm = "inf",
    attacks: Sequence[str] = STANDARD,
    batch_size: int = 250,
    generator: torch.Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Return images within ``eps`` of ``x`` that the model gets wrong, by AutoAttack; ``x`` where none is found.

    ``x`` is ``(N, C, H, W)`` in [0, 1], ``y`` holds class numbers ``(N,)``; ``eps`` is in the units of ``x``, ``norm``
    is ``"inf"`` or 2. The ensemble of Croce & Hein 2020: APGD on the cross-entropy, APGD on the targeted difference of
    logits ratio, targeted FAB, and Square, a black-box attack of 5000 queries, each on the images that survived the
    attacks before; ``attacks`` names the ones to run. With fewer than ten classes the targeted attacks take all others
    as targets; at least four classes are needed. An image that survives takes thousands of passes: minutes on a CPU.
    ``low`` and ``high`` take the place of 0 and 1, and must be finite.

    Needs ``pyautoattack``, the extra ``attacks``. The global random state is left as it was. Raises ``ValueError`` for
    images, labels, sizes or logits that are out of range, and ``MissingExtraError`` without the package.

    >>> autoattack(nn.Flatten(), torch.zeros(1, 4), torch.tensor([0]), eps=0.1)
    Traceback (most recent call last):
    ValueError: AutoAttack needs images of shape (N, C, H, W), got (1, 4)
    """
    limits = check_limits(low, high)
    low, width = limits[0], limits[1] - limits[0]
    if not width < math.inf:
        raise ValueError(f"AutoAttack needs finite limits, got low {low:g} and high {high:g}; take pgd without limits")
    check_images(x, limits=limits)
    check_labels(y, x)
    batch_size = whole("batch_size", batch_size, 1)
    check_size("eps", eps, x)
    size, kind = float(eps), check_norm(norm)
    if x.ndim != 4:
        raise ValueError(f"AutoAttack needs images of shape (N, C, H, W), got {tuple(x.shape)}")
    if kind == 2 and "square" in attacks and min(x.shape[2:]) < 5:
        raise ValueError(f"Square in the 2-norm needs images of at least 5 x 5, got {tuple(x.shape[2:])}")
    if not attacks or not set(attacks) <= set(STANDARD):
        raise ValueError(f"attacks must be some of {', '.join(STANDARD)}, got {tuple(attacks)}")
    with needs("attacks", "autoattack"):
        from pyautoattack import AutoAttack
    x, y = own_copy(x), own_copy(y)
    with borrowed(model, x, frozen=True) as copy, _given_back_tracer(), _usual_defaults():  # FAB calls ``backward``
        with torch.no_grad():
            logits = copy(x[:batch_size].clone())  # a first step may be in place
        check_logits(logits, x[:batch_size])
        classes = logits.shape[1]
        check_classes(y, classes)
        if classes < 4:
            raise ValueError(f"AutoAttack needs at least 4 classes, the model has {classes}; use pgd with restarts")
        # it is only called; the library computes in float32, whatever dtype the images have
        ask = cast(nn.Module, lambda z: copy(z.to(x.dtype, copy=True) * width + low).float())  # z lies in [0, 1]
        how = {"eps": size / width, "seed": _seed(generator), "device": x.device}
        runner = AutoAttack(ask, norm="Linf" if kind == math.inf else "L2", **how)
        runner.attacks_to_run = list(attacks)
        runner.fab.n_target_classes = runner.apgd_targeted.n_target_classes = min(9, classes - 1)
        for attack in (runner.apgd, runner.apgd_targeted, runner.fab, runner.square):
            _draw_privately(attack)
        found, _ = runner.run_standard_evaluation(((x - low) / width).float(), y, batch_size=batch_size)
        found = found.to(x.dtype) * width + low
    if kind == math.inf:
        found = torch.minimum(torch.maximum(found, x - size), x + size)  # it may leave the ball by a rounding
    return found.detach().clamp(*limits)


# ---- private -------------------------------------------------------------------------------------------------------
def _seed(generator: torch.Generator | None) -> int:
    if generator is None:  # what the global one would draw, which is left as it was
        with drawing(torch.device("cpu")) as source:
            state = (source or torch.default_generator).get_state()
        generator = torch.Generator().set_state(state)
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))


def _draw_privately(attack: Any) -> None:
    """Give an attack of the library a random generator of its own in place of torch's global ones.

    Its methods stay the same, but the ``torch`` that they refer to draws from that generator.
    """
    own = torch.Generator()

    def gaussian_like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, generator=own, device="cpu").to(x.device)

    instead = _Instead(
        torch,
        rand=functools.partial(torch.rand, generator=own),
        randn=functools.partial(torch.randn, generator=own),
        randn_like=gaussian_like,
        random=_Instead(torch.random, manual_seed=own.manual_seed),
        cuda=_Instead(torch.cuda, random=_Instead(torch.cuda.random, manual_seed=lambda seed: None)),
    )
    methods: dict[str, Any] = {}
    for kind in reversed(type(attack).__mro__):
        for name, f in vars(kind).items():
            if isinstance(f, types.FunctionType) and "torch" in f.__globals__:
                known = {**f.__globals__, "torch": instead}
                methods[name] = types.FunctionType(f.__code__, known, f.__name__, f.__defaults__, f.__closure__)
    attack.__class__ = type(type(attack).__name__, (type(attack),), methods)


class _Instead:
    """A module in which some names are replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextmanager
def _usual_defaults() -> Iterator[None]:
    """Context manager in which new tensors are float32 and on the CPU by default, as the library expects."""
    with ExitStack() as stack:
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(default_dtype(torch.float32))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def _given_back_tracer() -> Iterator[None]:
    """Context manager that restores the trace function of a debugger, which the library removes."""
    tracer = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracer)
