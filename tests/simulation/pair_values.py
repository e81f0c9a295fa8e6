"""What the modelled pair is made of: nodes, connections and their ends, and what of each tells two states apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agent.core import inputs as told
from agent.core.damping import FREE_ACTIVATIONS, Damper
from agent.core.messages import Hello, Invite, Refusal, Release, Report, Request
from agent.core.record import Record
from agent.core.roles import Roles, RoleSettings
from agent.core.vocabulary import Mode, TimeoutPolicy

SECOND = 1_000_000_000
PRIMARY, BACKUP = 0, 1
NAMES = ("primary", "backup")
TAKEOVER_S = 4  # also how long the backup tries to reach the primary
FENCE_S = TAKEOVER_S - 1
INITIAL_STANDBY_S = 6
GREETING_S = 5
STOP_S = 1
WINDOW_S = TAKEOVER_S  # a partition explains two running workloads for so long after it healed
PAIR_ID = b"p" * 16
FORGOTTEN_S = -TAKEOVER_S - 1

MODES = (Mode.PRIMARY, Mode.BACKUP)
# Of a role machine: words for people, what never changes, and what is the same as something else.
IRRELEVANT = {"_settings", "reason", "since_ns", "peer_hello", "_published", "_effects", "_order_number", "_postponed"}


class BrokenPromiseError(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Last:
    """The last item of one direction of a connection: how it ends for the one who reads it."""

    loss: told.LinkLoss


Item = Hello | Report | Invite | Request | Release | Refusal | Last
Key = tuple[Any, ...]
Round = tuple[int, int]  # a link, and the term that the source's trees were written in


@dataclass
class End:
    """One node's end of a connection."""

    inbox: tuple[Item, ...]
    said: Report  # what the other was told last
    opened: bool = False  # it is, or was, the link of its node
    over: bool = False
    silent_at: int | None = None
    heard_at: int | None = None  # None: just now


@dataclass
class Connection:
    """Both ends; index 0 is the primary's."""

    ends: list[End]

    def clone(self) -> Connection:
        ends = []
        for end in self.ends:
            copy = End.__new__(End)
            copy.__dict__.update(end.__dict__)
            ends.append(copy)
        return Connection(ends)


@dataclass
class Node:
    """One node: what survives a crash, what does not, and what goes on around its roles."""

    roles: Roles | None = None
    disk: Record = field(default_factory=Record)
    powered: bool = True
    frozen_since: int | None = None
    frozen_untold: bool = False
    fence_at: int | None = None
    running: int | None = None  # the term of the workload that runs
    last_term: int = 0
    stop_by: int | None = None
    catching_up: tuple[int, ...] = ()  # orders without an answer; only the last one is still wanted
    finishing: int | None = None  # the order
    applying: int | None = None  # the link of the round that its trees are half way through
    offered: Round | None = None  # what it noted that the other node may have soon
    follows: Round | None = None  # what the other node has now, said but not heard yet
    hindered: bool = False
    goes_on: bool = False  # it has just stopped its workload on these trees, and would start it again
    link: int | None = None
    linked_before: bool = False
    keys: int | None = None  # the connection that its beacons belong to
    heard_at: int = -TAKEOVER_S  # when a beacon came last
    beacon: told.PeerHeard | None = None  # on its way to this node
    woke_at: int | None = None
    roles_key: Key = ()
    roles_instants: tuple[int | None, ...] = ()
    disk_key: Key = ()

    @property
    def awake(self) -> bool:
        return self.roles is not None and self.frozen_since is None


def settings(mode: Mode, policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE, *, trees: bool = False) -> RoleSettings:
    """Returns the settings of the model's nodes."""
    return RoleSettings(mode, INITIAL_STANDBY_S * SECOND, policy, TAKEOVER_S * SECOND, TAKEOVER_S * SECOND, trees=trees)


def hello(at: int, roles: Roles, number: int) -> Hello:
    """Returns what a node says of itself on a new connection."""
    return Hello(
        name=NAMES[at],
        mode=MODES[at],
        agent_version="1",
        workload_version="",
        instance=bytes(16),
        connection_number=number,
        pair_id=roles.record.pair_id,
        pair_nonce=bytes(16),
        term_lane=roles.record.term_lane,
        interval_ms=500,
        timeout_ms=TAKEOVER_S * 1000,
        takeover_ms=TAKEOVER_S * 1000,
        stop_timeout_ms=STOP_S * 1000,
        wall_clock_ms=0,
        report=roles.report,
    )


def copied(roles: Roles) -> Roles:
    """Returns a role machine that goes on from the same state."""
    copy = Roles.__new__(Roles)
    copy.__dict__.update(roles.__dict__)
    copy._damper = Damper()
    copy._damper._activations_ns = roles._damper._activations_ns
    return copy


def report_key(report: Report) -> Key:
    """Returns what matters of a report."""
    return (
        report.role._value_,
        report.term,
        report.active_term,
        report.eligible,
        report.workload_failed,
        report.hold,
        report.maintenance,
        report.maintenance_revision,
        report.overwrite,
    )


def record_key(record: Record) -> Key:
    """Returns what matters of a record."""
    return tuple(record.__dict__.values())


def item_key(item: Item) -> Key:
    """Returns what matters of something on its way; texts are only for people."""
    if isinstance(item, Hello):
        return ("hello", item.term_lane, item.pair_id, *report_key(item.report))
    if isinstance(item, Report):
        return report_key(item)
    if isinstance(item, Last):
        return (item.loss.value,)
    flags = tuple(value for value in item.__dict__.values() if not isinstance(value, str))
    return (type(item).__name__, *flags)


def roles_key(roles: Roles) -> Key:
    """Returns what matters of a role machine apart from its timers; a field that is new there matters."""
    if not _LASTING:
        _LASTING[:] = [name for name in vars(roles) if name not in IRRELEVANT and not name.endswith("_ns")]
    known = vars(roles)
    return (roles._postponed is not None, *[_value_key(known[name]) for name in _LASTING])


def waiting_key(node: Node) -> Key:
    """Returns what matters of the orders that a node's roles wait for: whether an answer would be the wanted one."""
    last = 0 if node.roles is None else node.roles._order_number
    finishing = None if node.finishing is None else node.finishing - last
    return (*[order - last for order in node.catching_up], finishing)


def round_key(node: Node) -> Key:
    """Returns what matters of the rounds that a node takes part in."""
    rounds = [
        None if each is None or each[0] != node.link else each[1] == node.disk.data_term
        for each in (node.offered, node.follows)
    ]
    return (node.applying is not None and node.applying == node.link, node.hindered, *rounds)


def roles_instants(roles: Roles) -> tuple[int | None, ...]:
    """Returns the instants that a role machine knows, in seconds."""
    if not _INSTANTS:
        _INSTANTS[:] = [name for name in vars(roles) if name not in IRRELEVANT and name.endswith("_ns")]
    known = vars(roles)
    return tuple([None if known[name] is None else known[name] // SECOND for name in _INSTANTS])


_LASTING: list[str] = []  # names of fields, found once
_INSTANTS: list[str] = []


def _value_key(value: Any) -> Any:
    if isinstance(value, Enum):
        return value._value_
    if isinstance(value, Report):
        return report_key(value)
    if isinstance(value, Record):
        return record_key(value)
    if isinstance(value, Damper):
        return min(len(value._activations_ns), FREE_ACTIVATIONS + 1)
    return value if value is None or isinstance(value, int | str | bytes) else item_key(value)


def relative(instant: int | None, now: int) -> int | None:
    """Returns an instant as seen from now; long past is all the same."""
    return None if instant is None else max(FORGOTTEN_S, instant - now)
