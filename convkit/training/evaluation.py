"""The accuracy of a network on test images, and the recalibration of BatchNorm."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, batch_size: int = 500, top: int = 1) -> float:
    """Return the fraction of the test images that ``model`` classifies correctly, in evaluation mode.

    The network is not changed. Images are converted to the dtype of its weights.

    Args:
        model: The network.
        data: The data set.
        batch_size: Number of images per pass; it bounds the memory.
        top: An image counts as correct if its class is among the ``top`` largest logits; 5 for the usual top-5
            accuracy of ImageNet.

    Raises ``ValueError`` for a batch size below 1, a ``top`` that is not from 1 to the number of classes, and a network
    on another device than the data.
    """
    _check_device(model, data)
    top = whole("top", top, 1, data.classes)
    right = torch.zeros((), dtype=torch.long, device=data.device)
    for logits, y in _logits(model, data, whole("batch_size", batch_size, 1)):
        best = logits.argmax(1, keepdim=True) if top == 1 else logits.topk(top, 1).indices
        right += (best == y[:, None]).sum()
    return int(right) / len(data.test_labels)  # a GPU is waited for once


@torch.no_grad()
def mean_class_accuracy(model: nn.Module, data: Data, batch_size: int = 500) -> float:
    """Return the mean over the classes of the fraction of their test images that ``model`` classifies correctly.

    For classes of different sizes, such as those of ModelNet40, papers give it beside ``evaluate``, the fraction of all
    images. Classes without a test image do not count. The network is not changed.

    Args:
        model: The network.
        data: The data set.
        batch_size: Number of images per pass; it bounds the memory.

    Raises ``ValueError`` for a batch size below 1 and a network on another device than the data.

    >>> x, y = torch.tensor([[[0.1]], [[0.2]], [[0.3]], [[0.9]]])[:, None], torch.tensor([0, 0, 0, 1])
    >>> always_0 = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> _ = always_0[1].load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.tensor([1.0, 0.0])})
    >>> mean_class_accuracy(always_0, Data("four", x, y, x, y, ("a", "b")))
    0.5
    """
    _check_device(model, data)
    right = torch.zeros(data.classes, dtype=torch.long, device=data.device)
    for logits, y in _logits(model, data, whole("batch_size", batch_size, 1)):
        right.index_add_(0, y, (logits.argmax(1) == y).long())
    count = torch.zeros_like(right).index_add_(0, data.test_labels, torch.ones_like(data.test_labels))
    hits, of = torch.stack([right, count]).tolist()  # a GPU is waited for once
    shares = [hit / many for hit, many in zip(hits, of, strict=True) if many]
    return sum(shares) / len(shares)


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every BatchNorm to their means over ``batches``.

    Needed after the weights have jumped: the old statistics belong to the old weights. The network must be in training
    mode, since BatchNorm ignores batches in evaluation mode. Without BatchNorm, nothing is computed.

    Args:
        model: The network, in training mode.
        batches: Batches of images ``(batch, channels, height, width)``.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    if norms:
        for number, x in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number  # the mean over the batches, as None is, which reads the number from a GPU
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


# ---- private ---------------------------------------------------------------------------------------------------------
def _check_device(model: nn.Module, data: Data) -> None:
    where = next((p.device for p in model.parameters()), data.device)
    if where.type != data.device.type:
        raise ValueError(
            f"the network and the data must be on one device, got {where} and {data.device}; use data.to(device)"
        )


def _logits(model: nn.Module, data: Data, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits of the test images in evaluation mode, batch by batch, and the labels."""
    with evaluation_copy(model, None, apart, compiled=True) as copy:
        for some in torch.arange(len(data.test_labels), device=data.device).split(batch_size):
            x, y = data.test_batch(some)
            yield copy(as_input(model, x)), y
