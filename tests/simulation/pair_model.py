"""Two real role machines, and around them the smallest world that can do what the real one does.

Networks, processes, disks and workloads are values here, so that a state can be copied, compared and taken up again.
What keeper, dialler, beacons and conductor do is mirrored step by step: a connection begins with a hello of both sides
as they were when it was made, facts of one connection come in order, everything else in any order. Time is whole
seconds and passes only when nothing is left that would happen within one (`tests.simulation.pair_time`).

Broken promises are raised by the step that breaks them.
"""

from __future__ import annotations

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.messages import Hello, Report, Request
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.roles import Roles
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation.pair_trees import GIVING, require_true_versions, require_up_to_date, require_usable, wrote
from tests.simulation.pair_values import (
    BACKUP,
    GREETING_S,
    MODES,
    NAMES,
    PAIR_ID,
    PRIMARY,
    SECOND,
    STOP_S,
    TAKEOVER_S,
    WINDOW_S,
    BrokenPromiseError,
    Connection,
    End,
    Item,
    Last,
    Node,
    copied,
    hello,
    item_key,
    record_key,
    relative,
    report_key,
    roles_instants,
    roles_key,
    round_key,
    settings,
    waiting_key,
)


class Pair:
    """The state of everything; `now` in seconds."""

    def __init__(
        self,
        records: tuple[Record, Record],
        policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE,
        *,
        trees: bool = False,
    ) -> None:
        self.policy, self.trees = policy, trees
        self.only = (False, False)  # whose trees hold what the other node was never given
        self.common = False  # both once had the same
        self.forgot = False  # one node's record of that is lost
        self.now = 0
        self.nodes = [Node(disk=record, disk_key=record_key(record)) for record in records]
        self.connections: dict[int, Connection] = {}
        self.connections_made = 0
        self.blocked: frozenset[int] = frozenset()  # who cannot be heard
        self.partitioned_at = -WINDOW_S - 1  # when it was so last
        self.messages = 0
        self.used_terms: frozenset[int] = frozenset()
        self.crash_after: int | None = None  # effects of the next list
        self.said: list[str] = []  # by the nodes in the last step, for transcripts

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
        other.said = []
        return other

    # -- facts in, effects out

    def tell(self, at: int, fact: told.Input) -> None:
        """Gives a fact to the roles of one node and carries out the effects, or as many as `crash_after` allows."""
        node = self.nodes[at]
        assert node.roles is not None
        alone = isinstance(fact, told.LinkLost) and node.roles.phase in GIVING
        node.roles = copied(node.roles)
        effects = node.roles.handle(fact, self.now * SECOND)
        limit, self.crash_after = self.crash_after, None
        require_order(effects)
        for effect in effects if limit is None else effects[:limit]:
            self._carry_out(at, effect)
            if node.roles is None:
                return
        if limit is not None:
            self.crash(at)
        else:
            node.roles_key, node.roles_instants = roles_key(node.roles), roles_instants(node.roles)
            if alone:
                wrote(self, at)
        if self.trees:
            require_true_versions(self)

    def _carry_out(self, at: int, effect: do.Effect) -> None:
        node = self.nodes[at]
        match effect:
            case do.Store():
                node.disk, node.disk_key = effect.record, record_key(effect.record)
            case do.Publish():
                end = None if node.link is None else self.connections[node.link].ends[at]
                if end is not None and end.said != effect.report:
                    end.said = effect.report
                    self._send(at, node.link, effect.report)
            case do.Tell():
                if self.trees and isinstance(effect.message, Request):
                    require_up_to_date(self, at)
                self._send(at, node.link, effect.message)
            case do.DropLink():
                for number in [each for each, made in self.connections.items() if not made.ends[at].over]:
                    self._close(at, number, told.LinkLoss.CLOSED)
            case do.SayGoodbye():
                self._close(at, node.link, told.LinkLoss.GOODBYE)
            case do.StartWorkload():
                self._start(at, effect.term)
            case do.StopWorkload():
                node.stop_by = self.now + STOP_S
            case do.CatchUp():
                node.catching_up = (*node.catching_up[-1:], effect.number)
            case do.SendFinalChanges():
                node.finishing = effect.number
            case do.Exit():
                if node.running is not None:
                    raise BrokenPromiseError(f"{NAMES[at]} exits while its workload runs")
                self.crash(at)
            case do.Announce():
                self.said.append(f"{effect.code}: {effect.sentence}")
            case do.RoleChanged():
                change = f"{effect.before.value} -> {effect.after.value} (term {effect.term})"
                self.said.append(f"{change}: {effect.sentence}")

    def _start(self, at: int, term: int) -> None:
        node, other = self.nodes[at], self.nodes[1 - at]
        if node.disk.active_term != term or node.disk.term < term:
            raise BrokenPromiseError(f"{NAMES[at]} starts term {term}, which is not stored")
        if node.running is not None:
            raise BrokenPromiseError(f"{NAMES[at]} starts its workload twice")
        if term <= node.last_term or term in self.used_terms:
            raise BrokenPromiseError(f"{NAMES[at]} uses term {term} again or after {node.last_term}")
        if other.running is not None and not self.partition_explains:
            raise BrokenPromiseError(f"two workloads run at once and no partition explains it: {NAMES[at]} started")
        if self.trees:
            require_usable(self, at)
        node.running = node.last_term = term
        wrote(self, at)
        self.used_terms |= {term}

    @property
    def partition_explains(self) -> bool:
        """Whether two workloads may run at once because the nodes could not speak until just now."""
        return bool(self.blocked) or self.now - self.partitioned_at <= WINDOW_S

    # -- connections

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
        node, connection = self.nodes[at], self.connections[number]
        end = connection.ends[at]
        end.over, end.inbox, end.silent_at = True, (), None
        if node.link == number:
            node.link = None
            self.send_beacon(at)
        self._send(at, number, Last(loss))
        if connection.ends[1 - at].over:
            del self.connections[number]

    def send_beacon(self, at: int) -> None:
        """Sends a datagram beside the link, which nobody answers."""
        sender, receiver = self.nodes[at], self.nodes[1 - at]
        if at in self.blocked or not sender.awake or not receiver.awake or sender.keys is None:
            return
        if sender.keys == receiver.keys:
            receiver.heard_at = self.now
            if sender.link is None and sender.roles is not None:
                active = sender.roles.phase is Phase.ACTIVE
                receiver.beacon = told.PeerHeard(active, hears=self.now - sender.heard_at < TAKEOVER_S)

    @property
    def greets(self) -> bool:
        """Whether the backup has made a connection that is not the link yet."""
        return any(not (made.ends[BACKUP].opened or made.ends[BACKUP].over) for made in self.connections.values())

    def can_connect(self) -> bool:
        """Whether the backup dials now and the primary answers."""
        return (
            not self.blocked
            and all(node.awake for node in self.nodes)
            and self.nodes[BACKUP].link is None
            and not self.greets
        )

    def connect(self) -> None:
        """Makes a connection: both sides send their hello as they are now."""
        self.connections_made += 1
        for at in (PRIMARY, BACKUP):
            self.tell(at, told.ContactMade())
        hellos = [hello(at, node.roles, self.connections_made) for at, node in enumerate(self.nodes) if node.roles]
        ends = [End(inbox=(hellos[1 - at],), said=hellos[at].report) for at in (PRIMARY, BACKUP)]
        self.connections[self.connections_made] = Connection(ends)

    def deliver(self, at: int, number: int) -> None:
        """Lets one node read the next item of one of its connections."""
        node, end = self.nodes[at], self.connections[number].ends[at]
        item, end.inbox = end.inbox[0], end.inbox[1:]
        if not isinstance(item, Last):
            end.heard_at = None
        if end.silent_at is not None:
            end.silent_at = self.now + TAKEOVER_S
        if isinstance(item, Hello) and node.link is not None and node.link > number:
            self._close(at, number, told.LinkLoss.REFUSED)  # the peer gave it up before it made the link
        elif isinstance(item, Hello):
            before, node.link, end.opened = node.link, number, True
            if before is not None:
                self._close(at, before, told.LinkLoss.REFUSED)
            node.linked_before, node.keys = True, number
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
        if self.connections[number].ends[at].opened:
            self._close(at, number, told.LinkLoss.CLOSED)
            since_ns = (self.now - TAKEOVER_S) * SECOND
            self.tell(at, told.LinkLost(told.LinkLoss.SILENCE, since_ns, f"no frame for {TAKEOVER_S} s"))
        else:
            self._close(at, number, told.LinkLoss.REFUSED)
            self.tell(at, told.ContactRefused("no hello in time"))

    # -- processes

    def boot(self, at: int) -> None:
        """Starts the agent of one node from what is on its disk."""
        node = self.nodes[at]
        if not node.powered:
            node.powered = True
            for number in list(self.connections):  # the new kernel knows nothing of the old connections
                if self.connections[number].ends[at].over:
                    self._send(at, number, Last(told.LinkLoss.CLOSED))
        node.roles = Roles(settings(MODES[at], self.policy, trees=self.trees), node.disk, self.now * SECOND)
        self.tell(at, told.Started())

    def crash(self, at: int, *, power: bool = False) -> None:
        """Kills the agent; its workload follows, at once only if the power is gone."""
        node = self.nodes[at]
        node.roles, node.roles_key, node.roles_instants = None, (), ()
        for number in list(self.connections):
            connection = self.connections[number]
            end, other = connection.ends[at], connection.ends[1 - at]
            if end.over:
                continue
            if not power:
                self._close(at, number, told.LinkLoss.CLOSED)
            elif other.over:
                del self.connections[number]
            else:
                end.over, end.inbox, end.silent_at = True, (), None
                other.silent_at = self.now + (TAKEOVER_S if other.opened else GREETING_S)
        node.link = node.keys = node.beacon = node.stop_by = node.frozen_since = node.fence_at = None
        node.finishing = node.applying = node.offered = node.follows = None
        node.linked_before = node.frozen_untold = node.hindered = False
        node.catching_up = ()
        if power:
            node.powered, node.running = False, None

    # -- identity

    def key(self) -> int:
        """Returns a number that two states share if they go on alike."""
        now = self.now
        nodes = [
            (
                node.powered,
                node.frozen_untold,
                waiting_key(node),
                round_key(node),
                node.linked_before,
                node.running,
                node.last_term,
                relative(node.frozen_since, now),
                relative(node.fence_at, now),
                relative(node.stop_by, now),
                relative(node.heard_at, now),
                None if node.beacon is None else (node.beacon.active, node.beacon.hears),
                node.roles_key,
                tuple([relative(each, now) for each in node.roles_instants]),
                node.disk_key,
                node.woke_at == now,
            )
            for node in self.nodes
        ]
        same_keys = self.nodes[PRIMARY].keys is not None and self.nodes[PRIMARY].keys == self.nodes[BACKUP].keys
        ends = [
            (
                tuple([item_key(item) for item in end.inbox]),
                end.opened,
                end.over,
                self.nodes[at].link == number,
                relative(end.silent_at, now),
                relative(end.heard_at, now),
                report_key(end.said),
            )
            for number, connection in self.connections.items()
            for at, end in enumerate(connection.ends)
        ]
        held = (self.only, self.common, self.forgot) if self.trees else None
        return hash((*nodes, *ends, same_keys, self.blocked, relative(self.partitioned_at, now), held))


def require_order(effects: list[do.Effect]) -> None:
    """Raises BrokenPromiseError unless what is durable comes first, what is sent next, and what is done last."""
    ranks = [
        0 if isinstance(each, do.Store) else 1 if isinstance(each, do.Publish | do.Tell) else 2
        for each in effects
        if isinstance(each, do.Store | do.Publish | do.Tell | do.StartWorkload | do.StopWorkload | do.CatchUp)
    ]
    if ranks != sorted(ranks):
        raise BrokenPromiseError(f"effects out of order: {[type(each).__name__ for each in effects]}")
