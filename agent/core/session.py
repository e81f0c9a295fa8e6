"""One connection between two agents, from the first frame to the last (PROTOCOL.md, sections 4 to 6).

Fed with bytes and time, asked for bytes, events and the next deadline. Knows nothing of TLS, sockets or roles. A fault
of the peer ends the session with an event; it never raises out of `receive_data` or `handle_timer`.

    AUTHENTICATING --Authenticate--> GREETING --Hello--> OPEN --Goodbye, Close, fault, silence, end--> CLOSED

Invariants: nothing but Authenticate and Close is understood before the proof is verified, nothing but Hello and Close
before OPEN; after CLOSED nothing is sent and no event follows the Ended one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256

from agent.core.compatibility import (
    PROTOCOL_VERSION_MAX,
    PROTOCOL_VERSION_MIN,
    CloseCode,
    common_version,
    contradiction,
    pair_id_of,
)
from agent.core.errors import PeerError
from agent.core.frames import FrameDecoder, encode_frame
from agent.core.lease import send_interval_ns
from agent.core.messages import (
    Authenticate,
    Close,
    Goodbye,
    Heartbeat,
    Hello,
    Invite,
    Message,
    Probe,
    ProbeEcho,
    Refusal,
    Release,
    Report,
    ReportChanged,
    Request,
    decode_untrusted,
    encode,
)
from agent.core.session_events import (
    Asked,
    EndCause,
    Ended,
    Opened,
    PeerReported,
    ProbeReturned,
    SessionEvent,
)
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode

__all__ = [
    "Asked",
    "Credentials",
    "EndCause",
    "Ended",
    "Opened",
    "PeerReported",
    "ProbeReturned",
    "Session",
    "SessionEvent",
    "State",
]

GREETING_NS = 5_000_000_000  # from the end of the TLS handshake until both hellos are exchanged
STALL_MIN_NS = 5_000_000  # a timer later than this was late by our own fault
BEATS_PER_SILENCE_MIN = 3  # own heartbeats while the peer may be silent: each timer shows that this node did not stall
SMOOTHING = 8  # weight of the past in the round-trip time, as in RFC 6298
OUTGOING_BYTES_MAX = 1024 * 1024  # a peer that does not read may hold this much of ours


class State(Enum):
    """Where a session stands."""

    AUTHENTICATING = "authenticating"
    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True)
class Credentials:
    """What the proof of the pre-shared key is made of.

    `exporter` is 32 bytes of keying material of this very TLS connection (RFC 8446, 7.5), so that a proof is worth
    nothing on another one; `dialled` is True on the side that opened the connection.
    """

    pre_shared_key: bytes
    exporter: bytes
    dialled: bool

    def proof(self, *, by_dialler: bool) -> bytes:
        """Returns the 32 bytes that show knowledge of the key, or nothing when none is configured."""
        if not self.pre_shared_key:
            return b""
        side = b"dialler" if by_dialler else b"listener"
        return hmac.digest(self.pre_shared_key, b"pair-agent/1 " + side + b"\0" + self.exporter, "sha256")


class Session:
    """The protocol on one authenticated connection; see the module."""

    def __init__(
        self,
        hello: Hello,
        credentials: Credentials,
        now_ns: int,
        current_report: Callable[[], Report] | None = None,
    ) -> None:
        """`hello` is sent when the peer has authenticated, with what `current_report` says then: a decision that is
        made already but not yet stored must not be missing in it, because the peer acts on it."""
        self._hello = hello
        self._current_report = current_report or (lambda: self._report)
        self._credentials = credentials
        self._decoder = FrameDecoder()
        self._outgoing = bytearray()
        self._state = State.AUTHENTICATING
        self._report: Report = hello.report
        self._silence_ns = min(hello.timeout_ms, hello.takeover_ms) * NANOSECONDS_PER_MILLISECOND
        self._send_interval_ns = hello.interval_ms * NANOSECONDS_PER_MILLISECOND
        self._greet_by_ns = now_ns + GREETING_NS
        self._send_at_ns = 0
        self._silent_at_ns = 0
        self._stalled = False
        self._overflowing = False
        self._wall_clock_ms, self._wall_clock_read_ns = hello.wall_clock_ms, now_ns
        self._echo_ns = 0
        self._echo_received_ns = 0
        self.peer: Hello | None = None
        self.peer_report: Report | None = None
        self.last_received_ns = now_ns
        self.round_trip_ns: int | None = None
        self.heartbeats_received = 0
        self.clock_difference_ms = 0
        self._send(
            Authenticate(
                version_min=PROTOCOL_VERSION_MIN,
                version_max=PROTOCOL_VERSION_MAX,
                proof=credentials.proof(by_dialler=credentials.dialled),
            )
        )

    @property
    def dialled(self) -> bool:
        """Whether this side opened the connection."""
        return self._credentials.dialled

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    def data_to_send(self) -> bytes:
        """Returns, and forgets, the bytes that must go out next; after CLOSED only what was said before the end."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def next_deadline(self) -> int | None:
        """Returns when `handle_timer` must be called next, or None when the session is over."""
        if self._state is State.CLOSED:
            return None
        return min(self._send_at_ns, self._silent_at_ns) if self._state is State.OPEN else self._greet_by_ns

    def receive_data(self, data: bytes | bytearray | memoryview, now_ns: int) -> list[SessionEvent]:
        """Takes bytes from the peer, in any chunks, and returns what follows from them."""
        events: list[SessionEvent] = []
        if self._state is State.CLOSED:
            return events
        try:
            for payload in self._decoder.feed_untrusted(data):
                message = decode_untrusted(payload)
                self._alive(now_ns)
                if message is not None:
                    events += self._receive(message, now_ns)
                if events and isinstance(events[-1], Ended):
                    break
        except PeerError as error:
            return [*events, self._refuse(EndCause.FAULT, error.code, str(error))]
        return events + self._overflow()

    def receive_end(self, sentence: str) -> list[SessionEvent]:
        """Takes note that nothing more will come from the peer; `sentence` says how the stream ended."""
        if self._state is State.CLOSED:
            return []
        return [self._end(EndCause.CLOSED, "closed", sentence)]

    def receive_refusal(self, code: str, sentence: str) -> list[SessionEvent]:
        """Takes note that the layer below says that the peer refuses this node: in TLS 1.3 a certificate is judged
        after the side that dialled believes the handshake over (RFC 8446, 4.4.2.4)."""
        if self._state is State.CLOSED:
            return []
        return [self._end(EndCause.REFUSED_BY_PEER, code, sentence)]

    def handle_timer(self, now_ns: int, wall_clock_ms: int) -> list[SessionEvent]:
        """Sends what is due and notices silence. A call that comes later than `next_deadline` asked for grants the
        peer a little more time first: what it sent meanwhile may lie unread, and nobody is condemned on stale evidence.
        """
        self._wall_clock_ms, self._wall_clock_read_ns = wall_clock_ms, now_ns
        if self._state is State.CLOSED:
            return []
        if self._state is not State.OPEN:
            if now_ns < self._greet_by_ns:
                return []
            return [self._refuse(EndCause.FAULT, CloseCode.PROTOCOL.value, "the other node did not say hello in time")]
        if now_ns >= self._silent_at_ns:
            late_ns = now_ns - min(self._send_at_ns, self._silent_at_ns)
            if late_ns > max(STALL_MIN_NS, self._silence_ns // 10) and not self._stalled:
                self._stalled = True
                self._silent_at_ns = now_ns + max(STALL_MIN_NS, self._silence_ns // 4)
            else:
                silent_ms = (now_ns - self.last_received_ns) // NANOSECONDS_PER_MILLISECOND
                return [self._refuse(EndCause.SILENCE, CloseCode.SILENCE.value, f"no frame for {silent_ms} ms")]
        if now_ns >= self._send_at_ns:
            self._beat(now_ns)
        return self._overflow()

    def tell(self, message: Invite | Request | Release | Refusal) -> None:
        """Sends a message of the roles."""
        if self._state is State.OPEN:
            self._send(message)

    def publish(self, report: Report) -> None:
        """Tells the peer at once when the node's own report changed."""
        if report == self._report:
            return
        self._report = report
        if self._state is State.OPEN:
            self._send(ReportChanged(report))

    def probe(self, now_ns: int) -> None:
        """Asks for an echo; ProbeReturned follows."""
        if self._state is State.OPEN:
            self._send(Probe(now_ns))

    def say_goodbye(self, reason: str) -> None:
        """Ends the session in good order."""
        if self._state is State.OPEN:
            self._send(Goodbye(reason))
        self._state = State.CLOSED

    def abandon(self) -> None:
        """Ends the session without a word."""
        self._outgoing.clear()
        self._state = State.CLOSED

    def leave(self, code: CloseCode, sentence: str) -> None:
        """Ends the session and tells the peer why."""
        if self._state is not State.CLOSED:
            self._send(Close(code.value, sentence))
        self._state = State.CLOSED

    def _alive(self, now_ns: int) -> None:
        self.last_received_ns = now_ns
        self._silent_at_ns = now_ns + self._silence_ns
        self._stalled = False

    def _receive(self, message: Message, now_ns: int) -> list[SessionEvent]:
        if isinstance(message, Close):
            sentence = f"the other node ended the connection: {message.sentence}"
            return [self._end(EndCause.REFUSED_BY_PEER, message.code, sentence)]
        if self._state is State.AUTHENTICATING:
            return self._receive_authenticate(message, now_ns)
        if self._state is State.GREETING:
            return self._receive_hello(message, now_ns)
        return self._receive_open(message, now_ns)

    def _receive_authenticate(self, message: Message, now_ns: int) -> list[SessionEvent]:
        if not isinstance(message, Authenticate):
            raise PeerError(f"the other node sent {type(message).__name__} before it authenticated")
        own, offered = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX), (message.version_min, message.version_max)
        if common_version(own, offered) is None:
            sentence = (
                f"no common protocol version: here {own[0]} to {own[1]}, there {offered[0]} to {offered[1]}; "
                "install the same pair-agent version on both nodes"
            )
            return [self._refuse(EndCause.REFUSED_HERE, CloseCode.VERSION.value, sentence)]
        expected = self._credentials.proof(by_dialler=not self._credentials.dialled)
        if not hmac.compare_digest(expected, message.proof):
            sentence = "the pre-shared keys differ; set the same pre_shared_key in [security] on both nodes"
            if not expected:
                sentence = "one node has a pre_shared_key in [security] and the other has none; set the same on both"
            elif not message.proof:
                sentence = "one node has no pre_shared_key in [security] and the other has one; set the same on both"
            return [self._refuse(EndCause.REFUSED_HERE, CloseCode.PRE_SHARED_KEY.value, sentence)]
        self._state = State.GREETING
        self._hello = replace(self._hello, report=self._current_report(), wall_clock_ms=self._wall_ms(now_ns))
        self._report = self._hello.report
        self._send(self._hello)
        return []

    def _receive_hello(self, message: Message, now_ns: int) -> list[SessionEvent]:
        if not isinstance(message, Hello):
            raise PeerError(f"the other node sent {type(message).__name__} before its hello")
        if refused := contradiction(self._hello, message):
            return [self._refuse(EndCause.REFUSED_HERE, refused[0].value, refused[1])]
        self.peer, self.peer_report = message, message.report
        self._state = State.OPEN
        patience_ns = min(message.timeout_ms, message.takeover_ms) * NANOSECONDS_PER_MILLISECOND
        self._send_interval_ns = send_interval_ns(
            min(self._send_interval_ns, self._silence_ns // BEATS_PER_SILENCE_MIN), patience_ns
        )
        self.clock_difference_ms = message.wall_clock_ms - self._wall_ms(now_ns)
        self._beat(now_ns)
        if self._report != self._hello.report:
            self._send(ReportChanged(self._report))
        primary_first = (self._hello, message) if self._hello.mode is Mode.PRIMARY else (message, self._hello)
        digest = sha256(primary_first[0].pair_nonce + primary_first[1].pair_nonce).digest()
        return [Opened(message, pair_id_of(self._hello, message, digest), self.clock_difference_ms)]

    def _receive_open(self, message: Message, now_ns: int) -> list[SessionEvent]:
        match message:
            case Heartbeat():
                self._receive_heartbeat(message, now_ns)
                return self._receive_report(message.report)
            case ReportChanged():
                return self._receive_report(message.report)
            case Invite() | Request() | Release() | Refusal():
                return [Asked(message)]
            case Probe():
                self._send(ProbeEcho(message.sent_ns))
                return []
            case ProbeEcho():
                return [ProbeReturned(max(0, now_ns - message.sent_ns))]
            case Goodbye():
                return [self._end(EndCause.GOODBYE, "goodbye", f"the other node stopped: {message.reason}")]
            case _:
                raise PeerError(f"the other node sent {type(message).__name__} twice")

    def _receive_heartbeat(self, message: Heartbeat, now_ns: int) -> None:
        self.heartbeats_received += 1
        self._echo_ns, self._echo_received_ns = message.sent_ns, now_ns
        sample_ns = now_ns - message.echo_ns - message.held_ns
        if message.echo_ns and sample_ns >= 0:
            past_ns = sample_ns if self.round_trip_ns is None else self.round_trip_ns
            self.round_trip_ns = (past_ns * (SMOOTHING - 1) + sample_ns) // SMOOTHING
            self.clock_difference_ms = (
                message.wall_clock_ms + sample_ns // 2 // NANOSECONDS_PER_MILLISECOND - self._wall_ms(now_ns)
            )

    def _receive_report(self, report: Report) -> list[SessionEvent]:
        if report == self.peer_report:
            return []
        self.peer_report = report
        return [PeerReported(report)]

    def _beat(self, now_ns: int) -> None:
        self._send_at_ns += self._send_interval_ns
        if not now_ns < self._send_at_ns <= now_ns + self._send_interval_ns:
            self._send_at_ns = now_ns + self._send_interval_ns
        held_ns = now_ns - self._echo_received_ns if self._echo_ns else 0
        self._send(Heartbeat(now_ns, self._echo_ns, held_ns, self._wall_ms(now_ns), self._report))

    def _wall_ms(self, now_ns: int) -> int:
        return self._wall_clock_ms + (now_ns - self._wall_clock_read_ns) // NANOSECONDS_PER_MILLISECOND

    def _send(self, message: Message) -> None:
        if len(self._outgoing) > OUTGOING_BYTES_MAX:
            self._overflowing = True
            return
        self._outgoing += encode_frame(encode(message))

    def _overflow(self) -> list[SessionEvent]:
        if not self._overflowing or self._state is State.CLOSED:
            return []
        self._outgoing.clear()
        return [
            self._end(EndCause.FAULT, CloseCode.PROTOCOL.value, "the other node asks but does not read the answers")
        ]

    def _refuse(self, cause: EndCause, code: str, sentence: str) -> Ended:
        self._send(Close(code, sentence))
        return self._end(cause, code, sentence)

    def _end(self, cause: EndCause, code: str, sentence: str) -> Ended:
        self._state = State.CLOSED
        return Ended(cause, code, sentence)
