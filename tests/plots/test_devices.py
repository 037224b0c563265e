"""Tensors on any device, of any precision and with a gradient, are drawn as their numbers are."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")  # of tests.helpers.panels

import convkit.plots as plots
from convkit.plots.numbers import numbers
from tests.helpers.panels import drawn

DRAW = np.random.default_rng(0)
LINE, SQUARE, IMAGE = DRAW.random(12), DRAW.random((5, 6)) - 0.5, DRAW.random((3, 5, 4))
FALLING = np.sort(LINE)[::-1].copy()
CHARTS = {  # each from a function that makes the tensors of the arrays
    "plot_answers": lambda T: plots.plot_answers(T(LINE), T(FALLING), 3, list("abcdefghijkl")),
    "plot_band": lambda T: plots.plot_band(T(LINE), T(LINE), T(LINE + 1), {"a": T(FALLING)}),
    "plot_bands": lambda T: plots.plot_bands({"a": (range(12), [T(LINE), T(FALLING[:5])])}),
    "plot_bounds": lambda T: plots.plot_bounds({"equal": T(np.ones(())), "a": T(np.array(1.7)), "none": None}),
    "plot_by_layer": lambda T: plots.plot_by_layer({"a": T(LINE)}, ceiling=T(FALLING)),
    "plot_change": lambda T: plots.plot_change(T(IMAGE), 0.7),
    "plot_channels": lambda T: plots.plot_channels({"a": T(DOWN), "b": [T(LINE), T(FALLING)]}),
    "plot_curves": lambda T: plots.plot_curves({"a": (range(12), T(LINE)), "b": [(T(LINE), T(FALLING))] * 2}),
    "plot_densities": lambda T: plots.plot_densities({"a": T(LINE), "b": list(T(FALLING))}),
    "plot_dots": lambda T: plots.plot_dots({"a": T(LINE), "b": list(T(FALLING))}),
    "plot_folding": lambda T: plots.plot_folding(T(LINE), 3),
    "plot_frequencies": lambda T: plots.plot_frequencies(T(SQUARE)),
    "plot_growth": lambda T: plots.plot_growth({"a": (T(LINE), T(FALLING))}),
    "plot_growth_by_part": lambda T: plots.plot_growth_by_part(list("ab"), {"bound": T(LINE[:2])}, list(T(SQUARE[:2]))),
    "plot_image": lambda T: plots.plot_image(T(SQUARE)),
    "plot_intervals": lambda T: plots.plot_intervals({"row": {"a": T(LINE), "bound": T(np.array(1.5))}}),
    "plot_kernel": lambda T: plots.plot_kernel(T(SQUARE)),
    "plot_kernel_gradient": lambda T: plots.plot_kernel_gradient(T(DRAW_4)),
    "plot_layer_spectra": lambda T: plots.plot_layer_spectra(
        {"a": T(FALLING), "b": T(FALLING[:7])}, picked="b", log=True
    ),
    "plot_layers": lambda T: plots.plot_layers({"a": [T(LINE), T(FALLING)], "b": T(SQUARE)}),
    "plot_matrix": lambda T: plots.plot_matrix(T(SQUARE), blocks=[(2, 3)], row=1),
    "plot_patch": lambda T: plots.plot_patch(T(SQUARE), framed=(1, 2)),
    "plot_path": lambda T: plots.plot_path(T(SQUARE), (0, 1, 0, 1), T(SQUARE[:, :2]), T(SQUARE[:3, 2:4])),
    "plot_picture": lambda T: plots.plot_picture(T(IMAGE)),
    "plot_plane": lambda T: plots.plot_plane({"a": T(LINE + 1j * FALLING), "b": T(LINE)}),
    "plot_points": lambda T: plots.plot_points({"a": (T(LINE), T(FALLING))}),
    "plot_radii": lambda T: plots.plot_radii({"a": (T(LINE), T(FALLING))}),
    "plot_ratios": lambda T: plots.plot_ratios([("a", T(np.array(2.5)), 2.0), ("b", T(np.array(0.5)), None)]),
    "plot_regions": lambda T: plots.plot_regions(
        T(np.arange(6.0).reshape(2, 3)), (0, 1, 0, 1), T(SQUARE[:, :2]), T(np.arange(5)), 0.1
    ),
    "plot_seeds": lambda T: plots.plot_seeds({"a": T(LINE), "b": [None, *T(FALLING)]}),
    "plot_spectra": lambda T: plots.plot_spectra({"a": T(FALLING), "b": list(T(FALLING))}),
    "plot_sphere_step": lambda T: plots.plot_sphere_step(T(SQUARE[:, :3]), T(LINE[:3]), T(FALLING[:3]), 1.2, 30, 20),
    "plot_symbol": lambda T: plots.plot_symbol(T(SQUARE), {"a": T(SQUARE[:3])}, levels={"b": T(np.array(0.3))}),
    "plot_table": lambda T: plots.plot_table([[T(np.array(30.0)), None], T(100 * LINE[:2])], list("ab"), list("cd")),
    "plot_two_spectra": lambda T: plots.plot_two_spectra(T(FALLING), T(FALLING + 0.1)),
    "plot_wave": lambda T: plots.plot_wave(T(LINE)),
}
DOWN, DRAW_4 = np.sort(SQUARE)[:, ::-1].copy(), DRAW.random((2, 3, 3, 2)) - 0.5


@pytest.mark.parametrize("chart", CHARTS)
def test_tensors_on_a_device_are_drawn_as_their_numbers(chart, device):
    def tensor(array):
        t = torch.from_numpy(np.asarray(array)).to(device)
        return t.requires_grad_() if t.is_floating_point() else t

    assert drawn(CHARTS[chart](tensor).figure) == drawn(CHARTS[chart](lambda array: array).figure)


def test_every_plot_is_drawn_from_tensors():
    records = {"plot_training"}  # takes records, which hold plain numbers
    assert set(CHARTS) | records == {name for name in plots.__all__ if name.startswith("plot_")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn_as_float32(dtype, device):
    t = torch.tensor([[0.1, 2.0, -3.0]], dtype=dtype, device=device)
    for found in (numbers(t), numbers([t[0]]), numbers((list(t[0]),))):
        assert found.dtype == np.float32
        assert np.array_equal(found, t.float().cpu().numpy())


def test_a_view_that_conjugates_or_negates_is_drawn_as_its_numbers(device):
    t = torch.tensor([1 + 2j, 3 - 1j], device=device)
    assert np.array_equal(numbers(t.conj()), [1 - 2j, 3 + 1j])
    assert np.array_equal(numbers(t.conj().imag), [-2, 1])


def test_what_is_no_tensor_stays_what_numpy_makes_of_it():
    array = np.arange(3)
    assert numbers(array) is array
    assert numbers([1, 2.5]).tolist() == [1, 2.5]
    assert numbers(range(3)).dtype == numbers([0, 1, 2]).dtype == np.asarray([0]).dtype
    assert numbers(["a", "b"]).tolist() == ["a", "b"]
    assert numbers(torch.arange(3), dtype=float).dtype == np.float64
