"""The panel of notebook 00: signal and gradient on their way through many layers."""

import pytest
import torch
from torch.testing import assert_close

from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.widgets import depth
from convkit.widgets.depth import DepthPanel

KINDS = ("random 3 × 3", "all-pass", "blur")
SOURCES = ("photograph", "handwritten digit", "noise")
PANEL = DepthPanel


def through(maps, x):
    """The image before the first map, after it, after the second, ..."""
    images = [x]
    for apply in maps:
        images.append(apply(images[-1]))
    return images


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_curves_and_picture_are_what_the_operators_do(kind, source):
    norm, number = 0.9, 7
    image = depth.pictures()[source]
    operators = depth.layers(kind, tuple(image.shape))[:number]
    signal, gradient = depth.norms_by_layer(norm, number, kind, source)
    images = through(operators, image[None, None])
    assert_close(signal, torch.stack([norm**i * x.norm() for i, x in enumerate(images)]))
    assert_close(depth.after_layers(number, kind, source), images[-1][0, 0])

    x = image[None, None].clone().requires_grad_()
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    noise = noise / noise.norm()
    scaled = [ConvOperator(norm * A.kernel, A.input_shape) for A in operators]
    back = through([A.adjoint for A in reversed(scaled)], noise)
    assert_close(gradient, torch.stack([g.norm() for g in back]))
    through(scaled, x)[-1].backward(noise)
    assert x.grad is not None
    assert_close(x.grad, back[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_norm_one_and_all_pass_layers_nothing_else(kind):
    for A in depth.layers(kind, (8, 6))[:5]:
        values = torch.linalg.svdvals(A.matrix())
        assert_close(values[0], values.new_tensor(1.0))
        assert_close(operator_norm(A, 2), values[0])
        assert bool(values[-1] > 0.999) == (kind == "all-pass")


@pytest.mark.parametrize("source", SOURCES)
def test_inputs_have_norm_one(source):
    assert_close(depth.pictures()[source].norm(), torch.tensor(1.0, dtype=torch.float64))


def test_the_words_tell_the_last_norms_and_turn_red_where_a_signal_is_lost_or_explodes(panel, says):
    signal, gradient = (f"{float(norm[-1]):.0e}".replace("e-0", "e-") for norm in depth.norms_by_layer(**panel.values))
    says(False, f"signal's norm is {signal}", f"gradient's {gradient}", "only the largest singular value")
    says(True, "Vanished, beyond", "only the largest singular value", depth=30)
    says(True, "Exploded, beyond", "every singular value is 1.60", depth=30, kind="all-pass", norm=1.6)
    says(False, "signal's norm is 0.0012", depth=30, kind="all-pass", norm=0.8)  # 0.8**30
    says(False, "After 1 layer the", depth=1)
    assert len(panel.figure.axes[0].lines[0].get_xdata()) == 2


def test_numbers_read_well():
    texts = {1.0: "1", 0.0123: "0.012", 8e-4: "8e-4", 237.4: "237", 9999: "9999", 1.6e10: "2e10"}
    assert {value: depth._number(value) for value in texts} == texts
