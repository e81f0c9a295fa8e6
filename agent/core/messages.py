"""The messages of the link and their exact shape (PROTOCOL.md, section 3).

A payload is a msgpack array `[kind, fields]`; `fields` is a map. Each message is a frozen dataclass whose
annotations, with the bounds below, are its wire shape: `decode_untrusted` admits nothing else. Unknown kinds decode
to None and unknown fields are dropped, so that a newer peer may say more. Knows nothing of sessions or roles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, TypeAlias

import msgpack

from agent.core.errors import PeerError
from agent.core.vocabulary import Mode, Role, WorkloadState

TEXT_CHARACTERS_MAX = 500
ENTRIES_MAX = 64
INTEGER_MAX = 2**63 - 1
COUNTER_MAX = 2**53 - 1
DURATION_MS_MAX = 24 * 3600 * 1000
TOKEN_BYTES = 16
PROOF_BYTES = 32

# Shapes narrower than their Python type; the annotation of a field names what `decode_untrusted` admits.
DurationMs: TypeAlias = int  # 0 to DURATION_MS_MAX: it is added to clocks and handed to operating systems
Lane: TypeAlias = int  # 0 or 1
Counter: TypeAlias = int  # 0 to COUNTER_MAX: far from where adding one would leave what can be sent
Token: TypeAlias = bytes  # TOKEN_BYTES
TokenOrEmpty: TypeAlias = bytes
ProofOrEmpty: TypeAlias = bytes  # PROOF_BYTES or empty


@dataclass(frozen=True)
class Report:
    """What a node tells the other of itself, in the hello, in every heartbeat and at every change."""

    role: Role
    term: Counter  # the highest term this node has seen or used
    active_term: Counter  # the term of this node's own last activation; 0: never
    eligible: bool  # could it become active
    obstacle: str  # if not, why; if so, what would go wrong nevertheless; empty: nothing known
    workload_failed: bool  # its workload gave up here; only an operator moves the role to it
    hold: bool  # active and kept active until failback
    maintenance: bool
    maintenance_revision: Counter  # the higher revision's `maintenance` holds for both nodes
    workload: WorkloadState
    overwrite: bool = False  # the primary's trees are to replace the backup's


@dataclass(frozen=True)
class Authenticate:
    """First message of both sides: protocol versions offered, and the proof of the pre-shared key."""

    version_min: int
    version_max: int
    proof: ProofOrEmpty  # 32 bytes of HMAC-SHA256 (section 4), or empty: no pre-shared key configured


@dataclass(frozen=True)
class Hello:
    """Second message of both sides: who this is and how it is configured."""

    name: str
    mode: Mode
    agent_version: str
    workload_version: str
    instance: Token  # 16 random bytes, new at every start of the agent
    connection_number: int  # grows with every connection that this instance makes
    pair_id: TokenOrEmpty  # 16 bytes, or empty: never paired
    pair_nonce: Token  # 16 random bytes for making a pair id
    term_lane: Lane  # 0: even terms, 1: odd terms
    interval_ms: DurationMs
    timeout_ms: DurationMs
    takeover_ms: DurationMs  # the shortest silence after which this node would take over
    stop_timeout_ms: DurationMs
    wall_clock_ms: int
    report: Report
    workload_kind: str = ""  # for people: what the node would start; the two should be the same


@dataclass(frozen=True)
class Heartbeat:
    """Sent at least every interval; its times are of the sender's own clock and mean nothing to the receiver."""

    sent_ns: int
    echo_ns: int  # `sent_ns` of the last heartbeat received, 0: none yet
    held_ns: int  # how long ago that one was received
    wall_clock_ms: int
    report: Report


@dataclass(frozen=True)
class ReportChanged:
    """The sender's report changed; sent at once."""

    report: Report


@dataclass(frozen=True)
class Invite:
    """The active node asks the standby to take over; it goes on until it is asked in turn."""

    planned: bool  # by an operator
    hold: bool  # stay active there until failback
    reason: str


@dataclass(frozen=True)
class Request:
    """The standby, up to date, asks the active node to stop its workload and release the role."""

    planned: bool
    hold: bool
    reason: str


@dataclass(frozen=True)
class Release:
    """The sender's workload is stopped and its last changes are sent: the receiver may become active."""

    term: int  # the term that ended
    hold: bool
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A request, an invitation or a release is not followed."""

    reason: str
    retry_ms: DurationMs  # ask again not earlier than this; 0: when the report changes
    release_term: int = 0  # `term` of the Release that is not followed; 0: it was a Request or an Invite


@dataclass(frozen=True)
class Goodbye:
    """The sender stops in good order: its workload is stopped, its last changes are sent."""

    reason: str


@dataclass(frozen=True)
class Close:
    """The sender ends this connection; `code` is one of CloseCode's values, `sentence` is for people."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Probe:
    """Asks for an echo at once: a measurement that changes nothing."""

    sent_ns: int


@dataclass(frozen=True)
class ProbeEcho:
    """The answer to a probe, its time returned."""

    sent_ns: int


class Kind(IntEnum):
    """The first element of a payload."""

    AUTHENTICATE = 1
    HELLO = 2
    HEARTBEAT = 3
    REPORT_CHANGED = 4
    INVITE = 5
    REQUEST = 6
    RELEASE = 7
    REFUSAL = 8
    GOODBYE = 9
    CLOSE = 10
    PROBE = 11
    PROBE_ECHO = 12


Message: TypeAlias = (
    Authenticate
    | Hello
    | Heartbeat
    | ReportChanged
    | Invite
    | Request
    | Release
    | Refusal
    | Goodbye
    | Close
    | Probe
    | ProbeEcho
)

SHAPES: Mapping[Kind, type[Message]] = {
    Kind.AUTHENTICATE: Authenticate,
    Kind.HELLO: Hello,
    Kind.HEARTBEAT: Heartbeat,
    Kind.REPORT_CHANGED: ReportChanged,
    Kind.INVITE: Invite,
    Kind.REQUEST: Request,
    Kind.RELEASE: Release,
    Kind.REFUSAL: Refusal,
    Kind.GOODBYE: Goodbye,
    Kind.CLOSE: Close,
    Kind.PROBE: Probe,
    Kind.PROBE_ECHO: ProbeEcho,
}
_KINDS = {shape: kind for kind, shape in SHAPES.items()}


def encode(message: Message) -> bytes:
    """Returns the payload of a message. Texts longer than TEXT_CHARACTERS_MAX are cut, for they are only for people.

    What is no Unicode (a file name in a reason may hold such bytes) becomes question marks.
    """
    packed: bytes = msgpack.packb([int(_KINDS[type(message)]), _to_wire(message)], unicode_errors="replace")
    return packed


def decode_untrusted(payload: bytes) -> Message | None:
    """Returns the message in `payload`, or None when its kind is not known here. Raises PeerError for anything else."""
    try:
        value = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            max_str_len=4 * TEXT_CHARACTERS_MAX,
            max_bin_len=4 * TEXT_CHARACTERS_MAX,
            max_array_len=ENTRIES_MAX,
            max_map_len=ENTRIES_MAX,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises a dozen unrelated types for hostile bytes, all of them the peer's fault
        raise PeerError(
            f"the other node sent a frame that is no msgpack within bounds: {type(error).__name__}"
        ) from error
    if not (isinstance(value, list) and len(value) == 2 and type(value[0]) is int and isinstance(value[1], dict)):
        raise PeerError("the other node sent a frame that is not [kind, fields]")
    try:
        shape = SHAPES[Kind(value[0])]
    except ValueError:
        return None
    return _from_wire_untrusted(shape, value[1])  # type: ignore[no-any-return]  # built from SHAPES: a Message


def _to_wire(value: Any) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if isinstance(item, Report):
            item = _to_wire(item)
        elif isinstance(item, (Mode, Role, WorkloadState)):
            item = item.value
        elif isinstance(item, str):
            item = item[:TEXT_CHARACTERS_MAX]
        wire[each.name] = item
    return wire


_SAID_LATER = frozenset({"overwrite"})  # fields that older nodes do not send; their defaults are what that means


def _from_wire_untrusted(shape: type[Any], wire: Mapping[str, Any]) -> Any:
    values = {}
    for name, reader in _READERS[shape]:
        if name not in wire:
            if name in _SAID_LATER:
                continue
            raise PeerError(f"the other node sent {shape.__name__} without {name}")
        try:
            values[name] = reader(wire[name])
        except (ValueError, TypeError) as error:
            raise PeerError(f"the other node sent {shape.__name__} with a wrong {name}") from error
    return shape(**values)


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise ValueError
    return value


def _duration_ms(value: Any) -> int:
    if _integer(value) > DURATION_MS_MAX:
        raise ValueError
    return _integer(value)


def _counter(value: Any) -> int:
    if _integer(value) > COUNTER_MAX:
        raise ValueError
    return _integer(value)


def _lane(value: Any) -> int:
    if _integer(value) > 1:
        raise ValueError
    return _integer(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)


def _bytes_of(*lengths: int) -> Callable[[Any], bytes]:
    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) not in lengths:
            raise ValueError
        return value

    return read


def _report(value: Any) -> Report:
    if not isinstance(value, dict):
        raise ValueError
    report: Report = _from_wire_untrusted(Report, value)
    return report


_BY_ANNOTATION: Mapping[str, Callable[[Any], Any]] = {
    "int": _integer,
    "bool": _boolean,
    "str": _text,
    "DurationMs": _duration_ms,
    "Lane": _lane,
    "Counter": _counter,
    "Token": _bytes_of(TOKEN_BYTES),
    "TokenOrEmpty": _bytes_of(0, TOKEN_BYTES),
    "ProofOrEmpty": _bytes_of(0, PROOF_BYTES),
    "Mode": Mode,
    "Role": Role,
    "WorkloadState": WorkloadState,
    "Report": _report,
}
_READERS: Mapping[type[Any], list[tuple[str, Callable[[Any], Any]]]] = {
    shape: [(each.name, _BY_ANNOTATION[str(each.type)]) for each in fields(shape)]
    for shape in (*SHAPES.values(), Report)
}
