"""Reads what the demo's application wrote on both nodes, and says who wrote when.

Pure but for reading the files. Times are nanoseconds of the boot clock, one clock for both nodes.
Invariant: whatever is measured here is measured from the readings alone, never from what an agent says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """One line of the application: when, on which node, in which term, and the how-manieth of this run."""

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


class ReadingsFile:
    """Follows the file of one node: each call gives the readings that are new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read_new(self) -> list[Reading]:
        """Returns the readings since the last call; none while there is no file. A line without its end must wait."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [reading for line in whole.splitlines() if (reading := parse_reading_untrusted(line)) is not None]


def parse_reading_untrusted(line: bytes) -> Reading | None:
    """Returns the reading of one line, or None if it is none."""
    fields = line.split()
    try:
        taken_ns, node, term, number = fields
        return Reading(int(taken_ns), node.decode("ascii"), int(term), int(number))
    except ValueError:
        return None


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
