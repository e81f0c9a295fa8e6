"""Where explorations and simulations of the modelled pair begin."""

from __future__ import annotations

from dataclasses import replace

from agent.core.record import Record, after_damage
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation.homecoming import Way, homeward
from tests.simulation.moves import Move, apply
from tests.simulation.pair_model import Pair
from tests.simulation.pair_values import BACKUP, PRIMARY, record_key

NEW = (Record(mode="primary", term_lane=1), Record(mode="backup", term_lane=0))


def new(*, trees: bool = False) -> Pair:
    """Two nodes that never ran."""
    return Pair(NEW, trees=trees)


def at_rest(pair: Pair, *moves: Move, way: Way = Way.MENDED) -> Pair:
    """Returns the pair after these moves, each followed by all that comes of it."""
    for move in (None, *moves):
        if move is not None:
            apply(pair, move)
        while (following := homeward(pair, way)) is not None:
            apply(pair, following)
    return pair


def steady(*, trees: bool = False) -> Pair:
    """The primary is active, the backup on standby."""
    return at_rest(new(trees=trees))


def held(*, trees: bool = False) -> Pair:
    """An operator moved the role to the backup."""
    return at_rest(steady(trees=trees), ("failover", PRIMARY))


def maintained(*, trees: bool = False) -> Pair:
    """Maintenance is on, the primary is active."""
    return at_rest(steady(trees=trees), ("maintenance on", PRIMARY))


def held_and_maintained(*, trees: bool = False) -> Pair:
    """Maintenance is on, the backup is active."""
    return at_rest(held(trees=trees), ("maintenance on", BACKUP))


def failed(*, trees: bool = False) -> Pair:
    """The workload failed on the primary and runs on the backup."""
    return at_rest(steady(trees=trees), ("workload gave up", PRIMARY))


def primary_dead(*, trees: bool = False) -> Pair:
    """The primary's power is off, the backup took over."""
    return at_rest(steady(trees=trees), ("power", PRIMARY), way=Way.BACKUP_ALONE)


def both_down(policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE, *, trees: bool = False) -> Pair:
    """Both were shut off while the primary was active."""
    return shut_off(steady(trees=trees), policy)


def both_down_primary_outdated(policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE, *, trees: bool = False) -> Pair:
    """Both were shut off while the backup was active."""
    return shut_off(primary_dead(trees=trees), policy)


def record_lost(at: int, *, trees: bool = False) -> Pair:
    """Both were shut off, and one node's state file was lost."""
    pair = shut_off(steady(trees=trees))
    record, pair.forgot = pair.nodes[at].disk, True
    return changed(pair, at, after_damage(None, record.mode, record.term_lane))


def first_copy_broken() -> Pair:
    """Both were shut off in the middle of the first copy."""
    pair = new(trees=True)
    while not pair.nodes[BACKUP].disk.incomplete:
        following = homeward(pair, Way.MENDED)
        assert following is not None
        apply(pair, following)
    return shut_off(pair)


def resync_broken() -> Pair:
    """Both were shut off while the primary, which was away, was brought up to date by the active backup."""
    pair = both_down_primary_outdated(trees=True)
    while not pair.nodes[PRIMARY].disk.incomplete:
        following = homeward(pair, Way.MENDED)
        assert following is not None
        apply(pair, following)
    return shut_off(pair)


def modes_swapped() -> Pair:
    """Both were shut off, and the configuration now says that the backup is the primary, and the other way round."""
    pair = shut_off(steady(trees=True))
    pair.nodes.reverse()
    pair.only = (pair.only[BACKUP], pair.only[PRIMARY])
    for node in pair.nodes:
        node.last_term = 0
    return pair


def trees_added() -> Pair:
    """The two ran as a pair without a tree, as every version before trees did, and now have one."""
    pair = shut_off(steady())
    pair.trees, pair.only, pair.common = True, (False, False), False
    return pair


def shut_off(pair: Pair, policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> Pair:
    """Returns the pair with both nodes down, as their disks were."""
    down = Pair((pair.nodes[PRIMARY].disk, pair.nodes[BACKUP].disk), policy, trees=pair.trees)
    down.only, down.common, down.forgot = pair.only, pair.common, pair.forgot
    return down


def changed(pair: Pair, at: int, record: Record) -> Pair:
    """Returns the pair with another record on one node's disk."""
    pair.nodes[at].disk, pair.nodes[at].disk_key = record, record_key(record)
    return pair


def same_lane() -> Pair:
    """A new primary beside a backup that was one itself: both draw odd terms."""
    return Pair((NEW[PRIMARY], replace(NEW[BACKUP], term_lane=1, term=7, active_term=7)))
