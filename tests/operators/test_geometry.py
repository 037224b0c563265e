"""Which pixels the outputs of a convolution read, axis by axis."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from convkit.operators.geometry import axes_of, sum_by_place
from convkit.operators.operator import ConvOperator
from tests.helpers.geometries import exact_geometries, geometries, normal, patch_geometries


@given(geometry=st.one_of(geometries(), exact_geometries(), patch_geometries()))
def test_an_axis_says_which_pixel_each_tap_of_each_output_reads(device, geometry):
    A = geometry.operator(device)
    for number, axis in enumerate(axes_of(A)):
        kernel = normal(1, 1, axis.taps, device=device)
        line = ConvOperator(
            kernel, axis.size, axis.stride, [A.pads[number]], axis.dilation, padding_mode=axis.padding_mode
        )
        pixels, inside = axis.reads()
        matrix = torch.zeros(axis.outputs, axis.size, dtype=torch.float64)
        for output in range(axis.outputs):
            for tap in range(axis.taps):
                if inside[output, tap]:
                    matrix[output, pixels[output, tap]] += kernel[0, 0, tap].cpu()
        assert_close(line.matrix().cpu(), matrix)


def test_entries_of_one_place_are_summed(device):
    x = normal(2, 5, 3, device=device)
    summed = sum_by_place(x, 1, torch.tensor([3, 0, 3, 1, 0]), 4)
    assert_close(summed, torch.stack([x[:, 1] + x[:, 4], x[:, 3], 0 * x[:, 0], x[:, 0] + x[:, 2]], dim=1))
