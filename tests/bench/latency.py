"""From a change on the active node until the standby's disk has it: one file of 1 KiB, the product and Syncthing.

The clock starts before the file is written in place, as most programs do, and ends when the file on the other node has
the new contents; whoever measures looks a thousand times a second. The product and Syncthing flush a file before they
give it its name. The contenders take turns, a few changes each, and run alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.copier import wait_patiently
from tests.bench.data_sets import DataSet, Stage, small_files
from tests.bench.namespaces import Network
from tests.bench.report import Row
from tests.bench.resync_product import is_in_sync, pair_with_tree
from tests.bench.syncthing import linked_instances, share

FILE, FILE_BYTES = Path("0000", "000"), 1024
CHANGES_PER_TURN = 10
SETTLE_S = 3.0
PAUSE_S = (0.8, 1.6)  # between changes; random, so that no timer of a contender keeps step with it
LOOK_EVERY_S = 0.001
PATIENCE_S = 60.0
WATCH_DELAY_S = 1  # the least of Debian 12's Syncthing, which takes whole seconds; its default is 10
Running = Callable[[Network, Stage, Path], contextlib.AbstractContextManager[None]]


def measure(directory: Path, changes: int) -> list[Row]:
    """Returns the times of so many changes with each contender."""
    small_files(directory / "data", 1)
    data = DataSet("latency", "one file of 1 KiB", directory / "data", directory / "data")
    times: dict[str, list[float]] = {"pair-agent": [], "Syncthing": []}
    running: dict[str, Running] = {"pair-agent": running_pair, "Syncthing": running_syncthing}
    network = Network()
    try:
        for turn, begin in enumerate(range(0, changes, CHANGES_PER_TURN)):
            for name, found in times.items():
                place = directory / f"{turn}-{name}"
                (place / "own").mkdir(parents=True)
                stage = Stage(data, place / "source", place / "destination")
                unlink_from_data(stage)
                with running[name](network, stage, place / "own"):
                    time.sleep(SETTLE_S)
                    found += [change_ms(stage) for _ in range(min(CHANGES_PER_TURN, changes - begin))]
    finally:
        network.close()
    peer = Row("Syncthing, watching with its least delay", times["Syncthing"])
    return [Row("pair-agent, change to the standby's disk", times["pair-agent"], against=peer), peer]


def change_ms(stage: Stage) -> float:
    """Changes the file and returns how long it takes until the destination has it, in ms."""
    time.sleep(random.uniform(*PAUSE_S))
    contents = os.urandom(FILE_BYTES)
    target = stage.destination / FILE
    start = time.monotonic()
    (stage.source / FILE).write_bytes(contents)
    while not has(target, contents):
        time.sleep(LOOK_EVERY_S)
        if time.monotonic() - start > PATIENCE_S:
            raise RuntimeError(f"waited {PATIENCE_S:.0f} s in vain for a change at the destination")
    return (time.monotonic() - start) * 1000


def has(path: Path, contents: bytes) -> bool:
    """Tells whether a file has these contents; False while it is not there."""
    try:
        return path.stat().st_size == len(contents) and path.read_bytes() == contents
    except OSError:
        return False


def unlink_from_data(stage: Stage) -> None:
    """Gives the source a file of its own in place of a link to the data set's, because it is written in place."""
    path = stage.source / FILE
    path.unlink()
    path.write_bytes((stage.destination / FILE).read_bytes())
    kept = (stage.destination / FILE).stat()
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


@contextlib.contextmanager
def running_pair(network: Network, stage: Stage, directory: Path) -> Iterator[None]:
    """A pair in sync."""
    measured = pair_with_tree(directory, stage.source, stage.destination, network=network)
    with contextlib.closing(measured):
        measured.start_in_order()
        wait_patiently(lambda: is_in_sync(measured), "the pair in sync", PATIENCE_S)
        yield


@contextlib.contextmanager
def running_syncthing(network: Network, stage: Stage, directory: Path) -> Iterator[None]:
    """Two Syncthing that watch the folder with the least delay that they take."""
    with linked_instances(network, directory) as nodes:
        share(nodes, (stage.source, stage.destination), watch_delay_s=WATCH_DELAY_S)
        wait_patiently(lambda: all(node.is_idle() for node in nodes), "Syncthing in sync", PATIENCE_S)
        granted = nodes[0].folder()["fsWatcherDelayS"]
        print(f"Syncthing's fsWatcherDelayS: {granted}", flush=True)
        yield
