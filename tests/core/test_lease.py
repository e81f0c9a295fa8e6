"""A workload dies before the other node takes over, whatever happens to its agent and to the network (section 8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.lease import FENCE_MARGIN_MIN_NS, fence_margin_ns, lease_until_ns, send_interval_ns

MS = 1_000_000
SECOND = 1000 * MS
takeover_times = st.one_of(st.integers(50, 600_000).map(lambda ms: ms * MS), st.integers(1, 10**12))
configured_takeover_times = st.integers(50, 600_000).map(lambda ms: ms * MS)
instants = st.integers(0, 2**62)


@given(instants, takeover_times)
def test_lease_and_margin_together_are_the_other_nodes_patience(sign_ns: int, takeover_ns: int) -> None:
    assert lease_until_ns(sign_ns, takeover_ns) + fence_margin_ns(takeover_ns) == sign_ns + takeover_ns
    assert sign_ns < lease_until_ns(sign_ns, takeover_ns)


@given(configured_takeover_times)
def test_the_margin_is_enough_to_kill_and_leaves_most_of_the_time_to_the_workload(takeover_ns: int) -> None:
    assert FENCE_MARGIN_MIN_NS <= fence_margin_ns(takeover_ns) <= takeover_ns // 6
    assert fence_margin_ns(5 * SECOND) == 5 * SECOND // 6


@given(takeover_times, st.integers(1, 10**12))
def test_a_lease_is_renewed_twice_before_it_ends(takeover_ns: int, interval_ns: int) -> None:
    send_ns = send_interval_ns(interval_ns, takeover_ns)
    assert send_ns <= interval_ns
    assert lease_until_ns(0, takeover_ns) >= 2 * send_ns


@given(configured_takeover_times, configured_takeover_times)
def test_heartbeats_never_become_a_busy_loop(takeover_ns: int, interval_ns: int) -> None:
    assert send_interval_ns(interval_ns, takeover_ns) >= 20 * MS


def test_a_timeout_barely_above_the_interval_is_served_by_faster_heartbeats() -> None:
    for interval_ms, takeover_ms in ((29_000, 30_000), (49, 50), (999, 1000), (1, 2)):
        assert 2 * send_interval_ns(interval_ms * MS, takeover_ms * MS) < takeover_ms * MS


@given(
    configured_takeover_times,
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50)), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_two_workloads_never_overlap_while_the_agent_can_be_stopped_at_any_instant(
    takeover_ns: int, frames: list[tuple[float, float]], margin_used: float, seen_before: float
) -> None:
    """Frames leave at any pace and arrive after any time, the agent then hangs; the kill uses up to the margin."""
    sent_ns, received_ns = 0, 0
    for pace, delay in frames:
        sent_ns += int(pace * takeover_ns)
        received_ns = max(received_ns, sent_ns + int(delay * takeover_ns))
    sign_ns = max(0, sent_ns - int(seen_before * takeover_ns))  # read before the frame went to the network
    workload_dead_ns = lease_until_ns(sign_ns, takeover_ns) + int(margin_used * fence_margin_ns(takeover_ns))
    assert workload_dead_ns <= received_ns + takeover_ns
