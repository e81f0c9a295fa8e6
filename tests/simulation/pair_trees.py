"""The trees of the modelled pair: rounds of synchronisation, and what each node really holds.

A round goes from the **source**, the node that is active or the one that a catch-up asks, to the **sink**. The source
notes that the sink may have everything soon (`offer`). A sink that will be half way between two states notes so first
(`begin`), a small round may do without; when everything is there it notes that (`complete`), and then the source is
told (`follows`). A round belongs to one link and ends with it.

What a node holds is told apart only as far as `agent.core.tree_versions` claims to know it: whether it has written what
the other was never given, and whether the two ever had the same. Writes of the last moment before a crash do not count:
single files are the index's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core import inputs as told
from agent.core.role_table import Phase
from agent.core.tree_versions import Relation, followed, merged, relation
from agent.core.vocabulary import Mode
from tests.simulation.pair_values import BACKUP, MODES, NAMES, PRIMARY, BrokenPromiseError, Node

if TYPE_CHECKING:
    from tests.simulation.pair_model import Pair

GIVING = (Phase.ACTIVE, Phase.STEPPING_DOWN, Phase.FINISHING)
OBSTACLE = "its index is being repaired"
REASON = "a copy is not finished"


def speak(pair: Pair) -> bool:
    """Returns whether the two nodes' bulk connection can stand."""
    primary, backup = pair.nodes
    linked = primary.link is not None and primary.link == backup.link
    return linked and not pair.blocked and primary.awake and backup.awake


def source_of(pair: Pair, at: int) -> int | None:
    """Returns from whom the node `at` would be brought up to date now, or None."""
    sink, source = pair.nodes[at].roles, pair.nodes[1 - at].roles
    if sink is None or source is None or not speak(pair) or sink.phase in GIVING:
        return None
    if pair.nodes[at].hindered or pair.nodes[1 - at].hindered or source.record.incomplete:
        return None
    if MODES[at] is Mode.PRIMARY and sink.record.overwrite_due:
        return None  # its own trees are to replace the other's
    return 1 - at if source.phase in GIVING or sink.phase is Phase.CATCHING_UP else None


def has_everything(pair: Pair, at: int) -> bool:
    """Returns whether the node `at` has all that the other one has, and both know it; a merging one has more."""
    sink, source = pair.nodes[at].disk, pair.nodes[1 - at].disk
    settled = source.version == followed(source.version) and not pair.nodes[PRIMARY].disk.overwrite_due
    return settled and not sink.incomplete and sink.version in (source.version, merged(source.version))


def awaits_round(pair: Pair, at: int) -> bool:
    """Returns whether the node `at` is a sink that has not everything yet."""
    source = source_of(pair, at)
    return source is not None and not has_everything(pair, at) and not hears_of_follower(pair, source)


def is_whole(node: Node) -> bool:
    """Returns whether the node's trees are in one state, so that a small round may do without a note."""
    return not (node.disk.incomplete or node.disk.overwrite_due)


def applies(node: Node) -> bool:
    """Returns whether the node is half way through a round of the present link."""
    return node.applying is not None and node.applying == node.link


def has_offer(pair: Pair, at: int) -> bool:
    """Returns whether the source of the sink `at` has noted that its present state may be taken over."""
    source = pair.nodes[1 - at]
    return source.offered == (source.link, source.disk.data_term)


def hears_of_follower(pair: Pair, at: int) -> bool:
    """Returns whether the source `at` is being told that the other node has everything that it has now."""
    node = pair.nodes[at]
    return node.follows == (node.link, node.disk.data_term) and speak(pair)


def caught_up(pair: Pair, at: int) -> bool:
    """Returns whether a catch-up of the node `at` has come to its end."""
    node = pair.nodes[at]
    if not pair.trees or (at == PRIMARY and node.disk.overwrite_due):
        return True
    return not node.disk.incomplete and (has_everything(pair, at) or hears_of_follower(pair, 1 - at)) and speak(pair)


def offer(pair: Pair, at: int) -> None:
    """The source notes that the sink may have everything soon."""
    node = pair.nodes[at]
    assert node.link is not None
    node.offered = (node.link, node.disk.data_term)
    pair.tell(at, told.TreesOffered(pair.nodes[1 - at].disk.version))


def begin(pair: Pair, at: int) -> None:
    """The sink notes that its trees will be half way between two states."""
    pair.nodes[at].applying = pair.nodes[at].link
    pair.tell(at, told.TreesIncomplete(REASON))


def complete(pair: Pair, at: int) -> None:
    """The sink has everything; a primary keeps what it wrote on its own besides."""
    node, source = pair.nodes[at], pair.nodes[1 - at]
    assert source.offered is not None
    merges = at == PRIMARY and relation(node.disk.version, source.disk.version) is Relation.BOTH_CHANGED
    node.applying, source.follows = None, source.offered
    pair.only, pair.common = (merges, False), True
    pair.tell(at, told.TreesComplete(source.offered[1], merges))
    pair.forgot = pair.forgot and pair.nodes[at].disk.data_term != source.offered[1]  # it may have died before it noted


def follows(pair: Pair, at: int) -> None:
    """The source learns that the sink has everything."""
    node = pair.nodes[at]
    assert node.follows is not None
    (_, term), node.follows = node.follows, None
    pair.tell(at, told.PeerFollows(term))


def wrote(pair: Pair, at: int) -> None:
    """The workload of the node `at` writes what the other one is not given."""
    pair.only = (True, pair.only[BACKUP]) if at == PRIMARY else (pair.only[PRIMARY], True)


def require_usable(pair: Pair, at: int) -> None:
    """Raises BrokenPromiseError if no workload may start on these trees."""
    node = pair.nodes[at]
    due = node.disk.overwrite_due and MODES[at] is Mode.BACKUP
    if node.disk.incomplete or due or (node.hindered and not node.goes_on):
        why = node.disk.incomplete or ("an overwrite is due" if due else OBSTACLE)
        raise BrokenPromiseError(f"{NAMES[at]} starts its workload on trees that it must not use: {why}")
    if at == BACKUP and not pair.common and node.last_term < pair.nodes[PRIMARY].last_term:
        raise BrokenPromiseError("the backup starts its workload on trees that the primary never gave it")


def require_up_to_date(pair: Pair, at: int) -> None:
    """Raises BrokenPromiseError if a node asks for the role and has not all that the other one wrote."""
    overwrites = at == PRIMARY and pair.nodes[at].disk.overwrite_due
    if not overwrites and (pair.only[1 - at] or pair.nodes[at].disk.incomplete):
        raise BrokenPromiseError(f"{NAMES[at]} asks for the role and is not up to date")


def require_true_versions(pair: Pair) -> None:
    """Raises BrokenPromiseError if what the nodes noted of their trees claims what is not so."""
    primary, backup = (node.disk for node in pair.nodes)
    if primary.incomplete or backup.incomplete or not (primary.data_term and backup.data_term):
        return
    claim = relation(primary.version, backup.version)
    only_primary, only_backup = pair.only
    wrong = {
        Relation.SAME: only_primary or only_backup,
        Relation.AHEAD: only_backup,
        Relation.BEHIND: only_primary,
        Relation.BOTH_CHANGED: not pair.common,
        Relation.UNRELATED: pair.common and not pair.forgot,
    }[claim]
    if wrong:
        holds = [NAMES[at] for at in (PRIMARY, BACKUP) if pair.only[at]]
        raise BrokenPromiseError(
            f"the primary's trees are called {claim.value} ({primary.version}, {backup.version}), but only known to "
            f"their node are writes of {holds or 'nobody'}, and they were {'' if pair.common else 'never '}the same"
        )
