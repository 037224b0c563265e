"""An optimizer hook that keeps the rows of kernels on the sphere of centered vectors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from convkit.checks import positive
from convkit.constraints.handle import Handle
from convkit.engine.rows import constrained_rows

WITHOUT = "; take the hook off to do without"


def centered_sphere(
    optimizer: Optimizer,
    kernels: Mapping[str, Tensor] | Iterable[Tensor],
    radius: float = 2**0.5,
    center: bool = True,
    scale: bool = True,
) -> "Sphere":
    """Keep the rows of kernels at mean 0 and norm ``radius``, at once and after every step of the optimizer.

    ``kernels`` are parameters ``(c_out, c_in, ...)`` of the optimizer, best with names for errors and states. A row
    holds all weights of one output channel. Means and norms are exact to 1e-6 in float32. ``center=False`` leaves the
    means alone and ``scale=False`` the norms. Rows that are on the set already are not changed by a bit at the start.
    Returns a handle whose ``radius`` may be changed between steps.

    This is Algorithm 1 of Ikami et al. With P the projection that subtracts the mean, a row w on the set equals P w, so
    that after a step of SGD ``P (w - lr g) = w - lr P g``: their step with the centered gradient, and both scale it
    back. Applied to the weights, it works with every optimizer, momentum, weight decay and initialization. Weight
    decay d without momentum gives ``P (w - lr (g + d w)) = (1 - lr d) (w - lr / (1 - lr d) P g)``: after scaling, a
    step of another length.

    Raises ``ValueError`` with the kernel's name, before any kernel is changed: for parameters that the optimizer does
    not step, rows of one entry (to center), rows of norm 0 (to scale), and after a step that left such rows or
    numbers that are not finite.

    >>> layer = nn.Linear(3, 1, bias=False)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0]]))
    >>> handle = centered_sphere(optimizer, {"weight": layer.weight})
    >>> layer.weight.detach().round(decimals=3)
    tensor([[-1.,  0.,  1.]])
    """
    if not (center or scale):
        raise ValueError("centered_sphere needs center or scale, got neither; without both there is no constraint")
    named: Any = kernels if isinstance(kernels, Mapping) else {f"kernels[{i}]": k for i, k in enumerate(kernels)}
    weights: dict[str, Tensor] = dict(named)
    if not weights:
        raise ValueError("centered_sphere needs at least one kernel, got none; pass {name: layer.weight, ...}")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor) or weight.ndim < 2 or weight.numel() == 0:
            got = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"centered_sphere needs kernels (c_out, c_in, ...), got {got} for {name!r}; leave it out")
        if weight.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"centered_sphere needs float32 or float64, got {weight.dtype} for {name!r}; keep the weights in "
                "float32 and use torch.autocast"
            )
        if center and weight.shape[1:].numel() == 1:
            raise ValueError(
                f"centered_sphere needs rows of at least 2 entries to center, got {name!r} of shape "
                f"{tuple(weight.shape)}; leave this layer out, or use center=False"
            )
    return Sphere(optimizer, weights, radius, center, scale)


class Sphere(Handle):
    """The handle of ``centered_sphere``; ``radius`` may be changed between steps."""

    kind, live = "centered_sphere", ("radius",)

    def __init__(
        self, optimizer: Optimizer, weights: dict[str, Tensor], radius: float, center: bool, scale: bool
    ) -> None:
        self.radius = positive(f"{self.kind}'s radius", radius, WITHOUT)
        self._weights, self._center, self._scale = weights, center, scale
        self._alike: dict[Any, list[str]] = {}  # kernels of one fan-in make one matrix: few operations for many layers
        for name, weight in weights.items():
            self._alike.setdefault((weight.shape[1:].numel(), weight.dtype, weight.device), []).append(name)
        with torch.no_grad():
            new = self._projected(keep=True)
            super().__init__(optimizer, weights, weights)
            self._write(new)

    def _apply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._write(self._projected())

    def _write(self, new: dict[str, Tensor]) -> None:
        weights = [self._weights[name] for name in new]
        torch._foreach_copy_(weights, list(new.values()))  # pyright: ignore[reportPrivateImportUsage]

    def _projected(self, keep: bool = False) -> dict[str, Tensor]:
        """Return the projected weights; with ``keep``, rows that are on the set to rounding stay as they are."""
        positive(f"{self.kind}'s radius", self.radius, WITHOUT)
        new, fine = {}, []
        for names in self._alike.values():
            rows = torch.cat([self._weights[name].flatten(1) for name in names])
            result, good = constrained_rows(rows, self.radius if self._scale else None, self._center)
            fine.append(good.to(rows.device if not fine else fine[0].device))
            if keep:
                lengths = rows.double().norm(dim=1, keepdim=True)
                off = rows.double().mean(1, keepdim=True).abs() * self._center
                off = off.maximum((lengths - self.radius).abs() * self._scale)
                result = torch.where(off <= 8 * torch.finfo(rows.dtype).eps * lengths, rows, result)
            pieces = result.split([len(self._weights[name]) for name in names])
            new |= {name: piece.view(self._weights[name].shape) for name, piece in zip(names, pieces, strict=True)}
        if not torch.cat(fine).all():  # a GPU is waited for once
            self._complain()
        return new

    def _complain(self) -> None:
        for name, weight in self._weights.items():
            _, good = constrained_rows(weight.flatten(1), self.radius if self._scale else None, self._center)
            if not good.all():
                row = int((~good).nonzero()[0, 0])
                low, high = float(weight[row].min()), float(weight[row].max())
                what = "and" if not self._center else "and, once centered,"
                raise ValueError(
                    f"centered_sphere needs rows that are finite {what} not 0, got row {row} of {name!r} with entries "
                    f"from {low:.3g} to {high:.3g}, and changed no kernel; draw its weights anew, or lower the "
                    "learning rate"
                )
