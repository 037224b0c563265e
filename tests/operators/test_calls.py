"""What runs is read: a zoo of modules, each against what it does to a batch; and what cannot be read has a name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.network import conv_operators, input_shapes
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.helpers.unchanged import unchanged

IMAGE, SERIES, VOLUME, SEQUENCE, ROW = (3, 4, 7, 6), (3, 4, 9), (3, 4, 3, 4, 5), (3, 5, 4), (3, 4)


class Call(nn.Module):
    """A weight, and what is done with it."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(normal(*shape, device="cpu"))

    def forward(self, x):
        return self.function(x, self.weight)


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)


class Casting(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.to(x), bias=self.bias)


def padded(*pads, **options):
    stride = options.pop("stride", 1)
    return Call(lambda x, w: F.conv2d(F.pad(x, pads, **options), w, stride=stride), 2, 4, 3, 2)


class Tied(nn.Module):
    """Uses the weight of a layer that is not called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return F.linear(x, self.layer.weight)


READ = {  # module of one linear map (plus a constant), and the shape of a batch
    "conv1d": (Call(lambda x, w: F.conv1d(x, w, padding=2, groups=2), 4, 2, 3), SERIES),
    "conv2d": (Call(lambda x, w: F.conv2d(x, w, None, (2, 1), (0, 2), (1, 3)), 2, 4, 3, 2), IMAGE),
    "conv3d": (Call(lambda x, w: F.conv3d(weight=w, input=x, stride=2), 2, 4, 2, 1, 3), VOLUME),
    "in words": (Call(lambda x, w: F.conv2d(x, w, padding="same", dilation=[1, 2]), 2, 4, 3, 3), IMAGE),
    "conv_transpose1d": (Call(lambda x, w: F.conv_transpose1d(x, w, stride=2, dilation=3), 4, 2, 3), SERIES),
    "conv_transpose2d": (
        Call(lambda x, w: F.conv_transpose2d(x, w, None, (2, 3), 1, (1, 2), groups=2), 4, 3, 3, 4),
        IMAGE,
    ),
    "conv_transpose3d": (Call(lambda x, w: F.conv_transpose3d(x, w, padding=(0, 0, 1)), 4, 1, 2, 1, 3), VOLUME),
    "padded with zeros": (padded(1, 0, 2, 3, stride=(1, 2)), IMAGE),
    "padded with ones": (padded(0, 2, 1, 1, value=1.0), IMAGE),
    "padded on one axis": (padded(1, 1), IMAGE),
    "padded circularly": (padded(1, 2, 3, 0, mode="circular"), IMAGE),
    "reflected": (padded(1, 2, 3, 0, mode="reflect", stride=2), IMAGE),
    "replicated": (padded(2, 2, 0, 1, mode="replicate"), IMAGE),
    "padded twice with zeros": (
        Call(lambda x, w: F.conv2d(F.pad(x, (1, 0, 0, 0)), w, padding=(0, 0)), 2, 4, 3, 2),
        IMAGE,
    ),
    "linear": (Call(lambda x, w: F.linear(x, w), 2, 4), ROW),
    "linear on positions": (Call(lambda x, w: F.linear(input=x, weight=w), 2, 4), SEQUENCE),
    "a forward of its own": (Standardized(4, 2, 3, (2, 1), 1), IMAGE),
    "a linear layer that casts": (Casting(4, 2), ROW),
    "a kernel of two factors": (Call(lambda x, w: F.linear(x, w[:2] @ w), 4, 4), ROW),
    "the weight of a layer": (Tied(), ROW),
    "old weight norm": (lambda: nn.utils.weight_norm(nn.Conv2d(4, 2, 3)), IMAGE),
    "old spectral norm": (lambda: nn.utils.spectral_norm(nn.Linear(4, 2)), ROW),
    "pruned": (lambda: prune.random_unstructured(nn.Conv2d(4, 2, (3, 2), padding=1), "weight", 0.5), IMAGE),
    "reflecting layer": (nn.Conv2d(4, 2, 3, padding=(2, 1), padding_mode="reflect"), IMAGE),
    "replicating layer": (nn.Conv1d(4, 2, 4, 2, padding=3, padding_mode="replicate"), SERIES),
    "transposed layer": (nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), 1, (1, 0), groups=2), IMAGE),
    "compiled": (lambda: torch.compile(nn.Conv2d(4, 2, 3).double(), backend="eager"), IMAGE),
    "in parallel": (nn.DataParallel(nn.Conv2d(4, 2, 3, 2)), IMAGE),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", READ)
def test_what_runs_is_read(device, name):
    module, shape = READ[name]
    module = copy.deepcopy(module) if isinstance(module, nn.Module) else module()
    module = module.to(device, torch.float64).eval()
    x = normal(*shape, device=device)
    with unchanged(module, x):
        operators = conv_operators(module, x)
    assert operators.missing == []
    (A,) = operators.values()
    y = module(x) - module(torch.zeros_like(x))
    if len(shape) < 4 and len(A.input_shape) + 2 > len(shape):
        x, y = x[..., None, None], y[..., None, None]
    elif shape is SEQUENCE:
        x, y = x.mT, y.mT
    assert_close(A(x), y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(device, dtype):
    model = nn.Sequential(nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2), Standardized(2, 2, 1)).to(device, dtype)
    x = normal(*IMAGE, device=device).to(dtype)
    with unchanged(model, x):
        operators = conv_operators(model, x)
    assert [A.kernel.dtype for A in operators.values()] == [torch.float32] * 2
    assert_close(operators["0"].kernel, model[0].weight.float())


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
        operators = conv_operators(model, normal(*SEQUENCE, device=device))
        assert list(operators) == ["part.q", "part.k", "part.v", "part.out"]
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        weights = weights if options else attention.in_proj_weight.chunk(3)
        for A, weight in zip(operators.values(), [*weights, attention.out_proj.weight], strict=True):
            assert_close(A.kernel[..., 0], weight.detach())
            assert A.input_shape == (5,)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).to(device, torch.float64)
    names = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.out", "linear1", "linear2"]
    assert list(conv_operators(layer, normal(*SEQUENCE, device=device))) == names


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

    model, x = Several().to(device, torch.float64), normal(*IMAGE, device=device)
    operators = conv_operators(model, x)
    assert list(operators) == ["shared", "own", "shared@3x3", "own@3x3", "linear", "", "#2"]
    assert operators["shared@3x3"].input_shape == operators["own@3x3"].input_shape == (3, 3)
    refused(r"layer 'shared' meets inputs of sizes \(7, 6\) and \(3, 3\)", input_shapes, model, x)


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.aside, self.words = nn.Linear(4, 4), nn.Linear(4, 2), nn.Embedding(3, 4)
        self.places = nn.Parameter(torch.ones(5, 4))

    def forward(self, x):
        return self.used(x + self.places[0] + self.words.weight[0])


MISSING = {  # what follows a linear layer, its name among what is missing, and the reason
    "recurrent": (nn.LSTM(4, 4), "1", "LSTM is recurrent"),
    "a cell": (nn.GRUCell(4, 4), "1", "GRUCell is recurrent"),
    "matmul": (Call(lambda x, w: x @ w, 4, 4), "1", "Call multiplies its weight by matmul"),
    "on the left": (Call(lambda x, w: (w @ x.mT).mT, 4, 4), "1", "Call multiplies its weight by matmul"),
    "einsum": (Call(lambda x, w: torch.einsum("bi,ij->bj", x, w), 4, 4), "1", "Call multiplies its weight by ein"),
    "bilinear": (Call(lambda x, w: F.bilinear(x, x, w), 2, 4, 4), "1", "Call multiplies its weight by bilinear"),
    "complex": (
        Call(lambda x, w: F.linear(x + 0j, w + 0j).real, 2, 4),
        "1",
        "linear: kernel must be float32",
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_weights_that_run_and_cannot_be_read_are_noted_or_raise(device, name):
    module, place, reason = MISSING[name]
    model = nn.Sequential(nn.Linear(4, 4), copy.deepcopy(module)).to(device, torch.float64)
    x = normal(*ROW, device=device)
    operators = conv_operators(model, x, missing="note")
    assert list(operators) == ["0"]
    ((where, why),) = operators.missing
    assert where == place
    assert why.startswith(reason)
    refused(f"layer '{place}': {reason}.*; missing='note' leaves it out", conv_operators, model, x)
    refused("missing must be 'raise' or 'note', got 'skip'", conv_operators, model, x, missing="skip")


def test_what_the_input_does_not_reach_is_noted_and_tables_and_what_is_added_are_no_maps(device):
    operators = conv_operators(Idle().to(device, torch.float64), normal(*ROW, device=device))
    assert list(operators) == ["used"]
    assert operators.missing == [("aside", "model(x) does not reach it")]
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)).to(device)
    assert list(conv_operators(model, torch.arange(6, device=device)[None])) == ["1"]  # whole numbers stay


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


class Computing(nn.Module):
    """A kernel of several weights, one of a part that does not run itself, beside a part that does."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(normal(5, 2, device="cpu")), nn.Parameter(normal(2, 4, device="cpu"))
        self.basis = nn.Linear(4, 4, bias=False)
        self.other = Call(torch.matmul, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.other(x), self.left @ self.right @ self.basis.weight)


def test_a_kernel_of_several_weights_stands_for_them_and_not_for_what_runs_beside_them(device):
    x = normal(3, 4, device=device)
    operators = conv_operators(Computing().to(device, x.dtype), x, "note")
    assert list(operators) == [""]
    assert [(name, reason) for name, reason in operators.missing] == [("other", "Call multiplies its weight by matmul")]
