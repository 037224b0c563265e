"""`Runner`: trains several runs in turn, in slices of the kernel's loop, so that they can be steered and stopped."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, MutableMapping, Sequence
from typing import Any

from convkit.training.plan import Record

SLICE = 0.03  # seconds of training after which messages of the page are let in
PAINTS, SHARE = 6, 0.2  # pictures a second, and the part of the time for them: at most
GRACE = 3.0  # seconds without a view after which a training ends: a view that is moved is made anew
_POLL = 0.02  # seconds between two looks of a paused run


class Track:
    """One run: its name, its records so far, the knobs that were changed, and how it ended.

    ``knobs`` is the mapping that the run reads at each step. ``steer`` changes it between two steps, from any thread;
    ``steered`` holds the changes by the number of steps done before them. The runs of one ``group`` differ in their
    seeds alone and are told of together.
    """

    def __init__(
        self, name: str, records: Iterator[Record], knobs: MutableMapping[str, Any] | None = None, group: str = ""
    ) -> None:
        self.name, self.records, self.knobs = name, records, knobs if knobs is not None else {}
        self.group = group or name
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
        if self.failed:
            return f"{_capital(self.name)}: the run has ended, {self.ended.rstrip('.')}."
        return _numbers(self.name, [self])


def statuses(tracks: Sequence[Track]) -> list[str]:
    """Return a sentence for each run, or for each group the means over its seeds, and how those that failed ended."""
    sentences: list[str] = []
    for group in dict.fromkeys(track.group for track in tracks):
        own = [track for track in tracks if track.group == group]
        if len(own) > 1:
            going = [track for track in own if not track.failed]
            sentences += [_numbers(group if len(going) > 1 else going[0].name, going)] if going else []
            own = [track for track in own if track.failed]
        sentences += [track.status() for track in own]
    return sentences


def _numbers(name: str, tracks: Sequence[Track]) -> str:
    """Return a sentence with the latest numbers of runs, means where there are several."""
    losses, accuracies, norms = list[float](), list[float](), list[float]()
    for track in tracks:
        last = reversed(track.history)
        losses += [record.loss for record in track.history[-1:]]
        accuracies += [next((100 * r.test_accuracy for r in last if r.test_accuracy is not None), -1)]
        norms += [next((max(r.norms.values()) for r in reversed(track.history) if r.norms), -1)]
    accuracies, norms = [one for one in accuracies if one >= 0], [one for one in norms if one >= 0]
    texts = [f"loss {statistics.fmean(losses):.2g}"] if losses else []
    if accuracies:
        reach = f" ({min(accuracies):.1f} to {max(accuracies):.1f})" if len(accuracies) > 1 else ""
        texts.append(f"test accuracy {statistics.fmean(accuracies):.1f} %{reach}")
    texts += [f"largest norm {statistics.fmean(norms):.3g}"] if norms else []
    seeds = f", means of {len(tracks)} seeds" if len(tracks) > 1 else ""
    return f"{_capital(name)}{seeds}: {', '.join(texts) or 'no step yet'}."


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


class Runner:
    """Trains several tracks in turn, step by step, so that they stay side by side, and draws now and then.

    Each track's records are those of its own loop: runs share nothing (see ``fit``), whatever their order. ``paused``
    and ``stopping`` may be set from any thread. ``paint`` is called on the loop, and once more at the end. ``why`` is
    added to the words that say that it was stopped. Once nobody has looked for ``GRACE`` seconds since ``unseen``, a
    time of the clock, it stops.
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
        self.unseen: float | None = None
        self._next_paint = self._worked = 0.0

    @property
    def step(self) -> int:
        """Return the number of steps of the slowest unfinished track, or of the longest finished one."""
        steps = [len(track.history) for track in self.tracks if not track.ended]
        return min(steps) if steps else max((len(track.history) for track in self.tracks), default=0)

    def seconds_left(self, steps: int) -> float | None:
        """Return how long it takes until all have so many steps, by the pace so far; ``None`` before the first step."""
        done = sum(len(track.history) for track in self.tracks)
        left = sum(max(0, steps - len(track.history)) for track in self.tracks if not track.ended)
        return self._worked / done * left if done and self._worked else None

    def look(self, seen: bool) -> None:
        """Note whether anybody can see the training."""
        self.unseen = None if seen else self._clock()

    async def run(self) -> None:
        """Train until all tracks have ended or ``stopping`` is set; a cancelled task (an interrupt) ends it, too."""
        before = self._clock()
        try:
            while self._going():
                if self.paused:
                    await self._sleep(_POLL)
                    before = self._clock()
                    continue
                self._slice()
                self._worked, before = self._worked + self._clock() - before, self._clock()
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
        if self.unseen is not None and self._clock() - self.unseen > GRACE and not self.stopping:
            self.why, self.stopping = ", because nobody can see it any more", True
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
