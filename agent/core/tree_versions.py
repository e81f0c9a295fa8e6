"""Which of two nodes holds the newer trees: what each notes durably of its own, and the verdict from both notes.

DRBD's handshake, with the pair's terms for its generation identifiers. The current UUID is `data_term`, which needs no
drawing of random numbers, for a term is never used twice. The bitmap UUID is `base_term`: the generation from which on
changes are tracked. DRBD also draws a new current UUID when a primary loses its secondary; here the term goes on, for
the workload was told it, and `alone` says the same. `offered_term` is there for what rules 5a and 7a of DRBD's
`uuid_compare` mend: the sink noted that it has everything, and the connection broke before the source learned it.

The verdict is about whole histories. Single files that one node has and the other does not, such as those written in
the last moment before a power cut, are found by the index (`local`), whatever the verdict.

When a node notes what, each time durably before the next thing happens:

| when | who | note |
|---|---|---|
| before the workload starts | the active node | `written` |
| the other node is lost, and the workload goes on | the active node | `went_on_alone` |
| before the end of a first round is sent to a sink | the source | `offered` |
| the sink has everything | first the sink, then the source | `followed` |
| a merging sink has everything, and its own | the sink; the source notes `followed` | `merged` |

If nodes keep to this, one that is called BEHIND holds nothing that the other one does not have, except for that last
moment, and trees that were in step once are never called UNRELATED. A note that was lost makes the verdict careful
(BOTH_CHANGED where one node is only ahead), never wrong. Knows nothing of disks, links and roles.

Source: DRBD user's guide, "Generation identifiers".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class TreeVersion:
    """What a node knows of its own trees. All zero: no history."""

    data_term: int = 0  # under which the trees were last written here, by a workload or by following the other node
    alone: bool = False  # they may hold what the other node was never given
    base_term: int = 0  # whose state both nodes last had in common; 0: never
    offered_term: int = 0  # whose state the other node may have taken over, though it is not known that it did


class Relation(StrEnum):
    """How own trees stand to the other node's."""

    SAME = "same"  # or neither has a history
    AHEAD = "ahead"  # the own ones are newer and hold all that the other's do
    BEHIND = "behind"
    BOTH_CHANGED = "both changed"  # since they were last the same
    UNRELATED = "unrelated"  # nothing in common is known


def relation(own: TreeVersion, peer: TreeVersion) -> Relation:
    """Returns how `own` stands to `peer`; the other node gets the mirrored answer."""
    if not own.data_term or not peer.data_term:
        return Relation.SAME if own.data_term == peer.data_term else Relation.UNRELATED
    if own.data_term == peer.data_term:
        if own.alone == peer.alone:
            return Relation.BOTH_CHANGED if own.alone else Relation.SAME
        return Relation.AHEAD if own.alone else Relation.BEHIND
    began_with_peer = peer.data_term in _bases(own)
    began_with_own = own.data_term in _bases(peer)
    if began_with_peer and not began_with_own:
        return Relation.BOTH_CHANGED if peer.alone else Relation.AHEAD
    if began_with_own and not began_with_peer:
        return Relation.BOTH_CHANGED if own.alone else Relation.BEHIND
    if began_with_own or _bases(own) & _bases(peer):  # each after the other cannot be, so that is not trusted
        return Relation.BOTH_CHANGED
    return Relation.UNRELATED


def written(version: TreeVersion, term: int) -> TreeVersion:
    """Returns the note before the trees are written under `term`, a new activation of this node."""
    return replace(version, data_term=term, alone=True)


def went_on_alone(version: TreeVersion) -> TreeVersion:
    """Returns the note of an active node that lost the other one and goes on."""
    return replace(version, alone=True)


def offered(version: TreeVersion, peer: TreeVersion) -> TreeVersion:
    """Returns the note of a source that is about to give all it has to a sink of version `peer`.

    An earlier offer is settled first: the peer's version tells whether it was taken.
    """
    taken = version.offered_term and version.offered_term in (peer.data_term, peer.base_term)
    base_term = version.offered_term if taken else version.base_term
    return replace(version, base_term=base_term, offered_term=version.data_term)


def followed(source: TreeVersion) -> TreeVersion:
    """Returns the note of both nodes when the sink has everything that `source`, the source's version, stands for."""
    return TreeVersion(data_term=source.data_term, base_term=source.data_term)


def merged(source: TreeVersion) -> TreeVersion:
    """Returns the note of a sink that has everything of `source` and kept its own changes besides."""
    return TreeVersion(data_term=source.data_term, alone=True, base_term=source.data_term)


def _bases(version: TreeVersion) -> set[int]:
    return {version.base_term, version.offered_term} - {0}
