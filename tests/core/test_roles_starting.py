"""How a node begins, in each mode, and what initial standby ends with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.vocabulary import Mode, Role, TimeoutPolicy
from tests.core.role_scene import BACKUP_RECORD, INITIAL_STANDBY_S, PRIMARY_RECORD, TAKEOVER_S, Scene

OUTDATED = replace(PRIMARY_RECORD, term=2, active_term=1, peer_active_term=2)
DAMAGED = replace(PRIMARY_RECORD, damaged=True)


def test_a_stand_alone_node_is_active_at_once_and_stores_its_term_first() -> None:
    scene = Scene(Mode.STAND_ALONE)
    assert scene.tell(told.Started()) == ["store", "start in term 2"]
    assert scene.roles.role is Role.ACTIVE


def test_a_primary_waits_in_initial_standby_and_starts_nothing() -> None:
    scene = Scene(Mode.PRIMARY)
    assert "start" not in " ".join(scene.tell(told.Started()))
    assert scene.roles.role is Role.INITIAL_STANDBY


def test_a_backup_begins_on_standby() -> None:
    assert Scene(Mode.BACKUP).started().roles.role is Role.STANDBY


def test_a_primary_becomes_active_when_the_backup_connects_and_holds_nothing_newer() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked()
    scene.reported(Role.STANDBY)
    assert scene.phase is Phase.ACTIVE


def test_a_primary_catches_up_first_when_the_backup_was_active_last() -> None:
    scene = Scene(Mode.PRIMARY, replace(PRIMARY_RECORD, term=1, active_term=1)).started()
    scene.linked(Role.STANDBY, active_term=2)
    scene.reported(Role.STANDBY, active_term=2)
    assert scene.phase is Phase.CATCHING_UP
    assert scene.roles.role is Role.INITIAL_STANDBY
    assert "start in term 3" in scene.caught_up()


def test_a_primary_beside_an_active_backup_catches_up_asks_and_starts_only_when_it_is_given_the_role() -> None:
    scene = Scene(Mode.PRIMARY, replace(PRIMARY_RECORD, term=1, active_term=1)).started()
    scene.linked(Role.ACTIVE, active_term=2)
    scene.reported(Role.ACTIVE, active_term=2)
    assert scene.phase is Phase.CATCHING_UP
    assert scene.caught_up() == ["tell request"]
    assert scene.phase is Phase.REQUESTING


@pytest.mark.parametrize(
    ("policy", "record", "activates"),
    [
        (TimeoutPolicy.ACTIVATE, PRIMARY_RECORD, True),
        (TimeoutPolicy.ACTIVATE, OUTDATED, True),
        (TimeoutPolicy.WAIT, PRIMARY_RECORD, False),
        (TimeoutPolicy.WAIT, OUTDATED, False),
        (TimeoutPolicy.WAIT_IF_OUTDATED, PRIMARY_RECORD, True),
        (TimeoutPolicy.WAIT_IF_OUTDATED, OUTDATED, False),
        (TimeoutPolicy.WAIT_IF_OUTDATED, replace(PRIMARY_RECORD, active_term=1, released=True), False),
        (TimeoutPolicy.ACTIVATE, DAMAGED, False),
    ],
)
def test_when_nobody_connects_in_time_the_policy_decides(
    policy: TimeoutPolicy, record: Record, activates: bool
) -> None:
    scene = Scene(Mode.PRIMARY, record, policy).started()
    assert scene.after(INITIAL_STANDBY_S - 0.1) == []
    scene.after(0.2)
    assert (scene.phase is Phase.ACTIVE) == activates
    assert scene.phase in (Phase.ACTIVE, Phase.AWAITING_PEER)


def test_a_primary_that_activates_without_resync_says_so_loudly() -> None:
    scene = Scene(Mode.PRIMARY, OUTDATED).started()
    scene.after(INITIAL_STANDBY_S)
    assert "activated-without-resync" in scene.announced


def test_initial_standby_is_never_cut_short_while_the_backup_is_connected() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, active_term=2)
    scene.reported(Role.ACTIVE, active_term=2)
    assert scene.after(100 * INITIAL_STANDBY_S) == []
    assert scene.phase is Phase.CATCHING_UP


def test_a_backup_that_cannot_reach_the_primary_takes_over_after_its_connection_timeout() -> None:
    scene = Scene(Mode.BACKUP).started()
    assert scene.after(TAKEOVER_S - 0.1) == []
    assert "start in term 2" in scene.after(0.2)


def test_a_backup_that_was_never_paired_does_not_take_over_and_says_so_once() -> None:
    scene = Scene(Mode.BACKUP, Record(mode="backup")).started()
    scene.after(TAKEOVER_S)
    assert scene.phase is Phase.STANDBY
    assert scene.announced == ["not-eligible"]
    assert "never connected" in scene.roles.report.obstacle
    scene.tell(told.PeerProvenGone())
    assert scene.phase is Phase.STANDBY


def test_a_node_whose_record_was_lost_waits_for_the_other_nodes_term_and_goes_above_it() -> None:
    scene = Scene(Mode.PRIMARY, Record(mode="primary", term_lane=1, damaged=True)).started()
    scene.after(INITIAL_STANDBY_S)
    assert scene.phase is Phase.AWAITING_PEER
    scene.linked(Role.STANDBY, active_term=8)
    scene.reported(Role.STANDBY, active_term=8)
    scene.caught_up()
    assert scene.phase is Phase.ACTIVE
    assert scene.roles.record.term > 8
    assert not scene.roles.record.damaged


def test_an_operator_can_force_a_node_whose_record_was_lost() -> None:
    scene = Scene(Mode.PRIMARY, DAMAGED, force=True)
    scene.tell(told.Started())
    assert scene.phase is Phase.ACTIVE
    assert not scene.roles.record.damaged


def test_a_change_of_mode_ends_a_hold() -> None:
    scene = Scene(Mode.PRIMARY, replace(BACKUP_RECORD, hold=True)).started()
    assert scene.roles.record.mode == "primary"
    assert not scene.roles.record.hold


@pytest.mark.parametrize("lane", [0, 1])
def test_terms_stay_in_the_nodes_lane_and_only_grow(lane: int) -> None:
    scene = Scene(Mode.STAND_ALONE, Record(mode="stand-alone", term=10 + lane, term_lane=lane))
    scene.tell(told.Started())
    assert scene.roles.record.active_term == 12 + lane


def test_a_backup_with_the_primarys_lane_takes_the_other_one() -> None:
    scene = Scene(Mode.BACKUP, replace(BACKUP_RECORD, term_lane=1)).started()
    scene.linked(Role.ACTIVE, active_term=1)
    assert scene.roles.record.term_lane == 0


def test_what_is_stored_comes_before_what_is_said_and_done() -> None:
    scene = Scene(Mode.STAND_ALONE)
    scene.tell(told.Started())
    kinds = [type(effect) for effect in scene.done]
    assert kinds[:2] == [do.Store, do.Publish]
    assert kinds[-1] is do.StartWorkload
