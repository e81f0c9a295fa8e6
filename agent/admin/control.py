"""What the HTTP API may ask of the agent: one port, implemented by `agent.node`, faked in tests.

Knows no HTTP and no role rules. Reading is immediate and without side effect; acting goes through `act` alone, so that
a new action is a new member of `Action` and a new route, never a new method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from agent.admin.events import EventLog


class Action(StrEnum):
    """What an operator can make the agent do."""

    FAILOVER = "failover"
    FAILBACK = "failback"
    MAINTENANCE = "maintenance"  # arguments {"on": bool}
    TEST_HEARTBEAT = "test-heartbeat"  # arguments {"count": int}; changes nothing


@dataclass(frozen=True)
class Answer:
    """The outcome of an action: `sentence` says what was done, or why not and the way out; `details` is JSON-able.

    `TEST_HEARTBEAT` answers with `details` {"round_trips_ms": [float or null for a lost one, ...]}, done or not.
    """

    done: bool
    sentence: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Control(Protocol):
    """The running agent, seen from the API."""

    def status(self) -> dict[str, Any]:
        """The whole status, JSON-able, in the shape of `status --json`; at once, from memory."""

    def events(self) -> EventLog:
        """The event log of this agent."""

    async def act(self, action: Action, arguments: Mapping[str, Any]) -> Answer:
        """Does `action` and returns once its outcome is known or the action's own bound has passed.

        A refusal is an `Answer` with `done` false. Raises PairAgentError when the agent cannot act at all.
        """
