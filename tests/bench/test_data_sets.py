"""The folders of a trial: what a source becomes, and that a wrong copy is seen."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.data_sets import DataSet, Stage, append, change_blocks, insert_byte, make_data_sets, small_files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the benchmarks drive Linux")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    small_files(tmp_path / "after", 2)
    data = DataSet("X", "some files", None, tmp_path / "after")
    return Stage(data, tmp_path / "source", tmp_path / "destination")


def copied(stage: Stage) -> None:
    """Puts a right copy in the destination's place, beside what contenders keep there."""
    shutil.rmtree(stage.destination)
    shutil.copytree(stage.source, stage.destination)
    (stage.destination / ".stfolder").mkdir()
    (stage.destination / ".stfolder" / "own").touch()


def test_a_first_copy_begins_with_nothing_there(tmp_path: Path) -> None:
    (data,) = make_data_sets(tmp_path / "data", frozenset({"D2"}), 100)
    stage = Stage(data, tmp_path / "source", tmp_path / "destination")
    assert list(stage.source.iterdir()) == list(stage.destination.iterdir()) == []
    stage.change()
    assert len(list(stage.source.rglob("*"))) == 2 + 200
    assert stage.difference()


def test_a_right_copy_is_right(stage: Stage) -> None:
    assert not stage.looks_the_same()
    stage.change()
    assert not stage.looks_the_same()
    copied(stage)
    assert stage.looks_the_same()
    assert stage.difference() == ""


def other_byte(path: Path) -> None:
    """Changes one byte and leaves size and time as they are."""
    kept = path.stat()
    contents = path.read_bytes()
    path.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


@pytest.mark.parametrize("spoil", [other_byte, Path.unlink, lambda path: path.with_name("more").touch()])
def test_a_wrong_copy_is_seen(stage: Stage, spoil: Callable[[Path], None]) -> None:
    stage.change()
    copied(stage)
    assert not stage.difference()
    spoil(stage.destination / "0001" / "007")
    assert stage.difference()


def test_a_trial_leaves_the_data_set_as_it_was(stage: Stage, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "after").rglob("0*") if path.is_file()}
    stage.change()
    copied(stage)
    stage.remove(tmp_path / "moved-away")
    assert {path: path.read_bytes() for path in (tmp_path / "after").rglob("0*") if path.is_file()} == before
    assert not stage.source.exists()
    assert not stage.destination.exists()
    assert len(list((tmp_path / "moved-away").iterdir())) == 1


def test_edits_change_as_much_as_they_say(tmp_path: Path) -> None:
    path, size = tmp_path / "big", 200 * 65536
    old = os.urandom(size)
    path.write_bytes(old)
    change_blocks(path)
    new = path.read_bytes()
    assert sum(old[at : at + 65536] != new[at : at + 65536] for at in range(0, size, 65536)) == 2
    insert_byte(path)
    assert path.read_bytes()[1:] == new
    append(path, 10)
    assert path.stat().st_size == size + 11
