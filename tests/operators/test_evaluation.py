"""The copy that is asked in evaluation mode answers as the network itself would, and the network does not notice."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.attacks import fgsm, pgd, simba
from convkit.attacks.checks import borrowed
from convkit.audit.product.bound import product_bound
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.network import conv_operators, input_shapes
from tests.helpers.attack_models import Counting
from tests.helpers.odd_networks import NETWORKS, X, Y, block, head, parametrized

networks = pytest.mark.parametrize("name", NETWORKS)
pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of what is old


def in_evaluation(model: nn.Module, x: Tensor) -> Tensor:
    """What the network itself answers in evaluation mode; it is used up."""
    with torch.no_grad():
        return model.eval()(x.clone())


@networks
def test_the_copy_answers_as_the_network_would_and_leaves_it_in_its_mode(name):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    modes = [module.training for module in model.modules()]
    state = {key: t.clone() for key, t in model.state_dict().items()}
    with evaluation_copy(model, X, apart) as shared, torch.no_grad():
        answer = shared(X.clone())
    with borrowed(model, X) as other, torch.no_grad():
        assert torch.equal(other(X.clone()), answer)
    fgsm(model, X, Y, 0.1)
    simba(model, X, Y, 0.1, steps=2)
    assert [module.training for module in model.modules()] == modes
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(t, state[key]) for key, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(in_evaluation(model, X), answer)


@networks
def test_no_module_of_the_network_is_in_the_copy_and_every_parameter_is(name):
    model = NETWORKS[name]()
    with evaluation_copy(model) as shared, borrowed(model, X, frozen=True) as frozen:
        for other in (shared, frozen):
            assert not {id(module) for module in model.modules()} & {id(module) for module in other.modules()}
            assert len(list(other.modules())) == len(list(model.modules()))
            pairs = list(zip(model.parameters(), other.parameters(), strict=True))
            assert all(one.data_ptr() == two.data_ptr() for one, two in pairs)
            pairs = list(zip(model.buffers(), other.buffers(), strict=True))
            assert all(torch.equal(one, two) and one.data_ptr() != two.data_ptr() for one, two in pairs)
            assert not any(module.training for module in other.modules())
        if "scripted" not in name:
            assert [id(p) for p in shared.parameters()] == [id(p) for p in model.parameters()]
            assert not any(p.requires_grad for p in frozen.parameters())
            assert not {id(p) for p in frozen.parameters()} & {id(p) for p in model.parameters()}


# torch gives no way to the tensors of a scripted module but the module's own
@pytest.mark.parametrize("name", [name for name in NETWORKS if "scripted" not in name])
def test_a_backward_pass_through_a_frozen_copy_leaves_no_gradient_in_the_network(name):
    model = NETWORKS[name]()
    before = [p.requires_grad for p in model.parameters()]
    x = X.clone().requires_grad_()
    with borrowed(model, X, frozen=True) as frozen:
        frozen(x.clone()).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == before


def test_a_copy_is_gone_when_it_is_given_back():
    model = parametrized()
    with evaluation_copy(model) as other:
        other(X)
        gone = weakref.ref(other)
    gc.disable()
    try:
        del other
        assert gone() is None
    finally:
        gc.enable()


def test_gradients_reach_the_weights_behind_a_parametrization_through_a_copy():
    model = parametrized()
    with evaluation_copy(model) as other:
        other[1][1].weight.square().sum().backward()
    assert model[1][1].parametrizations.weight.original0.grad.abs().sum() > 0


def test_a_parametrized_weight_is_read_once_also_inside_parametrizes_own_cache():
    class Doubled(nn.Module):
        calls = 0

        def forward(self, weight: Tensor) -> Tensor:
            Doubled.calls += 1
            return 2 * weight

    layers = [parametrize.register_parametrization(nn.Linear(4, 4), "weight", Doubled()) for _ in range(3)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), *layers)
    expected = in_evaluation(copy.deepcopy(model), X)
    with parametrize.cached():
        for _ in range(4):  # copies come and go, perhaps to the same place in memory
            Doubled.calls = 0
            with evaluation_copy(model) as other, torch.no_grad():
                assert torch.equal(other(X), expected)
                assert torch.equal(other(X), expected)
            assert Doubled.calls == 3
    Doubled.calls = 0
    pgd(model, X, Y, 0.1, 0.05, 5)
    assert Doubled.calls == 3


def test_what_a_network_counts_goes_on_counting_beside_others():
    model = Counting(nn.Sequential(block(), head()))
    model(X)
    with evaluation_copy(model) as one:
        one(X)
        with evaluation_copy(model) as other:
            other(X[:1])
            other(X[:1])
        model(X[:2])
        one(X)
    assert (model.asked, model.calls) == (3 + 3 + 1 + 1 + 2 + 3, 6)


def test_a_network_that_was_never_called_gets_its_numbers_first():
    model, twin = (
        nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4)) for _ in range(2)
    )
    with pytest.raises(ValueError, match=r"needed a network whose weights have their numbers, got a LazyConv2d .*; ru"):
        evaluation_copy(model).__enter__()
    pgd(model, X, Y, 0.1, 0.05, 2)
    assert model[1].num_batches_tracked == 0
    assert all(module.training for module in model.modules())
    assert input_shapes(twin, X) == {"0": (6, 6), "3": (1, 1)}
    assert type(twin[0]) is nn.Conv2d


def test_an_attack_needs_a_module():
    with pytest.raises(TypeError, match=r"^the model must be a torch.nn.Module, got function; wrap it in one"):
        fgsm(lambda x: x.flatten(1), X, Y, 0.1)


# ---- compiled networks -----------------------------------------------------------------------------------------------
def test_a_compiled_network_is_attacked_compiled_and_audited_as_written():
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    torch.manual_seed(0)
    model = nn.Sequential(block(), head())
    quick = torch.compile(model, backend=backend)
    quick(X)
    modes = [module.training for module in quick.modules()]
    assert torch.equal(fgsm(quick, X, Y, 0.1), fgsm(model, X, Y, 0.1))
    before = len(compiled)
    for _ in range(4):
        fgsm(quick, X, Y, 0.1)
    assert len(compiled) == before > 1  # what was compiled for one copy serves them all
    assert [module.training for module in quick.modules()] == modes
    assert list(input_shapes(quick, X)) == ["_orig_mod.0.0", "_orig_mod.1.1"]
    assert list(conv_operators(quick, X)) == ["_orig_mod.0.0", "_orig_mod.1.1"]
    assert product_bound(quick, X) == product_bound(model, X)
    model.compile(backend=backend)
    assert torch.equal(fgsm(model, X, Y, 0.1), fgsm(quick, X, Y, 0.1))
    assert model.training
