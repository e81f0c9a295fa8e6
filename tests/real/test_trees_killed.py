"""Trees of a real pair whose processes are killed with -9 at random moments; the names tell the rows of FAULTS."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.replica.index import Index
from tests.real.pair import Node
from tests.real.tree_pair import (
    KEEPER,
    TreePair,
    archived,
    contents,
    in_sync,
    kill_worker,
    notes,
    reasons,
    record_of,
    running_tree_pair,
    seeded,
    sentences,
    wait_worker_gone,
    walks,
    worker_pid,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX; the Wine lane has its own pair")

KILLS = walks(4, 25)
GENERATION_FILES = 150


@contextlib.contextmanager
def slow_pair(directory: Path, rate_kb: int = 300) -> Iterator[TreePair]:
    """A pair whose first copy takes its time, not started."""
    pair = TreePair(directory, rate_kb=rate_kb)
    for number in range(60):
        (pair.tree(pair.primary) / f"small-{number}").write_bytes(os.urandom(10_000))
    (pair.tree(pair.primary) / "big").write_bytes(os.urandom(700_000))
    (pair.tree(pair.backup) / "was-here-before").write_text("of nobody's pair")
    try:
        yield pair
    finally:
        pair.close()


def rate_for(kills: int) -> int:
    """Returns the kB/s at which a copy lasts for so many kills."""
    return 300 if kills < 10 else 80


def is_copying(node: Node) -> bool:
    status = node.status()
    return bool(status) and status["sync"]["state"] in ("copying", "in-sync")


def kill_in_the_middle(pair: TreePair, victim: Node, kills: int, seed: int) -> None:
    """Kills the worker or the agent of one node at random moments of a copy to the backup, `kills` times at most."""
    chance = seeded(seed)
    for number in range(kills):
        pair.wait_for(lambda: is_copying(pair.backup), "the copy going on")
        time.sleep(chance.uniform(0, 1.0))
        if in_sync(pair.backup):
            break
        if number % 3 == 0:  # a worker that dies too often is started again after ever longer pauses
            kill_worker(victim)
            pair.wait_for(lambda: worker_pid(victim) != 0, "a worker again")
        else:
            victim.kill()
            if record_of(pair.backup).overwrite_due:
                assert not pair.backup.spans()
            victim.start()


@pytest.mark.parametrize(("kills", "seed"), KILLS)
def test_d1_a_target_killed_in_the_middle_of_a_copy_stays_incomplete_and_resumes(
    tmp_path: Path, kills: int, seed: int
) -> None:
    with slow_pair(tmp_path, rate_for(kills)) as pair:
        for node in pair.nodes:
            node.start()
        kill_in_the_middle(pair, pair.backup, kills, seed)

        pair.wait_for(lambda: is_copying(pair.backup), "the copy going on")
        if not in_sync(pair.backup):
            half_a_copy_alone_does_nothing(pair)
        pair.wait_in_order()
        pair.wait_in_sync()
        assert not pair.backup.spans()
        assert archived(pair.backup, "data/was-here-before") == [b"of nobody's pair"]
        assert len(list((pair.backup.directory / "state" / "archive").glob("*/data/*"))) == 1


def half_a_copy_alone_does_nothing(pair: TreePair) -> None:
    for node in pair.nodes:
        node.kill()
    whole = not record_of(pair.backup).overwrite_due  # it was through a moment before
    pair.backup.start()
    if whole:
        pair.primary.start()
        return
    pair.wait_for(lambda: "not finished" in pair.backup.status().get("reason", ""), "it says why it waits")
    assert pair.backup.status()["role"] == "standby"
    lack = "first copy of the primary's trees is not finished"
    pair.wait_for(lambda: lack in reasons(pair.backup), "readiness says why")
    pair.primary.start()


@pytest.mark.parametrize(("kills", "seed"), KILLS)
def test_d2_a_source_killed_in_the_middle_of_a_copy_goes_on_where_it_was(tmp_path: Path, kills: int, seed: int) -> None:
    with slow_pair(tmp_path, rate_for(kills)) as pair:
        written = contents(pair.tree(pair.primary))
        for node in pair.nodes:
            node.start()
        kill_in_the_middle(pair, pair.primary, kills, seed)
        pair.wait_in_order()
        pair.wait_in_sync()
        assert contents(pair.tree(pair.primary)) == written
        assert not pair.backup.spans()


def test_an_incomplete_node_starts_only_when_it_is_forced_and_warns(tmp_path: Path) -> None:
    with slow_pair(tmp_path, 100) as pair:
        for node in pair.nodes:
            node.start()
        pair.wait_for(lambda: is_copying(pair.backup), "the copy going on")
        assert not pair.backup.status()["readiness"]["ready"]
        for node in pair.nodes:
            node.kill()
        pair.backup.start("--force-activate")
        pair.wait_active(pair.backup)
        assert any("first copy" in sentence for sentence in sentences(pair.backup, "trees-incomplete"))


@pytest.mark.parametrize(("kills", "seed"), KILLS)
def test_d1_d2_killed_in_the_middle_of_a_resync_nothing_of_the_newer_side_is_lost(
    tmp_path: Path, kills: int, seed: int
) -> None:
    """The backup took over and wrote; the primary comes back, and either dies while it is brought up to date."""
    chance = seeded(seed)
    with running_tree_pair(tmp_path, rate_kb=rate_for(kills), standby_ms=60_000) as pair:
        pair.primary.kill()
        pair.wait_active(pair.backup)
        data = pair.tree(pair.backup)
        for number in range(40):
            (data / f"while-away-{number}").write_bytes(os.urandom(20_000))
        (data / "one.txt").write_text("changed on the backup")
        written = contents(data)
        before = len(pair.primary.spans())
        pair.primary.start()
        for number in range(kills):
            pair.wait_for(lambda: is_copying(pair.primary), "the resync going on")
            time.sleep(chance.uniform(0, 0.6))
            if pair.primary.status().get("role") == "active":
                break
            assert len(pair.primary.spans()) == before
            victim = chance.choice(pair.nodes)
            if number % 3 == 0:
                kill_worker(victim)
            else:
                victim.kill()
                victim.start()
        pair.wait_for(lambda: pair.primary.status().get("role") == "active", "the switchback")
        pair.wait_in_order()
        pair.wait_in_sync()
        assert contents(data) == written
        assert pair.overlap_ns() == 0
        assert not sentences(pair.primary, "conflict")


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_d9_what_was_acknowledged_survives_the_death_of_everything(tmp_path: Path, rounds: int) -> None:
    with running_tree_pair(tmp_path) as pair:
        for number in range(rounds):
            active = next(node for node in pair.nodes if node.status().get("role") == "active")
            other = pair.other(active)
            name = f"acknowledged-{number}"
            (pair.tree(active) / name).write_bytes(b"%d" % number * 5_000)
            pair.wait_for((pair.tree(other) / name).exists, "what was written last")
            pair.wait_for(lambda node=active: in_sync(node), "it is acknowledged")
            for node in pair.nodes:
                kill_worker(node)
                node.kill()
            for each in range(number + 1):
                assert (pair.tree(other) / f"acknowledged-{each}").read_bytes() == b"%d" % each * 5_000
            other.start()
            if number < rounds - 1:
                pair.wait_active(other)
            active.start()
            pair.wait_in_order()
            pair.wait_in_sync()
        assert pair.overlap_ns() == 0


def generation(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.glob("generation-*")}


def write_generation(folder: Path, number: int) -> None:
    for each in range(GENERATION_FILES):
        (folder / f"generation-{each:03}").write_text(f"{number} " + "x" * 200)


@pytest.mark.parametrize(("rounds", "seed"), walks(2, 12))
def test_d11_a_config_tree_is_wholly_old_or_new_whenever_its_agent_is_killed(
    tmp_path: Path, rounds: int, seed: int
) -> None:
    chance = seeded(seed)
    pair = TreePair(tmp_path, workload=KEEPER)
    write_generation(pair.tree(pair.primary, "flows"), 0)
    halves = 0
    try:
        pair.start()
        for number in range(1, rounds + 1):
            # A backup that did not follow the present term yet would be half way between two states, and say so.
            pair.wait_for(lambda: len({record_of(node).data_term for node in pair.nodes}) == 1, "the same term")
            pair.backup.kill()
            wait_worker_gone(pair.backup)
            write_generation(pair.tree(pair.primary, "flows"), number)
            flows = pair.tree(pair.backup, "flows")
            new = f"{number} " + "x" * 200
            looked_at = flows / f"generation-{chance.randrange(GENERATION_FILES):03}"
            pair.backup.start()
            pair.wait_for(one_of(looked_at, new), "the new generation coming")
            pair.backup.kill()
            wait_worker_gone(pair.backup)
            if len(generation(flows)) > 1:
                halves += 1
                assert journalled(pair.backup) == ["flows"]
            pair.primary.kill()
            wait_worker_gone(pair.primary)
            pair.backup.start()
            pair.wait_active(pair.backup)  # what was acknowledged or journalled is whole before a workload starts
            pair.primary.start()
            pair.wait_in_order()
            pair.wait_in_sync()
        assert all(len(each["generations"]) == 1 for node in pair.nodes for each in notes(node) if not each["ended"])
        print(f"killed in the middle of an apply {halves} times of {rounds}")
    finally:
        pair.close()


def one_of(path: Path, text: str) -> Callable[[], bool]:
    return lambda: path.read_text() == text


def journalled(node: Node) -> list[str]:
    """Returns the trees whose journal has to be carried out; the node's worker must not run."""
    index = Index(node.directory / "state" / "replica" / "index.db")
    try:
        return index.applying_trees()
    finally:
        index.close()
