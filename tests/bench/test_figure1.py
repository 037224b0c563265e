"""Figure 1 of Sedghi et al.: every route gives the singular values, and curves end where time or memory does."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from convkit.bench import figure1, timing
from convkit.bench.cases import random_operator
from convkit.bench.figure1 import LEFT, RIGHT, ROUTES, Curve, Graph, Route, curve, free_memory, table

CPU = torch.device("cpu")
SMALL = Graph(5, 3, (2, 4, 8, 16))


def nothing() -> None:
    pass


@pytest.fixture
def timed(monkeypatch):
    """A route that takes a known time for each number of channels; with it, the channels of its calls."""
    now, calls = [0.0], []
    monkeypatch.setattr(figure1, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(seconds, **options):
        def task(A):
            def run():
                calls.append(len(A.kernel))
                now[0] += seconds(len(A.kernel))

            return run

        return Route("a route", task, options.pop("numbers", lambda graph, c: 0.0), **options)

    make.calls = calls
    return make


def test_the_graphs_are_those_of_the_paper():
    assert (LEFT.image, LEFT.kernel, LEFT.channels[-1]) == (16, 3, 1000)
    assert (RIGHT.image, RIGHT.kernel, RIGHT.channels[-1]) == (64, 11, 250)
    assert {200, 400, 600, 800} < {*LEFT.channels}
    assert {50, 100, 150, 200} < {*RIGHT.channels}


def test_every_route_computes_all_singular_values(device):
    A = random_operator(4, 4, 6, 3, device)
    wanted = torch.linalg.svdvals(A.matrix()).cpu()
    for route in ROUTES:
        found = torch.as_tensor(route.task(A)()).flatten().cpu().sort(descending=True).values
        assert_close(found, wanted, msg=route.name)


def test_a_curve_ends_before_the_point_that_would_take_longer(timed):
    found = curve(SMALL, timed(lambda c: c**3 / 64), CPU, 10.0, math.inf, nothing)
    assert found.channels == [2, 4, 8]
    assert found.seconds == pytest.approx([1 / 8, 1, 8])
    assert found.ended == "16 channels would take about 64 s, more than 10"
    assert timed.calls == [2] * 5 + [
        4,
        8,
    ]  # the first call is not timed; points of less than a second are called some more times


def test_of_short_calls_the_fastest_counts_and_the_very_first_is_not_timed(timed):
    slow = iter([5.0, 0.9, 0.5, 0.25, 0.4])
    assert curve(Graph(5, 3, (2,)), timed(lambda c: next(slow)), CPU, 10.0, math.inf, nothing).seconds == [0.25]


def test_a_curve_ends_where_memory_does(timed):
    route = timed(lambda c: 1.0, numbers=lambda graph, c: c * 2.0**30 / 16)
    found = curve(SMALL, route, CPU, 100.0, 13 * 2.0**30, nothing)
    assert found.channels == [2, 4]
    assert found.ended == "8 channels need 24 GiB, and there are 13"

    def fail(c):
        if c == 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. Of 8 GiB 1 GiB is free. More.")
        return 1.0

    found = curve(SMALL, timed(fail), CPU, 100.0, math.inf, nothing)
    assert found.channels == [2, 4]
    assert found.ended.startswith("8 channels: the GPU has too little memory: torch tried to allocate 2 GiB")
    assert curve(SMALL, timed(lambda c: 1.0), CPU, 100.0, math.inf, nothing).ended == ""
    full = curve(Graph(64, 1, (8,)), ROUTES[0], CPU, 100.0, math.inf, nothing)
    assert full.channels == []
    assert full.ended.startswith("8 channels: the dense matrix must take at most 1 GiB")


def test_there_is_memory_and_the_full_matrix_of_the_right_graph_does_not_fit(device):
    assert 2.0**28 < free_memory(device) < 2.0**50
    matrix = ROUTES[0]
    assert (
        16 * matrix.numbers(RIGHT, 16) == 8 * 121 * (4096 * 16) ** 2 > 2.0**40
    )  # as in the paper, which has no curve for it


def test_the_command_prints_and_writes_both_graphs(monkeypatch, tmp_path, device, capsys):
    monkeypatch.setattr(figure1, "LEFT", SMALL)
    monkeypatch.setattr(figure1, "RIGHT", Graph(6, 5, (3, 6)))
    monkeypatch.setattr(figure1, "QUICK_SECONDS", 1e6)  # on a slow machine, too, all points fit
    files = tmp_path / "f.json", tmp_path / "f.png"
    arguments = ["--figure1", "--quick", "--device", str(device), "--json", str(files[0]), "--plot", str(files[1])]
    assert timing.main(arguments) == 0
    record = json.loads(files[0].read_text(encoding="utf-8"))
    assert record["versions"]["torch"] == torch.__version__
    assert record["limit"] == 1e6
    curves = [Curve(**one) for one in record["curves"]]
    assert [(one.image, one.route) for one in curves] == [(n, route.name) for n in (5, 6) for route in ROUTES]
    assert all(one.channels == [2, 4, 8, 16] for one in curves[1:4])
    assert all(min(one.seconds) > 0 for one in curves)
    assert files[1].stat().st_size > 1000
    out = capsys.readouterr().out
    assert table(curves) in out
    assert "seconds for all singular values, 5 x 5 kernels, 6 x 6 image" in out


def test_an_interrupted_run_keeps_the_curves_that_are_finished(monkeypatch, tmp_path, capsys):
    def stop(A):
        raise KeyboardInterrupt

    quick = Route("quick", lambda A: nothing, lambda graph, c: 0.0)
    monkeypatch.setattr(figure1, "ROUTES", (quick, Route("stopped", stop, lambda graph, c: 0.0)))
    assert figure1.run(CPU, 1.0, tmp_path / "f.json", tmp_path / "f.png", nothing) == 0
    assert "stopped after 1 of 4 curves" in capsys.readouterr().out
    assert [one["route"] for one in json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["curves"]] == [
        "quick"
    ]


def test_the_table_has_a_dash_where_a_curve_has_ended():
    short = Curve("short", 5, 3, [2], [0.5], "4 channels would take about 4 s, more than 2")
    lines = table([Curve("long", 5, 3, [2, 4], [0.25, 2.0]), short]).splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["channels", "2", "4"],
        ["long", "0.25", "2"],
        ["short", "0.5", "-"],
    ]
    assert lines[4] == "    short ends: 4 channels would take about 4 s, more than 2"
