"""Watching an agent that comes and goes: what is shown, and that a restart is survived and said."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.cli import live_follow
from agent.cli.client import AgentClient, Target
from agent.cli.live_follow import follow_events, watch_status
from agent.core.errors import ApiError
from tests.admin.fake_control import sample_status

GONE = ApiError("No agent answers.", agent_running=False)
REFUSED = ApiError("The agent refused.", agent_running=True)


class ScriptedClient(AgentClient):
    """Answers one after the other with what it was given; then the operator presses Ctrl-C."""

    def __init__(self, answers: Iterable[Any]) -> None:
        super().__init__(Target(Path("agent.toml"), "127.0.0.1", 3003, Path("state")))
        self.answers = list(answers)
        self.asked: list[str] = []

    def get(self, path: str, *, timeout_s: float = 5.0) -> Any:
        self.asked.append(path)
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_follow, "POLL_INTERVAL_S", 0)


def event(sequence: int) -> dict[str, Any]:
    return {"sequence": sequence, "time": "T", "code": "link-up", "sentence": f"Event {sequence}.", "fields": {}}


def test_without_a_terminal_each_change_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    standby = sample_status(role="standby")
    watch_status(
        ScriptedClient([sample_status(), sample_status(), GONE, GONE, sample_status(), standby]), as_json=False
    )
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert [line.partition(",")[0] for line in lines] == [
        "line-4-a (primary) is active",
        "the agent does not answer; waiting for it",
        "line-4-a (primary) is active",
        "line-4-a (primary) is standby",
    ]


def test_watching_as_json_gives_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch_status(ScriptedClient([sample_status(), GONE, sample_status(term=44)]), as_json=True)
    assert [json.loads(line)["term"] for line in capsys.readouterr().out.splitlines()] == [42, 44]


def test_on_a_terminal_the_view_stays_in_place_and_says_when_the_agent_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    hostile = sample_status(name="[red]line[/red]\x1b[2J")
    watch_status(ScriptedClient([sample_status(), GONE, hostile]), as_json=False)
    shown = terminal.getvalue()
    assert "line-4-a (primary) is active" in shown
    assert "does not answer; waiting for it" in shown
    assert r"[red]line[/red]\x1b[2J (primary)" in shown


def test_a_watch_ends_with_the_agents_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ApiError, match="refused"):
        watch_status(ScriptedClient([sample_status(), REFUSED]), as_json=False)


def test_followed_events_go_on_after_a_restart_without_gap_or_double(capsys: pytest.CaptureFixture[str]) -> None:
    client = ScriptedClient([[event(5), event(6)], [], GONE, GONE, [event(7)]])
    follow_events(client, after=4, as_json=False)
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["5.", "6.", "7."]
    assert shown.err.splitlines() == ["The agent does not answer any more; waiting for it.", "The agent answers again."]
    assert [path.split("after=")[1].split("&")[0] for path in client.asked] == ["4", "6", "6", "6", "6", "7"]


def test_following_as_json_gives_one_event_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    follow_events(ScriptedClient([[event(1)], [event(2)]]), after=0, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [event(1), event(2)]


def test_following_ends_with_the_agents_own_error() -> None:
    with pytest.raises(ApiError, match="refused"):
        follow_events(ScriptedClient([REFUSED]), after=0, as_json=False)
