"""Trees of a real pair on a wire that fails as networks do; the names tell the rows of FAULTS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.pair import Node
from tests.real.tree_pair import TreePair, archived, contents, in_sync, seeded, sentences, walks
from tests.real.wire import Wire, a_wire

pytestmark = pytest.mark.netns


@pytest.fixture
def wire() -> Iterator[Wire]:
    with a_wire() as made:
        yield made


def pair_on(wire: Wire, directory: Path, **options: Any) -> TreePair:
    """Not started."""
    return TreePair(directory, host=wire.address_a, namespaces=wire.namespaces, **options)


def role_changes(node: Node) -> list[str]:
    return sentences(node, "role-changed")


def test_d5_after_a_partition_the_primarys_version_stands_and_the_others_is_in_the_archive(
    wire: Wire, tmp_path: Path
) -> None:
    pair = pair_on(wire, tmp_path)
    try:
        pair.start()
        wire.both(loss=1.0)
        pair.wait_active(pair.backup)
        assert pair.primary.status()["role"] == "active"  # a true partition, and no witness
        for node in pair.nodes:
            data = pair.tree(node)
            (data / "one.txt").write_text(f"written on {node.name}")
            (data / f"only-on-{node.name}").write_text(node.name)
        (pair.tree(pair.backup) / "sub" / "two.bin").unlink()
        for node in pair.nodes:
            pair.wait_for(lambda node=node: node.status()["trees"][0]["lag_ms"] is None, "the trees are on their own")
        wire.both(loss=0.0)
        pair.wait_in_order()
        pair.wait_in_sync()
        assert (pair.tree(pair.primary) / "one.txt").read_text() == "written on line-4-a"
        assert (pair.tree(pair.primary) / "only-on-line-4-a").exists()
        assert (pair.tree(pair.primary) / "sub" / "two.bin").stat().st_size == 300_000
        assert archived(pair.backup, "data/one.txt") == [b"written on line-4-b"]
        only = pair.tree(pair.primary) / "only-on-line-4-b"
        assert only.exists() or archived(pair.backup, "data/only-on-line-4-b") == [b"line-4-b"]
        assert "one.txt" in " ".join(sentences(pair.backup, "conflict"))
        assert pair.backup.status()["archive"]["conflicts"] >= 1
        assert sentences(pair.backup, "both-active")
    finally:
        pair.close()


def test_n8_ten_kilobytes_a_second_carry_a_resync_and_default_heartbeats(wire: Wire, tmp_path: Path) -> None:
    pair = pair_on(wire, tmp_path, interval_ms=1_000, timeout_ms=5_000)
    (pair.tree(pair.primary) / "sub" / "two.bin").write_bytes(os.urandom(60_000))
    try:
        wire.both(bytes_per_s=10_000)
        for node in pair.nodes:
            node.start()
        pair.wait_active(pair.primary)
        changes = [role_changes(node) for node in pair.nodes]
        downs = [sentences(node, "link-down") for node in pair.nodes]
        (pair.tree(pair.primary) / "big").write_bytes(os.urandom(50_000))
        pair.wait_for(lambda: (pair.tree(pair.backup) / "big").exists(), "the last file", bound_s=120)
        pair.wait_in_sync()
        assert [role_changes(node) for node in pair.nodes] == changes
        assert [sentences(node, "link-down") for node in pair.nodes] == downs
    finally:
        pair.close()


@pytest.mark.long
def test_n8_a_network_that_becomes_slow_in_the_middle_of_a_resync_delays_no_heartbeat(
    wire: Wire, tmp_path: Path
) -> None:
    pair = pair_on(wire, tmp_path, interval_ms=1_000, timeout_ms=5_000)
    (pair.tree(pair.primary) / "sub" / "two.bin").write_bytes(os.urandom(20_000_000))
    try:
        for node in pair.nodes:
            node.start()
        pair.wait_for(lambda: wire.to_b.carried > 5_000_000, "the copy going on")
        changes = [role_changes(node) for node in pair.nodes]
        wire.both(bytes_per_s=10_000)
        time.sleep(20)
        assert [role_changes(node) for node in pair.nodes] == changes
        wire.both(bytes_per_s=None)
        pair.wait_in_sync()
    finally:
        pair.close()


def test_n9_a_transfer_reset_in_the_middle_goes_on_where_it_was(wire: Wire, tmp_path: Path) -> None:
    size, resets, chance = 6_000_000, 3, seeded(7)
    pair = pair_on(wire, tmp_path, rate_kb=1_500)
    try:
        pair.start()
        carried = wire.to_b.carried
        (pair.tree(pair.primary) / "big").write_bytes(os.urandom(size))
        for number in range(resets):
            pair.wait_for(
                lambda number=number: wire.to_b.carried - carried > (number + 1) * size / (resets + 1), "a part of it"
            )
            pair.break_connection(pair.backup)
            time.sleep(chance.uniform(0, 0.2))
        pair.wait_for(lambda: (pair.tree(pair.backup) / "big").exists(), "the file")
        pair.wait_in_sync()
        assert wire.to_b.carried - carried < 2 * size
        assert not sentences(pair.backup, "archived") + sentences(pair.backup, "conflict")
        assert not list(pair.tree(pair.backup).glob(".pair-agent/staging/*"))
        assert pair.primary.status()["role"] == "active"
        assert not pair.backup.spans()
    finally:
        pair.close()


@pytest.mark.parametrize(("cuts", "seed"), walks(4, 20))
def test_n14_a_wire_cut_at_random_moments_of_a_switchback_loses_nothing(
    wire: Wire, tmp_path: Path, cuts: int, seed: int
) -> None:
    """Cut for less and for more than the timeout: what the backup wrote last is there, or in an archive."""
    chance = seeded(seed)
    pair = pair_on(wire, tmp_path, rate_kb=300)
    written: dict[str, bytes] = {}
    try:
        pair.start()
        while cuts > 0:
            pair.primary.kill()
            pair.wait_active(pair.backup)
            name, state = f"state-{cuts}", os.urandom(200_000)
            (pair.tree(pair.backup) / name).write_bytes(state)
            written[name] = state
            pair.primary.start()
            pair.wait_for(lambda: pair.primary.status().get("link", {}).get("state") == "up", "the link")
            for _ in range(2):
                time.sleep(chance.uniform(0, 1.0))
                wire.both(loss=1.0)
                time.sleep(chance.choice((0.1, 0.5, 2.0)))
                wire.both(loss=0.0)
                cuts -= 1
            pair.wait_for(
                lambda: sorted(node.status().get("role", "") for node in pair.nodes) == ["active", "standby"],
                "exactly one goes on",
            )
            pair.wait_in_order()
        pair.wait_for(lambda: all(in_sync(node) for node in pair.nodes), "in sync")
        pair.wait_in_sync()
        here = contents(pair.tree(pair.primary))
        for name, state in written.items():
            kept = [version for node in pair.nodes for version in archived(node, f"data/{name}")]
            assert here.get(name) == state or state in kept, name
    finally:
        pair.close()
