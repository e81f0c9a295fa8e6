"""The guardian's loop on Linux: waits for the agent, the workload and the clock at once, and feeds the machine.

It waits for its own descriptors only, and never for the one who writes to or reads from them.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time

if sys.platform == "win32":
    raise ImportError("there is another guardian for Windows")

from agent.workload.guardian_hands_posix import PosixHands, boottime_ns
from agent.workload.guardian_machine import Phase
from agent.workload.guardian_protocol import ReportVerb

_COMMANDS, _REPORTS = 0, 1  # descriptors
_READ_BYTES = 65_536
_KILL_PASS_SECONDS = 0.005
_PARENT_POLL_SECONDS = 0.25  # only where the kernel knows no pidfd (before Linux 5.3)
_NANOSECONDS_PER_SECOND = 1_000_000_000

# <linux/prctl.h>, <linux/mman.h>, <linux/timerfd.h>, <linux/time.h>
_PR_SET_CHILD_SUBREAPER = 36
_MCL_CURRENT_ON_FAULT = 1 | 4
_CLOCK_BOOTTIME = 7
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class Guardian:
    """Waits for everything at once and feeds the machine."""

    def __init__(self, agent_pid: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.mlockall(_MCL_CURRENT_ON_FAULT)  # where permitted: to wait for swapped-out pages would be to kill late
        self._hands = PosixHands(libc)
        self._machine = self._hands.machine
        self._agent_pid = agent_pid
        self._agent_watch = _open_pidfd(agent_pid)
        self._unread = b""
        self._alarm = _BootAlarm(libc)
        self._woken, wake = os.pipe()
        for descriptor in (_COMMANDS, _REPORTS, self._woken, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self, scheduling: str) -> None:
        """Serves until the agent has gone and nothing is left; never returns."""
        self._hands.report(ReportVerb.READY, os.getpid(), scheduling)
        try:
            while True:
                self._turn()
        finally:  # our own fault: nothing may be left all the same
            self._hands.kill()
            while not self._hands.reap():
                self._hands.kill_descendants()
                time.sleep(_KILL_PASS_SECONDS)

    def _turn(self) -> None:
        if self._machine.phase is Phase.IDLE:
            self._hands.keep_spare()
        readable = self._wait()
        was_killing = self._hands.killing
        if self._agent_watch in readable or os.getppid() != self._agent_pid or self._hands.deaf_agent:
            self._machine.handle_agent_gone(boottime_ns())
        if _COMMANDS in readable:
            self._read_commands()
        if self._hands.exec_watch in readable:
            self._hands.handle_exec_watch(boottime_ns())
        if self._woken in readable:
            os.read(self._woken, _READ_BYTES)
        deadline_ns = self._machine.next_deadline_ns()
        if deadline_ns is not None and boottime_ns() >= deadline_ns:
            self._read_commands()  # a newer lease may be waiting: nobody is condemned on stale evidence
            self._machine.handle_timer(boottime_ns())
        if self._hands.reap():
            self._machine.handle_all_dead(boottime_ns())
        elif was_killing:  # not in the turn that killed the group: mostly that was all, and the table is long to read
            self._hands.kill_descendants()

    def _wait(self) -> list[int]:
        watched = [self._woken]
        timeouts = []
        if not self._machine.agent_gone:
            watched.append(_COMMANDS)
            if self._agent_watch is None:
                timeouts.append(_PARENT_POLL_SECONDS)
            else:
                watched.append(self._agent_watch)
        if self._hands.exec_watch is not None:
            watched.append(self._hands.exec_watch)
        deadline_ns = self._machine.next_deadline_ns()
        if deadline_ns is not None:
            timeouts.append(max(0.0, (deadline_ns - boottime_ns()) / _NANOSECONDS_PER_SECOND))
            watched.extend(self._alarm.set(deadline_ns))
        if self._hands.killing:
            timeouts.append(_KILL_PASS_SECONDS)
        return select.select(watched, (), (), min(timeouts, default=None))[0]

    def _read_commands(self) -> None:
        while not self._machine.agent_gone:
            try:
                data = os.read(_COMMANDS, _READ_BYTES)
            except BlockingIOError:
                return
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._machine.handle_line(line, boottime_ns())
            if not data:
                self._machine.handle_agent_gone(boottime_ns())


class _BootAlarm:
    """Wakes at a time of the boot clock: `select` alone does not count the time that the machine sleeps."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self._libc = libc
        self._descriptor: int = libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_FLAGS)
        self._set_to_ns: int | None = None

    def set(self, deadline_ns: int) -> list[int]:
        """Returns the descriptor that becomes readable then, or nothing where there is no such clock."""
        if self._descriptor < 0:
            return []
        if deadline_ns != self._set_to_ns:
            seconds, nanoseconds = divmod(max(1, deadline_ns), _NANOSECONDS_PER_SECOND)
            alarm = struct.pack("@4l", 0, 0, seconds, nanoseconds)
            if self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, alarm, None) != 0:
                return []
            self._set_to_ns = deadline_ns
        return [self._descriptor]


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
