"""Trees and their synchronisation as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cli.tree_view import REFUSED_SHOWN_MAX, progress_step, progress_text, sync_lines, sync_summary, tree_lines

NOW = datetime(2025, 3, 1, 10, 5, 0, tzinfo=UTC)

HISTORY: dict[str, Any] = {
    "name": "history",
    "kind": "data",
    "state": "in-sync",
    "files": 1200,
    "bytes": 3_400_000_000,
    "lag_ms": 0,
    "lag_bytes": 0,
    "last_sync": "2025-03-01T10:04:57.000Z",
    "refused": [],
    "refused_total": 0,
    "error": None,
}
COPYING: dict[str, Any] = {
    "state": "copying",
    "direction": "from-peer",
    "done_bytes": 1_200_000_000,
    "total_bytes": 4_000_000_000,
    "done_files": 120,
    "total_files": 400,
    "seconds_left": 240,
    "rate": 12_300_000,
    "compressing": True,
    "error": None,
    "last_gap_ms": None,
}


def shown_tree(**changes: Any) -> list[str]:
    return [line.text for line in tree_lines({"trees": [{**HISTORY, **changes}]}, NOW)]


def shown_sync(archive: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    return [line.text for line in sync_lines({"sync": {**COPYING, **changes}, "archive": archive or {}})]


def test_a_tree_in_sync_is_one_line() -> None:
    assert shown_tree() == ["  tree        history (data): in sync, 1200 files, 3.4 GB, last in sync 3 s ago"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "behind", "lag_ms": 120, "lag_bytes": 4500}, ", 120 ms and 4.5 kB behind, last in sync 3 s ago"),
        ({"state": "unknown", "files": None, "last_sync": None}, "history (data): unknown"),
        ({"state": "failed", "error": "The disk is broken."}, "last in sync 3 s ago: The disk is broken."),
    ],
)
def test_what_is_known_of_a_tree_is_on_its_line(changes: dict[str, Any], words: str) -> None:
    assert shown_tree(**changes)[0].endswith(words)


@pytest.mark.parametrize(("state", "alarming"), [("incomplete", True), ("failed", True), ("behind", False)])
def test_a_tree_that_must_not_be_used_is_marked(state: str, alarming: bool) -> None:
    (line,) = tree_lines({"trees": [{**HISTORY, "state": state}]}, NOW)
    assert line.alarming is alarming


def test_refused_names_are_listed_with_their_reasons_and_bounded() -> None:
    refused = [{"path": f"a/con{number}", "reason": "no name on Windows"} for number in range(20)]
    lines = shown_tree(refused=refused, refused_total=33)[1:]
    assert lines[0] == "              - not replicated: a/con0: no name on Windows"
    assert len(lines) == REFUSED_SHOWN_MAX + 1
    assert "not replicated: 28 more" in lines[-1]
    assert len(shown_tree(refused=refused[:2], refused_total=2)) == 3


def test_a_running_copy_shows_bytes_files_rate_and_time_left() -> None:
    assert shown_sync() == [
        "  sync        copying from the other node, compression on",
        "              [######--------------]  30 %, 1.2 GB of 4.0 GB, 120 of 400 files, 12.3 MB/s, 4 min left",
    ]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"state": "none"}, []),
        ({"state": "in-sync", "compressing": False}, ["  sync        in sync, compression off"]),
        ({"state": "waiting", "direction": None, "compressing": None}, ["  sync        waiting"]),
        (
            {"state": "failed", "direction": "to-peer", "compressing": None, "error": "no space"},
            ["  sync        failed to the other node: no space"],
        ),
        (
            {"state": "none", "last_gap_ms": 1200},
            ["  handover    the last one left 2 s without a running workload"],
        ),
    ],
)
def test_the_state_of_synchronisation_is_one_line(changes: dict[str, Any], lines: list[str]) -> None:
    assert shown_sync(**changes) == lines


def test_the_archive_is_shown_if_there_is_something_in_it() -> None:
    assert shown_sync({"items": 0, "bytes": 0, "conflicts": 0}, state="none") == []
    assert shown_sync({"items": 1, "bytes": 5, "conflicts": 0}, state="none") == ["  archive     1 item, 5 bytes"]
    (line,) = shown_sync({"items": 12, "bytes": 3_400_000, "conflicts": 2}, state="none")
    assert line == "  archive     12 items, 3.4 MB, 2 conflicts (`pair-agent archive list`)"


@pytest.mark.parametrize(
    ("changes", "begin"),
    [
        ({"done_bytes": 0}, "[--------------------]   0 %"),
        ({"done_bytes": 3_999_999_999}, "[###################-]  99 %"),
        ({"done_bytes": 9_000_000_000}, "[####################] 100 %"),
        ({"done_bytes": -1}, "[--------------------]   0 %"),
        ({"total_bytes": 0, "done_bytes": 0}, "[######--------------]  30 %, 120 of 400 files"),
    ],
)
def test_the_bar_never_promises_more_than_is_done(changes: dict[str, Any], begin: str) -> None:
    assert progress_text({**COPYING, **changes}).startswith(begin)


def test_an_unknown_time_left_is_said_to_be_unknown() -> None:
    assert progress_text({**COPYING, "seconds_left": None}).endswith("time left not known yet")
    assert progress_text({"state": "comparing", "total_bytes": 0, "total_files": 0}) == ""


def test_a_step_changes_every_ten_percent() -> None:
    steps = [progress_step({**COPYING, "done_bytes": done, "total_bytes": 100}) for done in (0, 9, 10, 19, 100)]
    assert steps == ["copying 0 %", "copying 0 %", "copying 10 %", "copying 10 %", "copying 100 %"]
    assert progress_step({"state": "in-sync", "done_bytes": 5, "total_bytes": 10}) == "in sync"


def test_the_summary_names_trees_that_must_not_be_used() -> None:
    trees = [HISTORY, {**HISTORY, "name": "flows", "state": "incomplete"}]
    assert sync_summary({"sync": {"state": "in-sync"}, "trees": trees}) == "trees in sync, tree flows incomplete"
    assert sync_summary({"sync": {"state": "none"}, "trees": trees}) is None
