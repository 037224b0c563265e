"""The two matrices that the theory starts from, built entry by entry."""

import torch
from torch import Tensor


def circulant(row: Tensor) -> Tensor:
    """The circulant matrix with this first row, each next row shifted right by one: ``circ(row)`` of Sedghi et al.

    Shape ``(n,)`` to ``(n, n)``. Applying it correlates circularly with ``row``. ``scipy.linalg.circulant`` puts its
    argument in the first column and is the transpose.
    """
    if not isinstance(row, Tensor):
        raise TypeError(f"circulant needs a tensor, got {type(row).__name__}; use torch.as_tensor(row)")
    if row.ndim != 1 or len(row) == 0:
        raise ValueError(
            f"circulant needs a vector of at least one number, got shape {tuple(row.shape)}; use row.flatten(), or "
            "doubly_block_circulant for an image"
        )
    i = torch.arange(len(row), device=row.device)
    return row[(i[None, :] - i[:, None]) % len(row)]


def doubly_block_circulant(image: Tensor) -> Tensor:
    """The circulant matrix of circulant blocks ``circ(image[0]), circ(image[1]), ...`` (Sedghi et al. 2019, eq. 1).

    Shape ``(h, w)`` to ``(h * w, h * w)``: the circular correlation with a kernel that was padded to the image's size,
    acting on images flattened row by row.
    """
    if not isinstance(image, Tensor):
        raise TypeError(
            f"doubly_block_circulant needs a tensor, got {type(image).__name__}; use torch.as_tensor(image)"
        )
    if image.ndim != 2 or image.numel() == 0:
        raise ValueError(
            f"doubly_block_circulant needs a matrix of at least one number, got shape {tuple(image.shape)}; give it "
            "one channel, or use circulant for a vector"
        )
    h, w = image.shape
    blocks = torch.stack([circulant(row) for row in image])
    i = torch.arange(h, device=image.device)
    return blocks[(i[None, :] - i[:, None]) % h].movedim(1, 2).reshape(h * w, h * w)
