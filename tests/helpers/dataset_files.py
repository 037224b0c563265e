"""Small files in the layouts of the public data sets, official as far as the sums that go with them tell."""

import hashlib
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from convkit.data.catalog import MNIST, Source


def records(count: int, classes: int, label_bytes: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    table = random.integers(0, 256, (count, label_bytes + 3072), dtype=np.uint8)
    table[:, label_bytes - 1] = random.integers(0, classes, count)
    table[:, : label_bytes - 1] = 19  # the coarse label of CIFAR-100
    return table


def small(source: Source) -> tuple[Source, dict[str, bytes]]:
    """The source with 7 images a file and 5 in the test file, official as far as their sums tell, and its files."""
    tables = {name: records(7, 10, source.label_bytes, seed) for seed, name in enumerate(source.train)}
    tables |= {name: records(5, 10, source.label_bytes, 99) for name in source.test}
    files = {name: table.tobytes() for name, table in tables.items()}
    return with_sums(replace(source, records=(7, 5)), files), files


def with_sums(source: Source, files: dict[str, bytes]) -> Source:
    def sums(names):
        return {name: hashlib.sha256(files[name]).hexdigest() for name in names}

    return replace(source, train=sums(source.train), test=sums(source.test))


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def small_mnist() -> tuple[Source, dict[str, bytes]]:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (count, 4, 4), dtype=np.uint8) for count in (6, 3)]
    labels = [random.integers(0, 10, count, dtype=np.uint8) for count in (6, 3)]
    parts = (arrays[0], labels[0], arrays[1], labels[1])
    files = {name: idx(part) for name, part in zip([*MNIST.train, *MNIST.test], parts, strict=True)}
    return with_sums(MNIST, files), files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def packed(files: dict[str, bytes], folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
