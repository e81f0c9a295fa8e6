"""The pipes between an agent and a process beside it: writes that never wait, reads as channels of bytes.

Knows no message. `PipedProcess.write` reaches the pipe within the call (Linux), or a thread that does nothing else
(Windows, whose pipes cannot be written without waiting). Reading ends with the process's end of the pipe.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

READ_BYTES = 4_096  # small, so that a chattering workload does not hold the event loop for long
_LINES_WAITING_MAX = 64

if sys.platform == "win32":
    import queue
    import threading
    from typing import IO

    class PipedProcess:
        """A process with three pipes; construct it off the event loop, inside of a thread of trio."""

        def __init__(
            self, arguments: Sequence[str | Path], environment: dict[str, str], inherited: Sequence[int]
        ) -> None:
            """Starts it; `inherited` stays empty on Windows. Raises OSError."""
            assert not inherited
            # Its own console, without a window: a Ctrl-C meant for the agent does not reach it, and CTRL_BREAK works.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                creationflags=subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP,
            )
            self.pid = self._process.pid
            self._waiting: queue.Queue[bytes | None] = queue.Queue(_LINES_WAITING_MAX)
            threading.Thread(target=self._write_waiting, daemon=True, name="piped-commands").start()

        def write(self, data: bytes, *, droppable: bool) -> bool:
            """Hands over `data`; a droppable message is left out (False) while earlier ones wait."""
            if droppable and self._waiting.qsize() > _LINES_WAITING_MAX // 2:
                return False
            try:
                self._waiting.put_nowait(data)
            except queue.Full:
                self.kill()  # it has not read for very long: its death is noticed and mended, its silence is not
                return False
            return True

        async def flush(self) -> None:
            """Has nothing to do: the thread writes."""
            await trio.sleep_forever()

        async def read_reports(self, into: trio.MemorySendChannel[bytes]) -> None:
            """Sends what comes over standard output, then closes the channel."""
            assert self._process.stdout is not None
            await _pump(self._process.stdout, into)

        async def read_output(self, into: trio.MemorySendChannel[bytes]) -> None:
            """Sends what comes over standard error, then closes the channel."""
            assert self._process.stderr is not None
            await _pump(self._process.stderr, into)

        def close_commands(self) -> None:
            """Closes standard input: the process is told that it is alone."""
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)

        def kill(self) -> None:
            """Ends the process at once."""
            self._process.kill()

        async def wait(self) -> int:
            """Returns the exit code once the process has ended."""
            return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)

        def close(self) -> None:
            """Lets go of the pipes of a process that has ended; those a thread may still read go with the object."""
            self.close_commands()

        def _write_waiting(self) -> None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                while (data := self._waiting.get()) is not None:
                    self._process.stdin.write(data)
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    async def _pump(pipe: IO[bytes], into: trio.MemorySendChannel[bytes]) -> None:
        async with into:
            while data := await trio.to_thread.run_sync(pipe.read, READ_BYTES, abandon_on_cancel=True):
                await into.send(data)

else:
    import os

    class PipedProcess:
        """A process with three pipes; construct it off the event loop, inside of a thread of trio."""

        def __init__(
            self, arguments: Sequence[str | Path], environment: dict[str, str], inherited: Sequence[int]
        ) -> None:
            """Starts it in a session of its own, with the descriptors `inherited`. Raises OSError."""
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                cwd="/",
                pass_fds=inherited,
                start_new_session=True,
            )
            self.pid = self._process.pid
            assert self._process.stdin is not None
            self._commands: int | None = os.dup(self._process.stdin.fileno())
            self._process.stdin.close()
            os.set_blocking(self._commands, False)
            self._unwritten = b""
            self._must_flush = trio.Event()

        def write(self, data: bytes, *, droppable: bool) -> bool:
            """Writes `data` now, or as soon as there is room; a droppable message is left out (False) instead."""
            if self._commands is None or (droppable and self._unwritten):
                return False
            self._unwritten += data
            self._write_some()
            if droppable and self._unwritten == data:
                self._unwritten = b""
                return False
            if self._unwritten:
                self._must_flush.set()
            return True

        def _write_some(self) -> None:
            assert self._commands is not None
            try:
                written = os.write(self._commands, self._unwritten)
            except BlockingIOError:
                return
            except OSError:  # it has ended, which is noticed elsewhere
                self._unwritten = b""
                return
            self._unwritten = self._unwritten[written:]

        async def flush(self) -> None:
            """Writes what did not fit, until cancelled."""
            while True:
                await self._must_flush.wait()
                self._must_flush = trio.Event()
                while self._unwritten and self._commands is not None:
                    await trio.lowlevel.wait_writable(self._commands)
                    self._write_some()

        async def read_reports(self, into: trio.MemorySendChannel[bytes]) -> None:
            """Sends what comes over standard output, then closes the channel."""
            assert self._process.stdout is not None
            await _pump(self._process.stdout.fileno(), into)

        async def read_output(self, into: trio.MemorySendChannel[bytes]) -> None:
            """Sends what comes over standard error, then closes the channel."""
            assert self._process.stderr is not None
            await _pump(self._process.stderr.fileno(), into)

        def close_commands(self) -> None:
            """Closes standard input: the process is told that it is alone."""
            if self._commands is not None:
                trio.lowlevel.notify_closing(self._commands)
                os.close(self._commands)
            self._commands = None

        def kill(self) -> None:
            """Ends the process at once."""
            self._process.kill()

        async def wait(self) -> int:
            """Returns the exit code once the process has ended."""
            return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)

        def close(self) -> None:
            """Lets go of the pipes of a process that has ended."""
            self.close_commands()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    async def _pump(descriptor: int, into: trio.MemorySendChannel[bytes]) -> None:
        duplicate = trio.lowlevel.FdStream(os.dup(descriptor))
        async with into, duplicate:
            while data := await duplicate.receive_some(READ_BYTES):
                await into.send(data)
