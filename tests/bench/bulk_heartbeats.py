"""Do heartbeats keep their time while trees are copied, and does nobody take over for it?

On loopback with heartbeats of 10 ms and a timeout of 50 ms, while a first copy of one big file and of many small ones
goes on: how much later than an interval after the one before a frame of the link is sent, by the kernel's stamps. Then
with default timers over a switch that carries 10 kB a second, where a copy would go on for hours: role changes, and
the round trips that the agents measure.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.copier import wait_patiently
from tests.bench.data_sets import MIB, DataSet, Stage, make_data_sets, random_file
from tests.bench.frames import LinkWatch
from tests.bench.hogs import ROLE_EVENTS, tell_troubles, troubles
from tests.bench.namespaces import Network
from tests.bench.product import MeasuredPair
from tests.bench.report import Row
from tests.bench.resync_product import is_in_sync, pair_with_tree

INTERVAL_MS, TIMEOUT_MS = 10, 50
CALM_S = 5.0
QUICK_PART = 16
SLOW_BYTES_PER_S, SLOW_QUEUE_S = 10_000, 2.0
SLOW_FILE_BYTES = 64 * MIB
SLOW_S, SLOW_QUICK_S = 60, 5
SIDES = ("primary", "backup")


def measure(directory: Path, trials: int, quick: bool) -> list[Row]:
    """Returns the rows of both: so many copies of each data set, and a slow link."""
    rows: list[Row] = []
    for data in make_data_sets(directory / "data", frozenset({"D1", "D2"}), QUICK_PART if quick else 1):
        rows += beside_copies(data, directory, trials)
    return rows + over_slow_link(directory / "slow", SLOW_QUICK_S if quick else SLOW_S)


@dataclass(frozen=True)
class Beside:
    """What one copy did to the link: how late frames were without and with it, by side, in ms; and how long it took.

    `calm_changes` and `changes`: what nobody asked for in CALM_S without it, and while it went on.
    """

    calm: tuple[list[float], list[float]]
    late: tuple[list[float], list[float]]
    calm_changes: int
    changes: int
    seconds: float


def beside_copies(data: DataSet, directory: Path, trials: int) -> list[Row]:
    """Returns the rows of so many copies to a running, linked standby."""
    found = []
    for trial in range(trials):
        place = directory / f"{data.name}-{trial}"
        place.mkdir()
        stage = Stage(data, place / "source", place / "destination")
        found.append(beside_one_copy(stage, place / "own"))
        print(f"  {data.name} copied in {found[-1].seconds:.1f} s", flush=True)
        if difference := stage.difference():
            raise RuntimeError(f"the destination has {difference}")
        stage.remove(directory / "moved-away")
    name = f"{data.name}, {INTERVAL_MS}/{TIMEOUT_MS} ms"
    rows = [
        Row(f"{name}: {', '.join(ROLE_EVENTS)}", [each.changes for each in found], "times", "0"),
        Row(f"  the same, {CALM_S:.0f} s with nothing copied", [each.calm_changes for each in found], "times", "0"),
        Row(f"{name}: the copy", [each.seconds for each in found], "s"),
    ]
    for number, side in enumerate(SIDES):
        late, calm = [each.late[number] for each in found], [each.calm[number] for each in found]
        rows += lateness_rows(f"{name}: {side}'s frame late by", late, calm)
    return rows


def beside_one_copy(stage: Stage, directory: Path) -> Beside:
    """Has a pair in sync, watches its link in peace, and then while the stage's change is copied."""
    timers = {"interval_ms": INTERVAL_MS, "timeout_ms": TIMEOUT_MS}
    measured = pair_with_tree(directory, stage.source, stage.destination, network=None, **timers)
    with contextlib.closing(measured):
        start_in_sync(measured)
        before = troubles(measured)
        with LinkWatch(measured.pair.port, client_port(measured)) as calm:
            time.sleep(CALM_S)
        calm_changes = troubles(measured) - before
        measured.wait_in_order()  # a link that was lost without any copying is back, from another port
        before = troubles(measured)
        with LinkWatch(measured.pair.port, client_port(measured)) as watch:
            start = time.monotonic()
            stage.change()
            done = wait_patiently(lambda: is_in_sync(measured) and stage.looks_the_same(), "the copy")
        changes = troubles(measured) - before
        if changes:
            tell_troubles(measured)
    return Beside(lateness(calm), lateness(watch), calm_changes, changes, done - start)


def lateness_rows(name: str, late: Sequence[list[float]], calm: Sequence[list[float]]) -> list[Row]:
    """Returns all values, and the 99th percentile of each trial, beside the same without a copy."""
    rows = []
    for says, values, quiet in (
        (name, flat(late), flat(calm)),
        ("  99th percentile", percentiles(late), percentiles(calm)),
    ):
        base = Row("  the same, nothing copied", quiet)
        rows += [Row(says, values, against=base), base]
    return rows


def over_slow_link(directory: Path, seconds: int) -> list[Row]:
    """Returns what a copy over a slow link did to the link, with default timers."""
    directory.mkdir()
    random_file(directory / "data" / "big", SLOW_FILE_BYTES)
    data = DataSet("slow", "one file", None, directory / "data")
    stage = Stage(data, directory / "source", directory / "destination")
    network = Network()
    try:
        measured = pair_with_tree(directory / "own", stage.source, stage.destination, network=network)
        with contextlib.closing(measured):
            start_in_sync(measured)
            calm = round_trips_ms(measured, min(seconds, 10))
            network.slow_down(SLOW_BYTES_PER_S, SLOW_QUEUE_S)
            before, carried = troubles(measured), network.carried_bytes()
            stage.change()
            slow = round_trips_ms(measured, seconds)
            changes, carried = troubles(measured) - before, network.carried_bytes() - carried
            if changes:
                tell_troubles(measured)
            network.speed_up()
    finally:
        network.close()
    name = f"{SLOW_BYTES_PER_S // 1000} kB/s, default timers"
    return [
        Row(f"{name}: {', '.join(ROLE_EVENTS)} in {seconds} s of copying", [changes], "times", "0"),
        Row(f"{name}: carried, both ways", [carried / seconds / 1000], "kB/s"),
        Row(f"{name}: round trip of a heartbeat", slow, against=Row("  at full speed, nothing copied", calm)),
        Row("  at full speed, nothing copied", calm),
    ]


def start_in_sync(measured: MeasuredPair) -> None:
    """Starts the pair and returns when it is in order and in sync."""
    measured.start_in_order()
    wait_patiently(lambda: is_in_sync(measured), "the pair in sync")


def round_trips_ms(measured: MeasuredPair, seconds: int) -> list[float]:
    """Returns what both agents say of the round trip, once a second."""
    found = []
    for _ in range(seconds):
        time.sleep(1)
        for node in measured.pair.nodes:
            status = node.status()
            if status and status["link"]["rtt_ms"] is not None:
                found.append(float(status["link"]["rtt_ms"]))
    return found


def client_port(measured: MeasuredPair) -> int:
    """Returns the port that the link comes from, as the primary tells it: bulk comes from another one."""
    return int(str(measured.primary.status()["link"]["address"]).rsplit(maxsplit=1)[-1])


def lateness(watch: LinkWatch) -> tuple[list[float], list[float]]:
    """Returns how much longer than an interval the gaps were, in ms: the primary's and the backup's."""
    primary, backup = ([max(0.0, gap - INTERVAL_MS) for gap in gaps] for gaps in watch.gaps_ms)
    return primary, backup


def flat(trials: Sequence[list[float]]) -> list[float]:
    """Returns the values of all trials."""
    return [value for trial in trials for value in trial]


def percentiles(trials: Sequence[list[float]]) -> list[float]:
    """Returns the 99th percentile of each trial."""
    return [statistics.quantiles(trial, n=100)[98] for trial in trials if len(trial) > 1]
