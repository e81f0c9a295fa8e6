"""Keeps one guardian in place: the first, and after its death, when nothing of its workload is left, the next.

It knows what runs only as far as it must be written down for an agent that comes after this one. What to run, and what
the death of a guardian means for the workload, is for the listener to say.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from agent.config.model import Workload, WorkloadKind
from agent.core.errors import WorkloadError
from agent.platform.clock import boottime_ns
from agent.platform.priority import at_agents_priority
from agent.workload.environment import ROLE_FILE_VARIABLE, role_file_path
from agent.workload.guardian_client import GuardianClient
from agent.workload.guardian_reports import Exited, Failed, Fenced, Output, Ready, Report, Started, Stopped
from agent.workload.latest_write import LatestWrite
from agent.workload.leftover import clean_up_leftover, remove_record, write_record

KILL_SECONDS_MAX = 5.0
PAUSE_SECONDS = 1.0  # before a guardian that died is replaced, and between attempts to kill what it left
_MILLISECONDS_PER_SECOND = 1_000

_log = logging.getLogger("agent.workload")


class Listener(Protocol):
    """Who is told; every call comes on the event loop."""

    def handle_ready(self) -> None:
        """A guardian is in place, nothing runs, and orders are taken."""

    def handle_report(self, report: Report) -> None:
        """The guardian said something else than that it is ready."""

    def handle_lost(self) -> None:
        """The guardian has ended; what it left is being killed, and no orders are taken."""

    def handle_cleared(self) -> None:
        """Nothing is left of what the lost guardian guarded."""


class Keeper(Protocol):
    """What the supervisor needs of whoever runs its workload."""

    @property
    def ready(self) -> bool:
        """Whether orders are taken."""

    def order_start(self, number: int, environment: dict[str, str]) -> None: ...

    def order_stop(self, number: int, timeout_ms: int) -> None: ...

    def renew_lease(self, until_ns: int | None) -> None: ...

    def kill_guardian(self) -> None: ...

    async def run(self, listener: Listener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...


class GuardianKeeper:
    """Guards a workload of kind "process" or "commands"."""

    def __init__(self, workload: Workload, state_directory: Path, sockets: Sequence[socket.socket]) -> None:
        self._workload = workload
        self._state_directory = state_directory
        self._sockets = sockets
        self._client: GuardianClient | None = None  # while it takes orders
        self._record = LatestWrite("record of what runs")

    @property
    def ready(self) -> bool:
        return self._client is not None

    def order_start(self, number: int, environment: dict[str, str]) -> None:
        if self._client is not None:
            self._client.order_start(number, environment)

    def order_stop(self, number: int, timeout_ms: int) -> None:
        if self._client is not None:
            self._client.order_stop(number, timeout_ms)

    def renew_lease(self, until_ns: int | None) -> None:
        if self._client is not None:
            self._client.renew_lease(until_ns)

    def kill_guardian(self) -> None:
        if self._client is not None:
            self._client.kill()

    async def run(self, listener: Listener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Guards until cancelled, then kills what runs; started once the first guardian is ready.

        Raises WorkloadError if the first guardian cannot be started.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._record.run)
            if await trio.to_thread.run_sync(at_agents_priority(clean_up_leftover), self._state_directory):
                _log.warning("An earlier agent had left a workload behind; it was killed.")
            await self._guard_once(listener, task_status.started)
            while True:
                await trio.sleep(PAUSE_SECONDS)
                try:
                    await self._guard_once(listener, lambda: None)
                except WorkloadError as error:
                    _log.error("%s", error)

    async def _guard_once(self, listener: Listener, on_ready: Callable[[], None]) -> None:
        """Starts a guardian and returns when it has died and nothing is left."""
        environment = {**self._workload.environment, ROLE_FILE_VARIABLE: str(role_file_path(self._state_directory))}
        client = await GuardianClient.start(self._workload, environment, self._sockets)
        last_words = ""

        def handle(report: Report) -> None:
            nonlocal last_words
            if isinstance(report, Ready):
                self._client = client
                self._note(client, None)
                _log.debug("Guardian %d is ready, its scheduling is %s.", client.pid, client.scheduling)
                on_ready()
                listener.handle_ready()
                return
            if isinstance(report, Started):
                self._note(client, report.pid)
            elif isinstance(report, Failed | Exited | Stopped | Fenced):
                self._note(client, None)
            elif isinstance(report, Output):
                last_words = report.line
            listener.handle_report(report)

        died = False
        try:
            await client.serve(handle)
            died = True
        finally:
            was_ready, self._client = self._client is not None, None
            if not died:  # the agent ends, orderly or by a fault of ours
                await self._end(client)
        if was_ready:
            listener.handle_lost()
        await client.end()
        await self._clear()
        if not was_ready:
            raise WorkloadError(f"the guardian of the workload ended before it was ready: {last_words or 'no reason'}")
        _log.error("Guardian %d ended unexpectedly (%s); what it guarded was killed.", client.pid, last_words or "-")
        listener.handle_cleared()

    async def _end(self, client: GuardianClient) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._kill_seconds()) as limit:
            await client.end()
            await trio.to_thread.run_sync(at_agents_priority(remove_record), self._state_directory)
        if limit.cancelled_caught:
            _log.error("The workload could not be killed in time; guardian %d goes on with it.", client.pid)

    def _kill_seconds(self) -> float:
        if self._workload.kind is WorkloadKind.COMMANDS:  # its stop command runs, then
            return KILL_SECONDS_MAX + self._workload.stop_timeout / _MILLISECONDS_PER_SECOND
        return KILL_SECONDS_MAX

    def _note(self, client: GuardianClient, workload_pid: int | None) -> None:
        self._record.put(partial(write_record, self._state_directory, client.pid, workload_pid))

    async def _clear(self) -> None:
        await self._record.settled()
        while True:
            try:
                await trio.to_thread.run_sync(at_agents_priority(clean_up_leftover), self._state_directory)
            except WorkloadError as error:
                _log.error("%s", error)
                await trio.sleep(PAUSE_SECONDS)
            else:
                return


class NothingKeeper:
    """Stands in where there is nothing to run: confirms every order at once, from its own task."""

    def __init__(self) -> None:
        self._sender, self._receiver = trio.open_memory_channel[Report](64)

    @property
    def ready(self) -> bool:
        return True

    def order_start(self, number: int, environment: dict[str, str]) -> None:
        self._sender.send_nowait(Started(number, None, boottime_ns()))

    def order_stop(self, number: int, timeout_ms: int) -> None:
        self._sender.send_nowait(Stopped(number, boottime_ns()))

    def renew_lease(self, until_ns: int | None) -> None:
        return

    def kill_guardian(self) -> None:
        return

    async def run(self, listener: Listener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Confirms until cancelled."""
        task_status.started()
        listener.handle_ready()
        async for report in self._receiver:
            listener.handle_report(report)
