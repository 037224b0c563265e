"""The accuracy of a network on test images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from convkit.checks import whole
from convkit.data.dataset import Data
from convkit.operators.dtypes import as_input
from convkit.operators.evaluation import apart, evaluation_copy


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, batch_size: int = 500) -> float:
    """The part of the test images that ``model`` gets right, in evaluation mode; the network stays as it is.

    The images, float32 in the data, are given to the network in the dtype of its weights.
    """
    right = 0
    with evaluation_copy(model, None, apart, compiled=True) as copy:
        for some in torch.arange(len(data.test_labels)).split(whole("batch_size", batch_size, 1)):
            x, y = data.test_batch(some)
            right += int((copy(as_input(model, x)).argmax(1) == y).sum())
    return right / len(data.test_labels)


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of BatchNorm to their means over ``batches``, where the old ones do not fit.

    A network without BatchNorm is asked nothing. Its modes stay as they are; in training mode each batch counts.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over the batches
    if norms:
        for x in batches:
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
