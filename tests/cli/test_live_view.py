"""The status as people read it: complete for a healthy pair, and never broken by what an agent or its peer says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.live_view import render_event, render_readiness, render_status, summarize
from tests.admin.fake_control import sample_status

NOW = datetime(2025, 3, 1, 10, 5, 0, tzinfo=UTC)


def test_a_healthy_pair_is_shown_without_alarm() -> None:
    lines = render_status(sample_status(), NOW)
    assert [line.text for line in lines] == [
        "line-4-a (primary) is active",
        "  because     The backup connected and holds nothing newer. (term 42, for 5 min)",
        "  link        up, 192.168.10.12:50412, round trip 0.4 ms, for 5 min",
        "  other node  line-4-b (backup) is standby, term 41, agent 0.1.0, workload 4.1.0",
        "  workload    running, process 4711",
        "  redundancy  PRIMARY_WITH_BACKUP, service level 255",
        "  failover    would work right now",
    ]
    assert not any(line.alarming for line in lines)


@pytest.mark.parametrize(
    ("changes", "alarm"),
    [
        (
            {"link": {"state": "down", "address": "10.0.0.1:3002", "last_error": "Refused.", "since": None}},
            "  link        down, 10.0.0.1:3002: Refused.",
        ),
        ({"workload": {"state": "failed", "pid": None, "restarts": 3}}, "  workload    failed, restarted 3 times"),
        ({"maintenance": True}, "  maintenance on: no automatic role change"),
        ({"readiness": {"ready": False, "reasons": ["X."]}}, "  failover    would NOT work right now"),
        ({"notices": ["PAIR_AGENT_NAME overrides name."]}, "  notice      PAIR_AGENT_NAME overrides name."),
    ],
)
def test_what_needs_a_look_is_marked(changes: dict[str, Any], alarm: str) -> None:
    alarms = [line.text for line in render_status(sample_status(**changes), NOW) if line.alarming]
    assert alarms == [alarm]


def test_trees_and_a_running_synchronisation_are_shown() -> None:
    tree = {"name": "flows", "kind": "config", "state": "behind", "files": 12, "bytes": 34_567, "lag_ms": 40}
    sync = {"state": "copying", "direction": "to-peer", "done_bytes": 500, "total_bytes": 2_000_000_000}
    lines = render_status(sample_status(trees=[tree], sync=sync), NOW)
    shown = [line.text for line in lines]
    assert "  tree        flows (config): behind, 12 files, 34.6 kB, 40 ms behind" in shown
    assert "  sync        copying to the other node" in shown
    assert any("500 bytes of 2.0 GB" in text for text in shown)
    assert not any(line.alarming for line in lines)


def test_what_a_failover_would_lose_is_said_once() -> None:
    loss = "If the active node died now, nothing of the tree flows would be lost."
    for reasons in ([], [loss]):
        shown = [line.text for line in render_readiness({"ready": True, "reasons": reasons, "loss": loss})]
        assert shown == ["  failover    would work right now", f"              - {loss}"]


@pytest.mark.parametrize("name", [None, ""])
def test_a_peer_never_heard_of_is_left_out(name: str | None) -> None:
    nobody = dict.fromkeys(("name", "mode", "role", "term", "agent_version", "workload_version"))
    unnamed = sample_status(peer={**nobody, "name": name, "term": 0})
    assert not any("other node" in line.text for line in render_status(unnamed, NOW))


def test_a_known_peer_that_is_away_is_said_to_be() -> None:
    away = {**dict.fromkeys(sample_status()["peer"]), "name": "line-4-b", "term": 41}
    shown = [line.text for line in render_status(sample_status(peer=away), NOW)]
    assert "  other node  line-4-b, not connected, last known term 41" in shown


@pytest.mark.parametrize(
    ("since", "age"),
    [
        ("2025-03-01T10:04:01Z", "for 59 s"),
        ("2025-03-01T11:00:00Z", "for 0 s"),
        ("2025-03-01T07:04:00+00:00", "for 3 h 1 min"),
        ("2025-02-01T10:05:00", "for 28 days"),
        ("yesterday", "since yesterday"),
    ],
)
def test_times_are_shown_as_ages(since: str, age: str) -> None:
    assert f"term 42, {age})" in render_status(sample_status(since=since), NOW)[1].text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
parts = st.dictionaries(
    st.sampled_from(
        [
            *("state", "since", "rtt_ms", "ready", "reasons", "name", "role", "total_bytes", "files", "bytes", "pid"),
            *(
                "lag_ms",
                "lag_bytes",
                "last_sync",
                "refused",
                "refused_total",
                "error",
                "done_bytes",
                "direction",
                "rate",
            ),
            *("seconds_left", "last_gap_ms", "items", "conflicts", "compressing", "loss"),
        ]
    ),
    json_values,
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*sample_status(), "maintenance", "notices", "archive"]), json_values | parts | st.lists(parts)
    )
)
def test_no_answer_breaks_the_view(status: dict[str, Any]) -> None:
    assert all(line.text.isprintable() for line in render_status(status, NOW))
    assert summarize(status).isprintable()
    assert render_event(status).isprintable()
    assert all(line.text.isprintable() for line in render_readiness(status))


def test_the_summary_changes_with_what_matters_and_not_with_the_rest() -> None:
    usual = summarize(sample_status())
    assert "line-4-a (primary) is active, term 42" in usual
    assert summarize(sample_status(link={**sample_status()["link"], "rtt_ms": 99.0})) == usual
    for changes in (
        {"role": "standby"},
        {"maintenance": True},
        {"readiness": {"ready": False}},
        {"link": {"state": "down"}},
        {"sync": {"state": "in-sync"}},
        {"sync": {"state": "copying", "done_bytes": 50, "total_bytes": 100}},
        {"sync": {"state": "in-sync"}, "trees": [{"name": "flows", "state": "incomplete"}]},
    ):
        assert summarize(sample_status(**changes)) != usual
