"""The active role moves between two nodes with trees, disturbed or not; the names tell the rows of FAULTS."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.pair import Node
from tests.real.tree_pair import (
    KEEPER,
    TreePair,
    archived,
    contents,
    edit_config,
    in_sync,
    notes,
    running_tree_pair,
    seeded,
    sentences,
    walks,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")


def lines(pair: TreePair, node: Node) -> list[str]:
    return (pair.tree(node) / "lines").read_text().splitlines()


def none_lost_none_twice(pair: TreePair, node: Node) -> None:
    """What the workload appended is numbered without a gap, and each start found all that the other node ended with."""
    assert [line.split()[0] for line in lines(pair, node)] == [str(each) for each in range(len(lines(pair, node)))]
    told = sorted(
        (each for each_node in pair.nodes for each in notes(each_node)), key=lambda note: (note["term"], note["ended"])
    )
    for earlier, later in itertools.pairwise(told):
        assert earlier["ended"] is not later["ended"], told
        if earlier["ended"]:
            assert later["lines"] == earlier["lines"], told


def test_d3_lines_written_until_the_last_moment_are_there_before_the_other_node_starts(tmp_path: Path) -> None:
    with running_tree_pair(tmp_path, workload=KEEPER) as pair:
        assert pair.primary.stop() == 0
        pair.wait_active(pair.backup)
        pair.primary.start()
        pair.wait_in_order()  # the backup wrote until it was told to stop
        assert pair.primary.status()["sync"]["last_gap_ms"] is not None
        none_lost_none_twice(pair, pair.primary)
        pair.primary.order("failover")
        pair.wait_active(pair.backup)
        none_lost_none_twice(pair, pair.backup)
        pair.wait_in_sync()
        assert pair.backup.stop() == 0
        pair.wait_active(pair.primary)
        none_lost_none_twice(pair, pair.primary)
        assert pair.overlap_ns() == 0
        for code in ("conflict", "handover-refused", "final-changes-undelivered"):
            assert not sentences(pair.primary, code) + sentences(pair.backup, code)


@pytest.mark.parametrize(
    ("policy", "known", "waits"),
    [
        ("activate", True, False),
        ("wait", False, True),
        ("wait-if-outdated", True, True),
        pytest.param("wait-if-outdated", False, False, marks=pytest.mark.long),
    ],
)
def test_d4_a_timer_that_expires_with_newer_state_elsewhere_obeys_the_policy(
    tmp_path: Path, policy: str, known: bool, waits: bool
) -> None:
    """`known`: the primary gave the role away; otherwise it died, and cannot know that the backup took over."""
    pair = TreePair(tmp_path, standby_ms=1_000)
    try:
        pair.start()
        if known:
            pair.primary.order("failover")
        pair.primary.kill()
        pair.wait_active(pair.backup)
        (pair.tree(pair.backup) / "one.txt").write_text("newer")
        (pair.tree(pair.backup) / "only-there").write_text("newer")
        pair.wait_for(lambda: pair.backup.status()["trees"][0]["files"] == 3, "the backup has noticed")
        pair.backup.kill()
        obeys_the_policy(pair, policy, waits)
    finally:
        pair.close()


def obeys_the_policy(pair: TreePair, policy: str, waits: bool) -> None:
    edit_config(pair.primary, "[server]", f'[server]\non_initial_standby_timeout = "{policy}"')
    pair.primary.start()
    if waits:
        pair.wait_for(lambda: "still waiting" in pair.primary.status().get("reason", ""), "it says that it waits")
        assert pair.primary.status()["role"] == "initial-standby"
        assert sentences(pair.primary, "not-eligible")
    else:
        pair.wait_active(pair.primary)
        assert sentences(pair.primary, "activated-without-resync")
        (pair.tree(pair.primary) / "one.txt").write_text("written without the newer state")
        (pair.tree(pair.primary) / "only-here").write_text("too")
    pair.backup.start()
    pair.wait_in_order()
    pair.wait_in_sync()
    one = (pair.tree(pair.primary) / "one.txt").read_text()
    kept = [version for node in pair.nodes for version in archived(node, "data/one.txt")]
    if waits:
        assert one == "newer"
        assert (pair.tree(pair.primary) / "only-there").exists()
        assert not kept
    else:
        assert one == "written without the newer state"
        assert b"newer" in kept
        only_there = pair.tree(pair.primary) / "only-there"
        assert only_there.exists() or archived(pair.backup, "data/only-there") == [b"newer"]
        assert any(sentences(node, "conflict") for node in pair.nodes)


def test_d5_what_both_nodes_wrote_on_their_own_is_merged_and_the_primarys_stays(tmp_path: Path) -> None:
    """The primary writes while the backup is away; the backup, not knowing, takes over and writes too."""
    with running_tree_pair(tmp_path) as pair:
        pair.backup.kill()
        own = pair.tree(pair.primary)
        (own / "one.txt").write_text("the primary's")
        (own / "only-primary").write_text("a")
        pair.wait_for(lambda: pair.primary.status()["trees"][0]["files"] == 3, "the primary has noticed")
        pair.primary.kill()
        pair.backup.start()
        pair.wait_active(pair.backup)
        theirs = pair.tree(pair.backup)
        (theirs / "one.txt").write_text("the backup's")
        (theirs / "only-backup").write_text("b")
        (theirs / "link").unlink()
        pair.primary.start()
        pair.wait_in_order()
        pair.wait_in_sync()
        assert contents(own) | {"sub/two.bin": b""} == {
            "one.txt": b"the primary's",
            "only-primary": b"a",
            "only-backup": b"b",
            "sub": None,
            "sub/empty": None,
            "sub/two.bin": b"",
        }
        assert b"the backup's" in archived(pair.primary, "data/one.txt") + archived(pair.backup, "data/one.txt")
        assert "one.txt" in " ".join(sentences(pair.primary, "conflict"))
        assert pair.primary.status()["archive"]["conflicts"] == 1
        assert pair.overlap_ns() == 0


def settle(pair: TreePair) -> None:
    """Waits until exactly one node is active after a disturbance, and leads the role back to the primary."""
    pair.wait_for(
        lambda: sorted(node.status().get("role", "") for node in pair.nodes) == ["active", "standby"], "one active"
    )
    if pair.backup.status().get("hold"):
        pair.wait_for(lambda: all(in_sync(node) for node in pair.nodes), "in sync")
        pair.primary.order("failback")
    pair.wait_in_order()


@pytest.mark.parametrize(("steps", "seed"), walks(8, 25))
def test_p12_n14_a_handover_interrupted_at_any_moment_leaves_exactly_one_active(
    tmp_path: Path, steps: int, seed: int
) -> None:
    chance = seeded(seed)
    with running_tree_pair(tmp_path, workload=KEEPER) as pair:
        for number in range(steps):
            active = next(node for node in pair.nodes if node.status().get("role") == "active")
            (pair.tree(active) / f"state-{number}").write_bytes(os.urandom(20_000))
            order = threading.Thread(target=quietly, args=(pair.primary.order, "failover"))
            order.start()
            time.sleep(chance.uniform(0, 0.4))
            fault = chance.choice(("cut", "cut", "kill", "stop"))
            victim = chance.choice(pair.nodes)
            if fault == "cut":
                for _ in range(3):
                    pair.break_connection(victim)
                    time.sleep(chance.uniform(0, 0.1))
            elif fault == "kill":
                victim.kill()
            else:
                victim.stop()
            order.join()
            if fault != "cut":
                victim.start()
            settle(pair)
            assert pair.overlap_ns() == 0, (number, fault, victim.name)
        pair.wait_in_sync()
        terms = [span.term for node in pair.nodes for span in node.spans()]
        assert len(terms) == len(set(terms))


def quietly(order: Callable[..., Any], *arguments: Any) -> None:
    """Gives an order whose answer does not matter, for the agent may be gone before it comes."""
    try:
        order(*arguments)
    except Exception as error:
        print(f"the order failed: {error}")


@pytest.mark.parametrize(("cuts", "seed"), walks(20, 60))
def test_n14_the_link_cut_at_random_moments_of_a_switchback_leaves_exactly_one_active(
    tmp_path: Path, cuts: int, seed: int
) -> None:
    chance = seeded(seed)
    with running_tree_pair(tmp_path, rate_kb=400, workload=KEEPER) as pair:
        while cuts > 0:
            pair.primary.kill()
            pair.wait_active(pair.backup)
            (pair.tree(pair.backup) / f"state-{cuts}").write_bytes(os.urandom(300_000))
            pair.primary.start()
            pair.wait_for(lambda: pair.primary.status().get("link", {}).get("state") == "up", "the link")
            while pair.primary.status()["role"] != "active" and cuts > 0:
                time.sleep(chance.uniform(0, 0.5))
                pair.break_connection(pair.backup)
                cuts -= 1
            settle(pair)
            assert pair.overlap_ns() == 0
        pair.wait_in_sync()
        numbers = [line.split()[0] for line in lines(pair, pair.primary)]
        assert len(numbers) == len(set(numbers))
