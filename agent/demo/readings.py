"""Reads what the demo's application wrote on both nodes, and says who wrote when.

Pure but for reading the files. Times are nanoseconds of the boot clock, one clock for both nodes.
Invariant: whatever is measured here is measured from the readings alone, never from what an agent says of itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from agent.demo.application import SUFFIX

READING_BYTES_MAX = 128


@dataclass(frozen=True)
class Reading:
    """One file of the application: when, on which node, in which term, and its number, which goes on across nodes."""

    taken_ns: int
    node: str
    term: int
    number: int


@dataclass(frozen=True)
class Run:
    """The application on one node in one term: from its first reading to its last."""

    node: str
    term: int
    first_ns: int
    last_ns: int
    readings: int


class ReadingsFolder:
    """Follows the tree of one node: each call gives the readings that are new in it, whoever wrote them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, int]] = {}
        self._files = 0

    def read_new(self) -> list[Reading]:
        """Returns the readings since the last call; none while there is no folder. An empty file must wait."""
        self._files = 0
        try:
            with os.scandir(self._folder) as entries:
                return list(self._new(entries))
        except FileNotFoundError:
            return []

    @property
    def files(self) -> int:
        """How many readings stood in the folder in the last call."""
        return self._files

    def _new(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[Reading]:
        for entry in entries:
            if not entry.name.endswith(SUFFIX):
                continue
            self._files += 1
            try:
                status = entry.stat()
                # The other node's reading may take the place of one that it did not get.
                mark = (status.st_size, status.st_mtime_ns)
                if self._known.get(entry.name) == mark:
                    continue
                reading = _read_untrusted(entry.path)
            except OSError:  # being replaced, or open elsewhere on Windows: the next call will do
                continue
            if reading is not None:
                self._known[entry.name] = mark
                yield reading


def readings_below(folder: Path) -> set[Reading]:
    """Returns the readings that stand anywhere below a folder now, whatever their files are called."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.add(_read_untrusted(os.path.join(place, name)))
    return {reading for reading in found if reading is not None}


def parse_reading_untrusted(line: bytes) -> Reading | None:
    """Returns the reading of one line, or None if it is none."""
    fields = line.split()
    try:
        taken_ns, node, term, number = fields
        return Reading(int(taken_ns), node.decode("ascii"), int(term), int(number))
    except ValueError:
        return None


def number_breaks(readings: Iterable[Reading]) -> list[int]:
    """Returns every number that does not go on from the one before it, in order of time; they begin with 1."""
    in_time = sorted(readings, key=lambda reading: reading.taken_ns)
    numbers = [0, *(reading.number for reading in in_time)]
    return [number for before, number in pairwise(numbers) if number != before + 1]


def runs_of(readings: Iterable[Reading]) -> list[Run]:
    """Returns the runs of the application, the earliest first."""
    runs: dict[tuple[str, int], Run] = {}
    for reading in readings:
        key = (reading.node, reading.term)
        run = runs.get(key) or Run(*key, reading.taken_ns, reading.taken_ns, 0)
        runs[key] = replace(
            run,
            first_ns=min(run.first_ns, reading.taken_ns),
            last_ns=max(run.last_ns, reading.taken_ns),
            readings=run.readings + 1,
        )
    return sorted(runs.values(), key=lambda run: run.first_ns)


def two_at_once(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Returns every pair of runs that overlapped in time, by so little as one reading."""
    return [
        (earlier, later)
        for index, earlier in enumerate(runs)
        for later in runs[index + 1 :]
        if earlier.first_ns <= later.last_ns and later.first_ns <= earlier.last_ns
    ]


def terms_grow(runs: Sequence[Run]) -> bool:
    """Tells whether each run, in order of time, had a higher term than the one before."""
    return all(earlier.term < later.term for earlier, later in pairwise(runs))


def gap_before_ns(run: Run, runs: Sequence[Run]) -> int | None:
    """Returns how long nobody wrote before `run`, negative if somebody still did; None if it was the first."""
    before = [other.last_ns for other in runs if other != run and other.first_ns <= run.first_ns]
    return run.first_ns - max(before) if before else None


def _read_untrusted(path: str) -> Reading | None:
    with open(path, "rb") as file:
        line = file.read(READING_BYTES_MAX)
    return parse_reading_untrusted(line) if line.endswith(b"\n") else None
