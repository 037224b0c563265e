"""An upper bound of a network's Lipschitz constant: the product of the norms of its layers."""

import math
import operator
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from convkit.bounds import torus_bound
from convkit.checks import positive
from convkit.normalization.convnorm import ConvNorm2d
from convkit.normalization.noisy_affine import NoisyAffine2d
from convkit.norms import operator_norm
from convkit.operators.evaluation import apart, evaluation_copy
from convkit.operators.layers import LAYERS, TRANSPOSED, has_operator
from convkit.operators.operator import ConvOperator

CONVERGED = 1e-9  # relative: what a norm that was converged to tolerance may lack

_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MAXPOOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_SLOPES: dict[type[nn.Module], Callable[[Any], float]] = {  # the steepest slope of each activation
    nn.ReLU: lambda _: 1.0,
    nn.ReLU6: lambda _: 1.0,
    nn.LeakyReLU: lambda m: max(1.0, abs(m.negative_slope)),
    nn.PReLU: lambda m: max(1.0, float(m.weight.detach().abs().max())),
    nn.ELU: lambda m: max(1.0, abs(m.alpha)),
    nn.SELU: lambda _: 1.7581,
    nn.GELU: lambda _: 1.13,
    nn.SiLU: lambda _: 1.1,
    nn.Hardswish: lambda _: 1.5,
    nn.Hardtanh: lambda _: 1.0,
    nn.Softplus: lambda _: 1.0,
    nn.Tanh: lambda _: 1.0,
    nn.Sigmoid: lambda _: 0.25,
}
# averages and rearrangements: a matrix of entries >= 0, perhaps with a constant added
_MOVES = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)
_MOVING_METHODS = {"flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "mean"}
_MOVING_FUNCTIONS = {getattr(torch, name) for name in _MOVING_METHODS & set(dir(torch))} | {F.pad, operator.getitem}
_AS_MODULES: dict[Any, type[nn.Module]] = {
    **{getattr(F, kind.__name__.lower()): kind for kind in (nn.ReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.GELU, nn.SiLU)},
    **{F.leaky_relu: nn.LeakyReLU, F.hardswish: nn.Hardswish, F.hardtanh: nn.Hardtanh, F.softplus: nn.Softplus},
    **{torch.relu: nn.ReLU, torch.tanh: nn.Tanh, torch.sigmoid: nn.Sigmoid, F.tanh: nn.Tanh, F.sigmoid: nn.Sigmoid},
    **{"relu": nn.ReLU, "relu_": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid},
    **{F.max_pool1d: nn.MaxPool1d, F.max_pool2d: nn.MaxPool2d, F.max_pool3d: nn.MaxPool3d},
    **{F.avg_pool1d: nn.AvgPool1d, F.avg_pool2d: nn.AvgPool2d, F.avg_pool3d: nn.AvgPool3d},
    **{F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d},
    **{F.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d},
}
_JOINS = {torch.cat, torch.concat, torch.stack}
_SIZES = {getattr, "size", "dim", "numel"}
_SUMS = {operator.add, operator.iadd, torch.add, "add", "add_", operator.sub, operator.isub, torch.sub, "sub", "sub_"}
_PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
_QUOTIENTS = {operator.truediv, operator.itruediv, torch.div, "div", "div_"}


def product_bound(model: nn.Module, x: Tensor, torus: bool = False) -> float:
    """Return an upper bound of the network's Lipschitz constant on inputs of the size of ``x``.

    In 2-norms and evaluation mode: ``|f(a) - f(b)| <= bound |a - b|`` for all inputs a and b, up to rounding in the
    network itself. The factors are the norm 2 of convolutions and linear layers, BatchNorm's gain
    ``max |weight| / sqrt(running_var + eps)``, the steepest slope of activations, for max pooling the root of how many
    windows share a pixel, ``sqrt(||.||_1 ||.||_inf)`` for average pooling and rearrangements. Where branches meet, sums
    add the bounds of the branches and concatenations their squares. Biases do not matter. With ``torus=True`` layers
    without Fourier blocks count with the norm of ``A.torus()``, which is larger and cheaper.

    The network is traced by ``torch.fx`` and left as it was. Raises ``ValueError`` with the name of the step that has
    no bound (products of branches, LayerNorm) or is unknown: bound the parts around it and multiply, or give a module
    that is a convolution a method ``operator(input_shape)``, and another one an attribute ``lipschitz``, its bound.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> _ = model[2].weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    >>> round(product_bound(model, torch.zeros(1, 2)), 6)
    6.0
    """
    kind = type(model).__name__
    with torch.inference_mode(False), evaluation_copy(model, x, apart) as copy, torch.no_grad():
        copy, tracer = getattr(copy, "_orig_mod", copy), _Tracer()  # what torch.compile has compiled
        if tracer.is_leaf_module(copy, ""):
            copy = nn.Sequential(copy)
        try:
            with _TRACING:
                graph = tracer.trace(copy)
        except Exception as error:  # whatever a forward that depends on its numbers may raise
            raise ValueError(
                f"product_bound needs a network that torch.fx can trace, got {kind}, whose trace ends in: {error}; "
                "bound its parts and multiply"
            ) from error
        steps = _Bounds(fx.GraphModule(copy, graph), torus)
        steps.run(x.detach().clone())  # a first step may be in place
    return steps.bounds[next(node for node in graph.nodes if node.op == "output")]


_TRACING = threading.Lock()  # torch.fx puts functions of its own in the place of others while it traces


class _Tracer(fx.Tracer):
    """Trace the calls of its own thread; modules that other threads call meanwhile run as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            has_operator(m)
            or hasattr(m, "lipschitz")
            or isinstance(m, (*LAYERS, *TRANSPOSED, *_BATCHNORMS, NoisyAffine2d))
            or super().is_leaf_module(m, module_qualified_name)
        )


class _Bounds(fx.Interpreter):
    """Run the network and keep, for each step, a bound of the Lipschitz constant from the input to its result."""

    def __init__(self, network: fx.GraphModule, torus: bool) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self.torus = torus
        self.bounds: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        versions = {node: value._version for node, value in self.env.items() if isinstance(value, Tensor)}
        result = super().run_node(n)
        if n.op == "placeholder":
            self.bounds[n] = 0.0 if self.bounds else 1.0  # a further input is the default of an argument
        elif not any(self.bounds[node] for node in n.all_input_nodes):
            self.bounds[n] = 0.0  # weights, sizes
        else:
            try:
                self.bounds[n] = self._bound(n, result)
            except (TypeError, ValueError) as error:
                of_module = n.op == "call_module"
                kind = type(self.fetch_attr(str(n.target))).__name__ if of_module else _name(n.target)
                name = n.target if of_module else n.name
                raise ValueError(f"product_bound at step {name!r} ({kind}): {error}") from error
        for node, version in versions.items():
            if self.env[node]._version != version:  # changed in place, itself or a part
                self.bounds[node] = self.bounds[n] + (0.0 if self.env[node] is result else self.bounds[node])
        return result

    def _bound(self, n: fx.Node, result: Any) -> float:
        if n.op == "output":
            if not isinstance(n.args[0], fx.Node):
                raise ValueError("needed one output tensor, got several; bound the parts that lead to each")
            return self.bounds[n.args[0]]
        if n.target in _SIZES and isinstance(result, (int, torch.Size, torch.dtype, torch.device)):
            return 0.0
        if not isinstance(result, Tensor):
            raise ValueError(f"needed a step that gives one tensor, got {type(result).__name__}; bound its parts")
        args = n.args[0] if n.target in _JOINS and n.args else n.args
        bounds = [self.bounds[arg] if isinstance(arg, fx.Node) else 0.0 for arg in args]  # pyright: ignore
        if any(self.bounds[node] and node not in args for node in n.all_input_nodes):  # pyright: ignore
            raise ValueError("no bound is known for these arguments; bound the parts around it and multiply")
        if n.target in _JOINS:
            return math.hypot(*bounds)
        values, kwargs = self.fetch_args_kwargs_from_env(n)
        # a branch that is broadcast is copied
        copies = [math.sqrt(result.numel() / v.numel()) if isinstance(v, Tensor) else 1.0 for v in values]
        if n.target in _SUMS and not kwargs:
            return sum(bound * times for bound, times in zip(bounds, copies, strict=True))
        if n.target in _PRODUCTS | _QUOTIENTS and not kwargs:
            if all(bounds) or (n.target in _QUOTIENTS and bounds[1]):
                raise ValueError("a product or quotient of branches has no bound; bound the parts around it")
            which = 0 if bounds[0] else 1
            sizes = torch.as_tensor(values[1 - which]).double().abs()
            return bounds[which] * copies[which] * float(sizes.max() if n.target in _PRODUCTS else 1 / sizes.min())
        if n.target is operator.neg:
            return bounds[0]
        if not bounds[0] or any(bounds[1:]):
            raise ValueError("no bound is known for it; bound the parts around it and multiply")
        return bounds[0] * self._stretch(n, values, kwargs)

    def _stretch(self, n: fx.Node, values: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """Return the Lipschitz bound of a step that depends on the input through its first argument alone."""
        x, *others = values
        if n.op == "call_module":
            return _module_bound(self.fetch_attr(str(n.target)), x, self.torus)
        if n.target in _AS_MODULES:
            return _module_bound(_AS_MODULES[n.target](*others, **kwargs), x, self.torus)
        if n.target is F.dropout and not kwargs.get("training", others[1] if len(others) > 1 else True):
            return 1.0
        if n.target in _MOVING_FUNCTIONS:
            return _moving_bound(lambda x: n.target(x, *others, **kwargs), x)  # pyright: ignore
        if n.op == "call_method" and n.target in _MOVING_METHODS:
            return _moving_bound(lambda x: getattr(x, str(n.target))(*others, **kwargs), x)
        raise ValueError("no bound is known for this function; use the module of the same name or bound the parts")


def _module_bound(module: Any, x: Tensor, torus: bool) -> float:
    def is_one_of(kinds: tuple[type[nn.Module], ...]) -> bool:
        return isinstance(module, kinds) and any(type(module).forward is kind.forward for kind in kinds)

    def norm(A: ConvOperator) -> float:
        A = replace(A, kernel=A.kernel.double())
        return float(torus_bound(A)) if torus else float(operator_norm(A, 2)) * (1 + CONVERGED)

    kit: Any = module
    if isinstance(kit, ConvNorm2d) and kit.affine_weight is not None:  # between the two the map is cropped
        inner = kit.operator(tuple(x.shape[2:]), affine=False)
        affine = ConvOperator(
            kit.affine_weight, tuple(kit(x).shape[2:]), groups=kit.out_channels, padding_mode=kit.padding_mode
        )
        return norm(inner) * norm(affine)
    if isinstance(kit, NoisyAffine2d):
        return float(kit.weight.detach().abs().max())
    if has_operator(module) or isinstance(module, LAYERS + TRANSPOSED):
        if isinstance(module, nn.Linear):
            shape = (1, 1)  # the same map at every position
        else:
            shape = tuple(x.shape[2:] if has_operator(kit) else x.shape[2 - kit.weight.ndim :])
        return norm(ConvOperator.from_layer(kit, shape))
    if is_one_of(_BATCHNORMS):
        if module.running_var is None:
            raise ValueError("it divides by the deviations of its batch, which has no bound; track running statistics")
        gain = 1 / (module.running_var.double() + module.eps).sqrt()
        gain = gain if module.weight is None else gain * module.weight.double().abs()
        if not gain.isfinite().all():
            raise ValueError("its gain must be finite, got NaN or infinity; look for where training diverged")
        return float(gain.max())
    if hasattr(kit, "lipschitz"):
        return positive("its attribute lipschitz", kit.lipschitz, "; give its bound in 2-norms")
    if type(module) in _SLOPES:
        return _SLOPES[type(module)](module)
    if is_one_of(_MAXPOOLS):
        numbers = (_per_axis(v, x.ndim - 2) for v in (module.kernel_size, module.stride, module.dilation))
        return math.sqrt(math.prod(math.ceil(k * math.gcd(s, d) / s) for k, s, d in zip(*numbers, strict=True)))
    if is_one_of(_DROPOUTS):
        return 1.0
    if is_one_of(_MOVES):
        return _moving_bound(module, x)
    raise ValueError("no bound is known for this kind of module; bound the parts around it and multiply")


def _moving_bound(move: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return ``sqrt(||M||_1 ||M||_inf)`` for ``x -> M x + c`` with entries of M >= 0, from its row and column sums."""
    with torch.enable_grad():
        ones = torch.ones_like(x, dtype=torch.float64).requires_grad_()
        y = move(ones)
        (columns,) = torch.autograd.grad(y.sum(), ones)
    rows = y.detach() - move(torch.zeros_like(ones))
    return math.sqrt(float(rows.max()) * float(columns.max())) * (1 + CONVERGED)


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _name(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
