"""Two real role machines, and around them the smallest world that can do what the real one does.

Networks, processes, disks and workloads are values here, so that a state can be copied, compared and taken up again.
What keeper, dialler and conductor do is mirrored step by step: a connection begins with a hello of both sides as they
were when it was made, facts of one connection come in order, everything else in any order. Time is whole seconds and
passes only when nothing is left that would happen within one.

Broken promises are raised by the step that breaks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.compatibility import CloseCode
from agent.core.damping import Damper
from agent.core.messages import Hello, Invite, Refusal, Release, Report, Request
from agent.core.record import Record
from agent.core.role_table import Phase
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
WAKES_AFRESH = False

MODES = (Mode.PRIMARY, Mode.BACKUP)
LOSS_OF_CODE = {CloseCode.TAKEOVER: told.LinkLoss.PEER_TOOK_OVER, CloseCode.SILENCE: told.LinkLoss.UNHEARD}


class BrokenPromise(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Last:
    """The last item of one direction of a connection: how it ends for the one who reads it."""

    loss: told.LinkLoss


Item = Hello | Report | Invite | Request | Release | Refusal | Last


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
    catching_up: bool = False
    finishing: bool = False
    link: int | None = None
    linked_before: bool = False
    roles_key: tuple[Any, ...] = ()

    @property
    def awake(self) -> bool:
        return self.roles is not None and self.frozen_since is None


def settings(mode: Mode, policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> RoleSettings:
    """Returns the settings of the model's nodes."""
    return RoleSettings(mode, INITIAL_STANDBY_S * SECOND, policy, TAKEOVER_S * SECOND, TAKEOVER_S * SECOND)


class Pair:
    """The state of everything; `now` in seconds."""

    def __init__(self, records: tuple[Record, Record], policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> None:
        self.policy = policy
        self.now = 0
        self.nodes = [Node(disk=record) for record in records]
        self.connections: dict[int, Connection] = {}
        self.connections_made = 0
        self.blocked: frozenset[int] = frozenset()  # who cannot be heard
        self.partitioned_at = -WINDOW_S - 1  # when it was so last
        self.messages = 0
        self.used_terms: frozenset[int] = frozenset()
        self.crash_after: int | None = None  # effects of the next list
        self.heard: list[str] = []  # announcements, for transcripts

    def clone(self) -> Pair:
        """Returns a copy that shares what is never changed in place."""
        other = Pair.__new__(Pair)
        other.__dict__.update(self.__dict__)
        other.nodes = []
        for node in self.nodes:
            copy = Node.__new__(Node)
            copy.__dict__.update(node.__dict__)
            other.nodes.append(copy)
        other.connections = {number: each.clone() for number, each in self.connections.items()}
        other.heard = []
        return other

    # -- facts in, effects out

    def tell(self, at: int, fact: told.Input) -> None:
        """Gives a fact to the roles of one node and carries out the effects, or as many as `crash_after` allows."""
        node = self.nodes[at]
        assert node.roles is not None
        node.roles = _copied(node.roles)
        effects = node.roles.handle(fact, self.now * SECOND)
        limit, self.crash_after = self.crash_after, None
        for effect in effects if limit is None else effects[:limit]:
            self._carry_out(at, effect)
            if node.roles is None:
                return
        if limit is not None:
            self.crash(at)
        else:
            node.roles_key = _roles_key(node.roles)

    def _carry_out(self, at: int, effect: do.Effect) -> None:
        node = self.nodes[at]
        match effect:
            case do.Store():
                node.disk = effect.record
            case do.Publish():
                end = self._end(at)
                if end is not None and end.said != effect.report:
                    end.said = effect.report
                    self._send(at, node.link, effect.report)
            case do.Tell():
                self._send(at, node.link, effect.message)
            case do.Part():
                pass  # `silence` sends it
            case do.DropLink():
                self._close(at, node.link, told.LinkLoss.CLOSED)
                if WAKES_AFRESH:
                    for number in [each for each, made in self.connections.items() if not made.ends[at].over]:
                        self._close(at, number, told.LinkLoss.CLOSED)
            case do.SayGoodbye():
                self._close(at, node.link, told.LinkLoss.GOODBYE)
            case do.StartWorkload():
                self._start(at, effect.term)
            case do.StopWorkload():
                node.stop_by = self.now + STOP_S
            case do.CatchUp():
                node.catching_up = True
            case do.SendFinalChanges():
                node.finishing = True
            case do.Exit():
                if node.running is not None:
                    raise BrokenPromise(f"{NAMES[at]} exits while its workload runs")
                self.crash(at)
            case do.Announce():
                self.heard.append(f"{effect.code}: {effect.sentence}")
            case do.RoleChanged():
                self.heard.append(
                    f"{effect.before.value} -> {effect.after.value} (term {effect.term}): {effect.sentence}"
                )

    def _start(self, at: int, term: int) -> None:
        node, other = self.nodes[at], self.nodes[1 - at]
        if node.disk.active_term != term or node.disk.term < term:
            raise BrokenPromise(f"{NAMES[at]} starts term {term}, which is not stored")
        if node.running is not None:
            raise BrokenPromise(f"{NAMES[at]} starts its workload twice")
        if term <= node.last_term or term in self.used_terms:
            raise BrokenPromise(f"{NAMES[at]} uses term {term} again or after {node.last_term}")
        if other.running is not None and not self.partition_explains:
            raise BrokenPromise(f"two workloads run at once and no partition explains it: {NAMES[at]} started")
        node.running = node.last_term = term
        self.used_terms |= {term}

    @property
    def partition_explains(self) -> bool:
        """Whether two workloads may run at once because the nodes could not speak until just now."""
        return bool(self.blocked) or self.now - self.partitioned_at <= WINDOW_S

    # -- connections

    def _end(self, at: int) -> End | None:
        link = self.nodes[at].link
        return None if link is None else self.connections[link].ends[at]

    def _send(self, at: int, number: int | None, item: Item) -> None:
        if number is None:
            return
        end = self.connections[number].ends[1 - at]
        if not end.over:
            end.inbox += (item,)
            self.messages += 1

    def _close(self, at: int, number: int | None, loss: told.LinkLoss) -> None:
        """Ends a connection from one side; the other will read why."""
        if number is None:
            return
        connection = self.connections[number]
        end = connection.ends[at]
        end.over, end.inbox, end.silent_at = True, (), None
        if self.nodes[at].link == number:
            self.nodes[at].link = None
        self._send(at, number, Last(loss))
        if connection.ends[1 - at].over:
            del self.connections[number]

    def greeting(self) -> int | None:
        """Returns the connection that the backup is making."""
        for number, connection in self.connections.items():
            end = connection.ends[BACKUP]
            if not end.opened and not end.over:
                return number
        return None

    def can_connect(self) -> bool:
        """Whether the backup dials now and the primary answers."""
        return (
            not self.blocked
            and all(node.awake for node in self.nodes)
            and self.nodes[BACKUP].link is None
            and self.greeting() is None
            and all(node.roles and node.roles.phase is not Phase.STOPPED for node in self.nodes)
        )

    def connect(self) -> None:
        """Makes a connection: both sides send their hello as they are now."""
        self.connections_made += 1
        hellos = [self._hello(at) for at in (PRIMARY, BACKUP)]
        ends = [End(inbox=(hellos[1 - at],), said=hellos[at].report) for at in (PRIMARY, BACKUP)]
        self.connections[self.connections_made] = Connection(ends)

    def _hello(self, at: int) -> Hello:
        roles = self.nodes[at].roles
        assert roles is not None
        return Hello(
            name=NAMES[at],
            mode=MODES[at],
            agent_version="1",
            workload_version="",
            instance=bytes(16),
            connection_number=self.connections_made,
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

    def deliver(self, at: int, number: int) -> None:
        """Lets one node read the next item of one of its connections."""
        node, end = self.nodes[at], self.connections[number].ends[at]
        item, end.inbox = end.inbox[0], end.inbox[1:]
        if not isinstance(item, Last):
            end.heard_at = None
        if end.silent_at is not None:
            end.silent_at = self.now + TAKEOVER_S
        if isinstance(item, Hello):
            before, node.link, end.opened = node.link, number, True
            if before is not None:
                self._close(at, before, told.LinkLoss.REFUSED)
            node.linked_before = True
            self.tell(at, told.LinkOpened(item, item.pair_id or PAIR_ID))
        elif isinstance(item, Last):
            last_received_s = self.now if end.heard_at is None else end.heard_at
            linked = node.link == number
            self._close(at, number, told.LinkLoss.CLOSED)
            if linked:
                self.tell(at, told.LinkLost(item.loss, last_received_s * SECOND, item.loss.value))
            elif item.loss is told.LinkLoss.REFUSED:
                self.tell(at, told.ContactRefused(item.loss.value))
        elif isinstance(item, Report):
            self.tell(at, told.PeerReported(item))
        else:
            self.tell(at, told.PeerAsked(item))

    def silence(self, at: int, number: int) -> None:
        """One end gives up waiting for a frame."""
        node, end = self.nodes[at], self.connections[number].ends[at]
        if not end.opened:
            self._close(at, number, told.LinkLoss.REFUSED)
            self.tell(at, told.ContactRefused("no hello in time"))
            return
        node.link = None
        began = node.last_term
        self.tell(at, told.LinkLost(told.LinkLoss.SILENCE, (self.now - TAKEOVER_S) * SECOND, "no frame for 4 s"))
        if node.roles is not None:
            code = CloseCode.TAKEOVER if node.last_term != began else CloseCode.SILENCE
            self._close(at, number, LOSS_OF_CODE[code])

    # -- processes

    def boot(self, at: int) -> None:
        """Starts the agent of one node from what is on its disk."""
        node = self.nodes[at]
        if not node.powered:
            node.powered = True
            for number in list(self.connections):  # the new kernel knows nothing of the old connections
                if self.connections[number].ends[at].over:
                    self._send(at, number, Last(told.LinkLoss.CLOSED))
        node.roles = Roles(settings(MODES[at], self.policy), node.disk, self.now * SECOND)
        self.tell(at, told.Started())

    def crash(self, at: int, *, power: bool = False) -> None:
        """Kills the agent; its workload follows, at once only if the power is gone."""
        for number in list(self.connections):
            end = self.connections[number].ends[at]
            if end.over:
                continue
            if power:
                end.over, end.inbox, end.silent_at = True, (), None
                other = self.connections[number].ends[1 - at]
                other.silent_at = self.now + (TAKEOVER_S if other.opened else GREETING_S)
                if other.over:
                    del self.connections[number]
            else:
                self._close(at, number, told.LinkLoss.CLOSED)
        self._forget(at)
        if power:
            self.nodes[at].powered, self.nodes[at].running = False, None

    def _forget(self, at: int) -> None:
        node = self.nodes[at]
        node.roles, node.roles_key, node.link, node.linked_before = None, (), None, False
        node.frozen_since, node.frozen_untold, node.fence_at, node.stop_by = None, False, None, None
        node.catching_up = node.finishing = False

    def freeze(self, at: int) -> None:
        """Stops the agent without killing it; its guardian goes on."""
        node = self.nodes[at]
        node.frozen_since = self.now
        if node.running is not None:
            node.fence_at = self.now + FENCE_S
        self._set_silences()
        for connection in self.connections.values():
            connection.ends[at].heard_at = self.now

    def wake(self, at: int) -> None:
        """Lets a frozen agent run again; what it missed waits for it."""
        node = self.nodes[at]
        assert node.frozen_since is not None
        if self.now - node.frozen_since > FENCE_S:
            node.frozen_untold = True
        node.frozen_since = node.fence_at = None
        for connection in self.connections.values():
            end = connection.ends[at]
            if end.silent_at is not None and end.silent_at <= self.now:
                end.silent_at = self.now + TAKEOVER_S // 4
        self._set_silences()
        if WAKES_AFRESH and node.frozen_untold:
            node.frozen_untold = False
            self.tell(at, told.Frozen("this agent was frozen"))

    def partition(self, unheard: frozenset[int]) -> None:
        """Lets the frames of these nodes vanish, or of none: the network is whole again."""
        if self.blocked:
            self.partitioned_at = self.now
        self.blocked = unheard
        self._set_silences()

    def _set_silences(self) -> None:
        for connection in self.connections.values():
            for at, end in enumerate(connection.ends):
                speaks = connection.ends[1 - at]
                other = self.nodes[1 - at]
                dark = (1 - at) in self.blocked or not other.awake
                if end.over:
                    continue
                if dark and end.silent_at is None:
                    end.silent_at = self.now + (TAKEOVER_S if end.opened else GREETING_S)
                elif not dark and not speaks.over and end.silent_at is not None:
                    end.silent_at = None
                    end.heard_at = None

    # -- time

    def deadlines(self) -> list[int]:
        """Returns every instant at which something is due by itself."""
        due = []
        for node in self.nodes:
            if node.awake and node.roles is not None:
                deadline_ns = node.roles.next_deadline()
                if deadline_ns is not None:
                    due.append(-(-deadline_ns // SECOND))
                if node.stop_by is not None:
                    due.append(node.stop_by)
            if node.fence_at is not None and node.running is not None:
                due.append(node.fence_at)
        for connection in self.connections.values():
            due += [
                end.silent_at
                for at, end in enumerate(connection.ends)
                if end.silent_at is not None and self.nodes[at].awake
            ]
        return due

    def pass_time(self) -> None:
        """Goes to the next instant at which something is due."""
        later = min(each for each in self.deadlines() if each > self.now)
        for connection in self.connections.values():
            for at, end in enumerate(connection.ends):
                # A frozen node finds heartbeats in its socket if the other one went on sending.
                if (
                    not self.nodes[at].awake
                    and not connection.ends[1 - at].over
                    and self.nodes[1 - at].awake
                    and (1 - at) not in self.blocked
                ):
                    end.heard_at = None
        if self.blocked:
            self.partitioned_at = later
        self.now = later

    # -- identity

    def key(self) -> int:
        """Returns a number that two states share if they go on alike."""
        now = self.now
        nodes = tuple(
            (
                node.powered,
                node.awake,
                None if node.frozen_since is None else min(now - node.frozen_since, FENCE_S + 1),
                node.frozen_untold,
                None if node.fence_at is None else node.fence_at - now,
                node.running,
                node.last_term,
                None if node.stop_by is None else node.stop_by - now,
                node.catching_up,
                node.finishing,
                node.link is not None,
                node.linked_before,
                node.roles_key,
                _deadlines_key(node.roles, now),
                _record_key(node.disk),
            )
            for node in self.nodes
        )
        connections = tuple(
            tuple(
                (
                    tuple(_item_key(item) for item in end.inbox),
                    end.opened,
                    end.over,
                    self.nodes[at].link == number,
                    None if end.silent_at is None else end.silent_at - now,
                    None if end.heard_at is None else min(now - end.heard_at, TAKEOVER_S + 1),
                    _report_key(end.said),
                )
                for at, end in enumerate(connection.ends)
            )
            for number, connection in self.connections.items()
        )
        return hash((nodes, connections, self.blocked, min(now - self.partitioned_at, WINDOW_S + 1)))


def _copied(roles: Roles) -> Roles:
    copy = Roles.__new__(Roles)
    copy.__dict__.update(roles.__dict__)
    copy._damper = Damper()
    copy._damper._activations_ns = roles._damper._activations_ns
    return copy


def _report_key(report: Report) -> tuple[Any, ...]:
    return (
        report.role._value_,
        report.term,
        report.active_term,
        report.eligible,
        report.workload_failed,
        report.hold,
        report.maintenance,
        report.maintenance_revision,
    )


def _record_key(record: Record) -> tuple[Any, ...]:
    return tuple(record.__dict__.values())


def _item_key(item: Item) -> tuple[Any, ...]:
    if isinstance(item, Hello):
        return ("hello", item.term_lane, item.pair_id, *_report_key(item.report))
    if isinstance(item, Report):
        return _report_key(item)
    if isinstance(item, Last):
        return (item.loss.value,)
    flags = tuple(value for value in item.__dict__.values() if not isinstance(value, str))
    return (type(item).__name__, *flags)


def _deadlines_key(roles: Roles | None, now: int) -> tuple[Any, ...]:
    if roles is None:
        return ()
    return tuple(
        None if each is None else max(0, each - now * SECOND) for each in (roles._act_at_ns, roles._retry_at_ns)
    )


def _roles_key(roles: Roles) -> tuple[Any, ...]:
    invited = roles._invited
    return (
        roles.phase._value_,
        roles._intent._value_,
        _record_key(roles.record),
        None if roles.peer is None else _report_key(roles.peer),
        roles.workload_failed,
        None if invited is None else (invited.planned, invited.hold),
        (roles._asking.planned, roles._asking.hold),
        roles._released_now,
        min(len(roles._damper._activations_ns), 6),
    )
