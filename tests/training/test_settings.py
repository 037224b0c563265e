"""Each group of functions with networks of other dtypes, with torch's defaults changed, and with weights on meta."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from convkit import bounds, norms, projections, spectra
from convkit.attacks import autoattack, fgsm, pgd, robust_accuracy, simba
from convkit.audit import NormTracker, channel_gains, fold_batchnorm, layer_table, measure, product_bound
from convkit.constraints import centered_sphere, clip_operator_norm, clip_reshaped_norm, norm_decay
from convkit.data import digits, noisy_labels, scarce, shapes, subset
from convkit.data.augmentation import augment
from convkit.methods import METHODS, network
from convkit.normalization import (
    CenteredWeightNorm,
    ConvNorm2d,
    NewtonOrthogonal,
    OperatorNorm,
    WeightStandardization,
    convert,
    parametrized,
)
from convkit.operators.circulants import circulant, doubly_block_circulant
from convkit.operators.network import conv_operators, input_shapes
from convkit.operators.operator import ConvOperator
from convkit.penalties import mean_norm, orthogonality, reshaped_spectral_penalty, spectral_penalty
from convkit.robustness import (
    certified_radius,
    constant_network,
    empirical_radius,
    jacobian_norm,
    local_lipschitz,
    margins,
    robust_network,
    separation,
)
from convkit.training import evaluate, fit, get_objective
from tests.helpers.geometries import normal


@contextlib.contextmanager
def default_device_meta() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {"float64 as default": (default_dtype_float64, 7), "meta as default": (default_device_meta, 6)}  # and a size
settings = pytest.mark.parametrize("setting", SETTINGS)


def numbers(result: Any) -> Any:
    """What is compared: tensors, numbers and words, in the containers of Python."""
    if isinstance(result, ConvOperator):
        return result.kernel.detach()
    if isinstance(result, nn.Module):
        return numbers(result.state_dict())
    if isinstance(result, dict):
        return {key: numbers(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [numbers(value) for value in result]
    if hasattr(result, "__dict__") and not isinstance(result, Tensor | type):
        return numbers(vars(result))
    return result


def same(call: Callable[[], Any], setting: str) -> None:
    around, _ = SETTINGS[setting]
    with around():  # first, so that a table that it spoils is used again
        torch.manual_seed(3)
        other = numbers(call())
    torch.manual_seed(3)
    compared(numbers(call()), other)


def compared(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert_close(other, one, rtol=0, atol=0)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            compared(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            compared(*pair)
    elif isinstance(one, int | float | str | None):
        assert one == other or one != one


# ---- kernels ---------------------------------------------------------------------------------------------------------
OF_AN_OPERATOR: dict[str, Callable[[ConvOperator], Any]] = {
    **{f.__name__: f for f in (spectra.symbol, spectra.spectrum, spectra.singular_values, spectra.condition_number)},
    "channel_condition_numbers": spectra.channel_condition_numbers,
    "from_symbol": lambda A: spectra.from_symbol(spectra.symbol(A)),
    "leading_singular_values": lambda A: spectra.leading_singular_values(A, 3),
    "leading_singular_values of zero padding": lambda A: spectra.leading_singular_values(zero_padded(A), 3),
    **{f"operator_norm {p}": partial(norms.operator_norm, ord=p) for p in (1, 2, math.inf)},
    **{f"operator_norm {p} of zero padding": lambda A, p=p: norms.operator_norm(zero_padded(A), p) for p in (1, 2)},
    "operator_norm 1 of reflect": lambda A: norms.operator_norm(zero_padded(A, "reflect"), 1),
    "certify": lambda A: norms.certify(A, 5.0),
    "power_iteration": lambda A: norms.power_iteration(A, 5),
    **{name: getattr(bounds, name) for name in dir(bounds) if name.endswith(("_bound", "_norm")) and name[0] != "_"},
    "torus_bound of replicate": lambda A: bounds.torus_bound(zero_padded(A, "replicate")),
    **{
        f.__name__: partial(f, bound=1.5)
        for f in (projections.clip_singular_values, projections.clip_and_crop, projections.dykstra)
    },
    "alternating_projections": partial(projections.alternating_projections, bound=1.5),
    "clip_reshaped_kernel": partial(projections.clip_reshaped_kernel, bound=0.5),
    "project_centered_sphere": lambda A: projections.project_centered_sphere(A.kernel, 1.0),
    "matrix": lambda A: [A.matrix(), zero_padded(A, "reflect").matrix(), A.T.matrix()],
    "circulants": lambda A: [circulant(A.kernel[0, 0, 0]), doubly_block_circulant(A.kernel[0, 0])],
}
del OF_AN_OPERATOR["operator_norm"]


def zero_padded(A: ConvOperator, mode: Any = "zeros") -> ConvOperator:
    return ConvOperator(A.kernel, A.input_shape, padding=1, padding_mode=mode)


@settings
@pytest.mark.parametrize("name", OF_AN_OPERATOR)
def test_functions_of_an_operator_do_the_same_under_every_default(name, setting, device):
    n = SETTINGS[setting][1]
    A = ConvOperator(normal(3, 2, 3, 3, device=device, dtype=torch.float32), (n, n + 4))
    same(lambda: OF_AN_OPERATOR[name](A), setting)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_of_half_precision_and_on_meta_are_refused_in_a_sentence(dtype):
    with pytest.raises(TypeError, match=r"kernel must be float32 or float64, got .*; use kernel.double\(\)"):
        ConvOperator(torch.ones(2, 3, 3, 3, dtype=dtype), (5, 6))
    with pytest.raises(ValueError, match="got a tensor on the meta device; load the weights first"):
        ConvOperator(torch.ones(2, 3, 3, 3, device="meta"), (5, 6))


# ---- networks --------------------------------------------------------------------------------------------------------
class Small(nn.Sequential):
    def __init__(self, n: int = 8, channels: int = 1) -> None:
        super().__init__(
            *(nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular"), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
        )


def small(n: int, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Small()
    for p in model.parameters():
        nn.init.normal_(p, std=0.7)
    x = torch.rand(6, 1, 2 * n, 2 * n + 2)
    return model.to(device, dtype).eval(), x.to(device, dtype), torch.arange(6, device=device) % 5


def stepped(hook: Callable[..., Any]) -> Callable[[nn.Module, Tensor, Tensor], Any]:
    """The weights after two steps with a hook."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        model = copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        hook(optimizer, model, input_shapes(model, x))
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model

    return run


def with_penalty(penalty: Callable[..., Tensor]) -> Callable[[nn.Module, Tensor, Tensor], Any]:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        return penalty(model, input_shapes(model, x)).detach()

    return run


def drawn(x: Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(5)


def made(factory: Callable[..., nn.Module]) -> Callable[[nn.Module, Tensor, Tensor], Any]:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        new = convert(model, factory).model
        return [new, new(x).detach()]

    return run


def with_weight(parametrization: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    def factory(*args: Any, depth: float) -> nn.Module:
        return parametrized(nn.Conv2d(*args), parametrization())

    return factory


EPS = 0.1
OF_A_NETWORK: dict[str, Callable[[nn.Module, Tensor, Tensor], Any]] = {
    "fgsm": lambda m, x, y: fgsm(m, x, y, EPS),
    "pgd": lambda m, x, y: pgd(m, x, y, EPS, EPS / 4, 4, generator=drawn(x)),
    "pgd 2": lambda m, x, y: pgd(m, x, y, 5 * EPS, EPS, 4, norm=2, loss="margin", generator=drawn(x)),
    "simba": lambda m, x, y: simba(m, x, y, EPS, "dct", steps=10, generator=drawn(x)),
    "autoattack": lambda m, x, y: autoattack(m, x, y, EPS, attacks=["apgd-ce"], generator=drawn(x)),
    "robust_accuracy": lambda m, x, y: robust_accuracy(
        m, [(x, y)], partial(pgd, eps=EPS, step=EPS / 4, steps=3, generator=drawn(x)), progress=False
    ),
    "margins": margins,
    "certified_radius": partial(certified_radius, bound=3.0),
    "empirical_radius": lambda m, x, y: empirical_radius(m, x, y, 2.0, steps=4, bisections=2, generator=drawn(x)),
    "jacobian_norm": lambda m, x, y: [jacobian_norm(m, x, p, 4, drawn(x)) for p in (2, "inf")],
    "local_lipschitz": lambda m, x, y: [local_lipschitz(m, x, 0.5, p, 3, drawn(x)) for p in (2, "inf")],
    "conv_operators": lambda m, x, y: dict(conv_operators(m, x)),
    "input_shapes": lambda m, x, y: input_shapes(m, x),
    "measure": lambda m, x, y: measure(m, x, folded=True),
    "layer_table": lambda m, x, y: [vars(row) for row in layer_table(m, x)],
    "product_bound": lambda m, x, y: product_bound(m, x),
    "channel_gains": lambda m, x, y: channel_gains(m),
    "fold_batchnorm": lambda m, x, y: fold_batchnorm(m)(x).detach(),
    "NormTracker": lambda m, x, y: (lambda t: [t.update() for _ in range(2)])(NormTracker(m, x)),
    "mean_norm": with_penalty(mean_norm),
    "spectral_penalty": with_penalty(spectral_penalty),
    "reshaped_spectral_penalty": lambda m, x, y: reshaped_spectral_penalty(m).detach(),
    "orthogonality": lambda m, x, y: orthogonality(m).detach(),
    "centered_sphere": stepped(
        lambda o, m, s: centered_sphere(o, {"0": m[0].weight, "3": m[3].weight}),
    ),
    "clip_operator_norm": stepped(lambda o, m, s: clip_operator_norm(o, m, s, 0.5, every=1)),
    "clip_reshaped_norm": stepped(lambda o, m, s: clip_reshaped_norm(o, m, 0.5, every=1)),
    "norm_decay": stepped(lambda o, m, s: norm_decay(o, m, s, 0.1)),
    "ConvNorm2d": made(lambda *args, depth: ConvNorm2d(*args)),
    "WeightStandardization": made(with_weight(WeightStandardization)),
    "CenteredWeightNorm": made(with_weight(CenteredWeightNorm)),
    "NewtonOrthogonal": made(with_weight(NewtonOrthogonal)),
    "OperatorNorm": made(lambda *args, depth: parametrized(nn.Conv2d(*args), OperatorNorm((12, 14), *args[3:]))),
}


@settings
@pytest.mark.parametrize("name", OF_A_NETWORK)
def test_functions_of_a_network_do_the_same_under_every_default(name, setting, device):
    model, x, y = small(SETTINGS[setting][1], device)
    same(lambda: OF_A_NETWORK[name](model, x, y), setting)


HALF = (torch.float16, torch.bfloat16)
ON_COPIES = {
    "measure",
    "layer_table",
    "conv_operators",
    "NormTracker",
    "channel_gains",
    "product_bound",
}  # of float32 weights
REFUSED_IN_HALF = {"clip_operator_norm", "clip_reshaped_norm", "norm_decay", "centered_sphere"}
REFUSED_IN_HALF |= {"mean_norm", "spectral_penalty", "reshaped_spectral_penalty", "orthogonality"}
BY_A_RANDOM_WALK = {"autoattack", "simba", "pgd", "pgd 2", "robust_accuracy", "fgsm", "empirical_radius"}
BY_A_RANDOM_WALK |= {"jacobian_norm", "local_lipschitz"}  # in float64 they begin elsewhere
NEW_LAYERS = {"ConvNorm2d", "WeightStandardization", "CenteredWeightNorm", "NewtonOrthogonal", "OperatorNorm"}


@pytest.mark.parametrize("name", OF_A_NETWORK)
def test_functions_of_a_network_in_float64_give_the_same_to_rounding(name, device):
    model, x, y = small(5, device)
    wanted = numbers(OF_A_NETWORK[name](model, x, y))
    found = numbers(OF_A_NETWORK[name](model.double(), x.double(), y))
    if name in BY_A_RANDOM_WALK:
        for image in (t for t in (found if isinstance(found, list) else [found]) if isinstance(t, Tensor)):
            assert not image.isnan().any()
            assert image.dtype in (torch.float64, torch.int64)
    else:
        near(wanted, found, torch.float64)


def near(one: Any, other: Any, dtype: torch.dtype) -> None:
    if isinstance(one, Tensor):
        assert other.dtype == (dtype if one.is_floating_point() else one.dtype)
        assert_close(other.double(), one.double(), rtol=2e-3, atol=2e-3)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2e-3)
    elif isinstance(one, dict):
        for key in one:
            near(one[key], other[key], dtype)
    elif isinstance(one, list):
        for pair in zip(one, other, strict=True):
            near(*pair, dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", [name for name in OF_A_NETWORK if name not in NEW_LAYERS])
def test_functions_of_a_network_in_half_precision_are_right_or_refuse_in_a_sentence(name, dtype, device):
    model, x, y = small(5, device, dtype)
    if name in REFUSED_IN_HALF:
        with pytest.raises(ValueError, match=rf"needs? .*float32 or float64|must be float32 or float64, got {dtype}; "):
            OF_A_NETWORK[name](model, x, y)
        return
    found = numbers(OF_A_NETWORK[name](model, x, y))
    if name in ON_COPIES:
        compared(numbers(OF_A_NETWORK[name](model.float(), x.float(), y)), widened(found))
    for part in found if isinstance(found, list) else [found]:
        if isinstance(part, Tensor) and part.is_floating_point():
            assert part.dtype == dtype
            assert not part.isnan().any()


def widened(found: Any) -> Any:
    if isinstance(found, Tensor) and found.dtype in HALF:
        return found.float()
    if isinstance(found, dict):
        return {key: widened(value) for key, value in found.items()}
    return [widened(value) for value in found] if isinstance(found, list) else found


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", sorted(NEW_LAYERS))
def test_new_layers_in_half_precision_are_those_of_float32_rounded(name, dtype, device):
    model, x, y = small(6, device, dtype)
    _, found = numbers(OF_A_NETWORK[name](model, x, y))
    _, wanted = numbers(OF_A_NETWORK[name](model.float(), x.float(), y))
    assert found.dtype == dtype
    assert_close(found.float(), wanted, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", [name for name in OF_A_NETWORK if name not in NEW_LAYERS | {"channel_gains"}])
def test_a_network_on_meta_is_refused_in_a_sentence(name):
    model, x, y = small(5, torch.device("cpu"))
    if name == "fold_batchnorm":
        assert next(fold_batchnorm(model.to("meta")).parameters()).is_meta
        return
    with pytest.raises(ValueError, match=r"on the meta device; load (them|the weights first)"):
        OF_A_NETWORK[name](model.to("meta"), x, y)


@pytest.mark.parametrize("name", sorted(NEW_LAYERS - {"OperatorNorm"}))
def test_a_network_on_meta_can_be_converted(name):
    model, x, y = small(5, torch.device("cpu"))
    new, y = OF_A_NETWORK[name](model.to("meta"), x.to("meta"), y)
    assert {p.device.type for p in new.parameters()} == {"meta"}
    assert tuple(y.shape) == (6, 5)


ATTACKS = ["fgsm", "pgd", "pgd 2", "simba", "autoattack", "robust_accuracy", "margins", "certified_radius"]
ATTACKS += ["empirical_radius", "jacobian_norm", "local_lipschitz"]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_images_of_another_dtype_than_the_weights_are_refused_in_a_sentence(name, dtype, device):
    model, x, y = small(5, device)
    words = rf"images must have the dtype of the network's weights, {dtype}, got torch.float32; use x.to\({dtype}\)"
    with pytest.raises(ValueError, match=words):
        OF_A_NETWORK[name](model.to(dtype), x, y)


@pytest.mark.parametrize(
    "name", [name for name in OF_A_NETWORK if name not in {*ATTACKS, *NEW_LAYERS, "fold_batchnorm"}]
)
def test_audits_take_images_of_any_dtype(name, device):
    if name in ("centered_sphere", "clip_operator_norm", "clip_reshaped_norm", "norm_decay"):
        return  # steps of the test's own
    model, x, y = small(5, device, torch.float64)
    compared(numbers(OF_A_NETWORK[name](model, x, y)), numbers(OF_A_NETWORK[name](model, x.float(), y)))


class Binary(nn.Module):
    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.layer, self.flat = nn.Linear(120, 1), flat

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x.flatten(1))
        return z[:, 0] if self.flat else z


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_network_with_one_logit_is_told_how_to_make_two(name, flat, device):
    _, x, y = small(5, device)
    model = Binary(flat).to(device)
    with pytest.raises(ValueError, match=r"got \(6(, 1)?,?\): one logit z per image; \[0, z\] are two") as caught:
        OF_A_NETWORK[name](model, x, y % 2)
    if name == "autoattack":
        return  # it needs four classes
    words = str(caught.value)
    code = words[words.index("class TwoLogits") :].replace(": def", ":\n def")
    known: dict[str, Any] = {"nn": nn}
    exec(code, {"Module": nn.Module, **known, "nn": nn}, known)
    two = nn.Sequential(model, known["TwoLogits"]())
    assert_close(two(x)[:, 1] - two(x)[:, 0], model(x).flatten())
    OF_A_NETWORK[name](two, x, y % 2)


# ---- data, models and training ---------------------------------------------------------------------------------------
OF_TRAINING: dict[str, Callable[[], Any]] = {
    "shapes": lambda: vars(shapes(10, 5)),
    "digits": lambda: vars(subset(digits(), 50, seed=1)),
    "noisy": lambda: vars(noisy_labels(scarce(subset(digits(), 100), 0.5, seed=1), 0.4, "flip", seed=2)),
    "augment": lambda: augment("crop+flip+cutout")(subset(digits(), 20).train_batch(slice(0, 9))[0], drawn(X)),
    **{f"training {name}": partial(lambda method: trained(method), name) for name in METHODS},
    **{f"objective {name}": partial(lambda name: trained("batchnorm", name), name) for name in ("free", "trades")},
    "constant_network": lambda: constant_network(3, 2, 5.0),
    "robust_network": lambda: robust_network(X, torch.arange(4, device="cpu"), 0.01),
    "separation": lambda: separation(X, torch.arange(4, device="cpu")),
}
X = normal(4, 3, device=torch.device("cpu"), dtype=torch.float32).sigmoid()


def trained(method: str, objective: str = "clean") -> Any:
    data = subset(digits(), 40, seed=3)
    knobs = {knob: 2 for knob in ("groups", "every") if knob in METHODS[method].knobs}
    model = network("cnn9", data, method, knobs=knobs, widths=(4, 6, 8))
    options = {"steps": 2, "batch_size": 8, "measure_every": 1, "evaluate_every": 2, "knobs": knobs}
    records = list(fit(model, data, method, **options, objective=get_objective(objective, 0.1)))
    return [records[-1].loss, records[-1].norms, model, evaluate(model, data)]


@settings
@pytest.mark.parametrize("name", OF_TRAINING)
def test_data_and_training_are_the_same_under_every_default(name, setting):
    same(OF_TRAINING[name], setting)


def test_a_network_on_meta_is_not_trained():
    data = subset(digits(), 40)
    model = network("cnn9", data, "batchnorm", widths=(4, 6, 8)).to("meta")
    with pytest.raises(ValueError, match="must be on one device, got meta and cpu"):
        next(fit(model, data, "batchnorm", steps=1, batch_size=8))
    with pytest.raises(ValueError, match="must be on one device, got meta and cpu"):
        evaluate(model, data)


@pytest.mark.parametrize("dtype", [torch.float64, *HALF])
def test_networks_of_every_dtype_are_trained_or_refused_in_a_sentence(dtype):
    data = subset(digits(), 40)
    model = network("cnn9", data, "batchnorm", widths=(4, 6, 8), dtype=dtype)
    record = list(fit(model, data, "batchnorm", steps=2, batch_size=8, measure_every=1))[-1]
    assert math.isfinite(record.loss)
    assert {p.dtype for p in model.parameters()} == {dtype}
