"""Checkpoints come back as they were, or not at all."""

import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, OrderedDict, namedtuple
from functools import reduce
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from convkit.training.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.refusals import refused

STATE = {"weights": {"a": torch.arange(600, dtype=torch.float32).view(20, 30), "b": torch.tensor(3)}, "step": 7}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.pt"


def test_tensors_of_a_device_come_back_on_the_cpu(device, file):
    there = {"weights": {name: t.to(device) for name, t in STATE["weights"].items()}, "step": 7}
    save_checkpoint(file, there)
    assert equal(load_checkpoint(file), STATE)
    assert there["weights"]["a"].device.type == device.type


def test_it_is_read_without_running_code(file, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state": Trap(), "digest": ""}, file)
    refused("cannot be read as one", load_checkpoint, file)
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_cut_off_changed_or_something_else_are_refused_and_left_alone(file):
    save_checkpoint(file, STATE)
    whole = file.read_bytes()
    place = whole.index(torch.tensor([598.0, 599.0]).numpy().tobytes())
    contents = [(whole[: int(part * len(whole))], "needed a checkpoint of the kit") for part in (0.1, 0.5, 0.9, 0.999)]
    contents += [(whole[:place] + b"\x01" + whole[place + 1 :], r"digest does not fit|cannot be read")]
    for content, words in [*contents, (b"", "cannot be read as one"), (b"hello", "cannot be read as one")]:
        file.write_bytes(content)
        refused(r"run\.pt", load_checkpoint, file)
        refused(words, load_checkpoint, file)
        assert file.read_bytes() == content
    for content in ({"model": 1}, [1, 2]):
        torch.save(content, file)
        refused("cannot be read as one", load_checkpoint, file)


# ---- what a checkpoint cannot hold -----------------------------------------------------------------------------------
class Subclass(Tensor):
    pass


def quietly(make) -> Tensor:
    with warnings.catch_warnings(action="ignore"):  # one kind is a beta of torch's, one is about to move elsewhere
        return make()


def marked(thing, mark):
    thing.mark = mark
    return thing


def circle() -> list:
    found = []
    found.append(found)
    return found


Pair = namedtuple("Pair", "a b")
DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.float16),
    *(torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.float8_e4m3fn),
]


def tensors():
    """Tensors of many kinds, all of which a checkpoint holds."""
    shapes = st.lists(st.integers(0, 3), max_size=3)
    plain = st.builds(lambda shape, dtype: torch.ones(shape).cumsum(-1).to(dtype), shapes, st.sampled_from(DTYPES))
    changes = [
        *(lambda t: t, nn.Parameter, lambda t: t.mT if t.ndim > 1 else t, lambda t: t.expand(2, *t.shape)),
        *(lambda t: t.to_sparse(), lambda t: t * 1j, lambda t: (t * 1j).conj(), lambda t: (t * 1j).conj().imag),
        *(lambda t: t.clone().requires_grad_(), lambda t: t.clone().requires_grad_() * 2, lambda t: t[..., :1]),
    ]
    real = st.builds(lambda shape: torch.randn([n + 1 for n in shape]), shapes)
    return plain | st.builds(lambda change, t: change(t), st.sampled_from(changes), real)


HELD = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.complex_numbers(), st.text()),
    *(st.binary(min_size=1), st.builds(bytearray, st.binary()), st.sampled_from(DTYPES), tensors()),
    *(st.just(torch.device("cpu")), st.builds(torch.Size, st.lists(st.integers(0, 9))), st.just(2**1999)),
)
REFUSED = {
    "numpy.float64": np.float64(1),
    "numpy.ndarray": np.ones(2),
    "frozenset": frozenset("a"),
    "tests.training.test_checkpoint.Pair": Pair(1, 2),
    "collections.Counter": Counter("a"),
    "pathlib": Path("a"),
    "function": circle,
    "tests.training.test_checkpoint.Subclass": torch.ones(2).as_subclass(Subclass),
    "quantized tensor": quietly(lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8)),
    "meta device": torch.ones(2, device="meta"),
    "layout torch.sparse_csr": quietly(lambda: torch.eye(2).to_sparse_csr()),
    "empty bytes": b"",
    "more than 2000 bits": 2**2000,
    "in more than 100 others": reduce(lambda inner, _: [inner], range(101), []),
}
KEYS = st.text(max_size=3) | st.integers(0, 9) | st.none() | st.tuples(st.booleans(), st.floats(allow_nan=False))


def states():
    return st.dictionaries(
        st.sampled_from("abc"),
        st.recursive(
            HELD,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.lists(inner, max_size=3).map(tuple),
                st.dictionaries(KEYS, inner, max_size=3),
                st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
                st.sets(KEYS, max_size=3),
            ),
            max_leaves=8,
        ),
        max_size=3,
    )


def equal(ours, theirs) -> bool:
    """The same values of the same types, bit for bit, in the same order."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return equal(list(ours.items()), list(theirs.items()))
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(ours, Tensor):
        about = [(t.dtype, t.shape, t.layout, t.requires_grad) for t in (ours, theirs)]
        whole = [(t.to_dense() if t.is_sparse else t).detach() for t in (ours, theirs)]
        if whole[0].dtype == torch.float8_e4m3fn:
            whole = [t.float() for t in whole]
        return about[0] == about[1] and torch.equal(*whole)
    return ours == theirs if isinstance(ours, set) else repr(ours) == repr(theirs)


@given(state=states())
def test_what_is_saved_comes_back_with_its_types(state):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "new" / "run.pt"
        save_checkpoint(file, state)
        assert equal(load_checkpoint(file), state)
        assert os.listdir(file.parent) == ["run.pt"]


@pytest.mark.parametrize("words", REFUSED)
def test_what_could_not_be_read_back_is_refused_with_its_place(file, words, tmp_path):
    save_checkpoint(file, STATE)
    before = file.read_bytes()
    message = rf"^a\['b'\]\[1\]\[None\]\[0\].*: .*{re.escape(words)}.*, which a checkpoint cannot"
    refused(message, save_checkpoint, file, {"fine": 1, "a": {"b": [0, OrderedDict({None: (REFUSED[words],)})]}})
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.mark.parametrize(
    "state, words",
    [
        ({"model": {"_extra_state": np.float64(1)}}, "extra state of the network: a value of type numpy.float64"),
        ({"model": {"blocks.3._extra_state": Path("a")}}, r"extra state of layer blocks\.3: a value of type pathlib"),
        ({"model": {"a._extra_state": {"b": [b""]}}}, r"extra state of layer a, at \['b'\]\[0\]: empty bytes"),
        ({"a": {np.int64(3): 1}}, r"a\[np.int64\(3\)\]: a value of type numpy.int64"),
        ({"a": {np.int64(3)}}, r"a\[0\]: a value of type numpy.int64"),
        ({"a": {torch.ones(1): 1}}, "a: a dict with a tensor as a key"),
        ({"a": marked(torch.ones(1), np.float32(1))}, r"a\['mark'\]: a value of type numpy.float32"),
        ({"a": marked(OrderedDict(), np.float32(1))}, r"a\['mark'\]: a value of type numpy.float32"),
        ({"a": circle()}, r"a\[0\]: a list or dict that holds itself"),
    ],
)
def test_the_place_is_said_as_python_reaches_it(state, words, tmp_path):
    refused(f"^{words}", save_checkpoint, tmp_path / "run.pt", state)
    assert os.listdir(tmp_path) == []


def test_attributes_of_tensors_and_of_state_dicts_come_back(file):
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    save_checkpoint(file, state)  # itself, or inside
    again = load_checkpoint(file)
    assert equal(again, state)
    assert again._metadata == state._metadata
    save_checkpoint(file, MappingProxyType({"model": state, "a": marked(torch.ones(1), [1])}))
    again = load_checkpoint(file)
    assert equal(again["model"], state)
    assert again["model"]._metadata == state._metadata
    assert again["a"].mark == [1]


@pytest.mark.slow
def test_a_set_of_words_is_read_in_another_process(file):
    save_checkpoint(file, {"words": set("abcdefgh")})
    code = f"from convkit.training import load_checkpoint; print(sorted(load_checkpoint({str(file)!r})['words']))"
    for seed in ("1", "2"):  # of the order of words in a set
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == str(sorted("abcdefgh"))


def test_a_save_that_fails_leaves_the_last_one(file, tmp_path, monkeypatch):
    save_checkpoint(file, STATE)
    before = file.read_bytes()

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    refused("no space left", save_checkpoint, file, {"a": 1}, error=OSError)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]
