"""A run that is killed at any moment goes on from its checkpoint as if nothing had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from convkit.training import resuming
from convkit.training.checkpoint import load_checkpoint, save_checkpoint
from convkit.training.plan import Record
from tests.helpers.histories import assert_same_training
from tests.helpers.refusals import refused
from tests.helpers.resumed_run import begin

pytestmark = pytest.mark.slow


def history_file(file):
    return file.with_name(f"{file.name}.history")


def stopped(file, records=3):
    run, _ = begin(file)
    seen = [next(run) for _ in range(records)]
    run.close()
    return seen


def go_on(file):
    run, model = begin(file)
    return list(run), model


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.pt"


@pytest.fixture(scope="module")
def whole():
    run, model = begin(None)
    return list(run), model


def test_what_a_kill_leaves_behind_at_any_moment_of_a_save_is_gone_on_with(file, whole, tmp_path, monkeypatch):
    """Every state of the folder between two writes, and each record written in part."""
    moments = []

    def keep(word):
        copy = tmp_path / f"moment {len(moments)} {word}"
        copy.mkdir()
        for path in (file, history_file(file)):
            if path.exists():
                shutil.copy(path, copy / path.name)
        moments.append(copy)

    real = resuming.save_checkpoint

    def watched(path, state):
        keep("before")
        real(path, state)
        keep("after")

    monkeypatch.setattr(resuming, "save_checkpoint", watched)
    run, _ = begin(file)
    records = list(run)
    assert_same_training(records, whole[0])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.pt"]  # all is in one file now
    monkeypatch.undo()
    assert len(moments) == 2 * 5  # every second step, and the last one
    for number, moment in enumerate(moments):
        lines = history_file(moment / "run.pt")
        if number in (2, 4, 6):  # these lines were being written
            lines.write_bytes(lines.read_bytes()[: -random.Random(number).randrange(1, 150)])
        resumed, model = go_on(moment / "run.pt")
        assert_same_training(resumed, whole[0], model, whole[1])
        assert [path.name for path in moment.iterdir()] == ["run.pt"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_is_not(file, whole):
    chance, killed = random.Random(1), 0
    code = f"from pathlib import Path; from tests.helpers.resumed_run import begin; [*begin(Path({str(file)!r}))[0]]"
    for _ in range(3):
        before = file.stat().st_mtime_ns if file.exists() else 0
        with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
            while process.poll() is None and (file.stat().st_mtime_ns if file.exists() else 0) == before:
                time.sleep(0.001)
            time.sleep(0.05 * chance.random())
            process.kill()
        killed += process.returncode == -signal.SIGKILL
    assert killed > 0
    records, model = go_on(file)
    assert_same_training(records, whole[0], model, whole[1])


def test_a_save_appends_the_new_records_and_leaves_the_others(file):
    run, _ = begin(file)
    sizes, starts = [], []
    for _ in range(3):
        next(run), next(run)
        lines = history_file(file).read_bytes()
        sizes.append(lines.count(b"\n"))
        starts.append(lines)
    assert sizes == [2, 4, 6]
    assert starts[2].startswith(starts[1])
    assert starts[1].startswith(starts[0])
    state = load_checkpoint(file)
    assert state["history"]["records"] == 6
    run.close()


def test_records_of_any_kind_come_back(tmp_path):
    records = [
        Record(1, 0.1 + 0.2, 1 / 3, 1e-300),
        Record(2, 5e-324, 1.0, 0.1, 0.5, {"a": 1e9}, {"a": 1.5}, "it is", 2.0),
    ]
    lines = resuming._Lines(tmp_path / "lines")
    mark = lines.append(records[:1])
    assert lines.append(records[:1]) == mark
    mark = lines.append(records)
    again = resuming._Lines(tmp_path / "lines")
    found = [Record(**record) for record in again.read(mark, tmp_path)]
    assert found == records
    assert [record.seconds for record in found] == [0.0, 2.0]
    more = [*records, records[0]]
    assert again.append(more) == lines.append(more)
    (tmp_path / "lines").unlink()  # by somebody else: it is written anew
    assert lines.append(more) == again.append(more)


def test_a_checkpoint_of_format_1_is_gone_on_with(file, whole):
    stopped(file)
    state = load_checkpoint(file)
    entries = [json.loads(line) for line in history_file(file).read_text().splitlines()]
    empty = dict.fromkeys(("test_accuracy", "norms", "conditions", "diverged"))
    state["history"] = [{**empty, **entry} for entry in entries]
    del state["format"]
    for name in ("factor", "factor_steps", "decay_gains"):  # of the plan: not known to it
        del state["belongs_to"][name]
    save_checkpoint(file, state)
    history_file(file).write_text("of another run")
    records, model = go_on(file)
    assert_same_training(records, whole[0], model, whole[1])


def test_a_history_that_is_missing_or_another_one_and_a_later_format_are_refused_and_left_alone(file):
    stopped(file)
    kept, lines = file.read_bytes(), history_file(file).read_bytes()
    for change, words in (
        (lambda: history_file(file).unlink(), r"needs its history, the file run\.pt\.history beside it"),
        (lambda: history_file(file).write_bytes(lines[:-5]), "does not belong to the checkpoint run.pt, or has been"),
        (lambda: history_file(file).write_bytes(lines.replace(b"1", b"2")), "copy both files from one place"),
    ):
        change()
        refused(words, begin, file)
        assert file.read_bytes() == kept
    history_file(file).write_bytes(lines)
    save_checkpoint(file, {**load_checkpoint(file), "format": 3})
    refused("has format 3, and this version of the kit reads formats 1 to 2", begin, file)


def test_the_permutation_of_an_epoch_is_drawn_once_even_if_recalibration_looks_ahead(monkeypatch):
    run, _ = begin(None, method="norm_clip", knobs={"every": 2, "bound": 0.5}, batch_size=8, steps=8)
    drawn, real = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda count, **more: drawn.append(count) or real(count, **more))
    assert len(list(run)) == 8
    assert drawn == [120, 120]  # 8 steps and 10 batches more, of 15 an epoch
