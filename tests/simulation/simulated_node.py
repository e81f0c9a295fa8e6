"""One simulated node: its clock, disk, agent, guardians and workload, and what can happen to them.

Nobody judges here: what a workload does is told to the pair, which knows both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core import inputs as told
from agent.core.roles import RoleSettings
from agent.core.vocabulary import Mode, TimeoutPolicy
from tests.simulation.simulated_agent import Agent
from tests.simulation.simulated_disk import SimulatedDisk
from tests.simulation.simulated_workload import Guardian
from tests.simulation.timeline import MILLISECOND, SECOND, Clock

if TYPE_CHECKING:
    from tests.simulation.simulator import SimulatedPair

PRIMARY, BACKUP = 0, 1
MODES = (Mode.PRIMARY, Mode.BACKUP)


@dataclass(frozen=True)
class NodeConfig:
    """What of agent.toml matters, in milliseconds."""

    interval_ms: int = 1000
    timeout_ms: int = 5000
    connection_timeout_ms: int = 5000
    reconnect_delay_ms: int = 1000
    initial_standby_ms: int = 10_000
    stop_timeout_ms: int = 3000
    policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE
    mode: Mode = Mode.PRIMARY

    @property
    def takeover_ms(self) -> int:
        """The shortest silence after which this node would take over."""
        return min(self.timeout_ms, self.connection_timeout_ms) if self.mode is Mode.BACKUP else self.timeout_ms

    @property
    def takeover_ns(self) -> int:
        return self.takeover_ms * MILLISECOND

    @property
    def interval_ns(self) -> int:
        return self.interval_ms * MILLISECOND

    @property
    def connection_timeout_ns(self) -> int:
        return self.connection_timeout_ms * MILLISECOND

    @property
    def reconnect_delay_ns(self) -> int:
        return self.reconnect_delay_ms * MILLISECOND

    @property
    def settings(self) -> RoleSettings:
        """What of it the roles know."""
        return RoleSettings(
            mode=self.mode,
            initial_standby_ns=self.initial_standby_ms * MILLISECOND,
            on_initial_standby_timeout=self.policy,
            takeover_ns=self.takeover_ns,
            contact_ns=self.connection_timeout_ns,
        )


class Node:
    """A machine; see the module."""

    def __init__(self, pair: SimulatedPair, at: int, config: NodeConfig, peer_takeover_ns: int) -> None:
        self.pair, self.number, self.config = pair, at, config
        self.timeline, self.settings, self.name = pair.timeline, config.settings, MODES[at].value
        self.dials = at == BACKUP
        self.takeover_ns = peer_takeover_ns  # of the other node: what the lease is made of
        random = self.timeline.random
        self.clock = Clock(self.timeline, random.randrange(10**6 * SECOND), random.randint(-100, 100))
        self.disk = SimulatedDisk(config.mode.value, 0 if config.mode is Mode.BACKUP else 1)
        self.powered, self.boots = True, 0
        self.agent: Agent | None = None
        self.agent_frozen = self.frozen = False  # the agent alone; the whole node
        self._when_awake: list[Callable[[], object]] = []
        self.guardians: list[Guardian] = []  # that hold the listening socket
        self._starting = False
        self._woke_too_late = False

    def note(self, what: str) -> None:
        """Adds a line to the transcript."""
        self.timeline.note(self.name, what)

    def stop_ns(self) -> int:
        """Returns how long the workload takes to stop this time."""
        return self.timeline.between(MILLISECOND, self.config.stop_timeout_ms * MILLISECOND)

    @property
    def running(self) -> int | None:
        """The term of the workload, or None."""
        return next((each.running for each in self.guardians if each.running is not None), None)

    @property
    def runs_now(self) -> bool:
        """Whether the workload can do anything at this instant. One that was frozen with its whole node past the end
        of its lease is killed on waking, which takes a moment that nobody can take away."""
        return self.running is not None and not self.frozen and not self._woke_too_late

    @property
    def listens(self) -> bool:
        """Whether a connection to this node's port is taken."""
        return not self.dials and bool(self.guardians)

    # -- what its parts tell

    def workload_ordered(self, term: int) -> None:
        """See `SimulatedPair`."""
        self.pair.require_stored(self, term)

    def workload_began(self, term: int) -> None:
        """See `agent.workload.guardian_machine`, here and below."""
        self.note(f"WORKLOAD runs in term {term}")
        self.pair.require_one_workload(self)

    def workload_died(self) -> None:
        self.note("WORKLOAD ended")
        self._woke_too_late = False

    def guardian_left(self) -> None:
        self.guardians = [each for each in self.guardians if each.running is not None or self._belongs(each)]
        if not self.listens:
            self.pair.port_closed(self)

    def _belongs(self, guardian: Guardian) -> bool:
        return self.agent is not None and self.agent.guardian is guardian

    # -- what happens to it

    def start(self) -> None:
        """Starts the agent, after what a dead one left is gone."""
        if self.agent is not None or not self.powered or self._starting:
            return
        if self.guardians or self.frozen:
            self._starting = True
            self.timeline.after(50 * MILLISECOND, self._start_again)
            return
        self.note("agent starts")
        self.agent_frozen = False
        self.agent = Agent(self)
        self.guardians = [self.agent.guardian]

    def _start_again(self) -> None:
        self._starting = False
        self.start()

    def _end(self, how: str) -> Agent | None:
        agent, self.agent = self.agent, None
        if agent is not None:
            self.note(how)
            agent.die()
            for end in list(agent.ends):
                end.close()
        return agent

    def crash_now(self) -> None:
        """Kills the agent (-9)."""
        if self.frozen:
            return  # nobody there who could
        agent = self._end("agent killed")
        if agent is not None:
            if self.timeline.random.random() < 0.7:
                self.disk.complete()
            self.agent_frozen = False
            guardian = agent.guardian
            self.timeline.after(MILLISECOND, lambda: self.when_awake(guardian.agent_gone))
            self._start_if_mended()

    def exited(self) -> None:
        """The agent stopped in good order."""
        agent = self._end("agent exits")
        assert agent is not None
        if self.running is not None:
            self.pair.broken(f"{self.name} exits while its workload runs")
        agent.guardian.agent_gone()
        self._start_if_mended()

    def _start_if_mended(self) -> None:
        if self.pair.mended:
            self.timeline.after(SECOND, self.start)

    def lose_power(self) -> None:
        """Everything stops at once."""
        if not self.powered:
            return
        self.powered = self.frozen = self.agent_frozen = False
        self._when_awake = []
        if self.agent is not None:
            self.agent.die()
            self.agent = None
        torn = self.disk.lose_power(self.timeline.random)
        self.note(f"power lost{', a write is torn' if torn else ''}")
        for guardian in self.guardians:
            guardian.vanish()
        self.guardians, self._woke_too_late = [], False
        self.pair.kernel_gone(self)

    def boot(self) -> None:
        """Power is back."""
        if not self.powered:
            self.note("boots")
            self.powered = True
            self.boots += 1
        self.start()

    def freeze(self, *, whole: bool) -> None:
        """Stops the agent, or the whole node, at this instant."""
        if not self.powered or self.frozen or self.agent_frozen:
            return
        self.note(f"{'node' if whole else 'agent'} frozen")
        self.pair.freezes(self)
        self.frozen, self.agent_frozen = whole, True

    def thaw(self) -> None:
        """Everything goes on."""
        if not self.agent_frozen:
            return
        self.note("thawed")
        guarded = [each for each in self.guardians if each.running is not None]
        self._woke_too_late = self.frozen and any(each.lease_ended() for each in guarded)
        self.frozen = self.agent_frozen = False
        waiting, self._when_awake = self._when_awake, []
        for action in waiting:
            action()
        if self.agent is not None:
            self.agent.thaw()
        if self.runs_now:
            self.pair.require_one_workload(self)

    def when_awake(self, action: Callable[[], object]) -> None:
        """Lets `action` happen now, or when the whole node is no longer frozen."""
        if self.frozen:
            self._when_awake.append(action)
        else:
            action()

    def order(self, fact: told.Input) -> None:
        """Gives an operator's order, if there is an agent."""
        if self.agent is not None and self.agent.alive:
            self.note(f"ordered: {fact}")
            self.agent.soon(lambda: self.agent.tell(fact) if self.agent is not None else None)
