"""Protocols: the papers' tables as data; how one is run, stopped and resumed; what the page says of the runs."""

import json
import math
import re
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

pytest.importorskip("sklearn")
pytest.importorskip("pyautoattack")
from convkit.data import DATA, digits
from convkit.methods.registry import METHODS
from convkit.models.registry import MODELS
from convkit.papers import cells, command, tables
from convkit.papers.cells import Best, run_cell
from convkit.papers.gans import METRICS
from convkit.papers.protocols import PAPERS, Cell, Claim, Protocol, Scale, tiny
from convkit.papers.runs import VARIANTS, Runs, Trained, load_experiments
from convkit.papers.scoreboard import claims, judged, page, table, word
from convkit.papers.tables import collected, restore, run_protocol
from convkit.training.evaluation import evaluate
from convkit.training.sweeps import sweep
from tests import RESULTS

load_experiments()
KEYS = [key for key, protocol in PAPERS.items() if "tiny" in protocol.scales]
SCALE = Scale(1, 2, "digits", "cnn9", {"widths": [2, 2, 2]}, {"steps": 3, "batch_size": 8}, images=60, tests=20)
PAIR = Protocol("C", "Table 0", "two methods", [Cell("BN", "batchnorm"), Cell("plain", "plain")], {"small": SCALE})


class Here(Executor):
    """An executor that runs each call at once, and ends with Ctrl-C after some of them."""

    def __init__(self, calls=math.inf):
        self.calls, self.done = calls, []

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        if len(self.done) >= self.calls:
            future.set_exception(KeyboardInterrupt())
            return future
        future.set_result(function(*args, **kwargs))
        job = function.keywords
        self.done.append((job["cell"], job["seed"], job["held_out"], job["knobs"].get("lr")))
        return future


@dataclass(frozen=True)
class Local(Runs):
    """Runs in this process."""

    pool: Here = field(default_factory=Here)

    def sweep(self, job, jobs):
        return sweep(job, jobs, self.results_file, self.pool)


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path / "runs.jsonl")


# ---- the rows --------------------------------------------------------------------------------------------------------
def test_every_table_and_figure_of_the_papers_has_a_row():
    numbered = {
        "S": {"figure": 7},
        "C": {"table": 3, "figure": 4},
        "W": {"table": 6, "figure": 2},
        "L": {"table": 2, "figure": 2},
    }
    for paper, kinds in numbered.items():
        items = " ".join(protocol.item for protocol in PAPERS.values() if protocol.paper == paper)
        ranges = [range(int(a), int(b) + 1) for a, b in re.findall(r"Figures (\d)-(\d)", items)]
        for kind, count in kinds.items():
            for number in range(1, count + 1):
                ranged = kind == "figure" and any(number in some for some in ranges)
                assert ranged or re.search(rf"{kind} {number}", items, re.IGNORECASE), (paper, kind, number)


def test_every_row_can_be_run_or_says_what_to_do_instead():
    for key, protocol in PAPERS.items():
        assert key.startswith(f"{protocol.paper}-")
        assert bool(protocol.scales) == bool(protocol.cells) != bool(protocol.instead), key
        names = [cell.name for cell in protocol.cells]
        assert len({*names}) == len(names)
        for claim in protocol.claims:
            assert {*claim.ours, *claim.theirs} <= {*names}, (key, claim.words)
            assert not {*claim.ours} & {*claim.theirs}
        for cell in protocol.cells:
            method = VARIANTS.get(cell.method) or METHODS[cell.method]
            method.settings({**cell.knobs, **{name: values[0] for name, values in cell.tuned.items()}})
            assert {*cell.changes} <= {*asdict(SCALE)}, (key, cell.name)
        for scale in protocol.scales.values():
            assert scale.model in MODELS or protocol.run is not None
            assert scale.choose == "clean" or scale.choose in scale.attacks
            assert ("epochs" in scale.plan) != ("steps" in scale.plan)
            measured = {"clean", *scale.attacks, *(f"after {100 * part:g} %" for part in scale.looks)}
            measured |= {f"queries of {name}" for name, attack in scale.attacks.items() if attack["attack"] == "simba"}
            measured |= {"norm1", "norm2", "norm_inf"} if scale.norms else set()
            measured |= {"mean class"} if DATA[scale.data.removesuffix("-jpeg")].clouds else set()
            measured = {*METRICS[key]} if protocol.run is not None else measured
            assert {claim.metric for claim in protocol.claims} <= measured, key
            assert {name for cell in protocol.cells for name in cell.printed} <= measured, key


def test_the_printed_numbers_are_those_of_the_papers():
    folder = Path(__file__).parents[3] / "shared" / "papers"
    if not folder.is_dir():
        pytest.skip("the texts of the papers are not here")
    printed = {file.name[0]: file.read_text(errors="replace") for file in folder.glob("*.txt")}
    for key, protocol in PAPERS.items():
        for cell in protocol.cells:
            for value in cell.printed.values():
                texts = {f"{number:{form}}" for number in (value, 100 - value) for form in (".1f", ".2f")}
                found = [text for text in texts if re.search(rf"(?<![\d.]){re.escape(text)}(?!\d)", printed[key[0]])]
                assert found, (key, cell.name, value)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_every_protocol_runs_at_its_tiny_scale(key, local):
    protocol = PAPERS[key]
    one_each = {(cell.method, str(cell.changes)): cell for cell in protocol.cells}
    fewer = replace(protocol, cells=[*one_each.values()])
    results = run_protocol(fewer, protocol.scales["tiny"], local)
    runs = [run for run in results["runs"] if not run["held_out"]]
    assert {run["cell"] for run in runs} == {cell.name for cell in fewer.cells}
    measured = set.union(*({*run} for run in runs if run["lost"] is None))
    assert {"clean", *protocol.scales["tiny"].attacks} <= measured or {*METRICS.get(key, ("clean",))} <= measured
    assert {claim.metric for claim in protocol.claims} <= measured | {"queries of SimBA"}
    assert table(fewer, protocol.scales["tiny"], results)


# ---- one run ---------------------------------------------------------------------------------------------------------
def setting(**changes):
    return tables._setting(replace(SCALE, **changes))


def test_a_held_out_run_never_sees_the_test_images(monkeypatch):
    seen = []
    monkeypatch.setattr(cells, "evaluate", lambda model, data: seen.append(data) or 0.5)
    whole = digits()
    training, tests = ({image.numpy().tobytes() for image in part} for part in (whole.images, whole.test_images))
    for images, sizes in ((60, (60, 1000)), (None, (1293, 144))):
        seen.clear()
        for held_out in (True, False):
            run_cell("BN", "batchnorm", {}, setting(images=images), seed=3, held_out=held_out)
        assert (len(seen[0].images), len(seen[0].test_images)) == sizes
        held = [image.numpy().tobytes() for image in seen[0].test_images]
        assert {*held} <= training - tests
        assert not {*held} & {image.numpy().tobytes() for image in seen[0].images}
        assert len(seen[1].test_images) == 20
        assert len(seen[1].images) == images or 1437
    assert torch.equal(
        seen[1].test_images, cells.data_of(setting(), 0, False, None, "cpu").test_images
    )  # for every seed


def test_early_stopping_gives_back_the_best_state_on_held_out_images():
    data = digits()
    best = Best(data, steps=40)
    assert best.every == 2
    assert len(best.data) + len(best.data.test_images) == len(data)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    states = []
    for step in range(1, 9):
        with torch.no_grad():
            model[1].weight.normal_(generator=torch.Generator().manual_seed(step))
        best.look(model, type("Record", (), {"step": step}))
        if step % 2 == 0:
            states.append((evaluate(model, best.data), model[1].weight.detach().clone()))
    restored = best.restore(model)
    top = max(accuracy for accuracy, _ in states)
    assert evaluate(restored, best.data) == top
    assert any(accuracy == top and torch.equal(weight, restored[1].weight) for accuracy, weight in states)


def test_images_and_noise_are_drawn_by_the_seed():
    one, other = (cells.data_of(setting(noise=0.5), seed, False, None, "cpu") for seed in (0, 1))
    assert len(one) == 60 == len(other)
    assert not torch.equal(one.images, other.images)
    wrong = (one.labels != one.clean_labels).double().mean()
    assert 0.25 < wrong < 0.6
    held_out = cells.data_of(setting(noise=0.5), 0, True, None, "cpu")
    assert torch.equal(held_out.labels, one.labels)
    assert_close(one.test_labels, other.test_labels)


def test_a_lost_run_counts_as_accuracy_zero(monkeypatch):
    monkeypatch.setattr(cells, "train", lambda *_, **__: Trained(nn.Identity(), "the loss is nan at step 3"))
    settings = setting(attacks={"robust": {"attack": "fgsm", "images": 4, "eps": 0.1}})
    lost = run_cell("plain", "plain", {"lr": 0.1}, settings, seed=0)
    assert lost == {"lost": "the loss is nan at step 3", "clean": 0.0, "robust": 0.0}


# ---- a protocol is run, stopped and resumed --------------------------------------------------------------------------
def test_rates_are_chosen_by_held_out_images_for_each_cell(local, monkeypatch):
    def job(cell, knobs, held_out, seed, **_):
        best = {"BN": 0.1, "plain": 0.02}[cell]
        return {"lost": None, "clean": (0.9 if knobs["lr"] == best else 0.5) + seed % 2 * 0.01}

    monkeypatch.setattr(tables, "run_cell", job)
    scale = replace(SCALE, rates=(0.02, 0.05, 0.1))
    results = run_protocol(PAIR, scale, local)
    assert len(results["runs"]) == 2 * 3 * 3 + 2 * 2
    assert {(run["cell"], run["knobs"]["lr"]) for run in results["runs"] if not run["held_out"]} == {
        ("BN", 0.1),
        ("plain", 0.02),
    }


def test_strengths_are_tried_with_the_rates_and_the_scales_knobs_reach_the_methods_that_have_them(local):
    protocol = replace(PAIR, cells=[Cell("OCNN", "ocnn", tuned={"beta": (0.01, 0.1)}), Cell("clip", "norm_clip")])
    scale = replace(SCALE, rates=(0.02, 0.05), knobs={"every": 2})
    grids = [tables._grid(cell, scale) for cell in protocol.cells]
    assert grids[0] == [{"lr": lr, "beta": beta} for lr in (0.02, 0.05) for beta in (0.01, 0.1)]
    assert grids[1] == [{"every": 2, "lr": lr} for lr in (0.02, 0.05)]


def test_a_stopped_protocol_repeats_nothing_and_more_seeds_run_those_alone(local, tmp_path):
    scale = replace(SCALE, rates=(0.02, 0.1))
    local.pool.calls = 5
    with pytest.raises(KeyboardInterrupt):
        run_protocol(PAIR, scale, local)
    part = json.loads(json.dumps(collected(scale, local.results_file)))
    assert len(part["runs"]) == 5
    local.results_file.unlink()  # as if the stored part were all that is left
    restore(PAIR, scale, part, local)
    local.pool.calls = math.inf
    results = run_protocol(PAIR, scale, local)
    assert len(local.pool.done) == len({*local.pool.done}) == 3 * 2 * 2 + 2 * 2
    whole = Local(tmp_path / "whole.jsonl")
    fresh = run_protocol(PAIR, scale, whole)
    key = str
    assert sorted(fresh["runs"], key=key) == sorted(results["runs"], key=key)
    before = len(local.pool.done)
    more = run_protocol(PAIR, scale, local, seeds=3)
    assert len(local.pool.done) == before + 2
    assert sorted(run["seed"] for run in more["runs"] if not run["held_out"]) == [0, 0, 1, 1, 2, 2]


def test_results_of_another_protocol_are_refused_and_kept(local):
    results = run_protocol(PAIR, SCALE, local)
    before = local.results_file.read_text()
    with pytest.raises(ValueError, match="another plan"):
        restore(PAIR, replace(SCALE, plan={"steps": 4, "batch_size": 8}), results, local)
    with pytest.raises(ValueError, match="version 1, not"):
        restore(PAIR, SCALE, {**results, "version": 1}, local)
    assert local.results_file.read_text() == before


# ---- what the runs say -----------------------------------------------------------------------------------------------
def stored(metric, ours, theirs):
    sides = {"BN": ours, "plain": theirs}
    runs = [
        {"cell": cell, "knobs": {}, "held_out": False, "seed": seed, "lost": None, metric: value}
        for cell, values in sides.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    return {"runs": runs}


def test_a_verdict_is_of_paired_seeds_in_percent_and_norms_are_compared_by_factors():
    claim = Claim("more", ("BN",), ("plain",), "clean", "higher")
    found = judged(claim, PAIR, stored("clean", [0.9, 0.8, 0.7], [0.88, 0.79, 0.67]))
    assert found is not None
    assert found.difference == pytest.approx(2)
    assert found.pairs == 3
    assert judged(claim, PAIR, stored("clean", [0.9], [0.8])) is None
    assert judged(claim, PAIR, stored("clean", [0.9, None, 0.7], [0.8, 0.8, 0.6])).pairs == 2
    doubled = judged(replace(claim, metric="norm2"), PAIR, stored("norm2", [2, 4.4], [1, 2]))
    assert doubled is not None
    assert math.exp(doubled.difference) == pytest.approx((2 * 2.2) ** 0.5)


def test_a_claim_of_the_highest_takes_the_best_cell_of_each_seed():
    trio = replace(PAIR, cells=[*PAIR.cells, Cell("SN", "spectral_norm")])
    of_pair, of_sn = (stored("clean", *sides)["runs"] for sides in ([[0.9, 0.5], [0.8, 0.6]], [[], [0.4, 0.7]]))
    runs = {"runs": of_pair + [run | {"cell": "SN"} for run in of_sn]}
    claim = Claim("higher", ("plain", "SN"), ("BN",), "clean", "higher", "highest")
    assert judged(claim, trio, runs).difference == pytest.approx(((80 - 90) + (70 - 50)) / 2)
    mean = judged(replace(claim, over_cells="mean"), trio, runs)
    assert mean.difference == pytest.approx(((60 - 90) + (65 - 50)) / 2)


def test_the_claims_of_figure_3_take_every_bound_and_without_batchnorm_the_best_result_too():
    for letter, numbers in (("a", ["mean", "highest"]), ("b", ["mean"])):
        protocol = PAPERS[f"S-figure3{letter}"]
        assert [claim.over_cells for claim in protocol.claims] == [number for number in numbers for _ in range(4)]
        for claim in protocol.claims:
            assert len(claim.ours) == len(claim.theirs) == 5
        clipped = {cell.name for cell in protocol.cells if cell.name.startswith("clip ")}
        assert {name for claim in protocol.claims for name in claim.ours} == clipped


@pytest.mark.parametrize("paper", [True, False])
def test_only_the_papers_own_network_agrees_or_disagrees(paper):
    scale = replace(SCALE, paper=paper)
    up = stored("clean", [0.9, 0.8, 0.7], [0.88, 0.78, 0.67])
    even = stored("clean", [0.9, 0.8, 0.7], [0.8, 0.9, 0.7])
    same, opposite = ("agrees", "disagrees") if paper else ("same sign", "opposite sign")
    for printed, expected in (("higher", same), ("lower", opposite), ("not lower", same)):
        claim = Claim("", ("BN",), ("plain",), "clean", printed)
        assert word(claim, judged(claim, PAIR, up), scale) == expected
        assert word(claim, judged(claim, PAIR, even), scale) == "cannot say"
        assert word(claim, None, scale) == "cannot say"
    down = Claim("", ("plain",), ("BN",), "clean", "not lower")
    assert word(down, judged(down, PAIR, up), scale) == opposite


def test_a_claim_about_several_cells_says_which_number_of_them_it_takes():
    for name in PAPERS:
        for claim in PAPERS[name].claims:
            assert max(len(claim.ours), len(claim.theirs)) == 1 or claim.over_cells in claim.words, claim.words


def test_the_stored_page_is_that_of_the_stored_results():
    folder = RESULTS / "papers"
    assert (folder / "README.md").read_text(encoding="utf-8") == page(folder)
    for file in folder.glob("*.json"):
        key, scale = file.stem.rsplit("-", 1)
        results = json.loads(file.read_text(encoding="utf-8"))
        assert results["version"] == tables.VERSION
        assert results["setting"] == tables._setting(PAPERS[key].scales[scale]), file.name
        assert results["experiment"] == key
        assert f"{key} --scale {scale}" in results["command"]


def test_the_board_of_a_notebook_holds_every_claim_of_its_paper(tmp_path):
    board = claims(tmp_path, "S")
    assert {line.verdict for line in board} == {"not tested at this scale"}
    assert len(board) == sum(len(protocol.claims) for key, protocol in PAPERS.items() if key.startswith("S"))
    assert board._repr_html_().count("<tr>") == len(board) + 1
    assert "papers S-figure2 --scale small" in str(board)


# ---- the command -----------------------------------------------------------------------------------------------------
def test_the_command_writes_a_table_and_goes_on_from_it(monkeypatch, tmp_path, capsys):
    pool = Here()
    monkeypatch.setattr(Runs, "sweep", lambda self, job, jobs: sweep(job, jobs, self.results_file, pool))
    monkeypatch.setitem(PAPERS._entries, "C-toy", replace(PAIR, scales={"small": replace(SCALE, rates=(0.1,))}))
    file = tmp_path / "C-toy-small.json"
    pool.calls = 7
    assert command.main(["C-toy", "--json", str(file)]) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert len(json.loads(file.read_text())["runs"]) == 7
    pool.calls = math.inf
    assert command.main(["C-toy", "--json", str(file)]) == 0
    assert "| BN | lr 0.1 | 2 |" in capsys.readouterr().out
    assert command.main(["C-toy", "--json", str(file), "--seeds", "3"]) == 0
    results = json.loads(file.read_text())
    assert len(pool.done) == len({*pool.done}) == len(results["runs"]) == 2 * 3 + 2 * 3
    assert results["command"] == "python3 -m convkit papers C-toy --scale small"
    assert {path.name for path in tmp_path.iterdir()} == {file.name}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["L-tabel2"], "L-table2"),
        (["L-table2", "--scale", "huge"], "has the scales tiny, small"),
        (["L-table2", "--scale", "short"], "needs --data DIR"),
        (["W-table6"], "needs ImageNet"),
        (["C-figure2"], "notebook 07"),
        (["separation", "--scale", "small"], "leave --scale"),
        (["L-table2", "--seeds", "0"], "at least 1"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(given, words, capsys):
    with pytest.raises(SystemExit):
        command.main(given)
    assert words in capsys.readouterr().err


def test_the_page_is_written_from_the_results_beside_it(tmp_path, capsys):
    assert command.main(["scoreboard", "--json", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text == page(Path(tmp_path))
    assert "## W: Ikami et al. 2021" in text


def test_tiny_scales_take_few_images_and_steps():
    for scale in (tiny(SCALE), tiny(replace(SCALE, plan={"epochs": 3, "batch_size": 128}))):
        assert scale.plan == {"steps": 3, "batch_size": 10}
        assert scale.images == 60


# ---- point clouds ----------------------------------------------------------------------------------------------------
def test_the_table_of_point_clouds_replaces_every_batchnorm_and_prints_both_accuracies(monkeypatch):
    protocol = PAPERS["W-table5"]
    claims = {(claim.theirs[0], claim.metric): claim.printed for claim in protocol.claims}
    assert claims == {
        **{("GN", "clean"): "higher", ("WS+GN", "clean"): "higher", ("BN", "clean"): "lower"},
        **{("WS+BN", "clean"): "lower", ("GN", "mean class"): "higher"},
    }
    full, small = protocol.scales["full"], protocol.scales["small"]
    assert (full.options, full.knobs, full.rates) == ({}, {}, ())  # as published
    assert small.seeds == 8
    data, models = [], []
    measured = cells.mean_class_accuracy
    monkeypatch.setattr(
        cells, "mean_class_accuracy", lambda model, d: data.append(d) or models.append(model) or measured(model, d)
    )
    tiny = protocol.scales["tiny"]
    for cell in protocol.cells:
        result = run_cell(cell.name, cell.method, tables.knobs_of(cell, tiny), tables.setting_of(cell, tiny), seed=0)
        assert result["lost"] is None
        counts = data[-1].test_labels.bincount(minlength=8)
        assert (result["clean"] == result["mean class"]) or len(set(counts.tolist())) > 1
    assert data[0].image_size == 128
    batchnorms = [any("BatchNorm" in type(m).__name__ for m in model.modules()) for model in models]
    assert batchnorms == [cell.name.endswith("BN") for cell in protocol.cells]
    sigmas = [{m.sigma for m in model.modules() if hasattr(m, "sigma")} for model in models[:2]]
    assert sigmas == [{0.4}, {0.0}]
