"""The training panel under a reader's mouse: Start, a slider moved on the way, Pause, Stop, divergence, reload."""

import csv
import re

import pytest

pytest.importorskip("nbclient")

import nbformat

from convkit.teaching import execute, stored
from tests.browser.lab import ANSWERED, BOOK
from tests.browser.view import PanelView

MAKE = """
import torch
from convkit.widgets.training import TrainingPanel
torch.set_num_threads(1)  # a second one only waits where the machine is busy
small = {"widths": (4, 6, 8), "first": 6, "steps": 100_000, "batch_size": 16, "schedule": "constant"}
panel = TrainingPanel(**small)
other = TrainingPanel(("plain", "norm_clip"), seed=1, **small)
wild = TrainingPanel(("convnorm", "plain"), seed=1, **small | {"steps": 40})
"""
UNSEEN = """
import asyncio
while not panel.runner.over:
    await asyncio.sleep(0.1)
panel.runner.why
"""
ATTACK = """
import torch
from convkit.data import digits, subset
from convkit.methods import network
from convkit.widgets.attacks import AttackPanel
from convkit.widgets.training import TrainingPanel
torch.set_num_threads(1)
data = subset(digits(), 200, test_count=30)
models = {name: network("cnn9", data, "batchnorm", seed=0, widths=(4, 6, 8)).eval() for name in ("plain", "other")}
attack = AttackPanel(models, data)
attack
"""
RACE = """
TrainingPanel(("batchnorm", "plain"), data, widths=(4, 6, 8), first=2, steps=8, every=4, batch_size=16, attack=attack)
"""
SAME = """
for run in panel.runs + other.runs:
    again = {}
    exec(run.code, again)
    print(run.setting.method, again["history"] == run.history)
"""
WATCH = """
import torch
from convkit.data import load
from convkit.methods import network
from convkit.training import fit
from convkit.widgets.training.knobs import knob_sliders
from convkit.widgets.training.live import run
torch.set_num_threads(1)
data, knobs = load("digits"), {}
sliders = knob_sliders("sphere", knobs, "sigma", "lr")
model = network("cnn9", data, "sphere", knobs=knobs, widths=(4, 6, 8))
records = fit(model, data, "sphere", steps=100_000, batch_size=16, evaluate_every=50, knobs=knobs)
history = await run(records, controls=sliders)
print(len(history), "records,", len({record.lr for record in history if record.step > 1}) > 1)
"""
DECAY = "from convkit.widgets.decay import DecayPanel\nDecayPanel()"
CELLS = [MAKE, "panel", "other", "wild", SAME, "panel.runner and panel.runner.step", "", DECAY]
MAKE_CELL, PANEL, OTHER, WILD, SAME_CELL, STEP_CELL, UNSEEN_CELL, DECAY_CELL = range(len(CELLS))
STEP = r"Number(now.words.match(/step (\d+)/)?.[1])"  # NaN where the words have none: every comparison is false


@pytest.fixture(scope="module")
def books(lab):
    """A notebook of panels, run and stored as all notebooks are, and one whose cell trains until it is stopped."""
    for name, sources in (("training.ipynb", CELLS), ("watching.ipynb", [WATCH]), ("attack.ipynb", [ATTACK, RACE])):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        book = execute(book, lab.folder) if sources is CELLS else book
        (lab.folder / name).write_text(stored(book), encoding="utf-8")
    return "training.ipynb", "watching.ipynb", "attack.ipynb"


def opened(reader, books, *cells):
    """Open the notebook of panels, run it so far, and return the panels of these cells."""
    reader.open(books[0])
    for cell in (0, *cells):
        reader.run_cell(cell)
    assert reader.trouble() == []
    return [view(reader, cell) for cell in cells]


def view(reader, cell, kind="panel"):
    return PanelView(reader, reader.cell(cell).locator(f".convkit-{kind}"))


def press(panel, name):
    panel.root.get_by_role("button", name=name, exact=True).click()


def says(pattern):
    return f"/{pattern}/.test(now.words)"


def step_of(seen):
    return int(re.search(r"step (\d+)", seen["words"])[1])


def goes_on(panel):
    """Wait for two later pictures, each with a later step in its words, and return what is seen then."""
    going = says(r"^Training: step \d+ of") + " && now.alt === now.words"  # the picture comes before the words
    last = panel.until(going)
    for _ in range(2):
        later = f"{going} && {STEP} > step && now.picture !== picture"
        last = panel.until(later, step=step_of(last), picture=last["picture"])
    return last


def test_the_stored_notebook_shows_training_before_any_run_and_the_files_of_the_table_can_be_saved(
    reader, books, tmp_path
):
    reader.open(books[0])
    image = reader.cell(PANEL).locator("img")
    assert image.get_attribute("alt").startswith("After 6 steps each on digits, in batches of 16. BatchNorm: loss ")
    assert reader.width(image) > 600
    assert "After 6 steps each" in reader.cell(PANEL).locator(".jp-OutputArea").inner_text()
    reader.run_cell(MAKE_CELL)
    reader.run_cell(PANEL)
    for name, lines in (("runs.csv", 2), ("steps.csv", 12)):
        with reader.page.expect_download() as download:
            view(reader, PANEL).root.get_by_role("link", name=name).click()
        download.value.save_as(tmp_path / name)
        assert download.value.suggested_filename == name
        with (tmp_path / name).open() as file:
            assert len(list(csv.DictReader(file))) == lines
    assert reader.trouble() == []


def test_start_steer_pause_resume_stop_and_start_again(reader, books):
    (panel,) = opened(reader, books, PANEL)
    reader.screenshot("training_first", panel.root)
    press(panel, "Stop")
    panel.until(says("^nothing trains: press Start first"))
    press(panel, "Start")
    goes_on(panel)
    panel.drag(panel.control("noise σ"), 0)
    moved = panel.until(says(r"From step \d+ on centered sphere with noise has noise σ 0\."))
    assert not moved["alert"]
    goes_on(panel)
    reader.screenshot("training_steered", panel.root)
    press(panel, "Pause")
    paused = panel.until(says(r"^Paused at step \d+ of 100000\.") + " && now.alt === now.words")
    reader.run_cell(STEP_CELL)
    assert reader.cell(STEP_CELL).locator(".jp-OutputArea-output").inner_text().strip() == str(step_of(paused))
    assert panel.seen() == paused
    press(panel, "Resume")
    goes_on(panel)
    press(panel, "Stop")
    panel.until(says("^Stopped at step"))
    panel.root.locator(".convkit-runs tbody tr").nth(3).wait_for()  # listed after the last words
    assert panel.root.locator(".convkit-runs tbody tr").count() == 4
    press(panel, "Start")
    goes_on(panel)
    press(panel, "Stop")
    panel.until(says("^Stopped at step"))
    panel.root.locator(".convkit-runs tbody tr").nth(5).wait_for()
    reader.run_cell(SAME_CELL)
    said = reader.cell(SAME_CELL).locator(".jp-OutputArea").inner_text()
    assert (said.count("True"), "False" in said) == (8, False)
    assert reader.trouble() == []


def test_two_panels_train_at_once_and_each_keeps_its_own_numbers(reader, books):
    panel, other = opened(reader, books, PANEL, OTHER)
    for slot in ("first", "second"):
        other.pick(other.control(f"{slot} trained on"), "PGD-AT")
    other.until(says("second trained on: PGD-AT"))
    press(panel, "Start")
    press(other, "Start")
    goes_on(panel)
    goes_on(other)
    goes_on(panel)
    press(panel, "Stop")
    panel.until(says("^Stopped at step"))
    goes_on(other)
    press(other, "Stop")
    other.until(says("^Stopped at step"))
    attacked = other.root.locator(".convkit-runs tbody tr", has_text="PGD-AT, ε 0.1")
    attacked.nth(1).wait_for()  # listed after the last words
    assert attacked.count() == 2
    reader.run_cell(SAME_CELL)
    said = reader.cell(SAME_CELL).locator(".jp-OutputArea").inner_text()
    assert (said.count("True"), "False" in said) == (8, False)
    assert reader.trouble() == []


def test_a_diverging_run_ends_with_a_sentence_and_bad_fields_get_one(reader, books):
    (panel,) = opened(reader, books, WILD)
    panel.drag(panel.control("learning rate"), 1)
    panel.settle()  # ipywidgets sends the last value of a drag when the one before it has been dealt with
    press(panel, "Start")
    seen = panel.until(says(r"ConvNorm: the run has ended, the \w+ .* step \d+"))
    assert seen["alert"]
    reader.screenshot("training_diverged", panel.root)
    seen = panel.until(says("^After 40 steps"))
    assert seen["alert"]
    panel.type(panel.control("batch size"), "many")
    panel.until(says("The next Start waits: see batch size"))
    fault = panel.root.locator(".convkit-fault")
    assert fault.inner_text() == "batch size needs a whole number from 1 to 10000, got 'many'"
    assert panel.control("batch size").locator("input").get_attribute("aria-invalid") == "true"
    assert panel.root.locator("svg.convkit-drawing").evaluate("svg => getComputedStyle(svg).opacity") == "1"
    press(panel, "Start")
    seen = panel.until(says("^nothing was started: see batch size"))
    assert seen["alert"]
    panel.type(panel.control("batch size"), "16")
    panel.until("!now.words.includes('batch size')")
    assert fault.count() == 0
    for slot in ("first method", "second method"):
        panel.pick(panel.control(slot), "none")
        panel.settle()  # the sliders of a method go with it
    panel.until(says("The next Start waits: see first method"))
    assert fault.inner_text() == "no method is chosen: take one from a list"
    assert reader.trouble() == []


def test_after_a_reload_the_run_is_still_under_way(reader, books):
    (panel,) = opened(reader, books, PANEL)
    press(panel, "Start")
    before = step_of(goes_on(panel))
    reader.reload()
    reader.run_cell(PANEL)
    panel = view(reader, PANEL)
    assert step_of(goes_on(panel)) > before
    panel.drag(panel.control("noise σ"), 0)
    panel.until(says(r"From step \d+ on centered sphere with noise has noise σ 0\."))
    press(panel, "Stop")
    panel.until(says("^Stopped at step"))
    assert reader.trouble() == []


def test_a_training_that_nobody_sees_any_more_ends(reader, books):
    (panel,) = opened(reader, books, PANEL)
    press(panel, "Start")
    goes_on(panel)
    reader.ask(f"number => {{ {BOOK}.content.activeCellIndex = number }}", PANEL)
    reader.command("notebook:clear-cell-output")
    reader.write(UNSEEN_CELL, UNSEEN)
    reader.run_cell(UNSEEN_CELL)  # it waits for the end
    said = reader.cell(UNSEEN_CELL).locator(".jp-OutputArea-output").inner_text()
    assert said.strip() == "', because nobody can see it any more'"
    reader.run_cell(PANEL)
    view(reader, PANEL).until(says(r"^Stopped at step \d+ of 100000, because nobody can see it any more\."))
    assert reader.trouble() == []


def test_after_a_restart_of_the_kernel_panels_say_so_and_the_cells_make_new_ones(reader, books):
    panels = opened(reader, books, PANEL, OTHER, DECAY_CELL)
    press(panels[0], "Start")
    goes_on(panels[0])
    reader.restart()
    for panel in panels:
        note = panel.root.locator(".convkit-lost")
        note.wait_for()
        assert note.get_attribute("role") == "alert"
        assert note.inner_text().endswith("run this cell again.")
        parts = panel.root.locator("button, input, select")
        assert parts.count()
        assert all(parts.nth(number).is_disabled() for number in range(parts.count()))
    for cell in (MAKE_CELL, PANEL, OTHER, DECAY_CELL):
        reader.run_cell(cell)
    press(view(reader, PANEL), "Start")
    goes_on(view(reader, PANEL))
    press(view(reader, PANEL), "Stop")
    decay = view(reader, DECAY_CELL)
    before = decay.settle()
    slider = next(part for kind, _, part in decay.controls() if kind == "slider")
    decay.moves("slider", slider)[-1]()
    decay.wait_change(before)
    assert reader.page.locator(".convkit-lost").count() == 0
    assert reader.trouble() == []


def test_a_cell_that_runs_again_ends_its_training(reader, books):
    old, other = opened(reader, books, PANEL, OTHER)
    press(old, "Start")
    goes_on(old)
    reader.run_cell(MAKE_CELL)
    old.until(says(r"^Stopped at step \d+ of 100000, because its cell ran again\."))
    reader.run_cell(PANEL)
    seen = view(reader, PANEL).until(says("^This cell ran again: the training that it had started was stopped at step"))
    assert not seen["alert"]
    assert "ran again" not in other.seen()["words"]  # it did not train
    assert reader.trouble() == []


@pytest.mark.parametrize("end", ["Stop", "interrupt"])
def test_a_cell_that_trains_is_steered_and_ended(reader, books, end):
    reader.open(books[1])
    reader.run_cell(0, wait=False)
    reader.cell(0).locator(".convkit-live svg.convkit-drawing").wait_for()
    watch = view(reader, 0, "live")
    seen = watch.until(says(r"^Training: step [1-9]\d*\. The run: loss"))
    watch.drag(watch.control("learning rate"), 0.3)
    watch.until(f"{STEP} > step + 3", step=step_of(seen))
    press(watch, "Pause")
    paused = watch.until(says(r"^Paused at step") + " && now.alt === now.words")
    watch.drag(watch.control("learning rate"), 0.5)
    reader.until(ANSWERED)  # all but the cell: it has had time to go on
    assert watch.seen() == paused
    press(watch, "Resume")
    watch.until(f"{STEP} > step", step=step_of(paused))
    if end == "Stop":
        press(watch, "Stop")
    else:
        reader.ask(f"() => {BOOK}.sessionContext.session.kernel.interrupt()")
    reader.wait_idle()
    watch = view(reader, 0, "live")
    steps = step_of(watch.until(says("^Stopped at step")))
    assert f"{steps} records, True" in reader.cell(0).locator(".jp-OutputArea").inner_text()
    assert reader.trouble() == []


def test_seeds_are_bands_with_a_verdict_and_clear_asks_first(reader, books):
    reader.open(books[2])
    reader.run_cell(0)
    reader.run_cell(1)
    race = view(reader, 1)
    race.settle()
    seeds = race.control("seeds")
    seeds.locator(".noUi-handle").focus()
    for _ in range(2):
        reader.page.keyboard.press("ArrowRight")
        race.settle()
    race.until(says("The next Start has seeds: 3"))
    press(race, "Start")
    race.until(says("^After 8 steps. BatchNorm, means of 3 seeds: loss"))
    verdict = race.root.locator(".convkit-verdicts tbody tr")
    race.root.locator(".convkit-runs tbody tr").nth(7).wait_for()  # the table is written after the words
    cells = verdict.locator("td").all_inner_texts()
    assert cells[:3] == ["BN: BatchNorm (runs 3 to 5)", "no normalization (runs 6 to 8)", "0, 1, 2"]
    assert verdict.locator("td").last.inner_text() in ("higher", "lower", "cannot say")
    assert race.root.locator(".convkit-runs tbody tr").count() == 8
    reader.page.set_viewport_size({"width": 980, "height": 1100})
    wide = "table => { table.style.width = '1000px'; return table.parentElement.scrollWidth }"
    assert race.root.locator(".convkit-runs").evaluate(wide) == 1000  # as with more columns: it scrolls by itself
    assert race.root.evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 2
    reader.page.set_viewport_size({"width": 1400, "height": 1100})
    bands = race.root.locator("svg.convkit-drawing path[opacity='0.2']")
    assert bands.count() >= 6
    entry = race.root.locator(".convkit-entry").first
    assert entry.get_attribute("aria-label") == "pick BN: BatchNorm"
    entry.click()
    assert race.root.locator("svg g[opacity='0.15']").count() >= 6  # curves and bands of the other
    reader.screenshot("training_seeds", race.root)
    press(race, "Clear")
    race.until(says("^Press Clear again to forget all 8 runs for good"))
    assert race.root.locator(".convkit-runs tbody tr").count() == 8
    press(race, "Clear all?")
    race.until(says("^No runs yet"))
    assert race.root.locator(".convkit-runs").count() == 0
    assert reader.trouble() == []


def test_networks_go_into_the_attack_panel_which_shows_its_path_and_that_it_works(reader, books):
    reader.open(books[2])
    reader.run_cell(0)
    reader.run_cell(1)
    attack, race = view(reader, 0), view(reader, 1)
    attack.settle()
    planes = attack.root.locator("svg.convkit-drawing image")
    assert planes.count() == 8  # for each network: the image, the change, the attacked image, the plane
    reader.screenshot("attack_first", attack.root)
    press(race, "Attack these")
    race.until(says("^The attack panel has BN and no normalization now"))
    seen = attack.until("now.words.includes('no normalization: ')")
    watch = """root => {
        const box = root.querySelector('.convkit-box'), line = root.querySelector('.convkit-words');
        window.worked = [];
        new MutationObserver(() => {
            const busy = box.getAttribute('aria-busy') === 'true';
            if (busy) window.worked.push([line.innerText, getComputedStyle(box.querySelector('svg')).opacity]);
        }).observe(box, { attributes: true });
    }"""
    reader.ask(watch, attack.root.element_handle())
    attack.pick(attack.control("attack"), "SimBA")
    after = attack.wait_change(seen)
    assert "SimBA within 0.15" in after["words"]
    assert attack.root.locator(".convkit-box").get_attribute("aria-busy") == "false"
    worked = reader.ask("() => window.worked")
    assert [words.startswith("SimBA attacks") for words, _ in worked] == [True]
    assert float(worked[0][1]) < 1
    assert reader.trouble() == []
