"""Who descends from whom, and who carries a mark in its environment: the process table of Linux, read from /proc.

Knows nothing of workloads. Processes come and go while it reads: an answer is a list of those seen, never a proof that
there are no others. Imports next to nothing, because the guardian uses it.
"""

from __future__ import annotations

import os

_STAT_BYTES = 1024
_ENVIRONMENT_BYTES_MAX = 1 << 20

# Fields behind the command's name in /proc/PID/stat, proc(5).
_PARENT = 1
_SESSION = 3


def descendants(pid: int) -> list[int]:
    """Returns the children of `pid`, their children and so on, zombies included, nearest first."""
    children: dict[int, list[int]] = {}
    for candidate in process_ids():
        fields = _stat_fields(candidate)
        if fields:
            children.setdefault(int(fields[_PARENT]), []).append(candidate)
    found = list(children.get(pid, ()))
    for descendant in found:  # grows while it is walked
        found.extend(children.get(descendant, ()))
    return found


def session_members(session: int) -> list[int]:
    """Returns the processes of one session; its id is that of the process that opened it."""
    return [pid for pid in process_ids() if (fields := _stat_fields(pid)) and int(fields[_SESSION]) == session]


def marked_processes(name: str, value: str) -> list[int]:
    """Returns the processes that were started with the environment variable `name` set to `value`.

    A process of another user, whose environment may not be read, is left out.
    """
    mark = b"\0" + os.fsencode(f"{name}={value}") + b"\0"
    return [pid for pid in process_ids() if mark in b"\0" + _read(f"/proc/{pid}/environ", _ENVIRONMENT_BYTES_MAX)]


def process_ids() -> list[int]:
    """Returns the ids of all processes that are there, zombies included."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat_fields(pid: int) -> list[bytes]:
    """Returns the fields behind the name, or nothing if the process has gone."""
    stat = _read(f"/proc/{pid}/stat", _STAT_BYTES)
    # The name stands in parentheses and may hold anything, even parentheses and spaces.
    return stat[stat.rindex(b")") + 2 :].split(b" ", _SESSION + 1) if stat else []


def _read(path: str, bytes_max: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, bytes_max)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
