"""The benchmark: baselines that answer the same questions, honest tables, and a run that can be stopped."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from convkit.bench import timing as bench
from convkit.bench.baselines import (
    PlainConvNorm,
    autograd_power_method,
    gram_iteration,
    power_method,
    svdvals_of_full_symbol,
    theorem_1,
    two_lines,
)
from convkit.bench.case import Case
from convkit.bench.cases import cases, random_operator
from convkit.bench.timing import Budget, Result, table, time_case
from convkit.data.trained import LAYERS, trained_kernels
from convkit.normalization.convnorm import ConvNorm2d
from convkit.norms import operator_norm
from convkit.operators.operator import ConvOperator
from convkit.spectra import singular_values
from tests import ROOT

CPU = torch.device("cpu")


def nothing() -> None:
    pass


def test_baselines_answer_the_same_questions():
    A = random_operator(5, 3, 8, 3, CPU)
    values = singular_values(A)
    by_numpy = torch.from_numpy(two_lines(A.kernel.permute(2, 3, 0, 1).numpy(), (8, 8))).flatten()
    assert_close(by_numpy.sort(descending=True).values, values)
    assert_close(svdvals_of_full_symbol(A).flatten().sort(descending=True).values, values)
    assert 1 - 1e-12 <= float(gram_iteration(A, 6) / values[0]) <= 1.02  # rounded, so not quite a bound
    Z = ConvOperator(A.kernel, (8, 8), padding=1, padding_mode="zeros")
    norm = float(operator_norm(Z, 2))
    assert 0.999 * norm <= float(power_method(Z, 300)) <= norm * (1 + 1e-12)
    S = ConvOperator(A.kernel, (8, 8), stride=2, padding=1, padding_mode="zeros")
    assert 0.999 * float(operator_norm(S, 2)) <= float(power_method(S, 300)) <= float(operator_norm(S, 2)) * (1 + 1e-12)
    for stride in (1, 2):
        B = ConvOperator(A.kernel, (8, 8), stride=stride, padding=1, padding_mode="zeros")
        assert_close(autograd_power_method(B, 7), power_method(B, 7))  # far from converged, so that each step counts
        assert_close(torch.stack(theorem_1(B)), torch.stack([operator_norm(B, 1), operator_norm(B, math.inf)]))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_published_convnorm_does_what_ours_does(stride):
    ours, theirs = ConvNorm2d(3, 4, 3, stride, 1).double(), PlainConvNorm(3, 4, 3, stride).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(theirs(x))
    assert_close(ours(x), theirs(x))
    found, wanted = (torch.autograd.grad(layer(x), [x, *layer.parameters()], weights) for layer in (ours, theirs))
    assert_close(found, wanted)


@pytest.mark.slow
def test_each_case_of_a_quick_run_has_inputs_baselines_and_known_targets(device):
    quick = list(cases(device, quick=True))
    assert len({(case.question, case.inputs) for case in quick}) == len(quick) > 10
    for case in quick:
        assert case.baselines, case
        assert set(case.targets) <= set(case.baselines), case


class Clock:
    """Time that passes only in tasks and rests, so that what is measured is known."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def task(monkeypatch):
    """Makes tasks that take a known time; with them, the names of those that were called."""
    clock, calls = Clock(), []
    monkeypatch.setattr(bench, "time", clock)

    def make(name, seconds):
        def run():
            calls.append(name)
            clock.sleep(seconds)

        return run

    make.calls = calls
    return make


def test_baselines_are_warmed_and_timed_as_often_as_ours_until_the_slowest_has_had_its_time(task):
    result = time_case(Case("q", "c", task("ours", 0.03), {"slow": task("slow", 0.12)}), Budget(4, 0.15), nothing)
    assert task.calls == 3 * ["ours", "slow"]  # one unmeasured call of each first
    assert result.rounds == {"convkit": 2, "slow": 2}
    assert result.ratios["slow"] == pytest.approx(4)  # the rests between them do not count


def test_quick_tasks_are_called_several_times_a_turn(task):
    result = time_case(Case("q", "c", task("quick", 1 / 1024), {}), Budget(3, 1.0), nothing)
    assert len(task.calls) == 1 + 1 + 20 + 20  # unmeasured, measured once, then for 0.02 seconds a turn
    assert result.ours == pytest.approx(1 / 1024)


def test_the_table_says_met_and_missed():
    result = Result("norm", "a case", 0.5, {"one": 1.0, "two": 5.0}, {"one": 4.0, "two": 4.0}, {})
    text = table([replace(result, limit="a reason")])
    assert "2 x   target 4: MISSED" in text
    assert "10 x   target 4: met" in text
    assert text.endswith("what limits ours: a reason")
    assert "limits" not in table([result])
    assert "limits" not in table([replace(result, limit="a reason", targets={"two": 4.0})])  # none missed


def test_a_run_of_some_cases_leaves_the_others_and_refuses_words_that_no_case_has(monkeypatch, tmp_path, capsys):
    def some(device, quick):
        yield Case("a norm", "small", nothing, {"other": nothing})
        yield Case("a clip", "small", nothing, {"other": nothing})

    monkeypatch.setattr(bench, "cases", some)
    file = tmp_path / "b.json"
    assert bench.main(["--quick", "--only", "clip", "--json", str(file)]) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert ([result["question"] for result in record["results"]], record["growth"]) == (["a clip"], {})
    with pytest.raises(SystemExit):
        bench.main(["--only", "clap"])
    assert "no case has 'clap' in its question; there are a norm, a clip" in capsys.readouterr().err


def test_a_run_that_is_killed_keeps_the_cases_before(monkeypatch, tmp_path):
    def some(device, quick):
        yield Case("first", "small", nothing, {"other": nothing})
        yield Case("second", "small", nothing, {"other": killed})

    def killed():
        raise SystemExit(1)  # nothing is left to be done by the command

    monkeypatch.setattr(bench, "cases", some)
    with pytest.raises(SystemExit):
        bench.main(["--quick", "--json", str(tmp_path / "b.json")])
    record = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [result["question"] for result in record["results"]] == ["first"]


def test_a_run_writes_what_it_measured_and_an_interrupted_one_prints_it(monkeypatch, tmp_path, capsys):
    def some(device, quick):
        yield Case("first", "small", nothing, {"other": nothing}, {"other": 1e-9})
        yield Case("second", "small", nothing, {"other": stop})

    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "cases", some)
    assert bench.main(["--quick", "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]) == 0
    out = capsys.readouterr().out
    assert "stopped after 1 of 2 cases" in out
    assert "first: small" in out
    assert "met" in out
    assert "second" not in out
    record = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert record["versions"]["torch"] == torch.__version__
    assert record["results"][0]["ratios"]["other"] > 0
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_a_device_that_is_not_there_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--device", "nonsense"])
    assert "--device nonsense cannot be used here: needed cpu, cuda" in capsys.readouterr().err


def test_a_run_on_a_device_names_it_has_targets_on_the_cpu_alone_and_leaves_the_other_ones_file(
    monkeypatch, tmp_path, device, capsys
):
    places = []

    def some(device, quick):
        places.append(device)
        yield Case("first", "small", nothing, {"other": nothing}, {"other": 1e-9})

    monkeypatch.setattr(bench, "cases", some)
    monkeypatch.setattr(bench, "growth", lambda place, *_: places.append(place) or {})
    file = tmp_path / "b.json"
    arguments = ["--quick", "--device", str(device), "--json", str(file)]
    assert bench.main(arguments) == 0
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["versions"] == bench.versions(device)
    assert record["results"][0]["targets"] == ({"other": 1e-9} if device.type == "cpu" else {})
    assert places == [device] * 2
    assert bench.main(arguments) == 0  # its own file may be replaced
    record["versions"]["device"] = "some GPU" if device.type == "cpu" else "CPU, 2 threads"
    file.write_text(json.dumps(record))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert f"holds results of another device, {record['versions']['device']}" in capsys.readouterr().err
    assert len(places) == 4


@pytest.mark.parametrize("quick", [True, False])
def test_too_little_memory_is_a_sentence_after_what_was_measured(monkeypatch, tmp_path, capsys, quick):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. Of 8 GiB 1 GiB is free. More.")

    def some(device, quick):
        yield Case("first", "small", nothing, {"other": nothing})
        yield Case("second", "large", fail, {})

    monkeypatch.setattr(bench, "cases", some)
    file = tmp_path / "b.json"
    assert bench.main(["--quick"] * quick + ["--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "first: small" in out
    assert [result["question"] for result in json.loads(file.read_text(encoding="utf-8"))["results"]] == ["first"]
    assert "stopped after 1 of 2 cases: the GPU has too little memory: torch tried to allocate 2 GiB" in err
    assert "1 GiB is free; end other programs" in err
    assert ("--quick" in err) != quick
    assert len(err.splitlines()) == 1


def test_trained_kernels_are_finite_and_not_like_random_ones():
    for name, kernel in trained_kernels().items():
        c_in, _, c_out = name.split()
        assert kernel.shape == (int(c_out), int(c_in), 3, 3)
        random = torch.randn(kernel.shape) * kernel.std()
        assert operator_norm(ConvOperator(kernel, (8, 8)), 2) > 1.5 * operator_norm(ConvOperator(random, (8, 8)), 2)
    assert len(LAYERS) == 3


def test_the_stored_table_says_what_takes_the_time_where_it_misses_a_target():
    stored = json.loads((ROOT / "notebooks/results/bench-cpu.json").read_text(encoding="utf-8"))["results"]
    missed = [r for r in stored if any(r["ratios"][name] < wanted for name, wanted in r["targets"].items())]
    assert [r["case"] for r in missed if not r["limit"]] == []
