"""Many seeds, each a story of faults: one workload at a time, no term twice, and one node active in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.core import effects as do
from agent.core import role_ground
from agent.core.handover import Handover
from agent.core.messages import Release, Request
from agent.core.record import Record
from agent.node import pulse as pulse_module
from tests.simulation.pair_values import BrokenPromiseError
from tests.simulation.simulated_faults import run_story
from tests.simulation.simulated_node import BACKUP, PRIMARY
from tests.simulation.simulator import SimulatedPair
from tests.simulation.timeline import SECOND

pytestmark = pytest.mark.usefixtures("simulated_edge")

BATCH = 20


def play(seeds: range) -> tuple[int, int]:
    """Plays these seeds; returns simulated seconds and activations."""
    pairs = [run_story(seed) for seed in seeds]
    return sum(pair.timeline.now_ns for pair in pairs) // SECOND, sum(pair.activations for pair in pairs)


@pytest.mark.parametrize("batch", range(15))
def test_whatever_happens_one_workload_runs_and_one_node_is_active_in_the_end(batch: int) -> None:
    _, activations = play(range(batch * BATCH, (batch + 1) * BATCH))
    assert activations >= BATCH


@pytest.mark.long
@pytest.mark.parametrize("batch", range(20))
def test_whatever_happens_for_hours(batch: int, record_property: Callable[[str, object], None]) -> None:
    seconds, activations = play(range(100_000 + batch * 250, 100_000 + (batch + 1) * 250))
    record_property("simulated_hours", round(seconds / 3600, 2))
    record_property("activations", activations)
    assert seconds > 1000


def test_a_seed_tells_the_same_story_every_time() -> None:
    assert [run_story(7).timeline.transcript() for _ in range(2)] == [run_story(7).timeline.transcript()] * 2


# -- the simulation sees what is broken


def broken_by_some(seeds: range) -> str:
    with pytest.raises(BrokenPromiseError) as caught:
        play(seeds)
    assert f"seed {caught.value.args[0].split('seed ')[1].split()[0]}" in str(caught.value)
    return str(caught.value)


def test_it_sees_a_release_before_the_workload_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def release_at_once(self: Handover, request: Request, now_ns: int) -> None:
        self._effects.append(do.Tell(Release(self.record.term, request.hold, request.reason)))

    monkeypatch.setattr(Handover, "_requested", release_at_once)
    assert "two workloads run at once" in broken_by_some(range(200))


def test_it_sees_a_term_that_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_lanes(record: Record) -> int:
        return record.term + 1

    monkeypatch.setattr(role_ground, "next_term", without_lanes)
    pair = SimulatedPair(1).settle()
    pair.network.block(frozenset({PRIMARY, BACKUP}))
    pair.timeline.run_for(20 * SECOND)
    pair.primary.lose_power()
    pair.primary.boot()
    with pytest.raises(BrokenPromiseError, match="uses term 2 again"):
        pair.timeline.run_for(20 * SECOND)


def test_it_sees_a_lease_that_lives_on_without_a_frame_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "lease_until_ns", lambda sign_ns, takeover_ns: sign_ns + 3 * takeover_ns)
    assert "two workloads run at once" in broken_by_some(range(300))


def test_it_sees_a_term_that_is_told_but_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_ground.RoleGround, "_store", lambda self, **changes: _only_remember(self, changes))
    assert "not stored" in broken_by_some(range(5))


def _only_remember(ground: role_ground.RoleGround, changes: dict[str, object]) -> None:
    ground.record = replace(ground.record, **changes)  # type: ignore[arg-type]  # names and types are those of Record
