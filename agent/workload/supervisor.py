"""Runs the workload as the roles want it: the last thing asked for wins, whatever is going on.

    wanted (by `activate`, `deactivate`)          the run

    nothing yet                                   STOPPED --start--> STARTING --> RUNNING
    STANDBY   cold: not running; warm: told          ^                  |            |
    ACTIVE    running with that term; warm: told     `--- STOPPING <----+---stop-----'

After everything that happens `_step` compares the two and gives the one order that leads further; while an order is
under way it waits. Who carries the orders out, and confirms them, is a keeper's business (guardian_keeper).

Invariants: at most one run; a run is started only when the end of the one before is confirmed; every `deactivate` is
answered by exactly one WorkloadStopped, never while a cold run lives; every activation by at most one WorkloadStarted;
`report` is called from a task of `run` only, never from within a call of the roles.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import trio

from agent.config.model import Hooks, StandbyKind, Workload, WorkloadKind
from agent.core import health as policy
from agent.core.vocabulary import Role, WorkloadState
from agent.platform.clock import boottime_ns
from agent.workload.environment import inherited_environment
from agent.workload.events import (
    WorkloadEvent,
    WorkloadFailed,
    WorkloadFenced,
    WorkloadIdentity,
    WorkloadOutput,
    WorkloadRestarted,
    WorkloadStarted,
    WorkloadStatus,
    WorkloadStopped,
)
from agent.workload.guardian_keeper import GuardianKeeper, Keeper, NothingKeeper
from agent.workload.guardian_reports import Exited, Failed, Fenced, Output, Problem, Report, Started, Stopped
from agent.workload.health import watch
from agent.workload.role_teller import RoleTeller

STOP_OVERDUE_MS = 5_000  # after its timeout: a guardian that has not confirmed a stop by then is given up
_NANOSECONDS_PER_SECOND = 1_000_000_000
_MILLISECONDS_PER_SECOND = 1_000

_log = logging.getLogger("agent.workload")
_log_output = logging.getLogger("agent.workload.output")


class _Phase(Enum):
    STOPPED = WorkloadState.STOPPED
    STARTING = WorkloadState.STARTING
    RUNNING = WorkloadState.RUNNING
    STOPPING = WorkloadState.STOPPING


class Supervisor:
    """One workload of one node. Orders and renewals reach the guardian within the call; nothing here blocks."""

    def __init__(
        self,
        workload: Workload,
        hooks: Hooks,
        *,
        state_directory: Path,
        identity: WorkloadIdentity,
        report: Callable[[WorkloadEvent], None],
        inherited_sockets: Sequence[socket.socket] = (),
    ) -> None:
        """`inherited_sockets` stay open, and their ports do not refuse, until nothing of the workload is left."""
        self._workload = workload
        self._report = report
        self._teller = RoleTeller(hooks, identity, state_directory)
        self._events, self._undelivered = trio.open_memory_channel[WorkloadEvent](math.inf)
        self._guarded = workload.kind in (WorkloadKind.PROCESS, WorkloadKind.COMMANDS)
        self._warm = self._guarded and workload.standby is StandbyKind.WARM
        self._keeper: Keeper = (
            GuardianKeeper(workload, state_directory, inherited_sockets) if self._guarded else NothingKeeper()
        )
        self._policy = policy.HealthPolicy(
            failures=workload.health.failures,
            spell_ns=policy.spell_ns(workload.health.interval, workload.health.failures),
        )
        self._nursery: trio.Nursery | None = None
        # What is wanted.
        self._wanted: Role | None = None
        self._term: int | None = None
        self._announced = False  # WorkloadStarted was reported for this activation
        self._fenced = False  # dead until activated again
        self._stops_owed = 0  # WorkloadStopped events, cold
        self._lease_until_ns: int | None = None
        # What is.
        self._phase = _Phase.STOPPED
        self._stopped = trio.Event()  # set at the next end
        self._numbers = 0  # orders are numbered, so that late answers are told apart
        self._run_number = 0
        self._run_term: int | None = None
        self._stop_number = 0
        self._pid: int | None = None
        self._lost_a_run = False  # with the guardian
        self._restart_reason: str | None = None  # the next start is a restart
        self._pause: object | None = None  # no start before it is over
        self._restarts = 0
        self._healthy: bool | None = None
        self._last_error: str | None = None
        self._checking: trio.CancelScope | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled, then kills what runs, in bounded time; started when orders are carried out.

        Raises WorkloadError, in an exception group, if no guardian can be started.
        """
        if self._workload.kind in (WorkloadKind.SYSTEMD, WorkloadKind.WINDOWS_SERVICE):
            _log.warning("Workloads of kind %s are not run by this release.", self._workload.kind.value)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._deliver)
            nursery.start_soon(self._teller.run)
            await nursery.start(self._keeper.run, self)
            task_status.started()

    def activate(self, term: int) -> None:
        """Has the workload run with this term, started anew unless it is warm or runs with it already.

        WorkloadStarted follows, or WorkloadFailed, or WorkloadFenced if the lease has ended: renew it before.
        """
        if self._wanted is Role.ACTIVE and self._term == term and not self._fenced:
            return
        self._wanted, self._term = Role.ACTIVE, term
        self._announced = self._fenced = False
        self._pause = None
        self._policy.renew()
        if self._warm:
            self._teller.write_file(Role.ACTIVE, term)
            if self._phase is _Phase.RUNNING:
                self._announce()
        self._step()

    def deactivate(self) -> None:
        """Has the workload stopped, or a warm one told; one WorkloadStopped follows for each call, in any case."""
        self._wanted, self._term = Role.STANDBY, None
        self._pause = self._restart_reason = None
        if self._warm:
            self._teller.write_file(Role.STANDBY, None)
            self._teller.queue_hooks(Role.STANDBY, None, done=self._told_standby)
        else:
            self._stops_owed += 1
        self._step()

    async def shut_down(self) -> None:
        """Stops a warm workload as a cold one is stopped; returns when its end is confirmed. The agent is ending."""
        self._warm, self._wanted = False, Role.STANDBY
        self._pause = None
        self._step()
        while self._phase is not _Phase.STOPPED:
            await self._stopped.wait()

    def renew_lease(self, until_ns: int | None) -> None:
        """Lets the workload run until then, agent.platform.clock; None: without a lease. May be dropped."""
        self._lease_until_ns = until_ns
        self._keeper.renew_lease(until_ns)

    def config_applied(self) -> None:
        """Runs the hooks for it, in their turn."""
        self._teller.queue_config_hooks(self._wanted or Role.STARTING, self._term)

    @property
    def status(self) -> WorkloadStatus:
        """What is known now."""
        failed = self._policy.gave_up and self._phase is not _Phase.RUNNING
        return WorkloadStatus(
            state=WorkloadState.FAILED if failed else self._phase.value,
            pid=self._pid,
            restarts=self._restarts,
            healthy=self._healthy,
            term=self._term,
            last_error=self._last_error,
        )

    # The keeper's listener

    def handle_ready(self) -> None:
        """A guardian takes orders; of start commands nobody knows yet whether they were run before."""
        self._keeper.renew_lease(self._lease_until_ns)
        if self._workload.kind is WorkloadKind.COMMANDS:
            self._stop()
        else:
            self._step()

    def handle_lost(self) -> None:
        """The guardian died, and what it guarded is as good as dead, but not yet known to be."""
        self._lost_a_run = self._phase in (_Phase.STARTING, _Phase.RUNNING)
        self._enter(_Phase.STOPPING)
        self._stop_number = 0

    def handle_cleared(self) -> None:
        """What the lost guardian guarded is dead."""
        if self._workload.kind is not WorkloadKind.COMMANDS:
            self._enter(_Phase.STOPPED)
        if self._lost_a_run and self._wants_a_run():
            self._follow(self._policy.exited("its guardian process ended unexpectedly", boottime_ns()))
        self._step()

    def handle_report(self, report: Report) -> None:
        """The guardian has news."""
        if isinstance(report, Output):
            _log_output.info("%s", report.line)
            self._emit(WorkloadOutput(report.line))
        elif isinstance(report, Problem):
            self._last_error = report.sentence
            _log.warning("Workload: %s.", report.sentence)
        elif isinstance(report, Started):
            self._handle_started(report)
        elif isinstance(report, Fenced):
            self._handle_fenced(report)
        elif isinstance(report, Stopped):
            if report.number == self._stop_number:
                self._enter(_Phase.STOPPED)
                self._step(report.at_ns)
        elif isinstance(report, Failed | Exited) and report.number == self._run_number:
            if self._phase is _Phase.STOPPING:  # the confirmation of the stop follows
                return
            self._enter(_Phase.STOPPED)
            if isinstance(report, Failed):
                self._follow(self._policy.start_failed(report.sentence))
            else:
                self._follow(self._policy.exited(report.sentence, report.at_ns))
            self._step()

    def _handle_started(self, report: Started) -> None:
        if report.number != self._run_number or self._phase is not _Phase.STARTING:
            return
        self._enter(_Phase.RUNNING)
        self._pid = report.pid
        self._policy.started(report.at_ns)
        reason, self._restart_reason = self._restart_reason, None
        if reason is not None:
            self._restarts += 1
            _log.info("The workload was started again (restart %d).", self._restarts)
        if self._wanted is Role.ACTIVE and not self._announced:
            self._announce(report.at_ns)
        elif reason is not None:
            self._emit(WorkloadRestarted(reason, self._restarts))
        if self._guarded and self._nursery is not None:
            self._checking = trio.CancelScope()
            self._nursery.start_soon(self._check_health, self._checking)
        self._step()

    def _handle_fenced(self, report: Fenced) -> None:
        _log.warning("The workload was killed: %s.", report.sentence)
        self._last_error = report.sentence
        self._pause = self._restart_reason = None
        if self._warm:
            self._wanted, self._term = Role.STANDBY, None
            self._teller.write_file(Role.STANDBY, None)
            self.renew_lease(None)
        else:
            self._fenced = True
        if self._phase is not _Phase.STOPPING:
            self._enter(_Phase.STOPPED)
        self._emit(WorkloadFenced(report.at_ns, report.sentence))
        self._step()

    # From what is to what is wanted

    def _wants_a_run(self) -> bool:
        return self._warm or (self._wanted is Role.ACTIVE and not self._fenced)

    def _step(self, at_ns: int | None = None) -> None:
        if self._phase is _Phase.STOPPED and self._stops_owed:
            self._confirm_stops(at_ns or boottime_ns())
        if not self._keeper.ready or self._nursery is None:
            return
        if self._phase is _Phase.STOPPED:
            if self._wants_a_run() and self._pause is None:
                self._start()
        elif self._phase in (_Phase.STARTING, _Phase.RUNNING):
            is_wanted_run = self._warm or self._run_term == self._term
            if not (self._wants_a_run() and is_wanted_run):
                self._stop()

    def _start(self) -> None:
        self._numbers += 1
        self._run_number, self._run_term = self._numbers, self._term
        self._enter(_Phase.STARTING)
        role = Role.ACTIVE if self._wanted is Role.ACTIVE else Role.STANDBY
        self._keeper.order_start(self._run_number, self._teller.environment(role, self._term))
        if self._guarded:
            self._teller.write_file(role, self._term)

    def _stop(self) -> None:
        self._numbers += 1
        self._stop_number = self._numbers
        self._enter(_Phase.STOPPING)
        self._keeper.order_stop(self._stop_number, self._workload.stop_timeout)
        if self._nursery is not None:
            self._nursery.start_soon(self._watch_stop, self._stop_number)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        if phase is _Phase.STOPPED:
            self._pid = None
            self._stopped.set()
            self._stopped = trio.Event()
        if phase is not _Phase.RUNNING:
            self._healthy = None
            if self._checking is not None:
                self._checking.cancel()
                self._checking = None

    def _confirm_stops(self, at_ns: int) -> None:
        for _ in range(self._stops_owed):
            self._emit(WorkloadStopped(at_ns))
        self._stops_owed = 0
        self._teller.queue_hooks(Role.STANDBY, None)
        if self._wanted is not Role.ACTIVE:
            self.renew_lease(None)
        if self._guarded and self._wanted is not Role.ACTIVE:
            self._teller.write_file(Role.STANDBY, None)

    def _told_standby(self) -> None:
        self._emit(WorkloadStopped(boottime_ns()))
        if self._wanted is not Role.ACTIVE:
            self.renew_lease(None)

    def _announce(self, at_ns: int | None = None) -> None:
        """Reports the activation as done: for a warm workload once the role file says it."""
        assert self._term is not None
        self._announced = True
        self._teller.queue_hooks(Role.ACTIVE, self._term)
        if self._warm and self._nursery is not None:
            self._nursery.start_soon(self._announce_told, self._pid, self._term)
        else:
            self._emit(WorkloadStarted(self._pid, self._term, at_ns or boottime_ns()))

    async def _announce_told(self, pid: int | None, term: int) -> None:
        await self._teller.written()
        if self._term == term:
            self._emit(WorkloadStarted(pid, term, boottime_ns()))

    # Health

    def _follow(self, decisions: tuple[policy.Decision, ...]) -> None:
        for decision in decisions:
            self._last_error = decision.reason
            if isinstance(decision, policy.GiveUp):
                _log.error("The workload failed: %s.", decision.reason)
                if self._wanted is Role.ACTIVE:
                    self._emit(WorkloadFailed(decision.reason))
                continue
            delay_s = decision.delay_ns / _NANOSECONDS_PER_SECOND
            _log.warning("The workload is restarted in %g s: %s.", delay_s, decision.reason)
            self._restart_reason = decision.reason
            if delay_s > 0 and self._nursery is not None:
                self._pause = object()
                self._nursery.start_soon(self._end_pause, self._pause, delay_s)
            if self._phase is _Phase.RUNNING:
                self._stop()

    async def _end_pause(self, pause: object, seconds: float) -> None:
        await trio.sleep(seconds)
        if self._pause is pause:
            self._pause = None
            self._step()

    async def _check_health(self, scope: trio.CancelScope) -> None:
        def environment() -> dict[str, str]:
            role = self._teller.environment(self._wanted or Role.STANDBY, self._term)
            return {**inherited_environment(), **self._workload.environment, **role}

        def take(problem: str | None) -> None:
            self._healthy = problem is None
            self._follow(self._policy.probed(problem, boottime_ns()))

        with scope:
            await watch(self._workload, environment, take)

    async def _watch_stop(self, number: int) -> None:
        """Gives up a guardian that does not confirm: its death kills the workload's process, the keeper the rest."""
        if self._workload.kind is not WorkloadKind.PROCESS:  # a stop command is repeated until it succeeds
            return
        await trio.sleep((self._workload.stop_timeout + STOP_OVERDUE_MS) / _MILLISECONDS_PER_SECOND)
        if self._phase is _Phase.STOPPING and self._stop_number == number:
            _log.error("The guardian does not confirm that the workload has ended; it is killed too.")
            self._keeper.kill_guardian()

    def _emit(self, event: WorkloadEvent) -> None:
        self._events.send_nowait(event)

    async def _deliver(self) -> None:
        async for event in self._undelivered:
            self._report(event)
