"""Rows of the list of faults, each struck on purpose at many instants."""

from __future__ import annotations

import pytest

from agent.core import inputs as told
from agent.core.role_table import Phase
from agent.core.vocabulary import Mode
from tests.simulation.simulated_network import End
from tests.simulation.simulated_node import BACKUP, PRIMARY, Node, NodeConfig
from tests.simulation.simulator import SimulatedPair
from tests.simulation.timeline import MILLISECOND, SECOND

pytestmark = pytest.mark.usefixtures("simulated_edge")

BOTH = frozenset({PRIMARY, BACKUP})
SEEDS = range(5)
TAKEOVER_NS = NodeConfig().takeover_ns


def settled(seed: int = 1) -> SimulatedPair:
    return SimulatedPair(seed).settle()


def active_node(pair: SimulatedPair) -> Node:
    assert pair.active is not None
    return pair.active


@pytest.mark.parametrize("seed", SEEDS)
def test_n1_black_hole_both_ways_brings_one_takeover_within_the_deadline(seed: int) -> None:
    pair = settled(seed)
    pair.network.block(BOTH)
    assert pair.timeline.run_until(lambda: pair.backup.running is not None, TAKEOVER_NS + SECOND)
    assert not pair.timeline.run_until(lambda: pair.activations > 2, 600 * SECOND)
    pair.mend()
    pair.require_home()
    assert pair.active is pair.primary


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("unheard", [PRIMARY, BACKUP], ids=["n2", "n3"])
def test_n2_n3_loss_one_way_leaves_no_lasting_double_active(unheard: int, seed: int) -> None:
    pair = settled(seed)
    pair.network.block(frozenset({unheard}))
    pair.timeline.run_for(60 * SECOND)
    assert [node.running is not None for node in pair.nodes].count(True) == 1
    assert active_node(pair) is (pair.backup if unheard == PRIMARY else pair.primary)
    pair.mend()
    pair.require_home()


@pytest.mark.parametrize("seed", SEEDS)
def test_n4_43_seconds_of_partition_are_repaired(seed: int) -> None:
    pair = settled(seed)
    pair.network.block(BOTH)
    pair.timeline.run_for(43 * SECOND)
    assert pair.overlaps == 1
    pair.mend()
    pair.require_home()
    assert pair.active is pair.primary
    assert pair.record_of(PRIMARY).peer_active_term == pair.record_of(BACKUP).active_term


@pytest.mark.parametrize("cut", ["partition", "reset"])
def test_n5_flapping_for_10_minutes_is_damped(cut: str) -> None:
    pair = SimulatedPair(5, NodeConfig(interval_ms=200, timeout_ms=1000, connection_timeout_ms=1000)).settle()
    for _ in range(150):
        if cut == "partition":
            pair.network.block(BOTH)
        for stream in list(pair.network.streams):
            stream.cut()
        pair.timeline.run_for(2 * SECOND)
        pair.network.block(frozenset())
        pair.excuse()
        pair.timeline.run_for(2 * SECOND)
    assert pair.activations <= 24
    pair.mend()
    pair.require_home(900 * SECOND)


@pytest.mark.parametrize("seed", SEEDS)
def test_n6_30_percent_loss_is_no_takeover(seed: int) -> None:
    pair = settled(seed)
    pair.network.loss = 0.3
    pair.timeline.run_for(60 * SECOND)
    assert (pair.activations, pair.active) == (1, pair.primary)


@pytest.mark.parametrize("seed", SEEDS)
def test_n7_latency_at_nine_tenths_of_the_timeout_is_no_takeover(seed: int) -> None:
    pair = SimulatedPair(seed, NodeConfig(initial_standby_ms=60_000)).settle()
    pair.network.latency_ns = TAKEOVER_NS * 9 // 10 - SECOND  # a steady latency only shifts; its rise costs once
    pair.timeline.run_for(120 * SECOND)
    assert (pair.activations, pair.active) == (1, pair.primary)


@pytest.mark.parametrize("byte", range(0, 120, 3))
def test_n9_reset_in_the_middle_of_a_frame_costs_nothing(byte: int) -> None:
    pair = settled(byte)
    for end in pair.network.streams[0].ends:
        end.cut_after_bytes = end.sent_bytes + 1 + byte
    pair.timeline.run_for(4 * SECOND)
    pair.require_home()
    assert (pair.activations, pair.active) == (1, pair.primary)


@pytest.mark.parametrize("chunk_bytes", [1, 3])
def test_n11_one_byte_at_a_time_has_the_same_result(chunk_bytes: int) -> None:
    pair = SimulatedPair(11)
    pair.network.chunk_bytes_max = chunk_bytes
    pair.settle()
    pair.primary.order(told.FailoverOrdered())
    pair.timeline.run_for(5 * SECOND)
    pair.require_home()
    assert (pair.activations, pair.active, pair.overlaps) == (2, pair.backup, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_n13_a_forgotten_flow_that_is_answered_with_a_reset_is_no_role_change(seed: int) -> None:
    pair = settled(seed)
    pair.timeline.run_for(20 * SECOND)
    for stream in list(pair.network.streams):
        stream.cut()
    pair.timeline.run_for(30 * SECOND)
    pair.require_home()
    assert (pair.activations, pair.active) == (1, pair.primary)


@pytest.mark.parametrize("seed", SEEDS)
def test_n13_a_flow_forgotten_without_a_word_is_repaired(seed: int) -> None:
    pair = settled(seed)
    pair.network.forget_flows()
    pair.excuse(TAKEOVER_NS)
    pair.timeline.run_for(30 * SECOND)
    pair.require_home()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [False, True], ids=["agent", "node"])
def test_p1_an_active_node_that_was_frozen_stops_before_anything_else(whole: bool, seed: int) -> None:
    pair = settled(seed)
    pair.primary.freeze(whole=whole)
    pair.timeline.run_for(3 * TAKEOVER_NS)
    assert pair.backup.running is not None
    pair.primary.thaw()
    pair.timeline.run_for(SECOND)
    pair.require_home()
    assert pair.overlaps == 0


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("at", [PRIMARY, BACKUP])
def test_p2_a_wall_clock_that_jumps_changes_no_role(at: int, hours: int) -> None:
    pair = settled()
    pair.nodes[at].clock.wall_offset_ms += hours * 3_600_000
    pair.timeline.run_for(60 * SECOND)
    assert (pair.activations, pair.at_home) == (1, True)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("at", [PRIMARY, BACKUP])
def test_p3_an_agent_that_stalls_for_3_seconds_condemns_nobody(at: int, seed: int) -> None:
    pair = settled(seed)
    pair.timeline.run_for(pair.timeline.between(0, 2 * SECOND))
    pair.nodes[at].freeze(whole=False)
    pair.timeline.run_for(3 * SECOND)
    pair.nodes[at].thaw()
    pair.timeline.run_for(20 * SECOND)
    assert (pair.activations, pair.at_home) == (1, True)


@pytest.mark.parametrize("seed", range(20))
def test_p9_both_boot_at_the_same_moment_and_the_primary_is_active(seed: int) -> None:
    pair = settled(seed)
    for _ in range(2):
        for node in pair.nodes:
            node.lose_power()
        for node in pair.nodes:
            pair.timeline.after(pair.timeline.between(0, 20 * MILLISECOND), node.boot)
        pair.timeline.run_for(SECOND // 10)
        pair.require_home()
    assert pair.active is pair.primary
    assert (pair.activations, pair.overlaps) == (3, 0)


@pytest.mark.parametrize("tenths", range(1, 80, 4))
def test_p11_the_primary_back_inside_the_detection_window_leaves_one_active(tenths: int) -> None:
    pair = settled(tenths)
    pair.primary.lose_power()
    pair.timeline.run_for(tenths * SECOND // 10)
    pair.primary.boot()
    pair.timeline.run_for(SECOND)
    pair.require_home()
    assert pair.active is pair.primary
    assert pair.overlaps == 0


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("at", [PRIMARY, BACKUP])
def test_p12_an_agent_stopped_or_killed_at_any_step_of_its_start_leaves_one_active(at: int, step: int) -> None:
    for kill in (False, True):
        pair = SimulatedPair(step)
        node = pair.nodes[at]
        pair.nodes[1 - at].boot()
        pair.timeline.run_for(pair.timeline.between(0, 2 * SECOND))
        node.boot()
        assert node.agent is not None
        if kill:
            node.agent.crash_after = step
            pair.timeline.run_for(5 * SECOND)
        else:
            pair.timeline.run_for(step * MILLISECOND)
            node.order(told.StopOrdered())
            pair.timeline.run_for(20 * SECOND)
            assert node.agent is None
        pair.mend()
        pair.require_home()
        assert pair.overlaps == 0


@pytest.mark.parametrize("step", range(14))
@pytest.mark.parametrize("at", [PRIMARY, BACKUP])
def test_p12_a_handover_killed_between_any_two_steps_leaves_one_active(at: int, step: int) -> None:
    for power in (False, True):
        pair = settled(step)
        node = pair.nodes[at]
        assert node.agent is not None
        node.agent.crash_after = step
        pair.primary.order(told.FailoverOrdered())
        pair.timeline.run_for(SECOND)
        if power:
            node.lose_power()
        pair.timeline.run_for(30 * SECOND)
        assert any(each.running is not None for each in pair.nodes)
        pair.mend()
        pair.require_home()
        assert pair.overlaps == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_s7_a_second_connection_of_the_peer_replaces_the_first_without_a_role_change(seed: int) -> None:
    pair = settled(seed)
    backup = pair.backup.agent
    assert backup is not None
    before = backup.keeper.link

    def take(end: End) -> None:
        backup.soon(lambda: backup.serve(end, lambda _: None, dialled=True))

    pair.connect(
        lambda: True,
        lambda outcome: None,
        take,
    )
    pair.timeline.run_for(20 * SECOND)
    assert backup.keeper.link is not before
    primary = pair.primary.agent
    assert primary is not None
    assert primary.keeper.link is not None
    assert backup.keeper.link is not None
    assert primary.keeper.link.address == backup.keeper.link.address
    assert (pair.activations, pair.at_home) == (1, True)


def cut_at(byte: int, sender: int, *, handover: bool) -> SimulatedPair:
    """Resets the connection when one side has sent so many bytes of the greeting, or of a handover."""
    pair = SimulatedPair(byte)
    for node in pair.nodes:
        node.boot()
    pair.timeline.run_until(lambda: bool(pair.network.streams), 10 * SECOND)
    if handover:
        pair.require_home()
    end = pair.network.streams[0].ends[sender]
    end.cut_after_bytes = end.sent_bytes + byte
    if handover:
        pair.backup.order(told.FailoverOrdered())
    pair.timeline.run_for(10 * SECOND)
    pair.require_home()
    assert pair.overlaps == 0
    return pair


@pytest.mark.parametrize("handover", [False, True], ids=["greeting", "handover"])
@pytest.mark.parametrize("sender", [PRIMARY, BACKUP])
def test_n14_a_link_that_dies_at_some_bytes_leaves_exactly_one_going_on(sender: int, handover: bool) -> None:
    for byte in range(1, 1000, 31):
        cut_at(byte, sender, handover=handover)


@pytest.mark.long
@pytest.mark.parametrize("handover", [False, True], ids=["greeting", "handover"])
@pytest.mark.parametrize("sender", [PRIMARY, BACKUP])
def test_n14_a_link_that_dies_at_every_byte_leaves_exactly_one_going_on(sender: int, handover: bool) -> None:
    for byte in range(1, 1600):
        cut_at(byte, sender, handover=handover)


@pytest.mark.parametrize("seed", range(20))
def test_planned_moves_there_and_back_never_overlap(seed: int) -> None:
    pair = settled(seed)
    for order, mode in ((told.FailoverOrdered(), Mode.BACKUP), (told.FailbackOrdered(), Mode.PRIMARY)) * 2:
        pair.timeline.random.choice(pair.nodes).order(order)
        pair.timeline.run_for(SECOND // 10)
        pair.require_home()
        assert active_node(pair).settings.mode is mode
    assert (pair.activations, pair.overlaps) == (5, 0)


def test_a_planned_stop_hands_over_and_the_primary_takes_back() -> None:
    pair = settled()
    pair.primary.order(told.StopOrdered())
    assert pair.timeline.run_until(lambda: pair.backup.running is not None, 10 * SECOND)
    pair.primary.boot()
    pair.timeline.run_for(20 * SECOND)
    assert pair.at_home
    assert active_node(pair) is pair.primary
    assert pair.backup.agent is not None
    assert pair.backup.agent.roles.phase is Phase.STANDBY
    assert pair.overlaps == 0
