"""Trees of a real pair: what is written on one node stands on the other. One pair goes through all of this module."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.tree_pair import (
    TreePair,
    archived,
    contents,
    in_sync,
    kill_worker,
    reasons,
    running_tree_pair,
    sentences,
    tree_status,
    worker_pid,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreePair]:
    with running_tree_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.fixture
def data(pair: TreePair) -> Path:
    """The tree on the primary, which is active."""
    pair.wait_in_sync()
    return pair.tree(pair.primary)


@pytest.fixture
def copy(pair: TreePair) -> Path:
    """The same tree on the backup."""
    return pair.tree(pair.backup)


def test_the_first_copy_brings_everything_with_its_time(pair: TreePair, data: Path, copy: Path) -> None:
    assert contents(copy) == contents(data)
    assert (copy / "one.txt").stat().st_mtime_ns == (data / "one.txt").stat().st_mtime_ns
    assert tree_status(pair.backup, "data")["files"] == tree_status(pair.primary, "data")["files"] == 2
    assert not pair.backup.spans()


def test_what_is_excluded_stays_where_it_is(pair: TreePair, data: Path, copy: Path) -> None:
    (data / "left.tmp").write_text("excluded")
    (copy / "own.tmp").write_text("excluded too")
    (data / "after").write_text("after")
    pair.wait_in_sync()
    assert not (copy / "left.tmp").exists()
    assert (copy / "own.tmp").exists()


def test_changes_follow_at_once(pair: TreePair, data: Path, copy: Path) -> None:
    (data / "new").mkdir()
    (data / "new" / "three").write_text("three")
    (data / "after").unlink()
    (data / "sub").rename(data / "moved")
    (data / "one.txt").chmod(0o640)
    pair.wait_in_sync()
    pair.wait_for(lambda: (copy / "one.txt").stat().st_mode & 0o777 == 0o640, "the permission bits")


def test_a_file_becomes_a_folder_and_a_folder_a_link(pair: TreePair, data: Path) -> None:
    (data / "one.txt").unlink()
    (data / "one.txt").mkdir()
    (data / "one.txt" / "inside").write_text("inside")
    (data / "new" / "three").unlink()
    (data / "new").rmdir()
    (data / "new").symlink_to("moved")
    pair.wait_in_sync()


def test_an_edit_on_the_standby_is_replaced_and_kept_in_the_archive(pair: TreePair, data: Path, copy: Path) -> None:
    (copy / "one.txt" / "inside").write_text("edited where nobody should")
    pair.wait_for(lambda: archived(pair.backup, "data/one.txt/inside") == [b"edited where nobody should"], "archived")
    pair.wait_in_sync()
    assert (copy / "one.txt" / "inside").read_text() == "inside"


def test_an_own_file_on_the_standby_goes_to_the_archive(pair: TreePair, data: Path, copy: Path) -> None:
    (copy / "nobody-asked-for-it").write_text("mine")
    pair.wait_for(lambda: archived(pair.backup, "data/nobody-asked-for-it") == [b"mine"], "archived")
    pair.wait_in_sync()


def test_d13_what_cannot_be_replicated_is_named_and_the_rest_goes_on(pair: TreePair, data: Path, copy: Path) -> None:
    names = ["Readme", "aux.txt", "what?", "drive:c", "back\\slash", "trailing.", "blank "]
    special = {
        "pipe": os.mkfifo,
        "null": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
        "out": lambda path: os.symlink("../../../elsewhere", path),
        "etc": lambda path: os.symlink("/etc/passwd", path),
    }
    bad = data / "bad"
    bad.mkdir()
    (bad / "README").write_text("the first of two that Windows cannot tell apart")
    for name in names:
        (bad / name).write_text(name)
    for name, make in special.items():
        make(bad / name)
    names += special
    Path(os.fsdecode(os.fsencode(bad) + b"/\xff\xfe")).write_text("no name in UTF-8")
    Path(bad, *["d"] * 70).mkdir(parents=True)
    Path(bad, *["long" * 60] * 5).mkdir(parents=True)
    (bad / "good").write_text("good")
    pair.wait_for(lambda: (copy / "bad" / "good").exists() and in_sync(pair.primary), "the rest")
    expected = len(names) + 3
    pair.wait_for(lambda: tree_status(pair.primary, "data")["refused_total"] == expected, "all of them in the status")
    named = {each["path"]: each["reason"] for each in tree_status(pair.primary, "data")["refused"]}
    assert {f"bad/{name}" for name in names} <= set(named)
    assert all(named.values())
    assert sorted(path.name for path in (copy / "bad").iterdir()) == ["README", "d", "good", "long" * 60]
    told = " ".join(sentences(pair.primary, "name-refused"))
    assert all(name in told for name in names)
    assert "cannot be replicated" in reasons(pair.primary)
    assert pair.primary.status()["readiness"]["ready"]

    shutil.rmtree(os.fsencode(bad))
    pair.wait_for(lambda: tree_status(pair.primary, "data")["refused_total"] == 0, "nothing is refused any more")
    assert "cannot be replicated" not in reasons(pair.primary)


def test_d14_a_file_that_changes_while_it_is_read_is_never_torn(pair: TreePair, data: Path, copy: Path) -> None:
    torn = []
    for number in range(40):
        pattern = bytes([65 + number % 26]) * 400_000
        with open(data / "restless", "r+b" if number else "wb") as file:
            file.write(pattern[:200_000])
            file.flush()
            time.sleep(0.01)
            file.write(pattern[200_000:])
        if (copy / "restless").exists():
            arrived = (copy / "restless").read_bytes()
            torn += [arrived] if len(set(arrived[:200_000])) > 1 or len(set(arrived[200_000:])) > 1 else []
    assert not torn
    pair.wait_in_sync()


def count(folder: Path) -> int:
    return len(os.listdir(folder)) if folder.exists() else 0


@pytest.mark.parametrize("files", [1_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_d14_a_renamed_folder_of_many_files_delays_no_heartbeat(pair: TreePair, files: int) -> None:
    data, copy = pair.tree(pair.primary), pair.tree(pair.backup)
    before = [sentences(node, code) for node in pair.nodes for code in ("link-down", "conflict")]
    many = data / "many"
    many.mkdir()
    for number in range(files):
        (many / f"{number:06}").write_bytes(b"%06d" % number)
    pair.wait_for(lambda: count(copy / "many") == files, "all of them", bound_s=200)
    many.rename(data / "renamed")
    pair.wait_for(lambda: not (copy / "many").exists() and count(copy / "renamed") == files, "renamed", bound_s=200)
    assert all((copy / "renamed" / f"{n:06}").read_bytes() == b"%06d" % n for n in random.sample(range(files), 100))
    for path in (data / "renamed").iterdir():
        path.unlink()
    (data / "renamed").rmdir()
    pair.wait_for(lambda: not (copy / "renamed").exists(), "gone again", bound_s=200)
    assert [sentences(node, code) for node in pair.nodes for code in ("link-down", "conflict")] == before


def test_a_worker_that_dies_is_started_again_and_goes_on(pair: TreePair) -> None:
    data, copy = pair.tree(pair.primary), pair.tree(pair.backup)
    for number, node in enumerate(pair.nodes):
        before = worker_pid(node)
        kill_worker(node)
        (data / f"after-{number}").write_text("written while it was gone")
        pair.wait_for(lambda number=number: (copy / f"after-{number}").exists(), "what was written meanwhile")
        assert worker_pid(node) not in (0, before)
    assert pair.primary.status()["role"] == "active"
    assert pair.backup.status()["role"] == "standby"


def test_a_node_that_stops_in_good_order_leaves_an_index_that_goes_on_where_it_was(pair: TreePair) -> None:
    """Otherwise the whole tree would be told and compared after every restart."""
    pair.wait_in_sync()
    assert pair.backup.stop() == 0
    [file] = (pair.backup.directory / "state").rglob("index.db")
    with contextlib.closing(sqlite3.connect(file)) as index:
        for last, reserved in index.execute("SELECT last_seq, seq_reserved FROM tree").fetchall():
            assert last == reserved
    assert not Path(f"{file}-wal").exists()
    pair.backup.start()
    pair.wait_in_sync()


def test_what_was_written_while_the_primary_was_away_comes_back_before_it_takes_over(pair: TreePair) -> None:
    pair.primary.kill()
    pair.wait_active(pair.backup)
    data = pair.tree(pair.backup)
    (data / "while-away").write_bytes(os.urandom(100_000))
    (data / "moved" / "two.bin").write_text("changed on the backup")
    (data / "restless").unlink()
    (pair.tree(pair.backup, "flows") / "flow.json").write_text('{"changed": true}')
    written = contents(data)
    pair.primary.start()
    pair.wait_in_order()
    assert {path: contents(pair.tree(pair.primary)).get(path) for path in written} == written
    assert not (pair.tree(pair.primary) / "restless").exists()
    assert (pair.tree(pair.primary, "flows") / "flow.json").read_text() == '{"changed": true}'
    assert pair.primary.status()["sync"]["last_gap_ms"] is not None
    assert pair.overlap_ns() == 0
