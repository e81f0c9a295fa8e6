"""One node as the demo sees it: what its agent says, and what stands in its tree.

Asks and reads only when it is told to look; what it answers in between is of that moment. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.admin.codes import EventCode
from agent.core.errors import ApiError, PairAgentError
from agent.core.vocabulary import Role
from agent.demo.agents import DemoAgent
from agent.demo.readings import Reading, ReadingsFolder
from agent.demo.screen import NodeView

EVENTS_ASKED = 100

Ask = Callable[[Path, str], Any]
"""Asks the agent of a configuration file for a path of its API; raises ApiError while it does not answer."""


class DemoFailedError(PairAgentError):
    """The pair did not do what it should; the logs of its agents say more."""


class NodeWatch:
    """One node as its agent and its readings show it, as of the last look."""

    def __init__(self, agent: DemoAgent, ask: Ask) -> None:
        self.agent = agent
        self.name = agent.node.name
        self.seen: set[Reading] = set()  # in its tree, by whomever they were written
        self.files = 0
        self.status: dict[str, Any] | None = None
        self._ask = ask
        self._folder = ReadingsFolder(agent.node.tree_path)

    def read(self) -> None:
        """Reads what came into its tree since the last time."""
        self.seen.update(self._folder.read_new())
        self.files = self._folder.files

    def look(self) -> None:
        """Asks the agent and reads what is new. Raises DemoFailedError if the agent ended by itself."""
        self.read()
        self.status = None
        if not self.agent.running:
            return
        code = self.agent.exit_code()
        if code is not None:
            raise DemoFailedError(f"The agent of {self.name} ended by itself, with exit code {code}.")
        try:
            answer = self._ask(self.agent.node.config_path, "/v1/status")
        except ApiError:
            return
        self.status = answer if isinstance(answer, dict) else None

    def view(self) -> NodeView:
        """How it looks for the screen, and for questions about the status."""
        node = self.agent.node
        return NodeView(self.name, node.mode.value, self.agent.running, self.status, self.files)

    def is_in(self, role: Role, workload: str) -> bool:
        """Tells whether the node has this role and its workload this state."""
        view = self.view()
        return view.word("role") == role.value and view.word("workload", "state") == workload

    @property
    def linked(self) -> bool:
        """Whether the link is up."""
        return self.view().word("link", "state") == "up"

    @property
    def ready(self) -> bool:
        """Whether failover would work, by this node's verdict."""
        return self.view().word("readiness", "ready") == "True"

    @property
    def in_sync(self) -> bool:
        """Whether its trees are those of the other node, by its own word."""
        return self.view().word("sync", "state") == "in-sync"

    def own(self, after_ns: int = 0) -> list[Reading]:
        """Returns what its own application wrote after this moment of the boot clock, in order of time."""
        own = (reading for reading in self.seen if reading.node == self.name and reading.taken_ns > after_ns)
        return sorted(own, key=lambda reading: reading.taken_ns)

    def wrote_after(self, moment_ns: int) -> bool:
        """Tells whether its application wrote after this moment of the boot clock."""
        return any(reading.node == self.name and reading.taken_ns > moment_ns for reading in self.seen)

    def number(self, *keys: str) -> int | None:
        """A number of the status by its keys, None where there is none."""
        word = self.view().word(*keys)
        return int(word) if word.isdecimal() else None

    def activation(self) -> dict[str, Any] | None:
        """Returns the newest event by which this node became active."""
        try:
            events = self._ask(self.agent.node.config_path, f"/v1/events?limit={EVENTS_ASKED}")
        except ApiError:
            return None
        changes: list[dict[str, Any]] = [
            event
            for event in events
            if event["code"] == EventCode.ROLE_CHANGED.value and event["fields"].get("role") == Role.ACTIVE.value
        ]
        return changes[-1] if changes else None
