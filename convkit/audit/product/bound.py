"""An upper bound of a network's Lipschitz constant: the product of the norms of its layers."""

import math
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from convkit.audit.product.branches import BRANCHES
from convkit.audit.product.flow import Flow, Rule
from convkit.audit.product.known import Bound
from convkit.audit.product.linear import LINEAR, of_module
from convkit.audit.product.moves import MOVES
from convkit.audit.product.normalizations import NORMALIZATIONS
from convkit.audit.product.pointwise import POINTWISE
from convkit.operators.dtypes import as_input, check_loaded
from convkit.operators.evaluation import evaluation_copy
from convkit.operators.recording import Constant, Place, Record, copy_to_run, record_run
from convkit.operators.trees import leaves

ALIKE = 1e-4  # relative: how far two runs of one network may be apart by rounding


def product_bound(
    model: nn.Module,
    x: Tensor,
    torus: bool = False,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    folded: bool = True,
) -> float:
    """Return an upper bound of the network's Lipschitz constant on inputs of the size of ``x``.

    In 2-norms and evaluation mode: ``|f(a) - f(b)| <= bound |a - b|`` for all inputs a and b, up to rounding in the
    network itself. The factors are the norm 2 of convolutions and linear layers, together with the gains of a BatchNorm
    or another factor per channel behind them (each by itself with ``folded=False``); the steepest slope of activations;
    for max pooling the root of how many windows share a pixel; ``sqrt(||.||_1 ||.||_inf)`` for averages and
    rearrangements; ``max |weight| / sqrt(eps)`` for LayerNorm, GroupNorm and RMSNorm. Where branches meet, sums add the
    bounds of the branches and concatenations their squares. Biases do not matter. With ``torus=True`` layers without
    Fourier blocks count with the norm of ``A.torus()``, which is larger and cheaper.

    A product of two branches, such as a gate or attention, has a bound only where their numbers are bounded. Intervals
    that hold them are computed from LayerNorm, softmax and sigmoid, and from ``low`` and ``high``, numbers or tensors
    that ``x`` broadcasts: then the bound holds for all a and b whose pixels lie between them.

    The network is run as it is, with its hooks, and each call of torch that computes with the input is recorded. It
    must not look at the numbers, since another input could take another way. A second run on another input must make
    the same calls. Raises ``ValueError`` with the name of the module and the function that have no bound: bound the
    parts around it and multiply, or give a module that is a convolution a method ``operator(input_shape)``.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> _ = model[2].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> round(product_bound(model, torch.zeros(1, 2)), 6)
    6.0
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(
            "product_bound needs a batch of real numbers, since it asks how far outputs move when inputs move, got "
            f"{x.dtype if isinstance(x, Tensor) else type(x).__name__}; start behind the embedding of indices"
        )
    check_loaded(model)
    with torch.inference_mode(False), torch.no_grad():
        domain = _domain(x, low, high)
        with evaluation_copy(model, x, _still) as still:  # all runs see the same numbers while another thread trains
            return _bound(
                type(model).__name__, still, x, Flow(RULES, of_module, torus, domain[0] is not None, folded), domain
            )


RULES: dict[Any, Rule] = {**POINTWISE, **LINEAR, **MOVES, **BRANCHES, **NORMALIZATIONS}


# ---- private -------------------------------------------------------------------------------------------------------
def _still(parameter: Tensor) -> Tensor:
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _bound(kind: str, model: nn.Module, x: Tensor, flow: Flow, domain: tuple[Tensor | None, Tensor | None]) -> float:
    with copy_to_run(model, x) as copy:
        record, output = _recorded(kind, copy, x)
        flow.write(record.input, Bound(1.0, *domain))
        for step in record.steps:
            flow.step(step)
        found = flow.read(record.place(output))
    if found.unbounded and found.why:
        raise ValueError(f"product_bound at {found.why}")
    _same_for_all_inputs(kind, model, x, record, output)
    if not math.isfinite(found.slope):
        raise ValueError("product_bound at the output: it is above 1e308, the largest number; bound the parts")
    return found.slope


def _recorded(kind: str, copy: nn.Module, x: Tensor) -> tuple[Record, Tensor]:
    try:
        record, output = record_run(copy, x)
    except ValueError as error:
        if str(error).startswith("step "):
            raise ValueError(f"product_bound at {error}") from error
        raise
    return record, _one(kind, output)


def _same_for_all_inputs(kind: str, model: nn.Module, x: Tensor, record: Record, output: Tensor) -> None:
    """Raise an error unless a run without a record gives the same, and one on another input makes the same calls."""
    with copy_to_run(model, x) as copy:
        plain = _one(kind, copy(as_input(copy, x.detach()).clone()))
    size = float(plain.abs().nan_to_num(0, 0, 0).max()) if plain.numel() else 0.0
    if plain.shape != output.shape or not torch.allclose(plain, output, 0, ALIKE * size, equal_nan=True):
        raise _different(kind, "the outputs")
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(x)
    with copy_to_run(model, x) as copy:
        another, _ = _recorded(kind, copy, x.detach() + noise * (1 + x.detach().abs().nan_to_num(0, 0, 0)))
    _compare(kind, record, another)


def _one(kind: str, output: Any) -> Tensor:
    """Return the one tensor of an output, alone or in a container."""
    tensors = list(leaves(output, Tensor))
    if len(tensors) != 1:
        raise ValueError(
            f"product_bound needs a network with one output tensor, got {kind}, which returns {len(tensors)}; "
            "bound the parts that lead to each"
        )
    return tensors[0]


def _domain(x: Tensor, low: float | Tensor | None, high: float | Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if low is None and high is None:
        return None, None
    ends = []
    for end, endless in ((low, -math.inf), (high, math.inf)):
        t = torch.as_tensor(endless if end is None else end, dtype=torch.float64, device=x.device)
        ends.append(t.expand(x.shape).contiguous())
    if not bool((ends[0] <= ends[1]).all()):
        raise ValueError(f"product_bound needs low <= high in every pixel, got {low} and {high}; swap them")
    return ends[0], ends[1]


def _different(kind: str, what: str) -> ValueError:
    return ValueError(
        f"product_bound needs a network that does the same to all inputs, got {kind}, where {what} "
        "differ from run to run or with the input; take out what is random, remembers earlier calls or computes with "
        "numbers outside of torch"
    )


def _compare(kind: str, one: Record, other: Record) -> None:
    """Raise an error unless two runs have made the same calls with the same constants."""
    numbers: dict[int, int] = {}

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Place) and isinstance(b, Place):
            return numbers.setdefault(a.memory, b.memory) == b.memory and a[1:] == b[1:]
        if isinstance(a, Constant) and isinstance(b, Constant):
            x, y = a.value, b.value
            return x.dtype == y.dtype and (torch.equal(x, y) or torch.equal(x.nan_to_num(), y.nan_to_num()))
        if isinstance(a, list | tuple) and isinstance(b, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
        return a is b or a == b or (a != a and b != b)

    for a, b in zip_longest(one.steps, other.steps):
        if a is None or b is None:
            raise _different(kind, "the numbers of calls")
        modules = isinstance(a.op, nn.Module) and isinstance(b.op, nn.Module) and a.where == b.where
        if not (modules or a.op is b.op):
            raise _different(kind, f"the calls from {a.name}")
        if not (same((a.args, a.kwargs), (b.args, b.kwargs)) and same(a.outs, b.outs)):
            raise _different(kind, f"the arguments of {a.name}")
        if not all(map(same, a.before.values(), b.before.values())):
            raise _different(kind, f"the arguments of {a.name}")
