"""A file is read in a state that it really had, or not at all."""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

import pytest
from blake3 import blake3

from agent.replica import contents
from agent.replica.contents import CHUNK_BYTES, Changed, StableReading, digest_of, read_stable
from agent.replica.file_tree import Fingerprint, fingerprint_of
from tests.replica.tree_scene import root_at, write

POSIX = sys.platform != "win32"
only_posix = pytest.mark.skipif(not POSIX, reason="Windows has no such thing in its file systems")
has_links = pytest.mark.skipif(not POSIX, reason="making links needs a privilege on Windows, and Wine makes none")


def fingerprint(path: Path) -> Fingerprint:
    return fingerprint_of(os.lstat(path))


def replaced(path: Path, new: bytes) -> None:
    """Writes other contents of the same size, and puts the old time back: only ctime tells."""
    times = os.stat(path)
    path.write_bytes(new)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_chunks_digest_and_fingerprint_belong_together(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with read_stable(path) as reading:
        assert b"".join(reading) == data
    assert reading.digest == blake3(data).digest()
    assert reading.fingerprint == fingerprint(path)
    assert digest_of(path) == (reading.digest, reading.fingerprint)


def test_holes_are_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(3 * CHUNK_BYTES)
    assert digest_of(path)[0] == blake3(bytes(3 * CHUNK_BYTES)).digest()


@pytest.mark.parametrize("age_seconds", [0, 3600])
@pytest.mark.parametrize("moment", ["first chunk", "last chunk"])
@pytest.mark.parametrize("how", ["append", "truncate", "overwrite", "touch"])
def test_a_file_written_to_while_it_is_read_is_changed(tmp_path: Path, age_seconds: int, moment: str, how: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * (2 * CHUNK_BYTES))
    then = time.time_ns() - age_seconds * 10**9
    os.utime(path, ns=(then, then))
    reading = read_stable(path)
    chunks = iter(reading)
    for _ in range(1 if moment == "first chunk" else 2):
        next(chunks)
    time.sleep(0.02)  # a tick of the file system's clock
    with path.open("r+b") as file:
        if how == "append":
            file.seek(0, 2)
            file.write(b"b")
        elif how == "truncate":
            file.truncate(CHUNK_BYTES + 5)
        elif how == "overwrite":
            file.write(b"b" * 10)
    if how == "touch":
        os.utime(path)
    with pytest.raises(Changed):
        list(chunks)
    reading.close()
    assert reading.digest == b""


@only_posix
def test_a_write_that_hides_behind_the_old_time_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "file", "one")
    with read_stable(path) as reading:
        chunks = iter(reading)
        next(chunks)
        time.sleep(0.02)  # a tick of the file system's clock
        replaced(path, b"two")
        with pytest.raises(Changed):
            list(chunks)


def test_contents_that_change_under_one_time_are_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a memory mapping does, and Windows: the bytes change, the times do not yet."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = fingerprint(path)
    monkeypatch.setattr(contents, "fingerprint_of", lambda status: before)
    with read_stable(path) as reading:
        chunks = iter(reading)
        next(chunks)
        path.write_bytes(b"two")
        with pytest.raises(Changed):
            list(chunks)


def test_an_older_file_is_read_once_where_times_can_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "file")
    monkeypatch.setattr(contents, "YOUNG_NS", -(10**18))
    read = os.read
    calls: list[int] = []
    monkeypatch.setattr(os, "read", lambda descriptor, size: (calls.append(size), read(descriptor, size))[1])
    digest_of(path)
    assert len(calls) == (1 if POSIX else 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes")
def test_a_big_young_file_is_read_twice_only_while_somebody_may_write_through_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    data = os.urandom(5000)
    path.write_bytes(data)
    monkeypatch.setattr(contents, "BIG_BYTES_MIN", 4096)
    read = os.read
    calls: list[int] = []
    monkeypatch.setattr(os, "read", lambda descriptor, size: (calls.append(size), read(descriptor, size))[1])
    assert digest_of(path)[0] == blake3(data).digest()
    assert len(calls) == 1
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert digest_of(path)[0] == blake3(data).digest()
    assert len(calls) == 3


def test_a_file_is_read_only_when_the_tick_of_its_last_change_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a write right after the reading could leave the same time, and would never be seen."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    path = tmp_path / "file"
    path.write_bytes(b"x")
    status = os.stat(path)
    changed_ns = status.st_ctime_ns if POSIX else status.st_mtime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + 1_000_000)
    digest_of(path)
    assert slept == [pytest.approx(0.019)] or changed_ns % 10**9 == 0
    slept.clear()
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns + 3_000_000_000)
    digest_of(path)
    monkeypatch.setattr(time, "time_ns", lambda: changed_ns - 1_000_000_000)  # a clock that was put back
    digest_of(path)
    assert slept == []


def test_a_file_that_is_not_the_expected_one_is_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    expected = fingerprint(path)
    assert digest_of(path, expected)[1] == expected
    write(path, "other contents")
    with pytest.raises(Changed):
        digest_of(path, expected)


@only_posix
def test_a_fifo_in_the_place_of_a_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(Changed):
        digest_of(tmp_path / "file")


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        digest_of("none/below", within=root_at(tmp_path))


def test_within_a_tree_a_file_is_named_as_the_index_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "b" / "file")
    assert digest_of("a/b/file", within=root_at(tmp_path)) == digest_of(path)
    assert digest_of("", within=root_at(path, single_file=True)) == digest_of(path)


@has_links
@pytest.mark.parametrize("way", ["folder/secret", "file"])
def test_within_a_tree_no_link_leads_out_of_it(tmp_path: Path, way: str) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    secret = write(outside / "secret")
    tree.mkdir()
    (tree / "folder").symlink_to(outside)
    (tree / "file").symlink_to(secret)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        digest_of(way, within=root_at(tree))


def test_a_reading_can_be_repeated_and_closed_twice(tmp_path: Path) -> None:
    reading = StableReading(write(tmp_path / "file", "abc"))
    assert [*reading] == [*reading] == [b"abc"]
    reading.close()
    reading.close()
