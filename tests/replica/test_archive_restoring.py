"""A version from the archive is put back as it was, and destroys nothing."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.replica.archive import Archive
from agent.replica.file_system import FileSystem
from tests.replica.archives import Clock, archive_at, keep
from tests.replica.interrupted_disk import CountingDisk


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
