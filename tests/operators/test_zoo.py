"""The zoo: what is read of each module is its dense Jacobian, and what cannot be read has a name."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from convkit.operators.network import conv_operators, read_network
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged
from tests.helpers.zoo import PARTS, WHOLE, ZOO, Kind


def made(kind: Kind, device: torch.device) -> tuple[nn.Module, torch.Tensor]:
    device = torch.device("cpu") if kind.on_the_cpu else device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's old weight_norm, of TorchScript, of quantization
        module = kind.make().eval()
    types = {p.dtype for p in module.parameters()}
    if not types & {torch.float16, torch.bfloat16} and "Quantized" not in repr(module):
        module = module.double()
    return module.to(device), normal(*kind.shape, device=device, dtype=next(module.parameters()).dtype)


def jacobian(function, x):
    """The dense matrix of a function at x; one that returns a dictionary of one tensor counts as that tensor."""

    def tensor(x):
        y = function(x)
        return y["out"] if isinstance(y, dict) else y

    J = torch.autograd.functional.jacobian(tensor, x)
    return J.reshape(-1, x.numel())


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_read_is_the_dense_jacobian_of_the_module(device, name):
    kind = WHOLE[name]
    module, x = made(kind, device)
    if name == "lazy":
        conv_operators(module, x)  # which gives it its weights
    with unchanged(module, x):
        operators = conv_operators(module, x)
    assert tuple(operators) == kind.rows
    assert dict(operators.missing) == kind.missing
    if x.dtype != torch.float64:
        module, x = copy.deepcopy(module).float(), x.float()
    chain = kind.rows if kind.chain is None else kind.chain
    M = torch.eye(x.numel(), dtype=x.dtype, device=device)
    for row in chain:
        M = operators[row].matrix().detach() @ M
    if kind.by_token:
        x, J = x.mT, jacobian(lambda x: module(x.mT).mT, x.mT)
    else:
        J = jacobian(module, x)
    assert M.any()
    assert_close(M, J)


@pytest.mark.parametrize("name", PARTS)
def test_each_row_is_the_dense_jacobian_of_its_layer_and_what_has_none_is_named_or_raises(device, name):
    kind = PARTS[name]
    module, x = made(kind, device)
    with unchanged(module, x):
        operators, rows = read_network(module, x, "note")
    assert tuple(operators) == kind.rows
    assert [where for where, _ in operators.missing] == list(kind.missing)
    for (_, reason), beginning in zip(operators.missing, kind.missing.values(), strict=True):
        assert reason.startswith(beginning)
    for A, row in zip(operators.values(), rows.values(), strict=True):
        layer = copy.deepcopy(module.get_submodule(row.layer)).to(A.kernel.dtype)
        if row.operator is None:
            token = normal(1, A.in_shape[0], device=A.kernel.device, dtype=A.kernel.dtype)
            met = token if isinstance(layer, nn.Linear) else token.new_zeros(1, *A.in_shape)
            J = jacobian(layer, met)
            M = A.matrix().detach()
            positions = math.prod(A.input_shape) if isinstance(layer, nn.Linear) else 1
            assert_close(M, torch.kron(J, torch.eye(positions).to(J)))
    raising = [reason for _, reason in operators.missing if "model(x) does not" not in reason]
    if raising:
        refused(".*; missing='note' leaves it out", conv_operators, module, x)
    else:
        assert tuple(conv_operators(module, x)) == kind.rows


def test_the_zoo_has_a_hundred_kinds():
    assert len(ZOO) == len(WHOLE) + len(PARTS) >= 100
