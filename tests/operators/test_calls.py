"""What runs is read: names of rows, attention, modes; the zoo has what each kind of module does."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.network import conv_operators, input_shapes
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)


def test_attention_has_four_maps_and_layers_around_it_are_read(device):
    class Mixed(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.part = nn.MultiheadAttention(4, 2, batch_first=True, **options)

        def forward(self, x):
            return self.part(x, x[..., : self.part.kdim], torch.cat([x, x], 2)[..., : self.part.vdim])[0]

    for options in ({}, {"kdim": 3, "vdim": 5}):
        model = Mixed(**options).to(device, torch.float64)
        attention = model.part
        operators = conv_operators(model, normal(3, 5, 4, device=device))
        assert list(operators) == ["part.q", "part.k", "part.v", "part.out"]
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        weights = weights if options else attention.in_proj_weight.chunk(3)
        for A, weight in zip(operators.values(), [*weights, attention.out_proj.weight], strict=True):
            assert_close(A.kernel[..., 0], weight.detach())
            assert A.input_shape == (5,)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).to(device, torch.float64)
    names = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.out", "linear1", "linear2"]
    assert list(conv_operators(layer, normal(3, 5, 4, device=device))) == names


def test_rows_are_named_by_module_kernel_and_size(device):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.linear, self.own = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4), Standardized(4, 4, 1)
            self.one, self.two = nn.Parameter(torch.ones(2, 4)), nn.Parameter(torch.ones(4, 2))

        def forward(self, x):
            x = self.shared(self.shared(x))
            x = self.own(self.shared(F.avg_pool2d(self.own(x), 2)))
            x = self.linear(x.flatten(2).mT)
            return F.linear(F.linear(self.linear(x.mean(1)), self.one), self.two)

    model, x = Several().to(device, torch.float64), normal(3, 4, 7, 6, device=device)
    operators = conv_operators(model, x)
    assert list(operators) == ["shared", "own", "shared@3x3", "own@3x3", "linear", "", "#2"]
    assert operators["shared@3x3"].input_shape == operators["own@3x3"].input_shape == (3, 3)
    refused(r"layer 'shared' meets inputs of sizes \(7, 6\) and \(3, 3\)", input_shapes, model, x)


def test_whole_numbers_stay_and_the_embedding_that_they_look_up_in_is_no_map(device):
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)).to(device)
    operators = conv_operators(model, torch.arange(6, device=device)[None])
    assert (list(operators), operators.missing) == (["1"], [])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_reading_is_the_same_in_every_mode_of_autograd(device, mode):
    model = nn.Sequential(nn.ZeroPad2d(1), Standardized(4, 2, 3)).to(device)
    model[0].forward = lambda x: F.pad(x, (1, 1, 0, 2))
    with mode():
        (A,) = conv_operators(model, normal(1, 4, 7, 6, device=device)).values()
    assert A.pads == ((0, 2), (1, 1))


def test_rows_beside_a_weight_that_is_no_map_are_read_alone(device):
    """The module computes one kernel from one weight and multiplies by another."""
    model = Mixed().to(device, torch.float64)
    operators = conv_operators(model, normal(1, 4, device=device), missing="note")
    assert (list(operators), operators.missing) == ([""], [("", "Mixed multiplies its weight by einsum")])
    refused("missing must be 'raise' or 'note', got 'skip'", conv_operators, model, torch.ones(1, 4), missing="skip")


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return torch.einsum("bi,ij->bj", F.linear(x, 2 * self.one), self.two)


def test_the_second_call_of_a_module_may_meet_another_weight(device):
    inner = nn.Linear(4, 4, bias=False).to(device, torch.float64)

    class Fast(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return torch.func.functional_call(self.inner, {"weight": 3 * self.inner.weight}, (self.inner(x),))

    first, second = conv_operators(Fast(), normal(1, 4, device=device)).values()
    assert_close(second.kernel, 3 * first.kernel)


def test_an_input_that_is_no_tensor_is_refused():
    refused(
        "as one tensor, got .*; wrap a network", conv_operators, nn.Linear(2, 2), [torch.ones(1, 2)], error=TypeError
    )


def test_reading_does_not_load_the_compiler():
    code = "import sys, torch; from convkit.operators.network import conv_operators as read; "
    code += "read(torch.nn.Linear(2, 2), torch.ones(1, 2)); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_a_network_without_numbers_or_without_maps_is_refused(device):
    x = torch.ones(1, 2, device=device)
    refused("some on the meta device; load them", conv_operators, nn.Linear(2, 2, device="meta"), x)
    refused("without any; give its layers a method operator", conv_operators, nn.ReLU(), x)
    assert len(conv_operators(nn.Linear(2, 2, device=device), x, missing="note").missing) == 0


class Slices(nn.Module):
    """Kernels that are parts of parameters in many ways, and one that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(6, 3 * 5)
        self.bank = nn.Parameter(normal(7, 5, 3, device="cpu"))
        self.mask = nn.Parameter(normal(7, 7, 3, device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.joint.weight[5:10])
        y = F.linear(y, self.joint.weight.t()[:, 4:9])  # another part, transposed
        y = F.linear(y, self.joint.weight[::3])
        y = F.conv1d(y.transpose(1, 2), self.bank, padding=1)
        return F.conv1d(y, self.bank.transpose(0, 1)[:, :, 1:], padding=1).sum() + F.conv1d(y, self.mask.exp()).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_recorded_parts_of_parameters_have_gradients_and_computed_kernels_have_none(device, dtype):
    model = Slices().to(device, dtype)
    x = normal(2, 4, 6, device=device, dtype=dtype)
    operators = conv_operators(model, x)
    parts = {
        "": model.joint.weight[5:10],
        "#2": model.joint.weight.t()[:, 4:9],
        "#3": model.joint.weight[::3],
        "#4": model.bank,
        "#5": model.bank.transpose(0, 1)[:, :, 1:],
        "#6": model.mask.to(operators["#6"].kernel.dtype).exp(),
    }
    assert list(operators) == list(parts)
    for name, part in parts.items():
        A = operators[name]
        assert_close(A.kernel.detach().view(part.shape), part.detach().to(A.kernel.dtype))
        assert A.kernel.requires_grad == (name != "#6")
        if name != "#6":
            weights = normal(*A.kernel.shape, device=device, dtype=A.kernel.dtype)
            (A.kernel * weights).sum().backward()
            found = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
            model.zero_grad()
            (part.to(weights.dtype) * weights.view(part.shape)).sum().backward()
            wanted = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
            assert_close(found, wanted)
            model.zero_grad()


def test_the_norms_of_attention_have_gradients(device):
    attention = nn.MultiheadAttention(6, 2, batch_first=True).to(device, torch.float64)

    class Itself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x)[0]

    operators = conv_operators(Itself(), normal(2, 5, 6, device=device))
    sum(operator_norm(A, 2) for A in operators.values()).backward()
    joint, out = attention.in_proj_weight, attention.out_proj.weight
    wanted = [torch.linalg.matrix_norm(w, 2) for w in (*joint.chunk(3), out)]
    pairs = zip((joint.grad, out.grad), torch.autograd.grad(sum(wanted), (joint, out)), strict=True)
    for found, gradient in pairs:
        assert_close(found, gradient)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(4, 4, device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...i,ij->...j", x, self.weight)


class Computing(nn.Module):
    """A kernel of several weights, one of a part that does not run itself, beside a part that does."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(normal(5, 2, device="cpu")), nn.Parameter(normal(2, 4, device="cpu"))
        self.basis = nn.Linear(4, 4, bias=False)
        self.other = Product()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.other(x), self.left @ self.right @ self.basis.weight)


def test_a_kernel_of_several_weights_stands_for_them_and_not_for_what_runs_beside_them(device):
    x = normal(3, 4, device=device)
    operators = conv_operators(Computing().to(device, x.dtype), x, "note")
    assert list(operators) == [""]
    assert [(name, reason) for name, reason in operators.missing] == [
        ("other", "Product multiplies its weight by einsum")
    ]


MATRIX_PRODUCTS = {  # of data (batch, 5, 4) or (batch, 4) and a weight (4, 3) or its transpose
    "@": (lambda x, w: x @ w, (5,)),
    "a matrix of the data": (lambda x, w: x @ w, None),
    "matmul, the weight first": (lambda x, w: torch.matmul(w.mT, x.mT), (5,)),
    "twice the weight": (lambda x, w: x.matmul(2 * w), (5,)),
    "mm": (torch.mm, None),
    "mm, the weight first": (lambda x, w: w.mT.mm(x.mT).mT, None),
    "addmm, as in GPT-2": (lambda x, w: torch.addmm(w[0], x, w), None),
}


class Function(nn.Module):
    def __init__(self, function, device):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(normal(4, 3, device=device))

    def forward(self, x):
        return self.function(x, self.weight)


@pytest.mark.parametrize("name", sorted(MATRIX_PRODUCTS))
def test_a_product_with_a_matrix_of_weights_is_a_linear_map(name, device):
    function, length = MATRIX_PRODUCTS[name]
    model = Function(function, device)
    x = normal(2, *(length or ()), 4, device=device)
    operators = conv_operators(model, x)
    (A,) = operators.values()
    assert (operators.missing, A.input_shape) == ([], length or (1, 1))
    linear = A.kernel.flatten(1)
    weight = model.weight * (2 if "twice" in name else 1)
    assert_close(linear, weight.mT, rtol=0, atol=0)
    jacobian = torch.func.jacrev(lambda one: model(one[None]).flatten())(x[0]).flatten(1)
    assert_close(A.matrix().mT @ A.matrix(), jacobian_gram(jacobian, x[0], A), rtol=0, atol=1e-12)


def jacobian_gram(jacobian, x, A):
    """Return J^T J with the inputs ordered as the operator has them: channels first."""
    channels_first = torch.arange(x.numel(), device=x.device).view(x.shape).movedim(-1, 0).flatten()
    return (jacobian.mT @ jacobian)[channels_first][:, channels_first]


def test_a_learned_matrix_product_has_its_gradient_and_one_row_for_each_weight(device):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            weight = normal(4, 3, device=device)
            self.one, self.two = nn.Parameter(weight), nn.Parameter(weight + 1)

        def forward(self, x):
            return x @ self.one + x @ self.two + x @ self.one

    model = Two()
    operators = conv_operators(model, normal(2, 4, device=device))
    assert list(operators) == ["", "#2"]
    operators["#2"].kernel.square().sum().backward()
    assert_close(model.two.grad, 2 * model.two.detach())
    assert model.one.grad is None


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("matmul", lambda x, w: x @ w[None]),  # a stack of matrices
        ("addmm", lambda x, w: torch.addmm(w[0], x, w, alpha=2)),
        ("einsum", lambda x, w: torch.einsum("bi,ij->bj", x, w)),
    ],
)
def test_other_products_with_weights_are_named(name, function, device):
    model = Function(function, device)
    operators = conv_operators(model, normal(2, 4, device=device), "note")
    assert (list(operators), operators.missing) == ([], [("", f"Function multiplies its weight by {name}")])
