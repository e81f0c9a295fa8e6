"""What a node on standby does without the active one, and an active one when it is not alone after all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import inputs as told
from agent.core.damping import FREE_ACTIVATIONS, WINDOW_NS
from agent.core.inputs import LinkLoss
from agent.core.role_table import Phase
from agent.core.vocabulary import Mode, Role
from tests.core.role_scene import (
    BACKUP_RECORD,
    SECOND,
    TAKEOVER_S,
    Scene,
    active_backup,
    active_primary,
    standby_backup,
    standby_primary,
)


def test_a_backup_takes_over_at_once_when_the_primarys_port_refuses() -> None:
    scene = standby_backup()
    assert "start in term 2" not in scene.lost(LinkLoss.CLOSED)
    assert "start in term 2" in scene.tell(told.PeerProvenGone())


def test_a_backup_takes_over_at_once_when_the_primary_says_goodbye() -> None:
    assert standby_backup().lost(LinkLoss.GOODBYE) == ["store", "start in term 2"]


def test_a_backup_takes_over_when_the_primary_was_silent_for_the_whole_time() -> None:
    assert "start in term 2" in standby_backup().lost(LinkLoss.SILENCE, heard_s_ago=TAKEOVER_S)


def test_a_connection_that_closes_without_a_word_is_waited_for_before_the_takeover() -> None:
    scene = standby_backup()
    scene.lost(LinkLoss.CLOSED)
    assert scene.after(TAKEOVER_S - 0.1) == []
    assert "start in term 2" in scene.after(0.2)


def test_a_link_that_comes_back_in_time_ends_the_waiting() -> None:
    scene = standby_backup()
    scene.lost(LinkLoss.CLOSED)
    scene.after(TAKEOVER_S - 0.1)
    scene.linked(Role.ACTIVE, 1)
    assert scene.after(1000) == []
    assert scene.phase is Phase.STANDBY


def test_a_peer_that_refuses_the_link_lives_and_is_not_taken_over_from() -> None:
    scene = standby_backup()
    scene.lost(LinkLoss.REFUSED)
    for _ in range(20):
        scene.after(TAKEOVER_S - 1)
        scene.tell(told.ContactRefused("its certificate is not trusted"))
    assert scene.phase is Phase.STANDBY


def test_proof_that_comes_when_the_link_is_back_counts_no_more() -> None:
    scene = standby_backup()
    assert scene.tell(told.PeerProvenGone()) == []


def test_a_primary_on_standby_takes_over_from_the_backup_too() -> None:
    scene = standby_primary()
    scene.lost(LinkLoss.CLOSED)
    assert "start in term 3" in scene.after(TAKEOVER_S)


def test_an_active_node_stays_active_when_the_link_is_lost() -> None:
    for loss in LinkLoss:
        scene = active_primary()
        assert scene.lost(loss) == []
        assert scene.phase is Phase.ACTIVE


def test_when_both_are_active_the_backup_steps_down_and_the_primary_stays() -> None:
    backup, primary = active_backup(), active_primary()
    assert "stop" in backup.linked(Role.ACTIVE, 1)
    assert "both-active" in backup.announced
    primary.lost(LinkLoss.SILENCE)
    primary.linked(Role.ACTIVE, 2)
    assert primary.phase is Phase.ACTIVE
    assert "both-active" in primary.announced


def test_a_backup_that_stepped_down_waits_beside_the_active_primary() -> None:
    scene = active_backup()
    scene.linked(Role.ACTIVE, 1)
    scene.tell(told.WorkloadEnded())
    assert scene.phase is Phase.STANDBY
    assert scene.roles.record.released


def test_a_node_that_was_frozen_stops_its_workload_before_anything_else() -> None:
    scene = active_primary()
    assert scene.tell(told.Frozen("it did not run for 9 s"))[0] == "stop"
    assert "drop link" in scene.lines()
    assert scene.tell(told.WorkloadEnded()) == []
    assert scene.phase is Phase.AWAITING_PEER


def test_a_primary_that_was_frozen_goes_on_when_the_backup_did_not_take_over() -> None:
    scene = active_primary()
    scene.tell(told.Frozen("it did not run for 9 s"), told.WorkloadEnded())
    scene.linked(Role.STANDBY)
    scene.reported(Role.STANDBY)
    assert scene.phase is Phase.ACTIVE
    assert scene.roles.record.active_term == 3


def test_a_stand_alone_node_does_not_mind_a_freeze() -> None:
    scene = Scene(Mode.STAND_ALONE).started()
    assert scene.tell(told.Frozen("it did not run for 9 s")) == []


def test_maintenance_forbids_the_takeover_and_its_end_allows_it() -> None:
    scene = Scene(Mode.BACKUP, replace(BACKUP_RECORD, term=1, peer_active_term=1, maintenance=True)).started()
    scene.after(100)
    assert scene.phase is Phase.STANDBY
    scene.tell(told.MaintenanceOrdered(False))
    assert "start in term 2" in scene.after(TAKEOVER_S)


def test_maintenance_does_not_keep_a_node_down_that_was_active_last() -> None:
    record = replace(BACKUP_RECORD, term=2, active_term=2, maintenance=True)
    scene = Scene(Mode.BACKUP, record).started()
    assert "start in term 4" in scene.after(TAKEOVER_S)


def flap(scene: Scene, rounds: int) -> int:
    """Loses the primary to silence again and again; returns how often the backup took over."""
    takeovers = 0
    for _ in range(rounds):
        scene.lost(LinkLoss.SILENCE, heard_s_ago=TAKEOVER_S)
        takeovers += scene.phase is Phase.ACTIVE
        scene.now_s += 1
        scene.linked(Role.ACTIVE, scene.roles.record.term + 1)
        scene.tell(told.WorkloadEnded())
    return takeovers


def test_takeovers_after_silence_are_held_back_when_they_become_many() -> None:
    scene = standby_backup()
    assert flap(scene, FREE_ACTIVATIONS + 5) == FREE_ACTIVATIONS
    scene.lost(LinkLoss.SILENCE, heard_s_ago=TAKEOVER_S)
    assert scene.phase is Phase.STANDBY
    assert scene.announced == ["takeover-damped"]


def test_a_takeover_that_was_held_back_comes_in_the_end() -> None:
    scene = standby_backup()
    flap(scene, FREE_ACTIVATIONS)
    scene.lost(LinkLoss.SILENCE, heard_s_ago=TAKEOVER_S)
    assert scene.phase is Phase.STANDBY
    scene.after(WINDOW_NS // SECOND)
    assert scene.phase is Phase.ACTIVE


@pytest.mark.parametrize("proof", ["refused", "goodbye"])
def test_a_peer_that_is_certainly_gone_is_never_waited_for(proof: str) -> None:
    scene = standby_backup()
    flap(scene, FREE_ACTIVATIONS + 1)
    if proof == "goodbye":
        scene.lost(LinkLoss.GOODBYE)
    else:
        scene.lost(LinkLoss.CLOSED)
        scene.tell(told.PeerProvenGone())
    assert scene.phase is Phase.ACTIVE
