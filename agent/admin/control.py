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

CHANGES_TOLD_MAX = 1000  # by a dry run; its "total" counts them all


class Action(StrEnum):
    """What an operator can make the agent do."""

    FAILOVER = "failover"
    FAILBACK = "failback"
    MAINTENANCE = "maintenance"  # arguments {"on": bool}
    TEST_HEARTBEAT = "test-heartbeat"  # arguments {"count": int}; changes nothing
    SYNC = "sync"  # arguments {"full": bool}; answers at once, `status` shows the progress
    SYNC_DRY_RUN = "sync-dry-run"  # changes nothing
    TEST_SYNC = "test-sync"  # changes nothing
    # Arguments {"tree": name, "path": fnmatch pattern within the tree, "since": time in ISO 8601 in UTC, "after": id of
    # the last item of the answer before}, each a str or None; changes nothing.
    ARCHIVE_LIST = "archive-list"
    # Arguments {"item": id, "to": absolute path of the file to write, or None for where it was}.
    ARCHIVE_RESTORE = "archive-restore"


@dataclass(frozen=True)
class Answer:
    """The outcome of an action: `sentence` says what was done, or why not and the way out; `details` is JSON-able.

    `details` of the actions that have some:
    * `TEST_HEARTBEAT`, done or not: {"round_trips_ms": [float or null for a lost one, ...]}.
    * `SYNC`: {"round": int}, the number of the round that has begun; the status says in `sync` how far it is.
    * `SYNC_DRY_RUN`: {"changes": [{"tree", "path", "deed", "bytes", "archived"}, ...], "total": int, "bytes": int};
      the first `CHANGES_TOLD_MAX` changes, deed one of "create", "replace", "remove", "attributes", "conflict".
    * `TEST_SYNC`, done if it would succeed, and otherwise too: {"checks": [{"name", "ok", "sentence"}, ...]}.
    * `ARCHIVE_LIST`: {"items": [{"id", "tree", "path", "size", "reason", "archived_at", "mtime"}, ...], "bytes": int
      of all that match, "more": int that follow the last one listed}; times in ISO 8601.
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
