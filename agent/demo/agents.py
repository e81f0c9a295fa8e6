"""The agents of the demo as processes of their own: started like `pair-agent run`, killed, stopped, buried.

Each is the first of its own session (on Windows: of its own group), so that Ctrl-C reaches the demo alone, which then
stops them in order. Invariant: after `stop_processes` nothing of what it was given runs, in good order or by force.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from agent.core.errors import PairAgentError
from agent.demo.pair_files import DemoNode
from agent.platform.clock import boottime_ns

STOP_TIMEOUT_S = 6.0
KILL_TIMEOUT_S = 5.0
GLANCE_S = 0.05

_RUN = ("-m", "agent", "run", "--config")
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]

if sys.platform == "win32":
    _STOP_SIGNAL = signal.CTRL_BREAK_EVENT
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _STOP_SIGNAL = signal.SIGINT
    _CREATION_FLAGS = 0


class DemoAgent:
    """The agent of one node: not running until `start`, and again after `kill`."""

    def __init__(self, node: DemoNode) -> None:
        self.node = node
        self._process: subprocess.Popen[bytes] | None = None
        self._others: list[psutil.Process] = []  # what a killed agent left to end by itself

    @property
    def running(self) -> bool:
        """Whether it was started and not ended by the demo."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id of a running agent."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the agent; what it prints is added to the node's log. Raises PairAgentError."""
        assert self._process is None
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("PAIR_AGENT_")}
        try:
            with self.node.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, *_RUN, str(self.node.config_path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Where Python finds this very package first, whatever lies in the user's folder.
                    cwd=_PACKAGE_PARENT,
                    env=environment,
                    creationflags=_CREATION_FLAGS,
                    start_new_session=True,  # has no effect on Windows
                )
        except OSError as error:
            raise PairAgentError(f"The agent of {self.node.name} cannot be started: {error}") from error

    def exit_code(self) -> int | None:
        """Returns the exit code of an agent that ended although nobody ended it, else None."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> int:
        """Kills the agent, and nothing but it, as `kill -9` does; returns the boot clock just before, in ns."""
        assert self._process is not None
        self._others += _descendants(self._process.pid)
        before_ns = boottime_ns()
        self._process.kill()  # on Windows: TerminateProcess
        self._process.wait()
        self._process = None
        return before_ns

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Stops what runs of this node and waits until it has gone; `hurry` as in `stop_processes`."""
        processes = self._others
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes = [psutil.Process(self._process.pid), *processes]
        stop_processes(processes, hurry)
        if self._process is not None:
            self._process.poll()  # so that no zombie stays
            self._process = None


def find_agents(configurations: Sequence[Path]) -> list[psutil.Process]:
    """Returns the running agents of these agent.toml, started by a demo of this account, in their order."""
    found = []
    for configuration in configurations:
        ending = [*_RUN, str(configuration)]
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-len(ending) :] == ending:
                found.append(process)
    return found


def stop_processes(processes: Sequence[psutil.Process], hurry: Callable[[], bool]) -> None:
    """Asks each to stop and waits for it and what it started; kills what is left after a bound, or on `hurry()`."""
    everything = list(processes)
    for process in processes:
        everything += _descendants(process.pid)
        _ask_to_stop(process)
    alive = _wait(everything, STOP_TIMEOUT_S, hurry)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(alive, KILL_TIMEOUT_S, lambda: False)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _ask_to_stop(process: psutil.Process) -> None:
    # Gone, or not of this console: then the bound decides. Windows' os.kill reports the latter as a SystemError.
    with contextlib.suppress(psutil.Error, OSError, SystemError):
        process.send_signal(_STOP_SIGNAL)


def _wait(processes: list[psutil.Process], seconds: float, hurry: Callable[[], bool]) -> list[psutil.Process]:
    """Returns those that still live when the time is over, or when there is hurry."""
    deadline_ns = boottime_ns() + int(seconds * 1e9)
    while (alive := [process for process in processes if _lives(process)]) and boottime_ns() < deadline_ns:
        if hurry():
            break
        time.sleep(GLANCE_S)
    return alive


def _lives(process: psutil.Process) -> bool:
    """Tells whether it runs; one that has ended stays in the table until its parent asks, and some never do."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
