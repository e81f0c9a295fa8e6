"""The product as a copier: a pair with one tree, once begun cold like rsync, once running and linked like Syncthing.

Cold: both agents had the state before the change, were stopped in good order, and are started after it; so nothing of
the work can have been done before the clock runs, and the start of both agents, their link and the decision who is
active are in the figure. "From the link" leaves these out. Live: both agents run and are in sync when the source
changes. Both end when the backup says that it is in sync, and its files are those of the source; the product flushes by
itself, so then everything is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from tests.bench.copier import Copied, wait_patiently
from tests.bench.data_sets import Stage
from tests.bench.namespaces import Network
from tests.bench.product import MeasuredPair
from tests.bench.takeover import DEFAULT_INTERVAL_MS, DEFAULT_TIMEOUT_MS
from tests.bench.usage import PeakMemory, processor_s

WORKLOAD = ["sleep", "1000000"]
SETTLE_S = 3.0
IN_SYNC = "in-sync"


class Product:
    """A new pair for each copy; `live` or cold."""

    def __init__(self, name: str, network: Network, *, live: bool) -> None:
        self.name = name
        self._network = network
        self._live = live

    def copy(self, stage: Stage, directory: Path) -> Copied:
        """See Copier."""
        measured = pair_with_tree(directory, stage.source, stage.destination, network=self._network)
        with contextlib.closing(measured):
            return self._copy_live(stage, measured) if self._live else self._copy_cold(stage, measured)

    def _copy_cold(self, stage: Stage, measured: MeasuredPair) -> Copied:
        if stage.data.before is not None:
            measured.start_in_order()
            wait_patiently(lambda: is_in_sync(measured), "the state before the change on both nodes")
            measured.pair.stop_both()
        stage.change()
        carried = self._network.carried_bytes()
        tail = measured.tail(measured.backup)
        with PeakMemory(but=frozenset(WORKLOAD[:1])) as memory:
            start = time.monotonic()
            for number, node in enumerate(measured.pair.nodes):
                measured.start(node)
                memory.add(number, node.pid)
            roots = [node.pid for node in measured.pair.nodes]
            linked = wait_patiently(lambda: tail.last("link-up") is not None, "the link")
            linked_spent_s = processor_s(roots)
            finished = wait_patiently(lambda: is_in_sync(measured) and stage.looks_the_same(), "the pair in sync")
            spent_s = processor_s(roots)
            memory.look()
        return Copied(
            finished - start,
            finished - start,
            self._network.carried_bytes() - carried,
            spent_s,
            memory.of_node_mb,
            memory.of_process_mb,
            from_link_s=finished - linked,
            from_link_processor_s=spent_s - linked_spent_s,
        )

    def _copy_live(self, stage: Stage, measured: MeasuredPair) -> Copied:
        measured.start_in_order()
        wait_patiently(lambda: is_in_sync(measured), "the state before the change on both nodes")
        time.sleep(SETTLE_S)
        roots = [node.pid for node in measured.pair.nodes]
        carried, spent_s = self._network.carried_bytes(), processor_s(roots)
        with PeakMemory(but=frozenset(WORKLOAD[:1])) as memory:
            for number, pid in enumerate(roots):
                memory.add(number, pid)
            start = time.monotonic()
            stage.change()
            asked = 0
            if not stage.data.changed:  # nothing will be noticed; by order both nodes look at every file, as rsync does
                asked = int(measured.backup.ask("/v1/sync", "POST", {})["details"]["round"])
            finished = wait_patiently(
                lambda: is_in_sync(measured, asked) and stage.looks_the_same(), "the pair in sync"
            )
            spent_s = processor_s(roots) - spent_s
            memory.look()
        carried = self._network.carried_bytes() - carried
        return Copied(finished - start, finished - start, carried, spent_s, memory.of_node_mb, memory.of_process_mb)


def pair_with_tree(
    directory: Path,
    source: Path,
    destination: Path,
    *,
    network: Network | None,
    interval_ms: int = DEFAULT_INTERVAL_MS,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
) -> MeasuredPair:
    """Makes a pair, not started, whose tree is `source` on the primary and `destination` on the backup."""
    measured = MeasuredPair(
        directory, interval_ms=interval_ms, timeout_ms=timeout_ms, workload=WORKLOAD, network=network
    )
    for node, path in ((measured.primary, source), (measured.backup, destination)):
        tree = f'[[tree]]\nname = "tree"\nkind = "data"\npath = {json.dumps(str(path))}\n'
        node.config.write_text(node.config.read_text() + tree)
    return measured


def is_in_sync(measured: MeasuredPair, asked: int = 0) -> bool:
    """Tells whether the backup says that it has everything, and has heard of the synchronisation `asked` for."""
    status = measured.backup.status()
    if not status or status["link"]["state"] != "up":
        return False
    return bool(status["sync"]["state"] == IN_SYNC and status["sync"].get("round", 0) >= asked)
