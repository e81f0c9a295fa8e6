"""The pulse: a lease lives by frames that went out, or by time under a living agent without a link."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from agent.core.lease import lease_until_ns
from agent.node import pulse as pulse_module
from agent.node.pulse import Pulse

SECOND = 1_000_000_000
TAKEOVER = 5 * SECOND


@dataclass
class FakeGround:
    peer_takeover_ns: int | None = TAKEOVER
    linked_since_ns: int | None = None
    leased: bool = True
    renewals: list[int | None] = field(default_factory=list)
    calls: int = 0

    def pulse(self) -> Pulse:
        return Pulse(self, renew=self.renewals.append, frozen=self.called)

    def called(self) -> None:
        self.calls += 1


@pytest.fixture(autouse=True)
def _boot_clock_is_trios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "boottime_ns", lambda: int(trio.current_time() * SECOND))


async def beat(ground: FakeGround, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await ground.pulse().run()


def run(ground: FakeGround, seconds: float) -> None:
    trio.run(beat, ground, seconds, clock=trio.testing.MockClock(autojump_threshold=0))


def test_frame_that_went_out_renews_the_lease_from_before_it_left() -> None:
    ground = FakeGround(linked_since_ns=0)
    ground.pulse().sent(7 * SECOND)
    assert ground.renewals == [lease_until_ns(7 * SECOND, TAKEOVER)]


def test_linked_agent_that_sends_nothing_lets_the_lease_end() -> None:
    ground = FakeGround(linked_since_ns=0)
    run(ground, 60)
    assert ground.renewals == []


def test_agent_without_a_link_renews_by_living() -> None:
    ground = FakeGround()
    run(ground, 60)
    assert len(ground.renewals) > 60
    assert all(until is not None for until in ground.renewals)


def test_stand_alone_and_standby_have_no_lease() -> None:
    for ground in (FakeGround(peer_takeover_ns=None), FakeGround(leased=False)):
        run(ground, 60)
        assert ground.renewals == []


def test_workload_does_not_start_on_a_frame_of_the_link_before() -> None:
    async def begin() -> None:
        await trio.sleep(100)
        ground = FakeGround(linked_since_ns=99 * SECOND)
        pulse = ground.pulse()
        pulse.sent(50 * SECOND)
        pulse.begin()
        assert ground.renewals[-1] == lease_until_ns(99 * SECOND, TAKEOVER)

    trio.run(begin, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("linked_since_ns", [None, 0])
def test_p1_freeze_longer_than_the_lease_is_told_once_and_does_not_renew_it(linked_since_ns: int | None) -> None:
    async def freeze(clock: trio.testing.MockClock, ground: FakeGround) -> None:
        pulse = ground.pulse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulse.run)
            await trio.sleep(1)
            pulse.sent(SECOND)
            ground.renewals.clear()
            clock.jump(60)
            await trio.testing.wait_all_tasks_blocked()
            assert ground.calls == 1
            assert ground.renewals == []
            gap_ns = pulse.take_gap_ns()
            assert gap_ns is not None
            assert gap_ns >= 60 * SECOND
            assert pulse.take_gap_ns() is None
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(freeze, clock, FakeGround(linked_since_ns=linked_since_ns), clock=clock)


def test_p1_gap_is_seen_before_anything_heard_is_believed_even_if_a_frame_goes_out_first() -> None:
    async def wake(clock: trio.testing.MockClock) -> None:
        ground = FakeGround(linked_since_ns=0)
        pulse = ground.pulse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulse.run)
            await trio.testing.wait_all_tasks_blocked()
            pulse.sent(SECOND)
            clock.jump(60)
            pulse.sent(60 * SECOND)
            assert pulse.take_gap_ns() is not None
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock()
    trio.run(wake, clock, clock=clock)


def test_linked_taker_counts_from_its_last_frame_not_from_its_last_beat() -> None:
    async def wait(clock: trio.testing.MockClock) -> None:
        ground = FakeGround(linked_since_ns=0, leased=False)
        pulse = ground.pulse()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulse.run)
            await trio.sleep(2)
            pulse.sent(2 * SECOND)
            await trio.sleep(4)
            assert pulse.take_gap_ns() is None
            await trio.sleep(1)
            assert pulse.take_gap_ns() is not None
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(wait, clock, clock=clock)
