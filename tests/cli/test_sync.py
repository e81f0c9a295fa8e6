"""`sync` and `test sync` against an agent that answers, over real sockets."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.admin.control import Action, Answer
from agent.cli import progress, sync_follow
from agent.core.errors import ApiError
from tests.admin.fake_control import sample_status
from tests.cli.live_agent import run, running_agent
from tests.cli.test_tree_view import COPYING, HISTORY

BEGUN = Answer(True, "Synchronisation has begun.", {"round": 7})
CHANGES = [
    {"tree": "flows", "path": "b.json", "deed": "remove", "bytes": 0, "archived": True},
    {"tree": "flows", "path": "a.json", "deed": "create", "bytes": 12_300, "archived": False},
    {"tree": "data", "path": "", "deed": "replace", "bytes": 5, "archived": True},
]
CHECKS = [
    {"name": "connection", "ok": True, "sentence": "Connected in 3 ms."},
    {"name": "space", "ok": True, "sentence": "12 GB are free, 1 GB is needed."},
]


def state(name: str, **fields: Any) -> dict[str, Any]:
    """The status of a node with one tree whose synchronisation is in this state."""
    return sample_status(trees=[HISTORY], sync={**COPYING, "state": name, **fields})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_follow, "FOLLOW_INTERVAL_S", 0.001)
    monkeypatch.setattr(sync_follow, "SETTLE_S", 0.0)


@pytest.mark.parametrize(("arguments", "full"), [([], False), (["--full"], True)])
def test_a_synchronisation_is_followed_until_the_trees_are_in_sync(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], full: bool
) -> None:
    percents = [state("copying", done_bytes=done, total_bytes=100) for done in (0, 5, 10, 50)]
    trees_checked = state("in-sync")
    statuses = [trees_checked, state("comparing", total_bytes=0, total_files=0), *percents]
    with running_agent(tmp_path, answer=BEGUN, statuses=statuses, status_now=state("in-sync")) as api:
        assert run(tmp_path, "sync", *arguments) == 0
        assert api.control.acted == [(Action.SYNC, {"full": full})]
    shown = capsys.readouterr()
    assert shown.out == "In sync: 1 tree, 1200 files, 3.4 GB.\n"
    lines = shown.err.splitlines()
    assert lines[0] == "Synchronisation has begun."
    assert [line.partition(",")[0].split() for line in lines[1:]] == [
        ["comparing", "120", "files"],
        ["copying", "[--------------------]", "0", "%"],
        ["copying", "[##------------------]", "10", "%"],
        ["copying", "[##########----------]", "50", "%"],
    ]


def test_the_end_of_an_earlier_round_is_not_taken_for_this_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = [
        state("in-sync", round=6),
        state("in-sync", round=6),
        state("failed", round=6),
        state("copying", round=7),
    ]
    with running_agent(tmp_path, answer=BEGUN, statuses=statuses, status_now=state("in-sync", round=7)) as api:
        assert run(tmp_path, "sync") == 0
        assert api.control.statuses == []
    assert capsys.readouterr().out.startswith("In sync")


@pytest.mark.parametrize("before", ["in-sync", "failed"])
def test_a_status_from_before_the_order_is_not_taken_for_its_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr(sync_follow, "SETTLE_S", 3600.0)
    statuses = [state(before), state(before), state(before), state("copying")]
    with running_agent(tmp_path, answer=BEGUN, statuses=statuses, status_now=state("in-sync")) as api:
        assert run(tmp_path, "sync") == 0
        assert api.control.statuses == []
    assert capsys.readouterr().out.startswith("In sync")


def test_a_failed_synchronisation_is_a_sentence_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, words in (("No space left on line-4-b.", "No space left on line-4-b."), (None, "pair-agent events")):
        with running_agent(tmp_path, answer=BEGUN, status_now=state("failed", error=error)):
            assert run(tmp_path, "sync") == 1
        shown = capsys.readouterr()
        assert "Synchronisation failed: " in shown.err
        assert words in shown.err
        assert shown.out == ""


def test_what_could_not_be_replicated_is_said_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {**HISTORY, "refused": [{"path": "con", "reason": "x"}], "refused_total": 1}
    done = sample_status(trees=[tree], sync={"state": "in-sync"}, archive={"items": 3, "bytes": 5, "conflicts": 2})
    with running_agent(tmp_path, answer=BEGUN, status_now=done):
        assert run(tmp_path, "sync") == 0
    assert capsys.readouterr().out.splitlines() == [
        "In sync: 1 tree, 1200 files, 3.4 GB.",
        "1 entry is not replicated; `pair-agent status` says which and why.",
        "The archive holds 2 versions of files that both nodes changed: `pair-agent archive list`.",
    ]


def test_ctrl_c_leaves_the_synchronisation_running_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sync_follow.time, "sleep", interrupt)
    with running_agent(tmp_path, answer=BEGUN, status_now=state("copying")) as api:
        assert run(tmp_path, "sync") == 130
        assert api.control.acted == [(Action.SYNC, {"full": False})]
    assert "Synchronisation goes on; `pair-agent status --watch` shows it." in capsys.readouterr().err


def test_a_peer_that_stays_away_is_not_waited_for_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_follow, "LINK_WAIT_S", 0.0)
    away = {**state("waiting"), "link": {**sample_status()["link"], "state": "down"}}
    with running_agent(tmp_path, answer=BEGUN, status_now=away):
        assert run(tmp_path, "sync") == 1
    shown = capsys.readouterr().err
    assert "The other node has been away" in shown
    assert "goes on by itself" in shown


def test_a_peer_that_is_there_and_compares_nothing_is_not_said_to_be_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_follow, "LINK_WAIT_S", 0.0)
    with running_agent(tmp_path, answer=BEGUN, status_now={**state("waiting"), "maintenance": True}):
        assert run(tmp_path, "sync") == 1
    shown = capsys.readouterr().err
    assert "away" not in shown
    assert "maintenance off" in shown


def test_an_agent_that_stops_meanwhile_is_said_and_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ApiError("No agent answers.", agent_running=False)

    def stop(_: float) -> None:
        monkeypatch.setattr(sync_follow.AgentClient, "get", gone)

    with running_agent(tmp_path, answer=BEGUN, status_now=state("copying")):
        monkeypatch.setattr(sync_follow.time, "sleep", stop)
        assert run(tmp_path, "sync") == 3
    assert "synchronisation goes on when it runs again" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["sync"], ["sync", "--dry-run"], ["test", "sync"]])
def test_without_trees_there_is_nothing_to_synchronise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path) as api:
        assert run(tmp_path, *arguments) == 2
        assert api.control.acted == []
    shown = capsys.readouterr().err
    assert "has no trees" in shown
    assert "[[tree]]" in shown
    assert str(tmp_path / "agent.toml") in shown


@pytest.mark.parametrize("arguments", [["sync"], ["sync", "--dry-run"], ["test", "sync"]])
def test_without_a_link_the_agents_refusal_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    refusal = Answer(False, "There is no link to the other node.")
    with running_agent(tmp_path, answer=refusal, status_now=state("waiting")):
        assert run(tmp_path, *arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1] == "There is no link to the other node."


def test_a_dry_run_shows_what_would_change_and_what_would_be_archived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(True, "line-4-b would become as line-4-a.", {"changes": CHANGES, "total": 3, "bytes": 12_305})
    with running_agent(tmp_path, answer=answer, status_now=state("in-sync")) as api:
        assert run(tmp_path, "sync", "--dry-run") == 0
        assert api.control.acted == [(Action.SYNC_DRY_RUN, {})]
        assert capsys.readouterr().out.splitlines() == [
            "line-4-b would become as line-4-a.",
            "data",
            "  replace       5 bytes  (the file itself)  -> archive",
            "flows",
            "  create        12.3 kB  a.json",
            "  remove                 b.json  -> archive",
            "3 changes, 12.3 kB to copy; 2 versions go to the archive.",
        ]
        assert run(tmp_path, "sync", "--dry-run", "--json") == 0
        assert json.loads(capsys.readouterr().out) == answer.details


def test_a_dry_run_tells_how_much_it_does_not_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(True, "", {"changes": CHANGES[:1], "total": 1500, "bytes": 1})
    with running_agent(tmp_path, answer=answer, status_now=state("in-sync")):
        assert run(tmp_path, "sync", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "and 1499 more"
    assert lines[-1].startswith("1500 changes, 1 byte to copy; at least 1 version goes to the archive.")


def test_a_dry_run_without_changes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(True, "", {"changes": [], "total": 0, "bytes": 0})
    with running_agent(tmp_path, answer=answer, status_now=state("in-sync")):
        assert run(tmp_path, "sync", "--dry-run") == 0
    assert capsys.readouterr().out == "Nothing would change: both nodes hold the same.\n"


def test_a_name_that_would_steer_the_terminal_is_shown_harmlessly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = {**CHANGES[0], "path": "a\x1b[2J\nb"}
    answer = Answer(True, "", {"changes": [change], "total": 1, "bytes": 0})
    with running_agent(tmp_path, answer=answer, status_now=state("in-sync")):
        assert run(tmp_path, "sync", "--dry-run") == 0
    assert r"a\x1b[2J\nb" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--dry-run", "--full"], ["--json"], ["--json", "--full"]])
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path, status_now=state("in-sync")) as api:
        assert run(tmp_path, "sync", *arguments) == 2
        assert api.control.acted == []
    assert capsys.readouterr().err


def test_a_test_that_passes_shows_each_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(True, "A synchronisation would succeed.", {"checks": CHECKS})
    with running_agent(tmp_path, answer=answer, status_now=state("in-sync")) as api:
        assert run(tmp_path, "test", "sync") == 0
        assert api.control.acted == [(Action.TEST_SYNC, {})]
        assert capsys.readouterr().out.splitlines() == [
            "ok      connection: Connected in 3 ms.",
            "ok      space: 12 GB are free, 1 GB is needed.",
            "A synchronisation would succeed.",
        ]
        assert run(tmp_path, "test", "sync", "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert report == {"ok": True, "sentence": "A synchronisation would succeed.", "checks": CHECKS}


@pytest.mark.parametrize("done", [True, False])
def test_one_check_that_fails_is_the_exit_code_whatever_the_answer_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: bool
) -> None:
    failing = [CHECKS[0], {"name": "space", "ok": False, "sentence": "1 GB is missing."}]
    with running_agent(
        tmp_path, answer=Answer(done, "It would fail.", {"checks": failing}), status_now=state("in-sync")
    ):
        assert run(tmp_path, "test", "sync") == 1
        shown = capsys.readouterr()
        assert "FAILED  space: 1 GB is missing.\nIt would fail.\n" in shown.out
        assert run(tmp_path, "test", "sync", "--json") == 1
        assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize("arguments", [["sync", "--dry-run"], ["test", "sync"]])
def test_a_comparison_that_takes_a_while_shows_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    shown: list[str] = []
    seen = threading.Event()

    @contextmanager
    def watched() -> Iterator[progress.Show]:
        def show(text: str, _step: str) -> None:
            shown.append(text)
            seen.set()

        yield show

    monkeypatch.setattr(sync_follow, "SILENT_S", 0.0)
    monkeypatch.setattr(sync_follow, "shown_progress", watched)
    with running_agent(tmp_path, status_now=state("in-sync")) as api:
        api.control.on_act = lambda: seen.wait(20)
        assert run(tmp_path, *arguments) == 0
    assert shown
    assert shown[0].endswith(" s")


def test_progress_is_a_line_for_each_step_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress() as show:
        for text, step in (("1 %", "0"), ("2 %", "0"), ("10 %", "10")):
            show(text, step)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "1 %\n10 %\n")


def test_progress_stays_in_place_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown_progress() as show:
        for text, step in (("[red]1 %[/red]", "0"), ("2 %", "0")):
            show(text, step)
    shown = terminal.getvalue()
    assert "[red]1 %[/red]" in shown
    assert "2 %" in shown
