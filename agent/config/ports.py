"""Which process holds a port, as far as this account may know."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import PurePath

import psutil


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


def is_running_agent(command_line: list[str]) -> bool:
    """Tells the command line of `pair-agent run` from others, however it was started."""
    if "run" not in command_line:
        return False
    words = command_line[: command_line.index("run")]
    as_module = any(pair == ("-m", "agent") for pair in itertools.pairwise(words))
    return as_module or any(PurePath(word).stem == "pair-agent" for word in words)
