"""A real pair in two network namespaces, on a wire that fails as networks do; the names tell the rows of FAULTS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.pair import Node, running_pair
from tests.real.wire import Wire, a_wire

pytestmark = pytest.mark.netns


@pytest.fixture
def wire() -> Iterator[Wire]:
    with a_wire() as made:
        yield made


def pair_on(wire: Wire, directory: Path, **options: Any) -> Any:
    return running_pair(directory, host=wire.address_a, namespaces=wire.namespaces, **options)


def role_changes(node: Node) -> int:
    return sum(event["code"] == "role-changed" for event in node.events())


def codes(node: Node) -> list[str]:
    return [event["code"] for event in node.events()]


def test_n1_black_hole_brings_one_takeover_and_is_repaired_when_it_heals(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path) as pair:
        wire.both(loss=1.0)
        pair.wait_active(pair.backup)
        assert pair.primary.status()["role"] == "active"  # a true partition, and no witness
        wire.both(loss=0.0)
        pair.wait_in_order()
        assert "both-active" in codes(pair.backup)
        assert sum("takeover" in event["sentence"] for event in pair.backup.events()) == 1


def test_n4_partition_of_43_s_is_repaired_when_it_heals(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path, interval_ms=1_000, timeout_ms=5_000) as pair:
        wire.both(loss=1.0)
        time.sleep(43)
        assert pair.backup.status()["role"] == "active"
        wire.both(loss=0.0)
        pair.wait_in_order()


@pytest.mark.parametrize("lost", ["to_a", "to_b"])
def test_n2_n3_one_way_loss_leaves_no_lasting_double_active(wire: Wire, tmp_path: Path, lost: str) -> None:
    with pair_on(wire, tmp_path) as pair:
        time.sleep(0.5)  # the first beacons are exchanged
        getattr(wire, lost).loss = 1.0
        pair.wait_for(lambda: pair.backup.status()["link"]["state"] == "down", "the loss noticed")
        time.sleep(5)  # as long as five timeouts
        assert [node.status()["role"] for node in pair.nodes].count("active") == 1
        getattr(wire, lost).loss = 0.0
        pair.wait_in_order()


def test_n5_flapping_link_changes_roles_a_bounded_number_of_times(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path, interval_ms=100, timeout_ms=500) as pair:
        for _ in range(15):
            wire.both(loss=1.0)
            time.sleep(2)
            wire.both(loss=0.0)
            time.sleep(2)
        assert role_changes(pair.primary) <= 4
        assert role_changes(pair.backup) <= 24
        assert "takeover-damped" in codes(pair.backup)
        pair.wait_for(lambda: pair.backup.status()["link"]["state"] == "up", "the link")
        assert [node.status()["role"] for node in pair.nodes] == ["active", "standby"]
        assert "too many role changes" in " ".join(
            pair.primary.status()["readiness"]["reasons"] + pair.backup.status()["readiness"]["reasons"]
        )


def test_n6_thirty_percent_loss_brings_no_takeover_at_default_timers(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path, interval_ms=1_000, timeout_ms=5_000) as pair:
        before = [role_changes(node) for node in pair.nodes]
        wire.both(loss=0.3)
        time.sleep(30)
        wire.both(loss=0.0)
        assert [role_changes(node) for node in pair.nodes] == before
        assert pair.backup.status()["link"]["state"] == "up"


def test_n7_latency_near_the_timeout_brings_no_takeover(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path, interval_ms=200, timeout_ms=1_000) as pair:
        before = [role_changes(node) for node in pair.nodes]
        for step in range(1, 10):
            wire.both(delay_s=0.1 * step)
            time.sleep(0.5)
        time.sleep(5)
        assert [role_changes(node) for node in pair.nodes] == before
        assert pair.backup.status()["link"]["rtt_ms"] > 500


def test_n8_ten_kilobytes_a_second_carry_default_heartbeats(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path, interval_ms=1_000, timeout_ms=5_000) as pair:
        before = [role_changes(node) for node in pair.nodes]
        wire.both(bytes_per_s=10_000.0)
        time.sleep(15)
        assert [role_changes(node) for node in pair.nodes] == before


def test_n13_forgotten_flow_is_reconnected_without_a_role_change(wire: Wire, tmp_path: Path) -> None:
    """The flow is dead for both ends, as after a NAT forgot it; a new connection gets through at once."""
    with pair_on(wire, tmp_path) as pair:
        before = [role_changes(node) for node in pair.nodes]
        pair.break_connection(pair.backup)
        pair.wait_for(lambda: codes(pair.backup).count("link-up") == 2, "a new link")
        pair.wait_in_order()
        assert [role_changes(node) for node in pair.nodes] == before


def test_p1_both_agents_of_a_cut_pair_are_told_apart_by_their_terms(wire: Wire, tmp_path: Path) -> None:
    with pair_on(wire, tmp_path) as pair:
        wire.both(loss=1.0)
        pair.wait_active(pair.backup)
        terms = [node.status()["term"] for node in pair.nodes]
        assert terms[0] % 2 != terms[1] % 2
