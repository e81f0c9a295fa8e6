"""What the demo leaves behind: nothing, or a pair that is kept, with a record by which it can be ended later.

Invariant: a folder is removed only if the demo made it, and only after the processes that use it have gone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from agent.core.errors import PairAgentError
from agent.demo.agents import DemoAgent, find_agents, stop_processes
from agent.demo.interruption import Interruption
from agent.demo.pair_files import DemoPair, written_configurations
from agent.platform.clock import boottime_ns
from agent.platform.processes import is_same_process, process_identity

FOLDER_PREFIX = "pair-agent-demo-"
RECORD_NAME = "demo.json"
RECORD_BYTES_MAX = 4096
REMOVE_SECONDS_MAX = 3.0
REMOVE_RETRY_S = 0.1


class Premises:
    """The folder and the agents of one demo; gone when it is left, unless `keep` or `keep_folder` was called."""

    def __init__(self, interruption: Interruption) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX)).resolve()
        self.agents: Sequence[DemoAgent] = ()
        self._interruption = interruption
        self._to_stop = True
        self._to_remove = True

    def __enter__(self) -> Premises:
        return self

    def __exit__(self, *error: object) -> None:
        self.clean_up()

    def stop(self) -> None:
        """Stops both agents, the backup first so that nobody takes over; one more Ctrl-C kills them."""
        if self._to_stop:
            hurry = self._interruption.hurry_after()
            with contextlib.ExitStack() as last_first:  # goes on with the others if one cannot be stopped
                for agent in self.agents:
                    last_first.callback(agent.stop, hurry)

    def clean_up(self) -> None:
        """Stops the agents and removes the folder. Raises PairAgentError if it cannot be removed."""
        try:
            self.stop()
        finally:
            if self._to_remove:
                self._to_remove = False
                remove_folder(self.folder)

    def keep(self) -> None:
        """Leaves the pair running, and its record in the folder."""
        record = [{"pid": agent.pid, "identity": process_identity(agent.pid)} for agent in self.agents]
        (self.folder / RECORD_NAME).write_text(json.dumps({"agents": record}) + "\n", "ascii")
        self._to_stop = self._to_remove = False

    def keep_folder(self) -> None:
        """Leaves the folder, not the agents: for a look at what went wrong."""
        self._to_remove = False


def stop_kept(folder: Path, hurry: Callable[[], bool]) -> None:
    """Stops the agents of a pair that was kept, or whose demo was killed, and removes its folder.

    Raises PairAgentError if the folder is none of the demo's.
    """
    folder = folder.resolve()
    processes: list[psutil.Process] = []
    if (folder / RECORD_NAME).exists() or not (configurations := _configurations_untrusted(folder)):
        for pid, identity in _read_record_untrusted(folder):
            if is_same_process(pid, identity):
                with contextlib.suppress(psutil.NoSuchProcess):
                    processes.append(psutil.Process(pid))
    else:
        processes = find_agents(configurations)
    for process in reversed(processes):
        stop_processes([process], hurry)
    remove_folder(folder)


def describe_kept(pair: DemoPair) -> list[str]:
    """Returns the lines that say how to talk to a pair that was kept, and how to end it."""
    lines = [f"The pair runs on in {pair.folder}", ""]
    for node in pair.nodes:
        for command in ("status --watch", "events --follow"):
            lines.append(f'  pair-agent {command} --config "{node.config_path}"')
    lines += [
        "",
        "What only the killed node had:",
        f'  pair-agent archive list --config "{pair.primary.config_path}"',
        "",
        "Move the role to the other node, and back:",
        f'  pair-agent failover --config "{pair.backup.config_path}"',
        f'  pair-agent failback --config "{pair.backup.config_path}"',
        "",
        "End it, and remove the folder:",
        f'  pair-agent demo --stop "{pair.folder}"',
    ]
    return lines


def remove_folder(folder: Path) -> None:
    """Removes the folder and all in it. Raises PairAgentError."""
    deadline_ns = boottime_ns() + int(REMOVE_SECONDS_MAX * 1e9)
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            # Windows gives up the files of a process a moment after its end.
            if boottime_ns() > deadline_ns:
                raise PairAgentError(
                    f"{folder} could not be removed: {error.strerror} ({error.filename}); remove it by hand."
                ) from error
            time.sleep(REMOVE_RETRY_S)
        else:
            return


def _configurations_untrusted(folder: Path) -> list[Path]:
    """What a demo that was killed leaves: no record, but the configurations that it wrote."""
    try:
        return written_configurations(folder) if folder.name.startswith(FOLDER_PREFIX) else []
    except OSError:
        return []


def _read_record_untrusted(folder: Path) -> list[tuple[int, str]]:
    try:
        if not folder.name.startswith(FOLDER_PREFIX):
            raise ValueError
        with (folder / RECORD_NAME).open("rb") as file:
            agents = json.loads(file.read(RECORD_BYTES_MAX))["agents"]
        return [(int(agent["pid"]), str(agent["identity"])) for agent in agents]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise PairAgentError(
            f"{folder} is no folder of `pair-agent demo`; nothing was changed. `demo --keep` prints its folder."
        ) from None
