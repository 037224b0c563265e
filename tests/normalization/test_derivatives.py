"""Derivatives of ConvNorm2d of first, second and third order, however its weight and its input hang together."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jacrev, vmap
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from convkit.normalization.convnorm import ConvNorm2d
from tests.helpers.geometries import normal
from tests.helpers.refusals import refused
from tests.normalization.test_convnorm import definition, geometries, layer_and_image


def exactly(device):
    """How near to be where nothing but the order of sums may differ: a GPU has none that is fixed."""
    return {"rtol": 0, "atol": 0} if device.type == "cpu" else {"rtol": 1e-4, "atol": 1e-5}


def held(through):
    """What becomes of the weight that v is computed from: unless ``through``, v is a constant."""
    return None if through else torch.Tensor.detach


through_or_not = pytest.mark.parametrize("through", [False, True])


class Layers:
    """Two layers as functions of their number, an image and a weight, by convkit and by their definition."""

    def __init__(self, device, through: bool) -> None:
        options = {"padding": "same", "through": through, "affine": False}
        self.layers = [ConvNorm2d(2, 2, kernel, **options).to(device, torch.float64) for kernel in ((3, 2), (2, 3))]
        self.x = normal(2, 2, 4, 5, device=device)
        self.weights = [layer.weight.detach().clone() for layer in self.layers]
        self.frozen = held(through)

    def apply(self, number, x, weight):
        return functional_call(self.layers[number], {"weight": weight}, (x,))

    def definition(self, number, x, weight):
        return definition(self.layers[number], x, weight, self.frozen)


def recurrent(layer, x, w, _):
    state = x
    for _ in range(4):
        state = torch.tanh(x + layer(0, state, w))
    return state


NETWORKS = {  # functions of layers, an image and the two weights
    "once": lambda layer, x, v, w: layer(0, x, v),
    "twice": lambda layer, x, v, w: layer(0, layer(0, x, v), v),
    "four times, recurrently": recurrent,
    "its input depends on its weight": lambda layer, x, v, w: layer(0, x * v.square().mean() + v.flatten()[:5], v),
    "its weight in a convolution before": lambda layer, x, v, w: layer(0, convolution(x, v), v),
    "its weight in a convolution behind": lambda layer, x, v, w: convolution(layer(0, x, v), v),
    "stack of two": lambda layer, x, v, w: layer(1, F.softplus(layer(0, x, v)), w),
    "stack of two with tied weights": lambda layer, x, v, w: layer(1, layer(0, x, v), v.mT),
    "weights that depend on each other": lambda layer, x, v, w: (
        layer(0, x, v) * layer(1, x, w * v.square().sum()).sin()
    ),
}


def convolution(x, weight):
    return F.conv2d(F.pad(x, (0, 1, 1, 1)), weight)


def loss(network, layer, x, v, w):
    y = network(layer, x, v, w)
    slope = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    return (slope * y).pow(3).sum() + y.sin().sum()


@through_or_not
@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_of_three_orders_are_those_of_the_definition(name, through, device):
    layers, network = Layers(device, through), NETWORKS[name]
    point = [t.requires_grad_() for t in (layers.x, *layers.weights)]

    def slopes(value, **options):
        return torch.autograd.grad(value, point, allow_unused=True, materialize_grads=True, **options)

    def derivatives(layer):
        value = loss(network, layer, *point)
        found = [value]
        for order in range(3):
            found += slopes(value, create_graph=True)
            value = sum((t * normal(*t.shape, device=device, seed=order)).sum() for t in found[-3:])
        return found

    found = derivatives(layers.apply)
    assert_close(found, derivatives(layers.definition))
    assert_close(slopes(loss(network, layers.apply, *point)), found[1:4], rtol=1e-12, atol=1e-12)


@through_or_not
@geometries
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_first_and_second_derivatives_are_those_of_the_definition_in_every_geometry(mode, name, through, device):
    layer, x = layer_and_image(name, device, affine=False, through=through)
    point = x.requires_grad_(), layer.weight

    def derivatives(y):
        slopes = torch.autograd.grad(y.pow(3).sum(), point, create_graph=True)
        return slopes, torch.autograd.grad(sum(s.square().sum() for s in slopes), point)

    wanted = derivatives(definition(layer, x, layer.weight, held(through)))
    assert_close(derivatives(getattr(layer, mode)()(x)), wanted)


# ---- some gradients only, passes repeated ----------------------------------------------------------------------------
@through_or_not
@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_one_gradient_alone_is_the_same_in_each_order(wanted, through, device):
    layer, x = layer_and_image("stride 2", device, through=through)

    def slopes(both):
        point = {"x": x.clone(), "weight": layer.weight.detach().clone()}
        for name, t in point.items():
            t.requires_grad_(both or name == wanted)
        y = functional_call(layer, {"weight": point["weight"]}, (point["x"],))
        first = torch.autograd.grad(y.pow(3).sum(), point[wanted], create_graph=True)
        return first, torch.autograd.grad(first[0].square().sum(), point[wanted])

    assert_close(slopes(both=False), slopes(both=True))


@through_or_not
def test_a_graph_may_be_passed_twice_and_not_after_a_change_of_the_weight(through, device):
    layer, x = layer_and_image("circular", device, through=through)
    loss = layer(x.requires_grad_()).pow(3).sum()
    once = torch.autograd.grad(loss, [x, layer.weight], retain_graph=True)
    with_graph = torch.autograd.grad(loss, [x, layer.weight], create_graph=True)
    assert_close(torch.autograd.grad(loss, [x, layer.weight]), once, **exactly(device))
    assert_close(with_graph, once)
    y = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    refused("modified by an inplace operation", y.sum().backward, error=RuntimeError)


@through_or_not
@pytest.mark.parametrize("saved", [torch.autograd.graph.save_on_cpu, contextlib.nullcontext])
def test_what_a_backward_pass_needs_may_be_computed_again_or_kept_elsewhere(saved, through, device):
    layer, x = layer_and_image("stride 2", device, through=through)
    wanted = torch.autograd.grad(layer(x.requires_grad_()).pow(3).sum(), [x, layer.weight])
    with saved():
        y = layer(x) if saved is torch.autograd.graph.save_on_cpu else checkpoint(layer, x, use_reentrant=False)
        assert_close(torch.autograd.grad(y.pow(3).sum(), [x, layer.weight]), wanted, **exactly(device))


# ---- torch.func and other ways to ask ------------------------------------------------------------------------------
@through_or_not
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_torch_func_finds_the_same(mode, through, device):
    layer, x = layer_and_image("stride 2", device, through=through)
    getattr(layer, mode)()
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def value(parameters, x):
        return functional_call(layer, parameters, (x,)).pow(3).sum()

    def slopes(x):
        return dict(zip(parameters, torch.autograd.grad(layer(x).pow(3).sum(), layer.parameters()), strict=True))

    assert_close(grad(value)(parameters, x), slopes(x))
    assert_close(grad(value, 1)(parameters, x), jacrev(lambda x: layer(x).pow(3).sum())(x))
    per_sample = vmap(grad(lambda parameters, x: value(parameters, x[None])), (None, 0))(parameters, x)
    for place, image in enumerate(x):
        assert_close({name: s[place] for name, s in per_sample.items()}, slopes(image[None]))
    assert_close(vmap(layer)(x.unflatten(0, (2, 1))), layer(x)[:, None])
    several = torch.stack([layer.weight.detach(), -2 * layer.weight.detach().flip(0)])
    mapped = vmap(lambda weight: functional_call(layer, {"weight": weight}, (x,)))(several)
    assert_close(mapped[1], functional_call(layer, {"weight": several[1]}, (x,)))
    assert_close(slopes(x), grad(value)(parameters, x))  # nothing of all that is kept


def test_tables_made_inside_a_transform_serve_after_it(device):
    layer = ConvNorm2d(2, 3, 3, padding=(5, 6)).double().to(device)  # a geometry that no other test has met
    x = normal(1, 2, 4, 7, device=device)

    def value(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,)).sin().sum()

    weight = layer.weight.detach()
    hessians = [torch.func.jacrev(torch.func.jacrev(value))(weight) for _ in range(2)]
    assert torch.equal(*hessians) if device.type == "cpu" else torch.allclose(*hessians)
    assert value(weight).isfinite()


@through_or_not
def test_torch_func_finds_the_hessian_of_the_definition(through, device):
    layers = Layers(device, through)

    def value(weight, layer=layers.apply):
        return layer(0, layer(0, layers.x, weight), weight).sin().sum()

    wanted = torch.autograd.functional.hessian(lambda weight: value(weight, layers.definition), layers.weights[0])
    assert_close(jacrev(jacrev(value))(layers.weights[0]), wanted)


# ---- autocast ------------------------------------------------------------------------------------------------------
def derivatives(layer, x, at=(), by=()):
    """Outputs, first and second derivatives; the forward pass in the autocasts ``at``, the backward ones in ``by``."""

    def under(kinds, task):
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(x.device.type, **kind))
            return task()

    x = x.clone().requires_grad_()
    inputs = [x, *layer.parameters()]
    y = under(at, lambda: layer(x))
    first = under(by, lambda: torch.autograd.grad(y.float().sin().sum(), inputs, create_graph=True))
    loss = sum(slope.square().sum() for slope in first)
    return y, first, under(by, lambda: torch.autograd.grad(loss, inputs))


HALF = {"dtype": torch.bfloat16}
AUTOCASTS = {
    "forward": ([HALF], []),
    "both": ([HALF], [HALF]),
    "backward": ([], [HALF]),
    "float16": ([{"dtype": torch.float16}], [{"dtype": torch.float16}]),
    "nested": ([HALF, {"enabled": False}, HALF], [{"enabled": False}, {"dtype": torch.float16}]),
    "off within": ([HALF, {"enabled": False}], [HALF, {"enabled": False}]),
}


@through_or_not
@pytest.mark.parametrize("name", ["stride 2", "size 1", "circular"])
@pytest.mark.parametrize("autocast", AUTOCASTS)
def test_autocast_changes_no_digit_of_outputs_and_derivatives(autocast, name, through, device):
    layer, x = layer_and_image(name, device, affine=False, through=through)
    layer, x = layer.float(), x.float()
    found, wanted = derivatives(layer, x, *AUTOCASTS[autocast]), derivatives(layer, x)
    orders = 2 if x.is_cuda and name == "size 1" else 3  # there the second one is that of torch's convolution
    assert_close(found[:orders], wanted[:orders], **exactly(device))


@through_or_not
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_with_an_affine_a_backward_pass_is_the_same_inside_and_outside_autocast(dtype, through, device):
    layer, x = layer_and_image("stride 2", device, through=through)
    layer, x, at = layer.float(), x.float(), [{"dtype": dtype}]
    y, first, _ = inside = derivatives(layer, x, at, at)
    assert_close(inside, derivatives(layer, x, at), **exactly(device))
    assert y.dtype == dtype
    assert all(slope.dtype == torch.float32 for slope in first)
    assert_close(first, derivatives(layer, x)[1], rtol=0.05, atol=0.05)  # bfloat16 keeps 8 bits


# ---- compiled and exported -----------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch
@pytest.mark.parametrize(("mode", "through"), [("train", True), ("eval", False)])
def test_a_compiled_layer_is_one_graph_with_the_same_gradients(mode, through, device):
    layer, x = layer_and_image("stride 2", device, through=through)
    getattr(layer, mode)()
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_close(compiled(x), layer(x))
        found, wanted = (torch.autograd.grad(f(x).pow(3).sum(), layer.parameters()) for f in (compiled, layer))
        assert_close(found, wanted)
        layer.weight.data.mul_(normal(*layer.weight.shape, device=device))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_a_small_network_is_exported_and_compiled_to_what_it_is(padding_mode, device):
    options = {"padding": "same", "padding_mode": padding_mode}
    layers = ConvNorm2d(2, 5, (3, 5), **options), torch.nn.ReLU(), ConvNorm2d(5, 3, 3, stride=2, **options)
    network = torch.nn.Sequential(*layers).to(device, torch.float64)
    x = normal(2, 2, 6, 7, device=device).requires_grad_()
    exported = torch.export.export(network, (x.detach(),), strict=False).module()
    assert_close(exported(x.detach()), network(x.detach()))
    inputs = x, *network.parameters()
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), network(x))
    found, wanted = (torch.autograd.grad(f(x).pow(3).sum(), inputs) for f in (compiled, network))
    assert_close(found, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_a_traced_network_follows_its_weights_and_takes_batches_of_any_size(padding_mode, device):
    layer = ConvNorm2d(2, 5, (3, 5), stride=2, padding="same", padding_mode=padding_mode).to(device, torch.float64)
    network = torch.nn.Sequential(
        layer, torch.nn.ReLU(), ConvNorm2d(5, 3, 1, device=device, dtype=torch.float64)
    ).eval()
    network(normal(1, 2, 6, 8, device=device))  # v is kept, and belongs to weights that change
    traced = torch.jit.trace(network, normal(1, 2, 6, 8, device=device))
    layer.weight.data.mul_(normal(*layer.weight.shape, device=device))
    x = normal(4, 2, 6, 8, device=device)
    assert_close(traced(x), network(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_traced_leaves_no_tables_behind(device):
    layer = ConvNorm2d(2, 3, 3, padding=(7, 8)).to(device).eval()  # a geometry that no other test has met
    x = torch.randn(2, 2, 9, 4).to(device)
    torch.export.export(layer, (x,), strict=False)
    y = layer(x)
    y.sum().backward()
    assert_close(y, layer.train()(x))
