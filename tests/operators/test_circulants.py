"""The two matrices of notebook 01, against SciPy, against loops and against the convolution that they are."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from convkit.operators.circulants import circulant, doubly_block_circulant
from convkit.operators.operator import ConvOperator
from tests.helpers import reference
from tests.helpers.geometries import normal


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_circulant_is_the_transpose_of_scipys_and_correlates_circularly(device, n):
    row = normal(n, device=device)
    assert_close(circulant(row).cpu(), torch.as_tensor(scipy.linalg.circulant(row.cpu().numpy()).T))
    assert_close(circulant(row), ConvOperator(row[None, None], n, padding=((0, n - 1),)).matrix())


@given(h=st.integers(1, 5), w=st.integers(1, 6))
def test_doubly_block_circulant_is_equation_1_and_correlates_circularly_on_images_flattened_row_by_row(device, h, w):
    image = normal(h, w, device=device)
    by_loops = reference.doubly_block_circulant(image.cpu().numpy())
    np.testing.assert_array_equal(doubly_block_circulant(image).cpu().numpy(), by_loops)
    A = ConvOperator(image[None, None], (h, w), padding=((0, h - 1), (0, w - 1)))
    assert_close(doubly_block_circulant(image), A.matrix())


def test_both_keep_dtype_device_and_gradient(device):
    row = normal(4, device=device, dtype=torch.float32)
    image = normal(2, 3, device=device, dtype=torch.float32)
    for matrix in (circulant(row), doubly_block_circulant(image)):
        assert matrix.dtype == torch.float32
        assert matrix.device == row.device
    assert gradcheck(circulant, normal(4, device=device).requires_grad_())
    assert gradcheck(doubly_block_circulant, normal(2, 3, device=device).requires_grad_())
