"""The index survives what happens to its file, or says that it did not; no seq is ever given twice."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.replica import index_file, index_schema
from agent.replica.index import Index
from tests.replica.tree_scene import TREE, found_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


def filled(path: Path, count: int = 2000) -> None:
    """Makes an index with rows, and closes it."""
    index = Index(path)
    index.update(TREE, [found_file(f"{number:05}", inode=number) for number in range(count)])
    index.close()


def as_the_disk_has_it(path: Path, target: Path) -> Path:
    """Copies an open index as a crash would leave it."""
    target.mkdir()
    for file in path.parent.glob(path.name + "*"):
        shutil.copy(file, target / file.name)
    return target / path.name


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_what_was_written_is_there_after_closing(path: Path) -> None:
    filled(path, 3)
    index = Index(path)
    assert index.totals(TREE) == (3, 3)
    assert not index.was_lost
    index.close()
    index.close()


def test_two_processes_cannot_have_it_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "LOCK_SECONDS_MAX", 0.05)
    index = Index(path)
    with pytest.raises(StateError, match="in use"):
        Index(path)
    index.close()
    Index(path).close()


def test_an_index_of_a_newer_release_is_refused_and_left_alone(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {index_schema.VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="newer release"):
        Index(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_index_of_an_older_release_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    monkeypatch.setattr(index_schema, "VERSION", index_schema.VERSION + 1)
    monkeypatch.setattr(index_schema, "MIGRATIONS", {index_schema.VERSION - 1: "CREATE TABLE added(number INTEGER)"})
    index = Index(path)
    assert not index.was_lost
    assert index.totals(TREE)[0] == 2000
    index.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM added").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (index_schema.VERSION,)
    connection.close()


def test_an_older_one_that_cannot_be_migrated_is_set_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    monkeypatch.setattr(index_schema, "VERSION", index_schema.VERSION + 1)
    index = Index(path)
    assert index.was_lost
    assert index.totals(TREE) == (0, 0)
    index.close()
    assert path.with_name("index.db.damaged-1").exists()


def empty_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE tree")
    connection.close()


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"this is no index" * 1000),
        lambda path: overwrite(path, 0, bytes(4096)),
        lambda path: overwrite(path, 30, b"\xff" * 60),
        lambda path: overwrite(path, 4096 * 23 + 3, b"\x01\x00"),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100]),
        empty_tables,
    ],
)
def test_a_damaged_index_is_kept_aside_and_begun_anew(path: Path, harm: Callable[[Path], object]) -> None:
    filled(path)
    harm(path)
    index = Index(path)
    assert index.was_lost
    assert index.totals(TREE) == (0, 0)
    index.close()
    assert path.with_name("index.db.damaged-1").stat().st_size > 0
    index = Index(path)
    assert index.was_lost  # until somebody took note
    index.acknowledge_loss()
    index.close()
    index = Index(path)
    assert not index.was_lost
    index.close()


def test_damage_that_shows_later_ends_the_work_and_is_not_forgotten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "CACHE_KIBIBYTES", 64)  # most of it is read from the disk again
    filled(path, 5000)
    index = Index(path)
    size = path.stat().st_size
    overwrite(path, size // 2, b"\x7f" * (size // 2))
    with pytest.raises(StateError, match="damaged"):
        list(map(partial(index.row, TREE), (f"{number:05}" for number in range(0, 5000, 50))))
    with pytest.raises(StateError, match="damaged"):
        index.totals(TREE)
    index.close()
    assert path.with_name("index.db.damaged-1").exists()
    index = Index(path)
    assert index.was_lost
    index.close()


def test_damaged_files_do_not_pile_up(path: Path) -> None:
    for number in range(index_file.ASIDE_MAX + 2):
        path.write_bytes(b"no index %d" % number * 100)
        Index(path).close()
    aside = sorted(each.name for each in path.parent.glob("*damaged*"))
    assert len(aside) == index_file.ASIDE_MAX


def test_an_empty_file_is_all_that_was_left_of_an_index(path: Path) -> None:
    path.write_bytes(b"")
    index = Index(path)
    assert index.was_lost
    index.close()


def test_a_first_start_that_was_cut_short_can_be_repeated(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    index = Index(path)
    index.update(TREE, [found_file("a")])
    assert not list(path.parent.glob("*damaged*"))
    index.close()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="cannot be"):
        Index(tmp_path / "file" / "index.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StateError, match="cannot be"):
        Index(tmp_path / "folder")


def test_what_a_killed_process_wrote_is_there(path: Path, tmp_path: Path) -> None:
    index = Index(path)
    index.update(TREE, [found_file("a")])
    crashed = as_the_disk_has_it(path, tmp_path / "crashed")
    index.close()
    index = Index(crashed)
    assert index.totals(TREE) == (1, 1)
    index.close()


def test_no_seq_is_given_twice_even_if_the_last_writes_are_lost(path: Path, tmp_path: Path) -> None:
    index = Index(path)
    index.update(TREE, [found_file("a")])
    earlier = as_the_disk_has_it(path, tmp_path / "earlier")
    index.update(TREE, [found_file("a"), found_file("told"), found_file("told too")])
    told = index.last_seq(TREE)
    index.close()
    index = Index(earlier)  # the power failed, and what the other node was told is lost here
    index.update(TREE, [found_file("a"), found_file("other")])
    (change,) = index.changes_after(TREE, told, 10)
    assert change.path == "other"
    index.close()


def test_a_closed_index_goes_on_counting_where_it_was(path: Path) -> None:
    filled(path, 3)
    index = Index(path)
    assert index.last_seq(TREE) == 3
    index.update(TREE, [found_file("a")])
    assert index.last_seq(TREE) == 7
    index.close()


def test_no_space_is_a_sentence_and_undoes_the_update(path: Path) -> None:
    index = Index(path)
    index.update(TREE, [found_file("a")])
    with index._file.guarded() as connection:
        connection.execute("PRAGMA max_page_count = 50")
    with pytest.raises(StateError, match="no space"):
        index.update(TREE, [found_file(f"{number:05}") for number in range(5000)])
    assert index.totals(TREE) == (1, 1)
    with index._file.guarded() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    index.update(TREE, [found_file("b")])
    assert index.totals(TREE) == (1, 1)
    index.close()
