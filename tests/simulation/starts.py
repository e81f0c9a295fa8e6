"""Where explorations and simulations of the modelled pair begin."""

from __future__ import annotations

from dataclasses import replace

from agent.core.record import Record, after_damage
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation.homecoming import Way, homeward
from tests.simulation.moves import Move, apply
from tests.simulation.pair_model import Pair
from tests.simulation.pair_values import BACKUP, PRIMARY

NEW = (Record(mode="primary", term_lane=1), Record(mode="backup", term_lane=0))


def new() -> Pair:
    """Two nodes that never ran."""
    return Pair(NEW)


def at_rest(pair: Pair, *moves: Move, way: Way = Way.MENDED) -> Pair:
    """Returns the pair after these moves, each followed by all that comes of it."""
    for move in (None, *moves):
        if move is not None:
            apply(pair, move)
        while (following := homeward(pair, way)) is not None:
            apply(pair, following)
    return pair


def steady() -> Pair:
    """The primary is active, the backup on standby."""
    return at_rest(new())


def held() -> Pair:
    """An operator moved the role to the backup."""
    return at_rest(steady(), ("failover", PRIMARY))


def maintained() -> Pair:
    """Maintenance is on, the primary is active."""
    return at_rest(steady(), ("maintenance on", PRIMARY))


def held_and_maintained() -> Pair:
    """Maintenance is on, the backup is active."""
    return at_rest(held(), ("maintenance on", BACKUP))


def failed() -> Pair:
    """The workload failed on the primary and runs on the backup."""
    return at_rest(steady(), ("workload gave up", PRIMARY))


def primary_dead() -> Pair:
    """The primary's power is off, the backup took over."""
    return at_rest(steady(), ("power", PRIMARY), way=Way.BACKUP_ALONE)


def both_down(policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> Pair:
    """Both were shut off while the primary was active."""
    pair = steady()
    return Pair((pair.nodes[PRIMARY].disk, pair.nodes[BACKUP].disk), policy)


def both_down_primary_outdated(policy: TimeoutPolicy = TimeoutPolicy.ACTIVATE) -> Pair:
    """Both were shut off while the backup was active."""
    pair = primary_dead()
    return Pair((pair.nodes[PRIMARY].disk, pair.nodes[BACKUP].disk), policy)


def record_lost(at: int) -> Pair:
    """Both were shut off, and one node's state file was lost."""
    records = [node.disk for node in steady().nodes]
    records[at] = after_damage(None, records[at].mode, records[at].term_lane)
    return Pair((records[PRIMARY], records[BACKUP]))


def same_lane() -> Pair:
    """A new primary beside a backup that was one itself: both draw odd terms."""
    return Pair((NEW[PRIMARY], replace(NEW[BACKUP], term_lane=1, term=7, active_term=7)))
