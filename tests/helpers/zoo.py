"""Small modules, one for each way in which networks multiply the data by their weights, and what is to be read."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from tests.helpers.geometries import normal
from tests.helpers.odd_networks import Wrapped

IMAGE, SERIES, VOLUME, TOKENS, ROW = (1, 4, 7, 6), (1, 4, 9), (1, 4, 3, 4, 5), (1, 5, 4), (1, 4)


@dataclass(frozen=True)
class Kind:
    """A module, the shape of its input, and what is to be read of it.

    ``rows`` are the names of all rows, in order. Those in ``chain`` (all of them by default), one after the other, are
    the whole module, up to a constant. Where ``chain`` is empty, each row is what its own layer does.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    rows: tuple[str, ...] = ("",)
    chain: tuple[str, ...] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # name, and how the reason begins
    by_token: bool = False  # channels are the last axis of what goes in and comes out
    on_the_cpu: bool = False  # where torch keeps its numbers, whatever the device


class With(nn.Module):
    """A function of the module itself and its input; it holds the parts and weights that it is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(normal(*part, device="cpu")) if isinstance(part, tuple) else part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def call(function: Callable[[Tensor, Tensor], Any], *shape: int) -> Callable[[], nn.Module]:
    """A module that applies a function to its input and a weight of this shape."""
    return lambda: With(lambda self, x: function(x, self.weight), weight=shape)


def padded(*pads: int, stride: Any = 1, **options: Any) -> Callable[[], nn.Module]:
    return call(lambda x, w: F.conv2d(F.pad(x, pads, **options), w, stride=stride), 2, 4, 3, 2)


class Standardized(nn.Conv2d):
    """A convolution that computes its kernel in each forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)


class AsTensorFlowPads(nn.Conv2d):
    """A strided convolution whose padding depends on the size of its input, the larger half behind."""

    def forward(self, x: Tensor) -> Tensor:
        sizes = zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True)
        needed = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in sizes]
        x = F.pad(x, [pad for n in needed for pad in (n // 2, n - n // 2)])
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Casting(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x), bias=self.bias)


class Product(torch.autograd.Function):
    """A product with a derivative of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        return gradients[0] @ weight.mT, x.mT @ gradients[0]


def attention(**options: Any) -> Callable[[], nn.Module]:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.part(x, x[..., : self.part.kdim], torch.cat([x, x], -1)[..., : self.part.vdim])[0]

    return lambda: With(forward, part=nn.MultiheadAttention(4, 2, **options))


def sliced_attention(self: Any, x: Tensor) -> Tensor:
    """Attention of one token, written by hand: its value is all that it returns."""
    q, k, v = (F.linear(x, part) for part in self.qkv.chunk(3))
    return F.linear((q @ k.mT).softmax(-1) @ v, self.out)


def before(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), module)


def multiplied(function: Callable[[Tensor, Tensor], Any], name: str, *shape: int) -> Kind:
    reason = f"With multiplies its weight by {name}"
    return Kind(lambda: before(call(function, *shape or (4, 4))()), ROW, ("0",), (), {"1": reason})


def product(function: Callable[[Tensor, Tensor], Any], *shape: int) -> Kind:
    """A linear layer, and a product with one matrix of weights behind it, which is a linear map, too."""
    return Kind(lambda: before(call(function, *shape or (4, 4))()), ROW, ("0", "1"))


def listed(layer: nn.Module) -> nn.Module:
    return With(lambda m, x: m.parts[0](x), layer=layer, parts=[layer])


def half(module: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    return module.to(dtype)


def heads_that_only_train(self: Any, x: Tensor) -> Tensor:
    y = self.body(x)
    return (self.head(y), self.aside(y)) if self.training else self.head(y)  # pyright: ignore[reportReturnType]


WHOLE = {  # what is read is the whole module
    "Conv1d": Kind(lambda: nn.Conv1d(4, 6, 3, 2, padding=2, groups=2), SERIES),
    "Conv2d": Kind(lambda: nn.Conv2d(4, 2, (3, 2), (2, 1), (0, 2), (1, 3)), IMAGE),
    "Conv2d, padding in words": Kind(lambda: nn.Conv2d(4, 2, (3, 2), padding="same", dilation=(1, 2)), IMAGE),
    "Conv2d, depthwise": Kind(lambda: nn.Conv2d(4, 8, 3, 2, 1, groups=4), IMAGE),
    "Conv2d, patches": Kind(lambda: nn.Conv2d(4, 3, (7, 3), (7, 3)), IMAGE),
    "Conv2d, circular": Kind(lambda: nn.Conv2d(4, 2, 3, padding=(2, 1), padding_mode="circular"), IMAGE),
    "Conv2d, reflecting": Kind(lambda: nn.Conv2d(4, 2, 3, padding=(2, 1), padding_mode="reflect"), IMAGE),
    "Conv1d, replicating": Kind(lambda: nn.Conv1d(4, 2, 4, 2, padding=3, padding_mode="replicate"), SERIES),
    "Conv3d": Kind(lambda: nn.Conv3d(4, 2, (2, 1, 3), 2, (1, 0, 1)), VOLUME),
    "ConvTranspose1d": Kind(lambda: nn.ConvTranspose1d(4, 3, 3, 2, dilation=3), SERIES),
    "ConvTranspose2d": Kind(lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), 1, (1, 0), groups=2), IMAGE),
    "ConvTranspose3d": Kind(lambda: nn.ConvTranspose3d(4, 1, (2, 1, 3), padding=(0, 0, 1)), VOLUME),
    "Linear": Kind(lambda: nn.Linear(4, 2), ROW),
    "Linear on tokens": Kind(lambda: nn.Linear(4, 2), TOKENS, by_token=True),
    "no batch": Kind(lambda: nn.Conv2d(4, 2, 3), IMAGE[1:]),
    "conv1d": Kind(call(lambda x, w: F.conv1d(x, w, padding=2, groups=2), 4, 2, 3), SERIES),
    "conv2d": Kind(call(lambda x, w: F.conv2d(x, w, None, (2, 1), (0, 2), (1, 3)), 2, 4, 3, 2), IMAGE),
    "conv3d": Kind(call(lambda x, w: F.conv3d(weight=w, input=x, stride=2), 2, 4, 2, 1, 3), VOLUME),
    "in words": Kind(call(lambda x, w: F.conv2d(x, w, padding="same", dilation=[1, 2]), 2, 4, 3, 3), IMAGE),
    "conv_transpose1d": Kind(call(lambda x, w: F.conv_transpose1d(x, w, stride=2, dilation=3), 4, 2, 3), SERIES),
    "conv_transpose2d": Kind(
        call(lambda x, w: F.conv_transpose2d(x, w, None, (2, 3), 1, (1, 2), groups=2), 4, 3, 3, 4), IMAGE
    ),
    "conv_transpose3d": Kind(call(lambda x, w: F.conv_transpose3d(x, w, padding=(0, 0, 1)), 4, 1, 2, 1, 3), VOLUME),
    "output_size": Kind(
        lambda: With(lambda m, x: m.up(x, (15, 13)), up=nn.ConvTranspose2d(4, 2, 3, 2)), IMAGE, ("up",)
    ),
    "padded with zeros": Kind(padded(1, 0, 2, 3, stride=(1, 2)), IMAGE),
    "padded with ones": Kind(padded(0, 2, 1, 1, value=1.0), IMAGE),
    "padded on one axis": Kind(padded(1, 1), IMAGE),
    "padded circularly": Kind(padded(1, 2, 3, 0, mode="circular"), IMAGE),
    "reflected": Kind(padded(1, 2, 3, 0, mode="reflect", stride=2), IMAGE),
    "replicated": Kind(padded(2, 2, 0, 1, mode="replicate"), IMAGE),
    "padded, then not": Kind(call(lambda x, w: F.conv2d(F.pad(x, (1, 0, 0, 0)), w, padding=(0, 0)), 2, 4, 3, 2), IMAGE),
    "padding by the size": Kind(lambda: AsTensorFlowPads(4, 2, (3, 2), (2, 3)), IMAGE),
    "linear": Kind(call(lambda x, w: F.linear(x, w), 2, 4), ROW),
    "linear on tokens": Kind(call(lambda x, w: F.linear(input=x, weight=w), 2, 4), TOKENS, by_token=True),
    "computed kernel": Kind(lambda: Standardized(4, 2, 3, (2, 1), 1), IMAGE),
    "cast weight": Kind(lambda: Casting(4, 2), ROW),
    "two factors": Kind(lambda: With(lambda m, x: F.linear(x, m.a @ m.b), a=(2, 3), b=(3, 4)), ROW),
    "low rank": Kind(lambda: With(lambda m, x: F.linear(F.linear(x, m.b), m.a), a=(2, 3), b=(3, 4)), ROW, ("", "#2")),
    "weight of a layer": Kind(lambda: With(lambda m, x: F.linear(x, m.layer.weight), layer=nn.Linear(4, 2)), ROW),
    "tied": Kind(call(lambda x, w: F.linear(F.linear(x, w), w.mT), 2, 4), ROW, ("", "#2")),
    "one of two weights": Kind(
        lambda: With(lambda m, x: m.layer(x), layer=nn.Linear(4, 2), aside=(3, 3)),
        ROW,
        ("layer",),
        missing={"": "model(x) does not use its aside"},
    ),
    "twice": Kind(lambda: With(lambda m, x: m.c(m.c(x)), c=nn.Conv2d(4, 4, 3, padding=1)), IMAGE, ("c",), ("c", "c")),
    "on two sizes": Kind(lambda: With(lambda m, x: m.c(m.c(x)), c=nn.Conv2d(4, 4, (3, 2))), IMAGE, ("c", "c@5x5")),
    "chain": Kind(
        lambda: nn.Sequential(nn.Conv2d(4, 3, 3, 2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(18, 5)), IMAGE, ("0", "3")
    ),
    "keyword": Kind(lambda: With(lambda m, x: m.c(input=x), c=nn.Conv2d(4, 2, 3)), IMAGE, ("c",)),
    "a dictionary": Kind(lambda: With(lambda m, x: {"out": m.c(x)}, c=nn.Conv2d(4, 2, 3)), IMAGE, ("c",)),
    "in place": Kind(lambda: With(lambda m, x: m.c(x.clone().mul_(1)), c=nn.Conv2d(4, 2, 3)), IMAGE, ("c",)),
    "a list of layers": Kind(lambda: listed(nn.Linear(4, 2)), ROW, ("layer",)),
    "a lock": Kind(lambda: With(lambda m, x: m.c(x), c=nn.Conv2d(4, 2, 3), lock=threading.Lock()), IMAGE, ("c",)),
    "wrapped": Kind(lambda: Wrapped(nn.Conv2d(4, 2, 3, 2)), IMAGE, ("inside",)),
    "in parallel": Kind(lambda: nn.DataParallel(nn.Conv2d(4, 2, 3, 2)), IMAGE, ("module",)),
    "compiled": Kind(lambda: torch.compile(nn.Conv2d(4, 2, 3).double(), backend="eager"), IMAGE, ("_orig_mod",)),  # pyright: ignore
    "frozen": Kind(lambda: nn.Conv2d(4, 2, 3).requires_grad_(False), IMAGE),
    "channels_last": Kind(lambda: nn.Conv2d(4, 2, 3).to(memory_format=torch.channels_last), IMAGE),  # pyright: ignore
    "lazy": Kind(lambda: nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(3)), IMAGE, ("0", "2")),
    "float16": Kind(lambda: half(nn.Sequential(nn.Conv2d(4, 2, 3), Standardized(2, 3, 2))), IMAGE, ("0", "1")),
    "bfloat16": Kind(lambda: half(nn.ConvTranspose2d(4, 2, 3), torch.bfloat16), IMAGE),
    "weight_norm": Kind(lambda: parametrizations.weight_norm(nn.Conv2d(4, 2, 3)), IMAGE),
    "spectral_norm": Kind(lambda: parametrizations.spectral_norm(nn.Linear(4, 2)), ROW),
    "orthogonal": Kind(lambda: parametrizations.orthogonal(nn.Linear(4, 2)), ROW),
    "weight of a parametrized layer": Kind(
        lambda: With(lambda m, x: F.linear(x, m.a.weight), a=parametrizations.weight_norm(nn.Linear(4, 2))), ROW
    ),
    "old weight_norm": Kind(lambda: nn.utils.weight_norm(nn.Conv2d(4, 2, 3)), IMAGE),
    "old spectral_norm": Kind(lambda: nn.utils.spectral_norm(nn.Linear(4, 2)), ROW),
    "pruned": Kind(lambda: prune.random_unstructured(nn.Conv2d(4, 2, (3, 2), padding=1), "weight", 0.5), IMAGE),
    "functional_call": Kind(
        lambda: With(lambda m, x: torch.func.functional_call(m.a, {"weight": 2 * m.a.weight}, (x,)), a=nn.Linear(4, 2)),
        ROW,
        ("a",),
    ),
    "weights of weights": Kind(
        lambda: With(lambda m, x: F.linear(x, m.a(m.code).view(2, 4)), a=nn.Linear(3, 8), code=(1, 3)),
        ROW,
        ("a", ""),
        ("",),
    ),
    "checkpoint": Kind(
        lambda: With(lambda m, x: checkpoint(m.c, x, use_reentrant=False), c=nn.Conv2d(4, 2, 3)), IMAGE, ("c",)
    ),
    "vmap": Kind(lambda: With(lambda m, x: torch.vmap(m.a)(x), a=nn.Linear(4, 2)), ROW, ("a",)),
    "MultiheadAttention": Kind(
        attention(batch_first=True), (1, 1, 4), ("part.q", "part.k", "part.v", "part.out"), ("part.v", "part.out")
    ),
    "MultiheadAttention, sequence first": Kind(
        attention(), (1, 1, 4), ("part.q", "part.k", "part.v", "part.out"), ("part.v", "part.out")
    ),
    "attention on slices": Kind(
        lambda: With(sliced_attention, qkv=(12, 4), out=(2, 4)), (1, 1, 4), ("", "#2", "#3", "#4"), ("#3", "#4")
    ),
    "matmul": product(lambda x, w: x @ w),
    "matmul from the left": product(lambda x, w: (w @ x.mT).mT),
    "an entry of a table": product(lambda x, w: x @ w[torch.arange(3) % 2][1], 2, 4, 3),
    "a computed matrix": product(lambda x, w: x @ (w / w.norm()).T),
    "a diagonal": product(lambda x, w: x @ w.diag(), 4),
    "what data were written into": product(
        lambda x, w: torch.zeros(1, 4).to(x).index_copy_(1, torch.arange(4).to(x.device), x) @ w
    ),
    "a view that data were written into": product(lambda x, w: _written(x) @ w),
    "a function of its own": product(lambda x, w: Product.apply(x, w)),  # pyright: ignore
    "rows of an Embedding": Kind(
        lambda: before(With(lambda m, x: x @ m.e(torch.arange(4).to(x.device)), e=nn.Embedding(9, 4))), ROW, ("0", "1")
    ),
    "parametrized": Kind(
        lambda: before(With(lambda m, x: x @ m.a.weight, a=parametrizations.spectral_norm(nn.Linear(4, 4)))),
        ROW,
        ("0", "1"),
    ),
    "a row and a product of one weight": Kind(
        lambda: With(lambda m, x: m.a(x) @ m.a.weight, a=nn.Linear(4, 3)), ROW, ("a", "")
    ),
}

PARTS = {  # each row is what its layer does on what it meets
    "heads that only train": Kind(
        lambda: With(heads_that_only_train, body=nn.Conv2d(4, 3, 3), head=nn.Conv2d(3, 2, 2), aside=nn.Conv2d(3, 5, 1)),
        IMAGE,
        ("body", "head"),
        (),
        {"aside": "model(x) does not reach it"},
    ),
    "experts": Kind(
        lambda: With(
            lambda m, x: m.parts[int(x.sum() > 9)](x), parts=nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])
        ),
        ROW,
        ("parts.0",),
        (),
        {"parts.1": "model(x) does not reach it"},
    ),
    "no_grad inside": Kind(
        lambda: With(lambda m, x: m.b(torch.no_grad()(m.a)(x)), a=nn.Linear(4, 3), b=nn.Linear(3, 2)),
        ROW,
        ("a", "b"),
        (),
    ),
    "ReflectionPad2d": Kind(
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(4, 2, 3, padding=1)), IMAGE, ("1",), ()
    ),
    "casts": Kind(
        lambda: With(lambda m, x: m.b(m.a(x.half()).float()), a=nn.Linear(4, 3).half(), b=nn.Linear(3, 2)),
        ROW,
        ("a", "b"),
        (),
    ),
    "autocast": Kind(
        lambda: With(lambda m, x: torch.autocast("cpu", torch.bfloat16)(m.c)(x), c=nn.Conv2d(4, 2, 3)),
        IMAGE,
        ("c",),
        (),
    ),
    "gains": Kind(
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3), call(lambda x, w: x * w.sigmoid(), 4, 1, 1)(), nn.LayerNorm((5, 4))),
        IMAGE,
        ("0",),
        (),
    ),
    "positions and words": Kind(
        lambda: With(
            lambda m, x: m.layer(torch.cat([m.first, x + m.places[[0, 2, 1, 3, 4]] + m.words.weight[:5]], 1)),
            layer=nn.Linear(4, 2),
            places=(5, 4),
            words=nn.Embedding(9, 4),
            first=(1, 1, 4),
        ),
        TOKENS,
        ("layer",),
        (),
    ),
    "bias of attention": Kind(
        lambda: nn.Sequential(
            nn.Linear(4, 4), call(lambda x, w: F.scaled_dot_product_attention(x, x, x, attn_mask=w), 5, 5)()
        ),
        TOKENS,
        ("0",),
        (),
    ),
    "added to a product": Kind(
        lambda: before(call(lambda x, w: torch.baddbmm(w, x, x.mT @ x), 5, 4)()), TOKENS, ("0",), ()
    ),
    "an idle LSTM": Kind(
        lambda: With(lambda m, x: m.a(x), a=nn.Linear(4, 3), aside=nn.LSTM(4, 3)),
        ROW,
        ("a",),
        (),
        {"aside": "model(x) does not reach it"},
    ),
    "TransformerEncoderLayer": Kind(
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        TOKENS,
        (*(f"self_attn.{part}" for part in ("q", "k", "v", "out")), "linear1", "linear2"),
        (),
    ),
    "LSTM": Kind(lambda: before(nn.LSTM(4, 3)), ROW, ("0",), (), {"1": "LSTM is recurrent"}),
    "GRU": Kind(lambda: before(nn.GRU(4, 3, batch_first=True)), TOKENS, ("0",), (), {"1": "GRU is recurrent"}),
    "GRUCell": Kind(lambda: before(nn.GRUCell(4, 3)), ROW, ("0",), (), {"1": "GRUCell is recurrent"}),
    "LSTM alone": Kind(lambda: nn.LSTM(4, 3), ROW, (), (), {"": "LSTM is recurrent"}),
    "Bilinear": Kind(
        lambda: before(With(lambda m, x: m.b(x, x), b=nn.Bilinear(4, 4, 2))),
        ROW,
        ("0",),
        (),
        {"1.b": "Bilinear multiplies its weight by bilinear"},
    ),
    "a slice": Kind(lambda: before(call(lambda x, w: x[:, 1:] @ w[1:], 4, 4)()), ROW, ("0", "1"), ()),
    "einsum": multiplied(lambda x, w: torch.einsum("bi,ij->bj", [x, w]), "einsum"),
    "addmm": multiplied(lambda x, w: torch.addmm(input=x, mat1=x, mat2=w), "addmm"),
    "a sum of products": multiplied(lambda x, w: (x[..., None] * w).sum(1), "mul"),
    "torch.ops": multiplied(lambda x, w: torch.ops.aten.mm(x, w), "mm"),
    "vmap of weights": multiplied(lambda x, w: torch.vmap(lambda v: x @ v)(w), "matmul", 2, 4, 3),
    "learned queries": multiplied(lambda x, w: F.scaled_dot_product_attention(w, x, x), "scaled_dot_product", 3, 4),
    "complex": Kind(
        lambda: before(call(lambda x, w: F.linear(x + 0j, w + 0j).real, 2, 4)()),
        ROW,
        ("0",),
        (),
        {"1": "linear: kernel must be float32"},
    ),
    "kernel of the data": Kind(
        lambda: With(lambda m, x: F.conv2d(x, m.a(x.mean((2, 3))).view(2, 4, 1, 2)), a=nn.Linear(4, 16)),
        IMAGE,
        ("a",),
        (),
        {"": "conv2d: its weight depends on the input"},
    ),
    "a matrix beside the parameters": Kind(
        lambda: before(With(lambda m, x: x @ m.matrix.to(x), matrix=torch.ones(4, 3))),
        ROW,
        ("0",),
        (),
        {"1": "matmul by a matrix that is no parameter"},
    ),
    "scripted": Kind(
        lambda: before(torch.jit.script(nn.Linear(4, 2).double())),
        ROW,
        ("0",),
        (),  # pyright: ignore
        {"1": "RecursiveScriptModule is TorchScript"},
    ),
    "traced": Kind(
        lambda: before(torch.jit.trace(nn.Linear(4, 2).double(), torch.ones(1, 4).double())),  # pyright: ignore
        ROW,
        ("0",),
        (),
        {"1": "RecursiveScriptModule is TorchScript"},
    ),
    "scripted and frozen": Kind(
        lambda: before(torch.jit.freeze(torch.jit.script(nn.Linear(4, 2).double().eval()))),  # pyright: ignore
        ROW,
        ("0",),
        (),
        {"": "addmm by a matrix that is no parameter"},
        on_the_cpu=True,
    ),
    "quantized": Kind(
        lambda: before(torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2)))),
        ROW,
        ("0",),
        (),
        {"1.0": "Linear has quantized weights"},
        on_the_cpu=True,
    ),
}
ZOO = WHOLE | PARTS


def _written(x: Tensor) -> Tensor:
    """Return the data in a tensor of zeros, column by column."""
    out = torch.zeros(1, 4, dtype=x.dtype, device=x.device)
    for column in range(4):
        out[:, column] = x[:, column]
    return out
