"""A guard for derivatives that hold only once."""

from typing import Any

import torch
from torch import Tensor


def once(x: Tensor, words: str) -> Tensor:
    """Return x; whoever differentiates a gradient that reaches it gets a ``RuntimeError`` with these words.

    Without it, a gradient computed for fixed singular vectors would be taken for a constant, and a second derivative
    would be wrong without a word.
    """
    return _Once.apply(x, words)  # pyright: ignore[reportReturnType]


class _Once(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, words: str) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
        x, ctx.words = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (_Never.apply(grad, *ctx.saved_tensors, ctx.words) if torch.is_grad_enabled() else grad), None  # pyright: ignore

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent.view_as(tangent)


class _Never(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, x: Tensor, words: str) -> Tensor:
        return grad.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
        ctx.words = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        raise RuntimeError(ctx.words)
