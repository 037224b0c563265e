"""The files of public data sets: their layouts to the byte, damage, missing files, and names that tell the truth."""

import gzip
import lzma
from dataclasses import replace

import numpy as np
import pytest
import torch

from convkit.data import cifar10, cifar100, load, mnist
from convkit.data import registry as sets
from convkit.data.catalog import CIFAR10, CIFAR100
from convkit.data.files import load_source
from tests import ROOT
from tests.helpers.dataset_files import idx, packed, small, small_mnist, write
from tests.helpers.refusals import refused

REAL = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")


# ---- layouts -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("official", [CIFAR10, CIFAR100], ids=lambda source: source.name)
@pytest.mark.parametrize("inside", [True, False])
def test_records_are_read_to_the_byte_from_the_folder_or_its_parent(tmp_path, official, inside):
    source, files = small(official)
    write(tmp_path / source.folders[0] if inside else tmp_path, files)
    data = load_source(source, tmp_path, None)
    assert data.name == source.name
    assert len(data) == 7 * len(source.train)
    for k, name in enumerate(source.train):  # pixel by pixel: record, channel, row, column
        raw, start = files[name], source.label_bytes
        for i, c, y, x in ((0, 0, 0, 0), (3, 1, 2, 5), (6, 2, 31, 30)):
            pixel = raw[i * (start + 3072) + start + 1024 * c + 32 * y + x]
            assert data.images[7 * k + i, c, y, x] == pixel
            assert data.labels[7 * k + i] == raw[i * (start + 3072) + start - 1]
    assert data.test_images.shape == (5, 3, 32, 32)
    assert data.classes == len(set(data.class_names)) == {"cifar10": 10, "cifar100": 100}[source.name]
    assert data.images.dtype == torch.uint8


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_to_the_byte_plain_or_zipped(tmp_path, zipped):
    source, files = small_mnist()
    stored = {f"{name}.gz": gzip.compress(content) for name, content in files.items()} if zipped else files
    data = load_source(source, write(tmp_path, stored), None)
    assert (data.name, data.images.shape, data.test_images.shape) == ("mnist", (6, 1, 4, 4), (3, 1, 4, 4))
    assert bytes(data.images.flatten().tolist()) == files["train-images-idx3-ubyte"][16:]
    assert bytes(data.labels.tolist()) == files["train-labels-idx1-ubyte"][8:]
    assert bytes(data.test_images.flatten().tolist()) == files["t10k-images-idx3-ubyte"][16:]


def test_the_functions_read_their_own_source(tmp_path, monkeypatch):
    for function, constant in ((cifar10, "CIFAR10"), (cifar100, "CIFAR100"), (mnist, "MNIST")):
        source, files = small_mnist() if constant == "MNIST" else small(getattr(sets, constant))
        monkeypatch.setattr(sets, constant, source)
        folder = write(tmp_path / source.name, files)
        assert function(folder).name == load(source.name, str(folder)).name == source.name
        assert load(source.name, folder, name="mine").name == "mine"


@real
def test_real_mnist_is_the_official_one():
    data = mnist(REAL / "mnist")
    assert data.name == "mnist"
    assert (data.images.shape, data.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert data.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.mean == pytest.approx([0.1307], abs=5e-5)
    assert data.std == pytest.approx([0.3081], abs=5e-5)


@real
def test_real_cifar_records_are_read_as_the_images_they_are(tmp_path):
    first = lzma.decompress((REAL / "cifar10" / "data_batch_1.first4000.bin.xz").read_bytes())[: 1000 * 3073]
    test = lzma.decompress((REAL / "cifar10" / "test_batch.first1017.bin.xz").read_bytes())[: 1000 * 3073]
    source = replace(CIFAR10, records=(1000, 1000), train={"data_batch_1.bin": "?"})
    folder = write(tmp_path, {"data_batch_1.bin": first, "test_batch.bin": test})
    data = load_source(source, folder, "cifar10-beginning")
    assert [data.class_names[label] for label in data.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert [data.class_names[label] for label in data.test_labels[:4]] == ["cat", "ship", "ship", "airplane"]
    assert data.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)  # of all 50,000
    smooth = [data.images.float().diff(dim=axis).abs().mean().item() for axis in (2, 3)]
    assert max(smooth) < 16  # neighbors are alike only where rows and columns are what they should be
    names = (REAL / "cifar10" / "batches.meta.txt").read_text().split()
    assert tuple(names) == data.class_names


# ---- names tell the truth ------------------------------------------------------------------------------------------
def test_only_the_official_bytes_have_the_official_name_and_one_changed_byte_among_them_is_damage(tmp_path):
    source, files = small(CIFAR10)
    folder = write(tmp_path, files)
    other = replace(CIFAR10, records=(7, 5))  # whose sums fit none of these files
    assert load_source(source, folder, "cifar10").name == "cifar10"
    assert load_source(other, folder, None).name == "cifar10-unofficial"
    assert load_source(other, folder, "cifar10-jpeg").name == "cifar10-jpeg"
    words = r"test_batch.bin is not the official file of cifar10 .*name='cifar10-jpeg'"
    refused(words, load_source, other, folder, "cifar10")
    changed = bytearray(files["data_batch_3.bin"])
    changed[1234] ^= 1
    write(folder, {"data_batch_3.bin": bytes(changed)})
    words = r"^data_batch_3.bin is not the official file of cifar10 and the others are"
    refused(words, load_source, source, folder, None)
    assert load_source(source, folder, "mine").images.shape == (35, 3, 32, 32)  # meant, and said so


# ---- damage --------------------------------------------------------------------------------------------------------
def test_truncated_records_and_labels_out_of_range_are_refused_with_their_place(tmp_path):
    source, files = small(CIFAR10)
    for length, came in ((7 * 3073 - 1, "6 records and 3072 bytes"), (6 * 3073, "6 records and 0"), (0, "0")):
        folder = write(tmp_path, {**files, "data_batch_2.bin": files["data_batch_2.bin"][:length]})
        words = rf"data_batch_2.bin needs 7 records of 3073 bytes, got .*\({came}"
        refused(words, load_source, source, folder, "mine")
    wrong = bytearray(files["test_batch.bin"])
    wrong[2 * 3073] = 10
    write(folder, {**files, "test_batch.bin": bytes(wrong)})
    refused(r"test_batch.bin: label 10 of image 2 is not one of 0 .. 9", load_source, source, folder, "mine")


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("train-images-idx3-ubyte", lambda raw: raw[:-1], r"announces 6 × 4 × 4 bytes, got 95"),
        ("t10k-labels-idx1-ubyte", lambda raw: raw[:6], r"t10k-labels-idx1-ubyte needs the header of an IDX file"),
        ("t10k-labels-idx1-ubyte", lambda raw: b"", r"got nothing"),
        ("t10k-images-idx3-ubyte", lambda raw: raw[:2] + b"\x0d" + raw[3:], r"IDX .* axes: 3, got 00 00 0d 03"),
        ("train-labels-idx1-ubyte", lambda raw: idx(np.zeros(5, np.uint8)), r"has 6 images and .* has 5 labels"),
        ("train-labels-idx1-ubyte", lambda raw: raw[:-1] + b"\x0a", r"label 10 of image 5 is not one of 0 .. 9"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, name, change, message):
    source, files = small_mnist()
    refused(message, load_source, source, write(tmp_path, {**files, name: change(files[name])}), "mine")


def test_truncated_archives_are_refused_and_missing_files_named_with_the_places_looked_at(tmp_path):
    source, files = small(CIFAR10)
    archive, place = packed(files, source.folders[0]), tmp_path / "cifar-10-binary.tar.gz"
    place.write_bytes(archive)
    assert load_source(source, tmp_path, None).name == "cifar10"
    place.write_bytes(archive[: len(archive) // 2])
    words = r"cifar-10-binary.tar.gz cannot be unpacked .* truncated or damaged"
    refused(words, load_source, source, tmp_path, None)
    place.write_bytes(packed({"test_batch.bin": b""}, "x"))
    words = r"does not hold data_batch_1.bin, .*data_batch_5.bin; fetch"
    refused(words, load_source, source, tmp_path, None, error=FileNotFoundError)
    digits, images = small_mnist()
    zipped = {f"{name}.gz": gzip.compress(content)[:-9] for name, content in images.items()}
    folder = write(tmp_path / "mnist", zipped)
    refused(r"train-images-idx3-ubyte.gz cannot be unpacked", load_source, digits, folder, None)
    del files["data_batch_4.bin"], files["test_batch.bin"]
    place.unlink()
    write(tmp_path / source.folders[0], files)
    with pytest.raises(FileNotFoundError) as caught:
        load_source(source, tmp_path, None)
    assert "cifar10 needs data_batch_4.bin, test_batch.bin, which" in str(caught.value)
    assert f"{tmp_path}, {tmp_path / source.folders[0]};" in str(caught.value)
