"""The states of a node and every way from one to another, as a table; diagrams are made from it.

`Roles` enters a phase only along a row of TRANSITIONS. The causes are the names of inputs, except where one input
leads different ways for a reason worth a name.
"""

from __future__ import annotations

from enum import Enum

from agent.core.vocabulary import Role


class Phase(Enum):
    """Where a node stands; several phases can show as one role."""

    STARTING = "starting"
    AWAITING_PEER = "awaiting peer"  # initial standby: the backup may hold newer state
    STANDBY = "standby"
    CATCHING_UP = "catching up"  # resync from the active node
    REQUESTING = "requesting"  # up to date; the active node was asked to release the role
    ACTIVE = "active"
    STEPPING_DOWN = "stepping down"  # the workload is being stopped
    FINISHING = "finishing"  # the workload is stopped; last changes are being sent
    STOPPED = "stopped"


class Cause(Enum):
    """Why a phase is entered."""

    STARTED = "started"
    LINK_OPENED = "link opened"
    LINK_LOST = "link lost"
    PEER_REPORTED = "peer reported"
    PEER_GONE = "peer gone"  # proven
    PEER_LEFT = "peer left"  # it said goodbye
    PEER_SILENT = "peer silent"
    PEER_REFUSED = "peer refused"
    RIVAL_HEARD = "rival heard"  # beacons of an active peer, and no link
    NOBODY_CAME = "nobody came"  # initial standby time is over
    NO_ANSWER = "no answer"
    ASKED = "asked"  # by the peer: invite, request
    RELEASED = "released"
    CAUGHT_UP = "caught up"
    CATCH_UP_FAILED = "catch-up failed"
    BOTH_ACTIVE = "both active"
    FROZEN = "frozen"
    WORKLOAD_ENDED = "workload ended"
    FINAL_CHANGES_SENT = "final changes sent"
    FINAL_CHANGES_STUCK = "final changes stuck"  # the other node cannot take them
    ORDERED = "ordered"  # by an operator
    TREES_USABLE = "trees usable"  # what kept this node from taking over has passed
    STOP_ORDERED = "stop ordered"


ROLE_OF = {
    Phase.STARTING: Role.STARTING,
    Phase.AWAITING_PEER: Role.INITIAL_STANDBY,
    Phase.STANDBY: Role.STANDBY,
    Phase.ACTIVE: Role.ACTIVE,
    Phase.STEPPING_DOWN: Role.STOPPING,
    Phase.FINISHING: Role.STOPPING,
    Phase.STOPPED: Role.STOPPING,
    # CATCHING_UP and REQUESTING: initial-standby on a primary, standby on a backup
}

_P, _C = Phase, Cause
TRANSITIONS: frozenset[tuple[Phase, Cause, Phase]] = frozenset(
    {
        (_P.STARTING, _C.STARTED, _P.ACTIVE),  # stand-alone, or forced
        (_P.STARTING, _C.STARTED, _P.AWAITING_PEER),  # primary
        (_P.STARTING, _C.STARTED, _P.STANDBY),  # backup
        (_P.STARTING, _C.STOP_ORDERED, _P.STOPPED),
        #
        (_P.AWAITING_PEER, _C.LINK_OPENED, _P.ACTIVE),  # the backup holds nothing newer
        (_P.AWAITING_PEER, _C.LINK_OPENED, _P.CATCHING_UP),  # it does
        (_P.AWAITING_PEER, _C.LINK_OPENED, _P.STANDBY),  # held, in maintenance, or this node is not eligible
        (_P.AWAITING_PEER, _C.PEER_REPORTED, _P.ACTIVE),
        (_P.AWAITING_PEER, _C.PEER_REPORTED, _P.CATCHING_UP),
        (_P.AWAITING_PEER, _C.PEER_REPORTED, _P.STANDBY),
        (_P.AWAITING_PEER, _C.RELEASED, _P.ACTIVE),
        (_P.AWAITING_PEER, _C.NOBODY_CAME, _P.ACTIVE),
        (_P.AWAITING_PEER, _C.TREES_USABLE, _P.ACTIVE),
        (_P.AWAITING_PEER, _C.TREES_USABLE, _P.CATCHING_UP),
        (_P.AWAITING_PEER, _C.TREES_USABLE, _P.STANDBY),
        (_P.AWAITING_PEER, _C.STOP_ORDERED, _P.STOPPED),
        #
        (_P.STANDBY, _C.TREES_USABLE, _P.ACTIVE),
        (_P.STANDBY, _C.TREES_USABLE, _P.CATCHING_UP),
        (_P.STANDBY, _C.LINK_LOST, _P.AWAITING_PEER),  # primary that is not up to date
        (_P.STANDBY, _C.PEER_GONE, _P.ACTIVE),  # takeover at once
        (_P.STANDBY, _C.PEER_LEFT, _P.ACTIVE),
        (_P.STANDBY, _C.PEER_SILENT, _P.ACTIVE),  # takeover after silence
        (_P.STANDBY, _C.RELEASED, _P.ACTIVE),
        (_P.STANDBY, _C.LINK_OPENED, _P.ACTIVE),  # primary, and nobody is active
        (_P.STANDBY, _C.LINK_OPENED, _P.CATCHING_UP),
        (_P.STANDBY, _C.PEER_REPORTED, _P.ACTIVE),
        (_P.STANDBY, _C.PEER_REPORTED, _P.CATCHING_UP),
        (_P.STANDBY, _C.PEER_REFUSED, _P.ACTIVE),  # primary: the backup did not take what was released
        (_P.STANDBY, _C.ASKED, _P.CATCHING_UP),
        (_P.STANDBY, _C.ORDERED, _P.CATCHING_UP),
        (_P.STANDBY, _C.ORDERED, _P.ACTIVE),  # maintenance ended, and nobody is active
        (_P.STANDBY, _C.STOP_ORDERED, _P.STOPPED),
        #
        (_P.CATCHING_UP, _C.CAUGHT_UP, _P.REQUESTING),
        (_P.CATCHING_UP, _C.CAUGHT_UP, _P.ACTIVE),  # primary, and the backup is not active any more
        (_P.CATCHING_UP, _C.CAUGHT_UP, _P.STANDBY),
        (_P.CATCHING_UP, _C.CATCH_UP_FAILED, _P.STANDBY),
        (_P.CATCHING_UP, _C.RELEASED, _P.ACTIVE),
        (_P.CATCHING_UP, _C.LINK_LOST, _P.AWAITING_PEER),  # primary
        (_P.CATCHING_UP, _C.LINK_LOST, _P.STANDBY),  # backup
        (_P.CATCHING_UP, _C.LINK_OPENED, _P.STANDBY),  # a newer connection: begin anew
        (_P.CATCHING_UP, _C.FROZEN, _P.AWAITING_PEER),
        (_P.CATCHING_UP, _C.FROZEN, _P.STANDBY),
        (_P.CATCHING_UP, _C.STOP_ORDERED, _P.STOPPED),
        #
        (_P.REQUESTING, _C.RELEASED, _P.ACTIVE),
        (_P.REQUESTING, _C.PEER_LEFT, _P.ACTIVE),  # it stopped in good order instead
        (_P.REQUESTING, _C.PEER_REFUSED, _P.STANDBY),
        (_P.REQUESTING, _C.NO_ANSWER, _P.STANDBY),
        (_P.REQUESTING, _C.LINK_LOST, _P.AWAITING_PEER),
        (_P.REQUESTING, _C.LINK_LOST, _P.STANDBY),
        (_P.REQUESTING, _C.LINK_OPENED, _P.STANDBY),
        (_P.REQUESTING, _C.FROZEN, _P.AWAITING_PEER),
        (_P.REQUESTING, _C.FROZEN, _P.STANDBY),
        (_P.REQUESTING, _C.STOP_ORDERED, _P.STOPPED),
        #
        (_P.ACTIVE, _C.ASKED, _P.STEPPING_DOWN),  # handover
        (_P.ACTIVE, _C.BOTH_ACTIVE, _P.STEPPING_DOWN),  # backup
        (_P.ACTIVE, _C.RIVAL_HEARD, _P.STEPPING_DOWN),
        (_P.ACTIVE, _C.FROZEN, _P.STEPPING_DOWN),
        (_P.ACTIVE, _C.STOP_ORDERED, _P.STEPPING_DOWN),
        #
        (_P.STEPPING_DOWN, _C.WORKLOAD_ENDED, _P.FINISHING),  # to release or to exit
        (_P.STEPPING_DOWN, _C.WORKLOAD_ENDED, _P.STANDBY),  # to yield, or the link is gone
        (_P.STEPPING_DOWN, _C.WORKLOAD_ENDED, _P.AWAITING_PEER),  # primary that was frozen
        (_P.FINISHING, _C.FINAL_CHANGES_SENT, _P.STANDBY),
        (_P.FINISHING, _C.FINAL_CHANGES_SENT, _P.STOPPED),
        (_P.FINISHING, _C.FINAL_CHANGES_STUCK, _P.ACTIVE),  # goes on where everything is
    }
)
