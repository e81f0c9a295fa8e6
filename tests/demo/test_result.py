"""The verdict is a good one only if everything that the demo promises is in the readings and in the trees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.demo.comparison import Comparison
from agent.demo.readings import Reading, Run
from agent.demo.result import Ending, Fault, judge

MS = 1_000_000
FAULT = Fault(at_ns=1_000 * MS, node="node-a", successor="node-b", decided_after_ms=20)
BEFORE = Run("node-a", 1, 0, 1_005 * MS, 100)
TAKEOVER = Run("node-b", 2, 1_045 * MS, 3_000 * MS, 195)
SWITCHBACK = Run("node-a", 3, 3_090 * MS, 4_000 * MS, 91)
FIRST = Reading(0, "node-a", 1, 1)
LATE = Reading(990 * MS, "node-a", 1, 2)  # not on the other node when this one was killed
LATEST = Reading(1_005 * MS, "node-a", 1, 3)
SECOND = Reading(1_045 * MS, "node-b", 2, 2)
THIRD = Reading(3_090 * MS, "node-a", 3, 3)
IN_TREE = frozenset({FIRST, SECOND, THIRD})
LOST = frozenset({LATE, LATEST})
ENDING = Ending(Comparison(3, 90, ()), IN_TREE, LOST, IN_TREE | LOST, switchback_gap_ms=85)


def test_a_takeover_and_a_switchback_are_measured() -> None:
    result = judge([BEFORE, TAKEOVER, SWITCHBACK], FAULT, ENDING)
    assert result.worked
    assert result.verdict.startswith("It worked: node-b took over 0.04 s after the kill")
    assert "heartbeat timeout of 5 s" in result.verdict
    assert dict(result.rows) == {
        "takeover: from the kill to node-b's first reading": "45 ms",
        "of that, until node-b had decided": "20 ms",
        "the killed agent's application wrote on for": "5 ms",
        "gap in the readings at the takeover": "40 ms",
        "gap in the readings at the switchback": "90 ms",
        "of that, without a running workload, by the agent": "85 ms",
        "readings": "100 on node-a in term 1, 195 on node-b in term 2, 91 on node-a in term 3",
        "two at once": "never",
        "readings that were not on node-b yet at the kill": (
            "2 of 100, the last 15 ms; in node-a's archive: all of them"
        ),
        "readings lost otherwise": "none",
        "numbers of the readings, across the nodes": "1 to 3, without a break",
        "both trees, file by file": "3 files, 90 bytes: all the same",
    }


def test_what_the_kill_cost_is_told() -> None:
    assert "the last 2 readings before the kill (15 ms) had not reached node-b, and are in node-a's archive" in (
        judge([BEFORE, TAKEOVER, SWITCHBACK], FAULT, ENDING).verdict
    )
    nothing = judge([BEFORE, TAKEOVER, SWITCHBACK], FAULT, replace(ENDING, written=IN_TREE))
    assert nothing.worked
    assert "not one reading was lost" in nothing.verdict
    assert dict(nothing.rows)["readings that were not on node-b yet at the kill"] == "none"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (replace(ENDING, comparison=Comparison(3, 90, ("a.txt",))), "1 files are not the same"),
        (replace(ENDING, archived=frozenset({LATE})), "1 readings are neither in the tree nor in the archive"),
        (
            replace(ENDING, written=ENDING.written | {Reading(5, "node-b", 2, 9)}),
            "1 readings were lost without a fault",
        ),
        (replace(ENDING, standing=IN_TREE | {Reading(9_000 * MS, "node-a", 3, 9)}), "do not go on"),
    ],
)
def test_data_that_is_not_as_promised_is_no_success(ending: Ending, reason: str) -> None:
    result = judge([BEFORE, TAKEOVER, SWITCHBACK], FAULT, ending)
    assert not result.worked
    assert reason in result.verdict


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
    result = judge(runs, FAULT, ENDING)
    assert not result.worked
    assert reason in result.verdict


def test_two_at_once_are_named_in_the_table() -> None:
    together = Run("node-a", 3, 2_999 * MS, 4_000 * MS, 90)
    assert dict(judge([BEFORE, TAKEOVER, together], FAULT, ENDING).rows)["two at once"] == (
        "YES: node-b (term 2) and node-a (term 3)"
    )


def test_a_takeover_that_waited_for_the_timeout_does_not_boast() -> None:
    late = Run("node-b", 2, 6_100 * MS, 7_000 * MS, 90)
    result = judge([BEFORE, late, Run("node-a", 3, 7_100 * MS, 8_000 * MS, 90)], FAULT, ENDING)
    assert result.worked
    assert "timeout" not in result.verdict
