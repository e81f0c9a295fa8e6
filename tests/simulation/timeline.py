"""Simulated time: what happens when, in one order that a seed decides, and a transcript of it.

World time is nanoseconds since the simulation began. Every node has its own clock: it began elsewhere, runs a little
faster or slower, and its wall clock may be set. The code under test asks `now_here_ns` and `wall_here_ms`, which answer
for the node that runs at this instant.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
TRANSCRIPT_LINES_MAX = 400


class Alarm:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("action", "cancelled")

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False


class Timeline:
    """What is still to happen, in order of time; `random` decides whatever is left to chance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.now_ns = 0
        self._waiting: list[tuple[int, int, Alarm]] = []
        self._count = 0
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=TRANSCRIPT_LINES_MAX)

    def after(self, delay_ns: int, action: Callable[[], None]) -> Alarm:
        """Lets `action` happen `delay_ns` from now."""
        alarm = Alarm(action)
        self._count += 1
        heapq.heappush(self._waiting, (self.now_ns + max(0, delay_ns), self._count, alarm))
        return alarm

    def step(self) -> None:
        """Lets the next thing happen."""
        self.now_ns, _, alarm = heapq.heappop(self._waiting)
        if not alarm.cancelled:
            alarm.action()

    def run_for(self, duration_ns: int) -> None:
        """Lets everything happen that is due within `duration_ns`."""
        until_ns = self.now_ns + duration_ns
        while self._waiting and self._waiting[0][0] <= until_ns:
            self.step()
        self.now_ns = until_ns

    def run_until(self, reached: Callable[[], bool], within_ns: int) -> bool:
        """Lets things happen until `reached`; returns False if that takes longer than `within_ns`."""
        until_ns = self.now_ns + within_ns
        while not reached():
            if not self._waiting or self._waiting[0][0] > until_ns:
                self.now_ns = until_ns
                return False
            self.step()
        return True

    def between(self, least_ns: int, most_ns: int) -> int:
        """Returns a random duration."""
        return self.random.randint(least_ns, max(least_ns, most_ns))

    def note(self, who: str, what: str) -> None:
        """Adds a line to the transcript."""
        self._lines.append((self.now_ns, who, what))

    def transcript(self, lines: int = 80) -> str:
        """Returns the seed and the last lines."""
        last = list(self._lines)[-lines:]
        return "\n".join([f"seed {self.seed}", *(f"{at / SECOND:12.6f} s  {who:<8} {what}" for at, who, what in last)])


@dataclass
class Clock:
    """One node's clock: `drift_ppm` millionths fast, zero at `origin_ns` before the simulation began."""

    timeline: Timeline
    origin_ns: int
    drift_ppm: int
    wall_offset_ms: int = 1_750_000_000_000

    def now_ns(self) -> int:
        """Returns the boot time of the node."""
        world_ns = self.timeline.now_ns
        return self.origin_ns + world_ns + world_ns * self.drift_ppm // 1_000_000

    def until_ns(self, instant_ns: int) -> int:
        """Returns how much world time passes until this clock shows `instant_ns`; 0 if it does already."""
        here_ns = instant_ns - self.now_ns()
        return max(0, here_ns * 1_000_000 // (1_000_000 + self.drift_ppm) + 2) if here_ns > 0 else 0

    def wall_ms(self) -> int:
        """Returns the wall time of the node."""
        return self.wall_offset_ms + self.now_ns() // MILLISECOND


class _Here:
    clock: Clock


def run_on(clock: Clock) -> None:
    """From now on the code that runs is that of the node with this clock."""
    _Here.clock = clock


def now_here_ns() -> int:
    """Returns the boot time of the node that runs."""
    return _Here.clock.now_ns()


def wall_here_ms() -> int:
    """Returns the wall time of the node that runs."""
    return _Here.clock.wall_ms()
