"""Lets the agent's own thread run although the machine is busy, so that a loaded node is not taken for a dead one.

The raised priority is the calling thread's (Linux) or the process's (Windows) alone: what the agent starts, the
workload before all, begins at the ordinary priority. Without the right to it the agent runs all the same and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Level(Enum):
    """How far above ordinary work."""

    ELEVATED = "elevated"  # Linux: nice -10; Windows: above normal
    REALTIME = "realtime"  # Linux: round robin at its lowest priority, else as elevated; Windows: high


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _PRIORITY_CLASSES = {Level.ELEVATED: 0x8000, Level.REALTIME: 0x80}  # ABOVE_NORMAL_, HIGH_PRIORITY_CLASS

    def at_agents_priority(function: Callable[P, T]) -> Callable[P, T]:
        """Returns `function` for a worker thread; on Windows the priority is the whole process's anyway."""
        return function

    def raise_priority(level: Level) -> str | None:
        """Raises the priority of this process; returns None when done, else a sentence saying why not."""
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.GetCurrentProcess.restype = wintypes.HANDLE
        kernel32.SetPriorityClass.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        if kernel32.SetPriorityClass(kernel32.GetCurrentProcess(), _PRIORITY_CLASSES[level]):
            return None
        reason = ctypes.WinError(ctypes.get_last_error()).strerror
        return f"the agent runs at ordinary priority: Windows refused a higher one ({reason})."

else:
    import os

    _ELEVATED_NICE = -10
    _raised: list[Level] = []  # what `raise_priority` was granted

    def at_agents_priority(function: Callable[P, T]) -> Callable[P, T]:
        """Returns `function` for a worker thread: it runs at the priority that the agent's own thread was granted.

        The threads share the interpreter's lock: a worker that a busy machine does not let run while it holds the lock
        keeps the agent from running too.
        """

        def run(*arguments: P.args, **named: P.kwargs) -> T:
            if _raised:
                raise_priority(_raised[0])
            return function(*arguments, **named)

        return run

    def raise_priority(level: Level) -> str | None:
        """Raises the priority of the calling thread; returns None when done, else a sentence saying why not.

        Threads and processes that it starts afterwards run at ordinary priority (SCHED_RESET_ON_FORK, sched(7)).
        """
        if level is Level.REALTIME:
            lowest = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
            try:
                os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, lowest)
            except OSError:
                pass  # not permitted, or a control group without real-time budget: the next best is tried
            else:
                _raised[:] = [Level.REALTIME]
                return None
        try:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, _ELEVATED_NICE)
            _raised[:] = [Level.ELEVATED]
        except OSError as error:
            return (
                f"the agent runs at ordinary priority: {error.strerror}. On a busy node allow it more, "
                "for example with CAP_SYS_NICE, or with Nice=-10 in the service unit."
            )
        return None
