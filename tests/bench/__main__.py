"""Measures what the project promises in figures; see README.md in this folder.

    python -m tests.bench [NAME ...] [--trials N] [--quick]
    python -m tests.bench resync --only D1,D3 --rounds 3

Prints tables and judges nothing. Exit code 1 if a benchmark could not run to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import bulk_heartbeats, hogs, idle, latency, overlap, replica_memory, resync, strangers, takeover
from tests.bench.report import Noise, Row, machine, table
from tests.lanes import missing_copiers, missing_for_namespaces, missing_tool

Lacking = Callable[[], str | None]
COMPILER, PEER = missing_tool("gcc", "gcc libc6-dev"), missing_tool("keepalived", "keepalived")


@dataclass(frozen=True)
class Extent:
    """How much to measure: so many trials, of these parts only (empty: all), with small data if `quick`."""

    trials: int
    only: frozenset[str]
    quick: bool


Measure = Callable[[Path, Extent], list[Row]]


@dataclass(frozen=True)
class Benchmark:
    """`measure` with as much as asked for; `needs` say what is missing here; --only chooses from `parts`."""

    name: str
    proves: str
    measure: Measure
    trials: int
    trials_quick: int
    needs: tuple[Lacking, ...]
    parts: tuple[str, ...] = ()


def by_trials(measure: Callable[[Path, int], list[Row]]) -> Measure:
    """Makes a measure of one that wants to know the number of trials alone."""
    return lambda directory, extent: measure(directory, extent.trials)


BENCHMARKS = (
    Benchmark(
        "takeover",
        "agent killed: to the workload's first instruction on the other node",
        by_trials(takeover.kills),
        *(30, 1),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark(
        "silence",
        "cable cut silently: to the workload's first instruction on the other node",
        by_trials(takeover.cuts),
        *(30, 1),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark(
        "hogs",
        "role changes that nobody asked for on a busy machine (a trial is a second)",
        by_trials(hogs.measure),
        *(60, 2),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark("overlap", "two workloads at once, by their own record", by_trials(overlap.measure), 100, 1, (COMPILER,)),
    Benchmark(
        "idle",
        "what an agent costs that has nothing to do (a trial is a second)",
        by_trials(idle.measure),
        *(20, 1),
        (),
    ),
    Benchmark("strangers", "500 strangers at the port", by_trials(strangers.measure), 10, 1, ()),
    Benchmark(
        "resync",
        "a node gets what the other one has, beside rsync and Syncthing (a trial is a round of all)",
        lambda directory, extent: resync.measure(directory, extent.trials, extent.only, extent.quick),
        *(5, 1),
        (missing_for_namespaces, missing_copiers),
        resync.NAMES,
    ),
    Benchmark(
        "latency",
        "a change of 1 KiB on the active node: to the standby's disk (a trial is a change)",
        by_trials(latency.measure),
        *(50, 2),
        (missing_for_namespaces, missing_copiers),
    ),
    Benchmark(
        "bulk-heartbeats",
        "heartbeats while trees are copied, and over a slow link",
        lambda directory, extent: bulk_heartbeats.measure(directory, extent.trials, extent.quick),
        *(3, 1),
        (missing_for_namespaces,),
    ),
    Benchmark(
        "replica-memory",
        "what a large copy takes of a node's memory",
        lambda directory, extent: replica_memory.measure(directory, extent.trials, extent.only, extent.quick),
        *(1, 1),
        (missing_for_namespaces,),
        replica_memory.NAMES,
    ),
)


def parts_text() -> str:
    """Returns what --only can choose from."""
    return "; ".join(f"{each.name} has {', '.join(each.parts)}" for each in BENCHMARKS if each.parts)


def run(benchmark: Benchmark, extent: Extent) -> bool:
    """Measures one and prints its table; returns False if it broke off."""
    print(f"\n== {benchmark.name}: {benchmark.proves}", flush=True)
    lacking = next((why for need in benchmark.needs if (why := need())), None)
    if lacking is not None:
        print(f"not measured here: {lacking}")
        return True
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pab-") as directory, Noise() as noise:
        try:
            rows = benchmark.measure(Path(directory), extent)
        except Exception:
            traceback.print_exc()
            print(f"{benchmark.name} broke off", flush=True)
            return False
    print(table(rows))
    print(f"noise: {noise.sentence}; {time.monotonic() - start:.0f} s", flush=True)
    return True


def main(arguments: Sequence[str]) -> int:
    """Runs what the arguments name."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)}; without one: all")
    parser.add_argument(
        "--trials", "--rounds", type=int, dest="trials", help="how many trials or rounds of each; at least 1"
    )
    parser.add_argument("--only", default="", metavar="PART,PART", help=f"parts of a benchmark: {parts_text()}")
    parser.add_argument(
        "--quick", action="store_true", help="the fewest trials: shows that it runs, its figures do not count"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if chosen.trials is not None and chosen.trials < 1:
        parser.error(f"--trials {chosen.trials}: at least 1")
    only = frozenset(filter(None, chosen.only.split(",")))
    parts = {part for benchmark in BENCHMARKS if benchmark.name in chosen.names for part in benchmark.parts}
    if only - parts:
        parser.error(f"--only {', '.join(sorted(only - parts))}: name the benchmark too; there are {parts_text()}")
    # A terminated run removes its namespaces and processes like a finished one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(machine())
    good = True
    for benchmark in BENCHMARKS:
        if not chosen.names or benchmark.name in chosen.names:
            trials = chosen.trials or (benchmark.trials_quick if chosen.quick else benchmark.trials)
            good &= run(benchmark, Extent(trials, only & frozenset(benchmark.parts), chosen.quick))
    return 0 if good else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
