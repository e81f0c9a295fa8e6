"""Who is active: the decisions of one node (the table of its phases is `agent.core.role_table`).

Fed with inputs and time, answers with effects in an order that is a contract (`agent.core.effects`). Knows nothing of
clocks, sockets, files or processes. The decisions stand in three rooms: `agent.core.settling` (link and takeover),
`agent.core.handover`, and here beginning, end, timers and orders.

Invariants:
* the workload is ordered to start only in `_activate`, after a term above every known one was ordered to be stored;
* while the two nodes are linked and neither is active, the primary alone decides which becomes so;
* a node that gives or loses the role stops its workload before it says so.
"""

from __future__ import annotations

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.handover import Handover
from agent.core.messages import Invite, Refusal, Release, Request
from agent.core.record import INCOMPLETE_CHARACTERS_MAX
from agent.core.role_ground import RETRY_NS, Intent, RoleSettings
from agent.core.role_table import Cause, Phase
from agent.core.tree_versions import TreeVersion, followed, merged, offered
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode, Role, TimeoutPolicy

__all__ = ["RoleSettings", "Roles"]


class Roles(Handover):
    """The role machine of one node; see the module."""

    def handle(self, fact: told.Input, now_ns: int) -> list[do.Effect]:
        """Takes one input and returns what must be done, in order."""
        self._effects = []
        match fact:
            case told.TimerFired():
                self._timer_fired(now_ns)
            case told.PeerReported():
                self._peer_reported(fact.report, now_ns)
            case told.PeerAsked(message=Request() as message):
                self._requested(message, now_ns)
            case told.PeerAsked(message=Release() as message):
                self._released(message, now_ns)
            case told.PeerAsked(message=Invite() as message):
                self._invited_by_peer(message, now_ns)
            case told.PeerAsked(message=Refusal() as message):
                self._refused(message, now_ns)
            case told.LinkOpened():
                self._link_opened(fact, now_ns)
            case told.LinkLost():
                self._link_lost(fact, now_ns)
            case told.PeerProvenGone():
                if self.phase is Phase.STANDBY and self.peer is None:
                    self._take_over(
                        Cause.PEER_GONE, "the primary's agent is gone: its port refuses connections", now_ns
                    )
            case told.PeerHeard():
                self._peer_heard(fact, now_ns)
            case told.ContactMade():
                self._contact_made(now_ns)
            case told.ContactRefused():
                self._contact_refused(fact.sentence, now_ns)
            case told.WorkloadChanged():
                self.workload = fact.state
            case told.WorkloadEnded():
                self._workload_ended(now_ns)
            case told.WorkloadGaveUp():
                self._workload_gave_up(fact.reason)
            case told.Frozen():
                self._frozen(fact.reason, now_ns)
            case told.CaughtUp():
                self._caught_up(fact.number, now_ns)
            case told.CatchUpFailed():
                self._catch_up_failed(fact.number, fact.reason, now_ns)
            case told.FinalChangesSent():
                self._final_changes_sent(fact, now_ns)
            case told.FailoverOrdered() | told.FailbackOrdered():
                self._handover_ordered(to_backup=isinstance(fact, told.FailoverOrdered), now_ns=now_ns)
            case told.MaintenanceOrdered():
                self._maintenance_ordered(fact.on, now_ns)
            case told.StopOrdered():
                self._stop_ordered(now_ns)
            case told.Started():
                self._started(now_ns)
            case told.TreesHindered() | told.TreesIncomplete() | told.TreesComplete():
                self._trees_changed(fact, now_ns)
            case told.PeerFollows() | told.TreesOffered():
                self._trees_changed(fact, now_ns)
        return self._finished()

    def _started(self, now_ns: int) -> None:
        mode = self._settings.mode
        if self.record.mode != mode.value:
            unproven = self.record.paired and mode is not Mode.STAND_ALONE
            self._store(mode=mode.value, hold=False, mode_unproven=unproven)
        if self._settings.force_activate:
            term = max(self.record.term, self._settings.term_floor if self.record.damaged else 0)
            if lack := self._lack_of_trees or self.trees_obstacle:
                self._announce("trees-incomplete", f"forced to become active, although {lack}")
            self._store(damaged=False, mode_unproven=False, incomplete="", overwrite_due=False, term=term)
            self._activate(Cause.STARTED, "an operator forced this node to become active", now_ns)
        elif mode is Mode.STAND_ALONE and not self.obstacle:
            self._activate(Cause.STARTED, "this node is stand-alone", now_ns)
        elif mode is Mode.PRIMARY:
            self._enter(Phase.AWAITING_PEER, Cause.STARTED, "waiting for the backup, which may hold newer data", now_ns)
            self._act_at_ns = now_ns + self._settings.initial_standby_ns
        else:
            self._enter(Phase.STANDBY, Cause.STARTED, "looking for the primary", now_ns)
            self._act_at_ns = now_ns + self._settings.contact_ns
        if self.obstacle and self.phase is not Phase.ACTIVE:
            self._explain(f"this node cannot become active: {self.obstacle}")

    def _trees_changed(
        self,
        fact: told.TreesHindered | told.TreesIncomplete | told.TreesComplete | told.PeerFollows | told.TreesOffered,
        now_ns: int,
    ) -> None:
        """Takes what is known of the trees, and does what only they stood in the way of."""
        hindered = bool(self.obstacle)
        match fact:
            case told.TreesHindered():
                self.trees_obstacle = fact.obstacle
            case told.TreesIncomplete():
                self._store(incomplete=fact.reason[:INCOMPLETE_CHARACTERS_MAX] or "a copy is not finished")
            case told.TreesComplete():
                source = TreeVersion(fact.term)
                self._note_version(merged(source) if fact.merged else followed(source))
                # A backup's overwrite is over when the primary says so: see _peer_reported.
                due = self.record.overwrite_due and self._settings.mode is Mode.BACKUP
                self._store(incomplete="", overwrite_due=due)
            case told.PeerFollows() if self.peer is not None:  # one that lags behind the loss of the link is void
                if fact.term == self.record.data_term:
                    self._note_version(followed(self.record.version))
                    self._store(overwrite_due=False)
            case told.TreesOffered():
                self._note_version(offered(self.record.version, fact.peer))
        if not hindered or self.obstacle or self.phase not in (Phase.STANDBY, Phase.AWAITING_PEER):
            return
        postponed, self._postponed = self._postponed, None
        if self._settings.mode is Mode.STAND_ALONE:
            self._activate(Cause.TREES_USABLE, "this node is stand-alone", now_ns)
        elif self.peer is not None:
            self._settle(Cause.TREES_USABLE, now_ns)
        elif postponed is not None and self.phase is Phase.AWAITING_PEER:
            self._nobody_came(now_ns, Cause.TREES_USABLE)
        elif postponed is not None:
            self._take_over(Cause.TREES_USABLE, postponed, now_ns)

    def _stop_ordered(self, now_ns: int) -> None:
        if self.phase is Phase.ACTIVE:
            self._step_down(Intent.EXIT, Cause.STOP_ORDERED, "the agent is stopping", now_ns)
        elif self.phase in (Phase.STEPPING_DOWN, Phase.FINISHING):
            self._intent = Intent.EXIT
        elif self.phase is not Phase.STOPPED:
            self._leave(Cause.STOP_ORDERED, now_ns)

    def _timer_fired(self, now_ns: int) -> None:
        if self._retry_at_ns is not None and now_ns >= self._retry_at_ns:
            self._retry_at_ns = None
            self._settle(Cause.PEER_REPORTED, now_ns)
        if self._act_at_ns is None or now_ns < self._act_at_ns:
            return
        late_ns, self._act_at_ns = now_ns - self._act_at_ns, None
        waiting = self.phase in (Phase.AWAITING_PEER, Phase.STANDBY)
        if waiting and late_ns > self._settings.contact_ns // 4 and not self._was_late:
            # This node itself did not run: what it should have heard meanwhile is not there yet.
            self._was_late, self._act_at_ns = True, now_ns + self._settings.contact_ns
            return
        self._was_late = False
        if self.phase is Phase.AWAITING_PEER:
            self._nobody_came(now_ns)
        elif self.phase is Phase.REQUESTING and self.peer is not None and self.peer.role is Role.STOPPING:
            self._act_at_ns = now_ns + RETRY_NS  # it heard, and is sending its last changes, which can take long
        elif self.phase is Phase.REQUESTING:
            self._enter(
                Phase.STANDBY, Cause.NO_ANSWER, "the other node did not answer the request for the role", now_ns
            )
            self._retry_at_ns = now_ns + RETRY_NS
        elif self.phase is Phase.STANDBY and self.peer is None:
            other = "primary" if self._settings.mode is Mode.BACKUP else "backup"
            self._take_over(Cause.PEER_SILENT, f"the {other} cannot be reached", now_ns)

    def _nobody_came(self, now_ns: int, cause: Cause = Cause.NOBODY_CAME) -> None:
        policy, outdated = self._settings.on_initial_standby_timeout, self.record.outdated
        waited = f"nobody connected within {self._settings.initial_standby_ns // NANOSECONDS_PER_MILLISECOND} ms"
        if self.obstacle:
            self._postponed = waited
            self._explain(f"{waited}; this node cannot become active: {self.obstacle}")
        elif now_ns < self._greeting_until_ns:
            self._act_at_ns = self._greeting_until_ns
            self._explain(f"{waited}; but somebody connects now")
        elif self.record.maintenance and not self._was_last_active:
            self._explain(f"{waited}; maintenance is on")
        elif policy is TimeoutPolicy.WAIT or (policy is TimeoutPolicy.WAIT_IF_OUTDATED and outdated):
            why = "the backup was active after this node" if outdated else 'on_initial_standby_timeout = "wait"'
            self._explain(f"{waited}; still waiting for the backup: {why}")
            self._announce("not-eligible", self.reason)
        else:
            self._activate(cause, f"{waited}: activated without resync", now_ns)
            lost = "; what the backup wrote after this node was active is missing here" if outdated else ""
            self._announce("activated-without-resync", f"{waited}: activated without resync{lost}")

    def _maintenance_ordered(self, on: bool, now_ns: int) -> None:
        self._store(maintenance=on, maintenance_revision=self.record.maintenance_revision + 1)
        self._announce("maintenance-changed", f"maintenance is {'on' if on else 'off'}, ordered here")
        self._answer(True, f"maintenance is {'on: no automatic role change' if on else 'off'}")
        self._maintenance_changed(now_ns)
        self._settle(Cause.ORDERED, now_ns)

    def _maintenance_changed(self, now_ns: int) -> None:
        waiting = self.phase in (Phase.STANDBY, Phase.AWAITING_PEER) and self.peer is None
        if waiting and not self.record.maintenance and self._act_at_ns is None:
            self._act_at_ns = now_ns + self._settings.contact_ns
