"""ConvOperator is the convolution that its definition and torch's layers compute, and its adjoint is the adjoint."""

import copy
import pickle
import warnings
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from convkit.operators.operator import ConvOperator
from tests.helpers import reference
from tests.helpers.geometries import EVERYTHING, Geometry, geometries, inputs, normal, outputs
from tests.helpers.refusals import refused

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
everything = pytest.mark.parametrize("geometry", EVERYTHING.values(), ids=EVERYTHING)


def written_out(A: ConvOperator) -> torch.Tensor:
    """The matrix of A by the definition."""
    pads = reference.same_pads(A.kernel.shape[2:], A.dilation) if A.padding == "same" else A.padding
    kernel = A.kernel.cpu().numpy()
    M = reference.dense_matrix(kernel, A.input_shape, A.stride, pads, A.dilation, A.groups, A.padding_mode)
    return torch.as_tensor(M.T if A.transposed else M, device=A.kernel.device)


# ---- the linear map ------------------------------------------------------------------------------------------------
class Convolved(TorchDispatchMode):
    """Note the dtype of each kernel that torch convolves with."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in func.name():
            self.dtypes = {*getattr(self, "dtypes", ()), args[1].dtype}
        return func(*args, **(kwargs or {}))


def test_the_matrix_of_a_float32_kernel_is_not_rounded_on_a_gpu(device):
    """By TF32, which torch takes for float32 convolutions there."""
    for channels in ((5, 3), (3, 5)):
        A = Geometry((*channels, 3, 3), (6, 4)).operator(device)
        A = replace(A, kernel=A.kernel.float())
        with Convolved() as seen:
            M = A.matrix()
        assert_close(M, written_out(A).float(), atol=0, rtol=0)
        assert seen.dtypes == {torch.float64 if A.kernel.is_cuda else torch.float32}


@given(geometry=geometries())
def test_matrix_apply_and_adjoint_are_those_of_the_definition(device, geometry):
    A = geometry.operator(device)
    M, x, y = written_out(A), inputs(A), outputs(A)
    assert_close(A.matrix(), M)
    assert_close(A(x), (x.flatten(1) @ M.T).reshape(-1, *A.out_shape))
    assert_close(A.adjoint(y), (y.flatten(1) @ M).reshape(-1, *A.in_shape))


@pytest.mark.slow
@everything
def test_apply_adjoint_and_matrix_are_differentiable(device, geometry):
    A = geometry.operator(device)
    kernel = A.kernel.requires_grad_()
    x, y = inputs(A, batch=2).requires_grad_(), outputs(A, batch=2).requires_grad_()
    noise = 1e-12 if device.type == "cuda" else 0.0  # index_add sums in no fixed order on the GPU
    assert gradcheck(lambda kernel, x: geometry.with_kernel(kernel)(x), (kernel, x), nondet_tol=noise)
    assert gradcheck(lambda kernel, y: geometry.with_kernel(kernel).adjoint(y), (kernel, y), nondet_tol=noise)
    assert gradcheck(lambda kernel: geometry.with_kernel(kernel).matrix(), (kernel,), nondet_tol=noise)


@everything
def test_float32_is_as_exact_as_its_rounding(device, geometry):
    A, B = geometry.operator(device, torch.float32), geometry.operator(device)
    x, y = inputs(A), outputs(A)
    assert A(x).dtype == A.adjoint(y).dtype == A.matrix().dtype == torch.float32
    # at most 50 products of size 10 are summed: 50 * 10 * eps = 6e-5 in the worst order
    assert_close(A(x).double(), B(inputs(B)), rtol=0, atol=6e-5)
    assert_close(A.adjoint(y).double(), B.adjoint(outputs(B)), rtol=0, atol=6e-5)


# ---- torch's layers ------------------------------------------------------------------------------------------------
@given(geometry=geometries())
def test_equals_torchs_layer_wherever_torch_has_the_geometry(device, geometry):
    assume(not geometry.transposed)
    A = geometry.operator(device)
    sides = A.pads
    in_words = geometry.padding == "valid" or (geometry.padding == "same" and set(A.stride) == {1})
    assume(in_words or all(before == after for before, after in sides))
    # torch goes round a circular image once at most, and mirrors it once
    most = {"circular": 0, "reflect": -1}.get(A.padding_mode, 99)
    assume(all(max(p) <= n + most for p, n in zip(sides, A.input_shape, strict=True)))
    padding = geometry.padding if in_words else tuple(before for before, _ in sides)
    place = (A.kernel.shape[2:], A.stride, padding, A.dilation, A.groups)
    layer = CONV[len(A.input_shape)](A.in_shape[0], A.out_shape[0], *place, bias=False, padding_mode=A.padding_mode)
    layer.weight = nn.Parameter(A.kernel)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")  # a copy, not an error
        expected = layer(inputs(A))
    assert_close(A(inputs(A)), expected)
    layer.bias = nn.Parameter(normal(len(A.kernel), device=device))  # which an operator has not
    B = ConvOperator.from_layer(layer, A.input_shape)
    assert B.kernel is layer.weight
    assert_close(B(inputs(A)), expected)


TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@given(geometry=geometries(padding_modes=("zeros",)), data=st.data())
def test_equals_torchs_transposed_layer(device, geometry, data):
    A = replace(geometry, padding="same", transposed=True).operator(device)
    numbers = list(zip(A.kernel.shape[2:], A.stride, A.dilation, strict=True))
    padding = tuple(data.draw(st.integers(0, d * (k - 1) // 2)) for k, _, d in numbers)
    # torch takes more pixels at the end than stride or dilation; ours have to belong to some window
    more = tuple(
        data.draw(st.integers(0, min(max(s, d), p + s) - 1)) for p, (_, s, d) in zip(padding, numbers, strict=True)
    )
    kind = TRANSPOSED[len(A.stride)]
    channels = A.in_shape[0], A.out_shape[0], A.kernel.shape[2:]
    layer = kind(*channels, A.stride, padding, more, A.groups, dilation=A.dilation).to(device, torch.float64)
    x = inputs(A)
    expected = layer(x) - layer.bias.view(-1, *[1] * len(A.stride))
    B = ConvOperator.from_layer(layer, A.in_shape[1:])
    assert B.kernel is layer.weight
    assert B.in_shape == A.in_shape
    assert_close(B(x), expected)


@everything
def test_the_transpose_is_the_adjoint_of_the_same_kernel(device, geometry):
    A = geometry.operator(device)
    assert A.T.kernel is A.kernel
    assert (A.T.in_shape, A.T.out_shape, A.T.T.in_shape) == (A.out_shape, A.in_shape, A.in_shape)
    assert_close(A.T.matrix(), A.matrix().T)
    assert_close(A.T(outputs(A)), A.adjoint(outputs(A)))
    assert_close(A.T.adjoint(inputs(A)), A(inputs(A)))


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_every_way_to_write_a_padding(device):
    kernel = normal(1, 1, 3, 2, device=device)
    same = [(1, (1, 1)), ((2, 1), ((2, 2), (1, 1))), ("valid", 0), ([[0, 1], [2, 0]], ((0, 1), (2, 0)))]
    for one, other in same:
        assert ConvOperator(kernel, (5, 6), padding=one).pads == ConvOperator(kernel, (5, 6), padding=other).pads
    assert ConvOperator(kernel, (5, 6), padding=((0, 1), (2, 0))).pads == ((0, 1), (2, 0))
    assert ConvOperator(kernel, (5, 6)).pads == ((1, 1), (0, 1))


def test_sizes_may_be_anything_that_is_an_integer(device):
    kernel = normal(1, 1, 3, 2, device=device)
    A = ConvOperator(kernel, torch.Size((5, 6)), np.int64(2), padding=(np.int64(1), 1), groups=np.int64(1))
    assert (A.input_shape, A.stride, A.pads, A.groups) == ((5, 6), (2, 2), ((1, 1), (1, 1)), 1)
    assert all(type(number) is int for number in (*A.input_shape, *A.stride, A.groups))
    B = ConvOperator(kernel, np.array([5, 6]), torch.tensor(2), torch.tensor([[1, 1], [1, 1]]), np.uint8(1))
    C = ConvOperator(
        kernel, torch.tensor([5, 6]), [torch.tensor(2), np.int8(2)], np.array([1, 1]), torch.tensor([1, 1])
    )
    for other in (B, C):
        assert repr(other) == repr(A)
        numbers = (*other.input_shape, *other.stride, *other.dilation, *sum(other.pads, ()))
        assert {type(number) for number in numbers} == {int}


def test_an_operator_is_immutable_and_holds_the_live_kernel(device):
    kernel = normal(2, 1, 3, device=device).requires_grad_()
    A = ConvOperator(kernel, 5)
    assert A.kernel is kernel
    with pytest.raises(FrozenInstanceError):
        A.stride = (2,)
    before = A.matrix().detach().clone()
    with torch.no_grad():
        kernel.mul_(2)
    assert_close(A.matrix(), 2 * before)
    A(inputs(A)).sum().backward()
    assert kernel.grad is not None


def test_an_operator_is_a_dataclass_that_can_be_replaced_copied_and_pickled(device):
    A = Geometry((4, 1, 2, 3), (6, 9), (2, 3), ((0, 1), (2, 3)), (3, 1), 2, "zeros").operator(device)
    names = ["kernel", "input_shape", "stride", "padding", "dilation", "groups", "padding_mode", "transposed"]
    assert [field.name for field in fields(A)] == names
    B = replace(A, kernel=-A.kernel, stride=1)
    assert (B.stride, B.padding, B.dilation, B.groups, B.padding_mode) == ((1, 1), A.padding, (3, 1), 2, "zeros")
    assert_close(replace(B, kernel=A.kernel, stride=A.stride).matrix(), A.matrix())
    refused("stride must be a whole number of at least 1, got 0", replace, A, stride=0)
    for other in (copy.copy(A), copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert repr(other) == repr(A)
        assert_close(other.matrix(), A.matrix())
        assert other != A  # it is compared by what it is, not by its numbers
        assert len({A, other}) == 2
    with pytest.raises(FrozenInstanceError):
        del A.kernel


def test_repr_names_the_geometry_and_not_the_numbers(device):
    A = Geometry((4, 1, 2, 3), (6, 9), (2, 3), ((0, 1), (2, 3)), (3, 1), 2, "zeros").operator(device, torch.float32)
    assert repr(A) == (
        "ConvOperator(kernel (4, 1, 2, 3) float32, input_shape=(6, 9), stride=(2, 3), padding=((0, 1), (2, 3)), "
        "dilation=(3, 1), groups=2, padding_mode='zeros')"
    )
    assert repr(A.T).endswith("padding_mode='zeros', transposed=True)")


@everything
def test_shapes_are_those_that_are_stated_and_nothing_given_is_changed(device, geometry):
    A = geometry.operator(device)
    x, y = inputs(A), outputs(A)
    copies = A.kernel.clone(), x.clone(), y.clone()
    assert A(x).shape == (3, *A.out_shape)
    assert A.adjoint(y).shape == (3, *A.in_shape)
    assert A.matrix().shape == (np.prod(A.out_shape), np.prod(A.in_shape))
    A.kernel_on_image()
    for tensor, before in zip((A.kernel, x, y), copies, strict=True):
        assert torch.equal(tensor, before)


def test_results_share_no_memory_with_the_kernel_or_the_input(device):
    A = Geometry((1, 1, 1), (1,), padding_mode="zeros").operator(device)  # nothing to pad, one tap, one pixel
    x = inputs(A)
    for result in (A(x), A.adjoint(x), A.matrix()):
        result.zero_()
    assert (A.kernel != 0).all()
    assert (x != 0).all()


# ---- wrapping and relatives ----------------------------------------------------------------------------------------


@given(geometry=geometries(padding_modes=("circular",), groups=1))
def test_kernel_on_image_is_what_output_0_reads(device, geometry):
    A = geometry.operator(device)
    A = replace(A, transposed=False)  # the kernel is that of the convolution
    rows = A.matrix().reshape(*A.out_shape, *A.in_shape)
    assert_close(A.kernel_on_image(), rows[(slice(None), *[0] * len(A.input_shape))])


@everything
def test_circular_is_the_circular_same_relative_on_the_same_size(device, geometry):
    A = geometry.operator(device)
    B = A.circular()
    assert B.kernel is A.kernel
    assert (B.padding, B.padding_mode, B.transposed) == ("same", "circular", A.transposed)
    assert (B.input_shape, B.stride, B.dilation, B.groups) == (A.input_shape, A.stride, A.dilation, A.groups)
    assert_close(B.matrix(), written_out(B))
