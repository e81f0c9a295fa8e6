"""What a benchmark of copying asks of whoever copies, and what it gets: one face for the product and its peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.data_sets import Stage

PATIENCE_S = 900.0
POLL_S_MIN, POLL_SHARE = 0.005, 0.02


@dataclass(frozen=True)
class Copied:
    """One copy: times in seconds from the beginning, memory in 10**6 bytes.

    `finished_s`: until the copier says that it is done. `durable_s`: until all of it is on the disk as well.
    `from_link_s`: the same, counted from the moment when the nodes were linked; only where there is such a moment.
    """

    finished_s: float
    durable_s: float
    wire_bytes: int
    processor_s: float
    node_mb: float
    process_mb: float
    from_link_s: float | None = None
    from_link_processor_s: float | None = None


class Copier(Protocol):
    """Copies a stage's source to its destination, from one node to the other, encrypted."""

    name: str

    def copy(self, stage: Stage, directory: Path) -> Copied:
        """Has the source changed, copies, and returns what that took; everything that was started has ended.

        `directory` is there and empty, for whatever else the copier writes.
        """


def wait_patiently(done: Callable[[], bool], what: str, bound_s: float = PATIENCE_S) -> float:
    """Waits until `done` and returns the time of asking, on the monotonic clock; RuntimeError if it never is.

    Asks the more seldom the longer it lasts, so that asking costs the one who is asked little and the answer is wrong
    by little.
    """
    start = time.monotonic()
    while True:
        asked = time.monotonic()
        if done():
            return asked
        if asked - start > bound_s:
            raise RuntimeError(f"waited {bound_s:.0f} s in vain for {what}")
        time.sleep(max(POLL_S_MIN, POLL_SHARE * (asked - start)))
