"""`archive list` and `archive restore` against an agent that answers, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.admin.control import Action, Answer
from tests.admin.fake_control import Api, sample_status
from tests.cli.live_agent import run, running_agent, write_config
from tests.cli.test_tree_view import HISTORY

FLOWS = {**HISTORY, "name": "flows"}
RESTORED = Answer(True, "Restored.")
NO_FILTERS = dict.fromkeys(("tree", "path", "since", "after"))


def item(number: int, path: str = "a.json", tree: str = "flows", hour: int = 10) -> dict[str, Any]:
    return {
        "id": f"batch-{number}",
        "tree": tree,
        "path": path,
        "size": 1000 * number,
        "reason": "overwrite",
        "archived_at": f"2025-03-01T{hour:02}:00:00.000Z",
        "mtime": "2025-02-01T10:00:00.000Z",
    }


def archive_of(*items: dict[str, Any], more: int = 0, restore: Answer = RESTORED, **status: Any) -> dict[str, Any]:
    """What makes a fake agent with these items in its archive."""
    size = sum(each["size"] for each in items)
    return {
        "answers": {
            Action.ARCHIVE_LIST: Answer(True, "", {"items": list(items), "bytes": size, "more": more}),
            Action.ARCHIVE_RESTORE: restore,
        },
        "status_now": sample_status(trees=[FLOWS, HISTORY], **status),
    }


def restored(api: Api) -> list[dict[str, Any]]:
    return [arguments for action, arguments in api.control.acted if action is Action.ARCHIVE_RESTORE]


@pytest.fixture
def answer_on_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes standard input a terminal at which somebody types a line."""

    def type_in(line: str) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: line)

    return type_in


def test_the_archive_is_listed_with_what_is_needed_to_restore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [item(1), item(2, path="", tree="history")]
    with running_agent(tmp_path, **archive_of(*items)) as api:
        assert run(tmp_path, "archive", "list") == 0
        assert api.control.acted == [(Action.ARCHIVE_LIST, NO_FILTERS)]
        assert capsys.readouterr().out.splitlines() == [
            "2025-03-01T10:00:00.000Z  overwrite      1.0 kB  flows: a.json  [batch-1]",
            "2025-03-01T10:00:00.000Z  overwrite      2.0 kB  history  [batch-2]",
            "2 items, 3.0 kB. `pair-agent archive restore ID` brings one back.",
        ]
        assert run(tmp_path, "archive", "list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"items": items, "bytes": 3000, "more": 0}


def test_filters_reach_the_agent(tmp_path: Path) -> None:
    with running_agent(tmp_path, **archive_of(item(1))) as api:
        filters = ["--tree", "flows", "--path", "*.jsön", "--since", "2025-03-01 09:00"]
        assert run(tmp_path, "archive", "list", *filters) == 0
        wanted = {**NO_FILTERS, "tree": "flows", "path": "*.jsön", "since": "2025-03-01T09:00:00.000Z"}
        assert api.control.acted == [(Action.ARCHIVE_LIST, wanted)]


def test_a_long_archive_is_fetched_answer_by_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of(item(1), more=1)) as api:
        second = Answer(True, "", {"items": [item(2)], "bytes": 3000, "more": 0})

        def next_answer() -> None:
            action, arguments = api.control.acted[-1]
            if arguments["after"] is not None:
                api.control.answers = {action: second}

        api.control.on_act = next_answer
        assert run(tmp_path, "archive", "list", "--json") == 0
        assert [arguments["after"] for _, arguments in api.control.acted] == [None, "batch-1"]
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["items"]] == ["batch-1", "batch-2"]


def test_an_agent_that_repeats_itself_is_not_asked_for_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of(item(1), more=5)) as api:
        assert run(tmp_path, "archive", "list") == 0
        assert len(api.control.acted) == 2
    assert "5 of them are not shown" in capsys.readouterr().out


def test_an_empty_archive_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of()):
        assert run(tmp_path, "archive", "list") == 0
        assert "The archive is empty" in capsys.readouterr().out
        assert run(tmp_path, "archive", "list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"items": [], "bytes": 0, "more": 0}


@pytest.mark.parametrize("command", [["list"], ["restore"]])
def test_an_unknown_tree_is_wrong_usage_and_the_nearest_name_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with running_agent(tmp_path, **archive_of()) as api:
        assert run(tmp_path, "archive", *command, "--tree", "Flow") == 2
        assert restored(api) == []
    shown = " ".join(capsys.readouterr().err.split())
    assert "no tree is called 'Flow'; did you mean 'flows'? The trees are flows, history." in shown


def test_a_tree_that_only_the_archive_still_knows_is_no_unknown_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path, **archive_of(item(1, tree="former"))):
        assert run(tmp_path, "archive", "list", "--tree", "former") == 0
    assert "former: a.json" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["list"], ["restore"]])
@pytest.mark.parametrize("filters", [["--tree", "flows"], ["--path", "*.xml"], ["--since", "2h"]])
def test_nothing_that_matches_is_a_sentence_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], filters: list[str]
) -> None:
    with running_agent(tmp_path, **archive_of()):
        assert run(tmp_path, "archive", *command, *filters) == 1
    assert capsys.readouterr().err.startswith("Nothing in the archive matches; ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--since", "yesterday"],
        ["list", "--since", "2025-13-01"],
        ["restore"],
        ["restore", "batch-1", "--tree", "flows"],
        ["restore", "batch-1", "--to", ""],
    ],
)
def test_wrong_usage_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with running_agent(tmp_path, **archive_of(item(1))) as api:
        assert run(tmp_path, "archive", *arguments) == 2
        assert api.control.acted == []
    assert capsys.readouterr().err


def test_an_item_is_restored_with_yes_and_the_agents_sentence_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path, **archive_of(item(1), item(2))) as api:
        assert run(tmp_path, "archive", "restore", "batch-2", "--yes") == 0
        assert restored(api) == [{"item": "batch-2", "to": None}]
    assert capsys.readouterr().out == "Restored.\n"


@pytest.mark.parametrize(("role", "words"), [("active", "This node is active"), ("standby", "This node is not active")])
def test_a_tree_is_not_written_without_somebody_having_been_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, words: str
) -> None:
    with running_agent(tmp_path, **archive_of(item(1), role=role)) as api:
        assert run(tmp_path, "archive", "restore", "batch-1") == 1
        assert restored(api) == []
    shown = capsys.readouterr().err
    assert words in shown
    assert "--yes" in shown
    assert "flows: a.json" in shown


@pytest.mark.parametrize(("typed", "code", "count"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_the_answer_at_the_terminal_decides(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer_on_terminal: Any,
    typed: str,
    code: int,
    count: int,
) -> None:
    answer_on_terminal(typed)
    with running_agent(tmp_path, **archive_of(item(1), item(2, hour=9))) as api:
        assert run(tmp_path, "archive", "restore", "--tree", "flows") == code
        assert len(restored(api)) == count
    shown = capsys.readouterr().err
    assert "1 older version of these paths stay in the archive" in shown
    assert ("Not restored; nothing changed." in shown) == (code == 1)


def test_elsewhere_nobody_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of(item(1), item(2, path="lib/b.json"))) as api:
        assert run(tmp_path, "archive", "restore", "batch-1", "--to", str(tmp_path / "was.json")) == 0
        assert run(tmp_path, "archive", "restore", "batch-2", "--to", str(tmp_path)) == 0
        assert run(tmp_path, "archive", "restore", "--tree", "flows", "--to", str(tmp_path / "all")) == 0
        assert [Path(each["to"]) for each in restored(api)] == [
            tmp_path / "was.json",
            tmp_path / "b.json",
            tmp_path / "all" / "flows" / "a.json",
            tmp_path / "all" / "flows" / "lib" / "b.json",
        ]
    assert "Restored 2 of 2, 3.0 kB." in capsys.readouterr().out


def test_a_relative_path_is_told_to_the_agent_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with running_agent(tmp_path, **archive_of(item(1))) as api:
        assert run(tmp_path, "archive", "restore", "batch-1", "--to", "x/../was.json") == 0
        assert [Path(each["to"]) for each in restored(api)] == [Path.cwd() / "was.json"]


def test_elsewhere_that_lies_in_a_live_tree_is_asked_about_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path, **archive_of(item(1))) as api:
        write_config(tmp_path, api.port)
        with (tmp_path / "agent.toml").open("a", encoding="utf-8") as file:
            file.write('[[tree]]\nname = "live"\nkind = "data"\npath = "live"\n')
        assert run(tmp_path, "archive", "restore", "batch-1", "--to", str(tmp_path / "live" / "x")) == 1
        assert restored(api) == []
        assert "the tree live" in capsys.readouterr().err
        assert run(tmp_path, "archive", "restore", "batch-1", "--to", str(tmp_path / "lively")) == 0


def test_what_could_not_be_restored_is_named_and_the_rest_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_agent(tmp_path, **archive_of(item(1), item(2, path="b.json"))) as api:

        def refuse_the_first() -> None:
            refused = api.control.acted[-1][1].get("item") == "batch-1"
            answer = Answer(False, "The file is locked.") if refused else RESTORED
            api.control.answers = {**api.control.answers, Action.ARCHIVE_RESTORE: answer}

        api.control.on_act = refuse_the_first
        arguments = ["archive", "restore", "--tree", "flows", "--yes"]
        assert run(tmp_path, *arguments) == 1
        shown = capsys.readouterr()
        assert "flows: a.json: The file is locked." in shown.err
        assert shown.out == "Restored 1 of 2.\n"
        assert run(tmp_path, *arguments, "--json") == 1
        report = json.loads(capsys.readouterr().out)
        assert [each["id"] for each in report["restored"]] == ["batch-2"]
        assert [(each["id"], each["sentence"]) for each in report["failed"]] == [("batch-1", "The file is locked.")]


def test_an_id_that_the_archive_has_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of(item(1))) as api:
        assert run(tmp_path, "archive", "restore", "batch-1", "batch-9", "--yes") == 1
        assert restored(api) == []
    assert "The archive has no item batch-9" in capsys.readouterr().err


def test_more_than_can_be_listed_is_not_restored_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_agent(tmp_path, **archive_of(item(1), more=5)) as api:
        assert run(tmp_path, "archive", "restore", "--tree", "flows", "--yes") == 1
        assert restored(api) == []
    assert "6 items are too many at once" in capsys.readouterr().err
