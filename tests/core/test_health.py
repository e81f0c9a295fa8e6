"""When a workload is restarted and when its node gives up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.health import BACKOFF_MAX_NS, GiveUp, HealthPolicy, Restart, spell_ns

SECOND = 1_000_000_000
SPELL = 30 * SECOND


def make_policy() -> HealthPolicy:
    policy = HealthPolicy(failures=3, spell_ns=SPELL)
    policy.started(0)
    return policy


def well(policy: HealthPolicy, since_s: int, until_s: int) -> None:
    for second in range(since_s, until_s + 1, 2):
        assert policy.probed(None, second * SECOND) == ()


def test_failures_in_a_row_restart_at_once_and_not_one_earlier() -> None:
    policy = make_policy()
    well(policy, 2, 4)
    assert policy.probed("silent", 6 * SECOND) == ()
    assert policy.probed("silent", 8 * SECOND) == ()
    assert policy.probed(None, 10 * SECOND) == ()
    assert policy.probed("silent", 12 * SECOND) == ()
    assert policy.probed("silent", 14 * SECOND) == ()
    reason = "3 health checks in a row failed: silent"
    assert policy.probed("silent", 16 * SECOND) == (Restart(0, reason),)


def test_p5_failing_again_after_the_restart_gives_up_once_and_goes_on_trying() -> None:
    policy = make_policy()
    well(policy, 2, 4)
    now_s, decisions = 4, []
    for _ in range(4):
        policy.started(now_s * SECOND)
        policy.probed(None, now_s * SECOND)
        for _ in range(3):
            now_s += 2
            decisions.append(policy.probed("silent", now_s * SECOND))
    reason = "3 health checks in a row failed: silent"
    assert [decision for decision in decisions if decision] == [
        (Restart(0, reason),),
        (GiveUp(reason), Restart(1 * SECOND, reason)),
        (Restart(2 * SECOND, reason),),
        (Restart(4 * SECOND, reason),),
    ]
    assert policy.gave_up


def test_a_healthy_spell_makes_all_as_new() -> None:
    policy = make_policy()
    well(policy, 2, 4)
    for second in (6, 8, 10):
        policy.probed("silent", second * SECOND)
    policy.started(11 * SECOND)
    well(policy, 12, 12 + 30)
    decisions = [policy.probed("silent", second * SECOND) for second in (44, 46, 48)]
    assert decisions == [(), (), (Restart(0, "3 health checks in a row failed: silent"),)]


def test_a_spell_counts_up_to_the_exit_although_no_probe_saw_its_end() -> None:
    policy = make_policy()
    policy.exited("crash", 0)
    policy.started(0)
    policy.probed(None, 2 * SECOND)
    assert policy.exited("crash", 2 * SECOND + SPELL) == (Restart(0, "crash"),)


def test_exits_in_a_row_give_up_at_the_bound() -> None:
    policy = make_policy()
    decisions = []
    for second in range(4):
        policy.started(second * SECOND)
        decisions.append(policy.exited("crash", second * SECOND))
    assert decisions == [
        (Restart(0, "crash"),),
        (Restart(1 * SECOND, "crash"),),
        (GiveUp("crash"), Restart(2 * SECOND, "crash")),
        (Restart(4 * SECOND, "crash"),),
    ]


def test_p7_a_start_that_fails_gives_up_at_once_and_once() -> None:
    policy = make_policy()
    assert policy.start_failed("not found") == (GiveUp("not found"), Restart(0, "not found"))
    assert policy.start_failed("not found") == (Restart(1 * SECOND, "not found"),)
    policy.renew()
    assert policy.start_failed("not found") == (GiveUp("not found"), Restart(0, "not found"))


def test_a_workload_that_still_starts_is_not_restarted_until_it_had_its_time() -> None:
    policy = make_policy()
    for second in range(2, 30, 2):
        assert policy.probed("refused", second * SECOND) == ()
    assert [policy.probed("refused", second * SECOND) for second in (30, 32)] == [(), ()]
    assert policy.probed("refused", 34 * SECOND) == (Restart(0, "3 health checks in a row failed: refused"),)


@pytest.mark.parametrize(("interval_ms", "failures", "expected_s"), [(2_000, 3, 30), (100, 3, 1.5)])
def test_the_spell_follows_from_the_configured_times(interval_ms: int, failures: int, expected_s: float) -> None:
    assert spell_ns(interval_ms, failures) == int(expected_s * SECOND)


@given(st.lists(st.tuples(st.sampled_from(["well", "bad", "exit", "start failed"]), st.integers(0, 40)), max_size=200))
def test_restarts_never_stop_and_giving_up_is_said_once_per_failure(steps: list[tuple[str, int]]) -> None:
    policy = make_policy()
    now_ns, said_since_spell = 0, 0
    for what, seconds in steps:
        now_ns += seconds * SECOND
        gave_up_before = policy.gave_up
        if what == "well":
            decisions = policy.probed(None, now_ns)
        elif what == "bad":
            decisions = policy.probed("bad", now_ns)
        elif what == "exit":
            decisions = policy.exited("exit", now_ns)
        else:
            decisions = policy.start_failed("start failed")
        if gave_up_before and not policy.gave_up:
            said_since_spell = 0
        if what in ("exit", "start failed"):
            assert isinstance(decisions[-1], Restart)
        for decision in decisions:
            if isinstance(decision, Restart):
                assert 0 <= decision.delay_ns <= BACKOFF_MAX_NS
                policy.started(now_ns)
            else:
                # A spell may end and the next failure begin within one call.
                said_since_spell = 1 if not gave_up_before else said_since_spell + 1
                assert said_since_spell == 1 or now_ns >= SPELL
        assert policy.gave_up or not any(isinstance(decision, GiveUp) for decision in decisions)
