"""Nothing leaves the archive that was not announced a day before."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agent.replica.archive import Archive
from tests.replica.archives import DAY_S, Clock, archive_at, keep
from tests.replica.interrupted_disk import Crash, CrashingDisk


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
