"""What the routes about trees and their archive answer and do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from agent.admin.control import Action, Answer
from tests.admin.fake_control import TOKEN, serving

ABSOLUTE = str(Path.cwd() / "flows-as-it-was.json")


@pytest.mark.parametrize(
    ("path", "body", "acted"),
    [
        ("/v1/sync", None, (Action.SYNC, {"full": False})),
        ("/v1/sync", b'{"full": true}', (Action.SYNC, {"full": True})),
        ("/v1/sync/dry-run", None, (Action.SYNC_DRY_RUN, {})),
        ("/v1/test/sync", b"{}", (Action.TEST_SYNC, {})),
        ("/v1/archive/restore", b'{"item": "a/b"}', (Action.ARCHIVE_RESTORE, {"item": "a/b", "to": None})),
        (
            "/v1/archive/restore",
            json.dumps({"item": "no-break\xa0space", "to": ABSOLUTE}).encode(),
            (Action.ARCHIVE_RESTORE, {"item": "no-break\xa0space", "to": ABSOLUTE}),
        ),
    ],
)
def test_an_action_reaches_the_node_and_its_answer_comes_back(
    tmp_path: Path, path: str, body: bytes | None, acted: tuple[Action, dict[str, object]]
) -> None:
    async def main() -> None:
        async with serving(tmp_path, answer=Answer(True, "Begun.", {"round": 3})) as api:
            answer = await api.ask("POST", path, token=TOKEN, body=body)
            assert (answer.status, answer.json()) == (200, {"sentence": "Begun.", "details": {"round": 3}})
            assert api.control.acted == [acted]

    trio.run(main)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sync", b'{"full": 1}'),
        ("/v1/sync", b'{"full": null}'),
        ("/v1/sync", b'{"tree": "flows"}'),
        ("/v1/sync/dry-run", b'{"full": true}'),
        ("/v1/test/sync", b'{"tree": "flows"}'),
        ("/v1/archive/restore", None),
        ("/v1/archive/restore", b'{"to": "/x"}'),
        ("/v1/archive/restore", b'{"item": ""}'),
        ("/v1/archive/restore", b'{"item": 1}'),
        ("/v1/archive/restore", b'{"item": "a\\u0000"}'),
        ("/v1/archive/restore", b'{"item": "\\ud800"}'),
        ("/v1/archive/restore", b'{"item": "a", "to": "relative/path"}'),
        ("/v1/archive/restore", b'{"item": "a", "to": 5}'),
        ("/v1/archive/restore", b'{"item": "a", "to": ""}'),
        ("/v1/archive/restore", b'{"item": "' + b"a" * 4097 + b'"}'),
    ],
)
def test_arguments_that_are_not_allowed_are_named_and_nothing_is_done(
    tmp_path: Path, path: str, body: bytes | None
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("POST", path, token=TOKEN, body=body)
            assert answer.status == 400
            assert answer.json()["detail"].endswith(".")
            assert len(answer.body) < 500
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("?tree=flows", {"tree": "flows"}),
        ("?path=a%2F*.js%C3%B6n&after=x%20y", {"path": "a/*.jsön", "after": "x y"}),
        ("?since=2025-03-01T10:00:00Z", {"since": "2025-03-01T10:00:00.000Z"}),
        ("?since=2025-03-01T12:00:00%2B02:00", {"since": "2025-03-01T10:00:00.000Z"}),
        ("?since=2025-03-01", {"since": "2025-03-01T00:00:00.000Z"}),
    ],
)
def test_the_archive_is_listed_by_tree_path_and_time(tmp_path: Path, query: str, wanted: dict[str, str]) -> None:
    async def main() -> None:
        async with serving(tmp_path, answer=Answer(True, "", {"items": []})) as api:
            answer = await api.ask("GET", f"/v1/archive{query}", token=TOKEN)
            assert (answer.status, answer.json()["details"]) == (200, {"items": []})
            filters = {**dict.fromkeys(("tree", "path", "since", "after")), **wanted}
            assert api.control.acted == [(Action.ARCHIVE_LIST, filters)]

    trio.run(main)


@pytest.mark.parametrize(
    "query", ["tree=", "name=x", "since=yesterday", "since=", "path=%00", "path=" + "a" * 4097, "since=9999-99-99"]
)
def test_a_filter_that_is_none_is_named_and_nothing_is_asked(tmp_path: Path, query: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("GET", f"/v1/archive?{query}", token=TOKEN)
            assert answer.status == 400
            assert answer.json()["detail"].endswith(".")
            assert len(answer.body) < 500
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sync"),
        ("POST", "/v1/sync/dry-run"),
        ("POST", "/v1/test/sync"),
        ("GET", "/v1/archive"),
        ("POST", "/v1/archive/restore"),
    ],
)
def test_nobody_synchronises_or_sees_names_of_files_without_the_token(tmp_path: Path, method: str, path: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            assert (await api.ask(method, path)).status == 401
            assert api.control.acted == []

    trio.run(main)
