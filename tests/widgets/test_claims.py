"""The panel of notebook 15: it shows every tested claim once, in the color of its verdict, and counts them."""

from functools import partial

import pytest

from convkit.papers import claims
from convkit.papers.scoreboard import NOT_TESTED
from convkit.plots.style import BLUE, GREEN, VERMILION
from convkit.widgets.claims import ALL, REACH, ROWS, VERDICTS, ClaimsPanel
from tests import RESULTS

PANEL = partial(ClaimsPanel, RESULTS / "papers")
LINES = claims(RESULTS / "papers")
DRAWN = [line for line in LINES if line.points is not None]


def pages(panel):
    """All claims that the pages of the present choice show, and the colors of their lines."""
    seen, colors = [], []
    for page in range(1, 1 + max(1, -(-len(DRAWN) // ROWS))):
        try:
            panel.set(page=page)
        except ValueError:
            break
        if "move the slider back" in panel.words:
            break
        [ax] = panel.figure.axes
        seen += [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
        colors += [line.get_color() for line in ax.lines if line.get_linewidth() == 3]
        colors += [text.get_color() for text in ax.texts]
    return seen, colors


def test_every_claim_about_an_accuracy_with_several_seeds_is_shown_once(panel):
    seen, _ = pages(panel)
    assert len(seen) == len(DRAWN) > ROWS
    for line in DRAWN:
        assert sum(line.claim.startswith(name[:50]) for name in seen) >= 1, line.claim


@pytest.mark.parametrize("verdict, color", [("as printed", GREEN), ("the other way", VERMILION), ("cannot say", BLUE)])
def test_a_verdict_has_its_claims_and_its_color(panel, verdict, color):
    panel.reset()
    panel.set(verdict=verdict)
    wanted = [line for line in DRAWN if line.verdict in VERDICTS[verdict]]
    seen, colors = pages(panel)
    assert len(seen) == len(wanted) > 0
    assert set(colors) == {color}


def test_the_words_count_the_tested_claims_of_a_paper(says):
    tested = [line for line in LINES if line.verdict != NOT_TESTED]
    says(False, f"{len(tested)} of {len(LINES)} claims are tested", paper=ALL)
    for letter in "SCWL":
        own = [line for line in LINES if line.key[0] == letter]
        count = sum(line.verdict != NOT_TESTED for line in own)
        says(False, f"{count} of {len(own)} claims are tested", paper=letter)


def test_an_interval_is_that_of_the_scoreboard_and_far_ones_are_arrows(panel):
    panel.reset()
    panel.set(verdict="the other way")
    [ax] = panel.figure.axes
    wanted = [line for letter in "SCWLM" for line in DRAWN if line.key[0] == letter]
    wanted = [line for line in wanted if line.verdict in VERDICTS["the other way"]]
    assert any(abs(line.points[0]) > REACH for line in wanted)
    for place, line in enumerate(wanted[:ROWS]):
        value, low, high = line.points
        at = [one for one in ax.lines if one.get_linewidth() == 3 and one.get_ydata()[0] == place]
        if abs(value) > REACH:
            assert not at
            assert any(f"{value:+.0f}" in text.get_text() for text in ax.texts)
        else:
            assert at[0].get_xdata().tolist() == [max(low, -REACH), min(high, REACH)]
            assert f"{value:+.1f}" in line.measured


def test_another_choice_goes_back_to_the_first_page_and_a_page_too_far_is_refused(panel):
    panel.reset()
    panel.set(page=2)
    panel.control("verdict").value = "as printed"
    assert panel.values["page"] == 1
    panel.set(page=2)
    assert panel.words.alert == (sum(line.verdict in VERDICTS["as printed"] for line in DRAWN) <= ROWS)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a folder with results"):
        ClaimsPanel(tmp_path / "no")
