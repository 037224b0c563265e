"""Downloads of data sets: checked by their sums, kept, and a sentence for whatever goes wrong on the way."""

import gzip
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from convkit.data import mnist
from convkit.data.catalog import CIFAR10, CIFAR100, Source
from convkit.data.files import load_source
from tests.helpers.dataset_files import packed, small, small_mnist, write
from tests.helpers.refusals import refused


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served on this machine; pooch's cache is in another one."""
    import pooch

    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def downloadable(server: tuple[Path, str], official: Source) -> Source:
    source, files = small(official)
    archive = packed(files, source.folders[0])
    served, address = server
    (name,) = official.downloads
    (served / name).write_bytes(archive)
    return replace(source, addresses=(address,), downloads={name: hashlib.sha256(archive).hexdigest()})


@pytest.mark.parametrize("official", [CIFAR10, CIFAR100], ids=lambda source: source.name)
def test_a_download_is_checked_kept_and_not_repeated(tmp_path, server, official):
    source = downloadable(server, official)
    data = load_source(source, None, None)
    assert (data.name, len(data)) == (source.name, 7 * len(source.train))
    kept = tmp_path / "cache" / "convkit" / source.name
    assert [path.name for path in kept.iterdir()] == list(source.downloads)
    again = load_source(replace(source, addresses=("http://127.0.0.1:9/",)), None, None)  # nothing listens there
    assert torch.equal(again.images, data.images)


def test_a_tampered_download_is_refused_and_not_kept_and_a_tampered_cache_is_replaced(tmp_path, server):
    source = downloadable(server, CIFAR10)
    (name,) = source.downloads
    good = (server[0] / name).read_bytes()
    (server[0] / name).write_bytes(good[:-1] + b"!")
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz is not the official file .* was not kept; try again"):
        load_source(source, None, None)
    kept = tmp_path / "cache" / "convkit" / "cifar10"
    assert list(kept.iterdir()) == []
    (server[0] / name).write_bytes(good)
    (kept / name).write_bytes(good[:-1] + b"!")
    assert load_source(source, None, None).name == "cifar10"
    assert (kept / name).read_bytes() == good


def test_another_address_is_asked_where_one_does_not_answer(server):
    source, files = small_mnist()
    zipped = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    write(server[0], zipped)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in zipped.items()}
    source = replace(source, addresses=("http://127.0.0.1:9/", server[1]), downloads=sums)
    assert load_source(source, None, None).images.shape == (6, 1, 4, 4)


def test_without_a_network_a_file_there_or_pooch_one_sentence_says_what_to_do(server, monkeypatch):
    source = downloadable(server, CIFAR10)
    for address in ("http://127.0.0.1:9/", server[1] + "elsewhere/"):
        words = r"could not be downloaded .*name the folder .*cifar10\(folder\)"
        refused(words, load_source, replace(source, addresses=(address,)), None, None, error=ConnectionError)
    monkeypatch.setitem(sys.modules, "pooch", None)
    refused(r"downloading mnist needs pooch.*or name the folder", mnist, error=ModuleNotFoundError)
