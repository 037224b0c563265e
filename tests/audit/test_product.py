"""The product bound is never below the Jacobians of a network, and equals the norm where that is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.audit.product import product_bound

_SLOPES={}
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.small_network import random_batchnorms
from tests.helpers.unchanged import unchanged


class Residual(nn.Module):
    """A block with a skip: the same size, or half of it with twice the channels padded with zeros."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.more, self.stride = channels * (stride - 1), stride
        self.conv1 = nn.Conv2d(channels, channels + self.more, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels + self.more)
        self.conv2 = nn.Conv2d(channels + self.more, channels + self.more, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels + self.more)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        y += x
        return torch.relu(y)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.blocks = nn.Sequential(Residual(3), Residual(3, 2))
        self.branches = nn.ModuleList([nn.Conv2d(6, 2, 1), nn.Conv2d(6, 3, (3, 1), padding=(1, 0))])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(0.5 * x).tanh(), 3, 2, 1)
        x = self.blocks(x)
        x = torch.cat([branch(x) for branch in self.branches], 1)
        x = F.avg_pool2d(x, x.shape[-2:])
        return self.head(F.dropout(self.dropout(x.view(x.size(0), -1)), training=self.training))


class NormalizedTwice(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(super().forward(input))


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def steepest(model: nn.Module, x: Tensor) -> float:
    """The largest norm of the Jacobian, in evaluation mode, at some inputs and scales of them."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    norms = []
    for scale in (0.01, 0.3, 1.0, 3.0):
        for image in scale * x:
            outputs = model(image[None].clone()).numel()
            copies = image.expand(outputs, *image.shape).clone().requires_grad_()  # one for each row of the Jacobian
            (rows,) = torch.autograd.grad(model(copies.clone()).reshape(outputs, -1).diagonal().sum(), copies)
            norms.append(float(torch.linalg.matrix_norm(rows.flatten(1), 2)))
    for module, mode in training.items():
        module.training = mode
    return max(norms)


def images(device: torch.device) -> Tensor:
    return normal(5, 2, 8, 9, device=device)


def dense_norm(layer: nn.Module, size: tuple[int, int]) -> float:
    return float(torch.linalg.matrix_norm(ConvOperator.from_layer(layer, size).matrix().detach(), 2))


# ---- never below ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("torus", [False, True])
def test_the_bound_of_a_residual_network_is_not_below_its_jacobians(device, torus):
    for seed in range(5):
        torch.manual_seed(seed)
        model = random_batchnorms(ResNet().double().to(device))
        assert steepest(model, images(device)) <= product_bound(model, images(device), torus)


LAYERS = {
    "strided": lambda: nn.Conv2d(2, 3, 3, 2),
    "reached through circular padding": lambda: nn.Sequential(nn.CircularPad2d(2), nn.Conv2d(2, 3, 3)),
    "circular": lambda: nn.Conv2d(2, 4, (3, 2), padding=1, padding_mode="circular", groups=2),
    "reflecting": lambda: nn.Conv2d(2, 3, (3, 2), padding=(2, 1), padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, (3, 2), (2, 1), 1, output_padding=(1, 0), groups=2),
    "on one image": lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 36)), nn.Linear(36, 5)),
    "overlapping maxima": lambda: nn.MaxPool2d(3, 2, 1),
    "dilated maxima": lambda: nn.MaxPool2d(2, 2, dilation=2),
    "maxima to the last pixel": lambda: nn.MaxPool2d((2, 3), ceil_mode=True),
    "averages": lambda: nn.AvgPool2d(3, 2, 1),
    "averages that do not count padding": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False, ceil_mode=True),
    "averages to a size": lambda: nn.AdaptiveAvgPool2d((3, 4)),
    "reflection": lambda: nn.ReflectionPad2d(3),
    "replication": lambda: nn.ReplicationPad2d((2, 0, 1, 3)),
    "permutation": lambda: nn.PixelUnshuffle(1),
    "batch norm": lambda: nn.BatchNorm2d(2),
    "batch norm without weights": lambda: nn.BatchNorm2d(2, affine=False),
    "parametrized": lambda: parametrize.register_parametrization(nn.Conv2d(2, 3, 1), "weight", nn.Softsign()),
    "ConvNorm": lambda: ConvNorm2d(2, 3, 3, padding=1),
    "ConvNorm, strided and grouped": lambda: ConvNorm2d(2, 4, (3, 2), stride=(2, 1), padding=1, groups=2),
    "ConvNorm without affine": lambda: ConvNorm2d(2, 3, (1, 3), padding="same", affine=False),
    "noisy affine": lambda: NoisyAffine2d(2, sigma=0.5),
    "one layer twice": lambda: (lambda conv: nn.Sequential(conv, nn.Tanh(), conv))(nn.Conv2d(2, 2, 3)),
}
FUNCTIONS = {
    "negative": lambda x: -x,
    "difference": lambda x: x - 2 * x.mean((2, 3), keepdim=True),
    "times itself, shifted": lambda x: x[..., 1:] + x[..., :-1],
    "broadcast": lambda x: x[:, :1] + x,
    "mean": lambda x: x.mean((2, 3)),
    "quotient": lambda x: (x / 0.5).transpose(1, 2),
    "quotient of each": lambda x: x / torch.tensor([[[2.0]], [[-0.5]]], dtype=torch.float64, device=x.device),
    "constant product": lambda x: torch.tensor([[[[3.0, -1.0]]]], dtype=x.dtype, device=x.device) * x.mean(3, True),
    "stack": lambda x: torch.stack([x, x.relu(), torch.sigmoid(x)]).permute(1, 0, 2, 3, 4),
    "activations": lambda x: F.leaky_relu(F.gelu(F.silu(F.softplus(x))), -2.0),
    "in place": lambda x: (x.mul_(10), x)[1],
    "a view in place": lambda x: (x.flatten(1).mul_(10), x[..., :2])[1],
    "a part in place": lambda x: (x[..., 1:3].mul_(10), x)[1],
    "a part shrunk in place": lambda x: (x[..., 1:3].mul_(0.1), x)[1],
    "in place beside a skip": lambda x: F.relu(x.mul_(-3.0), inplace=True) - x,
    "padding": lambda x: F.pad(x, (1, -2, 3, 0), value=-4.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LAYERS, *FUNCTIONS])
def test_the_bound_is_not_below_the_jacobians(device, name):
    for seed in range(3 if name in LAYERS else 1):
        torch.manual_seed(seed)
        layer = LAYERS[name]() if name in LAYERS else nn.Sequential(Function(FUNCTIONS[name]))
        model = random_batchnorms(layer.double().to(device))
        assert steepest(model, images(device)) <= product_bound(model, images(device)) * (1 + 1e-12)


@pytest.mark.parametrize("kind", _SLOPES, ids=lambda kind: kind.__name__)
def test_slopes_are_the_largest_of_their_activations(device, kind):
    x = torch.linspace(-8, 8, 200001, dtype=torch.float64, device=device).requires_grad_()
    variants = [{}, {"approximate": "tanh"}] if kind is nn.GELU else [{}]
    variants += [{"alpha": 3.0}] if kind is nn.ELU else []
    variants += [{"negative_slope": -2.0}] if kind is nn.LeakyReLU else []
    variants += [{"init": 1.5}] if kind is nn.PReLU else []
    for options in variants:
        module = kind(**options).double().to(device)
        (slopes,) = torch.autograd.grad(module(x).sum(), x)
        bound = _SLOPES[kind](module)
        assert 0.995 * bound <= slopes.abs().max() <= bound


# ---- how tight -----------------------------------------------------------------------------------------------------
def test_the_bound_of_one_layer_is_its_norm(device):
    x = images(device)
    for layer in (nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 2, 2), nn.Linear(9, 4), LAYERS["circular"]()):
        layer = layer.double().to(device)
        A = ConvOperator.from_layer(layer, (8, 9) if isinstance(layer, nn.Conv2d) else (1, 1))
        assert product_bound(layer, x) == pytest.approx(float(operator_norm(A, 2).detach()), rel=1e-8)


def test_a_stack_multiplies_norms_gains_and_slopes(device):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2))
    model = random_batchnorms(model.double().to(device))
    gain = model[1].weight.abs() / (model[1].running_var + model[1].eps).sqrt()
    product = dense_norm(model[0], (8, 9)) * float(gain.detach().max()) / 4 * dense_norm(model[4], (3, 3))
    assert product_bound(model, images(device)) == pytest.approx(product, rel=1e-8)


def test_a_skip_adds_one_and_branches_add_squares(device):
    conv = nn.Conv2d(2, 2, 3, padding=1).double().to(device)
    norm = dense_norm(conv, (8, 9))

    class Skip(nn.Module):
        def __init__(self, join) -> None:
            super().__init__()
            self.conv, self.join = conv, join

        def forward(self, x: Tensor) -> Tensor:
            return self.join(x, self.conv(x))

    joins = [
        (lambda x, y: x + y, 1 + norm),
        (lambda x, y: x + 0.1 * y, 1 + 0.1 * norm),
        (lambda x, y: torch.cat([x, y], 1), math.hypot(1, norm)),
        (lambda x, y: torch.cat([x, x, y]), math.hypot(1, 1, norm)),
        (lambda x, y: x + x, 2),
        (lambda x, y: 3 + y, norm),
    ]
    for join, expected in joins:
        assert product_bound(Skip(join), images(device)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    "layer, stretch",
    [
        (nn.AvgPool2d(2), 1 / 2),
        (nn.AdaptiveAvgPool2d(1), 1 / math.sqrt(72)),
        (nn.MaxPool2d(2), 1.0),
        (nn.MaxPool2d(3, 2), 2.0),
        (nn.MaxPool2d(3, 1), 3.0),
        (nn.ZeroPad2d(2), 1.0),
        (Function(lambda x: F.pad(x, (1, 1), value=4.0)), 1.0),
        (nn.Flatten(), 1.0),
        (nn.Dropout(0.9), 1.0),
        (nn.LeakyReLU(0.1), 1.0),
    ],
    ids=lambda value: str(value),
)
def test_pooling_and_moving_stretch_by_what_is_known(device, layer, stretch):
    assert product_bound(layer, images(device)) == pytest.approx(stretch, rel=1e-8)


def test_a_change_in_place_counts_in_what_shares_the_memory_and_nowhere_else(device):
    def block(x: Tensor) -> Tensor:
        y = x + 0
        F.relu(y.mul_(-3.0), inplace=True)
        return y + 0.5 * x

    assert product_bound(Function(block), images(device)) == pytest.approx(3.5)
    with torch.inference_mode():
        assert product_bound(Function(block), images(device).clone()) == pytest.approx(3.5)


def test_a_network_that_ignores_its_input_has_bound_zero_and_the_torus_is_larger_and_close(device):
    model = nn.Sequential(nn.Conv2d(2, 3, 1), Function(lambda x: 0 * x)).double().to(device)
    assert product_bound(model, images(device)) == 0
    model = random_batchnorms(ResNet().double().to(device))
    exact = product_bound(model, images(device))
    assert exact < product_bound(model, images(device), torus=True) < 3 * exact


def test_a_layer_that_states_its_operator_is_taken_at_its_word(device):
    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            if input.sum() == 0:  # a forward that cannot be traced
                return self._conv_forward(input, 2 * self.weight, self.bias)
            return 2 * super().forward(input)

        def operator(self, input_shape: tuple[int, ...]) -> ConvOperator:
            return ConvOperator(2 * self.weight, input_shape, padding=0, padding_mode="zeros")

    model = nn.Sequential(Doubled(2, 3, 3)).double().to(device)
    plain = ConvOperator(model[0].weight.detach(), (8, 9), padding=0, padding_mode="zeros")
    expected = 2 * float(torch.linalg.matrix_norm(plain.matrix(), 2))
    assert product_bound(model, images(device)) == pytest.approx(expected, rel=1e-8)


def test_model_and_input_are_left_as_they_were(device):
    x = images(device)
    model = random_batchnorms(nn.Sequential(nn.ReLU(inplace=True), ResNet().double().to(device)))
    model[1].blocks[0].bn1.eval()
    random = torch.get_rng_state()
    with unchanged(model, x):
        assert product_bound(model, x) == product_bound(model, x)
    assert torch.equal(torch.get_rng_state(), random)


# ---- refusals ------------------------------------------------------------------------------------------------------
REFUSED = {
    "module without a bound": (nn.LayerNorm([2, 8, 9]), r"step '1' \(LayerNorm\): no bound is known"),
    "module that is not known": (nn.InstanceNorm2d(2), r"step '1' \(InstanceNorm2d\): no bound is known"),
    "forward of its own": (NormalizedTwice(2), r"step '1' \(NormalizedTwice\): no bound is known"),
    "batch statistics": (nn.BatchNorm2d(2, track_running_stats=False), r"step '1' \(BatchNorm2d\): .* track running"),
    "product of branches": (Function(lambda x: x * x.mean()), r"step 'mul' \(mul\): a product or quotient of branches"),
    "quotient of branches": (Function(lambda x: 1 / x), r"step 'truediv' \(truediv\): a product or quotient"),
    "function": (Function(lambda x: x.exp()), r"step 'exp' \(exp\): no bound is known for this function"),
    "functional normalization": (Function(lambda x: F.normalize(x)), r"step 'normalize' \(normalize\)"),
    "dropout that stays on": (Function(lambda x: F.dropout(x, 0.3)), r"step 'dropout' \(dropout\)"),
    "index from the input": (Function(lambda x: x[x > 0]), r"step 'gt' \(gt\)"),
    "branch in a keyword": (Function(lambda x: torch.add(x, other=x)), r"no bound is known"),
    "branches in a keyword": (Function(lambda x: torch.cat(tensors=[x, x])), r"step 'cat' .* for these arguments"),
    "several outputs": (Function(lambda x: (x, -x)), r"step 'output' \(output\): needed one output tensor"),
    "several tensors": (Function(lambda x: x.chunk(2)[0]), r"step 'chunk' \(chunk\): needed a step that gives one"),
    "number": (Function(lambda x: x * x.sum().item()), r"step '(sum_1|item)'"),
    "number of a tensor": (Function(lambda x: x.mean() * torch.equal(x, x)), r"step 'equal' \(equal\)"),
    "condition": (Function(lambda x: x if x.sum() > 0 else -x), r"needs a network that torch.fx can trace, got Sequ"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bound_is_refused_by_name(device, name):
    part, message = REFUSED[name]
    model = nn.Sequential(nn.Identity(), part).double().to(device)
    model.train()
    with pytest.raises(ValueError, match=message) as caught:
        product_bound(model, images(device))
    assert all(module.training for module in model.modules())
    assert "While executing" not in str(caught.value)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(device, number):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)).double().to(device)
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = number
    refused(r"step '1' \(Conv2d\): kernel must be finite", product_bound, model, images(device))
    with torch.no_grad():
        model[0].weight[0] = number
    refused(r"step '0' \(BatchNorm2d\): its gain must be finite", product_bound, model, images(device))
