"""How long a node takes to get what the other one has: the product, rsync through stunnel, and Syncthing in turn.

Six data sets (`data_sets.py`), each copied by each copier once a round, over the same two namespaces, encrypted, and
compared byte by byte with what it should be. A time ends when everything is durable: the product and Syncthing flush
by themselves, rsync does with --fsync; for all but the product a syncfs of the destination follows at once and is in
the figure, so that nobody's pages are left behind. When a tool itself says that it is done stands in rows of its own.
"""

from __future__ import annotations

import shutil
import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.copier import Copied, Copier
from tests.bench.data_sets import DataSet, Stage, make_data_sets
from tests.bench.namespaces import Network
from tests.bench.report import Row, aligned, number_text
from tests.bench.resync_product import Product
from tests.bench.rsync import Rsync
from tests.bench.syncthing import Syncthing

NAMES = ("D1", "D2", "D3", "D4", "D5", "D6")
QUICK_PART = 16  # a quick run copies a sixteenth of everything


@dataclass(frozen=True)
class Metric:
    """One figure of a copy, None where a copier has none; its ratio is taken to the peers' same, or to `against`."""

    says: str
    unit: str
    of: Callable[[Copied], float | None]
    against: Metric | None = None


DURABLE = Metric("durable", "s", lambda copied: copied.durable_s)
PROCESSOR = Metric("processor", "s", lambda copied: copied.processor_s)
METRICS = (
    DURABLE,
    Metric("durable, from the link", "s", lambda copied: copied.from_link_s, DURABLE),
    Metric("says it is done", "s", lambda copied: copied.finished_s),
    Metric("wire", "MB", lambda copied: copied.wire_bytes / 1e6),
    PROCESSOR,
    Metric("processor, from the link", "s", lambda copied: copied.from_link_processor_s, PROCESSOR),
    Metric("memory of a node", "MB", lambda copied: copied.node_mb),
    Metric("memory of the greatest process", "MB", lambda copied: copied.process_mb),
)


@dataclass
class Results:
    """What one copier reached with one data set, and how often its copy was wrong or broke off."""

    name: str
    copies: list[Copied] = field(default_factory=list)
    failures: int = 0

    def values(self, metric: Metric) -> list[float]:
        """Returns the figures of one kind."""
        return [value for copied in self.copies if (value := metric.of(copied)) is not None]


def measure(directory: Path, rounds: int, names: frozenset[str], quick: bool) -> list[Row]:
    """Prints a table after each data set, and returns how many copies failed."""
    network = Network()
    own = [Product("pair-agent, cold", network, live=False), Product("pair-agent, live", network, live=True)]
    peers: list[Copier] = [
        Rsync("rsync, stunnel", network),
        Rsync("rsync --fsync, stunnel", network, "--fsync"),
        Syncthing("Syncthing", network),
    ]
    failures = []
    try:
        for data in make_data_sets(directory / "data", names or frozenset(NAMES), QUICK_PART if quick else 1):
            results = copy_in_turn(data, [*own, *peers], directory, rounds)
            print(f"\n{data.name}, {data.says}\n{comparison(results[: len(own)], results[len(own) :])}\n", flush=True)
            failures.append(Row(f"{data.name}: copies that failed", [sum(each.failures for each in results)], "", "0"))
    finally:
        network.close()
    return failures


def copy_in_turn(data: DataSet, copiers: Sequence[Copier], directory: Path, rounds: int) -> list[Results]:
    """Has every copier copy once a round."""
    results = [Results(copier.name) for copier in copiers]
    for number in range(rounds):
        for copier, result in zip(copiers, results, strict=True):
            place = directory / f"{data.name}-{number}"
            place.mkdir()
            stage = Stage(data, place / "source", place / "destination")
            try:
                (place / "own").mkdir()
                copied = copier.copy(stage, place / "own")
                if difference := stage.difference():
                    raise RuntimeError(f"the destination has {difference}")
                result.copies.append(copied)
                print(f"  {data.name} {copier.name}: {copied.durable_s:.2f} s", flush=True)
            except (RuntimeError, AssertionError, OSError):
                result.failures += 1
                print(f"  {data.name} {copier.name} failed:\n{traceback.format_exc()}", flush=True)
            finally:
                stage.remove(directory / "moved-away")
                shutil.rmtree(place)
    return results


def comparison(own: Sequence[Results], peers: Sequence[Results]) -> str:
    """Returns a table of one data set: each figure of each copier, and the ratio of its median to each peer's."""
    heading = ("figure", "copier", "median", "min", "max", "n", "unit", *(f"to {peer.name}" for peer in peers))
    lines = [heading]
    for metric in METRICS:
        bases = [peer.values(metric.against or metric) for peer in peers]
        for result in (*own, *peers):
            if values := result.values(metric):
                numbers = (number_text(each) for each in (statistics.median(values), min(values), max(values)))
                ratios = [ratio_text(values, base) if result in own else "" for base in bases]
                lines.append((metric.says, result.name, *numbers, str(len(values)), metric.unit, *ratios))
    return aligned(lines, frozenset({2, 3, 4, 5, *range(7, len(heading))}))


def ratio_text(values: Sequence[float], base: Sequence[float]) -> str:
    """Returns the ratio of two medians; "" if there is none."""
    whole = statistics.median(base) if base else 0
    return f"{statistics.median(values) / whole:.2f}" if whole else ""
