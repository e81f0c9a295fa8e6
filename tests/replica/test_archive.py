"""What would be lost is in the archive, whole and once, and people find it there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.replica.archive import Archive
from agent.replica.archive_batch import batch_name, read_batch
from tests.replica.archives import DAY_S, NOW_S, Clock, OtherDisk, archive_at, keep
from tests.replica.interrupted_disk import CountingDisk, Crash, CrashingDisk
from tests.replica.rounds import read_tree


@pytest.fixture(params=[CountingDisk, OtherDisk], ids=["same-disk", "other-disk"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    return Archive(tmp_path / "state" / "archive", now=Clock(), files=request.param())


def test_a_batch_is_a_folder_that_people_can_read(archive: Archive, tmp_path: Path) -> None:
    keep(archive, tmp_path, "conf/a.toml", b"a")
    keep(archive, tmp_path, "b", b"b")
    [batch] = archive.close_batches("flows")
    assert batch.name == "2025-11-22T19.10.45.123Z-overwrite-1"
    folder = tmp_path / "state" / "archive" / batch.name
    described = json.loads((folder / "batch.json").read_text())
    assert {key: described[key] for key in ("tree", "reason", "items", "size", "open", "begun")} == {
        "tree": "flows",
        "reason": "overwrite",
        "items": 2,
        "size": 2,
        "open": False,
        "begun": "2025-11-22T19.10.45.123Z",
    }
    (folder / "batch.json").unlink()
    assert read_tree(folder) == {"flows": None, "flows/b": b"b", "flows/conf": None, "flows/conf/a.toml": b"a"}


def test_a_version_in_the_archive_does_not_change_when_the_file_is_replaced(archive: Archive, tmp_path: Path) -> None:
    item = keep(archive, tmp_path, "a", b"old")
    (tmp_path / "new").write_bytes(b"new")
    os.replace(tmp_path / "new", tmp_path / "tree" / "a")
    assert (tmp_path / "state" / "archive" / item.name).read_bytes() == b"old"
    assert (item.tree, item.path, item.size, item.reason) == ("flows", "a", 3, "overwrite")


def test_the_same_version_kept_twice_is_one_item_also_after_a_crash(tmp_path: Path) -> None:
    for disk in (CountingDisk, OtherDisk):
        folder = tmp_path / disk.__name__
        (tmp_path / "a").write_bytes(b"contents")
        before = Archive(folder, now=Clock(), files=disk())
        first, is_new = before.keep("flows", "a", str(tmp_path / "a"), "overwrite")
        assert is_new
        after = Archive(folder, now=Clock(NOW_S + 60), files=disk())
        assert after.keep("flows", "a", str(tmp_path / "a"), "overwrite") == (first, False)
        [batch] = after.close_batches("flows")
        assert batch.items == 1


def test_two_versions_of_one_path_in_one_batch_are_both_kept(archive: Archive, tmp_path: Path) -> None:
    first = keep(archive, tmp_path, "a", b"first")
    second = keep(archive, tmp_path, "a", b"second")
    archive.close_batches("flows")
    assert first.name != second.name
    assert (first.path, second.path) == ("a", "a")
    contents = {(tmp_path / "state" / "archive" / item.name).read_bytes() for item in archive.list()}
    assert contents == {b"first", b"second"}
    assert {(item.tree, item.path) for item in archive.list()} == {("flows", "a")}


def test_names_that_collide_are_both_kept(archive: Archive, tmp_path: Path) -> None:
    """A file where another item needs a folder, and a tree called like the batch's own file."""
    items = [
        keep(archive, tmp_path, "x/y/z", b"deep"),
        keep(archive, tmp_path / "other", "x/y", b"a file called like the folder"),
        keep(archive, tmp_path / "third", "x/y/z/w", b"deeper than a file"),
    ]
    source = tmp_path / "single"
    source.write_bytes(b"single file")
    item, _ = archive.keep("batch.json", "", str(source), "overwrite")
    archive.close_batches("flows")
    archive.close_batches("batch.json")
    found = {item.path: (tmp_path / "state" / "archive" / item.name).read_bytes() for item in archive.list("flows")}
    assert found == {
        "x/y/z": b"deep",
        "x/y": b"a file called like the folder",
        "x/y/z/w": b"deeper than a file",
    }
    assert len({item.name for item in items}) == 3
    assert (tmp_path / "state" / "archive" / item.name).read_bytes() == b"single file"


def test_a_version_that_stays_in_use_is_taken_back(archive: Archive, tmp_path: Path) -> None:
    keep(archive, tmp_path, "a", b"in use")
    archive.take_back("flows", "a", str(tmp_path / "tree" / "a"), "overwrite")
    assert archive.close_batches("flows") == ()
    assert list(archive.list()) == []
    assert os.listdir(tmp_path / "state" / "archive") == []
    assert (tmp_path / "tree" / "a").read_bytes() == b"in use"


@pytest.mark.parametrize("disk", [CountingDisk, OtherDisk])
def test_d11_a_crash_anywhere_while_keeping_gives_one_whole_item(disk: type[CountingDisk], tmp_path: Path) -> None:
    class Crashing(CrashingDisk):
        if disk is OtherDisk:
            link = OtherDisk.link

    at = 0
    while True:
        here = tmp_path / str(at)
        here.mkdir()
        (here / "a").write_bytes(b"contents" * 1000)
        try:
            archive = Archive(here / "archive", now=Clock(), files=Crashing(at))
            archive.keep("flows", "a", str(here / "a"), "overwrite")
            archive.close_batches("flows")
            done = True
        except Crash:
            done = False
        again = Archive(here / "archive", now=Clock(NOW_S + 1), files=disk())
        if not any(batch.items and not batch.open for batch in again.batches()):  # its round has not ended
            again.keep("flows", "a", str(here / "a"), "overwrite")
            again.close_batches("flows")
        again.expire()  # removes the empty batch that a crash before its first item leaves
        items = list(again.list())
        assert [(item.path, item.size) for item in items] == [("a", 8000)], at
        assert (here / "archive" / items[0].name).read_bytes() == b"contents" * 1000
        assert not any(batch.open for batch in again.batches())
        if done:
            break
        at += 1
    assert at > 5


# -- list


def test_items_are_listed_by_tree_path_pattern_and_time_newest_first(tmp_path: Path) -> None:
    clock = Clock()
    archive = archive_at(tmp_path, clock)
    keep(archive, tmp_path, "conf/a.toml", b"1")
    keep(archive, tmp_path, "readme", b"2")
    archive.close_batches("flows")
    clock.now_s += DAY_S
    keep(archive, tmp_path, "conf/deep/b.toml", b"3")
    archive.close_batches("flows")
    archive.keep("other", "conf/a.toml", str(tmp_path / "tree" / "readme"), "local edit")
    archive.close_batches("other")

    def listed(**selection: object) -> list[str]:
        return [f"{item.tree}:{item.path}" for item in archive.list(**selection)]  # type: ignore[arg-type]  # of a test

    assert listed(tree="flows") == ["flows:conf/deep/b.toml", "flows:conf/a.toml", "flows:readme"]
    assert sorted(listed(path_pattern="conf/a.toml")) == ["flows:conf/a.toml", "other:conf/a.toml"]
    assert listed(tree="flows", path_pattern="conf/") == ["flows:conf/deep/b.toml", "flows:conf/a.toml"]
    assert listed(tree="flows", path_pattern="*.toml") == ["flows:conf/deep/b.toml", "flows:conf/a.toml"]
    assert sorted(listed(since=NOW_S + 10)) == ["flows:conf/deep/b.toml", "other:conf/a.toml"]
    assert listed(tree="unknown") == []
    assert archive.totals() == (4, 4)


def test_a_batch_without_its_description_is_still_listed(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    item = keep(archive, tmp_path, "a", b"1")
    [batch] = archive.close_batches("flows")
    description = tmp_path / "state" / "archive" / batch.name / "batch.json"
    for damage in (b"", b"[1]", b'{"tree": 7}', b"\xff"):
        description.write_bytes(damage)
        assert [(each.tree, each.path) for each in archive.list("flows")] == [("flows", "a")]
    description.unlink()
    assert archive.find(item.name).path == "a"


def test_an_archive_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    assert list(archive.list()) == []
    assert archive.totals() == (0, 0)
    assert archive.expire().deleted == ()
    assert not (tmp_path / "state").exists()


def test_a_batch_name_tells_its_time() -> None:
    name = batch_name(NOW_S, "Edited on this node!", 3)
    assert name == "2025-11-22T19.10.45.123Z-edited-on-this-node-3"
    batch = read_batch("/nowhere", name)
    assert batch is not None
    assert (batch.begun_ms, batch.reason) == (1_763_838_645_123, "edited-on-this-node")
    assert read_batch("/nowhere", "lost+found") is None
