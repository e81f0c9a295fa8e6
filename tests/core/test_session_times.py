"""A session beats in time, and what it says of silence is never said on stale evidence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.frames import encode_frame
from agent.core.messages import (
    Authenticate,
    Goodbye,
    Heartbeat,
    ReportChanged,
)
from agent.core.session import (
    GREETING_NS,
    Credentials,
    EndCause,
    Ended,
    Opened,
    PeerReported,
    ProbeReturned,
    Session,
    State,
)
from tests.core.samples import ACTIVE, BACKUP, MESSAGES, PRIMARY
from tests.core.two_sessions import (
    EXPORTER,
    MS,
    SECOND,
    WALL_MS,
    TwoSessions,
    a_session,
    an_open_session,
    framed,
    messages_in,
    silent,
    with_times,
)

# -- heartbeats


@pytest.mark.parametrize(
    ("interval_ms", "takeover_ms"),
    [(1000, 5000), (1000, 1001), (4999, 5000), (29_000, 30_000), (49, 50), (60_000, 600_000)],
)
def test_every_configuration_that_is_admitted_keeps_the_link(interval_ms: int, takeover_ms: int) -> None:
    """However little the timeout exceeds the interval: frames leave fast enough for the peer's patience."""
    latency_ns = min(takeover_ms * MS * 9 // 10, GREETING_NS // 3)
    pair = TwoSessions(
        with_times(PRIMARY, interval_ms, takeover_ms),
        with_times(BACKUP, interval_ms, takeover_ms),
        latency_ns=latency_ns,
    )
    pair.run_for(20 * takeover_ms * MS)
    assert [[type(event) for event in end.events] for end in pair.ends] == [[Opened]] * 2


def beats(pair: TwoSessions) -> list[int]:
    return [at for at, message in pair.primary.sent if isinstance(message, Heartbeat)]


def gaps(times: list[int]) -> set[int]:
    return {later - earlier for earlier, later in pairwise(times)}


def test_a_heartbeat_leaves_at_once_and_then_every_interval() -> None:
    pair = TwoSessions().open()
    assert beats(pair) == [SECOND]
    pair.run_for(60 * SECOND)
    assert gaps(beats(pair)) == {SECOND}
    assert len(beats(pair)) == 61


def test_heartbeats_leave_faster_when_the_other_node_would_take_over_soon() -> None:
    pair = TwoSessions(backup=replace(BACKUP, interval_ms=100, takeover_ms=1200)).open()
    pair.run_for(10 * SECOND)
    assert gaps(beats(pair)) == {500 * MS}


def test_heartbeats_leave_often_enough_to_notice_an_own_stall() -> None:
    pair = TwoSessions(replace(PRIMARY, timeout_ms=1500, takeover_ms=1500)).open()
    pair.run_for(10 * SECOND)
    assert gaps(beats(pair)) == {500 * MS}


def test_after_a_stall_heartbeats_do_not_come_in_a_burst() -> None:
    pair = TwoSessions().open()
    pair.run_for(2 * SECOND)
    before = len(beats(pair))
    pair.primary.stalled_until_ns = pair.now_ns + 3500 * MS
    pair.run_for(3500 * MS)
    assert len(beats(pair)) == before + 1
    pair.run_for(10 * SECOND)
    assert gaps(beats(pair)[before:]) == {SECOND}


def test_a_timer_that_comes_early_does_nothing() -> None:
    session = an_open_session()
    deadline_ns = session.next_deadline()
    assert deadline_ns is not None
    assert session.handle_timer(deadline_ns - 1, WALL_MS) == []
    assert (session.data_to_send(), session.next_deadline()) == (b"", deadline_ns)


def test_a_change_of_the_report_is_told_at_once_and_only_once() -> None:
    pair = TwoSessions().open()
    pair.primary.session.publish(ACTIVE)
    pair.flush()
    assert pair.primary.sent[-1] == (pair.now_ns, ReportChanged(ACTIVE))
    pair.primary.session.publish(ACTIVE)
    assert pair.primary.session.data_to_send() == b""
    pair.run_for(5 * SECOND)
    assert pair.backup.of(PeerReported) == [PeerReported(ACTIVE)]
    assert pair.backup.session.peer_report == ACTIVE


@pytest.mark.parametrize("greeted", [False, True])
def test_a_change_of_the_report_during_the_greeting_is_not_lost(greeted: bool) -> None:
    session = a_session()
    if greeted:
        session.receive_data(framed(Authenticate(1, 1, b"")), 0)
    session.publish(ACTIVE)
    session.receive_data(b"" if greeted else framed(Authenticate(1, 1, b"")), 0)
    session.receive_data(framed(PRIMARY), 0)
    assert messages_in(session.data_to_send())[-1] in (ReportChanged(ACTIVE), Heartbeat(0, 0, 0, WALL_MS, ACTIVE))


# -- silence


def test_silence_is_noticed_exactly_at_the_deadline() -> None:
    session = an_open_session()
    assert silent(session, 5 * SECOND - 1) == (5 * SECOND - 1, None)
    assert silent(session, 9 * SECOND) == (5 * SECOND, Ended(EndCause.SILENCE, "silence", "no frame for 5000 ms"))


def test_any_valid_frame_is_a_sign_of_life_and_an_incomplete_one_is_not() -> None:
    session = an_open_session()
    session.receive_data(encode_frame(b"\x92\x63\x80"), 3 * SECOND)
    session.receive_data(framed(Goodbye("x"))[:-1], 4 * SECOND)
    assert silent(session, 9 * SECOND)[0] == 8 * SECOND


def test_the_shorter_of_timeout_and_takeover_time_counts() -> None:
    for hello in (replace(BACKUP, timeout_ms=3000), replace(BACKUP, takeover_ms=3000)):
        session = Session(hello, Credentials(b"", EXPORTER, True), 0)
        session.receive_data(framed(Authenticate(1, 1, b"")) + framed(PRIMARY), 0)
        assert silent(session, 9 * SECOND)[0] == 3 * SECOND


BEAT_AND_PATIENCE_MS = st.sampled_from([(1000, 5000), (900, 1000), (490, 500), (4900, 5000), (900, 20_000)])


@settings(max_examples=150, deadline=None)
@given(BEAT_AND_PATIENCE_MS, BEAT_AND_PATIENCE_MS, st.floats(0, 2), st.floats(0, 2), st.floats(0, 0.3))
def test_a_node_that_stalled_condemns_nobody_on_stale_evidence_p3(
    own: tuple[int, int], other: tuple[int, int], begins: float, lasts: float, latency: float
) -> None:
    """The timer comes before the bytes that arrived meanwhile, and still the living peer is not declared dead."""
    (interval, takeover), (other_interval, other_takeover) = own, other
    if takeover <= other_interval or other_takeover <= interval:
        return
    primary = with_times(PRIMARY, interval, takeover)
    backup = with_times(BACKUP, other_interval, other_takeover)
    latency_ns = min(int(latency * min(takeover, other_takeover) * MS), GREETING_NS // 3)
    pair = TwoSessions(primary, backup, latency_ns=latency_ns).open()
    patience_ns = takeover * MS
    pair.run_for(int(begins * patience_ns))
    pair.primary.stalled_until_ns = pair.now_ns + int(lasts * patience_ns)
    pair.run_for(int(lasts * patience_ns) + patience_ns // 3)
    assert [each for each in pair.primary.of(Ended) if isinstance(each, Ended) and each.code == "silence"] == [
        each for each in pair.primary.of(Ended) if isinstance(each, Ended) and each.cause is EndCause.REFUSED_BY_PEER
    ], "only the other node, which heard nothing for so long, may end it"


def test_a_stall_of_3_seconds_that_ends_just_behind_the_deadline_condemns_nobody_p3() -> None:
    """The timer of the silence is hardly late then; that of the own heartbeat shows that this node had stalled."""
    pair = TwoSessions(backup=replace(BACKUP, takeover_ms=3500)).open()
    pair.run_for(2600 * MS)
    pair.backup.stalled_until_ns = pair.now_ns + 3000 * MS
    pair.run_for(3000 * MS)
    assert pair.backup.of(Ended) == []


def test_a_late_timer_grants_one_grace_and_no_second_p3() -> None:
    session = an_open_session()
    assert session.handle_timer(8 * SECOND, WALL_MS) == []
    deadline_ns = session.next_deadline()
    assert deadline_ns is not None
    grace_ns = 5 * SECOND // 4
    assert silent(session, 30 * SECOND)[0] == 8 * SECOND + grace_ns
    session = an_open_session()
    assert session.handle_timer(8 * SECOND, WALL_MS) == []
    [ended] = session.handle_timer(80 * SECOND, WALL_MS)
    assert isinstance(ended, Ended)


def test_a_frame_that_arrives_in_the_grace_saves_the_peer_and_earns_another_p3() -> None:
    session = an_open_session()
    assert session.handle_timer(8 * SECOND, WALL_MS) == []
    assert session.receive_data(framed(Heartbeat(1, 0, 0, 1, PRIMARY.report)), 8 * SECOND) == []
    assert session.handle_timer(20 * SECOND, WALL_MS) == []
    assert session.state is State.OPEN


def test_a_peer_that_does_not_answer_is_noticed_though_its_connection_stays_open_n10() -> None:
    pair = TwoSessions().open()
    pair.primary.cut = True
    pair.run_for(5 * SECOND)
    assert (pair.backup.ended.cause, pair.now_ns) == (EndCause.SILENCE, 6 * SECOND)


# -- measuring


def test_round_trip_time_leaves_out_how_long_the_peer_held_the_echo() -> None:
    pair = TwoSessions(latency_ns=30 * MS).open()
    pair.run_for(10 * SECOND)
    assert [end.session.round_trip_ns for end in pair.ends] == [60 * MS] * 2
    assert pair.primary.session.heartbeats_received >= 10


def test_one_slow_heartbeat_moves_the_round_trip_time_little() -> None:
    pair = TwoSessions(latency_ns=10 * MS).open()
    pair.run_for(10 * SECOND)
    pair.latency_ns = 90 * MS
    pair.run_for(1200 * MS)
    smoothed_ns = pair.primary.session.round_trip_ns
    assert smoothed_ns is not None
    assert 20 * MS < smoothed_ns <= 50 * MS


@pytest.mark.parametrize("interval_ms", [1000, 20_000])
@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, -3_600_000])
def test_the_difference_of_the_wall_clocks_is_known_and_decides_nothing_p2(ahead_ms: int, interval_ms: int) -> None:
    primary = replace(with_times(PRIMARY, interval_ms, 60_000), wall_clock_ms=WALL_MS + 1000)
    backup = replace(with_times(BACKUP, interval_ms, 60_000), wall_clock_ms=WALL_MS + 1000 + ahead_ms)
    pair = TwoSessions(primary, backup, latency_ns=20 * MS)
    pair.backup.wall_offset_ms = ahead_ms
    for _ in range(50):
        pair.run_for(997 * MS)
        for end, expected_ms in zip(pair.ends, (ahead_ms, -ahead_ms), strict=True):
            assert abs(end.session.clock_difference_ms - expected_ms) <= 21
    assert [len(end.events) for end in pair.ends] == [1, 1]


def test_a_wall_clock_that_jumps_ends_nothing_p2() -> None:
    pair = TwoSessions().open()
    for jump_ms in (3_600_000, -3_600_000):
        pair.backup.wall_offset_ms = jump_ms
        pair.run_for(10 * SECOND)
    assert [len(end.events) for end in pair.ends] == [1, 1]


def test_a_probe_comes_back_at_once() -> None:
    pair = TwoSessions(latency_ns=7 * MS).open()
    pair.backup.session.probe(pair.now_ns)
    pair.flush()
    pair.run_for(100 * MS)
    assert pair.backup.of(ProbeReturned) == [ProbeReturned(14 * MS)]


def test_an_echo_that_nobody_asked_for_harms_nothing() -> None:
    session = an_open_session()
    [event] = session.receive_data(framed(MESSAGES[-1]), 1)
    assert event == ProbeReturned(0)
    nonsense = Heartbeat(
        sent_ns=2**63 - 1, echo_ns=2**63 - 1, held_ns=2**63 - 1, wall_clock_ms=0, report=PRIMARY.report
    )
    assert session.receive_data(framed(nonsense), 1) == []
    assert session.round_trip_ns is None
