"""What an agent costs while nothing happens: processor time, memory, and how long the command takes to start.

Agent and guardian are counted apart. Memory is PSS, where shared pages count by their share, and RSS; a machine runs
one agent, so the greater of the two figures is the honest one.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.product import MeasuredPair, guardian_pid
from tests.bench.report import Row
from tests.bench.takeover import DEFAULT_INTERVAL_MS, DEFAULT_TIMEOUT_MS, INTERVAL_MS, TIMEOUT_MS

WORKLOAD = ["sleep", "1000000"]
STARTS_PER_TRIAL, STARTS_MAX = 1, 20
MEMORY_TARGET, START_TARGET = "60", "300"


def measure(directory: Path, seconds: int) -> list[Row]:
    """Returns the rows, with timers as they are by default and as short as they get."""
    rows = []
    for interval_ms, timeout_ms in ((DEFAULT_INTERVAL_MS, DEFAULT_TIMEOUT_MS), (INTERVAL_MS, TIMEOUT_MS)):
        rows += of_pair(directory / str(interval_ms), interval_ms, timeout_ms, seconds)
    return rows + starts(min(STARTS_MAX, seconds * STARTS_PER_TRIAL))


def of_pair(directory: Path, interval_ms: int, timeout_ms: int, seconds: int) -> list[Row]:
    """Returns what the four processes of a pair took in so many seconds; each row has primary and backup."""
    measured = MeasuredPair(directory, interval_ms=interval_ms, timeout_ms=timeout_ms, workload=WORKLOAD)
    with contextlib.closing(measured):
        measured.start_in_order()
        agents = [node.pid for node in measured.pair.nodes]
        guardians = [pid for agent in agents if (pid := guardian_pid(agent)) is not None]
        before = {pid: processor_ns(pid) for pid in agents + guardians}
        start = time.monotonic()
        time.sleep(seconds)
        passed_ns = (time.monotonic() - start) * 1e9
        share = {pid: (processor_ns(pid) - before[pid]) / passed_ns * 100 for pid in before}
        rows = []
        for who, pids in (("agent", agents), ("guardian", guardians)):
            name = f"{who}, {interval_ms}/{timeout_ms} ms"
            target = MEMORY_TARGET if who == "agent" else ""
            rows.append(Row(f"{name}: processor", [share[pid] for pid in pids], "% of one"))
            rows.append(Row(f"{name}: memory, RSS", [memory_mb(pid, "Rss") for pid in pids], "MB", target))
            rows.append(Row(f"{name}: memory, PSS", [memory_mb(pid, "Pss") for pid in pids], "MB"))
        return rows


def starts(trials: int) -> list[Row]:
    """Returns how long `--version` takes: as a module, and as the installed command where there is one."""
    commands = {"python -m agent --version": [sys.executable, "-m", "agent", "--version"]}
    installed = Path(sys.executable).with_name("pair-agent")
    if installed.exists():
        commands["pair-agent --version"] = [str(installed), "--version"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(trials):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - start) * 1000)
    return [Row(name, found, target=START_TARGET) for name, found in times.items()]


def processor_ns(pid: int) -> int:
    """Returns the time that all threads of a process have run, in ns."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def memory_mb(pid: int, kind: str) -> float:
    """Returns resident memory in 10**6 bytes; `kind` is "Rss" or "Pss"."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/smaps_rollup names no {kind}")
