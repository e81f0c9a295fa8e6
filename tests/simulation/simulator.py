"""A simulated pair: two nodes, a network, and the promises that are checked whenever a workload begins.

    pair = SimulatedPair(seed=7)
    pair.settle()                   # both booted, the primary active
    pair.network.block(frozenset({PRIMARY}))
    pair.timeline.run_for(30 * SECOND)
    pair.mend()
    pair.require_home()

A broken promise raises BrokenPromiseError with the seed and the last lines of the transcript.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.core import inputs as told
from agent.core.damping import DELAY_MAX_NS
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.link.dialler import Outcome
from tests.simulation.pair_values import BrokenPromiseError
from tests.simulation.simulated_network import End, Network, Stream
from tests.simulation.simulated_node import BACKUP, MODES, PRIMARY, Node, NodeConfig
from tests.simulation.timeline import MILLISECOND, SECOND, Timeline

LEG_RETRY_NS = SECOND  # as TCP retries a SYN, doubled each time
REST_NS = 2 * SECOND  # for which a pair that came home must stay so
HOME_NS = 90 * SECOND + DELAY_MAX_NS  # from the last fault on: timers, one failed handover, damping


class SimulatedPair:
    """Everything that is simulated; see the module."""

    def __init__(
        self,
        seed: int,
        config: NodeConfig | None = None,
        *,
        latency_ns: int = MILLISECOND,
        jitter_ns: int = MILLISECOND,
    ) -> None:
        self.timeline = Timeline(seed)
        self.network = Network(self.timeline, latency_ns, jitter_ns)
        configs = [replace(config or NodeConfig(), mode=mode) for mode in MODES]
        self.nodes = [Node(self, at, configs[at], configs[1 - at].takeover_ns) for at in (PRIMARY, BACKUP)]
        self.network.hosts = list(self.nodes)
        self.primary, self.backup = self.nodes
        self.used_terms: set[int] = set()
        self.activations = 0
        self.overlaps = 0
        self.mended = False  # agents that end are started again
        self.explained_until_ns = -1
        self._connections = 0
        self._attempts: list[tuple[Node, Callable[[Outcome], object]]] = []  # taken by a kernel, not yet by an agent
        takeover_ns = max(each.takeover_ns for each in configs)
        # for so long after a partition two workloads are no surprise
        self.aftermath_ns = takeover_ns + max(takeover_ns, configs[BACKUP].connection_timeout_ns)

    # -- promises

    def broken(self, sentence: str) -> None:
        """Raises BrokenPromiseError."""
        self.timeline.note("", f"BROKEN: {sentence}")
        raise BrokenPromiseError(f"{sentence}\n{self.timeline.transcript()}")

    def require_stored(self, node: Node, term: int) -> None:
        """A workload was ordered to start: its term must be stored and new."""
        durable = node.disk.durable
        if durable is None or durable.active_term != term or durable.term < term:
            self.broken(f"{node.name} starts term {term}, which is not stored")
        if term in self.used_terms:
            self.broken(f"{node.name} uses term {term} again")
        self.used_terms.add(term)
        self.activations += 1

    def require_one_workload(self, node: Node) -> None:
        """A workload begins, or goes on after a freeze: the other node's must not run."""
        other = self.nodes[1 - node.number]
        if other.runs_now:
            self.overlaps += 1
            if not self.excused:
                self.broken(f"two workloads run at once, and nothing explains it: {node.name} came second")
            self.timeline.note("", "two workloads run at once, as is to be expected now")

    @property
    def excused(self) -> bool:
        """Whether the nodes could not, or hardly, speak until just now."""
        return bool(self.network.blocked) or self.timeline.now_ns <= self.explained_until_ns

    def excuse(self, extra_ns: int = 0) -> None:
        """The nodes could not speak until now, and for `extra_ns` still."""
        until_ns = self.timeline.now_ns + extra_ns + self.aftermath_ns
        self.explained_until_ns = max(self.explained_until_ns, until_ns)

    def freezes(self, node: Node) -> None:
        """PROTOCOL.md section 8, what remains: a hang while there is no link, or while it is lost, is not fenced in
        time."""
        if any(each.agent is None or each.agent.keeper.link is None for each in self.nodes):
            self.excuse()

    # -- what nodes do to each other

    def connect(
        self, alive: Callable[[], bool], refused: Callable[[Outcome], object], connected: Callable[[End], object]
    ) -> None:
        """The backup dials: TCP and TLS, leg by leg, each tried again while `alive`."""
        primary = self.primary

        def syn() -> None:
            if not primary.listens:
                self._leg(PRIMARY, alive, lambda: refused(Outcome.REFUSED))
                return
            self._attempts.append((primary, refused))
            if primary.agent is not None:
                agent = primary.agent
                self._leg(PRIMARY, alive, lambda: self._leg(BACKUP, alive, lambda: agent.soon(flight)))

        def flight() -> None:
            if alive() and (primary, refused) in self._attempts:
                self._leg(PRIMARY, alive, established)

        def established() -> None:
            if (primary, refused) not in self._attempts or primary.agent is None:
                return
            self._attempts.remove((primary, refused))
            self._connections += 1
            stream, agent = Stream(self.network, self._connections), primary.agent
            accepted = stream.ends[PRIMARY]
            agent.ends.add(accepted)

            def finished() -> None:
                accepted.notify = lambda: None
                agent.serve(accepted, lambda _: None, dialled=False)

            def notify() -> None:
                accepted.notify = lambda: None
                agent.soon(finished)

            accepted.notify = notify
            connected(stream.ends[BACKUP])

        self._leg(BACKUP, alive, syn)

    def _leg(
        self, sender: int, alive: Callable[[], bool], arrived: Callable[[], object], retry_ns: int = LEG_RETRY_NS
    ) -> None:
        receiver = self.nodes[1 - sender]
        if self.network.passes(sender) and receiver.powered and self.nodes[sender].powered:
            self.timeline.after(self.network.delay_ns(), lambda: receiver.when_awake(arrived))
        elif alive():
            self.timeline.after(retry_ns, lambda: self._leg(sender, alive, arrived, 2 * retry_ns))

    def port_closed(self, node: Node) -> None:
        """What waited to be accepted is reset."""
        waiting = [each for each in self._attempts if each[0] is node]
        self._attempts = [each for each in self._attempts if each[0] is not node]
        for _, refused in waiting:
            self._leg(node.number, lambda: False, lambda refused=refused: refused(Outcome.NO_ANSWER))  # type: ignore[misc]  # mypy knows no default in a lambda

    def kernel_gone(self, node: Node) -> None:
        """The node's power is off: its connections are gone without a word."""
        self._attempts = [each for each in self._attempts if each[0] is not node]
        for stream in list(self.network.streams):
            end = stream.ends[node.number]
            end.closed = True
            end.held.clear()
            stream.forget_if_over()

    def beacon(self, sender: Node, datagram: bytes) -> None:
        """Sends a datagram to whatever agent runs there when it arrives."""
        receiver = self.nodes[1 - sender.number]

        def arrive() -> None:
            agent = receiver.agent
            if agent is not None and not receiver.frozen:
                agent.soon(lambda: agent.beacons.receive(datagram))

        self.network.send_datagram(sender.number, arrive)

    # -- beginning and end

    def settle(self) -> SimulatedPair:
        """Starts both and waits until they are at home."""
        for node in self.nodes:
            node.boot()
        self.require_home()
        return self

    def mend(self) -> None:
        """Heals everything: network, power, freezes, maintenance."""
        self.timeline.note("", "everything is mended")
        self.mended = True
        if self.network.blocked or self.network.loss:
            self.excuse()
        self.network.block(frozenset())
        self.network.loss = 0.0
        for node in self.nodes:
            node.thaw()
            node.boot()
        self.timeline.run_for(SECOND)
        if any(each.agent is not None and each.agent.roles.record.maintenance for each in self.nodes):
            for node in self.nodes:
                node.order(told.MaintenanceOrdered(False))

    @property
    def active(self) -> Node | None:
        """The one node that is active, if there is just one."""
        active = [each for each in self.nodes if each.agent is not None and each.agent.roles.phase is Phase.ACTIVE]
        return active[0] if len(active) == 1 else None

    @property
    def at_home(self) -> bool:
        """Whether one node is active with its workload, and the other on standby, linked with it."""
        active = self.active
        if active is None:
            return False
        other = self.nodes[1 - active.number]
        if active.agent is None or other.agent is None or other.agent.roles.phase is not Phase.STANDBY:
            return False
        linked = all(each.agent is not None and each.agent.keeper.link is not None for each in self.nodes)
        told_alike = active.agent.roles.peer is not None and other.agent.roles.peer is not None
        term = active.agent.roles.record.active_term
        return linked and told_alike and active.running == term and other.running is None

    def require_home(self, within_ns: int = HOME_NS) -> None:
        """Waits until the pair is at home and stays so for a while; raises if that takes too long."""
        until_ns = self.timeline.now_ns + within_ns
        while self.timeline.run_until(lambda: self.at_home, until_ns - self.timeline.now_ns):
            if not self.timeline.run_until(lambda: not self.at_home, REST_NS):
                return
        phases = [each.agent.roles.phase.value if each.agent else "no agent" for each in self.nodes]
        reasons = [each.agent.roles.reason if each.agent else "" for each in self.nodes]
        self.broken(f"nobody came home within {within_ns // SECOND} s: {phases}, {reasons}")

    def record_of(self, at: int) -> Record:
        """Returns what one node's agent knows."""
        agent = self.nodes[at].agent
        assert agent is not None
        return agent.roles.record
