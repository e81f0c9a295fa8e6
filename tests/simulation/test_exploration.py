"""Every state that faults can lead two nodes into, within bounds, keeps the promises and leads home."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from agent.core import effects as do
from agent.core import role_ground
from agent.core.handover import Handover
from agent.core.messages import Release, Request
from agent.core.record import Record
from agent.core.vocabulary import TimeoutPolicy
from tests.simulation import starts
from tests.simulation.exploration import Bounds, Exploration
from tests.simulation.moves import ORDERS
from tests.simulation.pair_model import Pair
from tests.simulation.pair_values import BACKUP, PRIMARY, BrokenPromiseError

FAULTS = frozenset({"crash", "power", "freeze", "partition", "reset"})
EVERYTHING = FAULTS | set(ORDERS)

RUNNING = [starts.steady, starts.held, starts.maintained, starts.held_and_maintained, starts.failed]
BEGINNING = [
    starts.new,
    starts.primary_dead,
    starts.both_down,
    starts.both_down_primary_outdated,
    partial(starts.both_down, TimeoutPolicy.WAIT),
    partial(starts.both_down_primary_outdated, TimeoutPolicy.WAIT_IF_OUTDATED),
    partial(starts.record_lost, PRIMARY),
    partial(starts.record_lost, BACKUP),
    starts.same_lane,
]


def name_of(start: Callable[[], Pair]) -> str:
    if isinstance(start, partial):
        return f"{start.func.__name__}({start.args[0]})"
    return start.__name__


@pytest.mark.parametrize("start", [*RUNNING, *BEGINNING], ids=name_of)
def test_without_a_fault_every_order_of_events_makes_one_node_active(start: Callable[[], Pair]) -> None:
    Exploration(start, Bounds(0, frozenset())).run()


@pytest.mark.parametrize("start", RUNNING, ids=name_of)
def test_any_fault_or_order_in_a_running_pair_leaves_one_node_active(start: Callable[[], Pair]) -> None:
    figures = Exploration(start, Bounds(1, EVERYTHING, crash_within=True)).run()
    assert figures.states > 300


@pytest.mark.long
@pytest.mark.parametrize("start", BEGINNING, ids=name_of)
def test_any_fault_or_order_while_nodes_boot_leaves_one_node_active(start: Callable[[], Pair]) -> None:
    figures = Exploration(start, Bounds(1, EVERYTHING, crash_within=True)).run()
    assert figures.states > 3_000


@pytest.mark.long
def test_any_two_faults_or_orders_in_a_running_pair_leave_one_node_active() -> None:
    figures = Exploration(starts.steady, Bounds(2, EVERYTHING, crash_within=True)).run()
    assert figures.states > 30_000


def test_the_exploration_sees_a_release_that_comes_before_the_workload_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def release_at_once(self: Handover, request: Request, now_ns: int) -> None:
        self._effects.append(do.Tell(Release(self.record.term, request.hold, request.reason)))

    monkeypatch.setattr(Handover, "_requested", release_at_once)
    with pytest.raises(BrokenPromiseError, match="two workloads run at once"):
        Exploration(starts.steady, Bounds(1, frozenset({"failover"}))).run()


def test_the_exploration_sees_a_term_that_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(record: Record) -> int:
        return record.active_term + 1

    monkeypatch.setattr(role_ground, "next_term", careless)
    with pytest.raises(BrokenPromiseError, match="term"):
        Exploration(starts.steady, Bounds(1, frozenset({"crash"}))).run()


def test_the_exploration_sees_a_node_that_is_left_without_an_active_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handover, "_final_changes_sent", lambda self, fact, now_ns: None)
    with pytest.raises(BrokenPromiseError, match=r"not one active|not home"):
        Exploration(starts.steady, Bounds(1, frozenset({"failover"}))).run()
