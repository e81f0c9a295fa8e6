"""Finds and kills what a dead agent and its dead guardian left behind.

What runs is written to `workload.pid` in the state directory: guardian and workload, by process id and by the identity
that no later process with the same id has. Beyond that, on Linux, every process of the workload carries the path of
this agent's role file in its environment and stays in the workload's session unless it left on purpose: so daemons
are found, and what was started in the instant before the file was written. On Windows the job object leaves nothing.

Nothing here runs on the event loop.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import WorkloadError
from agent.platform.processes import is_same_process, process_identity
from agent.workload.environment import ROLE_FILE_VARIABLE, role_file_path
from agent.workload.latest_write import replace_text

GUARDIAN_PATIENCE_MS = 15_000
KILL_PATIENCE_MS = 10_000
_PAUSE_SECONDS = 0.01
_MILLISECONDS_PER_SECOND = 1_000

_log = logging.getLogger("agent.workload")


@dataclass(frozen=True)
class RecordedProcess:
    """A process as it was written down; `identity` as in agent.platform.processes."""

    pid: int
    identity: str

    def lives(self) -> bool:
        """Tells whether it still does."""
        return is_same_process(self.pid, self.identity)


def record_path(state_directory: Path) -> Path:
    """Returns where guardian and workload are written down."""
    return state_directory / "workload.pid"


def write_record(state_directory: Path, guardian_pid: int, workload_pid: int | None) -> None:
    """Writes down who runs; raises OSError. A process that has ended meanwhile is left out."""
    record = {"guardian": _describe(guardian_pid), "workload": _describe(workload_pid or 0)}
    replace_text(record_path(state_directory), json.dumps(record) + "\n")


def remove_record(state_directory: Path) -> None:
    """Removes it, because nothing runs any more; raises OSError."""
    record_path(state_directory).unlink(missing_ok=True)


def clean_up_leftover(state_directory: Path, *, guardian_patience_ms: int = GUARDIAN_PATIENCE_MS) -> bool:
    """Returns once nothing of an earlier workload of this state directory is left; True if there was something.

    Only for the one agent that owns the state directory, while no guardian of its own runs. Waits for an earlier
    guardian that is still stopping its workload, up to `guardian_patience_ms`, then kills it too. Blocks. Raises
    WorkloadError if a process survives being killed (it waits for a disk that does not answer, for example).
    """
    guardian, workload = _read_record(state_directory)
    found = False
    if guardian is not None and guardian.lives():
        found = True
        _log.info("Waiting for process %d of the former agent, which is still stopping the workload.", guardian.pid)
        if not _wait_for(lambda: not guardian.lives(), guardian_patience_ms):
            _kill(guardian.pid)
            _wait_for(lambda: not guardian.lives(), KILL_PATIENCE_MS)
    deadline = time.monotonic() + KILL_PATIENCE_MS / _MILLISECONDS_PER_SECOND
    while survivors := _survivors(state_directory, workload):
        found = True
        if time.monotonic() > deadline:
            listed = ", ".join(str(pid) for pid in survivors)
            raise WorkloadError(
                f"processes of an earlier workload are still there although they were killed: {listed}. "
                "They may be waiting for a disk or a network share; when they have ended, all goes on."
            )
        for pid in survivors:
            _kill(pid)
        time.sleep(_PAUSE_SECONDS)
    remove_record(state_directory)
    return found


if sys.platform == "win32":
    import psutil

    def _survivors(state_directory: Path, workload: RecordedProcess | None) -> list[int]:
        if workload is None or not workload.lives():
            return []
        try:
            children = psutil.Process(workload.pid).children(recursive=True)
        except psutil.Error:
            return []
        return [*(child.pid for child in children), workload.pid]

    def _kill(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGTERM)  # TerminateProcess: Windows has no gentler meaning for it
        except OSError:
            return

else:
    from agent.workload.process_tree import descendants, marked_processes, session_members

    def _survivors(state_directory: Path, workload: RecordedProcess | None) -> list[int]:
        found = set(marked_processes(ROLE_FILE_VARIABLE, str(role_file_path(state_directory))))
        if workload is not None:
            identity = process_identity(workload.pid)
            if identity == workload.identity:
                found.update((workload.pid, *descendants(workload.pid)))
            if identity in (None, workload.identity) and _is_this_boot(workload.identity):
                # As long as the session has members its id is given to no other process.
                found.update(session_members(workload.pid))
        # Dead ones that nobody has buried yet are not left behind.
        return sorted(pid for pid in found if pid != os.getpid() and process_identity(pid) is not None)

    def _is_this_boot(identity: str) -> bool:
        own = process_identity(os.getpid()) or ""
        return own.partition(":")[0] == identity.partition(":")[0]

    def _kill(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return


def _describe(pid: int) -> dict[str, str | int] | None:
    identity = process_identity(pid)
    return None if identity is None else {"pid": pid, "identity": identity}


def _read_record(state_directory: Path) -> tuple[RecordedProcess | None, RecordedProcess | None]:
    """Returns guardian and workload; what cannot be read is as if nothing had run."""
    try:
        record = json.loads(record_path(state_directory).read_text("utf-8"))
        entries = [record[name] for name in ("guardian", "workload")]
        guardian, workload = (
            None if entry is None else RecordedProcess(int(entry["pid"]), str(entry["identity"])) for entry in entries
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None, None
    return guardian, workload


def _wait_for(condition: Callable[[], bool], patience_ms: int) -> bool:
    deadline = time.monotonic() + patience_ms / _MILLISECONDS_PER_SECOND
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True
