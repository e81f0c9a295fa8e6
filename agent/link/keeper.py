"""Keeps at most one link: builds sessions on verified streams, chooses between two, and tells the roles what happened.

The winner between two connections of the peer is the same on both nodes: of one run of its agent the later connection
wins, for the peer made it because it gave the earlier one up. A connection from another run wins unless the present
link is alive, since then two agents use one identity. Replacing a link is no loss of it. Knows nothing of how streams
come about, nor of what the roles decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.core import inputs as told
from agent.core.compatibility import CloseCode
from agent.core.messages import Hello, Report
from agent.core.session import (
    Asked,
    Credentials,
    EndCause,
    Ended,
    Opened,
    PeerReported,
    Session,
    SessionEvent,
    State,
)
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND
from agent.link.beacons import Beacons, beacon_keys
from agent.link.bulk import link_key
from agent.link.connection import Connection, Watchers
from agent.link.tls import TlsStream
from agent.platform.clock import boottime_ns, wall_ms

EXPORTER_LABEL = b"EXPORTER-pair-agent-pre-shared-key"
EXPORTER_BYTES = 32

LOSSES = {
    EndCause.GOODBYE: told.LinkLoss.GOODBYE,
    EndCause.SILENCE: told.LinkLoss.SILENCE,
    EndCause.REFUSED_BY_PEER: told.LinkLoss.REFUSED,
    EndCause.REFUSED_HERE: told.LinkLoss.REFUSED,
    EndCause.FAULT: told.LinkLoss.CLOSED,
    EndCause.CLOSED: told.LinkLoss.CLOSED,
}
LOSSES_BY_CODE = {CloseCode.SILENCE.value: told.LinkLoss.CLOSED}  # it will take the link again at once


class LinkOwner(Protocol):
    """Whom the keeper tells; called in the trio thread, must not block."""

    def hello(self) -> Hello:
        """Returns what this node says of itself on a new connection."""

    def report(self) -> Report:
        """Returns what this node is at this instant, decisions that are not stored yet included."""

    def pre_shared_key(self) -> bytes:
        """Returns the configured key, or nothing."""

    def tell(self, fact: told.Input) -> None:
        """Takes an input for the roles."""

    def overrun(self) -> bool:
        """Returns whether more facts wait than a correct peer could bring about."""

    def link_event(self, code: str, sentence: str) -> None:
        """Takes an event for the log."""

    def sent(self, before_ns: int) -> None:
        """Takes a time before which the last frame on the link went out."""


@dataclass(frozen=True)
class LinkStatus:
    """What status shows of the link; `since_ns` of the boot clock."""

    linked: bool
    address: str
    round_trip_ns: int | None
    since_ns: int | None
    last_error: str
    clock_difference_ms: int | None


class LinkKeeper:
    """At most one link at a time; see the module."""

    def __init__(self, owner: LinkOwner, beacons: Beacons) -> None:
        self._owner = owner
        self._beacons = beacons
        self._link: Connection | None = None
        self._running: set[Connection] = set()
        self._last_error = ""
        self._last_address = ""
        self.linked_before = False  # in this run of the agent
        self.linked_at_ns: int | None = None  # when the present link came up

    @property
    def link(self) -> Connection | None:
        """The connection that is the link now."""
        return self._link

    @property
    def status(self) -> LinkStatus:
        """What status shows."""
        link = self._link
        if link is None:
            return LinkStatus(False, self._last_address, None, None, self._last_error, None)
        session = link.session
        return LinkStatus(
            True, link.address, session.round_trip_ns, self.linked_at_ns, self._last_error, session.clock_difference_ms
        )

    def note_failure(self, sentence: str) -> None:
        """Takes why there is no link, for status; tells the log when it is news."""
        if sentence != self._last_error and self._link is None:
            self._owner.link_event("link-down", sentence)
        self._last_error = sentence

    def note_refusal(self, sentence: str) -> None:
        """Takes that somebody was refused, for status only: it may have been the other node."""
        if self._link is None:
            self._last_error = sentence

    async def run_stream(self, stream: TlsStream, address: str, *, dialled: bool) -> bool:
        """Runs the protocol on a verified stream until it ends; returns whether it ever was the link."""
        credentials = Credentials(
            self._owner.pre_shared_key(), stream.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES), dialled
        )
        session = Session(self._owner.hello(), credentials, boottime_ns(), self._owner.report)
        session.handle_timer(boottime_ns(), wall_ms())
        bulk_key = link_key(stream)
        watchers, keys = Watchers(self._on_met, self._on_event, self._on_sent), beacon_keys(stream, dialled=dialled)
        connection = Connection(stream, session, watchers, address, keys, bulk_key)
        self._running.add(connection)
        try:
            await connection.run()
        finally:
            self._running.discard(connection)
        return session.peer is not None

    def publish(self, report: Report) -> None:
        """Tells every peer, also one whose hello is still awaited, what this node is now."""
        for connection in self._running:
            connection.publish(report)

    def drop(self, sentence: str) -> None:
        """Closes the link, and what might become it, without a word and without telling the roles, who ordered it."""
        link, self._link, self.linked_at_ns = self._link, None, None
        for connection in self._running:
            connection.drop()
        if link is not None:
            self._beacons.hurry()
            self._last_error = sentence
            self._owner.link_event("link-down", f"the link was dropped here: {sentence}")

    def _on_met(self) -> None:
        self._owner.tell(told.ContactMade())

    def _on_sent(self, connection: Connection, before_ns: int) -> None:
        if connection is self._link:
            self._owner.sent(before_ns)

    def _on_event(self, connection: Connection, event: SessionEvent) -> None:
        if isinstance(event, Opened):
            self._opened(connection, event)
        elif isinstance(event, Ended) and connection is not self._link:
            self._never_linked(connection, event)
        elif connection is not self._link:
            return  # its place was taken
        elif isinstance(event, PeerReported | Asked) and self._owner.overrun():
            # A correct peer sends one of these a heartbeat at most; memory is not to hang on its correctness.
            connection.leave(CloseCode.PROTOCOL, "more messages than can be handled")
            self._lost(connection, Ended(EndCause.FAULT, CloseCode.PROTOCOL.value, "the other node sent too much"))
        elif isinstance(event, PeerReported):
            self._owner.tell(told.PeerReported(event.report))
        elif isinstance(event, Asked):
            self._owner.tell(told.PeerAsked(event.message))
        elif isinstance(event, Ended):
            self._lost(connection, event)

    def _opened(self, connection: Connection, event: Opened) -> None:
        present = self._link
        if present is not None and not _wins(connection.session, present.session):
            sentence = f"another agent that calls itself {event.peer.name!r} holds the link and is alive"
            self._owner.link_event("peer-refused", f"a second connection from {connection.address}: {sentence}")
            connection.leave(CloseCode.DUPLICATE, sentence)
            return
        self._link, self._last_address, self.linked_before = connection, connection.address, True
        self.linked_at_ns = boottime_ns()
        self._last_error = ""
        self._beacons.begin(connection.beacon_keys)
        if present is not None:
            present.leave(CloseCode.REPLACED, "a newer connection took its place")
        self._owner.link_event("link-up", f"linked with {event.peer.name} ({connection.address})")
        self._owner.tell(told.LinkOpened(event.peer, event.pair_id))

    def _lost(self, connection: Connection, event: Ended) -> None:
        self._link = self.linked_at_ns = None
        self._beacons.hurry()
        self._last_error = event.sentence
        loss = LOSSES[event.cause]
        if event.cause is EndCause.REFUSED_BY_PEER:
            loss = LOSSES_BY_CODE.get(event.code, told.LinkLoss.REFUSED)
        self._owner.link_event("link-down", f"the link is down: {event.sentence}")
        self._owner.tell(told.LinkLost(loss, connection.session.last_received_ns, event.sentence))

    def _never_linked(self, connection: Connection, event: Ended) -> None:
        if connection.session.dialled:
            self.note_failure(event.sentence)
        else:
            self.note_refusal(event.sentence)
        # Who was dialled and refuses lives; whoever dialled may be anybody, and who breaks the protocol may be broken.
        if connection.session.dialled and event.cause in (EndCause.REFUSED_BY_PEER, EndCause.REFUSED_HERE):
            self._owner.tell(told.ContactRefused(event.sentence))


def _wins(newcomer: Session, present: Session) -> bool:
    """Returns whether the newcomer takes the place of the present link."""
    if newcomer.peer is None or present.peer is None or present.state is State.CLOSED:
        return True
    if newcomer.peer.instance == present.peer.instance:
        return newcomer.peer.connection_number > present.peer.connection_number
    alive_ns = 2 * present.peer.interval_ms * NANOSECONDS_PER_MILLISECOND
    return newcomer.last_received_ns - present.last_received_ns > alive_ns
