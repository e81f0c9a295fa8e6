"""The guardian on Windows: a process between agent and workload; this file is what `guardian_client` runs.

Arguments: the process id of the agent. Standard input, output and error: see guardian_protocol. The workload is in a
job object that dies with the guardian; the guardian dies after the agent, when the job is empty. The agent's listening
sockets, duplicated for this process, are held open until then and never used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

if sys.platform != "win32":
    raise ImportError("there is another guardian for Linux")

import msvcrt
from ctypes import wintypes

if __name__ == "__main__":  # run as a file and isolated (-I), so that the package is not on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agent.platform.clock import boottime_ns
from agent.workload.guardian_hands_windows import WindowsHands
from agent.workload.guardian_protocol import ReportVerb

_COMMANDS = 0  # descriptor
_READ_BYTES = 65_536
_DEATH_POLL_SECONDS = 0.005
_CLOCK_POLL_SECONDS = 0.05  # waiting does not count the time that the machine sleeps, the boot clock does
_STALE_LOOKS_MAX = 20
_STALE_LOOK_SECONDS = 0.001
_TIMER_RESOLUTION_MS = 1
_NANOSECONDS_PER_SECOND = 1_000_000_000
_HIGH_PRIORITY_CLASS = 0x80  # not inherited by what a process starts
_SYNCHRONIZE = 0x100000
_INFINITE = 0xFFFFFFFF

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.SetPriorityClass.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_kernel32.PeekNamedPipe.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD, *(3 * [ctypes.c_void_p])]


class Guardian:
    """Takes what happened from one queue and feeds the machine."""

    def __init__(self, agent_pid: int) -> None:
        self._happenings: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._hands = WindowsHands(self._happenings)
        self._machine = self._hands.machine
        self._agent = _kernel32.OpenProcess(_SYNCHRONIZE, False, agent_pid)
        for task in (self._read_commands, self._await_agent):
            threading.Thread(target=task, daemon=True, name=task.__name__).start()

    def run(self, scheduling: str) -> None:
        """Serves until the agent has gone and nothing is left; never returns."""
        self._hands.report(ReportVerb.READY, os.getpid(), scheduling)
        while True:
            with contextlib.suppress(queue.Empty):
                self._happenings.get(timeout=self._patience())()
            self._handle_waiting()
            deadline_ns = self._machine.next_deadline_ns()
            if deadline_ns is not None and boottime_ns() >= deadline_ns:
                self._read_what_waits()
                self._machine.handle_timer(boottime_ns())
            self._hands.note_deaths()

    def _patience(self) -> float | None:
        if self._machine.awaits_death:
            return _DEATH_POLL_SECONDS
        deadline_ns = self._machine.next_deadline_ns()
        if deadline_ns is None:
            return None
        left = (deadline_ns - boottime_ns()) / _NANOSECONDS_PER_SECOND
        return min(max(0.0, left), _CLOCK_POLL_SECONDS)

    def _handle_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._happenings.get_nowait()()

    def _read_what_waits(self) -> None:
        """A newer lease may be in the pipe or half way here: nobody is condemned on stale evidence."""
        for _ in range(_STALE_LOOKS_MAX):
            waits = _bytes_waiting()
            self._handle_waiting()
            if not waits:
                return
            time.sleep(_STALE_LOOK_SECONDS)

    def _read_commands(self) -> None:
        """Thread: turns what the agent writes into happenings."""
        unfinished = b""
        data = b"\n"
        while data:
            try:
                data = os.read(_COMMANDS, _READ_BYTES)
            except OSError:
                data = b""
            *lines, unfinished = (unfinished + data).split(b"\n")
            for line in lines:
                self._happenings.put(partial(self._handle_line, line))
        self._happenings.put(lambda: self._machine.handle_agent_gone(boottime_ns()))

    def _handle_line(self, line: bytes) -> None:
        if not self._machine.agent_gone:
            self._machine.handle_line(line, boottime_ns())
            self._hands.hold_sockets()

    def _await_agent(self) -> None:
        """Thread: the end of the agent counts even if someone else still has its pipe."""
        if self._agent:
            _kernel32.WaitForSingleObject(self._agent, _INFINITE)
        self._happenings.put(lambda: self._machine.handle_agent_gone(boottime_ns()))


def _bytes_waiting() -> int:
    available = wintypes.DWORD(0)
    handle = msvcrt.get_osfhandle(_COMMANDS)
    _kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(available), None)
    return available.value


def main() -> None:
    """Takes up the guard."""
    # Waits end at the tick of the timer, which is 16 ms long unless asked otherwise.
    ctypes.WinDLL("winmm").timeBeginPeriod(_TIMER_RESOLUTION_MS)
    raised = _kernel32.SetPriorityClass(_kernel32.GetCurrentProcess(), _HIGH_PRIORITY_CLASS)
    Guardian(int(sys.argv[1])).run("realtime" if raised else "ordinary")


if __name__ == "__main__":
    main()
