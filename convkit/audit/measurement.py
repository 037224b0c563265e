"""The norm and the condition number of each layer of a network."""

import torch
from torch import Tensor, nn

from convkit.audit.gains import channel_gains, with_gain
from convkit.norms import operator_norm
from convkit.operators.dtypes import as_input
from convkit.operators.network import conv_operators
from convkit.spectra import channel_condition_numbers


@torch.no_grad()
def measure(model: nn.Module, x: Tensor, folded: bool = False) -> tuple[dict[str, float], dict[str, float]]:
    """Return the norm 2 and the median channel condition number of each layer on its torus, by the layer's name.

    Linear layers have no condition number here. ConvNorm counts with its affine kernel; the gains of a BatchNorm behind
    the layer count only if ``folded`` (see ``channel_gains``). Only the shape of ``x`` matters, which the network gets
    in the dtype of its weights.
    """
    operators = {name: A.torus() for name, A in conv_operators(model, as_input(model, x)).items()}
    gains = channel_gains(model) if folded else {}
    operators |= {name: with_gain(operators[name], gain) for name, (_, gain) in gains.items() if name in operators}
    norms = {name: float(operator_norm(A, 2)) for name, A in operators.items()}
    conditions = {
        name: float(channel_condition_numbers(A).median()) for name, A in operators.items() if max(A.input_shape) > 1
    }
    return norms, conditions
