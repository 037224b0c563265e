"""From layers and networks to operators: what a layer does on the sizes it meets, and a clear answer otherwise."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

from convkit.audit.product.bound import product_bound
from convkit.audit.tracker import NormTracker
from convkit.constraints.clip import clip_operator_norm
from convkit.operators.geometry import NoFourierBlocks
from convkit.operators.layers import HasOperator, has_operator
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.penalties import mean_norm, orthogonality
from tests.helpers.geometries import inputs, normal
from tests.helpers.odd_networks import Wrapped
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged


class Doubled(nn.Module):
    """A parametrization: the weight times two."""

    def forward(self, weight):
        return 2 * weight


class Residual(nn.Module):
    """A layer that is more than its parts and says what it does: a convolution plus the identity."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        return x + self.inner(x)

    def operator(self, input_shape):
        identity = torch.eye(len(self.inner.weight)).to(self.inner.weight)[..., None, None]
        return ConvOperator(self.inner.weight + identity, input_shape)


def network(device):
    """Every kind of layer and of state that a forward pass can meet; built on the device in float64."""
    layers = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0)),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 3, 3, padding="same", padding_mode="circular"), nn.ReLU()),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    return layers.to(device, torch.float64)


# ---- from_layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, (4,)])
def test_from_layer_of_a_linear_layer_on_sequences_repeats_its_weight(device, size):
    layer = nn.Linear(5, 3, bias=False, device=device, dtype=torch.float64)
    A = ConvOperator.from_layer(layer, size)
    x = normal(2, 4, 5, device=device)  # (batch, positions, features)
    assert_close(A(x.mT).mT, layer(x))


def test_from_layer_reads_a_parametrized_weight_now(device):
    layer = nn.Conv1d(2, 3, 2, bias=False, device=device, dtype=torch.float64)
    raw = layer.weight
    parametrize.register_parametrization(layer, "weight", Doubled())
    A = ConvOperator.from_layer(layer, 5)
    assert_close(A.kernel, 2 * raw)
    assert_close(A(inputs(A)), layer(inputs(A)))
    A.matrix().sum().backward()
    assert raw.grad is not None
    with torch.no_grad():
        raw.mul_(10)
    assert_close(ConvOperator.from_layer(layer, 5).matrix(), 10 * A.matrix())


def test_from_layer_takes_a_subclass_that_only_builds_itself_differently(device):
    class Three(nn.Conv2d):
        def __init__(self):
            super().__init__(2, 4, 3, bias=False)

    layer = Three().to(device, torch.float64)
    A = ConvOperator.from_layer(layer, (5, 6))
    assert_close(A(inputs(A)), layer(inputs(A)))


# ---- input_shapes and conv_operators -------------------------------------------------------------------------------


def test_conv_operators_do_what_the_layers_do_on_the_sizes_that_they_meet_and_lead_to_their_weights(device):
    model, x = network(device), normal(3, 2, 7, 8, device=device)
    assert input_shapes(model, x) == {"0": (7, 8), "2.1": (7, 4), "5": (1, 1)}
    operators = conv_operators(model, x)
    assert list(operators) == ["0", "2.1", "5"]
    sum(A.matrix().sum() for A in operators.values()).backward()
    for name, A in operators.items():
        layer = model.get_submodule(name)
        y = inputs(A)
        if isinstance(layer, nn.Linear):
            assert_close(A(y)[..., 0, 0] + layer.bias, layer(y[..., 0, 0]))
        else:
            assert_close(A(y) + layer.bias[:, None, None], layer(y))
        assert layer.weight.grad is not None


def test_a_layer_with_an_operator_speaks_for_its_parts(device):
    model = nn.Sequential(Residual(2), nn.Conv2d(2, 3, 2)).to(device, torch.float64)
    operators = conv_operators(model, normal(1, 2, 4, 5, device=device))
    assert list(operators) == ["0", "1"]
    assert_close(operators["0"](inputs(operators["0"])), model[0](inputs(operators["0"])))
    assert list(conv_operators(model[0], normal(1, 2, 4, 5, device=device))) == [""]


def test_single_layers_sequences_and_inputs_without_a_batch_have_their_sizes_too(device):
    layer = nn.Conv3d(1, 2, 2).to(device, torch.float64)
    assert input_shapes(layer, normal(1, 1, 3, 4, 5, device=device)) == {"": (3, 4, 5)}
    linear = nn.Linear(5, 3, device=device, dtype=torch.float64)
    assert input_shapes(linear, normal(2, 7, 5, device=device)) == {"": (7,)}
    assert input_shapes(linear, normal(2, 7, 6, 5, device=device)) == {"": (7, 6)}
    assert input_shapes(linear, normal(5, device=device)) == {"": (1, 1)}
    conv = nn.Conv2d(2, 3, 2, device=device, dtype=torch.float64)
    assert input_shapes(conv, normal(2, 5, 6, device=device)) == {"": (5, 6)}


def test_layers_that_are_called_by_keyword_are_seen_and_those_that_the_input_does_not_reach_are_not_listed(device):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 1)

        def forward(self, x):
            return self.used(input=x)

    assert input_shapes(Half().to(device, torch.float64), normal(1, 1, 4, device=device)) == {"used": (4,)}


def test_a_layer_met_twice_with_one_size_is_fine_and_with_two_is_refused(device):
    conv = nn.Conv2d(2, 2, 3, padding=1)
    x = normal(1, 2, 8, 6, device=device)
    assert input_shapes(nn.Sequential(conv, conv).to(device, torch.float64), x) == {"0": (8, 6)}
    model = nn.Sequential(conv, nn.MaxPool2d(2), conv).to(device, torch.float64)
    refused(r"layer '0' .*\(8, 6\) and \(4, 3\).*; make its operators one by one", input_shapes, model, x)


@pytest.mark.parametrize("function", [input_shapes, conv_operators])
def test_a_training_network_is_left_as_it_was_also_when_its_forward_fails(device, function):
    model = network(device)
    parametrizations.spectral_norm(model[0])  # whose power iteration must take no step
    model[2].eval()  # some parts in training mode, some not
    x, random_state = normal(3, 2, 7, 8, device=device), torch.get_rng_state()
    with unchanged(model, x):
        function(model, x)
        with pytest.raises(RuntimeError):
            function(model, x[:, :1])  # one channel, two expected
    assert torch.equal(torch.get_rng_state(), random_state)


# ---- what is called operator and is none ---------------------------------------------------------------------------
@pytest.mark.parametrize("attribute", ["+", None, 2, nn.Linear(3, 2)], ids=lambda a: type(a).__name__)
def test_an_attribute_named_operator_that_is_no_method_is_no_operator(device, attribute):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1)).to(device, torch.float64)
    x = normal(1, 2, 4, 5, device=device)
    shapes, bound = input_shapes(model, x), product_bound(model, x)
    expected = {name: A.matrix() for name, A in conv_operators(model, x).items()}
    penalties = mean_norm(model, shapes), orthogonality(model)
    model[0].operator = attribute
    assert not has_operator(model[0])
    assert input_shapes(model, x) == shapes
    assert_close({name: conv_operators(model, x)[name].matrix() for name in expected}, expected)
    assert_close(product_bound(model, x), bound)
    assert_close((mean_norm(model, shapes), orthogonality(model)), penalties)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert clip_operator_norm(optimizer, model, shapes, bound=0.5).record == {}


def test_a_method_named_operator_is_one_wherever_it_comes_from(device):
    layer = Residual(2).to(device)
    assert isinstance(layer, HasOperator)
    assert has_operator(layer)
    assert has_operator(Wrapped(layer))
    assert not has_operator(Wrapped(nn.ReLU()))
    plain = nn.Conv2d(2, 2, 1).to(device)
    assert not has_operator(plain)
    plain.operator = layer.operator  # given to one layer by hand
    assert has_operator(plain)
    assert_close(ConvOperator.from_layer(plain, (4, 5)).matrix(), layer.operator((4, 5)).matrix())


# ---- errors that name the layer ------------------------------------------------------------------------------------
class Unreadable(Residual):
    """A layer whose operator is read from a file that is no text."""

    def operator(self, input_shape):
        raise self.error


MEASURES = {
    "conv_operators": lambda model, x: conv_operators(model, x),
    "NormTracker": lambda model, x: NormTracker(model, x),
    "mean_norm": lambda model, x: mean_norm(model, input_shapes(model, x)),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    "error, kind",
    [
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), ValueError),
        (TypeError("not a number"), ValueError),
        (NoFourierBlocks("no blocks"), NoFourierBlocks),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_error_in_a_layers_operator_names_the_layer_whatever_it_is(measure, error, kind):
    model = nn.Sequential(nn.ReLU(), Unreadable(2))
    model[1].error = error
    with pytest.raises(ValueError, match=f"^layer '1': {re.escape(str(error))}$") as caught:
        measure(model, torch.ones(1, 2, 4, 5))
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
