"""Reading the public data sets from their official files, and downloading them."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from convkit.data.catalog import Source
from convkit.data.dataset import Data
from convkit.loading import needs

Part = tuple[Tensor, Tensor]  # images and labels
IDX_BYTES = 8  # the third byte of an IDX file, when it holds unsigned bytes


def load_source(source: Source, folder: str | Path | None, name: str | None) -> Data:
    """Return a public data set, read from the files in ``folder``; ``None`` downloads them.

    Without a ``name``, the data set is called ``source.name`` if all files are the official ones (by SHA-256), and
    ``source.name + "-unofficial"`` if none is.

    Raises ``ValueError`` for damaged files, for official and other files together, and for the official name on other
    files; ``FileNotFoundError`` for missing files; ``ConnectionError`` if the download fails; and
    ``ModuleNotFoundError`` if it needs pooch.
    """
    where = download(source) if folder is None else Path(folder)
    files = read_files(source, where)
    name = _checked_name(source, files, name)
    read = _read_records if source.records else _read_idx_pair
    training, test = read(source, files, 0), read(source, files, 1)
    return Data(name, *training, *test, source.class_names)


# ---- finding -------------------------------------------------------------------------------------------------------
def read_files(source: Source, folder: Path) -> dict[str, bytes]:
    """Return the uncompressed bytes of every file of the source, by name.

    The files may lie in ``folder`` or in one of ``source.folders`` inside of it, plain, as .gz, or in the official
    archive. Raises ``FileNotFoundError`` for a missing file and ``ValueError`` for one that cannot be unpacked.
    """
    names = [*source.train, *source.test]
    places = [folder, *(folder / inside for inside in source.folders)]
    found: list[dict[str, Path]] = []
    for place in places:
        candidates = {name: [path for path in (place / name, place / f"{name}.gz") if path.is_file()] for name in names}
        found.append({name: paths[0] for name, paths in candidates.items() if paths})
    best = max(found, key=len)
    if len(best) == len(names):
        return {name: _read(path) for name, path in best.items()}
    for archive in (folder / name for name in source.downloads if name.endswith(".tar.gz")):
        if archive.is_file():
            return _read_archive(archive, names)
    missing = ", ".join(name for name in names if name not in best)
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"{source.name} needs {missing}, which is not in {looked}; name the folder that holds the files"
    )


def _read(path: Path) -> bytes:
    """Return the bytes of a file, uncompressed."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): it is truncated or damaged; fetch it again") from error


def _read_archive(path: Path, names: list[str]) -> dict[str, bytes]:
    """Return the bytes of the named files of a tar archive."""
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name in names and (file := archive.extractfile(member)):
                    files[name] = file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): it is truncated or damaged; fetch it again") from error
    if missing := [name for name in names if name not in files]:
        raise FileNotFoundError(f"{path} does not hold {', '.join(missing)}; fetch the official archive")
    return files


def _checked_name(source: Source, files: Mapping[str, bytes], name: str | None) -> str:
    """Return the name of the data set, after comparing the files with the official sums."""
    sums = {**source.train, **source.test}
    foreign = [file for file in sums if hashlib.sha256(files[file]).hexdigest() != sums[file]]
    if name == source.name and foreign:
        raise ValueError(
            f"{', '.join(foreign)} is not the official file of {source.name} (its SHA-256 sum differs); "
            f"give results from it another name, as in name='{source.name}-jpeg'"
        )
    if name is not None or not foreign:
        return name or source.name
    if len(foreign) < len(sums):
        raise ValueError(
            f"{', '.join(foreign)} is not the official file of {source.name} and the others are: it is damaged or "
            f"tampered with; fetch it again, or give name= if that is meant"
        )
    return f"{source.name}-unofficial"


# ---- layouts -------------------------------------------------------------------------------------------------------
def _read_records(source: Source, files: Mapping[str, bytes], part: int) -> Part:
    """Read CIFAR's binary layout: per record, label bytes and 3 × 32 × 32 pixel bytes."""
    size, records = source.label_bytes + 3 * 32 * 32, source.records[part]
    images, labels = [], []
    for name in (source.train, source.test)[part]:
        came = len(files[name])
        if came != records * size:
            raise ValueError(
                f"{name} needs {records:,} records of {size} bytes, got {came:,} bytes ({came // size:,} records and "
                f"{came % size} bytes): it is truncated or of another layout; fetch it again"
            )
        table = np.frombuffer(files[name], np.uint8).reshape(records, size)
        images.append(table[:, source.label_bytes :].reshape(records, 3, 32, 32))
        labels.append(_checked_labels(name, table[:, source.label_bytes - 1], len(source.class_names)))
    return torch.from_numpy(np.concatenate(images)), torch.cat(labels)


def _read_idx_pair(source: Source, files: Mapping[str, bytes], part: int) -> Part:
    """Read an IDX file of images and one of labels."""
    image_file, label_file = (source.train, source.test)[part]
    images, labels = _read_idx(image_file, files[image_file], 3), _read_idx(label_file, files[label_file], 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{image_file} has {len(images)} images and {label_file} has {len(labels)} labels; fetch both again"
        )
    return torch.from_numpy(images[:, None].copy()), _checked_labels(label_file, labels, len(source.class_names))


def _read_idx(name: str, content: bytes, axes: int) -> np.ndarray:
    """Read an IDX file of bytes.

    Its layout: two zero bytes, the type, the number of axes, their lengths as big-endian 32-bit numbers, the entries.
    """
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, IDX_BYTES, axes)):
        raise ValueError(
            f"{name} needs the header of an IDX file of bytes, axes: {axes}, got {content[:4].hex(' ') or 'nothing'}; "
            "it is truncated or of another layout; fetch it again"
        )
    shape = [int(length) for length in np.frombuffer(content, ">u4", axes, offset=4)]
    if len(content) - header != np.prod(shape):
        raise ValueError(
            f"{name} announces {' × '.join(map(str, shape))} bytes, got {len(content) - header:,}: it is truncated or "
            "damaged; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _checked_labels(name: str, labels: np.ndarray, classes: int) -> Tensor:
    """Return the labels as int64; raise ``ValueError`` for one that is not a class."""
    if (wrong := np.flatnonzero(labels >= classes)).size:
        raise ValueError(
            f"{name}: label {labels[wrong[0]]} of image {wrong[0]} is not one of 0 .. {classes - 1}; "
            "the file is damaged or of another layout"
        )
    return torch.from_numpy(labels.astype(np.int64))


# ---- downloading ---------------------------------------------------------------------------------------------------
def download(source: Source) -> Path:
    """Return the folder of pooch's cache with the downloads of the source, after fetching what is missing.

    Every file is checked by its SHA-256 sum each time; an incomplete or changed file never gets its final name. Raises
    ``ConnectionError`` if no address answers and ``ValueError`` for a download that is not the official file.
    """
    with needs("kit", f"downloading {source.name}", otherwise=", or name the folder that holds the files"):
        import pooch
    cache = Path(pooch.os_cache("convkit")) / source.name
    for file, known in source.downloads.items():
        _retrieve(pooch, source, file, known, cache)
    return cache


def _retrieve(pooch: ModuleType, source: Source, file: str, known: str, cache: Path) -> None:
    """Download one file from the first address that answers."""
    bar = find_spec("tqdm") is not None
    failed: OSError | None = None
    for address in source.addresses:
        try:
            pooch.retrieve(address + file, f"sha256:{known}", fname=file, path=cache, progressbar=bar)
        except OSError as error:
            if error.errno is not None:  # errors of the disk have a number, those of requests have none
                raise
            if (response := getattr(error, "response", None)) is not None:
                response.close()  # pooch leaves it open where the server refuses
            failed = error
        except ValueError as error:
            raise ValueError(
                f"the download {address}{file} is not the official file (its SHA-256 sum differs) and was not kept; "
                f"try again later, or name the folder that holds the files of {source.name}"
            ) from error
        else:
            return
    raise ConnectionError(
        f"{file} could not be downloaded from {' or '.join(source.addresses)} ({type(failed).__name__}); "
        f"get it on a machine with a network and name the folder that holds it, as in {source.name}(folder)"
    ) from failed
