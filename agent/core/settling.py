"""Decides by the link: what two linked nodes do, and what one does that lost the other.

Invariant: while the two nodes are linked and neither is active, the primary alone decides which becomes so; the backup
becomes active by itself only without a link.
"""

from __future__ import annotations

from dataclasses import replace

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.agreement import agreed_record
from agent.core.messages import Release, Report, Request
from agent.core.role_ground import Intent, RoleGround
from agent.core.role_table import Cause, Phase
from agent.core.session import GREETING_NS
from agent.core.tree_versions import went_on_alone
from agent.core.vocabulary import Mode, Role


class Settling(RoleGround):
    """The link's part of the role machine; see the module."""

    def _link_opened(self, fact: told.LinkOpened, now_ns: int) -> None:
        self.peer, self.peer_hello = fact.peer.report, fact.peer
        self._published = None  # the hello may be older than what is true now
        self._greeting_until_ns = now_ns
        self._both_active_told = False
        self._released_term = None
        self._invited = None
        self._retry_at_ns = None
        self._postponed = None
        self._stuck = ""
        self._overwrite_seen = fact.peer.report.overwrite
        mode, trees = self._settings.mode, self._settings.trees
        self._adopt(agreed_record(self.record, fact.peer, fact.pair_id, own_mode=mode, trees=trees))
        if self.phase in (Phase.STANDBY, Phase.AWAITING_PEER):
            self._act_at_ns = None
            self._explain(f"connected to {fact.peer.name}")
        elif self.phase in (Phase.CATCHING_UP, Phase.REQUESTING):
            self._enter(Phase.STANDBY, Cause.LINK_OPENED, "a new connection: beginning anew", now_ns)
        elif self._intent is Intent.RELEASE:
            self._intent = Intent.REJOIN
        self._settle(Cause.LINK_OPENED, now_ns)

    def _peer_reported(self, report: Report, now_ns: int) -> None:
        if self.peer is None or self.peer_hello is None:
            return
        self.peer = report
        if report.role is Role.ACTIVE:
            self._released_term = None
        self._adopt(
            agreed_record(self.record, replace(self.peer_hello, report=report), b"", own_mode=self._settings.mode)
        )
        if self._overwrite_seen and not report.overwrite and self._settings.mode is Mode.BACKUP:
            # The primary has noted that this node has everything. Had this one gone first, and the primary not learned
            # of it, a returning primary would wait to overwrite what was written here since.
            self._store(overwrite_due=False)
        self._overwrite_seen = report.overwrite
        self._settle(Cause.PEER_REPORTED, now_ns)

    def _link_lost(self, fact: told.LinkLost, now_ns: int) -> None:
        self.peer = None
        self._released_term = None
        self._invited = None
        self._retry_at_ns = None
        self._rival_since_ns = None
        self._postponed = None
        if self._settings.trees and self.phase in (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING):
            self._note_version(went_on_alone(self.record.version))
        if self.phase is Phase.ACTIVE:
            return
        if self.phase in (Phase.STEPPING_DOWN, Phase.FINISHING):
            if self._intent is Intent.RELEASE:
                self._intent = Intent.REJOIN
            return
        if self.phase is Phase.REQUESTING and fact.loss is told.LinkLoss.GOODBYE and not self.obstacle:
            self._activate(Cause.PEER_LEFT, "the other node stopped in good order", now_ns)
            return
        if self.phase in (Phase.CATCHING_UP, Phase.REQUESTING):
            primary = self._settings.mode is Mode.PRIMARY
            phase = Phase.AWAITING_PEER if primary else Phase.STANDBY
            self._enter(phase, Cause.LINK_LOST, f"the link was lost during the handover: {fact.sentence}", now_ns)
        elif self.phase is Phase.STANDBY and self._settings.mode is Mode.PRIMARY and self._stuck and self._is_behind:
            # What the backup wrote was to come here and did not yet: it is waited for as at the beginning.
            reason = f"the link was lost before this node was up to date: {fact.sentence}"
            self._enter(Phase.AWAITING_PEER, Cause.LINK_LOST, reason, now_ns)
        if self.phase is Phase.AWAITING_PEER:
            self._act_at_ns = now_ns + self._settings.initial_standby_ns
        elif self.phase is Phase.STANDBY:
            self._standby_lost_link(fact, now_ns)

    @property
    def _is_behind(self) -> bool:
        """Whether the other node wrote its trees in a term that this node's never came to."""
        return self._settings.trees and self.record.data_term < self.record.peer_active_term

    def _standby_lost_link(self, fact: told.LinkLost, now_ns: int) -> None:
        loss = fact.loss
        self._act_at_ns = None
        if loss is told.LinkLoss.GOODBYE:
            self._take_over(Cause.PEER_LEFT, f"the other node said goodbye ({fact.sentence})", now_ns)
        elif loss is told.LinkLoss.SILENCE and self._heard_lately(now_ns):
            self._wait_for_rival(now_ns)
        elif loss is told.LinkLoss.SILENCE:
            self._take_over(Cause.PEER_SILENT, fact.sentence, now_ns)
        elif loss is told.LinkLoss.REFUSED:
            self._contact_refused(fact.sentence, now_ns)
        else:
            self._explain(f"the link was lost: {fact.sentence}")
            # A loss can be learned of late, because this node itself was: there is always time for another contact.
            late = now_ns - fact.last_received_ns > self._patience_ns
            counted_ns = (now_ns if late else fact.last_received_ns) + self._patience_ns
            self._act_at_ns = max(counted_ns, now_ns + self._patience_ns // 2)

    # -- beacons: the peer without a link

    def _peer_heard(self, fact: told.PeerHeard, now_ns: int) -> None:
        """Takes a beacon of a peer that has no link. Where packets are lost in one direction only, both nodes can be
        active, or about to be: the one that is not heard yields, for only it can know."""
        self._heard_ns = now_ns if fact.active else None
        if self.peer is not None or not fact.active:
            self._rival_since_ns = None
        elif self.phase in (Phase.STANDBY, Phase.AWAITING_PEER):
            self._wait_for_rival(now_ns)
        elif self.phase is Phase.ACTIVE and fact.hears and self._settings.mode is Mode.PRIMARY:
            self._rival_since_ns = None  # it hears this node, and yields
        elif self.phase is Phase.ACTIVE:
            self._rival_since_ns = self._rival_since_ns or now_ns
            # A beacon can be ahead of the link, or of the peer's next one: only one that persists is believed.
            if now_ns - self._rival_since_ns >= self._settings.takeover_ns:
                self._rival_since_ns = None
                self._announce("both-active", "both nodes are active, and packets are lost one way; this one yields")
                reason = "the other node is active and cannot hear this one"
                self._step_down(Intent.YIELD, Cause.RIVAL_HEARD, reason, now_ns)

    def _heard_lately(self, now_ns: int) -> bool:
        return self._heard_ns is not None and now_ns - self._heard_ns < self._settings.takeover_ns

    def _wait_for_rival(self, now_ns: int) -> None:
        self._explain("the other node is active, as its beacons say, but packets are lost; waiting for the link")
        self._act_at_ns = max(self._act_at_ns or 0, now_ns + self._patience_ns)
        self._postponed = None

    @property
    def _patience_ns(self) -> int:
        """For how long a node on standby waits for a link that was lost without silence."""
        return self._settings.takeover_ns if self._settings.mode is Mode.PRIMARY else self._settings.contact_ns

    def _contact_made(self, now_ns: int) -> None:
        """The peer may act on this node's hello before its own arrives: until then nothing is done by the clock."""
        self._greeting_until_ns = now_ns + GREETING_NS
        if self.phase in (Phase.STANDBY, Phase.AWAITING_PEER) and self._act_at_ns is not None and self.peer is None:
            self._act_at_ns = max(self._act_at_ns, self._greeting_until_ns)

    def _contact_refused(self, sentence: str, now_ns: int) -> None:
        if self.phase is Phase.STANDBY and self.peer is None:
            self._explain(f"the other node lives, but there is no link: {sentence}")
            self._act_at_ns = now_ns + self._settings.contact_ns
            self._postponed = None

    def _settle(self, cause: Cause, now_ns: int) -> None:
        """Decides what two linked nodes do; called whenever what is known of the peer changed."""
        peer = self.peer
        if peer is None:
            return
        if self.phase is Phase.ACTIVE and peer.role is Role.ACTIVE:
            self._both_active(now_ns)
        if self.phase is Phase.ACTIVE and self.workload_failed and self._invited is None:
            self._offer_failed_workload()
        if self._settings.mode is not Mode.PRIMARY:
            return
        idle = peer.role not in (Role.ACTIVE, Role.STOPPING)
        if self.phase is Phase.CATCHING_UP and idle and peer.active_term <= self.record.active_term:
            reason = "the other node's trees are incomplete: nothing newer can be taken from them"
            self._enter(Phase.STANDBY, Cause.CATCH_UP_FAILED, reason, now_ns)
        if self.phase not in (Phase.AWAITING_PEER, Phase.STANDBY):
            return
        if peer.role is Role.ACTIVE:
            self._settle_beside_active(peer, cause, now_ns)
        elif peer.role is not Role.STOPPING and self._released_term is None:
            self._settle_with_nobody_active(peer, cause, now_ns)

    def _settle_beside_active(self, peer: Report, cause: Cause, now_ns: int) -> None:
        if peer.hold:
            waiting = "the backup is active and keeps the role until failback"
        elif self.record.maintenance:
            waiting = "the backup is active, and maintenance is on"
        elif self._settings.trees and self.record.overwrite_due:
            waiting = (
                "the backup is active, and this primary is to overwrite its trees with its own: `failback` does both, "
                "`sync --dry-run` shows what would change"
            )
        elif self._retry_at_ns is not None:
            return
        else:
            self._catch_up(cause, Request(planned=False, hold=False, reason="the primary is back"), now_ns)
            return
        if self.phase is Phase.AWAITING_PEER:
            self._enter(Phase.STANDBY, cause, waiting, now_ns)
        self._explain(waiting)
        self._act_at_ns = None

    def _settle_with_nobody_active(self, peer: Report, cause: Cause, now_ns: int) -> None:
        give = Release(term=self.record.term, hold=False, reason="")
        if self.record.maintenance and self._was_last_active and self.obstacle:
            self._stay(cause, f"it was active before, and maintenance is on, but {self.obstacle}", now_ns)
        elif self.record.maintenance and self._was_last_active:
            self._activate(cause, "it was active before, and maintenance is on", now_ns)
        elif self.record.maintenance:
            give = replace(give, reason="it was active before, and maintenance is on")
            self._give(peer, give, cause, now_ns) if peer.active_term else self._stay(
                cause, "maintenance is on", now_ns
            )
        elif self.obstacle or (self.workload_failed and peer.eligible and not peer.workload_failed):
            why = self.obstacle or "its workload fails"
            self._give(peer, replace(give, reason=f"the primary cannot become active: {why}"), cause, now_ns)
        elif peer.active_term > self.record.active_term and not self.record.overwrite_due:
            self._settle_behind(peer, cause, now_ns)
        else:
            self._activate(cause, "the backup is connected and holds nothing newer", now_ns)

    def _settle_behind(self, peer: Report, cause: Cause, now_ns: int) -> None:
        """The backup was active last: it goes on if this node cannot be brought up to date."""
        if self._stuck and peer.eligible and not peer.workload_failed:
            reason = f"the primary cannot be brought up to date: {self._stuck}"
            self._give(peer, Release(term=self.record.term, hold=False, reason=reason), cause, now_ns)
        elif not self._stuck or self._retry_at_ns is None:
            self._catch_up(cause, Request(planned=False, hold=False, reason="the backup was active last"), now_ns)

    def _stay(self, cause: Cause, reason: str, now_ns: int) -> None:
        if self.phase is Phase.AWAITING_PEER:
            self._enter(Phase.STANDBY, cause, reason, now_ns)
        self._explain(reason)

    def _give(self, peer: Report, release: Release, cause: Cause, now_ns: int) -> None:
        self._stay(cause, release.reason, now_ns)
        if peer.eligible:
            self._released_term = release.term
            self._store(released=True)
            self._effects.append(do.Tell(release))

    def _both_active(self, now_ns: int) -> None:
        own, peer = self.record.active_term, self.peer.active_term if self.peer else 0
        if not self._both_active_told:
            self._both_active_told = True
            self._announce("both-active", f"both nodes were active (terms {own} here, {peer} there); the primary stays")
        if self._settings.mode is Mode.BACKUP:
            self._step_down(Intent.YIELD, Cause.BOTH_ACTIVE, "both nodes were active; the primary stays", now_ns)

    def _take_over(self, cause: Cause, reason: str, now_ns: int) -> None:
        """Becomes active because the peer is gone, unless something forbids it."""
        if obstacle := self.obstacle:
            self._act_at_ns = None
            self._postponed = reason
            reason = f"{reason}; this node cannot take over: {obstacle}"
            if reason != self.reason:
                self._announce("not-eligible", reason)
            self._explain(reason)
            return
        if self.record.maintenance and not self._was_last_active:
            self._act_at_ns = None
            self._explain(f"{reason}; no takeover, because maintenance is on")
            return
        if now_ns < self._greeting_until_ns:
            self._act_at_ns = self._greeting_until_ns
            self._explain(f"{reason}; but somebody answers there")
            return
        wait_ns = self._damper.wait_ns(now_ns) if cause is Cause.PEER_SILENT else 0
        if wait_ns:
            self._act_at_ns = now_ns + wait_ns
            seconds = -(-wait_ns // 1_000_000_000)
            times = self._damper.recent(now_ns)
            self._explain(f"{reason}; takeover is held back for {seconds} s after {times} takeovers in 10 minutes")
            self._announce("takeover-damped", self.reason)
            return
        if cause is not Cause.PEER_LEFT:
            self._damper.note_unplanned_activation(now_ns)
        self._activate(cause, f"takeover: {reason}", now_ns)
