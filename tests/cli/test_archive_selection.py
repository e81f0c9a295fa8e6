"""Which items are meant, and where they go: decided as values."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.cli.archive_selection import nearest_tree, newest_of_each, plan_restore, time_of, trees_written
from agent.core.errors import PairAgentError
from tests.cli.test_archive import item

NOW = datetime(2025, 3, 2, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", "2025-03-02T10:30:00+00:00"),
        (" 2h ", "2025-03-02T10:00:00+00:00"),
        ("45s", "2025-03-02T11:59:15+00:00"),
        ("3d", "2025-02-27T12:00:00+00:00"),
        ("2025-03-01", "2025-03-01T00:00:00+00:00"),
        ("2025-03-01 10:00", "2025-03-01T10:00:00+00:00"),
        ("2025-03-01T10:00:00Z", "2025-03-01T10:00:00+00:00"),
        ("2025-03-01T12:00:00+02:00", "2025-03-01T10:00:00+00:00"),
    ],
)
def test_a_time_is_an_age_or_a_moment_in_utc(text: str, moment: str) -> None:
    assert time_of(text, NOW).isoformat() == moment


@pytest.mark.parametrize("text", ["", "h", "-2h", "2 weeks", "999999d", "now"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        time_of(text, NOW)


def test_of_each_path_the_newest_version_is_taken() -> None:
    items = [item(1, hour=9), item(2, hour=11), item(3, hour=10), item(4, tree="data"), item(5, path="b")]
    assert [each["id"] for each in newest_of_each(items)] == ["batch-4", "batch-2", "batch-5"]


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("Flow", ["flows", "data"], "did you mean 'flows'? The trees are data, flows."),
        ("zzz", ["flows"], "'zzz'; The trees are flows."),
        ("x", [], "there are no trees"),
    ],
)
def test_an_unknown_tree_is_answered_with_the_nearest(name: str, known: list[str], words: str) -> None:
    assert words in nearest_tree(name, known)


@pytest.mark.parametrize("path", ["../../etc/passwd", "..", "a/../../../x"])
def test_an_item_never_leaves_the_folder_that_was_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(PairAgentError, match="no path within a folder"):
        plan_restore([item(1, path=path), item(2)], str(tmp_path))


@pytest.mark.parametrize("tree", ["..", "../..", "."])
def test_a_tree_never_leaves_the_folder_that_was_named(tmp_path: Path, tree: str) -> None:
    with pytest.raises(PairAgentError, match="no path within a folder"):
        plan_restore([item(1, path="", tree=tree), item(2)], str(tmp_path))


def test_several_items_are_not_written_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(PairAgentError, match="is a file; to restore 2 items, name a folder"):
        plan_restore([item(1), item(2)], str(tmp_path / "f"))


@pytest.mark.parametrize(
    ("given", "to", "expected"),
    [
        (item(1, path="a/b.json"), "new.json", "new.json"),
        (item(1, path="a/b.json"), "new/", "new/b.json"),
        (item(1, path="a/b.json"), "there", "there/b.json"),
        (item(1, path="", tree="flows.json"), "there", "there/flows.json"),
    ],
)
def test_one_item_becomes_the_file_or_goes_into_the_folder(
    tmp_path: Path, given: dict[str, Any], to: str, expected: str
) -> None:
    (tmp_path / "there").mkdir()
    (restoration,) = plan_restore([given], os.path.join(tmp_path, to))
    assert restoration.to == tmp_path / expected


def test_the_trees_that_would_be_written_are_known_by_where_paths_lead(tmp_path: Path) -> None:
    trees = [("flows", tmp_path / "flows"), ("file", tmp_path / "one.json")]
    for to, names in (("flows/x", ["flows"]), ("flowsx", []), ("one.json", ["file"]), ("flows/../y", [])):
        assert trees_written(plan_restore([item(1)], str(tmp_path / to)), trees) == names
    assert trees_written(plan_restore([item(1), item(2, tree="data")], None), trees) == ["data", "flows"]
