"""How long a node takes to get what the other one has: the product, rsync through stunnel, and Syncthing in turn.

Six data sets (`data_sets.py`), each copied by each copier once a round, over the same two namespaces, encrypted, and
compared byte by byte with what it should be. A time ends when everything is durable: the product and Syncthing flush
by themselves, rsync does with --fsync; for all but the product a syncfs of the destination follows at once and is in
the figure, so that nobody's pages are left behind. When a tool itself says that it is done stands in rows of its own.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.copier import Copied, Copier
from tests.bench.data_sets import DataSet, Stage, make_data_sets
from tests.bench.namespaces import Network
from tests.bench.report import Row, table
from tests.bench.resync_product import Product
from tests.bench.rsync import Rsync
from tests.bench.syncthing import Syncthing

NAMES = ("D1", "D2", "D3", "D4", "D5", "D6")
QUICK_PART = 16  # a quick run copies a sixteenth of everything


@dataclass(frozen=True)
class Metric:
    """One figure of a copy; None where a copier has none."""

    says: str
    unit: str
    of: Callable[[Copied], float | None]
    compared: bool = True


METRICS = (
    Metric("durable", "s", lambda copied: copied.durable_s),
    Metric("durable, from the link", "s", lambda copied: copied.from_link_s),
    Metric("says it is done", "s", lambda copied: copied.finished_s, compared=False),
    Metric("wire", "MB", lambda copied: copied.wire_bytes / 1e6),
    Metric("processor", "s", lambda copied: copied.processor_s),
    Metric("processor, from the link", "s", lambda copied: copied.from_link_processor_s),
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
            print(f"\n{data.name}, {data.says}\n{table(rows(results, len(own)))}", flush=True)
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


def rows(results: Sequence[Results], own: int) -> list[Row]:
    """Returns the rows of one data set: the first `own` of the results beside each of the others, then these alone."""
    found = []
    for metric in METRICS:
        peers = [Row(f"{metric.says}: {peer.name}", peer.values(metric), metric.unit) for peer in results[own:]]
        bases = peers
        if not any(peer.values for peer in peers):  # only the product has a link to count from: beside their whole
            whole = next(each for each in METRICS if each.says == metric.says.partition(",")[0])
            bases = [Row(f"{whole.says}: {peer.name}", peer.values(whole), whole.unit) for peer in results[own:]]
            peers = []
        for each in results[:own]:
            name, values = f"{metric.says}: {each.name}", each.values(metric)
            if values and metric.compared:
                found += [Row(name, values, metric.unit, against=base) for base in bases]
            elif values:
                found.append(Row(name, values, metric.unit))
        found += [peer for peer in peers if peer.values]
    return found
