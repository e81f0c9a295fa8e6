"""What the roles want done: values in the imperative.

A list of effects is carried out in its order, each finished before the next begins, and no input is given to the
roles in between. The order is the contract: make durable (Store), then send (Publish, Tell), then act
(StartWorkload, StopWorkload, the rest). Starting and stopping the workload are finished when they are ordered; their
outcome is an input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent.core.messages import Invite, Refusal, Release, Report, Request
from agent.core.record import Record
from agent.core.vocabulary import Role


@dataclass(frozen=True)
class Store:
    """Make the record durable; nothing that follows may happen before."""

    record: Record


@dataclass(frozen=True)
class Publish:
    """Tell the peer and the status what this node is now."""

    report: Report


@dataclass(frozen=True)
class Tell:
    """Send a message of the roles over the link."""

    message: Invite | Request | Release | Refusal


@dataclass(frozen=True)
class DropLink:
    """Close the link without a goodbye; whatever it still delivers is not given to the roles."""

    sentence: str


@dataclass(frozen=True)
class SayGoodbye:
    """Tell the peer that this node stops in good order, and close the link."""

    reason: str


@dataclass(frozen=True)
class StartWorkload:
    """Start the workload, or tell a warm one that it is active."""

    term: int


@dataclass(frozen=True)
class StopWorkload:
    """Stop the workload, or tell a warm one that it is on standby; WorkloadEnded follows."""


@dataclass(frozen=True)
class CatchUp:
    """Resync from the peer; CaughtUp or CatchUpFailed with this number follows."""

    number: int


@dataclass(frozen=True)
class SendFinalChanges:
    """Send what the stopped workload left; FinalChangesSent with this number follows."""

    number: int


@dataclass(frozen=True)
class Announce:
    """One event and one log line: `code` is an event code, `sentence` is for people."""

    code: str
    sentence: str


@dataclass(frozen=True)
class RoleChanged:
    """One event and one log line for a role change."""

    before: Role
    after: Role
    term: int
    sentence: str


@dataclass(frozen=True)
class Answer:
    """The immediate answer to an operator's order."""

    accepted: bool
    sentence: str


@dataclass(frozen=True)
class Exit:
    """Everything is stopped and said: the agent may end."""


Effect: TypeAlias = (
    Store
    | Publish
    | Tell
    | DropLink
    | SayGoodbye
    | StartWorkload
    | StopWorkload
    | CatchUp
    | SendFinalChanges
    | Announce
    | RoleChanged
    | Answer
    | Exit
)
