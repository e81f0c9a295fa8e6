"""The agent's end of a guardian: starts it, orders, and turns what it says into reports.

It decides nothing. A guardian that has ended is not replaced here; `serve` returns, and its owner acts.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from agent.config.model import Workload
from agent.core.errors import WorkloadError
from agent.platform.clock import boottime_ns
from agent.platform.piped_process import PipedProcess
from agent.platform.priority import at_agents_priority
from agent.workload.environment import inherited_environment
from agent.workload.guardian_protocol import Command, encode
from agent.workload.guardian_reports import Output, Ready, Report, parse_report
from agent.workload.output import OutputLines

READY_SECONDS_MAX = 20.0
_FLOOD_PAUSE_SECONDS = 0.002  # with READ_BYTES: 2 MB a second, at a few percent of a processor
_OUTPUT_AFTER_END_SECONDS = 0.5
_PROGRAM = Path(__file__).with_name("guardian_windows.py" if sys.platform == "win32" else "guardian_posix.py")


class GuardianClient:
    """One guardian process; made by `start`."""

    def __init__(self, process: PipedProcess, sockets: Sequence[socket.socket]) -> None:
        self._process = process
        self._sockets = sockets
        self.pid = process.pid
        self.scheduling = ""

    @classmethod
    async def start(
        cls, workload: Workload, environment: dict[str, str], sockets: Sequence[socket.socket]
    ) -> GuardianClient:
        """Starts a guardian for this workload and hands it its settings; it is ready once `serve` reports Ready.

        `environment` holds what the workload always gets; `sockets` are held open until nothing of it is left.
        Raises WorkloadError.
        """
        # On Windows the interpreter of a virtual environment only starts the real one, as another process.
        interpreter = getattr(sys, "_base_executable", sys.executable) if sys.platform == "win32" else sys.executable
        arguments: list[str | Path] = [interpreter, "-I", "-S", _PROGRAM, str(os.getpid())]
        inherited = [] if sys.platform == "win32" else [listener.fileno() for listener in sockets]
        try:
            process = await trio.to_thread.run_sync(
                at_agents_priority(PipedProcess), arguments, inherited_environment(), inherited
            )
        except OSError as error:
            raise WorkloadError(
                f"the guardian of the workload cannot be started: {error}. The agent runs it with {interpreter}."
            ) from error
        client = cls(process, sockets)
        variables = [f"{name}={value}" for name, value in environment.items()]
        client._send(Command.SET, "command", *workload.command)
        client._send(Command.SET, "start", *workload.start)
        client._send(Command.SET, "stop", *workload.stop)
        client._send(Command.SET, "status", *workload.status)
        client._send(Command.SET, "environment", *variables)
        client._send(Command.SET, "working_directory", str(workload.working_directory.absolute()))
        client._send(Command.SET, "output", str(workload.output.absolute()) if workload.output else "")
        client._send(Command.SET, "stop_timeout_ms", workload.stop_timeout)
        return client

    def order_start(self, number: int, environment: dict[str, str]) -> None:
        """Starts run `number` with these variables on top; Started, Failed or Fenced follows, later Exited perhaps."""
        self._send(Command.START, number, *(f"{name}={value}" for name, value in environment.items()))

    def order_stop(self, number: int, timeout_ms: int) -> None:
        """Stops whatever runs; Stopped with this number follows."""
        self._send(Command.STOP, number, timeout_ms)

    def renew_lease(self, until_ns: int | None) -> bool:
        """Lets the workload run until then; None: without end. False: the pipe is full, nothing was written."""
        return self._process.write(encode(Command.RENEW, until_ns or 0), droppable=True)

    def kill(self) -> None:
        """Kills the guardian: for one that does not answer. `serve` returns."""
        self._process.kill()

    async def serve(self, handle: Callable[[Report], None]) -> None:
        """Passes on reports, output and all, until the guardian has ended.

        Raises WorkloadError if it was not ready in time.
        """
        ready = trio.Event()

        def take(report: Report) -> None:
            if isinstance(report, Ready):
                self.pid, self.scheduling = report.pid, report.scheduling
                if sys.platform == "win32":
                    for listener in self._sockets:
                        self._send(Command.SET, "socket", listener.share(report.pid).hex())
                ready.set()
            handle(report)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._process.flush)
            nursery.start_soon(self._await_ready, ready)
            output_ended = trio.Event()
            nursery.start_soon(self._read_output, take, output_ended)
            await self._read_reports(take)
            # Its last words, of the workload or of a guardian that broke, come over the other pipe.
            with trio.move_on_after(_OUTPUT_AFTER_END_SECONDS):
                await output_ended.wait()
            nursery.cancel_scope.cancel()

    async def end(self) -> None:
        """Has the guardian kill what runs and leave; returns when it has. Bound it: a stuck disk can hold it."""
        self._process.close_commands()
        await self._process.wait()
        self._process.close()

    def _send(self, command: Command, *fields: str | int) -> None:
        self._process.write(encode(command, *fields), droppable=False)

    async def _await_ready(self, ready: trio.Event) -> None:
        with trio.move_on_after(READY_SECONDS_MAX):
            await ready.wait()
            return
        self._process.kill()

    async def _read_reports(self, take: Callable[[Report], None]) -> None:
        unfinished = b""
        sender, receiver = trio.open_memory_channel[bytes](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._process.read_reports, sender)
            async for data in receiver:
                *lines, unfinished = (unfinished + data).split(b"\n")
                for line in lines:
                    take(parse_report(line))

    async def _read_output(self, take: Callable[[Report], None], ended: trio.Event) -> None:
        output = OutputLines()
        sender, receiver = trio.open_memory_channel[bytes](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._process.read_output, sender)
            async for data in receiver:
                for line in output.feed(data, boottime_ns()):
                    take(Output(line))
                if output.flooded:
                    await trio.sleep(_FLOOD_PAUSE_SECONDS)
            for line in output.feed(b"", boottime_ns()):
                take(Output(line))
        ended.set()
