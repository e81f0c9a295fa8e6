"""Which process holds a port, and whether this node's own agent is behind it, as far as this account may know."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil

from agent.core.errors import StateError
from agent.platform.locks import LOCK_FILE_NAME, DirectoryLock


@dataclass(frozen=True)
class PortHolder:
    """A process that listens on a port; `is_agent` tells an agent like this one."""

    pid: int
    name: str
    is_agent: bool


def listener_of(port: int) -> PortHolder | None:
    """Returns the process that listens on the TCP port, or None if none does or the system does not tell."""
    try:
        pids = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        ]
        for pid in pids:
            if pid is not None:
                process = psutil.Process(pid)
                return PortHolder(pid, process.name(), is_running_agent(process.cmdline()))
    except (psutil.Error, OSError):
        return None
    return None


def is_of_own_agent(holder: PortHolder | None, state_directory: Path) -> bool:
    """Tells whether a port in use is in use by the agent that runs with this state directory, or by its guardian.

    `holder` is who listens on the port; if the system does not tell, a running agent of this node is taken for it.
    """
    try:
        owner = int((state_directory / LOCK_FILE_NAME).read_text("ascii"))
        # Asked first, so that the lock that an agent left behind is not written to.
        if not psutil.pid_exists(owner):
            return False
    except (OSError, ValueError):
        return False
    try:
        with DirectoryLock(state_directory):
            return False
    except StateError as error:
        if error.__cause__ is not None:  # the lock cannot be looked at; one that is held has no further cause
            return False
    if holder is None or holder.pid in (0, owner):  # 0: the system names no process
        return True
    try:
        return owner in [parent.pid for parent in psutil.Process(holder.pid).parents()]
    except psutil.Error:
        return False


def is_running_agent(command_line: list[str]) -> bool:
    """Tells the command line of `pair-agent run` from others, however it was started."""
    if "run" not in command_line:
        return False
    words = command_line[: command_line.index("run")]
    as_module = any(pair == ("-m", "agent") for pair in itertools.pairwise(words))
    return as_module or any(PurePath(word).stem == "pair-agent" for word in words)
