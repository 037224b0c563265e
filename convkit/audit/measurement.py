"""The norm and the condition number of each layer of a network."""

import torch
from torch import Tensor, nn

from convkit.bounds import torus_bound
from convkit.normalization.folding import channel_gains, with_gain
from convkit.norms import operator_norm
from convkit.operators.geometry import NoFourierBlocks
from convkit.operators.network import conv_operators
from convkit.operators.operator import ConvOperator
from convkit.spectra import channel_condition_numbers


@torch.no_grad()
def measure(model: nn.Module, x: Tensor, folded: bool = False) -> tuple[dict[str, float], dict[str, float]]:
    """Return the norm 2 and the median channel condition number of each layer's torus, two dictionaries by layer.

    ``x`` is a batch of inputs, of which only the shape matters; the network gets it in the dtype of its weights.
    Both numbers are exact for ``A.torus()``, whose norm is at least the layer's own. Layers without a torus, whose
    padding reflects, replicates or is circular but not "same", have the norm ``torus_bound(A)``, which is at least
    their own, too, and no condition number; linear layers have none either. ``ConvNorm2d`` is measured with its
    affine kernel; ``folded=True`` includes the gains of a BatchNorm or ``NoisyAffine`` after the layer (see
    ``channel_gains``). Raises ``ValueError`` where ``conv_operators`` does.

    >>> model = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"))
    >>> _ = model[0].weight.data.copy_(torch.tensor([1.0, 4.0, 1.0]))
    >>> norms, conditions = measure(model, torch.zeros(1, 1, 4))
    >>> round(norms["0"], 3), round(conditions["0"], 3)
    (6.0, 3.0)
    """
    operators = {name: _torus(A) for name, A in conv_operators(model, x, "note").items()}
    gains = channel_gains(model, x) if folded else {}
    operators |= {name: with_gain(operators[name], gain) for name, (_, gain) in gains.items() if name in operators}
    exact = {name: A for name, A in operators.items() if A.is_block_circulant}
    norms = {name: operator_norm(A, 2) if name in exact else torus_bound(A) for name, A in operators.items()}
    conditions = {name: channel_condition_numbers(A).median() for name, A in exact.items() if max(A.input_shape) > 1}
    values = iter(_floats([*norms.values(), *conditions.values()]))
    return {name: next(values) for name in norms}, {name: next(values) for name in conditions}


def _torus(A: ConvOperator) -> ConvOperator:
    """Return the operator's torus, or the operator itself where it has none."""
    try:
        return A.torus()
    except NoFourierBlocks:
        return A


def _floats(numbers: list[Tensor]) -> list[float]:
    """Return tensors of one number each as floats, in one copy where they lie on one device: a copy waits for a GPU."""
    if len({(number.device, number.dtype) for number in numbers}) == 1:
        return torch.stack(numbers).tolist()
    return [float(number) for number in numbers]
