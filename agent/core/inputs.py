"""What the roles are told: facts, in the past tense. The edge makes them, `agent.core.roles` consumes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agent.core.messages import Hello, Invite, Refusal, Release, Report, Request
from agent.core.tree_versions import TreeVersion
from agent.core.vocabulary import WorkloadState


class LinkLoss(Enum):
    """Why the link ended, as far as it matters to the roles."""

    CLOSED = "connection closed"  # without a word
    SILENCE = "silence"  # no frame for the whole takeover time
    GOODBYE = "goodbye"  # the peer stopped in good order
    REFUSED = "refused"  # a sign of life, but no link: it refused this node or this node refused it


@dataclass(frozen=True)
class Started:
    """The agent runs and its record is loaded."""


@dataclass(frozen=True)
class LinkOpened:
    """Both hellos fit; also when a newer connection replaced the one before."""

    peer: Hello
    pair_id: bytes


@dataclass(frozen=True)
class PeerReported:
    """The peer's report changed."""

    report: Report


@dataclass(frozen=True)
class PeerAsked:
    """A message of the roles arrived over the link that is open."""

    message: Invite | Request | Release | Refusal


@dataclass(frozen=True)
class LinkLost:
    """The link is down; `last_received_ns` is when its last frame came."""

    loss: LinkLoss
    last_received_ns: int
    sentence: str


@dataclass(frozen=True)
class PeerProvenGone:
    """The connection closed and the immediate redial was refused: neither the peer's agent nor its workload runs."""


@dataclass(frozen=True)
class PeerHeard:
    """A beacon came from the peer, which has no link: it lives, and `hears` tells whether it hears this node."""

    active: bool
    hears: bool


@dataclass(frozen=True)
class ContactMade:
    """A connection with the peer is authenticated and this node's hello sent; a link or a refusal follows soon."""


@dataclass(frozen=True)
class ContactRefused:
    """A connection was made but could not become the link: somebody lives there."""

    sentence: str


@dataclass(frozen=True)
class WorkloadChanged:
    """The workload's state, for the report."""

    state: WorkloadState


@dataclass(frozen=True)
class WorkloadEnded:
    """The stop that was asked for is confirmed: no process of the workload is left."""


@dataclass(frozen=True)
class WorkloadGaveUp:
    """Restarting the workload here did not help."""

    reason: str


@dataclass(frozen=True)
class Frozen:
    """This node may have been taken over unnoticed: its agent was frozen, or its guardian fenced the workload."""

    reason: str


@dataclass(frozen=True)
class CaughtUp:
    """The resync that was started is complete up to a small rest."""

    number: int  # of the CatchUp


@dataclass(frozen=True)
class CatchUpFailed:
    """The resync that was started cannot be completed now."""

    number: int  # of the CatchUp
    reason: str


@dataclass(frozen=True)
class FinalChangesSent:
    """What the stopped workload left is on the other node, or cannot get there."""

    number: int  # of the SendFinalChanges
    undelivered: str = ""  # why it is not there; empty: it is, durably


@dataclass(frozen=True)
class TreesHindered:
    """The trees cannot be used at this moment, because `obstacle`; empty: they can."""

    obstacle: str


@dataclass(frozen=True)
class TreesIncomplete:
    """The trees are about to be half way between two states; nothing of them is changed before this is stored."""

    reason: str


@dataclass(frozen=True)
class TreesComplete:
    """The trees here are whole and as the peer's were in its `term`; `merged`: and own changes stayed."""

    term: int
    merged: bool = False


@dataclass(frozen=True)
class PeerFollows:
    """The peer's trees are whole and as the ones here in `term`, which it goes on following."""

    term: int


@dataclass(frozen=True)
class TreesOffered:
    """The peer, whose trees are in the version `peer`, is about to be given all that there is here."""

    peer: TreeVersion


@dataclass(frozen=True)
class FailoverOrdered:
    """An operator wants the backup to be active, until failback."""


@dataclass(frozen=True)
class FailbackOrdered:
    """An operator wants the primary to be active again."""


@dataclass(frozen=True)
class MaintenanceOrdered:
    """An operator switches automatic role changes off (`on` True) or on."""

    on: bool


@dataclass(frozen=True)
class StopOrdered:
    """The agent shall end in good order."""


@dataclass(frozen=True)
class TimerFired:
    """`Roles.next_deadline` has passed."""


Input: TypeAlias = (
    Started
    | LinkOpened
    | PeerReported
    | PeerAsked
    | LinkLost
    | PeerProvenGone
    | PeerHeard
    | ContactMade
    | ContactRefused
    | WorkloadChanged
    | WorkloadEnded
    | WorkloadGaveUp
    | Frozen
    | CaughtUp
    | CatchUpFailed
    | FinalChangesSent
    | TreesHindered
    | TreesIncomplete
    | TreesComplete
    | PeerFollows
    | TreesOffered
    | FailoverOrdered
    | FailbackOrdered
    | MaintenanceOrdered
    | StopOrdered
    | TimerFired
)
