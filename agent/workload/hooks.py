"""Runs the hooks: one command at a time, in the order of what happened, each bounded in time.

What happened later never overtakes a running hook, and nothing is left out: each hook sees the role and term of its
own occasion. A hook that fails or is killed is logged; the next ones run all the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from agent.workload.commands import run_command
from agent.workload.environment import inherited_environment

_log = logging.getLogger("agent.workload")


@dataclass(frozen=True)
class HookOccasion:
    """Something that hooks are run for; `name` as in agent.toml, for the log."""

    name: str
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    after: Callable[[], Awaitable[None]] | None = None  # awaited before the first command
    done: Callable[[], None] | None = None  # called when the last one has ended


class HookRunner:
    """A queue of occasions; `run` works it off."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._waiting: deque[HookOccasion] = deque()
        self._changed = trio.Event()

    def add(self, occasion: HookOccasion) -> None:
        """Appends an occasion; returns at once."""
        self._waiting.append(occasion)
        self._changed.set()

    async def run(self) -> None:
        """Runs hooks until cancelled, which kills a running one."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            while self._waiting:
                await self._serve(self._waiting.popleft())

    async def _serve(self, occasion: HookOccasion) -> None:
        if occasion.after is not None:
            await occasion.after()
        environment = {**inherited_environment(), **occasion.environment}
        for position, command in enumerate(occasion.commands, start=1):
            label = f"hooks.{occasion.name}, number {position}"

            def show(line: str, label: str = label) -> None:
                _log.info("%s: %s", label, line)

            problem = await run_command(command, environment, timeout_ms=self._timeout_ms, on_line=show)
            if problem is None:
                _log.debug("%s ended well.", label)
            else:
                _log.warning("%s %s.", label, problem)
        if occasion.done is not None:
            occasion.done()
