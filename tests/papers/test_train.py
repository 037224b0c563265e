"""The command that trains one network of a table; on several processes it is tested with the training."""

import pytest

from convkit.papers import train
from convkit.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


def test_a_network_of_a_table_is_trained_saved_and_told_again(tmp_path, capsys):
    arguments = ["L-table2", "--cell", "clip 1", "--seed", "2", "--checkpoint", str(tmp_path / "run.pt")]
    assert train.main(arguments) == 0
    said = capsys.readouterr().out
    first, *steps, last = said.splitlines()
    assert first == "L-table2, clip 1, seed 2: 3 steps on 1 x cpu"
    assert [line.split()[1] for line in steps] == ["1", "2", "3"]
    assert last.startswith("test accuracy ")
    state = load_checkpoint(tmp_path / "run.pt")
    assert (state["belongs_to"]["method"], state["belongs_to"]["seed"]) == ("norm_clip", 2)
    assert train.main(arguments) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["L-table3"], "L-table2"),
        (["L-table2", "--cell", "clip"], "L-table2 has the cells 'none', 'weight decay 0.01', "),
        (
            ["L-table2", "--scale", "huge"],
            "has the scales 'tiny', 'small', 'medium', 'short', 'full', got 'huge'",
        ),
        (["L-table2", "--cell", "none, stopped early"], "'none, stopped early' is stopped early"),
        (["C-table3-digits"], "C-table3-digits trains no classifier; take convkit papers"),
        (["L-table2", "--scale", "short"], "L-table2 needs --data DIR, where cifar10-jpeg lies"),
        (["L-table2", "--device", "gpu"], "--device gpu cannot be used here: needed cpu, cuda"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(arguments, words, capsys):
    assert train.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("convkit train: ")
    assert words in said
    assert said.count("\n") == 1
