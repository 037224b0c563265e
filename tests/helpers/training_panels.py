"""Small training panels, the readers who press their buttons, and the bare loops to compare with."""

import asyncio
import functools

from convkit.data import digits, subset
from convkit.methods.build import network
from convkit.training.adversarial import get_objective
from convkit.training.loop import fit
from convkit.widgets.training.panel import TrainingPanel

DATA = subset(digits(), 200, test_count=60)
PATIENCE = 300  # seconds after which an event counts as missing
SMALL = {"widths": (4, 6, 8), "steps": 6, "first": 2, "batch_size": 16, "every": 2, "schedule": "constant"}


def small(*methods, data=DATA, **options):
    return TrainingPanel(methods or ("batchnorm", "sphere"), data, **(SMALL | options))


def bare(method, steps=6, seed=0, objective="clean", eps=0.1, schedule="constant", **knobs):
    """The records of the plain loop."""
    model = network("cnn9", DATA, method, seed=seed, knobs=knobs, widths=(4, 6, 8))
    plan: dict = {"batch_size": 16, "schedule": schedule, "evaluate_every": 2, "measure_every": 2}
    plan["objective"] = get_objective(objective, eps)
    return list(fit(model, DATA, method, steps=steps, seed=seed, knobs=knobs, **plan))


def again(run, **given):
    """The records that a run's code gives."""
    namespace = {"data": DATA, **given}
    exec(run.code, namespace)
    return namespace["history"]


def knob(panel, slot, name):
    return panel.slots[slot]._knobs[name]


def told(panel):
    """The sentences that stand beside the fields, by the name of the control."""
    names = list(panel._controls)
    return {names[place]: words for place, words in panel._access.fault.get("fields", [])}


async def until(condition):
    """Let the loop run until the condition holds, however slow the machine is: it is looked at in every turn."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


def reached(panel, step):
    return until(lambda: panel.runner is not None and panel.runner.step >= step)


def over(panel):
    return until(lambda: panel.runner is not None and panel.runner.over and len(panel.runs) > 2)


async def rests(runner, looks=5):
    """Until a runner that is paused has looked so often whether it may go on."""
    sleep, looked = runner._sleep, []

    async def counted(_):
        looked.append(runner.step)
        await asyncio.sleep(0)

    runner._sleep = counted
    await until(lambda: len(looked) >= looks)
    runner._sleep = sleep


def on_a_loop(story):
    """Play the story of a test, with the fixtures that it takes, where a loop runs."""

    @functools.wraps(story)
    def play(**fixtures):
        asyncio.run(asyncio.wait_for(story(**fixtures), PATIENCE))

    return play


def in_a_notebook(story, **options):
    """Play the story with a panel that was made where a loop runs, as in a notebook."""

    async def play():
        made = small(**options)
        await story(made)
        return made

    return asyncio.run(play())
