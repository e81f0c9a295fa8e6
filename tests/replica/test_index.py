"""The index knows what stands in a tree: what changed gets a new seq, what is unknown is never taken for deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.core.errors import StateError, TreeError
from agent.core.tree_entries import EntryKind
from agent.replica.file_tree import Fingerprint, Found, Refused
from agent.replica.index import Index, Update
from agent.replica.scanning import Scanner
from tests.replica.tree_scene import TREE, WRITTEN_NS, found_file, found_folder, root_at, write

POSIX = sys.platform != "win32"
only_posix = pytest.mark.skipif(not POSIX, reason="Windows tells no time of the change of attributes")
DIGEST, OTHER = blake3(b"one").digest(), blake3(b"other").digest()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "state" / "index.db")
    yield index
    index.close()


def paths(index: Index) -> list[str]:
    """What stands in the tree, in the order of a scan."""
    standing = [each.path for each in index.changes_after(TREE, 0, 10_000) if each.entry is not None]
    return sorted(standing, key=lambda path: path.split("/"))


def update(index: Index, *found: Found | Refused, under: str = "") -> Update:
    return index.update(TREE, found, under)


def take(index: Index, tree: Path, under: str = "") -> Update:
    return index.update(TREE, Scanner().scan(root_at(tree), under), under)


def digested(index: Index, path: str, digest: bytes = DIGEST) -> None:
    row = index.row(TREE, path)
    assert row is not None
    assert index.note_digest(TREE, path, row.fingerprint, digest)


def digest(index: Index, path: str) -> bytes:
    row = index.row(TREE, path)
    assert row is not None
    return row.entry.digest


def test_a_first_scan_makes_local_rows_and_the_same_scan_again_changes_nothing(index: Index, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a/b", "a/c", "d"):
        write(tree / name, "12345")
    first = take(index, tree)
    assert (first.changed, first.gone, first.paths) == (4, 0, ["a", "a/b", "a/c", "d"])
    assert index.last_seq(TREE) == 4
    assert index.totals(TREE) == (3, 15)
    again = take(index, tree)
    assert (again.changed, again.gone, index.last_seq(TREE)) == (0, 0, 4)
    row = index.row(TREE, "a/b")
    assert row is not None
    assert (row.local, row.gone, row.entry.size, row.entry.mtime_ns, row.name_on_disk) == (
        *(True, False, 5, WRITTEN_NS),
        "a/b",
    )
    assert [each.seq for each in index.changes_after(TREE, 2, 100)] == [3, 4]
    assert len(index.changes_after(TREE, 0, 3)) == 3


def test_changed_files_get_a_new_seq_and_lose_their_digest(index: Index) -> None:
    update(index, found_file("a"), found_file("b", inode=2))
    digested(index, "a")
    done = update(index, found_file("a", size=2), found_file("b", inode=2))
    assert done.paths == ["a"]
    assert digest(index, "a") == b""
    assert [(each.seq, each.path) for each in index.changes_after(TREE, 2, 10)] == [(3, "a")]


@pytest.mark.parametrize("what", ["size", "mtime_ns", "inode", "ctime_ns"])
def test_every_part_of_the_fingerprint_counts(index: Index, what: str) -> None:
    found = found_file("a")
    update(index, found)
    digested(index, "a")
    done = update(index, found._replace(fingerprint=found.fingerprint._replace(**{what: 77})))
    assert done.changed == 1
    assert digest(index, "a") == b""


def test_permission_bits_and_targets_and_kinds_are_changes(index: Index) -> None:
    folder = found_folder("a")
    update(index, folder)
    private = folder._replace(entry=replace(folder.entry, mode=0o700))
    assert update(index, private).changed == 1
    assert update(index, private._replace(fingerprint=Fingerprint(0, 0, 5, 0))).changed == 0
    assert update(index, found_file("a")).changed == 1
    row = index.row(TREE, "a")
    assert row is not None
    assert row.entry.kind is EntryKind.FILE


def test_what_is_not_found_becomes_a_tombstone_once_and_can_come_back(index: Index) -> None:
    update(index, found_folder("a"), found_file("a/b"))
    index.mark_common(TREE, index.last_seq(TREE))
    done = update(index)
    assert (done.gone, done.paths, index.totals(TREE)) == (2, ["a", "a/b"], (0, 0))
    (one, two) = index.changes_after(TREE, 2, 10)
    assert (one.path, one.entry, one.local) == ("a", None, True)
    assert (two.path, two.entry, two.local) == ("a/b", None, True)
    assert update(index).gone == 0
    assert update(index, found_folder("a")).changed == 1
    assert index.totals(TREE) == (0, 0)
    row = index.row(TREE, "a")
    assert row is not None
    assert not row.gone


@pytest.mark.parametrize("under", ["a", "a/b", "a/b/c"])
def test_a_scan_of_a_part_says_nothing_of_the_rest(index: Index, under: str) -> None:
    everything = [found_folder("a"), found_folder("a/b"), found_file("a/b/c"), found_file("a b"), found_file("a0")]
    update(index, *everything)
    done = update(index, under=under)
    inside = [each.entry.path for each in everything if (each.entry.path + "/").startswith(under + "/")]
    assert done.paths == inside


def test_below_what_is_unreadable_nothing_becomes_a_tombstone(index: Index) -> None:
    standing = [found_folder("a"), found_folder("a/b"), found_file("a/b/c"), found_folder("d"), found_file("d/e")]
    update(index, *standing, found_file("f"), found_file("g"))
    held = Refused("a/b", "no permission", unreadable=True)
    done = update(
        index,
        found_folder("a"),
        found_folder("a/b"),
        held,
        Refused("d", "no permission", unreadable=True),
        Refused("f", "it is a FIFO"),
    )
    assert done.paths == ["f", "g"]
    assert done.refused_count == 3
    assert done.refused[0] == held
    assert paths(index) == ["a", "a/b", "a/b/c", "d", "d/e"]


def test_above_what_is_looked_for_an_unreadable_folder_holds_it_too(index: Index) -> None:
    update(index, found_folder("a"), found_file("a/b"), found_file("c"))
    assert update(index, Refused("a", "no permission", unreadable=True), under="a/b").gone == 0


def test_a_tree_that_turns_out_to_be_missing_leaves_every_row(index: Index, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(700):
        write(tree / f"{number:03}")
    take(index, tree)

    def cut_off() -> Iterator[Found | Refused]:
        yield found_file("000", size=99)
        yield found_file("699", size=99)
        raise TreeError("the disk is gone")

    with pytest.raises(TreeError):
        index.update(TREE, cut_off())
    assert index.totals(TREE) == (700, 700 * len("contents"))
    assert index.last_seq(TREE) == 700
    assert take(index, tree).changed == 0


def test_found_in_another_order_is_refused_whole(index: Index) -> None:
    with pytest.raises(ValueError, match="no scan"):
        update(index, found_file("b"), found_file("a"))
    assert index.row(TREE, "b") is None


def test_a_renamed_folder_needs_no_reading(index: Index, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(5):
        write(tree / "m" / str(number), str(number))
    take(index, tree)
    for row in index.undigested(TREE, 10):
        digested(index, row.entry.path, blake3(row.entry.path.encode()).digest())
    for name in ("z", "a"):  # it is found before, or after, the old one is missed
        old = next(each.name for each in tree.iterdir())
        (tree / old).rename(tree / name)
        done = take(index, tree)
        assert (done.changed, done.gone) == (6, 6)
        assert index.undigested(TREE, 10) == []
    assert digest(index, "a/3") == blake3(b"m/3").digest()


def test_a_renamed_folder_is_met_again_when_its_parts_are_scanned_one_by_one(index: Index) -> None:
    update(index, found_file("log", inode=1), found_file("log.1", inode=2))
    digested(index, "log")
    update(index, found_file("log", inode=3), under="log")
    update(index, found_file("log.1", inode=1), under="log.1")
    assert digest(index, "log") == b""
    assert digest(index, "log.1") == DIGEST


def test_an_inode_that_is_used_again_is_not_taken_for_the_same_file(index: Index) -> None:
    """What package managers unpack has one and the same round time in every version."""
    round_ns = 499_162_500 * 10**9
    update(index, found_file("v1/package.json", mtime_ns=round_ns, inode=5))
    digested(index, "v1/package.json")
    update(index, found_file("v2/package.json", mtime_ns=round_ns, inode=5))
    assert digest(index, "v2/package.json") == b""


def test_a_file_that_stayed_is_read_again_if_only_its_attributes_were_touched(index: Index) -> None:
    update(index, found_file("a", ctime_ns=1))
    digested(index, "a")
    update(index, found_file("a", ctime_ns=2))
    assert digest(index, "a") == b""


@only_posix
def test_contents_replaced_behind_the_old_time_are_found(index: Index, tmp_path: Path) -> None:
    path = write(tmp_path / "tree" / "file", "one")
    take(index, path.parent)
    digested(index, "file")
    write(path, "two")
    assert take(index, path.parent).paths == ["file"]
    assert digest(index, "file") == b""


def test_a_digest_is_noted_only_for_the_file_that_was_read(index: Index) -> None:
    update(index, found_file("a"), found_file("b"))
    then = found_file("a").fingerprint
    update(index, found_file("a", size=9), found_file("b"))
    assert not index.note_digest(TREE, "a", then, DIGEST)
    assert digest(index, "a") == b""
    assert index.note_digests(TREE, [("a", then, DIGEST), ("b", then, DIGEST), ("none", then, DIGEST)]) == 1
    assert [row.entry.path for row in index.by_digest(TREE, DIGEST)] == ["b"]
    update(index, found_file("a", size=9))
    assert index.by_digest(TREE, DIGEST) == []


def test_files_that_were_not_read_yet_are_told_in_pages(index: Index) -> None:
    update(index, *[found_file(f"{number}", inode=number) for number in range(5)], found_folder("d"))
    digested(index, "2")
    first = index.undigested(TREE, 2)
    assert [row.entry.path for row in first] == ["0", "1"]
    assert [row.entry.path for row in index.undigested(TREE, 10, "1")] == ["3", "4"]


def test_a_digest_that_differs_at_the_second_reading_is_a_change(index: Index) -> None:
    update(index, found_file("a"), found_file("b"))
    digested(index, "a")
    index.mark_common(TREE, 2)
    now = found_file("a").fingerprint
    assert index.correct_digests(TREE, [("a", now, DIGEST), ("b", now, DIGEST)]) == 0
    assert index.last_seq(TREE) == 2
    assert index.correct_digests(TREE, [("a", now, OTHER)]) == 1
    (change,) = index.changes_after(TREE, 2, 10)
    assert change.entry is not None
    assert (change.path, change.entry.digest, change.local) == ("a", OTHER, True)


def test_touched_rows_are_told_again(index: Index) -> None:
    update(index, found_file("a"), found_file("b"))
    index.touch(TREE, ["a", "none"])
    assert [each.path for each in index.changes_after(TREE, 2, 10)] == ["a"]


def test_changes_of_paths_are_told_if_there_is_a_row(index: Index) -> None:
    update(index, found_file("a"), found_file("b"))
    update(index, found_file("a"))
    assert [(each.path, each.entry is None) for each in index.changes_of(TREE, ["b", "none", "a"])] == [
        ("b", True),
        ("a", False),
    ]


def test_what_both_have_is_no_longer_local_and_later_changes_are(index: Index) -> None:
    update(index, found_file("a"), found_file("b"))
    seq = index.last_seq(TREE)
    update(index, found_file("a"), found_file("b", size=2))
    index.mark_common(TREE, seq)
    assert {each.path: each.local for each in index.changes_after(TREE, 0, 10)} == {"a": False, "b": True}


def test_old_tombstones_are_dropped_and_the_feed_says_from_where_it_is_complete(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db", tombstones_kept=2)
    update(index, *[found_file(str(number)) for number in range(5)])
    assert index.feed_begins(TREE) == 0
    for left in (4, 3, 2, 1, 0):
        update(index, *[found_file(str(number)) for number in range(left)])
    index.mark_common(TREE, 9)  # the last one is not common yet
    assert [each.seq for each in index.changes_after(TREE, 0, 10)] == [8, 9, 10]
    assert index.feed_begins(TREE) == 7
    index.close()


def test_a_name_in_another_unicode_form_on_disk_is_no_change_but_remembered(index: Index) -> None:
    found = found_file("ä")
    update(index, found)
    assert update(index, found._replace(name_on_disk="a\u0308")).changed == 0
    row = index.row(TREE, "ä")
    assert row is not None
    assert row.name_on_disk == "a\u0308"
    assert index.place_of(TREE, "ä") == "a\u0308"
    update(index, found_folder("ö")._replace(name_on_disk="o\u0308"))
    assert index.place_of(TREE, "ö/new/file") == "o\u0308/new/file"
    assert index.place_of(TREE, "ä/x") == "ä/x"  # what is gone has no place


def test_trees_do_not_mix_and_can_be_forgotten(index: Index) -> None:
    index.update("one", [found_file("a")])
    index.update("two", [found_file("b")])
    assert index.row("one", "b") is None
    first = index.index_id("one")
    assert len(first) == 16
    assert first != index.index_id("two")
    index.forget("one")
    assert index.trees() == ["two"]
    assert index.row("one", "a") is None
    assert index.index_id("one") != first
    assert index.totals("two") == (1, 1)


def test_the_position_at_the_source_is_kept(index: Index) -> None:
    assert index.peer_position(TREE) == (b"", 0)
    index.set_peer_position(TREE, b"x" * 16, 7)
    assert index.peer_position(TREE) == (b"x" * 16, 7)


def test_a_single_file_has_the_empty_path(index: Index) -> None:
    assert update(index, found_file("")).paths == [""]
    assert update(index, found_file("")).changed == 0
    assert index.totals(TREE) == (1, 1)
    assert update(index, found_file("", size=4)).changed == 1


def test_a_closed_index_says_so(index: Index) -> None:
    index.close()
    with pytest.raises(StateError, match="closed"):
        index.row(TREE, "a")
