"""One run of an agent on a simulated node: the real roles, sessions, keeper of the link and pulse, conducted.

Mirrors `agent.node.conductor`: facts one by one, every effect finished before the next, a gap told before all else.
The agent is a process: it can be frozen, when everything waits, and killed, at any instant and between two effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from agent.core import effects as do
from agent.core import inputs as told
from agent.core.messages import TOKEN_BYTES, Hello, Report
from agent.core.roles import Roles
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND
from agent.link import keeper as keeper_module
from agent.link.dialler import Outcome
from agent.link.keeper import LinkKeeper
from agent.node import pulse as pulse_module
from agent.node.conductor import FACTS_WAITING_MAX, LEASED_PHASES, LINK_FACTS
from agent.node.pulse import Pulse
from tests.simulation.simulated_edge import (
    TASK_SWITCH_NS,
    SimulatedBeacons,
    SimulatedConnection,
    SimulatedDialler,
    TlsEnd,
)
from tests.simulation.simulated_network import End
from tests.simulation.simulated_workload import Guardian
from tests.simulation.timeline import Alarm, now_here_ns, run_on, wall_here_ms

if TYPE_CHECKING:
    from tests.simulation.simulated_node import Node

DISK_NS = 4 * NANOSECONDS_PER_MILLISECOND  # at most, for one flush


class _Killed(BaseException):  # not an error, and nothing of the code under test may catch it
    """The agent was killed between two of its own steps."""


class _Sleep:
    """What the pulse awaits instead of `trio.sleep`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


def use_simulated_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the real keeper and pulse run on simulated clocks and connections."""
    for module in (keeper_module, pulse_module):
        monkeypatch.setattr(module, "boottime_ns", now_here_ns)
    monkeypatch.setattr(keeper_module, "wall_ms", wall_here_ms)
    monkeypatch.setattr(keeper_module, "Connection", SimulatedConnection)
    monkeypatch.setattr(pulse_module, "trio", SimpleNamespace(sleep=_Sleep))


class Agent:
    """One run of an agent; see the module."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.alive = True
        self.crash_after: int | None = None  # effects
        self._backlog: list[Callable[[], None]] = []
        self._facts: deque[tuple[int, told.Input]] = deque()
        self._told = self._dropped_at = self._connections = 0
        self._idle = False
        self._wake: Alarm | None = None
        self._streams: list[Coroutine[Any, Any, bool]] = []
        self._instance = node.timeline.random.randbytes(TOKEN_BYTES)
        run_on(node.clock)
        record = node.disk.load()
        node.disk.begin(record)
        self.ends: set[End] = set()
        self.roles = Roles(node.settings, record, node.clock.now_ns())
        self.guardian = Guardian(node, lambda fact: self.soon(lambda: self._workload_event(fact)))
        config = node.config
        self.beacons = SimulatedBeacons(self, config.interval_ns, config.takeover_ns)
        self.keeper = LinkKeeper(self, self.beacons)  # type: ignore[arg-type]  # it stands in for Beacons
        self.pulse = Pulse(
            self,
            renew=lambda until_ns: self.guardian.renew(until_ns),
            frozen=lambda: self.tell(told.WorkloadChanged(self.roles.workload)),
        )
        self._beating: Coroutine[Any, Any, None] | None = None
        self._conducting = self._conduct_all()
        self.soon(self._boot, DISK_NS)

    def _boot(self) -> None:
        self.node.disk.complete()
        self._beat()
        self.beacons.hurry()
        if self.node.dials:
            SimulatedDialler(self, self.node.config.connection_timeout_ns, self.node.config.reconnect_delay_ns)
        self._resume()

    # -- the process

    def soon(self, action: Callable[[], None], most_ns: int = TASK_SWITCH_NS) -> Alarm:
        """Lets `action` happen as soon as the agent comes to it."""
        return self.node.timeline.after(self.node.timeline.random.randrange(most_ns), lambda: self._run(action))

    def at(self, instant_ns: int, action: Callable[[], None]) -> Alarm:
        """Lets `action` happen when the node's clock shows `instant_ns`."""
        alarm = self.node.timeline.after(self.node.clock.until_ns(instant_ns), lambda: None)
        alarm.action = lambda: self._run(lambda: None if alarm.cancelled else action())
        return alarm

    def _run(self, action: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.node.agent_frozen:
            self._backlog.append(action)
            return
        run_on(self.node.clock)
        try:
            action()
        except _Killed:
            self.node.crash_now()

    def thaw(self) -> None:
        """Everything that became due meanwhile happens, in any order."""
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self.soon(action)

    def die(self) -> None:
        """Ends without another step; the guardian and the kernel remain."""
        self.alive = False
        self._backlog.clear()

    # -- what the pulse asks

    @property
    def peer_takeover_ns(self) -> int | None:
        """See `agent.node.pulse.Ground`, here and below."""
        record = self.roles.record
        if not record.paired:
            return None
        return (record.peer_takeover_ms or self.node.config.timeout_ms) * NANOSECONDS_PER_MILLISECOND

    @property
    def linked_since_ns(self) -> int | None:
        return self.keeper.linked_at_ns

    @property
    def leased(self) -> bool:
        return self.roles.phase in LEASED_PHASES

    def _beat(self) -> None:
        if self._beating is None:
            self._beating = self.pulse.run()
        seconds = self._beating.send(None)
        self.at(self.node.clock.now_ns() + int(seconds * 1e9), self._beat)

    # -- what the keeper of the link asks and tells

    def hello(self) -> Hello:
        """See `agent.link.keeper.LinkOwner`, here and below."""
        self._connections += 1
        config, record = self.node.config, self.roles.record
        return Hello(
            name=self.node.name,
            mode=self.node.settings.mode,
            agent_version="1",
            workload_version="",
            instance=self._instance,
            connection_number=self._connections,
            pair_id=record.pair_id,
            pair_nonce=self.node.timeline.random.randbytes(TOKEN_BYTES),
            term_lane=record.term_lane,
            interval_ms=config.interval_ms,
            timeout_ms=config.timeout_ms,
            takeover_ms=config.takeover_ms,
            stop_timeout_ms=config.stop_timeout_ms,
            wall_clock_ms=self.node.clock.wall_ms(),
            report=self.roles.report,
        )

    def report(self) -> Report:
        return self.roles.report

    def pre_shared_key(self) -> bytes:
        return b"a key"

    def tell(self, fact: told.Input) -> None:
        self._told += 1
        self._facts.append((self._told, fact))
        if self._idle:
            self._step_soon()

    def overrun(self) -> bool:
        return len(self._facts) > FACTS_WAITING_MAX

    def link_event(self, code: str, sentence: str) -> None:
        self.node.note(f"{code}: {sentence}")

    def sent(self, before_ns: int) -> None:
        self.pulse.sent(before_ns)

    def serve(self, end: End, ended: Callable[[bool], None], *, dialled: bool) -> None:
        """Runs the protocol on a connection; `ended(was_linked)` is called when it is over."""
        running = self.keeper.run_stream(
            TlsEnd(self, end),  # type: ignore[arg-type]  # it stands in for a TlsStream
            f"connection {end.stream.number}",
            dialled=dialled,
        )
        self._streams.append(running)
        self.ends.add(end)
        connection: SimulatedConnection = running.send(None)

        def closed() -> None:
            self._streams.remove(running)
            self.ends.discard(end)
            try:
                running.send(None)
            except StopIteration as stopped:
                ended(stopped.value)

        connection.when_closed.append(closed)

    def dial_failed(self, outcome: Outcome) -> None:
        """See `agent.node.run`."""
        self.keeper.note_failure(outcome.value)
        if outcome is Outcome.REFUSED and self.keeper.linked_before:
            self.tell(told.PeerProvenGone())

    def _workload_event(self, fact: told.Input) -> None:
        self.tell(fact)

    # -- the loop

    def _step_soon(self) -> None:
        if self._wake is not None:
            self._wake.cancelled = True
        self._idle = False
        self.soon(self._resume)

    def _resume(self) -> None:
        try:
            next(self._conducting)
        except StopIteration:
            self.node.exited()

    def _conduct_all(self) -> Generator[None, None, None]:
        self.tell(told.Started())
        while True:
            number, fact = yield from self._next()
            if (gap_ns := self.pulse.take_gap_ns()) is not None:
                yield from self._conduct(told.Frozen(f"this agent did not run for {gap_ns // 1_000_000} ms"))
            if number <= self._dropped_at and isinstance(fact, LINK_FACTS):
                continue
            if (yield from self._conduct(fact)):
                return

    def _next(self) -> Generator[None, None, tuple[int, told.Input]]:
        if not self._facts:
            deadline_ns = self.roles.next_deadline()
            self._idle = True
            self._wake = None if deadline_ns is None else self.at(deadline_ns, self._step_soon)
            yield
        return self._facts.popleft() if self._facts else (self._told + 1, told.TimerFired())

    def _conduct(self, fact: told.Input) -> Generator[None, None, bool]:
        before = self.roles.phase
        effects = self.roles.handle(fact, self.node.clock.now_ns())
        if self.roles.phase is not before or not isinstance(fact, told.PeerReported | told.WorkloadChanged):
            self.node.note(f"{self.roles.phase.value:<14} after {_in_short(fact)}")
        for effect in effects:
            if self.crash_after is not None:
                self.crash_after -= 1
                if self.crash_after < 0:
                    raise _Killed
            yield from self._carry_out(effect)
            if isinstance(effect, do.Exit):
                return True
        return False

    def _carry_out(self, effect: do.Effect) -> Generator[None, None, None]:
        link, node = self.keeper.link, self.node
        match effect:
            case do.Store():
                node.disk.begin(effect.record)
                self.soon(self._resume, DISK_NS)
                yield
                node.disk.complete()
            case do.Publish():
                self.keeper.publish(effect.report)
            case do.Tell():
                node.note(f"tells {type(effect.message).__name__}")
                if link is not None:
                    link.tell(effect.message)
            case do.DropLink():
                self.keeper.drop(effect.sentence)
                self._dropped_at = self._told
            case do.SayGoodbye():
                if link is not None:
                    link.say_goodbye(effect.reason)
                    assert isinstance(link, SimulatedConnection)
                    if not link.closed:
                        link.when_closed.append(lambda: self.soon(self._resume))
                        yield
            case do.StartWorkload():
                self.pulse.begin()
                node.workload_ordered(effect.term)
                self.guardian.activate(effect.term)
            case do.StopWorkload():
                self.guardian.deactivate()
            case do.CatchUp():
                self.tell(told.CaughtUp(effect.number))
            case do.SendFinalChanges():
                self.tell(told.FinalChangesSent(effect.number))
            case do.RoleChanged():
                node.note(f"ROLE {effect.before.value} -> {effect.after.value} (term {effect.term}): {effect.sentence}")
                if not self.leased:
                    self.pulse.begin()
            case do.Answer():
                node.note(f"answers {effect.accepted}: {effect.sentence}")


def _in_short(fact: told.Input) -> str:
    match fact:
        case told.LinkOpened():
            report = fact.peer.report
            return f"LinkOpened: {report.role.value}, term {report.term}, active in {report.active_term}"
        case told.LinkLost():
            return f"LinkLost: {fact.loss.name}, {fact.sentence}"
        case told.PeerReported():
            return f"PeerReported: {fact.report.role.value}, active in {fact.report.active_term}"
    return repr(fact)
