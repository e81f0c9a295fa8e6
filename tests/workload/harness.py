"""Runs a supervisor with real processes and waits for what it reports."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from agent.config.model import Health, HealthKind, Hooks, Workload, WorkloadKind
from agent.core.vocabulary import Mode
from agent.platform.processes import process_identity
from agent.workload.events import WorkloadEvent, WorkloadIdentity
from agent.workload.process_tree import descendants
from agent.workload.supervisor import Supervisor

PATIENCE_SECONDS = 20
PYTHON = [sys.executable, "-I", "-S", "-c"]
E = TypeVar("E")

# Writes its process id to the file named first, and its children's: one plain, one a daemon in a session of its own.
FAMILY = """
import os, sys, time
def note(pid):
    with open(sys.argv[1], "a") as file: file.write(f"{pid}\\n")
if os.fork() == 0:
    time.sleep(1000)
middle = os.fork()
if middle == 0:
    os.setsid()
    if os.fork() == 0:
        note(os.getpid())
        time.sleep(1000)
    os._exit(0)
os.waitpid(middle, 0)
note(os.getpid())
note(os.getpid())
time.sleep(1000)
"""


def workload(command: list[str], tmp_path: Path, **changes: object) -> Workload:
    """Returns a workload of kind "process" that is probed often."""
    settings: dict[str, object] = {
        "kind": WorkloadKind.PROCESS,
        "command": tuple(command),
        "working_directory": tmp_path,
        "stop_timeout": 5_000,
        "health": Health(HealthKind.PROCESS, interval=100, timeout=500, failures=3),
    }
    return Workload(**{**settings, **changes})  # type: ignore[arg-type]  # names checked by the dataclass itself


def script(source: str, *arguments: str) -> list[str]:
    """Returns the command that runs this Python source."""
    return [*PYTHON, source, *arguments]


def is_alive(pid: int) -> bool:
    """Tells whether the process runs; a zombie does not."""
    return process_identity(pid) is not None


async def until(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110  # files and processes tell nobody when they change
            await trio.sleep(0.005)


class Running:
    """A supervisor at work, and what it reported."""

    def __init__(self, workload: Workload, hooks: Hooks, state_directory: Path, sockets: list[object]) -> None:
        self._record = state_directory / "workload.pid"
        self.events: list[WorkloadEvent] = []
        self._changed = trio.Event()
        self._taken = 0
        self.supervisor = Supervisor(
            workload,
            hooks,
            state_directory=state_directory,
            identity=WorkloadIdentity(Mode.PRIMARY, "north", lambda: "south"),
            report=self._take,
            inherited_sockets=sockets,  # type: ignore[arg-type]  # sockets, named loosely to keep the helper short
        )

    def _take(self, event: WorkloadEvent) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    async def next(self, kind: type[E]) -> E:
        """Returns the next event of this kind that was not looked at yet, passing over others."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                while self._taken < len(self.events):
                    event = self.events[self._taken]
                    self._taken += 1
                    if isinstance(event, kind):
                        return event
                await self._changed.wait()

    def guardian_pid(self) -> int:
        """Returns the process id of the guardian."""
        return int(json.loads(self._record.read_text())["guardian"]["pid"])

    def count(self, kind: type[E]) -> int:
        """Returns how many events of this kind there were."""
        return sum(isinstance(event, kind) for event in self.events)


@asynccontextmanager
async def running(
    workload: Workload, tmp_path: Path, hooks: Hooks | None = None, sockets: list[object] | None = None
) -> AsyncIterator[Running]:
    """Runs a supervisor whose state directory is "state" in `tmp_path`."""
    state_directory = tmp_path / "state"
    state_directory.mkdir(exist_ok=True)
    run = Running(workload, hooks or Hooks(), state_directory, sockets or [])
    async with trio.open_nursery() as nursery:
        await nursery.start(run.supervisor.run)
        yield run
        nursery.cancel_scope.cancel()


def lines(path: Path) -> list[str]:
    """Returns the lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


def family(path: Path) -> list[int]:
    """Returns the process ids that FAMILY wrote down: the daemon and the first process."""
    return sorted({int(line) for line in lines(path)})


def own_children() -> list[int]:
    """Returns the living children of this process."""
    return [pid for pid in descendants(os.getpid()) if is_alive(pid)]
