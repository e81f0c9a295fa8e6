"""Measures what the project promises in figures; see README.md in this folder.

    python -m tests.bench [takeover silence hogs overlap idle strangers] [--trials N] [--quick]

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

from tests.bench import hogs, idle, overlap, strangers, takeover
from tests.bench.report import Noise, Row, machine, table
from tests.lanes import missing_for_namespaces, missing_tool

Lacking = Callable[[], str | None]
COMPILER, PEER = missing_tool("gcc", "gcc libc6-dev"), missing_tool("keepalived", "keepalived")


@dataclass(frozen=True)
class Benchmark:
    """`measure(directory, trials)` with as many trials as asked for; `needs` say what is missing here."""

    name: str
    proves: str
    measure: Callable[[Path, int], list[Row]]
    trials: int
    trials_quick: int
    needs: tuple[Lacking, ...]


BENCHMARKS = (
    Benchmark(
        "takeover",
        "agent killed: to the workload's first instruction on the other node",
        takeover.kills,
        *(30, 1),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark(
        "silence",
        "cable cut silently: to the workload's first instruction on the other node",
        takeover.cuts,
        *(30, 1),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark(
        "hogs",
        "role changes that nobody asked for on a busy machine (a trial is a second)",
        hogs.measure,
        *(60, 2),
        (missing_for_namespaces, COMPILER, PEER),
    ),
    Benchmark("overlap", "two workloads at once, by their own record", overlap.measure, 100, 1, (COMPILER,)),
    Benchmark(
        "idle",
        "what an agent costs that has nothing to do (a trial is a second)",
        idle.measure,
        *(20, 1),
        (),
    ),
    Benchmark("strangers", "500 strangers at the port", strangers.measure, 10, 1, ()),
)


def run(benchmark: Benchmark, trials: int) -> bool:
    """Measures one and prints its table; returns False if it broke off."""
    print(f"\n== {benchmark.name}: {benchmark.proves}", flush=True)
    lacking = next((why for need in benchmark.needs if (why := need())), None)
    if lacking is not None:
        print(f"not measured here: {lacking}")
        return True
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pab-") as directory, Noise() as noise:
        try:
            rows = benchmark.measure(Path(directory), trials)
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
    parser.add_argument("--trials", type=int, help="how many trials of each; at least 1")
    parser.add_argument(
        "--quick", action="store_true", help="the fewest trials: shows that it runs, its figures do not count"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if chosen.trials is not None and chosen.trials < 1:
        parser.error(f"--trials {chosen.trials}: at least 1")
    # A terminated run removes its namespaces and processes like a finished one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(machine())
    good = True
    for benchmark in BENCHMARKS:
        if not chosen.names or benchmark.name in chosen.names:
            good &= run(benchmark, chosen.trials or (benchmark.trials_quick if chosen.quick else benchmark.trials))
    return 0 if good else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
