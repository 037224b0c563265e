"""The command around the experiments."""

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("pyautoattack")
import convkit.__main__ as commands
from convkit.papers import command
from convkit.papers.runs import EXPERIMENTS, Experiment
from convkit.provenance import versions


@pytest.fixture
def toy(monkeypatch):
    def run(runs):
        runs.results_file.write_text("kept")
        if runs.folder == "nowhere":
            raise ValueError("needed a folder with data, got nowhere")
        if runs.folder == "stop":
            raise KeyboardInterrupt
        if runs.folder == "full":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. Of 8 GiB 1 GiB is free. More.")
        return {"answer": 42, "trained on": runs.device}

    experiment = Experiment("a toy", 0.1, run, lambda results: f"the answer is {results['answer']}")
    monkeypatch.setitem(EXPERIMENTS._entries, "toy", experiment)
    monkeypatch.setitem(EXPERIMENTS._entries, "needy", Experiment("a toy", 1, run, str, needs_folder=True))


def test_the_command_writes_results_with_versions_and_itself(toy, tmp_path, capsys):
    file = tmp_path / "folder" / "toy.json"
    file.parent.mkdir()
    assert command.main(["toy", "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["answer"] == 42
    assert results["command"] == "python3 -m convkit papers toy"
    assert results["device"] == "cpu"
    assert results["versions"]["torch"]
    assert "the answer is 42" in capsys.readouterr().out
    assert not file.with_suffix(".jsonl").exists()


def test_on_a_device_the_results_name_it_and_have_a_file_of_its_own(toy, device, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    assert command.main(["toy", "--device", str(device)]) == 0
    more = "" if device.type == "cpu" else "-cuda"
    (file,) = tmp_path.iterdir()
    assert file.name == f"toy{more}.json"
    results = json.loads(file.read_text())
    assert results["device"] == results["trained on"] == str(device)
    assert results["command"] == "python3 -m convkit papers toy" + (f" --device {device}" if more else "")
    assert results["versions"] == versions(device)
    text = json.dumps({"versions": {"device": "CPU, 2 threads" if more else "some GPU"}})
    file.write_text(text)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command.main(["toy", "--device", str(device), "--json", str(file)])
    assert "holds results of another device" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == [text]


def test_without_a_name_it_lists_what_there_is(toy, capsys):
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in EXPERIMENTS)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["toi"], "toi"),
        (["needy"], "needs --data DIR"),
        (["toy", "--device", "gpu"], "--device gpu cannot be used here: needed cpu, cuda"),
    ],
)
def test_bad_arguments(toy, arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_an_error_is_a_sentence_and_a_stop_says_how_to_go_on(toy, tmp_path, capsys):
    file = tmp_path / "toy.json"
    assert command.main(["toy", "--json", str(file), "--folder", "nowhere"]) == 1
    assert "needed a folder with data, got nowhere" in capsys.readouterr().err
    assert command.main(["toy", "--json", str(file), "--folder", "stop"]) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert command.main(["toy", "--json", str(file), "--folder", "full"]) == 1
    words = capsys.readouterr().err
    assert "of memory" not in words
    assert "torch tried to allocate 2 GiB. Of 8 GiB 1 GiB is free; end other programs" in words
    assert "goes on from there" in words
    assert file.with_suffix(".jsonl").read_text() == "kept"
    assert not file.exists()


def test_help_and_the_face_load_no_experiment():
    code = """
import sys
from convkit.papers import command
try:
    command.main(["--help"])
except SystemExit:
    pass
assert not any(name.startswith("torch") for name in sys.modules)
import convkit.papers.runs
assert "convkit.papers.certified" not in sys.modules
from convkit.papers import EXPERIMENTS
assert {"certified", "separation", "spectra-slopes"} < set(EXPERIMENTS)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: convkit papers")


def test_the_command_has_two_names():
    assert commands.COMMANDS["papers"] is commands.COMMANDS["experiments"]
    assert "papers" in commands.USAGE
    assert "experiments" not in commands.USAGE
