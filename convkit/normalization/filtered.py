"""A convolution and a filter of its channels, taken together on a torus, with derivatives of every order."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from convkit.normalization.torus import Planes, Windows, remembered

CHUNK = {False: 2**20, True: 2**28}  # bytes of a symbol's part at a time: what a cache holds; what a GPU can spare
FEW = 4  # frequencies at a time at least: each turn reads the whole kernel
X, WEIGHT, SCALE, Y = range(4)  # the factors of ``<y, outputs>``
CHANNELS = (1, 0, 1, 1, 1, 1)  # the axis of the channels in each factor, and of the groups in the blocks of x


def filtered_convolution(windows: Windows, x: Tensor, weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """The outputs of the convolution times ``scale`` at each frequency and output channel, with all derivatives.

    Exact. The transforms are products with small matrices: they take only the pixels of the image and give only the
    outputs that are wanted, and one complex block per frequency is cheaper than the taps it stands for.
    """
    return _Form.apply(windows, groups, (Y,), x, weight, scale, None, None, None)[0]  # pyright: ignore[reportIndexIssue, reportReturnType]


class _Form(torch.autograd.Function):
    """Partial derivatives of ``<y, outputs>``, a number that is linear in each of its factors x, weight, scale and y.

    The one by y is the outputs, and every derivative of one of them is another, with a gradient in the place of
    a factor. So one rule serves all orders, and each factor counts where it stands, whatever else it depends
    on. Autocast is off throughout: a backward pass may run under that of its caller.
    """

    @staticmethod
    def forward(
        windows: Windows,
        groups: int,
        by: tuple[int, ...],
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        y: Any,
        real: Any,
        imaginary: Any,
    ) -> tuple[Tensor, ...]:
        """The derivatives by these factors, a few frequencies at a time so that their symbols stay in the cache.

        The outputs alone need no y, and come with the blocks of x, which spare the other derivatives a transform.
        """
        found, made, blocks = {}, (), (real, imaginary)
        with torch.autocast(x.device.type, enabled=False):
            times = _times(windows, x.device, x.dtype)
            size = (scale * times).unflatten(1, (groups, 1, -1))
            if real is None and by != (X,):
                blocks = windows.to_blocks(x, groups)
                made = blocks if by == (Y,) else ()
            grad: Any = None if by == (Y,) else windows.from_outputs(y, groups)
            outputs: Any = _products(windows, weight, blocks) if SCALE in by or Y in by else None
            if SCALE in by:
                found[SCALE] = ((grad[0] * outputs[0]).sum(2) + (grad[1] * outputs[1]).sum(2)).flatten(1) * times
            if Y in by:
                found[Y] = windows.to_outputs(*(part.mul_(size) for part in outputs))
            if X in by or WEIGHT in by:
                grad = grad[0].mul_(size), grad[1].mul_(size)
            if X in by:
                found[X] = windows.from_blocks(*_products(windows, weight, grad, adjoint=True))
            if WEIGHT in by:
                found[WEIGHT] = _weight_gradient(windows, weight, grad, blocks)
        return *(found[factor] for factor in by), *made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.windows, ctx.groups, ctx.by, *given = inputs
        made = output[len(ctx.by) :]
        ctx.mark_non_differentiable(*made)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Each gradient takes the place of the factor by which its output is the derivative."""
        saved, sums = ctx.saved_tensors, {}  # read once: a checkpoint makes them anew each time, or refuses
        factors, blocks = saved[:4], saved[-2:]
        derive: Any = _Form.apply if torch.is_grad_enabled() else _Form.forward
        for by, grad in zip(ctx.by, grads[: len(ctx.by)], strict=True):
            needed = tuple(i for i in range(4) if i != by and ctx.needs_input_grad[3 + i])
            if grad is not None and needed:
                placed = *factors[:by], grad, *factors[by + 1 :], *((None, None) if by == X else blocks)
                found = derive(ctx.windows, ctx.groups, needed, *placed)
                for i, part in zip(needed, found[: len(needed)], strict=True):
                    sums[i] = sums[i] + part if i in sums else part
        return None, None, None, *map(sums.get, range(4)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], windows: Windows, groups: int, by: Any, *given: Any) -> Any:
        """A mapped axis joins the channels: so many times the groups."""

        def joined(tensor: Tensor | None, where: int | None, axis: int) -> Tensor | None:
            if tensor is None:
                return None
            tensor = tensor[None].expand(info.batch_size, *tensor.shape) if where is None else tensor.movedim(where, 0)
            return tensor.movedim(0, axis).flatten(axis, axis + 1)

        together = [joined(*each) for each in zip(given, in_dims[3:], CHANNELS, strict=True)]
        found: Any = _Form.apply(windows, info.batch_size * groups, by, *together)
        axes = (*(CHANNELS[factor] for factor in by), *CHANNELS[4:])[: len(found)]
        return tuple(t.unflatten(axis, (info.batch_size, -1)) for t, axis in zip(found, axes, strict=True)), axes


# torch reads the signature at every call; made anew each time it costs a tenth of a small layer
_Form.forward.__signature__ = inspect.signature(_Form.forward)  # pyright: ignore[reportFunctionMemberAccess]


def _products(windows: Windows, weight: Tensor, blocks: Planes, adjoint: bool = False) -> Planes:
    """``blocks @ symbol^T`` at each frequency; ``adjoint``: ``blocks @ conj(symbol)``. Zero where f stands for -f.

    A complex product takes three real ones: ``(a + ib)(c + id) = ac - bd + i ((a + b)(c + d) - ac - bd)``.
    """
    groups, batch = blocks[0].shape[1:3]
    shape = (len(blocks[0]), groups, batch, weight.shape[1] if adjoint else len(weight) // groups)
    out = weight.new_empty(shape), weight.new_empty(shape)
    cos, sin = windows.tables(weight)
    sin = -sin if adjoint else sin
    tables, taps = (cos, sin, cos + sin), weight.flatten(2).permute(2, 0, 1).flatten(1).contiguous()
    for some in _chunks(windows, weight):
        parts = ((table[some] @ taps).view(-1, len(weight) // groups, weight.shape[1]) for table in tables)
        c, d, both = parts if adjoint else (part.mT for part in parts)
        (a, b), (real, imaginary) = ((part[some].flatten(0, 1) for part in pair) for pair in (blocks, out))
        torch.bmm(a, c, out=real)
        torch.bmm(a + b, both, out=imaginary).sub_(real)
        product = torch.bmm(b, d)
        real.sub_(product)
        imaginary.sub_(product)
    for some in _mirrors(windows):
        for part in out:
            part[some].zero_()
    return out


def _weight_gradient(windows: Windows, weight: Tensor, grad: Planes, blocks: Planes) -> Tensor:
    """The adjoint of ``symbol`` on ``grad^T @ conj(blocks)``, by three real products, too."""
    cos, sin = windows.tables(weight)
    tables, taps = (cos - sin, cos + sin, sin), weight.new_zeros(cos.shape[1], weight[..., 0, 0].numel())
    for some in _chunks(windows, weight):
        (a, b), (c, d) = ((part[some].flatten(0, 1) for part in pair) for pair in (grad, blocks))
        for table, left, right in zip(tables, (a, b, a + b), (c, d, c - d), strict=True):
            taps.addmm_(table[some].T, torch.bmm(left.mT, right).view(-1, taps.shape[1]))
    return taps.T.reshape(weight.shape)


def _chunks(windows: Windows, weight: Tensor) -> Iterator[slice]:
    """The frequencies, but for those that another one stands for, a few at a time."""
    n1, n2 = windows.torus
    step = max(FEW, CHUNK[weight.is_cuda] // (weight.element_size() * weight[..., 0, 0].numel()))
    last = (windows.half - 1) * n2  # of the first axis, its own opposite if n1 is even
    whole = (
        [(0, n2 // 2 + 1), (n2, last), (last, last + n2 // 2 + 1)]
        if n1 % 2 == 0
        else [(0, n2 // 2 + 1), (n2, last + n2)]
    )
    for begin, end in whole:
        for start in range(begin, end, step):
            yield slice(start, min(start + step, end))


def _mirrors(windows: Windows) -> list[slice]:
    """The frequencies that another one stands for: on the first axis 0 or half, on the second beyond half."""
    (n1, n2), half = windows.torus, windows.half
    rows = {0, half - 1} if n1 % 2 == 0 else {0}
    return [slice(row * n2 + n2 // 2 + 1, (row + 1) * n2) for row in rows]


@remembered
def _times(windows: Windows, device: torch.device, dtype: torch.dtype) -> Tensor:
    """How often each frequency counts beside what the rows' transform gives it: 2 if it stands for -f, ``(f, 1)``."""
    n2 = windows.torus[1]
    with torch.inference_mode(False):
        times = torch.ones(windows.half * n2, 1)
        for some in _mirrors(windows):
            times[some] = 0
            times[some.stop - n2 + 1 : some.stop - n2 // 2] = 2
        return times.to(device, dtype)
