"""What the demo measured, as a table and a sentence. Pure: readings and the moment of the kill in, text out.

The demo worked only if the readings show a takeover and a switchback, no two runs of the application at once, and a
higher term with each run; and if the trees of both nodes are the same, with every reading in them and their numbers
without a break, but for the last ones before the kill. Those must be in the archive of the node that wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND
from agent.demo.comparison import Comparison
from agent.demo.pair_files import HEARTBEAT
from agent.demo.readings import Reading, Run, gap_before_ns, number_breaks, terms_grow, two_at_once

LISTED_MAX = 3


@dataclass(frozen=True)
class Fault:
    """The kill: when (ns of the boot clock), on which node, and who was to take over."""

    at_ns: int
    node: str
    successor: str
    decided_after_ms: int | None  # until the successor's own event; None if it cannot be told


@dataclass(frozen=True)
class Ending:
    """What became of the data, as it stood at the end while the application paused."""

    comparison: Comparison
    standing: frozenset[Reading]  # in the tree
    archived: frozenset[Reading]  # in the archive of the node that was killed
    written: frozenset[Reading]  # ever, on either node
    switchback_gap_ms: int | None  # in which no workload ran, by the agent; None if it cannot be told


@dataclass(frozen=True)
class Result:
    """The rows of the table, the verdict in a sentence, and whether it is a good one."""

    rows: tuple[tuple[str, str], ...]
    verdict: str
    worked: bool


def judge(runs: Sequence[Run], fault: Fault, ending: Ending) -> Result:
    """Measures the runs of the application, all nodes together and the earliest first, and what is left of the data."""
    killed = next((run for run in reversed(runs) if run.node == fault.node and run.first_ns < fault.at_ns), None)
    takeover = next((run for run in runs if run.node == fault.successor and run.first_ns > fault.at_ns), None)
    switchback = takeover and next(
        (run for run in runs if run.node == fault.node and run.first_ns > takeover.first_ns), None
    )
    overlaps = two_at_once(runs)
    ordered = terms_grow(runs)
    if killed is None or takeover is None or switchback is None:
        missing = "takeover" if takeover is None else "switchback"
        return Result(_common_rows(runs, overlaps), f"It did not work: the readings show no {missing}.", False)
    took_ns = takeover.first_ns - fault.at_ns
    data = _Data(killed, takeover.node, ending)
    rows = [
        (f"takeover: from the kill to {takeover.node}'s first reading", _milliseconds(took_ns)),
        *(
            [(f"of that, until {takeover.node} had decided", f"{fault.decided_after_ms} ms")]
            if fault.decided_after_ms is not None
            else []
        ),
        ("the killed agent's application wrote on for", _milliseconds(max(0, killed.last_ns - fault.at_ns))),
        ("gap in the readings at the takeover", _milliseconds(gap_before_ns(takeover, runs))),
        ("gap in the readings at the switchback", _milliseconds(gap_before_ns(switchback, runs))),
        *(
            [("of that, without a running workload, by the agent", f"{ending.switchback_gap_ms} ms")]
            if ending.switchback_gap_ms is not None
            else []
        ),
        *_common_rows(runs, overlaps),
        *data.rows(),
    ]
    if overlaps:
        trouble = "two applications ran at once"
    elif not ordered:
        trouble = "a later run had no higher term than the one before it"
    else:
        trouble = data.trouble()
    if trouble:
        return Result(tuple(rows), f"It did not work: {trouble}.", False)
    verdict = (
        f"It worked: {takeover.node} took over {took_ns / 1e9:.2f} s after the kill{_beside_timeout(took_ns)}, "
        f"{switchback.node} came back, received what was written while it was away and got the role back as planned, "
        f"never did two applications run at once, and the data is the same on both nodes; {data.loss()}."
    )
    return Result(tuple(rows), verdict, True)


class _Data:
    """What the ending says of the data; `killed` is the run that the kill ended."""

    def __init__(self, killed: Run, successor: str, ending: Ending) -> None:
        self._killed = killed
        self._successor = successor
        self._comparison = ending.comparison
        lost = ending.written - ending.standing
        self._lost = {reading for reading in lost if (reading.node, reading.term) == (killed.node, killed.term)}
        self._lost_otherwise = lost - self._lost
        self._unarchived = self._lost - ending.archived
        self._breaks = number_breaks(ending.standing)
        self._last = max((reading.number for reading in ending.standing), default=0)

    def rows(self) -> list[tuple[str, str]]:
        """The rows of the table."""
        compared, lost = self._comparison, "none"
        if self._lost:
            lost = f"{len(self._lost)} of {self._killed.readings}, the last {self._lost_ms()} ms"
            kept = len(self._lost) - len(self._unarchived)
            lost += f"; in {self._killed.node}'s archive: {kept if self._unarchived else 'all of them'}"
        numbers = f"1 to {self._last}, " + (f"broken at {_listed(self._breaks)}" if self._breaks else "without a break")
        files = f"{compared.files} files, {compared.size_bytes} bytes"
        different = f"NOT the same: {_listed(compared.differing)}"
        return [
            (f"readings that were not on {self._successor} yet at the kill", lost),
            ("readings lost otherwise", str(len(self._lost_otherwise) or "none")),
            ("numbers of the readings, across the nodes", numbers),
            ("both trees, file by file", f"{files}: {'all the same' if compared.same else different}"),
        ]

    def trouble(self) -> str:
        """What is not as promised, "" if all is."""
        if not self._comparison.same:
            return f"{len(self._comparison.differing)} files are not the same on both nodes"
        if self._lost_otherwise:
            return f"{len(self._lost_otherwise)} readings were lost without a fault"
        if self._unarchived:
            return f"{len(self._unarchived)} readings are neither in the tree nor in the archive"
        return "the numbers of the readings do not go on from node to node" if self._breaks else ""

    def loss(self) -> str:
        """The price of the fault, as the end of a sentence."""
        if not self._lost:
            return "not one reading was lost"
        return (
            f"the last {_counted(len(self._lost), 'reading')} before the kill ({self._lost_ms()} ms) had not reached "
            f"{self._successor}, and {'is' if len(self._lost) == 1 else 'are'} in {self._killed.node}'s archive"
        )

    def _lost_ms(self) -> str:
        first_ns = min(reading.taken_ns for reading in self._lost)
        return f"{(self._killed.last_ns - first_ns) / NANOSECONDS_PER_MILLISECOND:.0f}"


def _counted(number: int, word: str) -> str:
    return word if number == 1 else f"{number} {word}s"


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(str(item) for item in items[:LISTED_MAX])
    return shown + (f" and {len(items) - LISTED_MAX} more" if len(items) > LISTED_MAX else "")


def _beside_timeout(took_ns: int) -> str:
    timeout_ms = HEARTBEAT.timeout
    if took_ns >= timeout_ms * NANOSECONDS_PER_MILLISECOND:
        return ""
    return f" (it did not have to wait for the heartbeat timeout of {timeout_ms / 1000:g} s)"


def _common_rows(runs: Sequence[Run], overlaps: Sequence[tuple[Run, Run]]) -> tuple[tuple[str, str], ...]:
    told = ", ".join(f"{run.readings} on {run.node} in term {run.term}" for run in runs)
    together = "; ".join(
        f"{one.node} (term {one.term}) and {other.node} (term {other.term})" for one, other in overlaps
    )
    return (("readings", told or "none"), ("two at once", f"YES: {together}" if overlaps else "never"))


def _milliseconds(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else f"{nanoseconds / NANOSECONDS_PER_MILLISECOND:.0f} ms"
