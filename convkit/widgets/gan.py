"""The panel of notebook 13: a generator learns digits against a discriminator that is bounded, or not."""

from __future__ import annotations

import asyncio
import copy
import functools
import math
from typing import Any

import ipywidgets
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from convkit.data.registry import digits
from convkit.methods.pair import gan_pair
from convkit.methods.registry import METHODS
from convkit.plots.style import BLUE, FAINT, INK, VERMILION
from convkit.training.gan import fit_gan
from convkit.training.gan_plan import GanRecord
from convkit.training.generation import make_images
from convkit.widgets.controls import choice, slider
from convkit.widgets.panel import Words
from convkit.widgets.training.live import LivePanel, plot_progress, time_left
from convkit.widgets.training.runner import Runner, Track

BOUNDS = {
    "plain": "nothing",
    "spectral_norm": "SN: reshaped norm divided out",
    "operator_norm": "true operator norm divided out",
    "convnorm": "ConvNorm",
}
LATENT, ROWS, COLUMNS, EVERY = 16, 4, 8, 10
LIVE = {"judge steps": "discriminator_steps", "judge rate": "discriminator_lr", "maker rate": "lr"}  # controls: knobs
RATES = [("0", 0.0), *((f"{rate:g}", rate) for rate in (2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 2e-2))]
_PLACES = ((0.0, 0.04, 0.38, 0.84), (0.385, 0.34, 0.13, 0.26), (0.575, 0.14, 0.17, 0.72), (0.81, 0.14, 0.175, 0.72))


class GanPanel(LivePanel):
    """A panel in which a generator learns digits: its samples grow, with losses and the discriminator's norms.

    The method is that of the next Start; steps and rates act at once, also while it trains. A slider goes through z.
    """

    title = "A generator and a discriminator learn digits"
    size = (11, 3.6)

    def __init__(self, first: int = 20, steps: int = 400) -> None:
        self._steps, self._notice, self._task = steps, Words(""), None
        self.track: Track | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # no notebook: Start trains to the end
        shape, generator = (ROWS * COLUMNS + 2, LATENT), torch.Generator().manual_seed(0)
        z = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        self._z, self._ends = z[2:], z[:2]
        self._make("spectral_norm", {"lr": 1e-3, "discriminator_lr": 1e-3, "discriminator_steps": 2})
        for _ in range(first):
            self._going().step()
        self._opening = self.method, self._going(), self.averaged
        super().__init__()
        self.take_place()

    def controls(self) -> dict[str, Any]:
        return {
            "method": choice("the discriminator is bounded by", [(w, n) for n, w in BOUNDS.items()], "spectral_norm"),
            "judge steps": slider("its steps per step", 2, 1, 5),
            "judge rate": choice("its rate", RATES, 1e-3),
            "maker rate": choice("the generator's rate", RATES, 1e-3),
            "z": slider("a walk through z, in percent", 0, 0, 100, 5),
        }

    def layout(self, controls: dict[str, Any]) -> ipywidgets.Widget:
        buttons = []
        for name, action in (("Start", self.start), ("Pause", self.pause), ("Stop", self.stop)):
            buttons.append(ipywidgets.Button(description=name, layout={"width": "6em"}))
            buttons[-1].on_click(functools.partial(self._pressed, action))
        self._pause = buttons[1]
        look = {"flex_flow": "row wrap", "align_items": "center"}
        rest = [control for name, control in controls.items() if name != "reset"]
        return ipywidgets.VBox(
            [ipywidgets.Box(rest, layout=look), ipywidgets.Box([*buttons, controls["reset"]], layout=look)]
        )

    # ---- training ----------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Train a new pair with the chosen method: in a notebook on the kernel's loop, else to the end."""
        if self.runner is not None and not self.runner.over:
            raise ValueError("a training is under way: press Stop first, or wait for its end")
        values = self.values
        self._make(values["method"], {knob: values[name] for name, knob in LIVE.items()})
        self.runner = Runner([self._going()], self._paint_running)
        if self._loop is None or not self._loop.is_running():
            self.runner.run_now()
        else:  # a page's messages come on another thread
            self._paint_running()
            self._loop.call_soon_threadsafe(self._begin, self.runner)

    def pause(self) -> None:
        """Pause the training, or resume it."""
        self._busy().paused = not self._busy().paused

    def stop(self) -> None:
        """Stop the training after the present step."""
        self._busy().stopping = True

    def reset(self) -> None:
        """Stop the training, and restore the first settings and the first pair."""
        if self.runner is not None:
            self.runner.stopping = True
            self.runner = None
        self.method, self.track, self.averaged = self._opening
        super().reset()

    def react(self, name: str) -> None:
        """Pass a changed number of steps, or a rate, to the run."""
        self._notice = Words("")
        if name in LIVE and self.track is not None:
            self.track.steer(LIVE[name], self.values[name])

    def _make(self, method: str, knobs: dict[str, Any]) -> None:
        data, own = digits(), ({"gain": 1.0, "residual_start": "one"} if method == "convnorm" else {})
        own |= {"batchnorm": False} if "batchnorm" in METHODS[method].knobs else {}
        generator, discriminator = gan_pair(data, method, knobs=own, channels=(32, 16), latent=LATENT)
        self.averaged, knobs = copy.deepcopy(generator), {**own, **knobs}
        plan: dict[str, Any] = {"batch_size": 32, "ema": 0.99, "schedule": "constant", "measure_every": EVERY}
        pair: tuple[nn.Module, nn.Module] = (generator, discriminator)
        records = fit_gan(*pair, data, method, steps=self._steps, knobs=knobs, averaged=self.averaged, **plan)
        self.method, self.track = method, Track(BOUNDS[method], records, knobs)  # pyright: ignore[reportArgumentType]

    def _begin(self, runner: Runner) -> None:
        self._task = asyncio.get_running_loop().create_task(runner.run())

    def _going(self) -> Track:
        assert self.track is not None
        return self.track

    def _busy(self) -> Runner:
        if self.runner is None or self.runner.over:
            raise ValueError("nothing trains: press Start first")
        return self.runner

    # ---- what is seen ------------------------------------------------------------------------------------------------
    def draw(self, figure: Figure, **values: Any) -> str:
        many, one, losses, norms = (figure.add_axes(place) for place in _PLACES)
        history: list[Any] = self._going().history
        part = values["z"] / 100 * math.pi / 2
        ends = self._ends
        walker = math.cos(part) * ends[:1] + math.sin(part) * ends[1:]
        images = make_images(self.averaged, torch.cat([walker, self._z]))
        _show_image(one, images[0, 0], f"z at {values['z']} %")
        framed = F.pad(images[1:, 0], (1, 1, 1, 1))
        grid = framed.view(ROWS, COLUMNS, *framed.shape[1:]).transpose(1, 2).flatten(2).flatten(0, 1)
        _show_image(many, grid, f"samples after {len(history)} steps")
        steps = [record.step for record in history]
        losses.plot(steps, [record.discriminator_loss for record in history], color=BLUE, lw=1, label="discriminator")
        losses.plot(steps, [record.loss for record in history], color=VERMILION, lw=1, ls="--", label="generator")
        losses.set_title("losses", fontsize=10)
        seen = [record for record in history if record.norms]
        at = [record.step for record in seen]
        largest = [max(record.norms.values()) for record in seen]
        norms.plot(at, largest, marker="o", ms=3, color=BLUE, lw=1, label="largest norm of a layer")
        slopes = [record.lipschitz for record in seen]
        norms.plot(at, slopes, marker="s", ls="--", ms=3, color=VERMILION, lw=1, label="slope of the whole")
        norms.axhline(1, color=INK, lw=0.8, ls=":")
        norms.set_ylim(0, 1.35 * max([1.0, *largest, *(slope or 0.0 for slope in slopes)]))
        norms.set_title("discriminator", fontsize=10)
        for ax in (losses, norms):
            ax.set_xlabel("steps", fontsize=9)
            ax.grid(color=FAINT, lw=0.4)
            ax.legend(frameon=False, fontsize=9, loc="upper right" if ax is losses else "upper left")
        if self.runner is not None and not self.runner.over:
            plot_progress(self.runner, self._steps, figure)
        return self._words(history, seen[-1] if seen else None, values["method"])

    def _words(self, history: list[Any], seen: GanRecord | None, method: str) -> Words:
        runner, track = self.runner, self._going()
        going = runner is not None and not runner.over
        self._pause.description = "Resume" if runner is not None and going and runner.paused else "Pause"
        left = time_left(runner, self._steps) if runner is not None and going and not runner.paused else ""
        of, left = f" of {self._steps}" if going else "", f"{left}," if left else ""
        text = f"After {len(history)}{of} steps{left} with the discriminator bounded by {BOUNDS[self.method]}."
        if history:
            last = history[-1]
            text += f" Its loss is {last.discriminator_loss:.2f}, the generator's {last.loss:.2f}; the made images "
            text += f"differ {last.spread:.2f} times as much as real ones."
        if seen is not None and seen.norms and seen.lipschitz is not None:
            text += f" The largest norm of its layers was {max(seen.norms.values()):.2f}, its slope between real and "
            text += f"made images {seen.lipschitz:.2f}."
        if track.failed:
            text += f" The run has ended: {track.ended.rstrip('.')}."
        if method != self.method:
            text += f" The next Start bounds it by {BOUNDS[method]}."
        elif not going:
            text += f" Start trains a new pair for {self._steps} steps."
        moved = {name: self.values[name] for name, knob in LIVE.items() if self.values[name] != track.knobs[knob]}
        if moved and not going:
            text += f" It has {', '.join(f'{self.control(name).description} {now:g}' for name, now in moved.items())}."
        return Words(" ".join(filter(None, [self.news, self._notice, text])), track.failed or self._notice.alert)


def _show_image(ax: Axes, image: Tensor, title: str) -> None:
    ax.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
