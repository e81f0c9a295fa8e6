"""Overwrite: after a first pairing or a change of modes the primary's trees replace the backup's, which are kept."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.real.pair import Node
from tests.real.tree_pair import (
    TreePair,
    archived,
    command,
    contents,
    edit_config,
    reasons,
    record_of,
    running_tree_pair,
    sentences,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


def test_a_peer_that_was_never_paired_is_overwritten_and_what_it_had_is_kept(tmp_path: Path) -> None:
    pair = TreePair(tmp_path)
    for node in pair.nodes:  # what both have alike is no difference
        (pair.tree(node) / "alike").write_text("alike")
    (pair.tree(pair.backup) / "one.txt").write_text("the backup's one")
    (pair.tree(pair.backup) / "own" / "deep").mkdir(parents=True)
    (pair.tree(pair.backup) / "own" / "deep" / "file").write_text("the backup's own")
    (pair.tree(pair.backup, "flows") / "flow.json").write_text("[]")
    written = contents(pair.tree(pair.primary))
    try:
        pair.start()
        assert contents(pair.tree(pair.primary)) == written
        assert archived(pair.backup, "data/one.txt") == [b"the backup's one"]
        assert archived(pair.backup, "data/own/deep/file") == [b"the backup's own"]
        assert archived(pair.backup, "flows/flow.json") == [b"[]"]
        assert not archived(pair.backup, "data/alike")
        assert not (pair.primary.directory / "state" / "archive").exists() or not archived(pair.primary, "data/one.txt")
        assert not any(record_of(node).overwrite_due for node in pair.nodes)
    finally:
        pair.close()


def test_maintenance_holds_an_overwrite_back_and_a_dry_run_shows_it(tmp_path: Path) -> None:
    pair = TreePair(tmp_path)
    (pair.tree(pair.backup) / "one.txt").write_text("the backup's one")
    (pair.tree(pair.backup) / "own").write_text("the backup's own")
    try:
        pair.backup.start()
        pair.wait_for(lambda: bool(pair.backup.status()), "the backup up")
        pair.backup.order("maintenance", on=True)
        before = contents(pair.tree(pair.backup))
        pair.primary.start()
        pair.wait_for(lambda: pair.primary.status().get("link", {}).get("state") == "up", "the link")
        for node in pair.nodes:
            pair.wait_for(lambda node=node: answers(node), "the dry run")
            shown = json.loads(command(node, "sync", "--dry-run", "--json").stdout)
            changes = {each["path"]: each for each in shown["changes"] if each["tree"] == "data"}
            assert changes["one.txt"]["archived"]
            assert changes["own"]["deed"] == "remove"
            assert changes["own"]["archived"]
            assert changes["sub/two.bin"]["deed"] == "create"
        assert contents(pair.tree(pair.backup)) == before
        assert record_of(pair.backup).overwrite_due
        pair.backup.order("maintenance", on=False)
        pair.wait_in_order()
        pair.wait_in_sync()
        assert archived(pair.backup, "data/own") == [b"the backup's own"]
    finally:
        pair.close()


def answers(node: Node) -> bool:
    try:
        node.order("sync/dry-run")
    except AssertionError:
        return False
    return True


def test_swapped_modes_overwrite_the_new_backup_whoever_is_killed_in_the_middle(tmp_path: Path) -> None:
    with running_tree_pair(tmp_path, rate_kb=500) as pair:
        pair.stop_both()
        for node, old, new in ((pair.primary, "primary", "backup"), (pair.backup, "backup", "primary")):
            edit_config(node, f'mode = "{old}"', f'mode = "{new}"')
        pair.primary, pair.backup = pair.backup, pair.primary
        pair.nodes = (pair.primary, pair.backup)
        (pair.tree(pair.primary) / "one.txt").write_text("the new primary's")
        (pair.tree(pair.primary) / "big").write_bytes(os.urandom(600_000))
        (pair.tree(pair.backup) / "one.txt").write_text("written on the old primary last")
        (pair.tree(pair.backup) / "only-there").write_text("kept")
        written = contents(pair.tree(pair.primary))

        for node in pair.nodes:
            node.start()
        pair.wait_for(lambda: pair.backup.status().get("sync", {}).get("state") == "copying", "the overwrite going on")
        for node in pair.nodes:
            node.kill()
        assert all(record_of(node).overwrite_due for node in pair.nodes)

        pair.backup.start()  # alone it is not whole
        pair.wait_for(lambda: "not finished" in reasons(pair.backup), "it says why it waits")
        pair.wait_for(lambda: pair.backup.status().get("role") == "standby", "it has started")
        pair.primary.start()
        pair.wait_in_order()
        pair.wait_in_sync()
        assert contents(pair.tree(pair.primary)) == written
        assert archived(pair.backup, "data/one.txt") == [b"written on the old primary last"]
        assert archived(pair.backup, "data/only-there") == [b"kept"]
        assert not any(record_of(node).overwrite_due for node in pair.nodes)
        assert sentences(pair.backup, "archived")
        assert pair.overlap_ns() == 0
