"""The two dense matrices that the theory starts from: circulant, and doubly block circulant."""

import torch
from torch import Tensor


def circulant(row: Tensor) -> Tensor:
    """Return the circulant matrix with this first row, where each next row is shifted right by one.

    From shape ``(n,)`` to ``(n, n)``, exact. It is ``circ(row)`` of Sedghi et al. 2019; multiplying by it correlates
    circularly with ``row``. ``scipy.linalg.circulant`` takes the first column instead and returns the transpose.
    Raises ``TypeError`` for what is no tensor and ``ValueError`` for what is no vector.

    >>> circulant(torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 2., 3.],
            [3., 1., 2.],
            [2., 3., 1.]])
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
    """Return the circulant matrix of the circulant blocks ``circ(image[0]), circ(image[1]), ...``.

    From shape ``(h, w)`` to ``(h * w, h * w)``, exact (Sedghi et al. 2019, eq. 1). It is the circular correlation with
    a kernel padded to the image's size, for images flattened row by row. Raises ``TypeError`` for what is no tensor and
    ``ValueError`` for what is no matrix.

    >>> doubly_block_circulant(torch.tensor([[1, 2], [3, 4]]))
    tensor([[1, 2, 3, 4],
            [2, 1, 4, 3],
            [3, 4, 1, 2],
            [4, 3, 2, 1]])
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
