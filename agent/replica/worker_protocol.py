"""What the agent and its replica worker say to each other over the worker's standard input and output.

Both are one program of one version, started by one another, so this is no protocol for strangers: a message is four
bytes of length, big-endian, and a msgpack array `[name, fields]`. Orders go to the worker, tellings come from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import msgpack

LENGTH_BYTES = 4
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class SetUp:
    """First order: the agent's configuration, pickled."""

    config: bytes


@dataclass(frozen=True)
class Link:
    """The two agents are linked; `key` binds bulk connections to it. `dial`: the worker connects, to host and port."""

    number: int
    key: bytes
    host: str
    port: int
    dial: bool


@dataclass(frozen=True)
class Unlink:
    """The link is gone, and with it what was bound to it."""


@dataclass(frozen=True)
class Handover:
    """A connection of the other worker was accepted: `token` fetches its socket, `received` came from it so far."""

    received: bytes
    token: bytes
    address: str


@dataclass(frozen=True)
class Stand:
    """What the roles make of this node: whether it follows the other's trees, how, and which version its own are."""

    following: bool
    overwrite: bool
    primary: bool
    active: bool
    data_term: int
    alone: bool
    base_term: int
    offered_term: int = 0


@dataclass(frozen=True)
class CatchUp:
    """Tell when this sink is up to date: CaughtUp or CatchUpFailed."""

    number: int


@dataclass(frozen=True)
class Finish:
    """The workload is stopped: bring its last changes to the sink, then tell Finished."""

    number: int


@dataclass(frozen=True)
class Grant:
    """The answer to Permission: nothing else uses the trees until ApplyEnded; or they may not be touched now."""

    number: int
    granted: bool


@dataclass(frozen=True)
class Synchronise:
    """Compare the trees anew; the status says `number` from then on."""

    number: int
    full: bool


@dataclass(frozen=True)
class Inquire:
    """An operator's question: "dry-run", "test", "archive-list", "archive-restore"; Answered follows."""

    number: int
    what: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Quit:
    """The agent stops: close the index in good order, and end."""


Order: TypeAlias = SetUp | Link | Unlink | Handover | Stand | CatchUp | Finish | Grant | Synchronise | Inquire | Quit


@dataclass(frozen=True)
class Ready:
    """Everything that a crash interrupted is mended; `trouble`: it could not be; `hindered`: see Hindered."""

    pid: int
    trouble: str
    hindered: str = ""


@dataclass(frozen=True)
class Hindered:
    """What stands in a tree's place is not what was there: no workload may start on it; empty: no more."""

    reason: str


@dataclass(frozen=True)
class Started:
    """The process runs; on Windows sockets can be shared with it from now on."""

    pid: int


@dataclass(frozen=True)
class Permission:
    """May the trees be changed now? `incomplete`: why they are half way from then on; empty: they stay whole."""

    number: int
    incomplete: str


@dataclass(frozen=True)
class ApplyEnded:
    """What was granted is used up."""

    number: int


@dataclass(frozen=True)
class Complete:
    """As sink: every tree is whole and as the other's in its `term`; `merged`: own changes were kept besides."""

    term: int
    merged: bool


@dataclass(frozen=True)
class Followed:
    """As source: the other has everything of `term`."""

    term: int


@dataclass(frozen=True)
class Offering:
    """As source: the other, whose version follows, is about to be given everything; Grant when that is noted."""

    number: int
    data_term: int
    alone: bool
    base_term: int
    offered_term: int


@dataclass(frozen=True)
class CaughtUp:
    """See CatchUp."""

    number: int


@dataclass(frozen=True)
class CatchUpFailed:
    """See CatchUp; `reason` for people."""

    number: int
    reason: str


@dataclass(frozen=True)
class Finished:
    """`undelivered`: why the last changes are not on the other node; empty: they are, durably."""

    number: int
    undelivered: str


@dataclass(frozen=True)
class Happened:
    """An event for the log."""

    code: str
    sentence: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class ConfigApplied:
    """A config tree was changed on this node."""

    tree: str


@dataclass(frozen=True)
class Snapshot:
    """For status: the tables `trees`, `sync` and `archive` of `status --json`."""

    status: dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """The answer to Inquire."""

    number: int
    done: bool
    sentence: str
    details: dict[str, Any]


Telling: TypeAlias = (
    Started
    | Ready
    | Hindered
    | Permission
    | ApplyEnded
    | Complete
    | Followed
    | Offering
    | CaughtUp
    | CatchUpFailed
    | Finished
    | Happened
    | ConfigApplied
    | Snapshot
    | Answered
)

_SHAPES: Mapping[str, type[Any]] = {
    shape.__name__: shape
    for shape in (
        *(SetUp, Link, Unlink, Handover, Stand, CatchUp, Finish, Grant, Synchronise, Inquire, Quit),
        *(
            Started,
            Ready,
            Hindered,
            Permission,
            ApplyEnded,
            Complete,
            Followed,
            Offering,
            CaughtUp,
            CatchUpFailed,
            Finished,
            Happened,
        ),
        *(ConfigApplied, Snapshot, Answered),
    )
}


def encode(message: Order | Telling) -> bytes:
    """Returns the bytes of one message."""
    values = {each.name: getattr(message, each.name) for each in fields(message)}
    packed: bytes = msgpack.packb([type(message).__name__, values])
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


class Decoder:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yields the messages that are complete. Raises ValueError for what no agent or worker of this version says."""
        self._waiting += data
        while len(self._waiting) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._waiting[:LENGTH_BYTES], "big")
            if end > MESSAGE_BYTES_MAX:
                raise ValueError("a message beyond all bounds")
            if len(self._waiting) < end:
                return
            name, values = msgpack.unpackb(bytes(self._waiting[LENGTH_BYTES:end]), strict_map_key=False)
            del self._waiting[:end]
            yield _SHAPES[name](**values)
