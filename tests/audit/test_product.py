"""The product bound is never below the Jacobians of a network, and equals the norm where that is known."""

import ctypes
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from convkit.audit.product.bound import product_bound
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import normal
from tests.helpers.random_graphs import maxmin
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


class Changed(nn.Conv2d):
    """A convolution whose forward the instance has changed."""

    def __init__(self) -> None:
        super().__init__(2, 3, 2)
        forward = self.forward
        self.forward = lambda x: 7 * forward(x)


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Apart(nn.Module):
    """A module behind a maximum of one entry, which no gain goes through."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(torch.maximum(x, x - 1))


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
    "noisy affine": lambda: NoisyAffine(2, sigma=0.5),
    "normalized twice": lambda: NormalizedTwice(2),
    "changed forward": Changed,
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


ACTIVATIONS = {
    **{kind.__name__: kind() for kind in (nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Hardswish, nn.Hardtanh, nn.Mish)},
    **{
        kind.__name__: kind() for kind in (nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign)
    },
    **{"GELU": nn.GELU(), "GELU by tanh": nn.GELU("tanh"), "ELU": nn.ELU(), "steep ELU": nn.ELU(3.0)},
    **{"CELU": nn.CELU(2.0), "LeakyReLU": nn.LeakyReLU(0.1), "falling LeakyReLU": nn.LeakyReLU(-2.0)},
    **{"PReLU": nn.PReLU(init=1.5), "Softshrink": nn.Softshrink(), "Threshold": nn.Threshold(0.5, 0.5)},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_the_largest_of_their_activations(device, name):
    module = ACTIVATIONS[name].double().to(device)
    x = torch.linspace(-8, 8, 200001, dtype=torch.float64, device=device).requires_grad_()
    (slopes,) = torch.autograd.grad(module(x).sum(), x)
    options = {"low": -8, "high": 8} if name == "Softsign" else {}
    bound = product_bound(module, x[None, :8], **options)
    assert slopes.abs().max() <= bound
    assert name == "Softsign" or bound <= 1.005 * slopes.abs().max()


# ---- how tight -----------------------------------------------------------------------------------------------------
def test_the_bound_of_one_layer_is_its_norm(device):
    x = images(device)
    for layer in (nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 2, 2), nn.Linear(9, 4), LAYERS["circular"]()):
        layer = layer.double().to(device)
        A = ConvOperator.from_layer(layer, (8, 9) if isinstance(layer, nn.Conv2d) else (1, 1))
        assert product_bound(layer, x) == pytest.approx(float(operator_norm(A, 2).detach()), rel=1e-8)


def test_a_stack_multiplies_norms_gains_and_slopes(device):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.BatchNorm2d(3), nn.Sigmoid(), nn.Conv2d(3, 4, 2))
    model = random_batchnorms(model.double().to(device))
    gain = model[2].weight.abs() / (model[2].running_var + model[2].eps).sqrt()
    product = dense_norm(model[0], (8, 9)) * float(gain.detach().max()) / 4 * dense_norm(model[4], (6, 7))
    assert product_bound(model, images(device)) == pytest.approx(product, rel=1e-8)


@pytest.mark.parametrize("kind", ["plain", "grouped", "padded before", "transposed", "functional", "scaled", "linear"])
def test_gains_behind_a_layer_count_in_its_norm(device, kind):
    weight = normal(3, 2, 2, 3, device=device)
    layers: dict[str, list[nn.Module]] = {
        "plain": [nn.Conv2d(2, 3, (2, 3), padding=1), nn.BatchNorm2d(3)],
        "grouped": [nn.Conv2d(2, 4, (3, 2), (2, 1), groups=2), nn.BatchNorm2d(4)],
        "padded before": [nn.ZeroPad2d((0, 1, 2, 0)), Function(lambda x: F.conv2d(x, weight)), nn.BatchNorm2d(3)],
        "transposed": [nn.ConvTranspose2d(2, 4, (2, 3), groups=2), nn.BatchNorm2d(4)],
        "functional": [
            nn.Conv2d(2, 3, 2),
            Function(lambda x: F.batch_norm(x, x.new_zeros(3), x.new_ones(3), x.new_tensor([3.0, 0.0, -0.1]))),
        ],
        "scaled": [nn.Conv2d(2, 3, 2), Function(lambda x: 1 - x * x.new_tensor([3.0, 0.2, -0.1])[:, None, None])],
        "linear": [nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5)],
    }
    model = random_batchnorms(nn.Sequential(*layers[kind]).double().to(device)).eval()
    zero = torch.zeros(1, 2, 8, 9, dtype=torch.float64, device=device)
    M = torch.autograd.functional.jacobian(model, zero).flatten(1).reshape(-1, 144)
    norm = float(torch.linalg.matrix_norm(M, 2))
    assert product_bound(model, zero) == pytest.approx(norm, rel=1e-8)
    assert norm < 0.97 * product_bound(nn.Sequential(*layers[kind][:-1], nn.Identity(), Apart(layers[kind][-1])), zero)


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


def test_what_hooks_and_other_names_of_a_tensor_do_counts(device):
    conv = nn.Conv2d(2, 2, 3, padding=1).double().to(device)
    norm = dense_norm(conv, (8, 9))
    conv.register_forward_hook(lambda module, arguments, out: 10 * out)
    assert product_bound(conv, images(device)) == pytest.approx(10 * norm, rel=1e-8)
    conv.register_forward_pre_hook(lambda module, arguments: (arguments[0] / 4,))
    assert product_bound(nn.Sequential(conv), images(device)) == pytest.approx(2.5 * norm, rel=1e-8)

    def doubled(x: Tensor) -> Tensor:
        y = 3 * x
        w = y
        w += y
        return y

    assert product_bound(Function(doubled), images(device)) == pytest.approx(6)
    assert product_bound(Function(lambda x: {"out": 2 * x}), images(device)) == 2


TIGHT = {  # functions of x with 2 channels of 8 x 9 pixels between -1 and 1, and their steepest slopes
    "repeated by expansion": (lambda x: x.mean(1, keepdim=True).expand_as(x) * 1, 1.0),
    "written twice": (lambda x: filled(x.new_zeros(5, 4, 8, 9), x), math.sqrt(2)),
    "maximum and minimum": (maxmin, 1.0),
    "maximum and minimum of the same": (lambda x: torch.cat([torch.maximum(x, x), torch.minimum(x, x)]), math.sqrt(2)),
    "largest of one": (lambda x: torch.cat([x.unsqueeze(1).amax(1), x.unsqueeze(1).amin(1)]), math.sqrt(2)),
    "groups sorted": (lambda x: x.unflatten(1, (1, 2)).sort(2).values, 1.0),
    "sum of sizes": (lambda x: torch.linalg.vector_norm(x, 1, dim=(1, 2, 3)), 12.0),
    "one factor for all": (lambda x: x[..., :1] * (1 + x[..., 1:] * 1e-6), math.sqrt(8)),
    "square": (lambda x: x * x, 2.0),
    "quotient": (lambda x: 1 / (x + 3), 0.25),
    "L2 pooling that overlaps": (lambda x: F.lp_pool2d(x, 2, 3, 1), 3.0),
    "L2 pooling by hand": (lambda x: (F.avg_pool2d(x.square(), 2) * 4 + 1e-6).sqrt(), 1.0),
    "split and joined in another order": (lambda x: torch.cat(x.split(1, 1)[::-1], 1), 1.0),
    "softmax of two": (lambda x: x.softmax(1), 0.5),
    "nearest": (lambda x: F.interpolate(x, scale_factor=(2, 3)), math.sqrt(6)),
    "LayerNorm near a constant": (lambda x: F.layer_norm(x * 1e-3, (9,), eps=0.25), 2e-3),
    "group norm with gains": (lambda x: F.group_norm(x * 1e-3, 1, x.new_tensor([1.0, -3.0]), eps=0.25), 6e-3),
    "instance norm": (lambda x: F.instance_norm(x * 1e-3, eps=1.0), 1e-3),
    "unit vectors": (lambda x: F.normalize(x * 1e-3, dim=1, eps=0.25), 4e-3),
    "gate without numbers": (lambda x: x * torch.sigmoid(0 * x), 0.5),
}


def filled(memory: Tensor, x: Tensor) -> Tensor:
    memory[:, :2] = x
    memory[:, 2:] = x
    return memory


@pytest.mark.parametrize("name", TIGHT)
def test_bounds_of_new_kinds_of_steps_are_the_steepest_slopes(device, name):
    function, slope = TIGHT[name]
    assert product_bound(Function(function), images(device), low=-1, high=1) == pytest.approx(slope, rel=1e-4)


def test_a_box_bounds_products(device):
    x = images(device)
    square = nn.Sequential(nn.Conv2d(2, 2, 1), Function(lambda x: x * x)).double().to(device)
    with torch.no_grad():
        square[0].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, -1.0]])[..., None, None])
        square[0].bias.copy_(torch.tensor([1.0, 0.5]))
    low, high = torch.tensor([-1.0, 0.0])[:, None, None].to(x), 3.0  # so that the parts lie in [-1, 7] and [-2.5, 0.5]
    assert product_bound(square, x, low=low, high=high) == pytest.approx(2 * 2 * 7, rel=1e-6)
    assert product_bound(square, x, low=high - 1, high=high) == pytest.approx(2 * 2 * 7, rel=1e-6)
    refused("give a smaller box", product_bound, square, x, low=0)
    refused("low <= high in every pixel", product_bound, square, x, low=1, high=0)
    refused("batch of real numbers", product_bound, square, torch.zeros(1, 2, 8, 9, dtype=torch.long))


def test_a_bound_above_the_largest_number_is_refused(device):
    model = nn.Sequential(Function(lambda x: 1e200 * x), Function(lambda x: 1e200 * x))
    words = r"step '1' \(Function\), mul: the bound is above 1e308"
    refused(words, product_bound, model, images(device))


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
    "module that is not known": (nn.Hardshrink(), r"step '1' \(Hardshrink\), hardshrink: no bound is known"),
    "batch statistics": (
        nn.BatchNorm2d(2, track_running_stats=False),
        r"step '1' \(BatchNorm2d\), batch_norm: .* track",
    ),
    "product of branches": (Function(lambda x: x * x.mean()), r"step '1' \(Function\), mul: .* give low and high"),
    "matrix product": (Function(lambda x: x @ x.mT), r"step '1' \(Function\), matmul: .* give low and high"),
    "quotient of branches": (Function(lambda x: 1 / x), r"step '1' \(Function\), r(div|eciprocal): .* above 0"),
    "function": (Function(lambda x: x.exp()), r"step '1' \(Function\), exp: its slope .* give low and high"),
    "jump": (Function(lambda x: F.threshold(x, 0.5, 0.0)), r"step '1' \(Function\), threshold: it jumps"),
    "mask from the input": (Function(lambda x: torch.where(x > 0, x, 0 * x)), r"step '1' \(Function\), gt: no bound"),
    "rounding": (Function(lambda x: x.round()), r"step '1' \(Function\), round: no bound"),
    "whole numbers": (Function(lambda x: x.to(torch.int32).double()), r"step '1' \(Function\), to: it rounds"),
    "other digits": (
        Function(lambda x: x.view(torch.int64).double()),
        r"it reads a tensor of torch.float64 as torch.int64",
    ),
    "dropout that stays on": (Function(lambda x: F.dropout(x, 0.3)), r"step '1' \(Function\), dropout: it is random"),
    "noise": (Function(lambda x: x + torch.randn_like(x)), r"step '1' \(Function\), randn_like: it is random"),
    "noise of Python": (Function(lambda x: x * random.random()), "differ from run to run"),
    "index from the input": (Function(lambda x: x[x > 0]), r"step '1' \(Function\), getitem: the network looks"),
    "several outputs": (Function(lambda x: (x, -x)), "one output tensor, got Sequential, which returns 2"),
    "number": (Function(lambda x: x * x.sum().item()), r"step '1' \(Function\), item: the network looks at numbers"),
    "number of a tensor": (
        Function(lambda x: x.mean() * torch.equal(x, x)),
        r"step '1' \(Function\), equal: the network",
    ),
    "condition": (Function(lambda x: x if x.sum() > 0 else -x), r"step '1' \(Function\), bool: the network looks"),
    "numpy": (Function(lambda x: x * float(x.numpy().sum())), r"step '1' \(Function\), numpy: it takes numbers"),
    "list": (Function(lambda x: x * sum(x.flatten().tolist())), r"step '1' \(Function\), tolist: it takes numbers"),
    "numbers behind torch's back": (Function(lambda x: x * looked_up(x)), "differ from run to run or with the input"),
    "complex numbers": (
        Function(lambda x: torch.fft.fft(x).real),
        r"step '1' \(Function\), fft_fft: no bound is known",
    ),
    "sparse": (Function(lambda x: x.flatten(1).to_sparse().to_dense()), r"step '1' \(Function\), to_sparse: it takes"),
}


def looked_up(x: Tensor) -> float:
    """The first number of a tensor, read where it lies in memory."""
    return ctypes.c_double.from_address(x.cpu().untyped_storage().data_ptr()).value


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bound_is_refused_by_name(device, name):
    part, message = REFUSED[name]
    model = nn.Sequential(nn.Identity(), part).double().to(device)
    model.train()
    with pytest.raises(ValueError, match=message) as caught:
        product_bound(model, images(device))
    assert all(module.training for module in model.modules())
    assert "While executing" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by torch itself
def test_torchscript_is_refused_by_name(device):
    model = nn.Sequential(nn.Identity(), torch.jit.script(nn.ReLU())).to(device)
    refused(r"step '1' \(RecursiveScriptModule\), forward: TorchScript", product_bound, model, images(device).float())


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(device, number):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)).double().to(device)
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = number
    refused(r"step '1' \(Conv2d\), Conv2d: kernel must be finite", product_bound, model, images(device))
    with torch.no_grad():
        model[0].weight[0] = number
    refused(r"step '0' \(BatchNorm2d\), batch_norm: its gain must be finite", product_bound, model, images(device))
