"""Another folder in a tree's place, such as a disk that is not mounted: nothing is deleted, and nobody starts on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.pair import Node
from tests.real.tree_pair import TreePair, archived, command, contents, reasons, sentences, tree_status

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")

FILES = 15


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[TreePair]:
    pair = TreePair(tmp_path)
    for number in range(FILES):
        (pair.tree(pair.primary) / f"{number}.csv").write_text(f"values {number}")
    try:
        pair.start()
        pair.wait_in_sync()
        yield pair
    finally:
        pair.close()


def exchange_disk(pair: TreePair, node: Node) -> None:
    """Puts an empty new disk in the place of a tree, while the agent is down."""
    assert node.stop() == 0
    pair.tree(node).rename(node.directory / "old-disk")
    (pair.tree(node) / "lost+found").mkdir(parents=True)


def test_a_standby_on_another_disk_does_not_take_over_until_it_was_filled_by_order(pair: TreePair) -> None:
    exchange_disk(pair, pair.backup)
    pair.backup.start()
    pair.wait_for(lambda: "another folder than before" in reasons(pair.backup), "the backup says what is wrong")
    pair.wait_for(lambda: "another folder than before" in reasons(pair.primary), "the primary knows it too")
    pair.wait_for(lambda: tree_status(pair.backup, "data")["state"] == "failed", "the tree is told to be in trouble")
    pair.primary.kill()
    time.sleep(3)
    assert pair.backup.status()["role"] == "standby"
    assert contents(pair.tree(pair.backup)) == {"lost+found": None}
    pair.primary.start()
    pair.wait_active(pair.primary)
    assert len(contents(pair.tree(pair.primary))) > FILES
    pair.wait_for(lambda: bool(sentences(pair.backup, "sync-failed")), "the backup refuses to follow")
    assert command(pair.backup, "sync").returncode == 0
    pair.wait_in_sync()
    pair.primary.kill()
    pair.wait_active(pair.backup)


def test_a_primary_on_another_disk_takes_nothing_away_and_leaves_the_role_to_who_has_the_files(pair: TreePair) -> None:
    pair.backup.kill()  # nobody takes over meanwhile
    exchange_disk(pair, pair.primary)
    for node in pair.nodes:
        node.start()
    pair.wait_for(lambda: bool(sentences(pair.primary, "tree-trouble")), "the primary says what is wrong")
    pair.wait_active(pair.backup)  # which has the files
    assert len(contents(pair.tree(pair.backup))) > FILES
    (pair.tree(pair.primary) / "lost+found").rmdir()
    pair.tree(pair.primary).rmdir()
    (pair.primary.directory / "old-disk").rename(pair.tree(pair.primary))
    pair.wait_in_order()  # the disk is back
    pair.wait_in_sync()


def test_what_goes_with_most_of_a_tree_is_in_the_archive(pair: TreePair) -> None:
    for number in range(FILES):
        (pair.tree(pair.primary) / f"{number}.csv").unlink()
    pair.wait_in_sync()
    for number in range(FILES):
        assert archived(pair.backup, f"data/{number}.csv") == [f"values {number}".encode()]
