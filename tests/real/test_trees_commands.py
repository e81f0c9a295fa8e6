"""What an operator asks about the trees, with the real commands against a pair that lives; one pair for all of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.tree_pair import TreePair, archived, command, contents, running_tree_pair

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreePair]:
    with running_tree_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.fixture
def two(pair: TreePair) -> tuple[Path, Path]:
    """The data on the primary, which is active, and on the backup."""
    pair.wait_in_sync()
    return pair.tree(pair.primary), pair.tree(pair.backup)


@pytest.mark.parametrize("end", [0, 1])
def test_sync_on_either_node_ends_in_sync(pair: TreePair, two: tuple[Path, Path], end: int) -> None:
    done = command(pair.nodes[end], "sync")
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert contents(two[0]) == contents(two[1])


def flip_a_byte(path: Path) -> None:
    """What a bad disk does: other contents, and nothing else tells of it."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(1_000)
        byte = file.read(1)[0]
        file.seek(1_000)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_d7_a_bit_that_flipped_on_the_standbys_disk_is_found_and_fetched_again(
    pair: TreePair, two: tuple[Path, Path]
) -> None:
    data, copy = two
    flip_a_byte(copy / "sub" / "two.bin")
    done = command(pair.primary, "sync", "--full")
    assert done.returncode == 0, done
    assert (copy / "sub" / "two.bin").read_bytes() == (data / "sub" / "two.bin").read_bytes()


def test_d7_a_bit_that_flipped_on_the_active_nodes_disk_is_found_and_both_are_the_same(
    pair: TreePair, two: tuple[Path, Path]
) -> None:
    """Nobody can tell which of two contents is the true one; the active node's counts."""
    data, copy = two
    flip_a_byte(data / "sub" / "two.bin")
    done = command(pair.backup, "sync", "--full")
    assert done.returncode == 0, done
    assert (copy / "sub" / "two.bin").read_bytes() == (data / "sub" / "two.bin").read_bytes()


@pytest.mark.parametrize("end", [0, 1])
def test_a_dry_run_without_a_difference_says_so_and_changes_nothing(
    pair: TreePair, two: tuple[Path, Path], end: int
) -> None:
    before = contents(two[1])
    done = command(pair.nodes[end], "sync", "--dry-run")
    assert done.returncode == 0, done
    assert "nothing would change" in (done.stdout + done.stderr).lower()
    assert json.loads(command(pair.nodes[end], "sync", "--dry-run", "--json").stdout)["total"] == 0
    assert contents(two[1]) == before
    pair.wait_in_sync()


@pytest.mark.parametrize("end", [0, 1])
def test_test_sync_checks_both_nodes_and_changes_nothing(pair: TreePair, two: tuple[Path, Path], end: int) -> None:
    done = command(pair.nodes[end], "test", "sync", "--json")
    assert done.returncode == 0, done
    checks = json.loads(done.stdout)["checks"]
    names = {each["name"] for each in checks}
    assert {"connection", "tree data", "other node: tree data", "comparison"} <= names
    assert all(each["ok"] for each in checks)
    (two[0] / "still-follows").write_text("after a test the standby follows as before")
    pair.wait_in_sync()


def test_what_was_replaced_is_listed_and_restored(pair: TreePair, two: tuple[Path, Path], tmp_path: Path) -> None:
    data, copy = two
    (copy / "one.txt").write_text("edited where nobody should")
    pair.wait_for(lambda: bool(archived(pair.backup, "data/one.txt")), "archived")
    pair.wait_in_sync()
    items = json.loads(command(pair.backup, "archive", "list", "--tree", "data", "--json").stdout)["items"]
    (item,) = [each for each in items if each["path"] == "one.txt"]
    assert "one.txt" in command(pair.backup, "archive", "list").stdout

    refused = command(pair.backup, "archive", "restore", item["id"], "--yes")
    assert refused.returncode == 1
    assert "--to" in refused.stderr
    target = tmp_path / "as-it-was.txt"
    done = command(pair.backup, "archive", "restore", item["id"], "--to", str(target))
    assert done.returncode == 0, done
    assert target.read_text() == "edited where nobody should"
    assert (copy / "one.txt").read_text() == (data / "one.txt").read_text() == "one"

    (data / "one.txt").write_text(target.read_text())
    pair.wait_in_sync()
    assert (copy / "one.txt").read_text() == "edited where nobody should"
    assert command(pair.primary, "archive", "list").stdout.startswith("The archive is empty")


def test_a_version_restored_on_the_active_node_stands_on_both(pair: TreePair, two: tuple[Path, Path]) -> None:
    data, copy = two
    pair.primary.order("failover")
    pair.wait_active(pair.backup)  # whose archive it is
    items = json.loads(command(pair.backup, "archive", "list", "--path", "one.txt", "--json").stdout)["items"]
    (copy / "one.txt").write_text("what stands there goes to the archive first")
    done = command(pair.backup, "archive", "restore", items[0]["id"], "--yes")
    assert done.returncode == 0, done
    assert (copy / "one.txt").read_text() == "edited where nobody should"
    pair.wait_for(lambda: (data / "one.txt").read_text() == "edited where nobody should", "the other node has it")
    assert b"what stands there goes to the archive first" in archived(pair.backup, "data/one.txt")
    pair.backup.order("failback")
    pair.wait_in_order()
    pair.wait_in_sync()


def test_status_shows_the_trees_and_how_far_they_are(pair: TreePair, two: tuple[Path, Path]) -> None:
    for node, direction in zip(pair.nodes, ("to-peer", "from-peer"), strict=True):
        status = json.loads(command(node, "status", "--json").stdout)
        assert status["sync"]["direction"] == direction
        assert [tree["state"] for tree in status["trees"]] == ["in-sync", "in-sync"]
        assert all(tree["lag_ms"] == 0 and tree["last_sync"] for tree in status["trees"])
        assert status["trees"][0]["files"] == sum(1 for each in contents(two[0]).values() if isinstance(each, bytes))
        shown = command(node, "status").stdout
        assert "data" in shown
        assert "flows" in shown


def test_without_the_other_node_the_commands_say_why_they_cannot(pair: TreePair) -> None:
    pair.backup.stop()
    pair.wait_for(lambda: pair.primary.status()["link"]["state"] == "down", "the link down")
    for words in (("sync",), ("sync", "--dry-run"), ("test", "sync")):
        refused = command(pair.primary, *words)
        assert refused.returncode == 1
        assert "no link to the other node" in refused.stderr
        assert "Traceback" not in refused.stderr
    pair.backup.start()
    pair.wait_in_order()
    pair.wait_in_sync()
