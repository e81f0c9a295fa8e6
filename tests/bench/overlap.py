"""Do two workloads ever run at once? By their own record, over many kills and freezes of the active agent.

The workload stamps the clock of both nodes five times in a millisecond into a mapped file, so its last sign of life is
exact to that. Overlap is what of two lives lies over each other; it is also given for lives that are taken to have gone
on for the longest pause between two stamps after the last one. The margin is how long nobody ran between two lives.
"""

from __future__ import annotations

import contextlib
import random
import signal
import struct
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.bench.product import MeasuredPair, wait_for
from tests.bench.programs import compile_program
from tests.bench.report import Row
from tests.bench.takeover import INTERVAL_MS, TIMEOUT_MS

TIMERS_MS = ((INTERVAL_MS, TIMEOUT_MS), (100, 1_000))
UNDAMPED = 2  # takeovers in one life of an agent that it makes without waiting, and one to spare
FREEZE_S_MAX = 1.0


@dataclass(frozen=True)
class Life:
    """One run of the workload: first and last stamp and the longest pause between two, in ns."""

    node: str
    first_ns: int
    last_ns: int
    pause_ns: int


def measure(directory: Path, trials: int) -> list[Row]:
    """Returns the rows of so many kills and as many freezes, for both pairs of timers."""
    trace = compile_program("trace", directory)
    rows = []
    for interval_ms, timeout_ms in TIMERS_MS:
        folder = directory / str(interval_ms)
        measured = MeasuredPair(
            folder, interval_ms=interval_ms, timeout_ms=timeout_ms, workload=[str(trace), str(folder)]
        )
        with contextlib.closing(measured):
            measured.start_in_order()
            hurt(measured, trials)
        rows += rows_of(f"{interval_ms}/{timeout_ms} ms", lives(folder), trials)
    return rows


def hurt(measured: MeasuredPair, trials: int) -> None:
    """Kills the active agent so often, and freezes it so often, in random order, and heals the pair each time."""
    faults = ["kill", "freeze"] * trials
    random.shuffle(faults)
    primary, backup = measured.primary, measured.backup
    takeovers = 0
    for fault in faults:
        if takeovers == UNDAMPED:
            backup.kill()
            measured.start(backup)
            measured.wait_in_order()
            takeovers = 0
        before = measured.tail(backup).count("workload-started")
        time.sleep(random.uniform(0, 0.1))
        primary.signal(signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        wait_for(partial(_started_since, measured, before), f"a takeover after a {fault}")
        takeovers += 1
        if fault == "freeze":
            time.sleep(random.uniform(0, FREEZE_S_MAX))
            primary.signal(random.choice((signal.SIGCONT, signal.SIGKILL)))
        time.sleep(0.05)
        if primary.process is not None and primary.process.poll() is not None:
            measured.start(primary)
        measured.wait_in_order()


def _started_since(measured: MeasuredPair, before: int) -> bool:
    return measured.tail(measured.backup).count("workload-started") > before


def lives(folder: Path) -> list[Life]:
    """Returns every recorded life, earliest first."""
    found = []
    for file in folder.glob("*.*.*"):
        data = file.read_bytes()
        if file.is_file() and len(data) == 24:
            first_ns, last_ns, pause_ns = struct.unpack("@3q", data)
            if first_ns:
                found.append(Life(file.name.split(".")[0], first_ns, last_ns, pause_ns))
    return sorted(found, key=lambda life: life.first_ns)


def rows_of(timers: str, found: list[Life], trials: int) -> list[Row]:
    """Returns overlap and margins of all lives."""
    exact = [overlap_ms(one, other, 0) for one, other in overlapping(found)]
    careful = [overlap_ms(one, other, one.pause_ns) for one, other in overlapping(found)]
    margins = [(other.first_ns - one.last_ns) / 1e6 for one, other in pairwise(found) if one.node != other.node]
    name = f"{timers}, {trials} kills, {trials} freezes, {len(found)} lives"
    return [
        Row(f"{name}: sum of overlap", [sum(exact)], "ms", "0"),
        Row("  with the longest pause after every last stamp", [sum(careful)], "ms"),
        Row("  margin between two nodes' lives", margins),
        Row("  longest pause between two stamps of a life", [life.pause_ns / 1e6 for life in found]),
    ]


def overlapping(found: list[Life]) -> list[tuple[Life, Life]]:
    """Returns every two lives in the order of their beginnings."""
    return [(one, other) for index, other in enumerate(found) for one in found[:index]]


def overlap_ms(one: Life, other: Life, after_ns: int) -> float:
    """Returns for how long both lived, the earlier one taken to have lived `after_ns` longer than it could say."""
    return max(0, min(one.last_ns + after_ns, other.last_ns) - other.first_ns) / 1e6
