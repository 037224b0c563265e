"""Experiments by name: the table of methods in miniature, and the command around it."""

import json
import math

import pytest

from convkit.methods.registry import METHODS
from convkit.papers import EXPERIMENTS, command
from convkit.papers import methods as methods_table
from convkit.papers.runs import Experiment
from tests import RESULTS

PROTOCOL = {
    "steps": 4,
    "choosing_steps": 2,
    "choosing_seeds": (7,),
    "every": 2,
    "goal": 0.05,
    "images": 128,
    "tests": 50,
}


@pytest.fixture
def small(monkeypatch):
    """The table of two methods with four steps; sweeps run in this process."""
    calls = []

    def sweep(function, jobs, keep):
        calls.extend(jobs)
        return {name: function(**job) for name, job in jobs.items()}

    monkeypatch.setitem(methods_table.PROTOCOLS, "digits", PROTOCOL)
    monkeypatch.setattr(methods_table, "sweep", sweep)
    monkeypatch.setattr(methods_table, "MODEL", {"model": "cnn9", "widths": (4, 6, 8)})
    return calls


def test_the_table_has_a_row_a_method_with_all_seeds(small, tmp_path):
    results = methods_table.run("digits", None, tmp_path / "keep", ["batchnorm", "sphere"])
    assert len(small) == 2 * (2 + 3)  # two learning rates on held-out images, then three seeds
    assert [row["method"] for row in results["rows"]] == ["batchnorm", "sphere"]
    for row in results["rows"]:
        assert row["lr"] == max(methods_table.RATES, key=lambda lr, row=row: row["held_out_accuracy"][str(lr)])
        assert len(row["accuracy"]) == len(row["layers"]) == len(row["steps_to_goal"]) == 3
        assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
        assert [[step for step, _ in curve] for curve in row["curves"]] == [[2, 4]] * 3
        for layers in row["layers"]:
            assert layers["largest_norm"] > 0
            assert layers["median_channel_condition"] >= 1
    assert results["rows"][0]["time_over_batchnorm"] == 1
    words = methods_table.show(json.loads(json.dumps(results)))
    assert len(words.splitlines()) == 3
    assert "±" in words


def test_learning_rates_are_chosen_on_images_held_out_of_training(small, tmp_path):
    methods_table.run("digits", None, tmp_path / "keep", ["batchnorm"])
    assert [name for name in small if name.endswith("held out 7")] == small[:2]
    data = methods_table.images("digits", None, 128, 50)
    held = methods_table.holdout(data, 0.1)
    assert len(held) + len(held.test_labels) == len(data)


def test_a_diverged_run_is_a_row_too(small, tmp_path, monkeypatch):
    monkeypatch.setattr("convkit.training.run.DIVERGED", 1e-3)  # every loss is beyond that
    results = methods_table.run("digits", None, tmp_path / "keep", ["batchnorm"])
    (row,) = results["rows"]
    assert all("above 0.001 times its start" in words for words in row["diverged"])
    assert row["accuracy"] == [0.0] * 3
    assert row["steps_to_goal"] == [None] * 3
    assert "0 of 3" in methods_table.show(results)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("methods")])
def test_the_committed_tables_hold_every_method_and_three_seeds(name):
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in results["rows"]] == list(METHODS)
    assert results["command"].startswith(f"python3 -m convkit experiments {name}")
    assert {"device", "torch", "python"} <= set(results["versions"])
    for row in results["rows"]:
        assert len(row["accuracy"]) == 3
        assert all(0 <= accuracy <= 1 for accuracy in row["accuracy"])
        assert row["time_over_batchnorm"] > 0
    assert not math.isnan(sum(row["time_over_batchnorm"] for row in results["rows"]))


# ---- the command -----------------------------------------------------------------------------------------------------
@pytest.fixture
def toy(monkeypatch):
    def run(folder, keep):
        keep.write_text("kept")
        if folder == "nowhere":
            raise ValueError("needed a folder with data, got nowhere")
        if folder == "stop":
            raise KeyboardInterrupt
        return {"answer": 42}

    experiment = Experiment("a toy", 0.1, run, lambda results: f"the answer is {results['answer']}")
    monkeypatch.setitem(EXPERIMENTS, "toy", experiment)
    monkeypatch.setitem(EXPERIMENTS, "needy", Experiment("a toy", 1, run, str, needs_folder=True))


def test_the_command_writes_results_with_versions_and_itself(toy, tmp_path, capsys):
    file = tmp_path / "folder" / "toy.json"
    file.parent.mkdir()
    assert command.main(["toy", "--json", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["answer"] == 42
    assert results["command"] == "python3 -m convkit experiments toy"
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
