"""The normalized convolution of ConvNorm2d as one function of its inputs, with derivatives of every order."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from convkit.normalization import whole
from convkit.normalization.torus import SCALE, WEIGHT, Parts, TorusConvolution, X, Y, cached_tables, traced
from convkit.operators.dtypes import without_autocast

CHUNK = 2**20  # bytes of a symbol's part at a time: what a cache holds
FEW = 4  # frequencies at a time at least: each turn reads the whole kernel
CHANNELS = (1, 0, 1, 1)  # the axis of the channels in each factor


def filtered_convolution(geometry: TorusConvolution, x: Tensor, weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Return the outputs of the convolution, multiplied by ``scale`` at each frequency and output channel.

    Exact, with derivatives of every order. The transforms are products with small matrices: they take only the pixels
    of the image and give only the outputs that are wanted, and one complex block per frequency is cheaper than the taps
    it stands for.
    """
    derive: Any = _Multilinear.forward if traced() else _Multilinear.apply  # which no trace can hold
    return derive(geometry, groups, (Y,), x, weight, scale, None)[0]


class _Multilinear(torch.autograd.Function):
    """Partial derivatives of ``<y, outputs>``, a number that is linear in each of its factors x, weight, scale and y.

    The derivative by y is the outputs, and the derivative of a derivative is another one, with a gradient in the place
    of a factor. So one rule serves all orders, and each factor counts where it stands, whatever else it depends on.
    Autocast is off throughout: a backward pass may run under that of its caller.
    """

    @staticmethod
    def forward(
        geometry: TorusConvolution,
        groups: int,
        by: tuple[int, ...],
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        y: Any,
        *blocks: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the derivatives by these factors; ``blocks`` are the transform of x, where it is known.

        The outputs alone need no y, and come with the transform of x, which the other derivatives need again.
        """
        known = len(blocks) > 0
        with without_autocast(x):
            derive = whole.derivatives if geometry.whole else _derivatives
            derivatives, blocks = derive(geometry, groups, by, x, weight, scale, y, blocks)
        return *(derivatives[factor] for factor in by), *(() if known or by != (Y,) else blocks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the factors, and the transform of x where the outputs came with it."""
        ctx.geometry, ctx.groups, ctx.by, *given = inputs
        transform = output[len(ctx.by) :]
        ctx.mark_non_differentiable(*transform)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *transform)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Put each gradient in the place of the factor by which its output is the derivative, and derive again."""
        saved, sums = ctx.saved_tensors, {}  # read once: a checkpoint makes them anew each time, or refuses
        factors, blocks = saved[:4], saved[4:]
        derive: Any = _Multilinear.apply if torch.is_grad_enabled() else _Multilinear.forward
        for by, grad in zip(ctx.by, grads[: len(ctx.by)], strict=True):
            needed = tuple(i for i in range(4) if i != by and ctx.needs_input_grad[3 + i])
            if grad is not None and needed:
                placed = *factors[:by], grad, *factors[by + 1 :], *(() if by == X else blocks)
                derivatives = derive(ctx.geometry, ctx.groups, needed, *placed)
                for i, part in zip(needed, derivatives[: len(needed)], strict=True):
                    sums[i] = sums[i] + part if i in sums else part
        return None, None, None, *map(sums.get, range(4)), *[None] * (len(ctx.needs_input_grad) - 7)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], geometry: TorusConvolution, groups: int, by: Any, *given: Any) -> Any:
        """Join a mapped axis to the channels: so many times the groups."""

        def join(tensor: Tensor | None, where: int | None, axis: int) -> Tensor | None:
            if tensor is None:
                return None
            tensor = tensor[None].expand(info.batch_size, *tensor.shape) if where is None else tensor.movedim(where, 0)
            return tensor.movedim(0, axis).flatten(axis, axis + 1)

        inner = whole.CHANNELS if geometry.whole else 1  # the axis of the channels, or of the groups, in the blocks
        places = *CHANNELS, *[inner] * (len(given) - 4)
        factors = [join(*each) for each in zip(given, in_dims[3:], places, strict=True)]
        derivatives: Any = _Multilinear.apply(geometry, info.batch_size * groups, by, *factors)
        axes = *(CHANNELS[factor] for factor in by), *[inner] * (len(derivatives) - len(by))
        return tuple(t.unflatten(axis, (info.batch_size, -1)) for t, axis in zip(derivatives, axes, strict=True)), axes


# torch reads the signature at every call; made anew each time it costs a tenth of a small layer
_Multilinear.forward.__signature__ = inspect.signature(_Multilinear.forward)  # pyright: ignore[reportFunctionMemberAccess]


def _derivatives(
    geometry: TorusConvolution,
    groups: int,
    by: tuple[int, ...],
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    y: Any,
    blocks: Any,
) -> tuple[dict[int, Tensor], Parts]:
    """Return the derivatives and the transform of x, a few frequencies at a time so that symbols stay in the cache."""
    derivatives = {}
    times = _times(geometry, x.device, x.dtype)
    size = (scale * times).unflatten(1, (groups, 1, -1))
    if not blocks and by != (X,):
        blocks = geometry.to_frequencies(x, groups)
    grad: Any = None if by == (Y,) else geometry.from_outputs(y, groups)
    outputs: Any = _products(geometry, weight, blocks) if SCALE in by or Y in by else None
    if SCALE in by:
        derivatives[SCALE] = ((grad[0] * outputs[0]).sum(2) + (grad[1] * outputs[1]).sum(2)).flatten(1) * times
    if Y in by:
        derivatives[Y] = geometry.to_outputs(*(part.mul_(size) for part in outputs))
    if X in by or WEIGHT in by:
        grad = grad[0].mul_(size), grad[1].mul_(size)
    if X in by:
        derivatives[X] = geometry.from_frequencies(*_products(geometry, weight, grad, adjoint=True))
    if WEIGHT in by:
        derivatives[WEIGHT] = _weight_gradient(geometry, weight, grad, blocks)
    return derivatives, blocks


def _products(geometry: TorusConvolution, weight: Tensor, blocks: Parts, adjoint: bool = False) -> Parts:
    """Return ``blocks @ symbol^T`` at each frequency, or ``blocks @ conj(symbol)`` for the adjoint.

    Zero at the frequencies that another one stands for. A complex product takes three real ones:
    ``(a + ib)(c + id) = ac - bd + i ((a + b)(c + d) - ac - bd)``.
    """
    groups, batch = blocks[0].shape[1:3]
    shape = (len(blocks[0]), groups, batch, weight.shape[1] if adjoint else len(weight) // groups)
    out = weight.new_empty(shape), weight.new_empty(shape)
    cos, sin = geometry.phases(weight)
    sin = -sin if adjoint else sin
    tables, taps = (cos, sin, cos + sin), weight.flatten(2).permute(2, 0, 1).flatten(1).contiguous()
    for some in _chunks(geometry, weight):
        parts = ((table[some] @ taps).view(-1, len(weight) // groups, weight.shape[1]) for table in tables)
        c, d, both = parts if adjoint else (part.mT for part in parts)
        (a, b), (real, imaginary) = ((part[some].flatten(0, 1) for part in pair) for pair in (blocks, out))
        torch.bmm(a, c, out=real)
        torch.bmm(a + b, both, out=imaginary).sub_(real)
        product = torch.bmm(b, d)
        real.sub_(product)
        imaginary.sub_(product)
    for some in _mirrors(geometry):
        for part in out:
            part[some].zero_()
    return out


def _weight_gradient(geometry: TorusConvolution, weight: Tensor, grad: Parts, blocks: Parts) -> Tensor:
    """Return the adjoint of ``symbol`` on ``grad^T @ conj(blocks)``, by three real products, too."""
    cos, sin = geometry.phases(weight)
    tables, taps = (cos - sin, cos + sin, sin), weight.new_zeros(cos.shape[1], weight[..., 0, 0].numel())
    for some in _chunks(geometry, weight):
        (a, b), (c, d) = ((part[some].flatten(0, 1) for part in pair) for pair in (grad, blocks))
        for table, left, right in zip(tables, (a, b, a + b), (c, d, c - d), strict=True):
            taps.addmm_(table[some].T, torch.bmm(left.mT, right).view(-1, taps.shape[1]))
    return taps.T.reshape(weight.shape)


def _chunks(geometry: TorusConvolution, weight: Tensor) -> Iterator[slice]:
    """Yield the frequencies that no other one stands for, a few at a time."""
    n1, n2 = geometry.torus
    step = max(FEW, CHUNK // (weight.element_size() * weight[..., 0, 0].numel()))
    last = (geometry.half - 1) * n2  # of the first axis, its own opposite if n1 is even
    others = [(n2, last), (last, last + n2 // 2 + 1)] if n1 % 2 == 0 else [(n2, last + n2)]
    for begin, end in [(0, n2 // 2 + 1), *others]:
        for start in range(begin, end, step):
            yield slice(start, min(start + step, end))


def _mirrors(geometry: TorusConvolution) -> list[slice]:
    """Return the frequencies that another one stands for: on the first axis 0 or half, on the second beyond half."""
    (n1, n2), half = geometry.torus, geometry.half
    rows = {0, half - 1} if n1 % 2 == 0 else {0}
    return [slice(row * n2 + n2 // 2 + 1, (row + 1) * n2) for row in rows]


@cached_tables
def _times(geometry: TorusConvolution, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return how often each frequency counts, beside what the transform of the rows gives it: ``(frequencies, 1)``.

    2 where it also stands for -f, 0 where another one stands for it.
    """
    n2 = geometry.torus[1]
    times = torch.ones(geometry.half * n2, 1, device="cpu")
    for some in _mirrors(geometry):
        times[some] = 0
        times[some.stop - n2 + 1 : some.stop - n2 // 2] = 2
    return times.to(device, dtype)
