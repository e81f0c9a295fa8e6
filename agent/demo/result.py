"""What the demo measured, as a table and a sentence. Pure: readings and the moment of the kill in, text out.

The demo worked only if the readings show a takeover and a switchback, no two runs of the application at once, and a
higher term with each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND
from agent.demo.pair_files import HEARTBEAT
from agent.demo.readings import Run, gap_before_ns, terms_grow, two_at_once


@dataclass(frozen=True)
class Fault:
    """The kill: when (ns of the boot clock), on which node, and who was to take over."""

    at_ns: int
    node: str
    successor: str
    decided_after_ms: int | None  # until the successor's own event; None if it cannot be told


@dataclass(frozen=True)
class Result:
    """The rows of the table, the verdict in a sentence, and whether it is a good one."""

    rows: tuple[tuple[str, str], ...]
    verdict: str
    worked: bool


def judge(runs: Sequence[Run], fault: Fault) -> Result:
    """Measures the runs of the application, all nodes together and the earliest first."""
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
        *_common_rows(runs, overlaps),
    ]
    if overlaps:
        verdict = "It did not work: two applications ran at once."
    elif not ordered:
        verdict = "It did not work: a later run had no higher term than the one before it."
    else:
        verdict = (
            f"It worked: {takeover.node} took over {took_ns / 1e9:.2f} s after the kill{_beside_timeout(took_ns)}, "
            f"{switchback.node} came back and got the role back as planned, and never did two applications run at once."
        )
    return Result(tuple(rows), verdict, not overlaps and ordered)


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
