"""Several processes train as one does with all their images, stop together, and refuse to begin if they differ."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from convkit.training.checkpoint import load_checkpoint
from tests import ROOT
from tests.helpers import distributed_runs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs Gloo")]


def on_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as two processes of one training run, by what ``torchrun`` calls."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--local-addr=127.0.0.1"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", *arguments]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have written what they saw."""
    place = tmp_path_factory.mktemp("ranks")
    on_two_processes(distributed_runs.__file__, str(place))
    return place


@pytest.fixture(scope="module")
def seen(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_train_as_one_with_the_joint_batch_and_go_on_from_their_checkpoint(folder, seen):
    run, model = distributed_runs.begin(folder)
    records = list(run)
    weights = torch.load(folder / "weights.pt", weights_only=True)
    assert_close(weights, model.state_dict(), rtol=0, atol=1e-10)
    assert seen[0]["losses"] == pytest.approx([record.loss for record in records], abs=1e-10)
    assert seen[1]["losses"] == seen[0]["losses"]
    assert seen[0]["losses"][:3] == seen[0]["first"]
    assert seen[0]["apart"] == 0.0
    again, found = distributed_runs.begin(folder, checkpoint=folder / "run.pt")  # by one process
    assert [record.loss for record in again] == seen[0]["losses"]
    assert_close(found.state_dict(), weights, rtol=0, atol=0)


def test_the_command_trains_one_network_of_a_table_on_two_processes(tmp_path):
    command = ["-m", "convkit.papers.train", "M-steps", "--scale", "tiny", "--checkpoint", str(tmp_path / "run.pt")]
    done = on_two_processes(*command)
    assert "3 steps on 2 x cpu" in done.stdout
    assert done.stdout.count("test accuracy") == 1  # of the process 0
    assert "Warning" not in done.stderr
    again = on_two_processes(*command).stdout  # from the checkpoint
    assert again.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_each_process_has_images_and_random_numbers_of_its_own(seen):
    drawn = [number for rank in seen for step in rank["drawn"] for number in step]
    assert len(set(drawn)) == len(drawn) == 8


def test_all_processes_stop_at_the_step_at_which_one_diverges(seen):
    assert seen[0]["diverged"] == seen[1]["diverged"] == [None, None, "the loss is inf at step 3"]


@pytest.mark.parametrize(
    "what, words",
    [
        ("seeds", "the processes of a run must agree: seed is 0 for process 0 and 1 for process 1; start all"),
        ("knobs", "must agree: knobs is "),
        ("batch", "batch_size must be a multiple of the 2 processes, got 9"),
        ("batchnorm", "BatchNorm on 2 processes needs GPUs, for torch's SyncBatchNorm"),
    ],
)
def test_processes_that_differ_or_cannot_train_together_are_told_so_in_a_sentence(seen, what, words):
    for rank in seen:
        assert words in rank[what]


def test_the_command_trains_on_both_and_process_0_alone_says_so_and_saves(folder, seen):
    assert [rank["status"] for rank in seen] == [0, 0]
    lines = seen[0]["said"].splitlines()
    assert lines[0] == "X-table1, one, seed 3: 5 steps on 2 x cpu"
    assert [line.split()[1] for line in lines[1:6]] == list("12345")
    assert lines[6].startswith("test accuracy ")
    assert seen[1]["said"] == ""
    records = load_checkpoint(folder / "command.pt")["history"].splitlines()
    assert [json.loads(record)["step"] for record in records] == [1, 2, 3, 4, 5]
