"""Schedules that once broke a promise, each as short as it can be, named after the promise.

A move that cannot happen any more, because what led to it was mended, is left out; all that follows is played.
"""

from __future__ import annotations

from tests.simulation.homecoming import Way, homeward, require_home
from tests.simulation.moves import ORDERS, Move, apply, faults, unhurried, urgent
from tests.simulation.pair_model import Pair
from tests.simulation.pair_time import next_instant
from tests.simulation.pair_values import BACKUP, PRIMARY
from tests.simulation.starts import new, steady

EVERY_KIND = frozenset({"crash", "power", "freeze", "partition", "reset", *ORDERS})


def can_happen(pair: Pair, move: Move) -> bool:
    if move == ("time",):
        return not urgent(pair) and next_instant(pair) is not None
    return move in [*urgent(pair), *unhurried(pair), *faults(pair, EVERY_KIND)]


def play(pair: Pair, *moves: Move) -> Pair:
    """Plays a schedule and lets the pair come to rest; raises BrokenPromiseError as soon as a promise is broken."""
    for move in moves:
        if can_happen(pair, move):
            apply(pair, move)
    while (following := homeward(pair, Way.MENDED)) is not None:
        apply(pair, following)
    require_home(pair, Way.MENDED)
    return pair


def test_a_backup_that_takes_over_while_the_primary_greets_it_is_not_taken_for_one_on_standby() -> None:
    play(
        steady(),
        ("crash", PRIMARY),
        ("reap", PRIMARY),
        ("deliver", BACKUP, 1),
        ("time",),
        ("boot", PRIMARY),
        ("connect",),
        ("timer", BACKUP),
        ("deliver", PRIMARY, 2),
    )


def test_a_primary_that_becomes_active_while_it_greets_is_known_to_be_active() -> None:
    play(new(), ("boot", PRIMARY), ("time",), ("boot", BACKUP), ("connect",), ("timer", PRIMARY))


def test_failover_ordered_on_both_nodes_at_once_moves_the_role_once() -> None:
    play(
        steady(),
        ("failover", PRIMARY),
        ("failover", BACKUP),
        ("caught up", BACKUP),
        ("deliver", PRIMARY, 1),
        ("stopped", PRIMARY),
    )


def test_a_workload_that_gives_up_twice_is_handed_over_once() -> None:
    play(
        steady(),
        ("workload gave up", PRIMARY),
        ("deliver", BACKUP, 1),
        ("deliver", BACKUP, 1),
        ("caught up", BACKUP),
        ("workload gave up", PRIMARY),
        ("deliver", PRIMARY, 1),
        ("stopped", PRIMARY),
    )


def test_a_backup_that_was_frozen_does_not_take_over_on_stale_evidence() -> None:
    play(
        steady(),
        ("freeze", PRIMARY),
        ("time",),
        ("fence", PRIMARY),
        ("wake", PRIMARY),
        ("frozen", PRIMARY),
        ("deliver", BACKUP, 1),
        ("stopped", PRIMARY),
        ("freeze", BACKUP),
        ("time",),
        ("timer", PRIMARY),
        ("wake", BACKUP),
        ("frozen", BACKUP),
        ("deliver", BACKUP, 1),
        ("timer", BACKUP),
    )


def test_a_primary_that_was_frozen_does_not_believe_a_hello_from_before() -> None:
    play(
        new(),
        ("boot", PRIMARY),
        ("boot", BACKUP),
        ("connect",),
        ("deliver", BACKUP, 1),
        ("freeze", PRIMARY),
        ("time",),
        ("silence", BACKUP, 1),
        ("wake", PRIMARY),
        ("frozen", PRIMARY),
        ("deliver", PRIMARY, 1),
    )


def test_a_node_that_was_frozen_does_not_take_a_role_released_before() -> None:
    play(
        steady(),
        ("failover", BACKUP),
        ("caught up", BACKUP),
        ("deliver", PRIMARY, 1),
        ("deliver", PRIMARY, 1),
        ("freeze", BACKUP),
        ("stopped", PRIMARY),
        ("finished", PRIMARY),
        ("time",),
        ("silence", PRIMARY, 1),
        ("wake", BACKUP),
        ("deliver", BACKUP, 1),
        ("deliver", BACKUP, 1),
        ("deliver", BACKUP, 1),
        ("deliver", BACKUP, 1),
    )
