"""The guardian on Linux: a small process between agent and workload; this file is what `guardian_client` runs.

Arguments: the process id of the agent. Standard input, output and error: see guardian_protocol. Every other descriptor
it was handed (the agent's listening sockets) is held open, never used, and never given to the workload. So connections
to the agent's port are refused only after the guardian has gone; and it goes, by `os._exit`, only after `waitpid` has
said that it has no child left. As it is the subreaper of all its descendants, no child left means no descendant left,
daemons included. If the guardian itself is killed, the kernel kills the workload's first process
(PR_SET_PDEATHSIG; safe because the guardian has one thread only) and the agent does the rest.

It is kept small: nothing but cheap modules of the standard library, and the code in modules that are compiled once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

if sys.platform == "win32":
    raise ImportError("there is another guardian for Windows")

if __name__ == "__main__":  # run as a file and isolated (-I), so that the package is not on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agent.workload.guardian_hands_posix import IGNORED_SIGNALS
from agent.workload.guardian_loop_posix import Guardian

_STANDARD_DESCRIPTORS = 3
_PRIORITY_ABOVE_LOWEST = 10  # the agent, if raised, has the lowest real-time priority


def _raise_priority() -> str:
    """Puts the guardian before all ordinary work, and what it starts not; returns the word for READY."""
    priority = os.sched_get_priority_min(os.SCHED_RR) + _PRIORITY_ABOVE_LOWEST
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError:
        return "ordinary"
    return "realtime"


def main() -> None:
    """Takes up the guard."""
    for number in IGNORED_SIGNALS:  # the agent alone says when to end; a whole group or service may be signalled
        signal.signal(number, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= _STANDARD_DESCRIPTORS:
            with contextlib.suppress(OSError):  # the one that the listing itself used
                os.set_inheritable(int(name), False)
    Guardian(int(sys.argv[1])).run(_raise_priority())


if __name__ == "__main__":
    main()
