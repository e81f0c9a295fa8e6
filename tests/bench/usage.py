"""What processes take while something is measured: processor time and peak memory. Linux.

Read from /proc, so that nothing is started for it. Memory is VmHWM, the kernel's own peak of each process; a process
that ends between two looks is seen as it was at the last of them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.bench.contenders import descendants

LOOK_EVERY_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _REAPED_TICKS_END = 11, 15  # fields of /proc/PID/stat behind the name: own and reaped children's time


def processor_s(roots: Sequence[int]) -> float:
    """Returns the processor time of processes, their living descendants, and what these have outlived, in seconds."""
    ticks = 0
    for root in roots:
        for pid in descendants(root):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[_USER_TICKS:_REAPED_TICKS_END]))
    return ticks / TICKS_PER_S


def peak_memory_mb(pid: int) -> float:
    """Returns the greatest resident memory that a process ever had, in 10**6 bytes; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def program_of(pid: int) -> str:
    """Returns the name of the program that a process runs; "" if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class PeakMemory:
    """Collects, while it is entered, the peak of every process of each node; programs named in `but` do not count."""

    def __init__(self, but: frozenset[str] = frozenset()) -> None:
        self._but = but
        self._roots: list[tuple[int, int]] = []
        self._peaks: dict[int, dict[int, float]] = {}  # by node, then by process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def add(self, node: int, pid: int) -> None:
        """Counts a process and its descendants to a node from now on."""
        self._roots.append((node, pid))

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def of_node_mb(self) -> float:
        """The sum of the peaks of a node's processes; of the node where it is greater."""
        return max((sum(peaks.values()) for peaks in self._peaks.values()), default=0.0)

    @property
    def of_process_mb(self) -> float:
        """The peak of the greatest process."""
        return max((peak for peaks in self._peaks.values() for peak in peaks.values()), default=0.0)

    def look(self) -> None:
        """Notes the peaks so far; once more when everything is over, before the processes end."""
        for node, root in list(self._roots):
            peaks = self._peaks.setdefault(node, {})
            for pid in descendants(root):
                if self._but and program_of(pid) in self._but:
                    peaks.pop(pid, None)  # it was another program before it became this one
                elif peak := peak_memory_mb(pid):
                    peaks[pid] = peak  # not the greater one: before it became its program it was a copy of its parent

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()
