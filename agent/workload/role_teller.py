"""Tells the role to whom it concerns beside the agent: the workload's environment, the role file, the hooks.

The role file follows the last role told, at once; hooks see every role, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from agent.config.model import Hooks
from agent.core.vocabulary import Role
from agent.workload.environment import role_environment, role_file_path, write_role_file
from agent.workload.events import WorkloadIdentity
from agent.workload.hooks import HookOccasion, HookRunner
from agent.workload.latest_write import LatestWrite


class RoleTeller:
    """Everything returns at once; `run` does the work."""

    def __init__(self, hooks: Hooks, identity: WorkloadIdentity, state_directory: Path) -> None:
        self._hooks = hooks
        self._identity = identity
        self._path = role_file_path(state_directory)
        self._file = LatestWrite("role file")
        self._runner = HookRunner(hooks.timeout)
        self._hooks_role: Role | None = None  # that hooks were queued for last

    async def run(self) -> None:
        """Writes and runs hooks until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._file.run)
            nursery.start_soon(self._runner.run)

    def environment(self, role: Role, term: int | None) -> dict[str, str]:
        """Returns the variables for workload and hooks."""
        return role_environment(self._identity, role, term)

    def write_file(self, role: Role, term: int | None) -> None:
        """Has the role file say it."""
        self._file.put(partial(write_role_file, self._path, role, term))

    async def written(self) -> None:
        """Returns when the role file says what it was last to say, or could not be written."""
        await self._file.settled()

    def queue_hooks(self, role: Role, term: int | None, *, done: Callable[[], None] = lambda: None) -> None:
        """Queues on_active or on_standby; on_standby not twice in a row. `done` is called after them in any case."""
        if role is Role.ACTIVE:
            name, commands = "on_active", self._hooks.on_active
        else:
            name, commands = "on_standby", self._hooks.on_standby
            if self._hooks_role is Role.STANDBY:
                commands = ()
        self._hooks_role = role
        environment = self.environment(role, term)
        self._runner.add(HookOccasion(name, commands, environment, after=self.written, done=done))

    def queue_config_hooks(self, role: Role, term: int | None) -> None:
        """Queues on_config_applied."""
        environment = self.environment(role, term)
        self._runner.add(HookOccasion("on_config_applied", self._hooks.on_config_applied, environment))
