"""With trees on both nodes: no workload on trees that are not whole, no pair stuck, and what is noted of them is so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from agent.core import inputs as told
from agent.core import role_ground
from agent.core import roles as roles_module
from agent.core.handover import Handover
from agent.core.role_ground import RoleGround
from agent.core.role_table import Phase
from agent.core.roles import Roles
from agent.core.tree_versions import TreeVersion, went_on_alone
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation import pair_trees, starts
from tests.simulation.exploration import Bounds, Exploration, transcript
from tests.simulation.homecoming import Way, homeward, require_home
from tests.simulation.moves import ORDERS, Move, apply, faults, unhurried, urgent
from tests.simulation.pair_model import Pair
from tests.simulation.pair_time import next_instant
from tests.simulation.pair_values import BACKUP, PRIMARY, BrokenPromiseError

OF_TREES = frozenset({"hindered", "catch-up fails", "final changes stuck"})
FAULTS = OF_TREES | {"crash", "power", "freeze", "partition", "reset"}
EVERYTHING = FAULTS | set(ORDERS)
HOMEWARD_MOVES_MAX = 3000

Start = Callable[[], Pair]


def with_trees(start: Callable[..., Pair], *arguments: object) -> Start:
    return partial(start, *arguments, trees=True)


RUNNING = [
    with_trees(start)
    for start in (starts.steady, starts.held, starts.maintained, starts.held_and_maintained, starts.failed)
]
BEGINNING = [
    with_trees(starts.new),
    with_trees(starts.primary_dead),
    with_trees(starts.both_down),
    with_trees(starts.both_down_primary_outdated),
    with_trees(starts.both_down_primary_outdated, TimeoutPolicy.WAIT_IF_OUTDATED),
    with_trees(starts.record_lost, PRIMARY),
    with_trees(starts.record_lost, BACKUP),
    starts.first_copy_broken,
    starts.resync_broken,
    starts.modes_swapped,
    starts.trees_added,
]

COPYING = [with_trees(starts.new), starts.first_copy_broken, starts.modes_swapped, starts.trees_added]


def name_of(start: Start) -> str:
    if isinstance(start, partial):
        return f"{start.func.__name__}{start.args or ''}"
    return start.__name__


@pytest.mark.parametrize("start", [*RUNNING, *BEGINNING], ids=name_of)
def test_without_a_fault_one_node_becomes_active_and_the_trees_come_in_step(start: Start) -> None:
    Exploration(start, Bounds(0, frozenset())).run()


def test_any_fault_or_order_in_a_running_pair_is_survived_d1_d2_d3() -> None:
    figures = Exploration(with_trees(starts.steady), Bounds(1, EVERYTHING)).run()
    assert figures.states > 3_000


@pytest.mark.long
@pytest.mark.parametrize("start", RUNNING, ids=name_of)
def test_any_fault_order_or_crash_between_two_effects_in_a_running_pair_is_survived(start: Start) -> None:
    figures = Exploration(start, Bounds(1, EVERYTHING, crash_within=True)).run()
    assert figures.states > 1_000


@pytest.mark.long
@pytest.mark.parametrize("start", COPYING, ids=name_of)
def test_any_fault_order_or_crash_while_trees_are_copied_is_survived_d1_d2_d4(start: Start) -> None:
    figures = Exploration(start, Bounds(1, EVERYTHING, crash_within=True)).run()
    assert figures.states > 10_000


@pytest.mark.long
@pytest.mark.parametrize("kind", ["failover", "power", "freeze", "reset"])
def test_any_two_faults_of_the_trees_are_survived(kind: str) -> None:
    Exploration(with_trees(starts.steady), Bounds(2, OF_TREES | {kind})).run()


# -- long histories, at random


def wander(pair: Pair, random: Random, moves: int, history: list[Move]) -> None:
    """Lets things happen in any order, a fault now and then, and adds them to `history`. Raises BrokenPromiseError."""
    for _ in range(moves):
        at_once = urgent(pair)
        happening = [*at_once, *unhurried(pair)]
        if not at_once and next_instant(pair) is not None:
            happening.append(("time",))
        striking = faults(pair, EVERYTHING)
        strikes = not happening or (bool(striking) and random.random() < 0.08)
        history.append(random.choice(striking if strikes else happening))
        apply(pair, history[-1])


def go_home(pair: Pair) -> None:
    for _ in range(HOMEWARD_MOVES_MAX):
        following = homeward(pair, Way.MENDED)
        if following is None:
            require_home(pair, Way.MENDED)
            return
        apply(pair, following)
    raise BrokenPromiseError("the pair does not come to rest")


def play(seeds: range, moves: int) -> None:
    for seed in seeds:
        random = Random(seed)
        start = random.choice([*RUNNING, *BEGINNING])
        pair, history = start(), list[Move]()
        try:
            wander(pair, random, moves, history)
            go_home(pair)
        except BrokenPromiseError as broken:
            retold = transcript(start(), history)
            raise BrokenPromiseError(f"{broken} (seed {seed}, {name_of(start)})\n{retold}") from broken


def test_after_any_history_what_is_noted_of_the_trees_is_what_happened() -> None:
    play(range(60), 150)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(10))
def test_after_any_of_many_histories_what_is_noted_of_the_trees_is_what_happened(batch: int) -> None:
    play(range(10_000 + batch * 300, 10_000 + (batch + 1) * 300), 250)


# -- no pair is stuck


@pytest.mark.parametrize("start", [with_trees(starts.both_down_primary_outdated), with_trees(starts.primary_dead)])
def test_a_primary_that_can_never_be_brought_up_to_date_does_not_keep_the_backup_down(start: Start) -> None:
    """Its disk is full: the backup, which is whole, must not wait for ever beside it."""
    pair = start()
    idle_since_s = 0
    while pair.now < 120:
        if pair.nodes[PRIMARY].catching_up and pair.nodes[PRIMARY].awake:
            apply(pair, ("catch-up fails", PRIMARY))
            continue
        move = homeward(pair, Way.MENDED)
        assert move is not None
        apply(pair, move)
        if pair.nodes[BACKUP].running is not None:
            idle_since_s = pair.now
        assert pair.now - idle_since_s < 15
    assert pair.nodes[BACKUP].running is not None
    assert pair.nodes[PRIMARY].running is None


def test_final_changes_that_can_never_be_brought_over_leave_the_workload_where_it_is() -> None:
    pair = starts.primary_dead(trees=True)
    stopped_s = 0
    for _ in range(HOMEWARD_MOVES_MAX):
        if pair.now > 1000:
            break
        stuck = pair.nodes[BACKUP].finishing is not None
        before_s = pair.now
        move: Move | None = ("final changes stuck", BACKUP) if stuck else homeward(pair, Way.MENDED)
        assert move is not None
        apply(pair, move)
        stopped_s += (pair.now - before_s) * (pair.nodes[BACKUP].running is None)
    assert pair.nodes[BACKUP].roles is not None
    assert pair.nodes[BACKUP].roles.phase is Phase.ACTIVE
    assert pair.now > 1000
    assert stopped_s < pair.now // 20


# -- the model sees what is broken


def broken_by(start: Start, kinds: set[str], count: int = 1) -> str:
    with pytest.raises(BrokenPromiseError) as caught:
        Exploration(start, Bounds(count, frozenset(kinds))).run()
    return str(caught.value)


def test_it_sees_a_workload_on_incomplete_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoleGround, "_lack_of_trees", "")
    assert "must not use" in broken_by(with_trees(starts.both_down), {"power"})
    assert "an overwrite is due" in broken_by(with_trees(starts.new), {"power"})
    assert "never gave it" in broken_by(starts.trees_added, set(), 0)


def test_it_sees_a_workload_on_hindered_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RoleGround, "obstacle", RoleGround._lack_of_trees)
    assert pair_trees.OBSTACLE in broken_by(with_trees(starts.both_down), {"hindered"})


def test_it_sees_an_answer_to_an_aborted_catch_up_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    caught_up = Handover._caught_up

    def whichever(self: Handover, number: int, now_ns: int) -> None:
        caught_up(self, self._order_number, now_ns)

    monkeypatch.setattr(Handover, "_caught_up", whichever)
    assert "not up to date" in broken_by(with_trees(starts.primary_dead), {"reset"})


def test_it_sees_that_nobody_noted_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(version: TreeVersion, term: int) -> TreeVersion:
        return TreeVersion(term, False, version.data_term)

    monkeypatch.setattr(role_ground, "written", careless)
    with pytest.raises(BrokenPromiseError, match="trees are called"):
        play(range(60), 150)


def test_it_sees_that_a_node_went_on_alone_and_did_not_note_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.core.settling.went_on_alone", lambda version: version)
    assert went_on_alone(TreeVersion(1)).alone
    assert "called same" in broken_by(with_trees(starts.steady), {"reset"})


def test_it_sees_that_the_source_noted_no_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles_module, "offered", lambda version, peer: version)
    with pytest.raises(BrokenPromiseError, match="called unrelated"):
        play(range(200), 150)


def test_it_sees_an_overwrite_that_only_the_backup_knows_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    trees_changed = Roles._trees_changed

    def at_once(self: Roles, fact: Any, now_ns: int) -> None:
        trees_changed(self, fact, now_ns)
        if isinstance(fact, told.TreesComplete):
            self._store(overwrite_due=False)

    monkeypatch.setattr(Roles, "_trees_changed", at_once)
    assert "the backup stays active without a reason" in broken_by(with_trees(starts.new), {"power"})


def test_it_sees_a_takeover_that_a_freeze_made_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_afresh = Handover._ask_afresh

    def forgetting(self: Handover, reason: str, now_ns: int) -> None:
        self._postponed = None
        ask_afresh(self, reason, now_ns)

    monkeypatch.setattr(Handover, "_ask_afresh", forgetting)
    assert "alone and not active" in broken_by(with_trees(starts.both_down), {"hindered", "freeze"}, 2)
