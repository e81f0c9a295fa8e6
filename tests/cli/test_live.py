"""The commands against an agent that answers, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.__main__ import run_command
from agent.admin.codes import EventCode
from agent.admin.control import Action, Answer
from tests.admin.fake_control import sample_status
from tests.cli.live_agent import run, running_agent


def test_status_says_what_is_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path):
        assert run(tmp_path, "status") == 0
    shown = capsys.readouterr().out
    for words in (
        "line-4-a (primary) is active",
        "The backup connected and holds nothing newer. (term 42, for ",
        "up, 192.168.10.12:50412, round trip 0.4 ms",
        "line-4-b (backup) is standby, term 41, agent 0.1.0, workload 4.1.0",
        "running, process 4711",
        "PRIMARY_WITH_BACKUP, service level 255",
        "would work right now",
    ):
        assert words in shown


def test_status_as_json_is_what_the_agent_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path):
        assert run(tmp_path, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == sample_status()


@pytest.mark.parametrize("ready", [True, False])
def test_the_exit_code_of_readiness_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ready: bool
) -> None:
    verdict = {"ready": ready, "reasons": ["Maintenance is on."]}
    with running_agent(tmp_path, status_now=sample_status(readiness=verdict)):
        assert run(tmp_path, "readiness") == (0 if ready else 1)
        shown = capsys.readouterr().out
        assert ("would work right now" in shown) == ready
        assert "- Maintenance is on." in shown
        assert run(tmp_path, "readiness", "--json") == (0 if ready else 1)
        assert json.loads(capsys.readouterr().out) == verdict


@pytest.mark.parametrize(
    ("arguments", "acted"),
    [
        (["failover"], (Action.FAILOVER, {})),
        (["failback"], (Action.FAILBACK, {})),
        (["maintenance", "on"], (Action.MAINTENANCE, {"on": True})),
        (["maintenance", "off"], (Action.MAINTENANCE, {"on": False})),
    ],
)
def test_an_action_is_done_with_the_token_and_its_sentence_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], acted: tuple[Action, dict[str, object]]
) -> None:
    with running_agent(tmp_path, answer=Answer(True, "The other node is active now.")) as api:
        assert run(tmp_path, *arguments) == 0
        assert api.control.acted == [acted]
    assert capsys.readouterr().out == "The other node is active now.\n"


@pytest.mark.parametrize("arguments", [["failover"], ["failback"], ["maintenance", "on"], ["test", "heartbeat"]])
def test_a_refused_action_is_a_sentence_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path, answer=Answer(False, "There is no link to the other node.")):
        assert run(tmp_path, *arguments) == 1
    assert capsys.readouterr().err == "There is no link to the other node.\n"


def test_a_handover_shows_the_events_that_come_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path) as api:
        api.control.log.append(EventCode.LINK_UP, "Long ago.")
        api.control.on_act = lambda: api.control.log.append(EventCode.HANDOVER, "Handing over to line-4-b.")
        assert run(tmp_path, "failover") == 0
    shown = capsys.readouterr()
    assert shown.out == "Done as asked.\n"
    assert "Handing over to line-4-b." in shown.err
    assert "Long ago." not in shown.err


def test_events_are_shown_newest_last_and_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path) as api:
        for number in range(1, 31):
            api.control.log.append(EventCode.LINK_UP, f"Event {number}.")
        assert run(tmp_path, "events") == 0
        assert [line.split("link-up")[1].strip() for line in capsys.readouterr().out.splitlines()] == [
            f"Event {number}." for number in range(11, 31)
        ]
        assert run(tmp_path, "events", "--limit", "2", "--json") == 0
        assert [json.loads(line)["sequence"] for line in capsys.readouterr().out.splitlines()] == [29, 30]


def test_heartbeats_are_shown_one_by_one_and_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, answer=Answer(True, "", {"round_trips_ms": [0.5]})) as api:
        assert run(tmp_path, "test", "heartbeat", "--count", "3", "--pause-ms", "0") == 0
        assert api.control.acted == [(Action.TEST_HEARTBEAT, {"count": 1})] * 3
    assert capsys.readouterr().out.splitlines() == [
        "  1  0.50 ms",
        "  2  0.50 ms",
        "  3  0.50 ms",
        "3 sent, 3 answered, 0 lost. Shortest 0.50 ms, mean 0.50 ms, longest 0.50 ms.",
    ]


@pytest.mark.parametrize("done", [True, False])
def test_a_lost_heartbeat_does_not_end_the_test_and_makes_it_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: bool
) -> None:
    with running_agent(tmp_path, answer=Answer(done, "0 of 1 came back.", {"round_trips_ms": [None]})):
        assert run(tmp_path, "test", "heartbeat", "--count", "2", "--pause-ms", "0") == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == ["  1  lost", "  2  lost"]
    assert "2 sent, 0 answered, 2 lost." in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--watch"],
        ["readiness"],
        ["failover"],
        ["failback"],
        ["maintenance", "on"],
        ["events"],
        ["events", "--follow"],
        ["test", "heartbeat"],
        ["test", "sync"],
        ["sync"],
        ["sync", "--dry-run"],
        ["archive", "list"],
        ["archive", "restore", "a"],
    ],
)
def test_an_agent_that_does_not_run_is_said_and_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path):
        pass
    assert run(tmp_path, *arguments) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "No agent answers at 127.0.0.1:" in shown.err
    assert "pair-agent run" in shown.err
    assert "--config" in shown.err
    assert "pair-agent service" not in shown.err  # there is no such command


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status"], ["readiness"], ["failover"], ["failback"], ["maintenance"], ["events"], ["test", "heartbeat"]),
        *(["test", "sync"], ["sync"], ["archive", "list"], ["archive", "restore"]),
    ],
)
def test_every_help_has_an_example(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run_command([*arguments, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"pair-agent {' '.join(arguments)}" in shown.partition("Example:")[2]
    assert "--config" in shown


@pytest.mark.parametrize(
    "arguments",
    [["maintenance"], ["maintenance", "maybe"], ["events", "--limit", "0"], ["test", "heartbeat", "--count", "0"]],
)
def test_wrong_usage_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path) as api:
        assert run(tmp_path, *arguments) == 2
        assert api.control.acted == []
    assert capsys.readouterr().err
