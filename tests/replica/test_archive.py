"""What would be lost is in the archive, people find and restore it, and nothing leaves it without a word before."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.replica.archive import Archive, Item
from agent.replica.archive_batch import batch_name, read_batch
from agent.replica.file_system import FileSystem
from tests.replica.interrupted_disk import CountingDisk, Crash, CrashingDisk
from tests.replica.rounds import read_tree

DAY_S = 86_400.0
NOW_S = 1_763_838_645.123  # 2025-11-22T19:10:45.123Z


class Clock:
    """A wall clock in seconds that the test sets."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def keep(archive: Archive, tmp_path: Path, path: str, contents: bytes, reason: str = "overwrite") -> Item:
    """Brings a file of the tree "flows" to the archive."""
    source = tmp_path / "tree" / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.unlink(missing_ok=True)
    source.write_bytes(contents)
    item, is_new = archive.keep("flows", path, str(source), reason)
    assert is_new
    return item


def archive_at(tmp_path: Path, clock: Clock | None = None, **more: float) -> Archive:
    limits = {"size_max": int(more.get("size_max", 0)), "age_max_s": more.get("age_max_s", 0.0)}
    return Archive(tmp_path / "state" / "archive", **limits, now=clock or Clock(), files=CountingDisk())  # type: ignore[arg-type]  # of a test


class OtherDisk(CountingDisk):
    """The archive lies on another disk than the tree: no second names."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


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


# -- restore


def test_a_restored_version_is_what_it_was_and_stays_in_the_archive(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    source = tmp_path / "tree" / "a"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"old")
    source.chmod(0o640)
    os.utime(source, ns=(10**18, 10**18))
    item, _ = archive.keep("flows", "a", str(source), "overwrite")
    archive.close_batches("flows")
    os.unlink(source)
    assert archive.restore(item.name, source) is None
    assert source.read_bytes() == b"old"
    assert source.stat().st_mtime_ns == 10**18
    if sys.platform != "win32":
        assert source.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "state" / "archive" / item.name).read_bytes() == b"old"
    source.write_bytes(b"edited in place")  # the restored file is no second name of the archived one
    assert (tmp_path / "state" / "archive" / item.name).read_bytes() == b"old"
    assert os.listdir(tmp_path / "tree") == ["a"]


def test_what_stands_where_a_version_is_restored_goes_to_the_archive_first(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    item = keep(archive, tmp_path, "a", b"old")
    archive.close_batches("flows")
    (tmp_path / "tree" / "a").unlink()
    (tmp_path / "tree" / "a").write_bytes(b"newer")
    displaced = archive.restore(item, tmp_path / "tree" / "a")
    assert displaced is not None
    assert (displaced.tree, displaced.path, displaced.reason) == ("flows", "a", "restore")
    assert (tmp_path / "state" / "archive" / displaced.name).read_bytes() == b"newer"
    assert (tmp_path / "tree" / "a").read_bytes() == b"old"
    assert archive.restore(displaced, tmp_path / "tree" / "a") is not None  # and back again
    assert (tmp_path / "tree" / "a").read_bytes() == b"newer"
    assert not any(batch.open for batch in archive.batches())


def test_restoring_what_stands_there_already_changes_nothing(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    item = keep(archive, tmp_path, "a", b"same")
    archive.close_batches("flows")
    assert archive.restore(item, tmp_path / "tree" / "a") is None
    assert len(list(archive.list())) == 1


def test_a_restore_to_another_place_makes_its_folders(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    item = keep(archive, tmp_path, "a", b"old")
    archive.close_batches("flows")
    (tmp_path / "way").mkdir()
    archive.restore(item, tmp_path / "else" / "where", by_way_of=tmp_path / "way")
    assert (tmp_path / "else" / "where").read_bytes() == b"old"
    assert os.listdir(tmp_path / "way") == []


def test_a_restore_onto_a_folder_is_refused_with_a_way_out(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    item = keep(archive, tmp_path, "a", b"old")
    archive.close_batches("flows")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(StateError, match="Move it away first"):
        archive.restore(item, tmp_path / "folder")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "BATCH/flows/../../../../secret",
        "BATCH/../../secret",
        "BATCH/flows//a",
        "BATCH/flows/./a",
        "BATCH/batch.json",
        "BATCH",
        "BATCH/flows",
        "BATCH/flows/unknown",
        "",
        "BATCH/flows/a\0b",
    ],
)
def test_d13_a_name_that_leads_out_of_the_archive_is_no_item(name: str, tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    keep(archive, tmp_path, "a", b"old")
    [batch] = archive.close_batches("flows")
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(StateError, match="holds no item"):
        archive.restore(name.replace("BATCH", batch.name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_d10_a_restore_that_fails_leaves_what_stood_there(tmp_path: Path) -> None:
    item = keep(archive_at(tmp_path), tmp_path, "a", b"old")
    target = tmp_path / "tree" / "a"
    target.unlink()
    target.write_bytes(b"stands here")

    class Full(CountingDisk):
        def replace(self, source: str, target: str) -> None:
            if ".restoring" in source:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            FileSystem.replace(self, source, target)

    archive = Archive(tmp_path / "state" / "archive", now=Clock(), files=Full())
    with pytest.raises(StateError, match="untouched"):
        archive.restore(item, target)
    assert target.read_bytes() == b"stands here"
    assert os.listdir(tmp_path / "tree") == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="few accounts may make links there")
def test_a_link_is_kept_and_restored_as_a_link(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "l").symlink_to("target")
    item, _ = archive.keep("flows", "l", str(tmp_path / "tree" / "l"), "overwrite")
    assert archive.keep("flows", "l", str(tmp_path / "tree" / "l"), "overwrite") == (item, False)
    archive.close_batches("flows")
    (tmp_path / "tree" / "l").unlink()
    archive.restore(item, tmp_path / "tree" / "l")
    assert os.readlink(tmp_path / "tree" / "l") == "target"


# -- expiry


def test_i2_nothing_is_deleted_that_was_not_announced_a_day_before(tmp_path: Path) -> None:
    clock = Clock()
    archive = archive_at(tmp_path, clock, age_max_s=30 * DAY_S)
    keep(archive, tmp_path, "a", b"1")
    archive.close_batches("flows")
    clock.now_s += 29 * DAY_S
    assert (archive.expire().announced, archive.expire().deleted) == ((), ())
    clock.now_s += 2 * DAY_S
    told = archive.expire()
    assert [batch.items for batch in told.announced] == [1]
    assert told.deleted == ()
    clock.now_s += DAY_S - 1
    assert (archive.expire().announced, archive.expire().deleted) == ((), ())
    assert len(list(archive.list())) == 1
    clock.now_s += 2
    assert [batch.items for batch in archive.expire().deleted] == [1]
    assert os.listdir(tmp_path / "state" / "archive") == []


def test_beyond_the_size_the_oldest_batches_go_first(tmp_path: Path) -> None:
    clock = Clock()
    archive = archive_at(tmp_path, clock, size_max=250)
    for number in range(4):
        keep(archive, tmp_path, f"f{number}", bytes(100))
        archive.close_batches("flows")
        clock.now_s += 60
    assert len(archive.expire().announced) == 2
    clock.now_s += 2 * DAY_S
    assert len(archive.expire().deleted) == 2
    assert sorted(item.path for item in archive.list()) == ["f2", "f3"]
    assert archive.totals() == (2, 200)


def test_p2_a_clock_that_jumped_and_was_set_right_deletes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    archive = archive_at(tmp_path, clock, age_max_s=30 * DAY_S)
    keep(archive, tmp_path, "a", b"1")
    archive.close_batches("flows")
    clock.now_s += 3650 * DAY_S
    assert len(archive.expire().announced) == 1
    clock.now_s -= 3650 * DAY_S
    archive.expire()
    [batch] = archive.batches()
    assert batch.delete_after_ms is None
    clock.now_s += 20 * DAY_S
    assert archive.expire().deleted == ()


def test_an_open_batch_never_expires(tmp_path: Path) -> None:
    clock = Clock()
    archive = archive_at(tmp_path, clock, size_max=1)
    keep(archive, tmp_path, "a", bytes(100))
    for _ in range(3):
        clock.now_s += 2 * DAY_S
        told = archive.expire()
        assert (told.announced, told.deleted) == ((), ())
    assert archive.totals() == (1, 100)


def test_a_crash_while_deleting_leaves_no_half_batch_to_see(tmp_path: Path) -> None:
    at = 0
    while True:
        here = tmp_path / str(at)
        clock = Clock()
        archive = archive_at(here, clock, age_max_s=DAY_S)
        for name in ("a", "b/c"):
            keep(archive, here, name, b"1")
        archive.close_batches("flows")
        clock.now_s += 2 * DAY_S
        archive.expire()
        clock.now_s += 2 * DAY_S
        folder = here / "state" / "archive"
        try:
            Archive(folder, age_max_s=DAY_S, now=clock, files=CrashingDisk(at)).expire()
            done = True
        except Crash:
            done = False
        assert len(list(archive.list())) in (0, 2)
        archive.expire()
        assert os.listdir(folder) == []
        if done:
            break
        at += 1
    assert at > 4


@pytest.mark.skipif(sys.platform == "win32", reason="there the state directory's access list says who may look")
def test_nobody_else_can_look_into_the_archive(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    keep(archive, tmp_path, "secret", b"1")
    assert (tmp_path / "state" / "archive").stat().st_mode & 0o077 == 0


def test_items_are_values_that_can_be_told_on() -> None:
    item = Item("b/t/p", "t", "p", "file", 1, 2, 3, "r")  # type: ignore[arg-type]  # of a test
    assert replace(item, size=2).size == 2
