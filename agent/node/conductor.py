"""Conducts the roles: gives them facts one by one and carries out the effects they answer with, in their order.

The only place that calls `Roles.handle`. Invariant: no fact is handled before every effect of the one before is
carried out, so that what is durable, what is sent and what is done never overtake each other.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from agent import __version__
from agent.admin.codes import EventCode, event_code
from agent.admin.events import EventLog
from agent.config.model import Config, WorkloadKind
from agent.core import effects as do
from agent.core import inputs as told
from agent.core.messages import TOKEN_BYTES, Hello, Report
from agent.core.record import Record
from agent.core.role_table import Phase
from agent.core.roles import Roles, RoleSettings
from agent.core.vocabulary import NANOSECONDS_PER_MILLISECOND, Mode, WorkloadState
from agent.link.beacons import BeaconOwner, Beacons
from agent.link.keeper import LinkKeeper
from agent.node.pulse import Pulse
from agent.node.record_store import RecordStore
from agent.node.replication import STARTING, Replication
from agent.platform.clock import boottime_ns, wall_ms
from agent.workload.events import (
    WorkloadEvent,
    WorkloadFailed,
    WorkloadFenced,
    WorkloadOutput,
    WorkloadRestarted,
    WorkloadStarted,
    WorkloadStopped,
)
from agent.workload.supervisor import Supervisor

log = logging.getLogger("agent.node")

NANOSECONDS_PER_SECOND = 1_000_000_000
IDLE_S = 3600.0
CLOCK_DIFFERENCE_MS_MAX = 2_000
FACTS_WAITING_MAX = 256  # before messages of the peer are no longer taken
LINK_FACTS = (told.ContactMade, told.LinkOpened, told.LinkLost, told.PeerReported, told.PeerAsked)
LEASED_PHASES = (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING)


@dataclass(frozen=True)
class Order:
    """A fact that an operator waits for an answer to."""

    fact: told.Input
    answer: Callable[[do.Answer], None]


class Conductor:
    """Roles in the middle, everything else around; see the module."""

    def __init__(self, config: Config, record: Record, store: RecordStore, events: EventLog, *, force: bool) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._instance = secrets.token_bytes(TOKEN_BYTES)
        self._connections = 0
        self._to_roles, self._facts = trio.open_memory_channel[tuple[int, told.Input | Order]](math.inf)
        self._told = 0  # facts so far
        self._dropped_at = 0  # what the link told up to this fact counts no more, for the link was dropped
        self._answer: Callable[[do.Answer], None] | None = None
        self.roles = Roles(role_settings(config, force_activate=force), record, boottime_ns())
        self.beacons = Beacons(
            BeaconOwner(self._describe, lambda beacon: self.tell(told.PeerHeard(beacon.active, beacon.hears))),
            interval_ms=config.heartbeat.interval,
            patience_ms=takeover_ms(config),
        )
        self.roles.concern = workload_concern(config)
        self.replication = Replication(config, self)
        if self.replication.enabled:
            self.roles.trees_obstacle = STARTING
        self._stopped_at_ns: int | None = None  # when the last workload of the pair was seen to have stopped
        self.last_gap_ms: int | None = None  # for how long none ran in the last handover
        self.keeper = LinkKeeper(self, self.beacons)
        self.supervisor: Supervisor  # set by the composition before `run`
        self.pulse = Pulse(
            self,
            renew=lambda until_ns: self.supervisor.renew_lease(until_ns),
            frozen=lambda: self.tell(told.WorkloadChanged(self.roles.workload)),  # any fact: the gap comes before it
        )
        self.changed = trio.Event()
        self.finished = trio.Event()

    # -- what the pulse asks

    @property
    def peer_takeover_ns(self) -> int | None:
        """See `agent.node.pulse.Ground`."""
        record = self.roles.record
        if self._config.mode is Mode.STAND_ALONE or not record.paired:
            return None
        return (record.peer_takeover_ms or self._config.heartbeat.timeout) * NANOSECONDS_PER_MILLISECOND

    @property
    def linked_since_ns(self) -> int | None:
        """See `agent.node.pulse.Ground`."""
        return self.keeper.linked_at_ns

    @property
    def leased(self) -> bool:
        """See `agent.node.pulse.Ground`."""
        return self.roles.phase in LEASED_PHASES

    # -- what the keeper of the link tells and asks

    def hello(self) -> Hello:
        """See `agent.link.keeper.LinkOwner`."""
        self._connections += 1
        config = self._config
        return Hello(
            name=config.name,
            mode=config.mode,
            agent_version=__version__,
            workload_version=config.workload.version or "",
            instance=self._instance,
            connection_number=self._connections,
            pair_id=self.roles.record.pair_id,
            pair_nonce=secrets.token_bytes(TOKEN_BYTES),
            term_lane=self.roles.record.term_lane,
            interval_ms=config.heartbeat.interval,
            timeout_ms=config.heartbeat.timeout,
            takeover_ms=takeover_ms(config),
            stop_timeout_ms=config.workload.stop_timeout,
            wall_clock_ms=wall_ms(),
            report=self.roles.report,
            workload_kind=config.workload.kind.value,
        )

    def report(self) -> Report:
        """See `agent.link.keeper.LinkOwner`."""
        return self.roles.report

    def pre_shared_key(self) -> bytes:
        """See `agent.link.keeper.LinkOwner`."""
        return (self._config.pre_shared_key or "").encode()

    def tell(self, fact: told.Input) -> None:
        """Queues a fact for the roles."""
        if isinstance(fact, told.LinkOpened):
            self._compare(fact.peer)
            self._note_workloads(fact.peer.report)
            link, connection = self.keeper.link, self._config.connection
            if link is not None:
                self.replication.linked(link.bulk_key, connection.host, connection.port)
        elif isinstance(fact, told.LinkLost):
            self.replication.unlinked()
        elif isinstance(fact, told.PeerReported):
            self._note_workloads(fact.report)
        self._queue(fact)

    def event(self, code: EventCode, sentence: str, **fields: Any) -> None:
        """See `agent.node.replication.ReplicationOwner`."""
        self._events.append(code, sentence, **fields)

    def config_applied(self) -> None:
        """See `agent.node.replication.ReplicationOwner`."""
        self.supervisor.config_applied()

    def _note_workloads(self, peer: Report) -> None:
        """Measures how long no workload of the pair runs."""
        own = self.supervisor.status.state
        if WorkloadState.RUNNING in (own, peer.workload):
            if self._stopped_at_ns is not None:
                self.last_gap_ms = (boottime_ns() - self._stopped_at_ns) // NANOSECONDS_PER_MILLISECOND
            self._stopped_at_ns = None
        elif self._stopped_at_ns is None:
            self._stopped_at_ns = boottime_ns()

    def _compare(self, peer: Hello) -> None:
        """Tells of differences that decide nothing but matter to an operator."""
        ahead_ms = peer.wall_clock_ms - wall_ms()
        if abs(ahead_ms) > CLOCK_DIFFERENCE_MS_MAX:
            sentence = (
                f"the clock of {peer.name} is {abs(ahead_ms) / 1000:.1f} s {'ahead' if ahead_ms > 0 else 'behind'}"
            )
            self._events.append(EventCode.CLOCK_DIFFERENCE, f"{sentence}; roles do not depend on it", ahead_ms=ahead_ms)
        versions = (
            ("pair-agent", __version__, peer.agent_version),
            ("the workload", self._config.workload.version, peer.workload_version),
        )
        for what, own, other in versions:
            if own and other and own != other:
                sentence = f"{what} is version {own} here and {other} on {peer.name}; install the same on both"
                self._events.append(EventCode.VERSION_DIFFERENCE, sentence, own=own, other=other)

    def overrun(self) -> bool:
        """See `agent.link.keeper.LinkOwner`."""
        return self._facts.statistics().current_buffer_used > FACTS_WAITING_MAX

    def link_event(self, code: str, sentence: str) -> None:
        """See `agent.link.keeper.LinkOwner`."""
        self._events.append(event_code(code), sentence)

    def sent(self, before_ns: int) -> None:
        """See `agent.link.keeper.LinkOwner`."""
        self.pulse.sent(before_ns)

    def _describe(self) -> tuple[bool, bool, int]:
        return self.roles.phase is Phase.ACTIVE, self.keeper.link is not None, self.roles.record.active_term

    # -- what the workload reports

    def workload_event(self, event: WorkloadEvent) -> None:
        """Takes an event of the supervisor."""
        match event:
            case WorkloadOutput():
                return  # the supervisor logs it
            case WorkloadStarted():
                pid = "" if event.pid is None else f" (pid {event.pid})"
                sentence = f"the workload was started{pid} in term {event.term}"
                self._events.append(EventCode.WORKLOAD_STARTED, sentence, term=event.term, at_ns=event.at_ns)
            case WorkloadStopped():
                self._events.append(EventCode.WORKLOAD_STOPPED, "the workload is stopped", at_ns=event.at_ns)
                self.tell(told.WorkloadEnded())
            case WorkloadRestarted():
                self._events.append(EventCode.WORKLOAD_RESTARTED, f"the workload was restarted: {event.reason}")
            case WorkloadFailed():
                self._events.append(EventCode.WORKLOAD_FAILED, f"the workload fails: {event.reason}")
                self.tell(told.WorkloadGaveUp(event.reason))
            case WorkloadFenced():
                self._events.append(EventCode.WORKLOAD_FENCED, event.reason, at_ns=event.at_ns)
                self.tell(told.Frozen(event.reason))
        if self.roles.peer is not None:
            self._note_workloads(self.roles.peer)
        self.tell(told.WorkloadChanged(self.supervisor.status.state))

    # -- the loop

    async def order(self, fact: told.Input) -> do.Answer:
        """Gives an operator's order to the roles and returns their immediate answer."""
        answers: list[do.Answer] = []
        answered = trio.Event()

        def take(answer: do.Answer) -> None:
            answers.append(answer)
            answered.set()

        self._queue(Order(fact, take))
        await answered.wait()
        return answers[0]

    def _queue(self, item: told.Input | Order) -> None:
        self._told += 1
        self._to_roles.send_nowait((self._told, item))

    async def run(self) -> None:
        """Conducts until the roles want to exit. Raises StateError when the record cannot be stored."""
        self.tell(told.Started())
        while not self.finished.is_set():
            number, item = await self._next()
            if (gap_ns := self.pulse.take_gap_ns()) is not None:
                gap_ms = gap_ns // NANOSECONDS_PER_MILLISECOND
                reason = f"this agent did not run for {gap_ms} ms, about as long as the other node waits"
                await self._conduct(told.Frozen(reason), None)
            if number <= self._dropped_at and isinstance(item, LINK_FACTS):
                continue
            if isinstance(item, Order):
                await self._conduct(item.fact, item.answer)
            else:
                await self._conduct(item, None)

    async def _conduct(self, fact: told.Input, answer: Callable[[do.Answer], None] | None) -> None:
        self._answer = answer
        for effect in self.roles.handle(fact, boottime_ns()):
            await self._carry_out(effect)
        self.replication.update()
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def _next(self) -> tuple[int, told.Input | Order]:
        deadline_ns = self.roles.next_deadline()
        wait_s = IDLE_S if deadline_ns is None else (deadline_ns - boottime_ns()) / NANOSECONDS_PER_SECOND
        with trio.move_on_after(max(0.0, wait_s)):
            return await self._receive()
        return self._told + 1, told.TimerFired()

    async def _receive(self) -> tuple[int, told.Input | Order]:
        try:
            item = self._facts.receive_nowait()  # what is known counts before what the clock says
        except trio.WouldBlock:
            return await self._facts.receive()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return item

    async def _carry_out(self, effect: do.Effect) -> None:
        link = self.keeper.link
        match effect:
            case do.Store():
                await self._store.store(effect.record)
            case do.Publish():
                self.keeper.publish(effect.report)
            case do.Tell():
                if link is not None:
                    link.tell(effect.message)
            case do.DropLink():
                self.keeper.drop(effect.sentence)
                self._dropped_at = self._told
                self.replication.unlinked()
            case do.SayGoodbye():
                if link is not None:
                    link.say_goodbye(effect.reason)
                    await link.closed.wait()
            case do.StartWorkload():
                await self.replication.settle()
                self.pulse.begin()
                self.supervisor.activate(effect.term)
            case do.StopWorkload():
                self.supervisor.deactivate()
            case do.CatchUp():
                self.replication.catch_up(effect.number)
            case do.SendFinalChanges():
                self.replication.finish(effect.number)
            case do.RoleChanged():
                sentence = f"{effect.before.value} -> {effect.after.value} (term {effect.term}): {effect.sentence}"
                self._events.append(EventCode.ROLE_CHANGED, sentence, role=effect.after.value, term=effect.term)
                if not self.leased:
                    self.pulse.begin()
            case do.Announce():
                self._events.append(event_code(effect.code), effect.sentence)
            case do.Answer():
                if self._answer is not None:
                    self._answer(effect)
            case do.Exit():
                self.finished.set()


def workload_concern(config: Config) -> str:
    """Returns what is known to go wrong if the workload were started here; empty: nothing."""
    workload = config.workload
    command = {WorkloadKind.PROCESS: workload.command, WorkloadKind.COMMANDS: workload.start}.get(workload.kind)
    if not command:
        return ""
    path = workload.environment.get("PATH")
    program = command[0]
    beside = workload.working_directory / program
    if shutil.which(program, path=path) or beside.exists():
        return ""
    return f"its workload's program {program!r} was not found when the agent started"


def takeover_ms(config: Config) -> int:
    """Returns the shortest silence after which this node would take over."""
    if config.mode is Mode.BACKUP:
        return min(config.heartbeat.timeout, config.connection.connection_timeout)
    return config.heartbeat.timeout


def role_settings(config: Config, *, force_activate: bool) -> RoleSettings:
    """Returns what of the configuration the roles need."""
    return RoleSettings(
        mode=config.mode,
        initial_standby_ns=config.server.initial_standby_time * NANOSECONDS_PER_MILLISECOND,
        on_initial_standby_timeout=config.server.on_initial_standby_timeout,
        takeover_ns=takeover_ms(config) * NANOSECONDS_PER_MILLISECOND,
        contact_ns=config.connection.connection_timeout * NANOSECONDS_PER_MILLISECOND,
        force_activate=force_activate,
        trees=bool(config.trees) and config.mode is not Mode.STAND_ALONE,
        term_floor=wall_ms() // 1000,  # terms grow by activations, and those are rarer than seconds
    )
