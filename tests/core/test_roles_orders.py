"""What operators order: failover, failback, maintenance, stop; each is answered at once, in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core import inputs as told
from agent.core.inputs import LinkLoss
from agent.core.messages import Request
from agent.core.role_table import Phase
from agent.core.vocabulary import Mode, Role
from tests.core.role_scene import (
    PRIMARY_RECORD,
    TAKEOVER_S,
    Scene,
    active_backup,
    active_primary,
    standby_backup,
    standby_primary,
)


def test_failover_invites_from_the_active_node_and_begins_at_the_other() -> None:
    primary, backup = active_primary(), standby_backup()
    assert primary.tell(told.FailoverOrdered()) == ["tell invite"]
    assert primary.answer.accepted
    assert backup.tell(told.FailoverOrdered()) == ["catch up"]
    assert backup.answer.accepted


@pytest.mark.parametrize("order", [told.FailoverOrdered(), told.FailbackOrdered()])
def test_without_a_link_a_handover_is_refused_because_it_would_only_stop_the_workload(order: told.Input) -> None:
    for scene in (active_backup(), Scene(Mode.PRIMARY).started()):
        assert scene.tell(order) == []
        assert not scene.answer.accepted
        assert "no link" in scene.answer.sentence


def test_a_stand_alone_node_has_nobody_to_hand_over_to() -> None:
    scene = Scene(Mode.STAND_ALONE).started()
    scene.tell(told.FailoverOrdered())
    assert not scene.answer.accepted


def test_a_node_that_has_the_role_already_names_the_other_command() -> None:
    scene = active_primary()
    assert scene.tell(told.FailbackOrdered()) == []
    assert "pair-agent failover" in scene.answer.sentence


def test_a_node_that_cannot_take_the_role_is_not_invited() -> None:
    scene = active_primary()
    scene.reported(Role.STANDBY, eligible=False, obstacle="its trees are incomplete")
    assert scene.tell(told.FailoverOrdered()) == []
    assert "its trees are incomplete" in scene.answer.sentence


def test_a_stop_of_the_active_node_hands_over_before_it_exits() -> None:
    scene = active_primary()
    assert scene.tell(told.StopOrdered()) == ["stop"]
    assert scene.tell(told.WorkloadEnded()) == ["send final changes"]
    assert scene.sent() == ["say goodbye", "exit"]


def test_a_stop_of_a_node_on_standby_is_immediate() -> None:
    assert standby_backup().tell(told.StopOrdered()) == ["say goodbye", "exit"]


def test_a_stop_during_a_handover_finishes_what_was_begun() -> None:
    scene = active_primary()
    scene.asked(Request(planned=True, hold=True, reason="failover"))
    assert scene.tell(told.StopOrdered()) == []
    scene.tell(told.WorkloadEnded())
    assert scene.sent() == ["say goodbye", "exit"]


def test_a_node_that_stops_is_not_kept_by_the_loss_of_its_link() -> None:
    scene = active_primary()
    scene.tell(told.StopOrdered())
    scene.lost(LinkLoss.SILENCE)
    scene.stopped_and_sent()
    assert scene.phase is Phase.STOPPED


def test_maintenance_is_stored_and_the_higher_revision_holds_for_both_nodes() -> None:
    scene = active_primary()
    assert scene.tell(told.MaintenanceOrdered(True)) == ["store"]
    assert scene.roles.record.maintenance
    scene.reported(Role.STANDBY, maintenance=False, maintenance_revision=2)
    assert not scene.roles.record.maintenance
    assert "maintenance-changed" in scene.announced


def test_maintenance_stops_the_automatic_switchback_and_its_end_begins_it() -> None:
    record = replace(PRIMARY_RECORD, term=1, active_term=1, maintenance=True, maintenance_revision=1)
    scene = Scene(Mode.PRIMARY, record).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    assert scene.after(1000) == []
    assert scene.phase is Phase.STANDBY
    assert "catch up" in scene.tell(told.MaintenanceOrdered(False))


def test_maintenance_does_not_forbid_what_an_operator_orders() -> None:
    scene = active_primary()
    scene.tell(told.MaintenanceOrdered(True))
    assert scene.tell(told.FailoverOrdered()) == ["tell invite"]
    assert scene.asked(Request(planned=True, hold=True, reason="failover")) == ["stop"]


def test_maintenance_refuses_an_unplanned_request() -> None:
    scene = active_backup()
    scene.linked(Role.INITIAL_STANDBY, 1)
    scene.tell(told.MaintenanceOrdered(True))
    assert scene.asked(Request(planned=False, hold=False, reason="the primary is back")) == ["tell refusal"]


def test_failback_ends_a_hold() -> None:
    scene = standby_primary()
    scene.tell(told.FailbackOrdered())
    scene.caught_up()
    assert scene.phase is Phase.REQUESTING
    scene.reported(Role.STANDBY, 2)
    scene.lost(LinkLoss.GOODBYE)
    scene.after(TAKEOVER_S)
    assert scene.phase is Phase.ACTIVE
    assert not scene.roles.record.hold
