"""What the trees mean for the roles: no workload on trees that are not whole, and no takeover is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.damping import FREE_ACTIVATIONS
from agent.core.inputs import LinkLoss
from agent.core.messages import Invite, Refusal, Release, Request
from agent.core.record import INCOMPLETE_CHARACTERS_MAX, Record
from agent.core.role_table import Phase
from agent.core.session import GREETING_NS
from agent.core.tree_versions import TreeVersion
from agent.core.vocabulary import Mode, Role, TimeoutPolicy
from tests.core.role_scene import BACKUP_RECORD, INITIAL_STANDBY_S, PRIMARY_RECORD, SECOND, TAKEOVER_S, Scene

COPIED = {"data_term": 1, "base_term": 1}
BACKUP = replace(BACKUP_RECORD, term=1, peer_active_term=1, **COPIED)
PRIMARY = replace(PRIMARY_RECORD, term=1, active_term=1, **COPIED)
OUTDATED = replace(PRIMARY, term=2, peer_active_term=2)
HINDERED = told.TreesHindered("its index is being repaired")
USABLE = told.TreesHindered("")
COPYING = told.TreesIncomplete("a first copy is not finished")
SWITCHBACK = Request(planned=False, hold=False, reason="the primary is back")
FAILOVER = Invite(planned=True, hold=True, reason="failover")


def backup(record: Record = BACKUP, **more: bool) -> Scene:
    return Scene(Mode.BACKUP, record, trees=True, **more)


def primary(record: Record = PRIMARY, policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> Scene:
    return Scene(Mode.PRIMARY, record, policy, trees=True)


def linked_backup(record: Record = BACKUP) -> Scene:
    """A backup on standby, linked with a primary that is active in term 1."""
    scene = backup(record).started()
    scene.linked(Role.ACTIVE, 1)
    scene.reported(Role.ACTIVE, 1)
    return scene


def linked_primary(record: Record = PRIMARY, **more: object) -> Scene:
    """A primary that is linked with a backup on standby."""
    scene = primary(record).started()
    scene.linked(Role.STANDBY, **more)
    scene.reported(Role.STANDBY, **more)
    return scene


def active_backup() -> Scene:
    """A backup that took over in term 2, and that a primary asks for the role, for which it stops its workload."""
    scene = linked_backup()
    scene.lost(LinkLoss.GOODBYE)
    scene.linked(Role.INITIAL_STANDBY, 1)
    scene.reported(Role.INITIAL_STANDBY, 1)
    assert scene.phase is Phase.ACTIVE
    return scene


def version(scene: Scene) -> TreeVersion:
    return scene.roles.record.version


# -- orders and their answers


def test_the_answer_to_an_aborted_catch_up_does_not_count_for_the_next() -> None:
    scene = linked_backup()
    scene.asked(FAILOVER)
    first = scene.order
    scene.lost(LinkLoss.CLOSED)
    scene.linked(Role.ACTIVE, 1)
    scene.asked(FAILOVER)
    assert scene.order > first
    assert scene.tell(told.CaughtUp(first)) == []
    assert scene.tell(told.CatchUpFailed(first, "the link was lost")) == []
    assert scene.phase is Phase.CATCHING_UP
    assert scene.caught_up() == ["tell request"]


def test_the_answer_to_a_catch_up_is_none_to_the_final_changes() -> None:
    scene = active_backup()
    scene.asked(SWITCHBACK)
    scene.tell(told.WorkloadEnded())
    assert scene.tell(told.FinalChangesSent(scene.order - 1)) == []
    assert scene.phase is Phase.FINISHING
    assert scene.sent() == ["store", "tell release"]


# -- who does not become active


def mark_incomplete(scene: Scene) -> None:
    scene.tell(COPYING)


def hinder(scene: Scene) -> None:
    scene.tell(HINDERED)


def let_overwrite_be_due(scene: Scene) -> None:
    scene.lost(LinkLoss.CLOSED)
    scene.linked(Role.ACTIVE, 1, overwrite=True)


UNUSABLE: list[Callable[[Scene], None]] = [mark_incomplete, hinder, let_overwrite_be_due]


@pytest.mark.parametrize("make_unusable", UNUSABLE)
@pytest.mark.parametrize("loss", LinkLoss)
def test_a_backup_with_unusable_trees_does_not_take_over_and_says_why_d1(
    make_unusable: Callable[[Scene], None], loss: LinkLoss
) -> None:
    scene = linked_backup()
    make_unusable(scene)
    assert "start" not in " ".join(scene.lost(loss, heard_s_ago=TAKEOVER_S) + scene.after(10 * TAKEOVER_S))
    assert scene.tell(told.PeerProvenGone()) == []
    assert scene.phase is Phase.STANDBY
    assert not scene.roles.report.eligible
    assert scene.roles.report.obstacle == scene.roles.obstacle != ""
    assert scene.roles.obstacle in scene.roles.reason


@pytest.mark.parametrize("make_unusable", UNUSABLE)
def test_a_node_with_unusable_trees_takes_no_role_that_it_is_given(make_unusable: Callable[[Scene], None]) -> None:
    scene = linked_backup()
    make_unusable(scene)
    assert scene.asked(Release(1, hold=False, reason="given")) == ["tell refusal"]
    assert scene.asked(FAILOVER) == ["tell refusal"]
    scene.tell(told.FailoverOrdered())
    assert not scene.answer.accepted
    assert scene.roles.obstacle in scene.answer.sentence


@pytest.mark.parametrize("fact", [HINDERED, COPYING])
def test_a_primary_with_unusable_trees_gives_the_role_to_the_backup(fact: told.Input) -> None:
    scene = primary().started()
    scene.tell(fact)
    assert "tell release" in scene.linked()
    assert scene.phase is Phase.STANDBY


@pytest.mark.parametrize("fact", [HINDERED, COPYING])
def test_maintenance_does_not_bring_back_a_primary_with_unusable_trees(fact: told.Input) -> None:
    scene = primary(replace(PRIMARY, maintenance=True, maintenance_revision=1)).started()
    scene.tell(fact)
    assert "start" not in " ".join(scene.linked())
    assert scene.roles.obstacle in scene.roles.reason
    whole = USABLE if fact is HINDERED else told.TreesComplete(1)
    assert "start in term 3" in scene.tell(whole)


def test_a_giver_whose_worker_ends_goes_on_with_the_trees_that_its_workload_has_just_left() -> None:
    """Nothing was changed in them since; and only here are the last changes."""
    scene = active_backup()
    scene.asked(SWITCHBACK)
    scene.tell(told.WorkloadEnded(), HINDERED)
    assert "start in term 4" in scene.sent("the replica worker ended")


@pytest.mark.parametrize("fact", [HINDERED, COPYING])
def test_a_primary_with_unusable_trees_does_not_end_its_initial_standby(fact: told.Input) -> None:
    scene = primary().started()
    scene.tell(fact)
    scene.after(INITIAL_STANDBY_S)
    assert scene.phase is Phase.AWAITING_PEER
    assert scene.roles.obstacle in scene.roles.reason


@pytest.mark.parametrize("fact", [HINDERED, COPYING])
@pytest.mark.parametrize("waiting_s", [0, 100])
def test_a_stand_alone_node_with_unusable_trees_starts_when_they_can_be_used(fact: told.Input, waiting_s: int) -> None:
    scene = Scene(Mode.STAND_ALONE, Record(mode="stand-alone", **COPIED), trees=True)
    scene.tell(fact)
    assert "start" not in " ".join(scene.tell(told.Started()) + scene.after(waiting_s))
    assert scene.roles.obstacle in scene.roles.reason
    whole = USABLE if fact is HINDERED else told.TreesComplete(1)
    assert scene.tell(whole) == ["store", "start in term 2"]


def test_incomplete_trees_are_remembered_over_a_restart_until_they_are_complete_d1() -> None:
    scene = linked_backup()
    assert scene.tell(COPYING) == ["store"]
    again = backup(scene.roles.record).started()
    again.after(10 * TAKEOVER_S)
    assert again.phase is Phase.STANDBY
    again.linked(Role.ACTIVE, 1)
    again.tell(told.TreesComplete(1))
    assert again.roles.report.eligible
    assert "start in term 2" in again.lost(LinkLoss.GOODBYE)


def test_a_node_without_trees_does_not_mind_what_a_record_says_of_them() -> None:
    scene = Scene(Mode.BACKUP, replace(BACKUP, incomplete="a first copy", overwrite_due=True)).started()
    assert "start in term 2" in scene.after(TAKEOVER_S)
    assert not scene.roles.report.overwrite


@pytest.mark.parametrize("reason", ["", "x" * 5000, b"caf\xe9".decode("utf-8", "surrogateescape")], ids=len)
def test_whatever_the_reason_incomplete_trees_count_as_incomplete(reason: str) -> None:
    scene = linked_backup()
    scene.tell(told.TreesIncomplete(reason))
    assert 0 < len(scene.roles.record.incomplete) <= INCOMPLETE_CHARACTERS_MAX
    assert not scene.roles.report.eligible


# -- a backup that was never given the primary's trees


def test_a_backup_that_ran_before_there_were_trees_does_not_take_over_until_they_were_copied() -> None:
    scene = backup(replace(BACKUP, data_term=0, base_term=0)).started()
    scene.linked(Role.ACTIVE, 1)
    assert "first copy" in scene.roles.report.obstacle
    assert "start" not in " ".join(scene.lost(LinkLoss.GOODBYE))
    scene.linked(Role.ACTIVE, 3)
    scene.tell(told.TreesComplete(3))
    assert "start in term 4" in scene.lost(LinkLoss.GOODBYE)


def test_a_backup_that_was_active_last_before_there_were_trees_has_the_newest_ones() -> None:
    scene = backup(replace(BACKUP_RECORD, term=2, active_term=2, peer_active_term=1)).started()
    assert "start in term 4" in scene.after(TAKEOVER_S)


# -- forced


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        (replace(BACKUP, incomplete="a resync was cut"), "a resync was cut"),
        (replace(BACKUP, overwrite_due=True), "first copy"),
        (replace(BACKUP, data_term=0, base_term=0), "first copy"),
    ],
)
def test_a_forced_node_runs_on_what_is_there_and_says_what_is_missing(record: Record, missing: str) -> None:
    scene = backup(record, force=True)
    assert scene.tell(told.Started()) == ["store", "start in term 2"]
    assert scene.announced == ["trees-incomplete"]
    (announced,) = [effect for effect in scene.done if isinstance(effect, do.Announce)]
    assert missing in announced.sentence
    assert "--force-activate" not in announced.sentence
    after = scene.roles.record
    assert (after.incomplete, after.overwrite_due) == ("", False)
    assert scene.roles.report.eligible
    assert "forced" in scene.roles.reason


def test_a_forced_node_does_not_say_that_it_cannot_become_active() -> None:
    scene = backup(force=True)
    scene.tell(HINDERED, told.Started())
    assert scene.phase is Phase.ACTIVE
    assert "cannot" not in scene.roles.reason
    assert scene.announced == ["trees-incomplete"]


def test_a_forced_node_whose_trees_are_whole_announces_nothing_of_them() -> None:
    scene = backup(replace(BACKUP, mode_unproven=True), force=True)
    scene.tell(told.Started())
    assert scene.announced == []


# -- what only the trees hindered is made up for


def hindered_backup(loss: LinkLoss) -> Scene:
    """A backup that would have taken over, had its trees been usable."""
    scene = linked_backup()
    scene.tell(HINDERED)
    scene.lost(loss, heard_s_ago=TAKEOVER_S)
    if loss is LinkLoss.CLOSED:
        scene.tell(told.PeerProvenGone())
    assert scene.phase is Phase.STANDBY
    assert scene.announced == ["not-eligible"]
    return scene


POSTPONING = [LinkLoss.GOODBYE, LinkLoss.SILENCE, LinkLoss.CLOSED]


@pytest.mark.parametrize("loss", POSTPONING)
def test_a_takeover_that_only_the_trees_hindered_comes_as_soon_as_they_are_usable(loss: LinkLoss) -> None:
    scene = hindered_backup(loss)
    assert scene.after(1000) == []
    assert scene.tell(USABLE) == ["store", "start in term 2"]
    assert scene.tell(USABLE) == []


def test_a_takeover_that_an_apply_hindered_comes_when_it_is_complete() -> None:
    scene = linked_backup()
    scene.tell(COPYING)
    scene.lost(LinkLoss.GOODBYE)
    assert scene.tell(told.TreesComplete(1)) == ["store", "start in term 2"]


def come_back(scene: Scene) -> None:
    scene.linked(Role.ACTIVE, 3)
    scene.lost(LinkLoss.CLOSED)


def send_a_beacon(scene: Scene) -> None:
    scene.tell(told.PeerHeard(active=True, hears=False))


def refuse(scene: Scene) -> None:
    scene.tell(told.ContactRefused("its certificate is not trusted"))


def freeze(scene: Scene) -> None:
    scene.tell(told.Frozen("it did not run for 9 s"))


@pytest.mark.parametrize("sign_of_life", [come_back, send_a_beacon, refuse, freeze])
def test_a_takeover_is_not_made_up_for_when_the_other_node_may_live(sign_of_life: Callable[[Scene], None]) -> None:
    scene = hindered_backup(LinkLoss.GOODBYE)
    sign_of_life(scene)
    assert "start" not in " ".join(scene.tell(USABLE))
    assert scene.phase is Phase.STANDBY
    assert "start" in " ".join(scene.after(2 * TAKEOVER_S))  # in its own time, if it stays silent


def test_a_takeover_is_not_made_up_for_while_somebody_answers_there() -> None:
    scene = hindered_backup(LinkLoss.GOODBYE)
    scene.tell(told.ContactMade())
    assert scene.tell(USABLE) == []
    assert scene.linked(Role.ACTIVE, 3) == ["store"]
    assert scene.after(1000) == []


def test_a_takeover_that_was_postponed_before_a_freeze_is_not_forgotten() -> None:
    """The freeze took the postponed takeover away, and no timer was left: nobody would ever have become active."""
    for scene in (hindered_backup(LinkLoss.GOODBYE), postponed_primary()):
        freeze(scene)
        scene.tell(USABLE)
        scene.after(INITIAL_STANDBY_S)
        assert scene.phase is Phase.ACTIVE


def test_a_hindrance_that_passes_before_it_mattered_starts_nothing() -> None:
    scene = linked_backup()
    scene.tell(HINDERED, USABLE)
    assert scene.lines() == []
    scene.lost(LinkLoss.CLOSED)
    scene.tell(HINDERED)
    assert scene.tell(USABLE) == []
    assert scene.phase is Phase.STANDBY


def test_maintenance_ordered_meanwhile_forbids_what_was_postponed() -> None:
    scene = hindered_backup(LinkLoss.GOODBYE)
    scene.tell(told.MaintenanceOrdered(True))
    assert scene.tell(USABLE) == []
    assert scene.phase is Phase.STANDBY


def postponed_primary(policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> Scene:
    """A primary whose initial standby is over, had its trees been usable."""
    scene = primary(OUTDATED, policy).started()
    scene.tell(HINDERED)
    scene.after(INITIAL_STANDBY_S)
    assert scene.phase is Phase.AWAITING_PEER
    return scene


def test_the_end_of_initial_standby_that_only_the_trees_hindered_comes_as_soon_as_they_are_usable() -> None:
    scene = postponed_primary()
    assert scene.tell(USABLE) == ["store", "start in term 3"]
    assert "activated-without-resync" in scene.announced


@pytest.mark.parametrize("policy", [TimeoutPolicy.WAIT, TimeoutPolicy.WAIT_IF_OUTDATED])
def test_usable_trees_do_not_lift_the_policy_of_initial_standby_d4(policy: TimeoutPolicy) -> None:
    scene = postponed_primary(policy)
    assert scene.tell(USABLE) == []
    assert scene.phase is Phase.AWAITING_PEER


@pytest.mark.parametrize("sign_of_life", [come_back, send_a_beacon])
def test_a_primary_makes_up_for_nothing_when_the_backup_may_live(sign_of_life: Callable[[Scene], None]) -> None:
    scene = postponed_primary()
    sign_of_life(scene)
    assert "start" not in " ".join(scene.tell(USABLE))
    assert scene.phase is Phase.AWAITING_PEER


def test_a_primary_does_not_activate_while_the_backup_greets_it() -> None:
    """The hello said initial standby; the backup, which is active, would learn too late that this has changed."""
    scene = postponed_primary()
    scene.tell(told.ContactMade())
    assert scene.tell(USABLE) == []
    scene.linked(Role.ACTIVE, 2)
    assert scene.phase is Phase.CATCHING_UP


def test_a_greeting_that_comes_to_nothing_does_not_keep_a_primary_down() -> None:
    scene = postponed_primary()
    scene.tell(told.ContactMade(), USABLE)
    assert "start in term 3" in scene.after(GREETING_NS / SECOND)


def test_a_linked_primary_settles_as_soon_as_its_trees_are_usable() -> None:
    scene = primary(OUTDATED).started()
    scene.tell(HINDERED)
    scene.linked(Role.STANDBY, 2, eligible=False)
    assert scene.phase is Phase.STANDBY
    assert scene.tell(USABLE) == ["catch up"]
    waiting = primary().started()
    waiting.tell(HINDERED)
    waiting.linked(Role.STANDBY, eligible=False)
    assert waiting.tell(USABLE) == ["store", "start in term 3"]


# -- the version of the trees (agent.core.tree_versions): what a node notes when


def test_an_activation_notes_its_term_and_that_the_other_node_has_not_got_it() -> None:
    scene = linked_primary()
    assert scene.roles.record.active_term == 3
    assert version(scene) == TreeVersion(3, alone=True, base_term=1)


def test_what_is_noted_of_the_trees_is_stored_before_the_workload_starts() -> None:
    scene = backup().started()
    scene.after(TAKEOVER_S)
    (stored,) = [effect.record for effect in scene.done if isinstance(effect, do.Store)]
    assert stored.version == TreeVersion(2, alone=True, base_term=1)
    assert stored.active_term == 2


def test_a_node_without_trees_notes_nothing_of_them() -> None:
    scene = Scene(Mode.STAND_ALONE).started()
    assert version(scene) == TreeVersion()


def test_the_other_node_follows_from_the_term_that_it_was_given() -> None:
    scene = linked_primary()
    scene.tell(told.TreesOffered(TreeVersion(1, base_term=1)))
    assert version(scene) == TreeVersion(3, alone=True, base_term=1, offered_term=3)
    assert scene.tell(told.PeerFollows(3)) == ["store"]
    assert version(scene) == TreeVersion(3, base_term=3)


@pytest.mark.parametrize("phase", [Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING])
def test_a_node_that_writes_after_the_link_was_lost_notes_that_it_is_alone(phase: Phase) -> None:
    scene = linked_primary()
    scene.tell(told.TreesOffered(TreeVersion()), told.PeerFollows(3))
    if phase is not Phase.ACTIVE:
        scene.asked(Request(planned=True, hold=True, reason="failover"))
    if phase is Phase.FINISHING:
        scene.tell(told.WorkloadEnded())
    assert scene.phase is phase
    assert scene.lost(LinkLoss.CLOSED)[:1] == ["store"]
    assert version(scene) == TreeVersion(3, alone=True, base_term=3)


def test_a_node_on_standby_that_loses_the_link_wrote_nothing_alone() -> None:
    scene = linked_backup()
    scene.lost(LinkLoss.CLOSED)
    assert version(scene) == TreeVersion(1, base_term=1)


def test_news_of_a_follower_that_come_after_the_link_was_lost_are_void() -> None:
    scene = linked_primary()
    scene.lost(LinkLoss.CLOSED)
    assert scene.tell(told.PeerFollows(3)) == []
    assert version(scene).alone


def test_news_of_a_follower_of_an_earlier_term_are_void() -> None:
    scene = linked_primary()
    assert scene.tell(told.PeerFollows(1)) == []
    assert version(scene) == TreeVersion(3, alone=True, base_term=1)


def test_a_restart_while_alone_keeps_what_both_last_had_in_common() -> None:
    scene = linked_primary()
    scene.tell(told.TreesOffered(TreeVersion()), told.PeerFollows(3))
    scene.lost(LinkLoss.CLOSED)
    again = primary(scene.roles.record).started()
    again.after(INITIAL_STANDBY_S)
    assert version(again) == TreeVersion(5, alone=True, base_term=3)


def test_a_crash_before_the_other_node_followed_keeps_what_both_last_had_in_common() -> None:
    """It was noted as common with a node that had never been given it."""
    scene = linked_primary()
    again = primary(scene.roles.record).started()
    again.after(INITIAL_STANDBY_S)
    assert version(again) == TreeVersion(5, alone=True, base_term=1)


def test_a_sink_that_is_complete_is_as_its_source_was() -> None:
    scene = linked_backup()
    scene.tell(COPYING, told.TreesComplete(9))
    assert version(scene) == TreeVersion(9, base_term=9)
    scene.tell(told.TreesComplete(11, merged=True))
    assert version(scene) == TreeVersion(11, alone=True, base_term=11)


def test_after_a_handover_the_taker_is_ahead_until_the_giver_follows() -> None:
    scene = linked_backup()
    scene.asked(FAILOVER)
    scene.caught_up()
    scene.asked(Release(1, hold=True, reason="failover"))
    assert version(scene) == TreeVersion(2, alone=True, base_term=1)
    scene.tell(told.PeerFollows(2))
    assert version(scene) == TreeVersion(2, base_term=2)


# -- final changes that cannot be brought over


def test_a_giver_whose_final_changes_are_stuck_becomes_active_again_and_refuses_d3() -> None:
    scene = active_backup()
    scene.asked(SWITCHBACK)
    scene.tell(told.WorkloadEnded())
    assert scene.sent("the other node's disk is full") == ["store", "tell refusal", "start in term 4"]
    assert scene.phase is Phase.ACTIVE
    assert "handover-refused" in scene.announced
    assert "disk is full" in scene.roles.reason
    assert not scene.roles.record.released


def test_stuck_final_changes_are_told_before_the_workload_starts_again() -> None:
    scene = active_backup()
    scene.asked(SWITCHBACK)
    scene.tell(told.WorkloadEnded())
    scene.sent("the other node's disk is full")
    kinds = [type(effect) for effect in scene.done]
    assert kinds.index(do.Store) < kinds.index(do.Tell) < kinds.index(do.StartWorkload)


def test_the_taker_of_a_handover_that_got_stuck_asks_again_later() -> None:
    scene = primary(OUTDATED).started()
    scene.linked(Role.ACTIVE, 2)
    scene.caught_up()
    scene.asked(Refusal("the last changes could not be brought over", 0))
    scene.reported(Role.ACTIVE, 4)
    assert scene.phase is Phase.STANDBY
    assert scene.after(5) == ["catch up"]


def test_a_handover_that_gets_stuck_again_and_again_is_damped_n5() -> None:
    scene = active_backup()
    for _ in range(FREE_ACTIVATIONS + 1):
        scene.asked(SWITCHBACK)
        if scene.phase is not Phase.STEPPING_DOWN:
            break
        scene.tell(told.WorkloadEnded())
        scene.sent("the other node's disk is full")
    assert scene.phase is Phase.ACTIVE
    assert scene.lines() == ["tell refusal"]


def test_a_giver_without_a_link_does_not_become_active_again_by_stuck_changes() -> None:
    scene = active_backup()
    scene.asked(SWITCHBACK)
    scene.tell(told.WorkloadEnded())
    scene.lost(LinkLoss.CLOSED)
    assert scene.sent("there is no link") == []
    assert scene.phase is Phase.STANDBY
    assert scene.announced == ["final-changes-undelivered"]


def test_a_node_that_exits_says_which_changes_stay_behind() -> None:
    scene = active_backup()
    scene.tell(told.StopOrdered(), told.WorkloadEnded())
    assert scene.sent("the other node's disk is full") == ["say goodbye", "exit"]
    assert "final-changes-undelivered" in scene.announced


def test_a_request_is_not_given_up_while_the_other_node_sends_its_final_changes() -> None:
    """It was, and asked again and again: the workload of the other node was stopped each time."""
    scene = primary(OUTDATED).started()
    scene.linked(Role.ACTIVE, 2)
    scene.caught_up()
    scene.reported(Role.STOPPING, 2)
    assert scene.after(600) == []
    assert scene.phase is Phase.REQUESTING
    scene.reported(Role.STANDBY, 2)
    assert "start in term 3" in scene.asked(Release(2, hold=False, reason="the primary is back"))


def test_two_releases_that_cross_make_one_node_active() -> None:
    """The primary gave the role away when it read that nobody was active; the backup's release came right behind."""
    scene = primary(OUTDATED).started()
    scene.linked(Role.STOPPING, 2)
    scene.tell(told.MaintenanceOrdered(True))
    assert "tell release" in scene.reported(Role.STANDBY, 2)
    assert scene.asked(Release(2, hold=False, reason="the primary is back")) == []
    assert scene.phase is Phase.STANDBY


def test_a_node_with_incomplete_trees_has_nothing_newer_to_give() -> None:
    scene = linked_backup(replace(BACKUP, term=4, active_term=4))
    assert scene.roles.report.active_term == 4
    scene.tell(COPYING)
    assert scene.roles.report.active_term == 0
    scene.tell(told.TreesComplete(1))
    assert scene.roles.report.active_term == 4


def test_a_primary_that_restarts_while_the_backup_is_being_repaired_goes_on_d5() -> None:
    """Both were active, the primary stayed. The backup had been active in a later term, but its trees were half a copy
    of the primary's by then: the primary tried for ever to be brought up to date by it."""
    repaired = linked_backup(replace(BACKUP, term=4, active_term=4))
    repaired.tell(COPYING)
    told_of_it = repaired.roles.report
    scene = primary(replace(PRIMARY, term=4, active_term=3, peer_active_term=4)).started()
    scene.linked(Role.STANDBY, told_of_it.active_term, eligible=told_of_it.eligible)
    assert scene.phase is Phase.ACTIVE


def test_a_catch_up_ends_when_its_source_turns_out_to_be_incomplete() -> None:
    scene = primary(OUTDATED).started()
    scene.linked(Role.STANDBY, 2)
    assert scene.phase is Phase.CATCHING_UP
    scene.reported(Role.STANDBY, 0, eligible=False)
    assert scene.phase is Phase.ACTIVE
    assert scene.caught_up() == []


def test_a_catch_up_goes_on_while_its_source_stops_or_is_active() -> None:
    for role in (Role.ACTIVE, Role.STOPPING):
        scene = primary(OUTDATED).started()
        scene.linked(Role.ACTIVE, 2)
        scene.reported(role, 0)
        assert scene.phase is Phase.CATCHING_UP


# -- a catch-up that fails


def test_a_primary_that_cannot_be_brought_up_to_date_leaves_the_role_to_the_backup() -> None:
    """It tried for ever, while the backup, which has everything, waited beside it."""
    scene = primary(OUTDATED).started()
    scene.linked(Role.STANDBY, 2)
    scene.reported(Role.STANDBY, 2)
    assert scene.phase is Phase.CATCHING_UP
    assert scene.catch_up_failed("the disk is full")[-1:] == ["tell release"]
    scene.reported(Role.ACTIVE, 4)
    assert scene.phase is Phase.STANDBY
    assert scene.after(5) == ["catch up"]
    assert scene.caught_up() == ["tell request"]


def test_a_primary_that_cannot_be_brought_up_to_date_does_not_activate_what_the_backup_refuses() -> None:
    scene = primary(OUTDATED).started()
    scene.linked(Role.STANDBY, 2)
    scene.catch_up_failed()
    scene.asked(Refusal("its workload fails", 0, release_term=scene.roles.record.term))
    assert scene.phase is Phase.STANDBY


@pytest.mark.parametrize("loss", [LinkLoss.CLOSED, LinkLoss.SILENCE, LinkLoss.GOODBYE])
def test_a_primary_that_was_not_brought_up_to_date_waits_for_the_backup_as_at_the_beginning(loss: LinkLoss) -> None:
    """Otherwise it would take over within a second, without what the backup wrote."""
    scene = primary(OUTDATED).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    scene.catch_up_failed("the replica worker ended")
    assert scene.phase is Phase.STANDBY
    scene.lost(loss)
    assert scene.phase is Phase.AWAITING_PEER
    assert scene.after(TAKEOVER_S + 1) == []
    assert scene.phase is Phase.AWAITING_PEER
    scene.after(INITIAL_STANDBY_S)
    assert scene.phase is Phase.ACTIVE, "the policy is to activate then"


def test_a_failed_catch_up_beside_an_ineligible_backup_is_tried_again_but_not_at_once() -> None:
    scene = primary(OUTDATED).started()
    scene.linked(Role.STANDBY, 2, eligible=False)
    scene.catch_up_failed()
    assert scene.reported(Role.STANDBY, 2, eligible=False) == []
    assert scene.after(4) == []
    assert scene.after(2) == ["catch up"]


def test_a_refusal_of_what_was_not_offered_is_no_event() -> None:
    """An active node heard of every failed catch-up of the other one, every 5 seconds."""
    scene = active_backup()
    scene.asked(Refusal("bringing this node up to date failed: the disk is full", 0))
    assert scene.announced == []
    scene.tell(told.FailbackOrdered())
    scene.asked(Refusal("bringing this node up to date failed: the disk is full", 0))
    assert scene.announced == ["handover-refused"]


# -- an overwrite


def test_an_overwrite_that_either_node_wants_is_due_on_both_from_the_opening_of_the_link() -> None:
    new_primary = primary(Record(mode="primary", term_lane=1)).started()
    assert new_primary.roles.report.overwrite
    assert "store" in new_primary.linked(eligible=False)
    assert new_primary.roles.record.overwrite_due
    old_backup = backup().started()
    assert not old_backup.roles.report.overwrite
    assert "store" in old_backup.linked(Role.ACTIVE, 1, overwrite=True)
    assert old_backup.roles.record.overwrite_due
    assert old_backup.roles.report.overwrite


def test_a_primary_that_is_to_overwrite_activates_instead_of_catching_up() -> None:
    scene = primary(replace(OUTDATED, overwrite_due=True)).started()
    scene.linked(Role.STANDBY, 2, eligible=False)
    assert scene.phase is Phase.ACTIVE


def test_a_primary_that_is_to_overwrite_does_not_take_the_role_from_an_active_backup_by_itself() -> None:
    scene = primary(replace(OUTDATED, overwrite_due=True)).started()
    scene.linked(Role.ACTIVE, 2)
    scene.reported(Role.ACTIVE, 2)
    assert scene.phase is Phase.STANDBY
    assert scene.after(1000) == []
    assert "failback" in scene.roles.reason
    assert "sync --dry-run" in scene.roles.reason
    assert scene.tell(told.FailbackOrdered()) == ["catch up"]


def test_an_overwrite_stays_due_on_the_primary_over_restarts_until_the_backup_follows() -> None:
    scene = linked_primary(replace(PRIMARY, overwrite_due=True))
    again = linked_primary(scene.roles.record)
    assert again.roles.record.overwrite_due
    again.tell(told.PeerFollows(5))
    assert not again.roles.record.overwrite_due


def test_an_overwrite_stays_due_on_the_backup_until_the_primary_knows_that_it_is_done() -> None:
    """The backup went first, and took over when the primary died: the primary came back to overwrite newer trees."""
    scene = linked_backup(replace(BACKUP, overwrite_due=True))
    scene.reported(Role.ACTIVE, 1, overwrite=True)
    scene.tell(COPYING, told.TreesComplete(1))
    assert scene.roles.record.overwrite_due
    again = backup(scene.roles.record).started()
    again.after(10 * TAKEOVER_S)
    assert again.phase is Phase.STANDBY
    scene.reported(Role.ACTIVE, 1, overwrite=False)
    assert not scene.roles.record.overwrite_due
    assert "start in term 2" in scene.lost(LinkLoss.GOODBYE)


def test_a_report_from_before_the_primary_knew_of_the_overwrite_does_not_end_it() -> None:
    scene = backup(replace(BACKUP, overwrite_due=True)).started()
    scene.linked(Role.STANDBY, 1)
    scene.reported(Role.STANDBY, 1)
    assert scene.roles.record.overwrite_due
    scene.reported(Role.ACTIVE, 1, overwrite=True)
    scene.reported(Role.ACTIVE, 1)
    assert not scene.roles.record.overwrite_due


def test_a_primary_that_was_brought_up_to_date_has_nothing_to_overwrite_any_more() -> None:
    scene = primary(replace(OUTDATED, overwrite_due=True)).started()
    scene.linked(Role.ACTIVE, 2)
    scene.tell(told.TreesComplete(2))
    assert not scene.roles.record.overwrite_due


def test_a_node_whose_record_was_lost_wants_no_overwrite_d8() -> None:
    lost = Record(mode="primary", term_lane=1, damaged=True)
    scene = primary(lost).started()
    assert not scene.roles.report.overwrite
    scene.linked(Role.STANDBY, 2)
    scene.reported(Role.STANDBY, 2)
    assert not scene.roles.record.overwrite_due
    assert scene.phase is Phase.CATCHING_UP


def test_a_changed_mode_wants_an_overwrite() -> None:
    scene = primary(BACKUP).started()
    assert scene.roles.report.overwrite
    scene.linked(Role.STANDBY, 1)
    assert scene.roles.record.overwrite_due
