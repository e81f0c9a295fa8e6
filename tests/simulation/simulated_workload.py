"""The guardian and its workload, which live on when the agent dies, and die at the end of their lease.

Mirrors `agent.workload.guardian_machine` and what the supervisor makes of it. The owner is told when a workload begins
to run and when its last process is gone; the agent is told the same, and whether the lease had ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.core import inputs as told
from agent.core.lease import fence_margin_ns
from agent.core.vocabulary import WorkloadState
from tests.simulation.timeline import MILLISECOND, Alarm, Clock, Timeline

LAUNCH_NS = 5 * MILLISECOND


class WorkloadOwner(Protocol):
    """The node that a workload runs on."""

    timeline: Timeline
    clock: Clock
    takeover_ns: int

    def stop_ns(self) -> int:
        """Returns how long a stop takes this time."""

    def when_awake(self, action: Callable[[], None]) -> None:
        """Lets `action` happen now, or when the node is no longer frozen."""

    def workload_began(self, term: int) -> None:
        """Takes note that the workload runs."""

    def workload_died(self) -> None:
        """Takes note that no process of the workload is left."""

    def guardian_left(self) -> None:
        """Takes note that the listening socket is let go of."""


class Guardian:
    """One agent's guardian; `tell` reaches that agent."""

    def __init__(self, owner: WorkloadOwner, tell: Callable[[told.Input], object]) -> None:
        self._owner, self._tell = owner, tell
        self._wanted: int | None = None  # term
        self._stops_owed = 0
        self._fenced = False  # the lease ended; nothing is started until the next activation
        self._lease_until_ns: int | None = None
        self._watching: Alarm | None = None
        self._dying: Alarm | None = None
        self._killing = False
        self._agent_gone = False
        self.running: int | None = None  # the term of the workload
        self.state = WorkloadState.STOPPED

    # -- what the agent orders

    def activate(self, term: int) -> None:
        """Has the workload run in this term."""
        self._wanted, self._fenced = term, False
        self._step()

    def deactivate(self) -> None:
        """Has the workload stopped; WorkloadEnded follows."""
        self._wanted = None
        self._stops_owed += 1
        self._step()

    def renew(self, until_ns: int | None) -> None:
        """Sets the end of the lease, on the node's clock; None: no lease."""
        self._lease_until_ns = until_ns
        if until_ns is not None and self._watching is None and self.running is not None:
            self._watch()

    def agent_gone(self) -> None:
        """The pipe from the agent closed."""
        self._agent_gone = True
        self._wanted = None
        if self.running is None:
            self._owner.guardian_left()
        else:
            self._kill()

    def vanish(self) -> None:
        """The node lost its power."""
        self._agent_gone, self._wanted = True, None
        self._cancel()
        self.running = None

    # -- what becomes of it

    def _step(self) -> None:
        if self.running is None and self._stops_owed:
            for _ in range(self._stops_owed):
                self._tell(told.WorkloadEnded())
            self._stops_owed = 0
            if self._wanted is None:
                self._lease_until_ns = None
            self._change(WorkloadState.STOPPED)
        if self.running is None and self._wanted is not None and not self._fenced:
            self._start(self._wanted)
        elif self.running is not None and self.running != self._wanted and self._dying is None:
            self._change(WorkloadState.STOPPING)
            self._dying = self._owner.timeline.after(self._owner.stop_ns(), self._die)

    def _start(self, term: int) -> None:
        if self._lease_until_ns is not None and self._owner.clock.now_ns() >= self._lease_until_ns:
            self._fence()
            return
        self.running = term
        self._owner.workload_began(term)
        self._change(WorkloadState.STARTING)
        self._owner.timeline.after(LAUNCH_NS, lambda: self._launched(term))
        self._watch()

    def _launched(self, term: int) -> None:
        if self.running == term and self._dying is None:
            self._change(WorkloadState.RUNNING)

    def _change(self, state: WorkloadState) -> None:
        self.state = state
        self._tell(told.WorkloadChanged(state))

    def _watch(self) -> None:
        if self._lease_until_ns is not None:
            delay_ns = self._owner.clock.until_ns(self._lease_until_ns)
            self._watching = self._owner.timeline.after(delay_ns, lambda: self._owner.when_awake(self._look))

    def _look(self) -> None:
        self._watching = None
        if self.running is None or self._lease_until_ns is None:
            return
        if self._owner.clock.now_ns() >= self._lease_until_ns:
            self._kill()
        else:
            self._watch()

    def lease_ended(self) -> bool:
        """Whether the workload is about to be killed."""
        return self._lease_until_ns is not None and self._owner.clock.now_ns() >= self._lease_until_ns

    def _kill(self) -> None:
        if self._killing:
            return
        self._cancel()
        self._killing = True
        most_ns = fence_margin_ns(self._owner.takeover_ns) * 9 // 10
        self._dying = self._owner.timeline.after(self._owner.timeline.between(1, most_ns), self._die)

    def _cancel(self) -> None:
        for alarm in (self._watching, self._dying):
            if alarm is not None:
                alarm.cancelled = True
        self._watching = self._dying = None

    def _die(self) -> None:
        self._owner.when_awake(self._died)

    def _died(self) -> None:
        if self.running is None:
            return
        self._cancel()
        self.running = None
        self._owner.workload_died()
        killed, self._killing = self._killing, False
        if self._agent_gone:
            self._owner.guardian_left()
            return
        if killed:
            self._fence()
        self._step()

    def _fence(self) -> None:
        self._fenced = True
        self._tell(told.Frozen("the lease of the workload ended"))
        self._change(WorkloadState.STOPPED)
