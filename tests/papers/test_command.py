"""The command around the experiments."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("pyautoattack")
import convkit.__main__ as commands
from convkit.papers import command
from convkit.papers.runs import EXPERIMENTS, Experiment


@pytest.fixture
def toy(monkeypatch):
    def run(runs):
        runs.results_file.write_text("kept")
        if runs.folder == "nowhere":
            raise ValueError("needed a folder with data, got nowhere")
        if runs.folder == "stop":
            raise KeyboardInterrupt
        return {"answer": 42}

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
    assert results["versions"]["torch"]
    assert "the answer is 42" in capsys.readouterr().out
    assert not file.with_suffix(".jsonl").exists()


def test_without_a_name_it_lists_what_there_is(toy, capsys):
    assert command.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in EXPERIMENTS)


@pytest.mark.parametrize("arguments, words", [(["toi"], "toi"), (["needy"], "needs --folder DIR")])
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
import convkit.papers.clipping
assert "convkit.papers.sphere" not in sys.modules
from convkit.papers import EXPERIMENTS
assert {"clipping-rates", "sphere-ablation", "spectra-slopes"} < set(EXPERIMENTS)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: convkit papers")


def test_the_command_has_two_names():
    assert commands.COMMANDS["papers"] is commands.COMMANDS["experiments"]
    assert "papers" in commands.USAGE
    assert "experiments" not in commands.USAGE
