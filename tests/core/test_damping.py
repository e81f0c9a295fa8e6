"""However a network or a node flaps, role changes that nobody asked for stay few (N5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.damping import DELAY_FIRST_NS, DELAY_MAX_NS, FREE_ACTIVATIONS, REMEMBERED_MAX, WINDOW_NS, Damper

SECOND = 1_000_000_000
PER_WINDOW_MAX = FREE_ACTIVATIONS + 6


def obedient(asks_ns: list[int]) -> list[int]:
    """Returns when a node activates that would like to at every instant of `asks_ns` and heeds the damper."""
    damper = Damper()
    activations = []
    for now_ns in asks_ns:
        if damper.wait_ns(now_ns) == 0:
            damper.note_unplanned_activation(now_ns)
            activations.append(now_ns)
    return activations


def most_in_a_window(times_ns: list[int]) -> int:
    return max((sum(first <= each < first + WINDOW_NS for each in times_ns) for first in times_ns), default=0)


def test_a_link_that_flaps_every_2_seconds_changes_roles_a_few_times_n5() -> None:
    activations = obedient(list(range(0, 4 * WINDOW_NS, 2 * SECOND)))
    assert activations[:FREE_ACTIVATIONS] == [n * 2 * SECOND for n in range(FREE_ACTIVATIONS)]
    assert most_in_a_window(activations) <= PER_WINDOW_MAX


@given(st.lists(st.integers(0, 100 * SECOND), max_size=300))
def test_no_rhythm_of_faults_gets_past_the_bound_n5(pauses: list[int]) -> None:
    now_ns, asks = 0, []
    for pause in pauses:
        now_ns += pause
        asks.append(now_ns)
    assert most_in_a_window(obedient(asks)) <= PER_WINDOW_MAX


def test_each_further_change_waits_longer_up_to_a_limit() -> None:
    damper = Damper()
    waits = []
    for _ in range(10):
        waits.append(damper.wait_ns(0))
        damper.note_unplanned_activation(0)
    assert waits[:FREE_ACTIVATIONS] == [0] * FREE_ACTIVATIONS
    expected = [min(DELAY_FIRST_NS << n, DELAY_MAX_NS) for n in range(10 - FREE_ACTIVATIONS)]
    assert waits[FREE_ACTIVATIONS:] == expected


def test_the_wait_runs_down_and_a_quiet_window_forgets() -> None:
    damper = Damper()
    for _ in range(FREE_ACTIVATIONS):
        damper.note_unplanned_activation(0)
    assert damper.wait_ns(5 * SECOND) == DELAY_FIRST_NS - 5 * SECOND
    assert damper.wait_ns(DELAY_FIRST_NS) == 0
    assert damper.recent(WINDOW_NS - 1) == FREE_ACTIVATIONS
    assert damper.recent(WINDOW_NS) == 0


def test_a_damper_that_is_not_heeded_stays_small_and_never_waits_longer_than_its_limit() -> None:
    damper = Damper()
    for now_ns in range(1000):
        damper.note_unplanned_activation(now_ns)
    assert damper.recent(1000) == REMEMBERED_MAX
    assert damper.wait_ns(999) == DELAY_MAX_NS
