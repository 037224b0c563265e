"""`Ranks`: one training run on several processes, each of which takes its part of every batch."""

import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convkit.checks import described
from convkit.data.dataset import Data

PACKAGE = Path(__file__).parents[1]
_WRAPPER = inspect.signature(DistributedDataParallel).parameters


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of one training run; alone by default.

    Args:
        rank: Its number, from 0. The process 0 writes checkpoints.
        count: The number of processes, all in torch's default process group.
    """

    rank: int = 0
    count: int = 1

    def part(self, batch: Tensor) -> Tensor:
        """Return the part of this process: the batch of a step is cut into equal parts in the order of the ranks."""
        return batch.chunk(self.count)[self.rank] if self.count > 1 else batch

    def mean(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the means of scalars over all processes, the same bits for each of them."""
        if self.count == 1:
            return values
        joint = torch.stack([value.double() for value in values])
        dist.all_reduce(joint)
        return tuple(mean.to(value) for mean, value in zip((joint / self.count).unbind(), values, strict=True))

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the network as several processes train it: gradients are means over all images of a step.

        BatchNorm is replaced, in ``model``, by torch's ``SyncBatchNorm``, whose statistics are those of all processes.
        Raises ``ValueError`` for BatchNorm on a CPU, where torch has no such layer.
        """
        if self.count == 1:
            return model
        norms = [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if norms and device.type == "cpu":
            raise ValueError(
                f"BatchNorm on {self.count} processes needs GPUs, for torch's SyncBatchNorm, got {norms[0]} on a CPU; "
                "take one process, or a method without BatchNorm"
            )
        if norms:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        buffers = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in _WRAPPER)  # by torch
        wrapper: Any = DistributedDataParallel
        return wrapper(model, **{buffers: False})  # they are the same in every process without

    def check(self, batch_size: int) -> None:
        """Raise ``ValueError`` for a batch that cannot be cut into equal parts."""
        if batch_size % self.count:
            raise ValueError(
                f"batch_size must be a multiple of the {self.count} processes, got {batch_size}: each takes an equal "
                "part of the batch"
            )

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise ``ValueError``, in every process, unless all of them have the same facts, each with a name."""
        if self.count == 1:
            return
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, {name: repr(fact) for name, fact in facts.items()})
        for rank, found in enumerate(gathered):
            for name, first in gathered[0].items():
                if found.get(name) != first:
                    raise ValueError(
                        f"the processes of a run must agree: {name} is {_short(first)} for process 0 and "
                        f"{_short(found.get(name, 'missing'))} for process {rank}; start all of them alike, from one "
                        "copy of the code, the data and the checkpoint"
                    )


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Context manager that joins the process group of ``torchrun`` and yields the ranks; alone without ``torchrun``.

    A group that this process is in already is used and left as it is.

    Args:
        device: Where the run trains: GPUs talk by NCCL, CPUs by Gloo.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this process on its machine, by its number that ``torchrun`` gives; the CPU as it is."""
    if device.type == "cpu" or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def content(data: Data) -> str:
    """Return the start of the SHA-256 sum of all images and labels."""
    digest = hashlib.sha256()
    for tensor in (data.images, data.labels, data.test_images, data.test_labels):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def code_version() -> str:
    """Return the version of torch and the start of the SHA-256 sum of the files of this package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return f"torch {torch.__version__}, convkit {digest.hexdigest()[:12]}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else described(text[:57] + "...")
