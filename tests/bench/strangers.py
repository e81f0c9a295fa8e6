"""Does a flood of strangers at the primary's port keep the real peer out, or disturb the link that is there?

The backup is started into a flood of 500 strangers that come again as soon as they are thrown out; from its own word
that it looks for the primary to its word that it is linked. Without a flood, in turn, to compare with. Then the same
flood meets a link that is up.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.bench.flood import STRANGERS
from tests.bench.frames import LinkWatch
from tests.bench.hogs import ROLE_EVENTS, tell_troubles, troubles
from tests.bench.product import MeasuredPair, wait_for
from tests.bench.report import Row
from tests.bench.takeover import INTERVAL_MS, TIMEOUT_MS
from tests.real.pair import PROJECT

WORKLOAD = ["sleep", "1000000"]
ONSET_S = 1.0  # until all strangers are there
FLOOD_S_PER_TRIAL = 2.0
TIMERS_MS = ((100, 1_000), (INTERVAL_MS, TIMEOUT_MS))


def measure(directory: Path, trials: int) -> list[Row]:
    """Returns how long the peer took to get in so many times, and what a link that was up noticed."""
    rows = entries(directory / "entry", trials)
    for interval_ms, timeout_ms in TIMERS_MS:
        rows += disturbance(directory / str(interval_ms), interval_ms, timeout_ms, trials * FLOOD_S_PER_TRIAL)
    return rows


def entries(directory: Path, trials: int) -> list[Row]:
    """Starts the backup with and without a flood in turn."""
    measured = MeasuredPair(directory, interval_ms=100, timeout_ms=1_000, workload=WORKLOAD)
    calm: list[float] = []
    flooded: list[float] = []
    with contextlib.closing(measured):
        measured.start_in_order()
        for _ in range(trials):
            measured.backup.kill()
            calm.append(entry_ms(measured))
            measured.backup.kill()
            with flood(measured.pair.port):
                flooded.append(entry_ms(measured))
    without = Row("dial to link up, nobody else there", calm)
    name = f"dial to link up, among {STRANGERS} strangers"
    return [Row(name, flooded, target="worst 1000", against=without), without]


def entry_ms(measured: MeasuredPair) -> float:
    """Starts the backup and returns the time from its first dialling to its link."""
    tail = measured.tail(measured.backup)
    measured.start(measured.backup)
    wait_for(lambda: tail.last("link-up") is not None, "the link")
    dialled, linked = (
        next(event for event in tail.read() if event["code"] == code) for code in ("role-changed", "link-up")
    )
    return (when(linked["time"]) - when(dialled["time"])) * 1000


def when(text: str) -> float:
    """Returns an event's time in seconds."""
    return datetime.fromisoformat(text).timestamp()


def disturbance(directory: Path, interval_ms: int, timeout_ms: int, seconds: float) -> list[Row]:
    """Floods a pair that is in order, and returns what its events and its frames say of it."""
    measured = MeasuredPair(directory, interval_ms=interval_ms, timeout_ms=timeout_ms, workload=WORKLOAD)
    name = f"link of {interval_ms}/{timeout_ms} ms"
    with contextlib.closing(measured):
        measured.start_in_order()
        with LinkWatch(measured.pair.port) as calm:
            time.sleep(seconds)
        before = troubles(measured)
        with flood(measured.pair.port), LinkWatch(measured.pair.port) as watch:
            time.sleep(seconds)
        changes = troubles(measured) - before
        if changes:
            tell_troubles(measured)
    rows = [Row(f"{name}: {', '.join(ROLE_EVENTS)} in {seconds:.0f} s of flood", [changes], "times", "0")]
    for side, gaps, quiet in zip(("primary", "backup"), watch.gaps_ms, calm.gaps_ms, strict=True):
        base = Row("without flood", quiet)
        rows += [Row(f"{name}: gap between the {side}'s frames, flooded", gaps, against=base)]
        rows += [Row("  without flood", quiet)]
    return rows


@contextlib.contextmanager
def flood(port: int) -> Iterator[None]:
    """Has the strangers come for as long as the block lasts, all of them there when it begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.flood", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
    )
    start = time.monotonic()
    try:
        time.sleep(ONSET_S)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        served = process.stdout.read()
        if process.wait() != 0:
            raise RuntimeError("the strangers broke off")
    if served:
        per_second = {kind: round(count / (time.monotonic() - start)) for kind, count in json.loads(served).items()}
        print(f"strangers served in a second: {per_second}", flush=True)
