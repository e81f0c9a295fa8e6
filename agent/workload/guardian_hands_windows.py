"""How the guardian on Windows starts, asks and kills: suspended processes in a job object, and CTRL_BREAK.

What takes time (waiting for an end, writing to the agent) is done by threads that hold no state; everything that
happened comes to the loop through one queue.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO

if sys.platform != "win32":
    raise ImportError("there is another guardian for Linux")

from agent.platform.clock import boottime_ns
from agent.workload.guardian_machine import Hands, Machine
from agent.workload.guardian_protocol import ReportVerb, encode
from agent.workload.job_object import JobObject

_REPORTS, _OUTPUT = 1, 2  # descriptors
_CREATE_SUSPENDED = 0x4


class WindowsHands(Hands):
    """Starts, watches and kills what is in the guardian's job."""

    def __init__(self, happenings: queue.SimpleQueue[Callable[[], None]]) -> None:
        self.machine = Machine(self)
        self._happenings = happenings
        self._job = JobObject()
        self._main: subprocess.Popen[bytes] | None = None  # the program launched last, until it has ended
        self._sockets: list[socket.socket] = []
        self._reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._write_reports, daemon=True, name="reports").start()

    def launch(self, arguments: list[str], environment: dict[str, str]) -> None:
        try:
            process = self._create(arguments, environment)
        except OSError as error:
            self._main = None
            sentence = self._launch_sentence(arguments[0], error)
            self._happenings.put(lambda: self.machine.handle_launch_failed(sentence, boottime_ns()))
            return
        self._main = process
        self._happenings.put(lambda: self.machine.handle_launched(process.pid, boottime_ns()))
        threading.Thread(target=self._await_end, args=(process,), daemon=True, name="end").start()

    def _create(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        settings = self.machine.settings
        # Names of variables do not depend on case here, and os.environ holds them in capitals.
        variables = {**os.environ, **{name.upper(): value for name, value in environment.items()}}
        if not os.path.isdir(settings.working_directory):
            raise NotADirectoryError(0, "it is no folder", settings.working_directory)
        with contextlib.ExitStack() as opened:
            output: int | IO[bytes] = _OUTPUT
            if settings.output:
                output = opened.enter_context(open(settings.output, "ab"))
            process = subprocess.Popen(
                [_find(arguments[0], settings.working_directory, variables), *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=settings.working_directory,
                env=variables,
                # In the guardian's console, where CTRL_BREAK can reach it, and in a group of its own.
                creationflags=_CREATE_SUSPENDED | subprocess.CREATE_NEW_PROCESS_GROUP,
            )
        self._job.adopt(process.pid)
        return process

    def _launch_sentence(self, program: str, error: OSError) -> str:
        settings = self.machine.settings
        reason = error.strerror or str(error)
        if error.filename == settings.working_directory:
            return f'the working directory "{settings.working_directory}" cannot be used: {reason}'
        if settings.output and error.filename == settings.output:
            return f'the output file "{settings.output}" cannot be opened: {reason}'
        if isinstance(error, FileNotFoundError):
            return f'the command "{program}" was not found in "{settings.working_directory}" or PATH'
        return f'the command "{program}" could not be started: {reason}'

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        self._happenings.put(lambda: self._note_end(process, code))

    def _note_end(self, process: subprocess.Popen[bytes], code: int) -> None:
        if process is self._main:
            self._main = None
            self.machine.handle_ended(code, boottime_ns())

    def ask_to_end(self) -> None:
        if self._main is not None:
            with contextlib.suppress(OSError):  # no console, or a program without one: it is killed at the timeout
                os.kill(self._main.pid, signal.CTRL_BREAK_EVENT)

    def ask_rest_to_end(self) -> None:
        """Does nothing: the group was asked as a whole."""

    def kill(self) -> None:
        self._job.terminate()

    def note_deaths(self) -> None:
        """Tells the machine when nothing is left; called often while it waits for that."""
        if self.machine.awaits_death and self._job.count() == 0:
            self.machine.handle_all_dead(boottime_ns())

    def hold_sockets(self) -> None:
        """Opens the listening sockets that were handed over since; they are held until the guardian ends."""
        for shared in self.machine.settings.sockets[len(self._sockets) :]:
            self._sockets.append(socket.fromshare(bytes.fromhex(shared)))

    def report(self, verb: ReportVerb, *fields: str | int) -> None:
        self._reports.put(encode(verb, *fields))

    def _write_reports(self) -> None:
        with contextlib.suppress(OSError):  # the agent has gone, which is noticed elsewhere
            while True:
                os.write(_REPORTS, self._reports.get())

    def leave(self) -> None:
        os._exit(0)


def _find(program: str, folder: str, variables: dict[str, str]) -> str:
    """Returns the full path, found as a command line would, scripts such as .cmd included; raises FileNotFoundError."""
    if os.path.dirname(program):
        found = shutil.which(os.path.join(folder, program))
    else:
        found = shutil.which(program, path=variables.get("PATH", os.defpath))
    if found is None:
        raise FileNotFoundError(program)
    return found
