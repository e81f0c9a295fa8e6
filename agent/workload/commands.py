"""Runs one short command to its end: for hooks and health checks. Bounded in time, killed with all it started.

Unlike the workload, a command is a child of the agent, so that a start it orders from the system outlives it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from agent.platform.clock import boottime_ns
from agent.workload.output import OutputLines

_OUTPUT_AFTER_END_SECONDS = 0.2  # for what is still in the pipe; a daemon it left may hold the other end for ever
_KILL_SECONDS_MAX = 2.0
_READ_BYTES = 4_096
_MILLISECONDS_PER_SECOND = 1_000

if sys.platform == "win32":
    import psutil

    _CREATION_FLAGS = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP

    def _kill_tree(process: trio.Process) -> None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        process.kill()

else:
    import os
    import signal

    def _kill_tree(process: trio.Process) -> None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


async def run_command(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_ms: int,
    working_directory: Path | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> str | None:
    """Runs a command; returns None if it ended with exit code 0, else what happened, as the end of a sentence.

    `environment` is the whole of it. When the time is over, or on cancellation, the command is killed with its process
    group (Windows: with its descendants).
    """
    try:
        process = await _open(arguments, environment, working_directory)
    except OSError as error:
        return f'could not be started: "{arguments[0]}": {error.strerror or error}'
    try:
        async with trio.open_nursery() as nursery:
            read = trio.Event()
            nursery.start_soon(_read_lines, process, on_line, read)
            with trio.move_on_after(timeout_ms / _MILLISECONDS_PER_SECOND) as limit:
                await process.wait()
            if not limit.cancelled_caught:
                with trio.move_on_after(_OUTPUT_AFTER_END_SECONDS):
                    await read.wait()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _KILL_SECONDS_MAX):
                _kill_tree(process)
                await process.wait()
        if process.stdout is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _KILL_SECONDS_MAX):
                await process.stdout.aclose()
    if limit.cancelled_caught:
        return f"did not end within {timeout_ms} ms and was killed"
    code = process.returncode
    if code == 0:
        return None
    return f"ended with exit code {code}" if code is None or code > 0 else f"was ended by signal {-code}"


async def _open(
    arguments: Sequence[str], environment: Mapping[str, str], working_directory: Path | None
) -> trio.Process:
    if sys.platform == "win32":
        return await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=working_directory,
            creationflags=_CREATION_FLAGS,
        )
    return await trio.lowlevel.open_process(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=working_directory,
        start_new_session=True,
    )


async def _read_lines(process: trio.Process, on_line: Callable[[str], None], read: trio.Event) -> None:
    output = OutputLines()
    assert process.stdout is not None
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await process.stdout.receive_some(_READ_BYTES):
            for line in output.feed(bytes(data), boottime_ns()):
                on_line(line)
    for line in output.feed(b"", boottime_ns()):
        on_line(line)
    read.set()
