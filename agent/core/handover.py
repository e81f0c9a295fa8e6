"""Moves the role between two linked nodes: invite, catch up, request, stop, release (PROTOCOL.md, section 7).

The node that will become active asks, the active one stops its workload before it releases the role. If the link dies
anywhere in between, a node that has not released goes on by the rules of `agent.core.settling`, and so does one that
was not given the release.
"""

from __future__ import annotations

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.messages import Invite, Refusal, Release, Request
from agent.core.role_ground import ANSWER_SLACK_NS, RETRY_NS, STANDBY_REASONS, STUCK_RETRY_MS, Intent
from agent.core.role_table import Cause, Phase
from agent.core.settling import Settling
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode, Role


class Handover(Settling):
    """The handover's part of the role machine; see the module."""

    def _caught_up(self, number: int, now_ns: int) -> None:
        if self.phase is not Phase.CATCHING_UP or number != self._order_number:
            return
        if self.peer is None or self.peer_hello is None:
            return
        self._stuck = ""
        if self.peer.role in (Role.ACTIVE, Role.STOPPING):
            self._enter(Phase.REQUESTING, Cause.CAUGHT_UP, "up to date; waiting for the other node to stop", now_ns)
            self._act_at_ns = now_ns + self.peer_hello.stop_timeout_ms * NANOSECONDS_PER_MILLISECOND + ANSWER_SLACK_NS
            self._effects.append(do.Tell(self._asking))
        elif self._settings.mode is Mode.PRIMARY and not self.record.maintenance and not self.obstacle:
            self._activate(Cause.CAUGHT_UP, "up to date, and the backup is not active", now_ns)
        else:
            self._enter(Phase.STANDBY, Cause.CAUGHT_UP, "up to date, but nobody is active", now_ns)
            self._settle(Cause.PEER_REPORTED, now_ns)

    def _catch_up_failed(self, number: int, reason: str, now_ns: int) -> None:
        if self.phase is Phase.CATCHING_UP and number == self._order_number:
            self._enter(Phase.STANDBY, Cause.CATCH_UP_FAILED, f"bringing this node up to date failed: {reason}", now_ns)
            self._retry_at_ns = now_ns + RETRY_NS
            self._stuck = reason
            self._effects.append(do.Tell(Refusal(self.reason, 0)))
            self._settle(Cause.PEER_REPORTED, now_ns)

    def _invited_by_peer(self, invite: Invite, now_ns: int) -> None:
        if self.phase is not Phase.STANDBY or self.peer is None:
            self._effects.append(do.Tell(Refusal(f"it is {self.phase.value}, not on standby", 0)))
        elif self.obstacle or (self.workload_failed and not invite.planned):
            self._effects.append(do.Tell(Refusal(self.obstacle or "its workload fails too", 0)))
        else:
            self._catch_up(Cause.ASKED, Request(invite.planned, invite.hold, invite.reason), now_ns)

    def _requested(self, request: Request, now_ns: int) -> None:
        if self.phase in (Phase.STEPPING_DOWN, Phase.FINISHING) and self._intent is not Intent.REJOIN:
            return  # a release, a goodbye or a new report follows
        refusal = None
        if self.phase is not Phase.ACTIVE:
            refusal = Refusal(f"it is not active but {self.role.value}", 0)
        elif not request.planned and self._invited is None:
            wait_ms = self._damper.wait_ns(now_ns) // NANOSECONDS_PER_MILLISECOND
            if self.record.hold:
                refusal = Refusal("it keeps the role until failback", 0)
            elif self.record.maintenance:
                refusal = Refusal("maintenance is on", 0)
            elif wait_ms:
                times = self._damper.recent(now_ns)
                refusal = Refusal(f"it waits {wait_ms // 1000 + 1} s after {times} takeovers in 10 minutes", wait_ms)
        if refusal:
            self._announce("handover-refused", f"the other node's request for the role was refused: {refusal.reason}")
            self._effects.append(do.Tell(refusal))
            return
        self._asking = request
        self._step_down(Intent.RELEASE, Cause.ASKED, f"handing over: {request.reason}", now_ns)

    def _released(self, release: Release, now_ns: int) -> None:
        if self.peer is None or self.phase in (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING, Phase.STOPPED):
            return
        if self._settings.mode is Mode.PRIMARY and self._released_term is not None:
            return  # two releases crossed, and the primary's counts: the other node becomes active by it
        if self.obstacle:
            self._effects.append(do.Tell(Refusal(self.obstacle, 0, release.term)))
            return
        hold = release.hold and self._settings.mode is Mode.BACKUP
        self._activate(Cause.RELEASED, f"handed over by the other node: {release.reason}", now_ns, hold=hold)

    def _refused(self, refusal: Refusal, now_ns: int) -> None:
        if refusal.release_term == self._released_term:
            self._released_term = None
            self._explain(f"the other node did not take the role: {refusal.reason}")
            fit = not (self.obstacle or self._stuck)
            if self._settings.mode is Mode.PRIMARY and self.phase is Phase.STANDBY and fit:
                self._activate(Cause.PEER_REFUSED, self.reason, now_ns)
        elif self.phase is Phase.REQUESTING:
            self._enter(Phase.STANDBY, Cause.PEER_REFUSED, f"the other node keeps the role: {refusal.reason}", now_ns)
            self._act_at_ns = None
            self._retry_at_ns = now_ns + (refusal.retry_ms * NANOSECONDS_PER_MILLISECOND or RETRY_NS)
        elif self._invited is not None:
            self._invited = None
            self._announce("handover-refused", f"the other node does not take the role: {refusal.reason}")

    def _handover_ordered(self, *, to_backup: bool, now_ns: int) -> None:
        """Failover or failback: the node that will become active asks; the active one invites it to."""
        mode, peer = self._settings.mode, self.peer
        word, back = ("failover", "failback") if to_backup else ("failback", "failover")
        taking = (mode is Mode.BACKUP) == to_backup
        reason = f"{word} ordered by an operator"
        if mode is Mode.STAND_ALONE:
            self._answer(False, "this node is stand-alone: there is no other node to hand over to")
        elif peer is None:
            self._answer(
                False, f"there is no link to the other node, so {word} would only stop the workload: {self.reason}"
            )
        elif taking and self.phase is Phase.ACTIVE:
            self._answer(False, f"this node is active already; `pair-agent {back}` moves the role to the other node")
        elif taking and (self.obstacle or self.concern):
            self._answer(False, f"this node should not become active: {self.obstacle or self.concern}")
        elif taking and self.phase is Phase.STANDBY and peer.role is Role.ACTIVE:
            self._answer(True, f"{word} has begun")
            self.workload_failed = False
            self._catch_up(Cause.ORDERED, Request(planned=True, hold=to_backup, reason=reason), now_ns)
        elif not taking and self.phase is Phase.ACTIVE and (peer.obstacle or not peer.eligible):
            self._answer(False, f"the other node should not become active: {peer.obstacle}")
        elif not taking and self.phase is Phase.ACTIVE:
            self._answer(True, f"{word} has begun")
            self._invite(Invite(planned=True, hold=to_backup, reason=reason))
        else:
            other = f"this node is {self.role.value}, the other is {peer.role.value}"
            self._answer(False, f"{word} moves the role from an active node to one on standby, but {other}")

    def _workload_gave_up(self, reason: str) -> None:
        if self.phase is not Phase.ACTIVE:
            return
        self.workload_failed = True
        self._explain(f"the workload fails: {reason}")
        self._offer_failed_workload()

    def _frozen(self, reason: str, now_ns: int) -> None:
        if self.phase is Phase.ACTIVE and self._settings.mode is not Mode.STAND_ALONE:
            self._announce("agent-was-frozen", f"{reason}; the workload is stopped and the other node is asked first")
            self._step_down(Intent.START_AFRESH, Cause.FROZEN, reason, now_ns)
            self._effects.append(do.DropLink(reason))
            self.peer = None
        elif self.phase in (Phase.STEPPING_DOWN, Phase.FINISHING):
            if self._intent is not Intent.EXIT:
                self._intent = Intent.START_AFRESH
            self._effects.append(do.DropLink(reason))
            self.peer = None
        elif self.phase in (Phase.AWAITING_PEER, Phase.STANDBY, Phase.CATCHING_UP, Phase.REQUESTING):
            self._ask_afresh(reason, now_ns)

    def _ask_afresh(self, reason: str, now_ns: int) -> None:
        """Trusts nothing that was heard before a freeze: drops the link and grants the other node its time anew."""
        primary = self._settings.mode is Mode.PRIMARY
        waited = self.peer is not None or self._act_at_ns is not None or self._postponed is not None
        self.peer, self._released_term, self._retry_at_ns, self._postponed = None, None, None, None
        self._effects.append(do.DropLink(reason))
        if self.phase in (Phase.CATCHING_UP, Phase.REQUESTING):
            self._enter(Phase.AWAITING_PEER if primary else Phase.STANDBY, Cause.FROZEN, reason, now_ns)
        if waited:
            waiting = self.phase is Phase.AWAITING_PEER
            self._act_at_ns = now_ns + (self._settings.initial_standby_ns if waiting else self._patience_ns)

    def _workload_ended(self, now_ns: int) -> None:
        if self.phase is not Phase.STEPPING_DOWN:
            return
        if self._intent in (Intent.RELEASE, Intent.EXIT):
            self._enter(Phase.FINISHING, Cause.WORKLOAD_ENDED, "sending the last changes", now_ns)
            self._order_number += 1
            self._effects.append(do.SendFinalChanges(self._order_number))
            return
        if self._intent is Intent.START_AFRESH and self._settings.mode is Mode.PRIMARY:
            self._enter(Phase.AWAITING_PEER, Cause.WORKLOAD_ENDED, "asking the backup after a freeze", now_ns)
            self._act_at_ns = now_ns + self._settings.initial_standby_ns if self.peer is None else None
            self._settle(Cause.PEER_REPORTED, now_ns)
            return
        self._stand_by(Cause.WORKLOAD_ENDED, now_ns)

    def _final_changes_sent(self, fact: told.FinalChangesSent, now_ns: int) -> None:
        if self.phase is not Phase.FINISHING or fact.number != self._order_number:
            return
        if fact.undelivered and self._intent is Intent.RELEASE and self.peer is not None:
            reason = f"the last changes could not be brought over: {fact.undelivered}"
            self._announce("handover-refused", reason)
            self._effects.append(do.Tell(Refusal(reason, STUCK_RETRY_MS)))
            self._damper.note_unplanned_activation(now_ns)
            self._activate(Cause.FINAL_CHANGES_STUCK, reason, now_ns)
            return
        if fact.undelivered:
            self._announce("final-changes-undelivered", f"not on the other node: {fact.undelivered}")
        if self._intent is Intent.EXIT:
            self._leave(Cause.FINAL_CHANGES_SENT, now_ns)
            return
        self._stand_by(Cause.FINAL_CHANGES_SENT, now_ns)

    def _stand_by(self, cause: Cause, now_ns: int) -> None:
        """Enters STANDBY with a stopped workload, after an intent other than to exit."""
        intent = self._intent
        if intent is Intent.RELEASE:
            self._store(released=True, hold=False)
            self._enter(Phase.STANDBY, cause, f"handed over: {self._asking.reason}", now_ns)
            self._released_term = self.record.term
            self._effects.append(do.Tell(Release(self.record.term, self._asking.hold, self._asking.reason)))
            return
        if intent is Intent.YIELD:
            self._store(released=True, hold=False)
        self._enter(Phase.STANDBY, cause, STANDBY_REASONS[intent], now_ns)
        if self.peer is not None:
            self._settle(Cause.PEER_REPORTED, now_ns)
        else:
            self._act_at_ns = now_ns + self._patience_ns
