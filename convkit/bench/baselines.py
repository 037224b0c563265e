"""Baselines of the benchmark: published algorithms, reimplemented from their formulas."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.operators.operator import ConvOperator


def two_lines(kernel: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return all singular values by the two lines of NumPy of Sedghi et al. 2019; ``kernel`` is ``(k, k, c, d)``."""
    transforms = np.fft.fft2(kernel, size, axes=(0, 1))
    return np.linalg.svd(transforms, compute_uv=False)


def two_lines_clip(kernel: np.ndarray, size: tuple[int, ...], bound: float) -> np.ndarray:
    """Return the kernel after one clip and one crop, as in appendix A of Sedghi et al. 2019."""
    U, S, Vh = np.linalg.svd(np.fft.fft2(kernel, size, axes=(0, 1)), full_matrices=False)
    clipped = np.fft.ifft2((U * np.minimum(S, bound)[..., None, :]) @ Vh, axes=(0, 1)).real
    return clipped[: kernel.shape[0], : kernel.shape[1]]


def full_symbol(A: ConvOperator) -> Tensor:
    """Return all blocks by ``torch.fft.fft2``, in the kernel's precision, with both of each conjugate pair."""
    return torch.fft.fft2(A.kernel, A.input_shape).permute(2, 3, 0, 1)


def svdvals_of_full_symbol(A: ConvOperator) -> Tensor:
    """Return all singular values by torch: the usual port of the two lines."""
    return torch.linalg.svdvals(full_symbol(A))


def power_method(A: ConvOperator, steps: int) -> Tensor:
    """Return an estimate of the operator norm from below, by power iteration (Virmaux & Scaman 2018)."""
    pad, stride = A.kernel.shape[-1] // 2, A.stride
    rest = [(n - 1) % s for n, s in zip(A.input_shape, stride, strict=True)]
    x = torch.randn(1, *A.in_shape, dtype=A.kernel.dtype, generator=torch.Generator().manual_seed(0)).to(
        A.kernel.device
    )
    for _ in range(steps):
        y = F.conv2d(x / x.norm(), A.kernel, None, stride, pad)
        x = F.conv_transpose2d(y, A.kernel, None, stride, pad, rest)
    return F.conv2d(x / x.norm(), A.kernel, None, stride, pad).norm()


def autograd_power_method(A: ConvOperator, steps: int) -> Tensor:
    """Return an estimate of the operator norm from below as Virmaux & Scaman 2018 compute it, for any linear layer.

    A step of power iteration is the gradient of ``|A x|^2 / 2``, which autograd gives without an adjoint.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *A.in_shape, dtype=A.kernel.dtype, generator=generator).to(A.kernel.device)
    for _ in range(steps):
        x = (x / x.norm()).requires_grad_()
        (x,) = torch.autograd.grad(A(x).square().sum() / 2, x)
    return A(x / x.norm()).norm()


def gram_iteration(A: ConvOperator, steps: int) -> Tensor:
    """Return an upper bound of the operator norm by repeated squaring of all Gram blocks (Delattre et al. 2023)."""
    blocks = full_symbol(A)
    blocks = blocks if blocks.shape[-2] >= blocks.shape[-1] else blocks.mH
    log_scale = torch.zeros(blocks.shape[:2], dtype=A.kernel.dtype, device=A.kernel.device)
    for _ in range(steps):
        size = torch.linalg.matrix_norm(blocks)
        blocks = blocks / size[..., None, None]
        log_scale = 2 * (log_scale + size.log())
        blocks = blocks.mH @ blocks
    return ((torch.linalg.matrix_norm(blocks).log() + log_scale) / 2**steps).exp().amax()


def theorem_1(A: ConvOperator) -> tuple[Tensor, Tensor]:
    """Return the norms 1 and inf of a zero-padded Conv2d by the index sets of Theorem 1 of Liang & Huang 2021."""
    taps = A.kernel.abs()
    (s1, s2), (k1, k2) = A.stride, A.kernel.shape[2:]
    reach = [n + 2 * p[0] - k for n, p, k in zip(A.input_shape, A.pads, (k1, k2), strict=True)]
    columns = taps.sum(0)
    best = columns.new_zeros(())
    for a in range(k1):
        for b in range(k2):
            chosen = columns[:, a : min(k1, a + reach[0] + 1) : s1, b : min(k2, b + reach[1] + 1) : s2]
            best = torch.maximum(best, chosen.sum((1, 2)).amax())
    return best, taps.sum((1, 2, 3)).amax()


class PlainConvNorm(nn.Module):
    """ConvNorm as Liu et al. 2021 publish it, step by step: odd kernels, zero padding, v without a gradient.

    Each step transforms every filter and every feature map, crops, subsamples, and applies a depthwise convolution.
    """

    def __init__(self, c_in: int, c_out: int, k: int, stride: int = 1) -> None:
        super().__init__()
        self.k, self.stride = k, stride
        self.conv = nn.Conv2d(c_in, c_out, k, padding=k - 1, bias=False)
        self.affine = nn.Conv2d(c_out, c_out, k, padding=k // 2, groups=c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized convolution of ``x``, ``(batch, c_out, height, width)``."""
        z = self.conv(x)
        size = z.shape[2:]
        with torch.no_grad():
            v = torch.fft.rfft2(self.conv.weight, s=size).abs().square().sum(1).rsqrt()
        z = torch.fft.irfft2(torch.fft.rfft2(z) * v, s=size)
        crop = self.k - 1 - self.k // 2
        z = z[:, :, crop : size[0] - crop, crop : size[1] - crop]
        return self.affine(z[:, :, :: self.stride, :: self.stride])


class Residual(nn.Module):
    """The basic block of He et al. 2016."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride > 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, ``(batch, c_out, height, width)``."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet18(widths: tuple[int, ...] = (64, 128, 256, 512), classes: int = 1000) -> nn.Sequential:
    """Return the ResNet-18 of He et al. 2016 for ImageNet, with their first weights."""
    stem = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    blocks: list[nn.Module] = []
    c_in = widths[0]
    for number, c_out in enumerate(widths):
        blocks += [Residual(c_in, c_out, 1 if number == 0 else 2), Residual(c_out, c_out, 1)]
        c_in = c_out
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
