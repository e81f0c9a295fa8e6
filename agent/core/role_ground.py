"""What every decision of a node rests on: its state, what it tells of itself, and the few steps it can take.

Knows which steps there are and what belongs to each, not when to take them: that is `agent.core.settling` (link and
takeover), `agent.core.handover` and `agent.core.roles`. Every change of phase goes through `_enter`, which admits only
rows of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from agent.core import effects as do
from agent.core.damping import Damper
from agent.core.messages import Hello, Invite, Report, Request
from agent.core.record import Record, next_term
from agent.core.role_table import ROLE_OF, TRANSITIONS, Cause, Phase
from agent.core.tree_versions import TreeVersion, written
from agent.core.vocabulary import Mode, Role, TimeoutPolicy, WorkloadState

ANSWER_SLACK_NS = 5_000_000_000  # beyond the peer's stop_timeout, until a request counts as unanswered
RETRY_NS = 5_000_000_000  # until a handover that failed is tried again
STUCK_RETRY_MS = 30_000  # after one that cost the workload a stop: its last changes could not be brought over


class Intent(Enum):
    """Why a node is stepping down, that is: what follows when its workload has ended."""

    RELEASE = "release"  # the peer asked for the role
    REJOIN = "rejoin"  # the peer that asked is gone
    YIELD = "yield"  # both were active
    START_AFRESH = "start afresh"  # this node was frozen
    EXIT = "exit"


STANDBY_REASONS = {
    Intent.REJOIN: "the link was lost during the handover",
    Intent.YIELD: "the other node is active",
    Intent.START_AFRESH: "asking the other node after a freeze",
}


@dataclass(frozen=True)
class RoleSettings:
    """What of the configuration matters here; `takeover_ns` is how much silence means that the peer is gone."""

    mode: Mode
    initial_standby_ns: int
    on_initial_standby_timeout: TimeoutPolicy
    takeover_ns: int
    contact_ns: int  # how long a backup tries to reach the primary: connection_timeout
    force_activate: bool = False
    trees: bool = False  # something is replicated
    term_floor: int = 0  # above every term there can have been, for a forced node that lost its record


class RoleGround:
    """State and steps of the role machine of one node; see the module."""

    def __init__(self, settings: RoleSettings, record: Record, now_ns: int) -> None:
        self._settings = settings
        self.record = record
        self.phase = Phase.STARTING
        self.reason = "the agent is starting"
        self.since_ns = now_ns
        self.peer: Report | None = None  # while linked
        self.peer_hello: Hello | None = None  # the last one
        self.workload = WorkloadState.STOPPED
        self.workload_failed = False
        self.trees_obstacle = ""  # why the trees cannot be used at this moment
        self.concern = ""  # what is known to go wrong if this node became active; it does so all the same
        self._damper = Damper()
        self._postponed: str | None = None  # why it would have become active, had an obstacle not been
        self._order_number = 0  # of the last CatchUp or SendFinalChanges
        self._overwrite_seen = False  # the peer said on this link that an overwrite is due
        self._stuck = ""  # why the last catch-up on this link failed; empty: it did not
        self._intent = Intent.EXIT
        self._invited: Invite | None = None  # by this node, while it is active
        self._asking = Request(planned=False, hold=False, reason="")  # what this node will ask for, or asks
        self._released_term: int | None = None  # given to the linked peer, which has neither taken nor refused yet
        self._greeting_until_ns = now_ns  # until then a connection may become the link
        self._was_late = False  # at the last timer
        self._both_active_told = False  # on this link
        self._act_at_ns: int | None = None  # end of initial standby, takeover, or an unanswered request
        self._retry_at_ns: int | None = None  # not before this is a handover asked for again
        self._heard_ns: int | None = None  # when a beacon of an active peer came last
        self._rival_since_ns: int | None = None  # since when beacons say that both are active
        self._published: Report | None = None
        self._effects: list[do.Effect] = []

    @property
    def role(self) -> Role:
        """The role that the phase shows as."""
        waiting = Role.INITIAL_STANDBY if self._settings.mode is Mode.PRIMARY else Role.STANDBY
        return ROLE_OF.get(self.phase, waiting)

    @property
    def report(self) -> Report:
        """What this node tells the other of itself."""
        obstacle = self.obstacle
        half_way = self._settings.trees and bool(self.record.incomplete)
        return Report(
            role=self.role,
            term=self.record.term,
            active_term=0 if half_way else self.record.active_term,  # nothing newer can be taken from half a copy
            eligible=not obstacle,
            obstacle=obstacle or self.concern,
            workload_failed=self.workload_failed,
            hold=self.record.hold and self.phase is Phase.ACTIVE,
            maintenance=self.record.maintenance,
            maintenance_revision=self.record.maintenance_revision,
            workload=self.workload,
            overwrite=self._settings.trees and self.record.wants_overwrite,
        )

    @property
    def obstacle(self) -> str:
        """Why this node could not become active at all; empty if it could."""
        if self.record.damaged:
            return "its state file was lost, and the other node has not told it the last term yet"
        if self.record.mode_unproven:
            return "its mode was changed, and it has not met the other node since; `run --force-activate` skips that"
        if self._settings.mode is Mode.BACKUP and not self.record.paired:
            return "it was never connected to its primary"
        if lack := self._lack_of_trees:
            return f"{lack}; `run --force-activate` runs on what is there"
        return self.trees_obstacle

    @property
    def _lack_of_trees(self) -> str:
        """What the trees here lack, so that no workload may run on them; empty: nothing."""
        record = self.record
        if not self._settings.trees:
            return ""
        if record.incomplete:
            return f"its trees are incomplete: {record.incomplete}"
        # A pair that ran before it had trees, or a record that was lost: nothing tells that they were ever copied.
        never_copied = record.data_term == 0 and not self._was_last_active
        if self._settings.mode is Mode.BACKUP and (record.overwrite_due or never_copied):
            return "the first copy of the primary's trees is not finished"
        return ""

    @property
    def inviting(self) -> bool:
        """Whether this active node has invited the other to take over and not heard back."""
        return self._invited is not None

    def next_deadline(self) -> int | None:
        """Returns when TimerFired must be told next, or None."""
        return min((each for each in (self._act_at_ns, self._retry_at_ns) if each is not None), default=None)

    def damped_ns(self, now_ns: int) -> int:
        """Returns how long the next undesired role change would be held back."""
        return self._damper.wait_ns(now_ns)

    # -- steps

    def _activate(self, cause: Cause, reason: str, now_ns: int, *, hold: bool = False) -> None:
        term = next_term(self.record)
        self.workload_failed = False
        self._released_term = None
        self._postponed = None
        self._stuck = ""
        self._act_at_ns = self._retry_at_ns = None
        self._store(term=term, active_term=term, released=False, hold=hold)
        if self._settings.trees:
            self._note_version(written(self.record.version, term))
        self._enter(Phase.ACTIVE, cause, reason, now_ns)
        self._effects.append(do.StartWorkload(term))

    @property
    def _was_last_active(self) -> bool:
        return self.record.active_term > 0 and not self.record.outdated

    def _catch_up(self, cause: Cause, request: Request, now_ns: int) -> None:
        self._asking = request
        self._act_at_ns = self._retry_at_ns = None
        self._enter(Phase.CATCHING_UP, cause, f"bringing this node up to date: {request.reason}", now_ns)
        self._order_number += 1
        self._effects.append(do.CatchUp(self._order_number))

    def _invite(self, invite: Invite) -> None:
        self._invited = invite
        self._effects.append(do.Tell(invite))

    def _offer_failed_workload(self) -> None:
        """Invites the other node to take over what fails here, if it can."""
        peer = self.peer
        if peer is not None and peer.eligible and not peer.workload_failed and not self.record.maintenance:
            hold = self._settings.mode is Mode.PRIMARY
            self._invite(Invite(planned=False, hold=hold, reason="the workload failed where it ran"))

    def _step_down(self, intent: Intent, cause: Cause, reason: str, now_ns: int) -> None:
        self._intent = intent
        self._invited = None
        self._enter(Phase.STEPPING_DOWN, cause, reason, now_ns)
        self._effects.append(do.StopWorkload())

    def _leave(self, cause: Cause, now_ns: int) -> None:
        self._enter(Phase.STOPPED, cause, "the agent stopped", now_ns)
        self._effects += [do.SayGoodbye("its agent was stopped"), do.Exit()]

    # -- bookkeeping

    def _adopt(self, record: Record) -> None:
        before = self.record
        if record != before:
            self.record = record
            self._effects.append(do.Store(record))
        if record.maintenance != before.maintenance:
            self._announce(
                "maintenance-changed", f"maintenance is {'on' if record.maintenance else 'off'}, told by the peer"
            )

    def _store(self, **changes: object) -> None:
        record = replace(self.record, **changes)  # type: ignore[arg-type]  # names and types are those of Record
        if record != self.record:
            self.record = record
            self._effects.append(do.Store(record))

    def _note_version(self, version: TreeVersion) -> None:
        self._store(
            data_term=version.data_term,
            data_alone=version.alone,
            base_term=version.base_term,
            offered_term=version.offered_term,
        )

    def _enter(self, phase: Phase, cause: Cause, reason: str, now_ns: int) -> None:
        assert (self.phase, cause, phase) in TRANSITIONS, f"no row for {self.phase} -{cause}-> {phase}"
        before = self.role
        self.phase, self.reason, self.since_ns = phase, reason, now_ns
        if self.role is not before:
            self._effects.append(do.RoleChanged(before, self.role, self.record.term, reason))

    def _explain(self, reason: str) -> None:
        self.reason = reason

    def _announce(self, code: str, sentence: str) -> None:
        self._effects.append(do.Announce(code, sentence))

    def _answer(self, accepted: bool, sentence: str) -> None:
        self._effects.append(do.Answer(accepted, sentence))

    def _finished(self) -> list[do.Effect]:
        """Returns the collected effects, durable things first and the report right after them."""
        stores = [each for each in self._effects if isinstance(each, do.Store)]
        others = [each for each in self._effects if not isinstance(each, do.Store)]
        report = self.report
        changed = report != self._published
        self._published = report
        return [*stores[-1:], *([do.Publish(report)] if changed else []), *others]
