"""The handover, step by step: who asks, who stops, who starts, and what each does when a step fails."""

from __future__ import annotations

import pytest

from agent.core import inputs as told
from agent.core.inputs import LinkLoss
from agent.core.messages import Invite, Refusal, Release, Request
from agent.core.role_table import Phase
from agent.core.vocabulary import Mode, Role
from tests.core.role_scene import Scene, active_backup, active_primary, standby_backup, standby_primary

PLANNED = Request(planned=True, hold=True, reason="failover ordered by an operator")
SWITCHBACK = Request(planned=False, hold=False, reason="the primary is back")


def test_the_giver_stops_its_workload_sends_the_rest_and_then_releases() -> None:
    scene = active_primary()
    assert scene.asked(PLANNED) == ["stop"]
    assert scene.tell(told.WorkloadEnded()) == ["send final changes"]
    assert scene.sent() == ["store", "tell release"]
    assert scene.phase is Phase.STANDBY
    assert scene.roles.record.released


def test_the_taker_asks_when_it_is_up_to_date_and_starts_when_it_is_released() -> None:
    scene = standby_backup()
    assert scene.asked(Invite(planned=True, hold=True, reason="failover")) == ["catch up"]
    assert scene.caught_up() == ["tell request"]
    assert scene.asked(Release(term=1, hold=True, reason="failover")) == ["store", "start in term 2"]
    assert scene.roles.record.hold


def test_the_switchback_is_asked_for_by_the_primary_alone() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    assert scene.phase is Phase.CATCHING_UP
    backup = active_backup()
    backup.linked(Role.INITIAL_STANDBY, 1)
    assert backup.after(1000) == []
    assert backup.asked(SWITCHBACK) == ["stop"]


def test_a_hold_keeps_the_role_until_failback() -> None:
    scene = standby_primary()
    assert scene.after(1000) == []
    assert scene.tell(told.FailbackOrdered()) == ["catch up"]
    assert scene.answer.accepted


def test_a_node_that_keeps_the_role_refuses_an_unplanned_request() -> None:
    scene = standby_backup()
    scene.asked(Invite(planned=True, hold=True, reason="failover"))
    scene.caught_up()
    scene.asked(Release(term=1, hold=True, reason="failover"))
    assert scene.asked(SWITCHBACK) == ["tell refusal"]
    assert scene.asked(Request(planned=True, hold=False, reason="failback")) == ["stop"]


def test_only_an_active_node_says_that_it_keeps_the_role() -> None:
    scene = standby_backup()
    scene.asked(Invite(planned=True, hold=True, reason="failover"))
    scene.caught_up()
    scene.asked(Release(term=1, hold=True, reason="failover"))
    assert scene.roles.report.hold
    again = Scene(Mode.BACKUP, record=scene.roles.record).started()
    assert again.roles.record.hold
    assert not again.roles.report.hold


def test_a_refused_taker_goes_back_to_standby_and_asks_again_later() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    scene.caught_up()
    scene.asked(refusal(retry_ms=20_000))
    assert scene.phase is Phase.STANDBY
    assert scene.after(19) == []
    assert scene.after(2) == ["catch up"]


def test_a_request_that_nobody_answers_is_given_up_and_made_again() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    scene.caught_up()
    scene.after(15)
    assert scene.phase is Phase.STANDBY
    assert scene.after(5) == ["catch up"]


def test_a_catch_up_that_fails_is_begun_again_later() -> None:
    scene = Scene(Mode.PRIMARY).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    scene.catch_up_failed()
    assert scene.phase is Phase.STANDBY
    assert scene.after(5) == ["catch up"]


@pytest.mark.parametrize("step", [Phase.STEPPING_DOWN, Phase.FINISHING])
def test_a_giver_that_loses_the_link_before_it_released_becomes_active_again(step: Phase) -> None:
    scene = active_primary()
    scene.asked(PLANNED)
    if step is Phase.FINISHING:
        scene.tell(told.WorkloadEnded())
    assert scene.phase is step
    scene.lost(LinkLoss.CLOSED)
    scene.stopped_and_sent()
    assert scene.phase is Phase.STANDBY
    scene.after(5)
    assert scene.phase is Phase.ACTIVE


@pytest.mark.parametrize("caught_up", [False, True])
def test_a_taker_that_loses_the_link_begins_anew(caught_up: bool) -> None:
    scene = standby_backup()
    scene.asked(Invite(planned=True, hold=True, reason="failover"))
    if caught_up:
        scene.caught_up()
    scene.lost(LinkLoss.CLOSED)
    assert scene.phase is Phase.STANDBY
    assert scene.caught_up() == []


def test_a_giver_that_stops_in_good_order_leaves_the_role_to_the_taker() -> None:
    scene = standby_backup()
    scene.asked(Invite(planned=True, hold=True, reason="failover"))
    scene.caught_up()
    assert "start in term 2" in scene.lost(LinkLoss.GOODBYE)


def test_a_workload_that_gives_up_is_handed_to_the_other_node_once() -> None:
    scene = active_primary()
    assert scene.tell(told.WorkloadGaveUp("it ends again and again")) == ["tell invite"]
    assert scene.asked(Request(planned=False, hold=True, reason="the workload fails")) == ["stop"]
    scene.stopped_and_sent()
    scene.reported(Role.ACTIVE, 2, hold=True)
    scene.reported(Role.ACTIVE, 2, hold=True, workload_failed=True)
    assert scene.after(1000) == []
    assert scene.asked(Invite(planned=False, hold=False, reason="it fails there too")) == ["tell refusal"]


def test_a_workload_that_fails_on_both_nodes_stays_where_it_is() -> None:
    scene = active_primary()
    scene.reported(Role.STANDBY, workload_failed=True)
    assert scene.tell(told.WorkloadGaveUp("it ends again and again")) == []
    assert scene.phase is Phase.ACTIVE


def test_the_refusal_of_an_invitation_is_not_the_refusal_of_a_release() -> None:
    """Both operators order failover: the invitation crosses the request, and its refusal the release."""
    scene = active_primary()
    scene.tell(told.FailoverOrdered())
    backup = standby_backup()
    backup.tell(told.FailoverOrdered())
    crossing = backup.asked(Invite(planned=True, hold=True, reason="failover ordered by an operator"))
    refusals = [effect.message for effect in backup.done if hasattr(effect, "message")] if crossing else []
    scene.asked(PLANNED)
    scene.stopped_and_sent()
    for message in refusals:
        scene.asked(message)
    assert scene.phase is Phase.STANDBY


def test_a_primary_takes_back_what_the_backup_refused_to_take() -> None:
    scene = active_primary()
    scene.asked(PLANNED)
    scene.stopped_and_sent()
    scene.asked(refusal(release_term=scene.roles.record.term))
    assert scene.phase is Phase.ACTIVE


def refusal(*, retry_ms: int = 0, release_term: int = 0) -> Refusal:
    known = {"release_term": release_term} if "release_term" in Refusal.__dataclass_fields__ else {}
    return Refusal(reason="not now", retry_ms=retry_ms, **known)
