"""The verdict is a good one only if everything that the demo promises is in the readings."""

from __future__ import annotations

import pytest

from agent.demo.readings import Run
from agent.demo.result import Fault, judge

MS = 1_000_000
FAULT = Fault(at_ns=1_000 * MS, node="node-a", successor="node-b", decided_after_ms=20)
BEFORE = Run("node-a", 1, 0, 1_005 * MS, 100)
TAKEOVER = Run("node-b", 2, 1_045 * MS, 3_000 * MS, 195)
SWITCHBACK = Run("node-a", 3, 3_090 * MS, 4_000 * MS, 91)


def test_a_takeover_and_a_switchback_are_measured() -> None:
    result = judge([BEFORE, TAKEOVER, SWITCHBACK], FAULT)
    assert result.worked
    assert result.verdict.startswith("It worked: node-b took over 0.04 s after the kill")
    assert "heartbeat timeout of 5 s" in result.verdict
    assert dict(result.rows) == {
        "takeover: from the kill to node-b's first reading": "45 ms",
        "of that, until node-b had decided": "20 ms",
        "the killed agent's application wrote on for": "5 ms",
        "gap in the readings at the takeover": "40 ms",
        "gap in the readings at the switchback": "90 ms",
        "readings": "100 on node-a in term 1, 195 on node-b in term 2, 91 on node-a in term 3",
        "two at once": "never",
    }


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([BEFORE], "no takeover"),
        ([BEFORE, TAKEOVER], "no switchback"),
        ([BEFORE, TAKEOVER, Run("node-a", 3, 2_999 * MS, 4_000 * MS, 90)], "two applications ran at once"),
        ([BEFORE, TAKEOVER, Run("node-a", 2, 3_090 * MS, 4_000 * MS, 90)], "no higher term"),
    ],
)
def test_what_was_not_seen_as_promised_is_no_success(runs: list[Run], reason: str) -> None:
    result = judge(runs, FAULT)
    assert not result.worked
    assert reason in result.verdict


def test_two_at_once_are_named_in_the_table() -> None:
    together = Run("node-a", 3, 2_999 * MS, 4_000 * MS, 90)
    assert dict(judge([BEFORE, TAKEOVER, together], FAULT).rows)["two at once"] == (
        "YES: node-b (term 2) and node-a (term 3)"
    )


def test_a_takeover_that_waited_for_the_timeout_does_not_boast() -> None:
    late = Run("node-b", 2, 6_100 * MS, 7_000 * MS, 90)
    result = judge([BEFORE, late, Run("node-a", 3, 7_100 * MS, 8_000 * MS, 90)], FAULT)
    assert result.worked
    assert "timeout" not in result.verdict
