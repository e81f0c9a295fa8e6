"""What a session tells its owner: facts about one connection, in the past tense."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agent.core.messages import Hello, Invite, Refusal, Release, Report, Request


class EndCause(Enum):
    """Why a session ended."""

    GOODBYE = "goodbye"  # the peer stopped in good order
    REFUSED_BY_PEER = "refused by the other node"
    REFUSED_HERE = "refused here"
    SILENCE = "silence"
    FAULT = "fault"  # the peer broke the protocol
    CLOSED = "closed"  # end of stream or reset without a word


@dataclass(frozen=True)
class Opened:
    """Both hellos are exchanged and fit."""

    peer: Hello
    pair_id: bytes
    clock_difference_ms: int  # the peer's wall clock minus ours, uncertain by the round-trip time


@dataclass(frozen=True)
class PeerReported:
    """The peer's report arrived and differs from the last one."""

    report: Report


@dataclass(frozen=True)
class Asked:
    """A message for the roles arrived."""

    message: Invite | Request | Release | Refusal


@dataclass(frozen=True)
class ProbeReturned:
    """A probe came back."""

    round_trip_ns: int


@dataclass(frozen=True)
class Ended:
    """The session is over; `sentence` says why, in words for an operator."""

    cause: EndCause
    code: str
    sentence: str


SessionEvent: TypeAlias = Opened | PeerReported | Asked | ProbeReturned | Ended
