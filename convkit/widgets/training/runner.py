"""`Runner`: trains several runs in turn, in slices of the kernel's loop, so that they can be steered and stopped."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, MutableMapping, Sequence
from typing import Any

from convkit.training.plan import Record

SLICE = 0.03  # seconds of training after which messages of the page are let in
PAINTS, SHARE = 6, 0.2  # pictures a second, and the part of the time for them: at most
_POLL = 0.02  # seconds between two looks of a paused run


class Track:
    """One run: its name, its records so far, the knobs that were changed, and how it ended.

    ``knobs`` is the mapping that the run reads at each step. ``steer`` changes it between two steps, from any thread;
    ``steered`` holds the changes by the number of steps done before them.
    """

    def __init__(self, name: str, records: Iterator[Record], knobs: MutableMapping[str, Any] | None = None) -> None:
        self.name, self.records, self.knobs = name, records, knobs if knobs is not None else {}
        self.history: list[Record] = []
        self.steered: dict[int, dict[str, Any]] = {}
        self.ended = ""  # "done", "stopped", or a sentence: why it went wrong
        self._waiting: deque[tuple[str, Any]] = deque()

    @property
    def failed(self) -> bool:
        """Return whether the run has ended for a reason that needs a sentence."""
        return self.ended not in ("", "done", "stopped")

    def steer(self, name: str, value: Any) -> None:
        """Change a knob before the next step."""
        self._waiting.append((name, value))

    def step(self) -> None:
        """Do one step; an exception of the run becomes a sentence in ``ended``."""
        while self._waiting:
            name, value = self._waiting.popleft()
            if self.knobs.get(name) != value:
                self.knobs[name] = value
                self.steered.setdefault(len(self.history), {})[name] = value
        try:
            record = next(self.records)
        except StopIteration:
            self.ended = "done"
        except ValueError as error:
            self.ended = str(error)
        except Exception as error:  # an exception in a task of the loop shows nowhere
            self.ended = f"this is a bug: {type(error).__name__}: {error}"
        else:
            self.history.append(record)
            self.ended = record.diverged or ""

    def close(self) -> None:
        """End the run; the records stay."""
        self.ended = self.ended or "stopped"
        if isinstance(self.records, Generator):
            self.records.close()

    def status(self) -> str:
        """Return a sentence with the latest numbers, or with the reason why the run ended."""
        name = self.name[:1].upper() + self.name[1:]
        if self.failed:
            return f"{name}: the run has ended, {self.ended.rstrip('.')}."
        last = {
            "loss": next((f"{r.loss:.2g}" for r in reversed(self.history)), None),
            "test accuracy": next(
                (f"{100 * r.test_accuracy:.1f} %" for r in reversed(self.history) if r.test_accuracy is not None), None
            ),
            "largest norm": next((f"{max(r.norms.values()):.3g}" for r in reversed(self.history) if r.norms), None),
        }
        return f"{name}: " + (", ".join(f"{name} {text}" for name, text in last.items() if text) or "no step yet") + "."


class Runner:
    """Trains several tracks in turn, step by step, so that they stay side by side, and draws now and then.

    Each track's records are those of its own loop: runs share nothing (see ``fit``), whatever their order. ``paused``
    and ``stopping`` may be set from any thread. ``paint`` is called on the loop, and once more at the end. ``why`` is
    added to the words that say that it was stopped.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        paint: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.tracks, self.paint, self._clock, self._sleep = list(tracks), paint, clock, sleep
        self.paused = self.stopping = self.over = self.stepping = False
        self.why = ""
        self._next_paint = 0.0

    @property
    def step(self) -> int:
        """Return the number of steps of the slowest unfinished track, or of the longest finished one."""
        steps = [len(track.history) for track in self.tracks if not track.ended]
        return min(steps) if steps else max((len(track.history) for track in self.tracks), default=0)

    async def run(self) -> None:
        """Train until all tracks have ended or ``stopping`` is set; a cancelled task (an interrupt) ends it, too."""
        try:
            while self._going():
                if self.paused:
                    await self._sleep(_POLL)
                    continue
                self._slice()
                if self.paused or self._clock() >= self._next_paint:
                    self._timed_paint()
                await self._sleep(0)  # messages get in: a slider, Pause, Stop
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        finally:
            self._finish()

    def run_now(self) -> None:
        """Train to the end at once, where there is no event loop."""
        try:
            while self._going():
                self._slice()
        finally:
            self._finish()

    def _going(self) -> bool:
        return not self.stopping and any(not track.ended for track in self.tracks)

    def _slice(self) -> None:
        self.stepping = True
        until = self._clock() + SLICE
        while self._going() and not self.paused:
            min((track for track in self.tracks if not track.ended), key=lambda track: len(track.history)).step()
            if self._clock() >= until:
                break
        self.stepping = False

    def _timed_paint(self) -> None:
        began = self._clock()
        self.paint()
        ended = self._clock()
        self._next_paint = max(began + 1 / PAINTS, ended + (ended - began) * (1 / SHARE - 1))

    def _finish(self) -> None:
        for track in self.tracks:
            track.close()
        self.over = True
        self.paint()
