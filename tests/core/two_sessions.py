"""Two sessions against each other in virtual time: bytes in random chunks, delays, cuts and stalls.

The worst order is the one that is played: a timer that is due goes before bytes that have arrived.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from agent.core.frames import FrameDecoder, encode_frame
from agent.core.messages import Authenticate, Hello, Message, decode_untrusted, encode
from agent.core.session import Credentials, Ended, Opened, Session, SessionEvent
from tests.core.samples import BACKUP, PRIMARY

EXPORTER = bytes(range(32))
MS = 1_000_000
SECOND = 1000 * MS
WALL_MS = 1_700_000_000_000


def framed(message: Message) -> bytes:
    """Returns the bytes of a message as they travel."""
    return encode_frame(encode(message))


def messages_in(data: bytes) -> list[Message | None]:
    """Returns the messages in bytes that a session wrote."""
    return [decode_untrusted(payload) for payload in FrameDecoder().feed_untrusted(data)]


def a_session(*, key: bytes = b"", exporter: bytes = EXPORTER, dialled: bool = True) -> Session:
    """Returns a session that has just begun, at time 0: the backup's if it dialled."""
    return Session(BACKUP if dialled else PRIMARY, Credentials(key, exporter, dialled), 0)


def an_open_session() -> Session:
    """Returns a backup's session that is open at time 0, with nothing left to send."""
    session = a_session()
    [opened] = session.receive_data(framed(Authenticate(1, 1, b"")) + framed(PRIMARY), 0)
    assert isinstance(opened, Opened)
    session.data_to_send()
    return session


def silent(session: Session, until_ns: int) -> tuple[int, Ended | None]:
    """Calls the timer whenever it is due, while nothing arrives; returns when and how that ended the session."""
    while (deadline_ns := session.next_deadline()) is not None and deadline_ns <= until_ns:
        for event in session.handle_timer(deadline_ns, WALL_MS):
            assert isinstance(event, Ended)
            return deadline_ns, event
    return until_ns, None


def with_times(hello: Hello, interval_ms: int, takeover_ms: int) -> Hello:
    """Returns the hello of a node with these timers."""
    return replace(hello, interval_ms=interval_ms, timeout_ms=takeover_ms, takeover_ms=takeover_ms)


@dataclass
class End:
    """One side, what reached it and what became of it."""

    session: Session
    wall_offset_ms: int = 0
    events: list[SessionEvent] = field(default_factory=list)
    sent: list[tuple[int, Message | None]] = field(default_factory=list)
    incoming: list[tuple[int, bytes]] = field(default_factory=list)
    cut: bool = False  # what it sends is lost
    stalled_until_ns: int = 0

    def next_ns(self) -> int | None:
        """Returns when it must be called, or None."""
        times = [
            each for each in (self.session.next_deadline(), *(at for at, _ in self.incoming[:1])) if each is not None
        ]
        return max(min(times), self.stalled_until_ns) if times else None

    def of(self, kind: type[SessionEvent]) -> list[SessionEvent]:
        """Returns its events of one kind."""
        return [each for each in self.events if isinstance(each, kind)]

    @property
    def ended(self) -> Ended:
        """How it ended; exactly once, and last."""
        assert [each for each in self.events if isinstance(each, Ended)] == self.events[-1:]
        ended = self.events[-1]
        assert isinstance(ended, Ended)
        return ended


class TwoSessions:
    """A primary that listens and a backup that dialled."""

    def __init__(
        self,
        primary: Hello = PRIMARY,
        backup: Hello = BACKUP,
        *,
        keys: tuple[bytes, bytes] = (b"", b""),
        exporters: tuple[bytes, bytes] = (EXPORTER, EXPORTER),
        latency_ns: int = 0,
        chance: random.Random | None = None,
    ) -> None:
        self.now_ns = SECOND
        self.latency_ns = latency_ns
        self._chance = chance
        sides = ((primary, keys[0], exporters[0], False), (backup, keys[1], exporters[1], True))
        self.primary, self.backup = (
            End(Session(hello, Credentials(key, exporter, dialled), self.now_ns))
            for hello, key, exporter, dialled in sides
        )
        self.flush()

    @property
    def ends(self) -> tuple[End, End]:
        """Both sides, the primary first."""
        return self.primary, self.backup

    def flush(self) -> None:
        """Hands what either side wants to send to the network."""
        for end, other in ((self.primary, self.backup), (self.backup, self.primary)):
            data = end.session.data_to_send()
            end.sent += [(self.now_ns, message) for message in messages_in(data)]
            while data and not end.cut:
                size = len(data) if self._chance is None else self._chance.choice((1, 2, 3, 50, len(data)))
                other.incoming.append((self.now_ns + self.latency_ns, data[:size]))
                data = data[size:]

    def run_until(self, until_ns: int) -> None:
        """Plays everything that happens until then, included."""
        while True:
            due = [(at, number) for number, end in enumerate(self.ends) if (at := end.next_ns()) is not None]
            if not due or min(due)[0] > until_ns:
                self.now_ns = max(self.now_ns, until_ns)
                return
            at, number = min(due)
            self.now_ns = max(self.now_ns, at)
            self._call(self.ends[number])
            self.flush()

    def run_for(self, duration_ns: int) -> None:
        """Plays everything that happens within that time."""
        self.run_until(self.now_ns + duration_ns)

    def open(self) -> TwoSessions:
        """Lets both sides greet; asserts that they did."""
        self.run_for(4 * self.latency_ns)
        for end in self.ends:
            assert end.of(Opened), end.events
        return self

    def _call(self, end: End) -> None:
        deadline_ns = end.session.next_deadline()
        if deadline_ns is not None and deadline_ns <= self.now_ns:
            wall_ms = WALL_MS + end.wall_offset_ms + self.now_ns // MS
            end.events += end.session.handle_timer(self.now_ns, wall_ms)
        while end.incoming and end.incoming[0][0] <= self.now_ns:
            end.events += end.session.receive_data(end.incoming.pop(0)[1], self.now_ns)
