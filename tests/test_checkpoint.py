"""Checkpoints come back as they were, or not at all."""

import os
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from convkit.checkpoint import load_checkpoint, save_checkpoint

STATE = {
    "weights": {"a": torch.arange(600, dtype=torch.float32).view(20, 30), "b": torch.tensor(3)},
    "step": 7,
    "history": [{"loss": 0.1 + 0.2, "why": None}, {"loss": float("inf"), "why": "too large"}],
    "bfloat": torch.ones(3, dtype=torch.bfloat16),
    "nothing": torch.empty(0, 4),
}


def test_round_trip(tmp_path):
    file = tmp_path / "folder" / "run.pt"
    save_checkpoint(file, STATE)
    again = load_checkpoint(file)
    assert_close(again["weights"], STATE["weights"], rtol=0, atol=0)
    assert_close(again["bfloat"], STATE["bfloat"], rtol=0, atol=0)
    assert again["history"] == STATE["history"]
    assert again["step"] == 7
    assert os.listdir(file.parent) == ["run.pt"]


def test_it_is_read_without_running_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    file = tmp_path / "run.pt"
    torch.save({"state": Trap(), "digest": ""}, file)
    with pytest.raises(ValueError, match="cannot be read as one"):
        load_checkpoint(file)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_off_is_refused_with_its_name_and_left_alone(part, tmp_path):
    file = tmp_path / "run.pt"
    save_checkpoint(file, STATE)
    cut = file.read_bytes()[: int(part * file.stat().st_size)]
    file.write_bytes(cut)
    with pytest.raises(ValueError, match=r"needed a checkpoint of the kit, got .*run\.pt"):
        load_checkpoint(file)
    assert file.read_bytes() == cut


def test_every_changed_number_is_noticed(tmp_path):
    file = tmp_path / "run.pt"
    save_checkpoint(file, STATE)
    whole = file.read_bytes()
    place = whole.index(torch.tensor([598.0, 599.0]).numpy().tobytes())
    file.write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    with pytest.raises(ValueError, match=r"digest does not fit|cannot be read"):
        load_checkpoint(file)


@pytest.mark.parametrize("content", [b"", b"hello", {"model": 1}, [1, 2]])
def test_other_files_are_refused(content, tmp_path):
    file = tmp_path / "run.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match="cannot be read as one"):
        load_checkpoint(file)


def test_a_save_that_fails_leaves_the_last_one(tmp_path):
    file = tmp_path / "run.pt"
    save_checkpoint(file, STATE)
    before = file.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(file, {"function": lambda: 0})
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]
