"""A real kernel: it loses no request, its widgets answer beside a busy cell, and panels know the cell that runs."""

import sys

import ipykernel
import ipywidgets
import pytest

from convkit.widgets import kernel as module
from convkit.widgets.kernel import kernel_sentence, prepare, running_cell
from tests.helpers.kernel_talk import PATIENCE, Talk

pytestmark = pytest.mark.slow


@pytest.fixture
def talk(tmp_path):
    with Talk(tmp_path) as made:
        yield made


# ---- requests --------------------------------------------------------------------------------------------------------
HOLD = """
import pathlib, select, zmq
from ipykernel.kernelapp import IPKernelApp
shell, under_way, send = IPKernelApp.instance().shell_socket, pathlib.Path({path!r}), zmq.Socket.send_multipart

def hold_the_first(socket, *args, **options):
    if socket is shell and not under_way.exists():
        under_way.touch()
        select.select([shell.FD], [], [], 60)  # until the next request is there
    return send(socket, *args, **options)

zmq.Socket.send_multipart = hold_the_first
"""


def test_a_request_that_arrives_while_a_reply_is_sent_is_answered(talk, tmp_path):
    under_way = tmp_path / "under way"
    first = talk.execute(HOLD.format(path=str(under_way)), "1")
    talk.until(under_way.exists, "the first reply was not sent")
    second = talk.execute("", "2")
    assert [talk.value(first), talk.value(second)] == [1, 2]


# ---- widgets ---------------------------------------------------------------------------------------------------------
SLIDER = """
import asyncio, time, ipywidgets
slider, seen, passed = ipywidgets.IntSlider(), [], []
slider.observe(lambda change: seen.append(change["new"]), "value")
"""
LOOPS = ("time.sleep(0.01)", "await asyncio.sleep(0.01)")


def moved_while_busy(talk, loop):
    """What a slider has seen of two moves on a subshell before its cell is done, and the requests of the moves."""
    comm, subshell = talk.value(talk.execute(SLIDER, "slider.comm.comm_id")), talk.subshell()
    busy = talk.execute(f"began = time.time()\nwhile not passed and time.time() < began + {PATIENCE}: {loop}", "passed")
    moves = []
    for place in (3, 5):
        data = {"method": "update", "state": {"value": place}, "buffer_paths": []}
        moves.append(talk.send("comm_msg", {"comm_id": comm, "data": data}, subshell))
    talk.execute("passed.append(list(seen))", subshell=subshell)  # in line behind the moves, the same way
    return talk.value(busy), moves


@pytest.mark.parametrize("loop", LOOPS)
def test_a_widget_answers_while_a_cell_is_busy(talk, loop):
    talk.value(talk.execute("from convkit.widgets.kernel import prepare; prepare()"))
    seen, moves = moved_while_busy(talk, loop)
    assert seen == [[3, 5]]
    talk.until(lambda: talk.idle.issuperset(moves), "a page that waits for the end of a move got no word")


def test_the_line_that_lets_widgets_answer_is_still_needed(talk):
    seen, _ = moved_while_busy(talk, LOOPS[0])
    assert seen == [[]], (
        f"ipykernel {ipykernel.__version__} lets messages past a busy cell by itself: ask for it in pyproject.toml, "
        "and take answer_on_the_subshell_that_asked out of convkit/widgets/kernel.py"
    )


def test_outside_of_a_kernel_nothing_happens_and_no_cell_runs(monkeypatch):
    monkeypatch.setattr(module, "answer_on_the_subshell_that_asked", lambda: pytest.fail("there is no kernel"))
    assert prepare.__wrapped__() is None
    assert running_cell() is None


def test_another_kernel_of_python_gets_its_comm_and_no_sentence(monkeypatch, capsys):
    monkeypatch.setattr(module, "_kernel", object)
    monkeypatch.setitem(sys.modules, "ipykernel._version", None)
    assert isinstance(prepare.__wrapped__(), ipywidgets.Layout)
    assert capsys.readouterr().out == ""
    prepare.cache_clear()


# ---- cells -----------------------------------------------------------------------------------------------------------
NOTE = "from convkit.widgets.kernel import running_cell; cell = running_cell()"
KNOWN = "(cell.name, cell.run)"


def test_a_cell_is_known_by_its_id_or_else_by_its_code(talk):
    edited = NOTE + " # edited"
    cells = [(NOTE, "a"), (edited, "a"), (NOTE, "b"), (NOTE, None), (NOTE, None), (edited, None)]
    runs = [talk.execute(code, KNOWN, name) for code, name in cells]
    names = [("id", name) if name else ("code", code) for code, name in cells]
    assert [talk.value(run) for run in runs] == list(zip(names, runs, strict=True))


def test_a_task_belongs_to_the_cell_that_made_it_and_a_callback_to_none(talk):
    code = """
import asyncio, ipywidgets
from convkit.widgets.kernel import running_cell
goes, known = asyncio.Event(), []
async def later():
    await goes.wait()
    known.append(running_cell().name)
task, button = asyncio.create_task(later()), ipywidgets.Button()
button.on_click(lambda _: known.append(running_cell()))
"""
    comm = talk.value(talk.execute(code, "button.comm.comm_id", "a"))
    click = {"method": "custom", "content": {"event": "click"}}
    clicked = talk.send("comm_msg", {"comm_id": comm, "data": click}, talk.subshell())
    talk.until(lambda: clicked in talk.idle, "the click was not answered")
    assert talk.value(talk.execute("goes.set(); await task", "known", "b")) == [None, ("id", "a")]


# ---- versions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", [(6, 29, 5), (7, 0, 0), (7, 1, 0), (7, 3, 9)])
def test_an_older_ipykernel_gets_a_sentence(version):
    assert kernel_sentence(version) == (
        f"this kernel is ipykernel {'.'.join(map(str, version))}, and panels need 7.4 or newer: older ones lose "
        "requests, or let no message of a panel past a busy cell; "
        'run pip install "ipykernel>=7.4" and restart the kernel'
    )


@pytest.mark.parametrize("version", [(7, 4, 0), (7, 10, 1), (8, 0, 0, "a1"), ipykernel.version_info])
def test_this_ipykernel_and_others_that_fit_get_none(version):
    assert kernel_sentence(version) == ""
