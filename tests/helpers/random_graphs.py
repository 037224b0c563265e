"""Random small networks made of the many steps of real ones, and the steepest places of a function."""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[Tensor], Tensor]


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each column; torch 2.11 has no derivative of both at once."""
    if torch.__version__ < "2.12":
        return x.amin(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)
    return tuple(x.aminmax(dim=2, keepdim=True))


class Gated(nn.Module):
    """Squeeze-and-excitation: a gate from the mean of each channel."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Attending(nn.Module):
    """One head of attention over the pixels, after a LayerNorm over the channels."""

    def __init__(self, channels: int, fused: bool) -> None:
        super().__init__()
        self.norm, self.qkv, self.fused = nn.LayerNorm(channels, eps=0.3), nn.Linear(channels, 3 * channels), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x.flatten(2).mT)).chunk(3, -1)
        if self.fused:
            y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            y = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
        return y.mT.reshape(x.shape)


class Residual(nn.Module):
    """A convolution, a BatchNorm, and a skip around them that is added in place to another name of the same tensor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0)), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        alias = y
        alias += x
        return y


class Hooked(nn.Module):
    """A convolution whose outputs a hook multiplies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 1)
        self.conv.register_forward_hook(lambda module, arguments, out: -3 * out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Part(nn.Module):
    """A function as a module."""

    def __init__(self, function: Step) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two groups of channels of one size; the last channel is left over where their number is odd."""
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 : x.shape[1] // 2 * 2]


def maxmin(x: Tensor) -> Tensor:
    a, b = halves(x) if x.shape[1] > 1 else (x[:, :, ::2], x[:, :, : x.shape[2] // 2 * 2 : 2][:, :, :1])
    return torch.cat([torch.maximum(a, b), torch.minimum(b, a)], 1)


def in_part(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, :, :1] += 2 * y[:, :, -1:]
    y.select(3, 0).mul_(-1.5)
    return y


def in_aliases(x: Tensor) -> Tensor:
    y = (x + 0).contiguous()
    rows = y.view(y.shape[0], -1)
    rows.mul_(0.5).sub_(1)
    y[:, -1] = 0
    return y + rows.view_as(y)


def l2_pooled(x: Tensor) -> Tensor:
    return (F.avg_pool2d(x.square(), 2, ceil_mode=True) * 4 + 0.01).sqrt()


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 0.5)


def shuffled(x: Tensor) -> Tensor:
    a, b, *rest = x.split((x.shape[1] + 1) // 2, 1) if x.shape[1] > 1 else (x, x)
    return torch.cat([b, F.leaky_relu(a, -1.3), *rest], 1)


ANYWHERE: dict[str, Step] = {
    **{
        name: getattr(F, name)
        for name in ["relu", "relu6", "elu", "selu", "gelu", "silu", "mish", "hardswish", "hardtanh", "hardsigmoid"]
    },
    **{"tanh": torch.tanh, "sigmoid": torch.sigmoid, "abs": torch.abs, "softplus": F.softplus, "sin": torch.sin},
    "clamp": lambda x: x.clamp(-0.4, 0.7),
    "clamp in place": lambda x: (x * 2).clamp_(min=0.1),
    "leaky": lambda x: F.leaky_relu(x, -1.7),
    "softmax": lambda x: 3 * x.softmax(1),
    "log-softmax": lambda x: x.log_softmax(1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "unit": lambda x: F.normalize(x, eps=0.3),
    "rms": rms,
    "square": lambda x: x * x,
    "cube": lambda x: x.pow(3) - x,
    "exponential": lambda x: x.exp() - 1,
    "quotient": lambda x: x / (1.5 + x.sigmoid()),
    "gate by itself": lambda x: x * torch.sigmoid(1.702 * x),
    "bounded gate": lambda x: torch.tanh(x) * torch.sigmoid(x.roll(1, 1)),
    "maxmin": maxmin,
    "group maxima": lambda x: torch.cat([x.amax(1, keepdim=True), x.amin(1, keepdim=True)], 1),
    "sorted": lambda x: x.sort(1)[0],
    "top": lambda x: x.topk(min(2, x.shape[1]), 1)[0],
    "extremes": lambda x: torch.stack(extremes(x), 1).flatten(1, 2),
    "shuffled": shuffled,
    "unbound": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "chunks added": lambda x: sum(x.chunk(2, 3)[:1], x.mean(3, keepdim=True)),
    "in a part": in_part,
    "in aliases": in_aliases,
    "expanded": lambda x: x.mean(1, keepdim=True).expand_as(x) - 0.5 * x,
    "repeated": lambda x: x.repeat(1, 1, 2, 1)[:, :, 1:],
    "flipped": lambda x: x.flip(2).transpose(2, 3) - x.transpose(3, 2),
    "masked": lambda x: x.masked_fill(torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).triu(), 0.2) * 2,
    "indexed": lambda x: x[:, :, [0, -1, 0]],
    "max pooling": lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 1)),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "average pooling": lambda x: F.avg_pool2d(x, 2, 1, 1),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (2, 1)),
    "L2 pooling": lambda x: F.lp_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2, 1),
    "L2 pooling by hand": l2_pooled,
    "nearest": lambda x: F.interpolate(x, scale_factor=(2, 1)),
    "bilinear": lambda x: F.interpolate(x, size=(5, 3), mode="bilinear", align_corners=True),
    "wrapped around": lambda x: F.pad(x, (1, 0, 0, 1), mode="circular"),
    "replicated": lambda x: F.pad(x, (0, 2, 1, 0), mode="replicate"),
    "cropped": lambda x: F.pad(x, (1, 0, -1, 2), value=0.5),
    "shuffled pixels": lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2),
    "instance norm": lambda x: F.instance_norm(x, eps=0.4),
    "differences": lambda x: x[:, :, 1:] - x[:, :, :-1] if x.shape[2] > 1 else x,
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x.tanh(), x)[..., None],
}
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "convolution": lambda c: nn.Sequential(nn.Conv2d(c, 3, (2, 3), padding=(1, 1)), nn.BatchNorm2d(3)),
    "strided": lambda c: nn.Conv2d(c, 4, (3, 2), (2, 1), (1, 1), groups=1),
    "depthwise": lambda c: nn.Conv2d(c, 2 * c, (1, 3), padding=(0, 2), dilation=(1, 2), groups=c),
    "circular": lambda c: nn.Conv2d(c, 2, 3, padding=1, padding_mode="circular"),
    "reflecting": lambda c: nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(c, 2, 3, padding="same")),
    "transposed": lambda c: nn.Sequential(nn.ConvTranspose2d(c, 2, (2, 3), (2, 1), (0, 1)), nn.BatchNorm2d(2)),
    "padded before": lambda c: nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), Part(conv_of(c))),
    "BatchNorm": lambda c: nn.BatchNorm2d(c),
    "GroupNorm": lambda c: nn.GroupNorm(1, c, eps=0.2),
    "LayerNorm": lambda c: nn.Sequential(
        *(Part(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(c, eps=0.3), nn.Linear(c, 3)),
        Part(lambda x: x.permute(0, 3, 1, 2)),
    ),
    "PReLU": lambda c: nn.PReLU(c, init=-1.2),
    "gate": lambda c: Gated(c, nn.Sigmoid()),
    "hard gate": lambda c: Gated(c, nn.Hardsigmoid()),
    "attention": lambda c: Attending(c, True),
    "attention by hand": lambda c: Attending(c, False),
    "residual": Residual,
    "hooked": Hooked,
    "dropout": lambda c: nn.Sequential(nn.Dropout(0.4), nn.Dropout2d(0.2, inplace=True)),
}


def conv_of(channels: int) -> Step:
    """A convolution by torch's function, with a weight that belongs to no module."""
    weight = torch.randn(3, channels, 2, 2, dtype=torch.float64)
    return lambda x: F.conv2d(x, weight.to(x))


class Graph(nn.Module):
    """A few random steps, with branches that meet in sums and concatenations."""

    def __init__(self, seed: int, size: tuple[int, ...], device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.draw, self.names = random.Random(seed), []
        self.parts = nn.ModuleList()
        x = torch.zeros(1, *size, dtype=torch.float64, device=device)
        for _ in range(self.draw.choice([1, 1, 2, 2, 3, 4])):
            join = self.draw.choice(["none"] * 5 + ["sum", "cat", "difference"])
            part = Joined(self._one(x), self._one(x), join) if join != "none" else self._one(x)
            part = varied(part).to(device, torch.float64).eval()
            y = part(x)
            if y.numel() > 96 or y.numel() == 0:
                continue
            self.parts.append(part)
            x = y.detach()
        self.eval()

    def _one(self, x: Tensor) -> nn.Module:
        name = self.draw.choice([*ANYWHERE, *LAYERS])
        self.names.append(name)
        return LAYERS[name](x.shape[1]) if name in LAYERS else Part(ANYWHERE[name])

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
            x = x if x.ndim == 4 else x.reshape(x.shape[0], -1, 1, 1)
        return x


class Joined(nn.Module):
    """Two branches that meet."""

    def __init__(self, one: nn.Module, other: nn.Module, join: str) -> None:
        super().__init__()
        self.one, self.other, self.join = one, other, join

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.other(x)
        if a.shape != b.shape:
            return torch.cat([a.flatten(1), b.flatten(1)], 1)[:, :, None, None]
        if self.join == "cat":
            return torch.cat([b, a], 1)
        if self.join == "sum":
            a = a + 0
            alias = a
            alias += b
            return a
        return 0.5 * a - b


def varied(part: nn.Module) -> nn.Module:
    """The module with normalizations whose numbers are odd: gains of both signs and of 0, deviations far from 1."""
    for module in part.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.1, 3)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
            with torch.no_grad():
                module.weight[-1:] *= float(torch.rand(()) > 0.3)
    return part


def jacobian(model: nn.Module, image: Tensor) -> Tensor:
    """The dense Jacobian at one image, for a network that treats the images of a batch one by one."""
    outputs = model(image[None].clone()).numel()
    copies = image.expand(outputs, *image.shape).clone().requires_grad_()  # one for each row
    (rows,) = torch.autograd.grad(model(copies.clone()).reshape(outputs, -1).diagonal().sum(), copies)
    return rows.flatten(1).nan_to_num()  # a norm has no derivative at 0


def steepest(model: nn.Module, points: Tensor) -> float:
    """The largest norm of the Jacobian at some points, and the largest quotient between each two that follow."""
    slopes = [float(torch.linalg.matrix_norm(jacobian(model, point), 2)) for point in points]
    with torch.no_grad():
        outs = model(points.clone())
    apart = (points[1:] - points[:-1]).flatten(1).norm(dim=1)
    slopes += ((outs[1:] - outs[:-1]).flatten(1).norm(dim=1) / apart).tolist()
    return max(slopes)
