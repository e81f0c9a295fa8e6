"""How long nobody runs after a fault: an agent killed with -9, and a cable cut without a sign.

From just before the fault to the first instruction of the workload on the other node. keepalived runs in turn with it
in namespaces of the same kind, once as most people set it up and once as fast as it gets: highest priorities, which
shorten what it waits beyond three adverts, and real-time scheduling.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.contenders import Contender, Keepalived, Product
from tests.bench.programs import compile_program
from tests.bench.report import Row

INTERVAL_MS, TIMEOUT_MS = 10, 30
DEFAULT_INTERVAL_MS, DEFAULT_TIMEOUT_MS = 1_000, 5_000
DEFAULT_TRIALS_MAX = 5  # with adverts of a second one takeover takes more than three
PLAIN, FAST = (150, 100), (254, 253)
NANOSECONDS_PER_MILLISECOND = 1e6


def kills(directory: Path, trials: int) -> list[Row]:
    """Kills of the active agent, with short and with default timers."""
    rows = compare(directory / "short", trials, cut=False, target="median 7, worst 20")
    few = min(trials, DEFAULT_TRIALS_MAX)
    return rows + compare(directory / "default", few, cut=False, target="median 20", default=True)


def cuts(directory: Path, trials: int) -> list[Row]:
    """Silent cuts of the active node's cable, with short timers."""
    return compare(directory / "cut", trials, cut=True, target="not above keepalived")


def compare(directory: Path, trials: int, *, cut: bool, target: str, default: bool = False) -> list[Row]:
    """Measures the contenders in turn and returns their rows, the product's first."""
    directory.mkdir(parents=True)
    stamp = compile_program("stamp", directory)
    interval_ms, timeout_ms = (DEFAULT_INTERVAL_MS, DEFAULT_TIMEOUT_MS) if default else (INTERVAL_MS, TIMEOUT_MS)
    fault = "cable cut" if cut else "kill -9"
    timers = f"{interval_ms}/{timeout_ms} ms"
    with contextlib.ExitStack() as everything:
        product = Product(
            f"pair-agent {timers}, {fault}", directory / "p", stamp, interval_ms=interval_ms, timeout_ms=timeout_ms
        )
        everything.callback(product.close)
        contenders: list[Contender] = [product]
        for words, priorities, realtime in (("plain", PLAIN, False), ("fastest", FAST, True)):
            name = f"keepalived {words}, adverts of {interval_ms} ms, {fault}"
            if default and not realtime:
                continue
            peer = Keepalived(
                name, directory / words, stamp, advert_ms=interval_ms, priorities=priorities, realtime=realtime
            )
            everything.callback(peer.close)
            contenders.append(peer)
        found: list[list[float]] = [[] for _ in contenders]
        own: list[float] = []
        for _ in range(trials):
            for times, contender in zip(found, contenders, strict=True):
                fault_ns, started_ns = trial(contender, interval_ms, cut=cut)
                times.append((started_ns - fault_ns) / NANOSECONDS_PER_MILLISECOND)
                if contender is product:
                    own.append((product.own_times_ns[-1] - fault_ns) / NANOSECONDS_PER_MILLISECOND)
    return rows_of([contender.name for contender in contenders], found, own, target)


def trial(contender: Contender, interval_ms: int, *, cut: bool) -> tuple[int, int]:
    """Returns the instants of the fault and of the other side's start, in ns of the boot clock."""
    contender.start()
    try:
        time.sleep(random.uniform(0, 1.5 * interval_ms / 1_000))
        fault_ns = contender.network.cut(0) if cut else contender.kill_active()
        return fault_ns, contender.taken_over_ns(fault_ns)
    finally:
        contender.end()
        if cut:
            contender.network.mend(0)


def rows_of(names: Sequence[str], found: Sequence[Sequence[float]], own: Sequence[float], target: str) -> list[Row]:
    """Returns the peers' rows last, and the product's once against each of them."""
    peers = [Row(name, times) for name, times in zip(names[1:], found[1:], strict=True)]
    product = [Row(names[0], found[0], target=target, against=peer) for peer in peers]
    return [*product, Row("  the same, by the agent's own event", own), *peers]
