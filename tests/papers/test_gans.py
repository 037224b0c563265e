"""Table 3 of Liu et al. 2021: every cell trains, is judged as its scale says, and can be stopped; what is claimed."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("sklearn")
from convkit.data.dataset import Data
from convkit.papers import gans
from convkit.papers.gans import CELLS, FULL, INCEPTION, METRICS, PRINTED, TINY, cells, judge, run_gan
from convkit.papers.protocols import PAPERS
from convkit.papers.scoreboard import judged, table, word
from convkit.papers.tables import knobs_of, setting_of
from convkit.training.gan_plan import GanRecord
from tests.helpers.refusals import refused


def job(name, scale=TINY):
    (cell,) = cells(name)
    return {
        "cell": name,
        "method": cell.method,
        "knobs": knobs_of(cell, scale),
        "setting": setting_of(cell, scale),
        "seed": 1,
    }


class Inception(nn.Module):
    """A network with the two answers of the file of published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)

    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        y = self.body(x.float().mean((2, 3)))
        return y if return_features else y.softmax(1)


@pytest.fixture
def color(monkeypatch):
    """Twenty images of three channels and 32 pixels in the place of CIFAR-10."""
    x = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 2
    monkeypatch.setattr(gans, "data_of", lambda *_: Data("color", x, y, x, y, ("a", "b")))


def narrow():
    options = {**FULL.options, "channels": [4, 4], "images": 12, "sets": 2}
    return replace(FULL, options=options, plan={"steps": 2, "batch_size": 4})


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_papers_table_trains_and_gets_both_scores_from_the_network_beside_the_data(
    name, color, tmp_path
):
    pytest.importorskip("torchmetrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what the published file is in
        torch.jit.save(torch.jit.script(Inception()), tmp_path / INCEPTION)
    found = run_gan(**job(name, narrow()), folder=str(tmp_path))
    assert {*found} == {"lost", *METRICS["C-table3"]}
    assert found["lost"] is None
    assert found["FID"] > 0
    assert 1 <= found["IS"] <= 4


def test_without_the_inception_network_it_says_what_is_missing_before_it_trains(color, tmp_path):
    refused(rf"{INCEPTION}, in the folder of the data, .*C-table3-digits", run_gan, **job("SN", narrow()), folder=None)
    refused("put it there", run_gan, **job("SN", narrow()), folder=str(tmp_path))


def test_a_run_is_judged_by_one_classifier_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setitem(gans.JUDGE, "steps", 3)
    judge.cache_clear()
    whole = run_gan(**job("SN"))
    assert {*whole} == {"lost", *METRICS["C-table3-digits"]}
    assert judge.cache_info().misses == 1
    fit_gan = gans.fit_gan

    def stopped(*of, **how):
        run = fit_gan(*of, **how)
        yield next(run)
        run.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(gans, "fit_gan", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_gan(**job("SN"), checkpoints=str(tmp_path))
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".pt", ".history"]
    monkeypatch.setattr(gans, "fit_gan", fit_gan)
    assert run_gan(**job("SN"), checkpoints=str(tmp_path)) == whole
    assert not [*tmp_path.iterdir()]
    assert judge.cache_info().misses == 1
    judge.cache_clear()


def test_a_run_that_ended_early_says_so_and_is_judged_where_it_ended(monkeypatch):
    monkeypatch.setitem(gans.JUDGE, "steps", 3)
    judge.cache_clear()

    def lost(generator, *_, averaged, **__):
        with torch.no_grad():
            averaged.linear.weight.fill_(torch.nan)
        yield GanRecord(1, 0.0, 0.0, 0.0, 0.0, 1.0, 0.1, diverged="the weights are not finite after step 1")

    monkeypatch.setattr(gans, "fit_gan", lost)
    found = run_gan(**job("Vanilla"))
    assert "not finite" in found["lost"]
    assert found["IS-cnn9"] == pytest.approx(1)
    assert found["FD-cnn9"] > 0
    judge.cache_clear()


def test_the_claims_are_that_sn_is_best_and_convnorm_second_as_the_table_says():
    for metric, sign in (("FID", 1), ("IS", -1)):
        ranks = sorted(PRINTED, key=lambda name, metric=metric, sign=sign: sign * PRINTED[name][metric])
        assert ranks[:2] == ["SN", "ConvNorm"]
    protocol = PAPERS["C-table3"]
    pairs = {(claim.metric, *claim.ours, *claim.theirs): claim.printed for claim in protocol.claims}
    second = {name for name in PRINTED if name not in ("SN", "ConvNorm")}
    expected = {("SN", "ConvNorm"), *(("ConvNorm", name) for name in second)}
    assert {*pairs} == {(metric, *pair) for pair in expected for metric in ("IS", "FID")}
    for (metric, ours, theirs), said in pairs.items():
        assert said == ("higher" if PRINTED[ours][metric] > PRINTED[theirs][metric] else "lower")


def test_scores_are_compared_and_shown_as_they_are():
    protocol, scale = PAPERS["C-table3-digits"], PAPERS["C-table3-digits"].scales["small"]
    claim = next(one for one in protocol.claims if one.metric == "FD-cnn9")
    values = {"SN": [5.0, 6.0, 5.5], "ConvNorm": [7.0, 8.5, 7.4]}
    runs = [
        {"cell": cell, "knobs": {}, "held_out": False, "seed": seed, "lost": None, "FD-cnn9": value}
        for cell, own in values.items()
        for seed, value in enumerate(own)
    ]
    found = judged(claim, protocol, {"runs": runs})
    assert found is not None
    assert found.difference == pytest.approx(-(2 + 2.5 + 1.9) / 3)
    assert word(claim, found, scale) == "same sign"
    assert "| 5.5 ± " in table(protocol, scale, {"runs": runs})
