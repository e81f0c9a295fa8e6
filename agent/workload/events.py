"""What the supervisor reports, and what it says when asked. Times are nanoseconds of agent.platform.clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from agent.core.vocabulary import Mode, WorkloadState


@dataclass(frozen=True)
class WorkloadStarted:
    """The activation with this term is done: the workload runs, or a warm one was told. Once per activation."""

    pid: int | None
    term: int
    at_ns: int


@dataclass(frozen=True)
class WorkloadStopped:
    """Answers one `deactivate`: confirmed dead, or a warm workload was told and the on_standby hooks have ended."""

    at_ns: int


@dataclass(frozen=True)
class WorkloadFailed:
    """Restarting does not help, a handover would be right; it is still tried until deactivated. Once per failure."""

    reason: str


@dataclass(frozen=True)
class WorkloadRestarted:
    """It ended or was not well, and runs again; `restarts` counts since the agent was started."""

    reason: str
    restarts: int


@dataclass(frozen=True)
class WorkloadFenced:
    """The lease ended and the workload was killed, confirmed at `at_ns`; it stays dead until activated again."""

    at_ns: int
    reason: str


@dataclass(frozen=True)
class WorkloadOutput:
    """One line that the workload wrote, shortened if very long."""

    line: str


WorkloadEvent: TypeAlias = (
    WorkloadStarted | WorkloadStopped | WorkloadFailed | WorkloadRestarted | WorkloadFenced | WorkloadOutput
)


@dataclass(frozen=True)
class WorkloadStatus:
    """The workload at this moment."""

    state: WorkloadState
    pid: int | None
    restarts: int  # since the agent was started
    healthy: bool | None  # of the last probe; None: not probed
    term: int | None  # that it was activated with
    last_error: str | None


@dataclass(frozen=True)
class WorkloadIdentity:
    """Who this node is, for the environment of workload and hooks; `peer` gives the other node's name or ""."""

    mode: Mode
    name: str
    peer: Callable[[], str]
