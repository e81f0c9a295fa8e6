"""Trees of a real pair: what is written on one node stands on the other, whoever dies when."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.pair import Node, Pair

TREES = """
[[tree]]
name = "data"
kind = "data"
path = "data"
exclude = ["*.tmp"]

[[tree]]
name = "flows"
kind = "config"
path = "flows"
"""


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Returns what stands in a folder: contents of files, targets of links, None for folders; ours left out."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == ".pair-agent":
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def same(pair: Pair, name: str = "data") -> bool:
    return contents(pair.primary.directory / name) == contents(pair.backup.directory / name)


def in_sync(node: Node) -> bool:
    status: dict[str, Any] = node.status()
    return bool(status) and status["sync"]["state"] == "in-sync"


def make_trees(pair: Pair) -> None:
    for node in (pair.primary, pair.backup):
        for name in ("data", "flows"):
            (node.directory / name).mkdir()
    data = pair.primary.directory / "data"
    (data / "sub" / "empty").mkdir(parents=True)
    (data / "one.txt").write_text("one")
    (data / "sub" / "two.bin").write_bytes(os.urandom(300_000))
    (data / "link").symlink_to("sub/two.bin")
    (data / "left.tmp").write_text("excluded")
    (pair.primary.directory / "flows" / "flow.json").write_text("{}")


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, toml=TREES)
    make_trees(pair)
    try:
        pair.start()
        pair.wait_for(lambda: in_sync(pair.backup) and in_sync(pair.primary), "the first copy")
        yield pair
    finally:
        pair.close()


def test_the_first_copy_brings_everything_but_what_is_excluded(pair: Pair) -> None:
    (pair.primary.directory / "data" / "left.tmp").unlink()
    assert same(pair)
    assert same(pair, "flows")
    one = pair.backup.directory / "data" / "one.txt"
    assert one.stat().st_mtime_ns == (pair.primary.directory / "data" / "one.txt").stat().st_mtime_ns


def test_changes_follow_at_once(pair: Pair) -> None:
    data = pair.primary.directory / "data"
    (data / "left.tmp").unlink()
    (data / "new").mkdir()
    (data / "new" / "three").write_text("three")
    (data / "one.txt").unlink()
    (data / "sub").rename(data / "moved")
    pair.wait_for(lambda: same(pair), "the changes on the standby")


def test_what_was_written_while_the_primary_was_away_comes_back_before_it_takes_over(pair: Pair) -> None:
    (pair.primary.directory / "data" / "left.tmp").unlink()
    pair.primary.kill()
    pair.wait_active(pair.backup)
    data = pair.backup.directory / "data"
    (data / "while-away").write_bytes(os.urandom(100_000))
    (data / "one.txt").write_text("one, changed on the backup")
    (data / "sub" / "two.bin").unlink()
    (pair.backup.directory / "flows" / "flow.json").write_text('{"changed": true}')
    written = contents(data)
    pair.primary.start()
    pair.wait_in_order()
    assert contents(pair.primary.directory / "data") == written
    assert same(pair, "flows")
    assert pair.primary.status()["sync"]["last_gap_ms"] is not None


def test_an_edit_on_the_standby_is_replaced_and_kept_in_the_archive(pair: Pair) -> None:
    (pair.primary.directory / "data" / "left.tmp").unlink()
    (pair.backup.directory / "data" / "one.txt").write_text("edited where nobody should")
    pair.wait_for(lambda: same(pair), "the edit replaced")
    kept = list((pair.backup.directory / "state" / "archive").glob("*/data/one.txt"))
    assert [path.read_text() for path in kept] == ["edited where nobody should"]
