"""Twice as many processor hogs as processors: does anybody lose or take the active role?

The pair and keepalived in turn, with beats of 10 ms. Every state change in the time is one that nobody asked for. The
gaps between the pair's heartbeats are taken from the wire.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contenders import Keepalived
from tests.bench.frames import LinkWatch
from tests.bench.product import MeasuredPair, guardian_pid
from tests.bench.programs import compile_program
from tests.bench.report import Row
from tests.bench.takeover import FAST, INTERVAL_MS, PLAIN, TIMEOUT_MS

HOGS_PER_PROCESSOR = 2
TOLD_MAX = 6
ROLE_EVENTS = ("role-changed", "link-down", "workload-fenced", "agent-was-frozen")
SCHEDULING = {os.SCHED_OTHER: "ordinary", os.SCHED_RR: "real-time", os.SCHED_FIFO: "real-time"}


def measure(directory: Path, seconds: int) -> list[Row]:
    """Returns how often somebody changed within so many seconds, and how regular the heartbeats were."""
    stamp = compile_program("stamp", directory)
    rows = of_product(directory / "p", stamp, seconds)
    for words, priorities, realtime in (("plain", PLAIN, False), ("fastest", FAST, True)):
        name = f"keepalived {words}, adverts of {INTERVAL_MS} ms"
        peer = Keepalived(
            name, directory / words, stamp, advert_ms=INTERVAL_MS, priorities=priorities, realtime=realtime
        )
        with contextlib.closing(peer):
            peer.start()
            before = peer.changes()
            with busy():
                time.sleep(seconds)
            rows.append(Row(f"{name}: state changes", [peer.changes() - before], "times"))
    return rows


def of_product(directory: Path, stamp: Path, seconds: int) -> list[Row]:
    """Returns the rows of the pair."""
    measured = MeasuredPair(directory, interval_ms=INTERVAL_MS, timeout_ms=TIMEOUT_MS, workload=[str(stamp), "stamps"])
    with contextlib.closing(measured):
        measured.start_in_order()
        before = troubles(measured)
        with busy(), LinkWatch(measured.pair.port) as watch:
            time.sleep(seconds)
        changes = troubles(measured) - before
        if changes:
            tell_troubles(measured)
        granted = ", ".join(f"{node.name} {scheduling(node.pid)}" for node in measured.pair.nodes)
    hogs, name = HOGS_PER_PROCESSOR * (os.cpu_count() or 1), f"pair-agent {INTERVAL_MS}/{TIMEOUT_MS} ms"
    rows = [Row(f"{name}: role changes, losses, freezes in {seconds} s, {hogs} hogs", [changes], "times", "0")]
    for side, gaps in zip(("primary", "backup"), watch.gaps_ms, strict=True):
        rows.append(Row(f"{name}: gap between the {side}'s frames", gaps))
    print(f"scheduling of agent and guardian: {granted}")
    return rows


def troubles(measured: MeasuredPair) -> int:
    """Returns how many events tell of something that nobody asked for."""
    return sum(measured.tail(node).count(*ROLE_EVENTS) for node in measured.pair.nodes)


def tell_troubles(measured: MeasuredPair) -> None:
    """Prints the newest events that tell of something that nobody asked for, because figures alone do not explain."""
    for node in measured.pair.nodes:
        told = [event for event in measured.tail(node).read() if event["code"] in ROLE_EVENTS]
        for event in told[-TOLD_MAX:]:
            print(f"  {event['time']} {node.name} {event['code']}: {event['sentence']}")


def scheduling(agent_pid: int) -> str:
    """Returns how an agent and its guardian are scheduled."""
    guardian = guardian_pid(agent_pid)
    words = [SCHEDULING.get(policy_of(pid), "?") for pid in (agent_pid, guardian) if pid is not None]
    return "/".join(words)


def policy_of(pid: int) -> int:
    """Returns the scheduling policy of a process without its flags."""
    return os.sched_getscheduler(pid) & ~getattr(os, "SCHED_RESET_ON_FORK", 0)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keeps every processor busy with ordinary work."""
    hogs = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"], stdin=subprocess.DEVNULL)
        for _ in range(HOGS_PER_PROCESSOR * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
