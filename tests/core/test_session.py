"""A session admits only the peer, in the right order; what it says of silence is never said on stale evidence."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.compatibility import CloseCode
from agent.core.frames import encode_frame
from agent.core.messages import (
    Authenticate,
    Close,
    Goodbye,
    Heartbeat,
    Hello,
    Invite,
    Message,
    Probe,
    Refusal,
    Release,
    ReportChanged,
    Request,
    encode,
)
from agent.core.session import (
    GREETING_NS,
    OUTGOING_BYTES_MAX,
    Asked,
    Credentials,
    EndCause,
    Ended,
    Opened,
    PeerReported,
    ProbeReturned,
    Session,
    State,
)
from agent.core.vocabulary import Role
from tests.core.samples import BACKUP, MESSAGES, PRIMARY, REPORT, any_message
from tests.core.two_sessions import EXPORTER, MS, SECOND, WALL_MS, TwoSessions, messages_in

KEY = b"a strong pre-shared key"
ACTIVE = replace(REPORT, role=Role.ACTIVE, term=3, active_term=3)


def framed(message: Message) -> bytes:
    return encode_frame(encode(message))


def a_session(*, key: bytes = b"", exporter: bytes = EXPORTER, dialled: bool = True) -> Session:
    return Session(BACKUP if dialled else PRIMARY, Credentials(key, exporter, dialled), 0)


def an_open_session() -> Session:
    """Returns a backup's session that is open at time 0, with nothing left to send."""
    session = a_session()
    [opened] = session.receive_data(framed(Authenticate(1, 1, b"")) + framed(PRIMARY), 0)
    assert isinstance(opened, Opened)
    session.data_to_send()
    return session


# -- greeting


@given(st.integers(0, 2**32))
def test_two_nodes_open_however_their_bytes_are_chunked_n11(seed: int) -> None:
    pair = TwoSessions(keys=(KEY, KEY), chance=random.Random(seed)).open()
    assert [end.session.state for end in pair.ends] == [State.OPEN] * 2
    assert pair.primary.session.peer == replace(BACKUP, wall_clock_ms=pair.primary.session.peer.wall_clock_ms)  # type: ignore[union-attr]  # open
    assert [len(end.events) for end in pair.ends] == [1, 1]


@pytest.mark.parametrize(
    ("own", "peer"), [(b"", b""), (b"i" * 16, b""), (b"", b"i" * 16), (b"i" * 16, b"i" * 16)]
)
def test_both_nodes_agree_on_the_identity_of_their_pair(own: bytes, peer: bytes) -> None:
    pair = TwoSessions(replace(PRIMARY, pair_id=own), replace(BACKUP, pair_id=peer)).open()
    ids = {event.pair_id for end in pair.ends for event in end.events if isinstance(event, Opened)}
    assert len(ids) == 1
    [made] = ids
    assert len(made) == 16
    assert made == (own or peer or made)


def test_a_new_pair_is_another_pair_if_either_node_is_another() -> None:
    def made(primary_nonce: bytes, backup_nonce: bytes) -> bytes:
        pair = TwoSessions(
            replace(PRIMARY, pair_nonce=primary_nonce * 16), replace(BACKUP, pair_nonce=backup_nonce * 16)
        ).open()
        [opened] = pair.primary.events
        assert isinstance(opened, Opened)
        return opened.pair_id

    assert len({made(b"1", b"2"), made(b"1", b"3"), made(b"4", b"2"), made(b"2", b"1")}) == 4


@pytest.mark.parametrize("chance", [None, random.Random(1)], ids=["whole", "chunked"])
@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ((KEY, KEY + b"x"), "the pre-shared keys differ"),
        ((KEY, b""), "one node has"),
        ((b"", KEY), "one node has"),
    ],
)
def test_different_pre_shared_keys_are_refused_on_both_sides(
    keys: tuple[bytes, bytes], sentence: str, chance: random.Random | None
) -> None:
    pair = TwoSessions(keys=keys, chance=chance)
    pair.run_for(SECOND)
    for end in pair.ends:
        assert end.ended.code == CloseCode.PRE_SHARED_KEY
        assert sentence in end.ended.sentence
        assert "[security]" in end.ended.sentence
        assert not end.of(Opened)
        assert [type(message) for _, message in end.sent] == [Authenticate, Close], "no hello for a stranger"


def test_the_node_that_did_not_see_it_itself_is_told_why() -> None:
    session = a_session(key=KEY)
    [ended] = session.receive_data(framed(Close("pre-shared-key", "the pre-shared keys differ")), 0)
    assert ended == Ended(
        EndCause.REFUSED_BY_PEER,
        "pre-shared-key",
        "the other node ended the connection: the pre-shared keys differ",
    )


@pytest.mark.parametrize("dialled", [True, False])
def test_an_own_proof_reflected_is_refused(dialled: bool) -> None:
    session = a_session(key=KEY, dialled=dialled)
    [ended] = session.receive_data(session.data_to_send(), 0)
    assert isinstance(ended, Ended)
    assert ended.code == CloseCode.PRE_SHARED_KEY


def test_own_messages_reflected_are_refused_without_a_pre_shared_key_too() -> None:
    session = a_session()
    assert session.receive_data(session.data_to_send(), 0) == []
    [ended] = session.receive_data(session.data_to_send(), 0)
    assert isinstance(ended, Ended)
    assert ended.code == CloseCode.MODE


def test_a_proof_is_worth_nothing_on_another_connection() -> None:
    overheard = a_session(key=KEY, dialled=False).data_to_send()
    same = a_session(key=KEY)
    assert same.receive_data(overheard, 0) == []
    assert same.state is State.GREETING
    [ended] = a_session(key=KEY, exporter=bytes(32)).receive_data(overheard, 0)
    assert isinstance(ended, Ended)
    assert ended.code == CloseCode.PRE_SHARED_KEY


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_nothing_but_authenticate_is_understood_before_the_proof(message: Message) -> None:
    session = a_session(key=KEY)
    [ended] = session.receive_data(framed(message), 0)
    assert isinstance(ended, Ended)
    assert session.state is State.CLOSED
    assert session.peer is None
    said = [type(each) for each in messages_in(session.data_to_send())]
    if isinstance(message, Close):
        assert (ended.cause, said) == (EndCause.REFUSED_BY_PEER, [Authenticate])
    elif isinstance(message, Authenticate):
        assert (ended.cause, said) == (EndCause.REFUSED_HERE, [Authenticate, Close])
    else:
        assert (ended.cause, said) == (EndCause.FAULT, [Authenticate, Close])
        assert ended.sentence == f"the other node sent {type(message).__name__} before it authenticated"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
def test_nothing_but_hello_is_understood_before_the_link_is_open(message: Message) -> None:
    session = a_session()
    assert session.receive_data(framed(Authenticate(1, 1, b"")), 0) == []
    [event] = session.receive_data(framed(message), 0)
    if isinstance(message, Hello):
        assert isinstance(event, Opened)
    else:
        assert isinstance(event, Ended)
        assert event.cause is (EndCause.REFUSED_BY_PEER if isinstance(message, Close) else EndCause.FAULT)


@pytest.mark.parametrize("message", [Authenticate(1, 1, b""), PRIMARY], ids=["Authenticate", "Hello"])
def test_nobody_greets_twice(message: Message) -> None:
    [ended] = an_open_session().receive_data(framed(message), 0)
    assert isinstance(ended, Ended)
    assert ended.sentence == f"the other node sent {type(message).__name__} twice"


def test_who_does_not_greet_in_time_is_closed() -> None:
    pair = TwoSessions()
    pair.backup.cut = True
    pair.primary.incoming.clear()
    pair.run_for(GREETING_NS - 1)
    assert pair.primary.events == []
    pair.run_for(1)
    assert pair.primary.ended.sentence == "the other node did not say hello in time"


def test_unknown_frames_do_not_stretch_the_time_for_greeting_s6() -> None:
    session = a_session()
    for now_ns in range(0, GREETING_NS, SECOND):
        assert session.receive_data(encode_frame(b"\x92\x63\x80"), now_ns) == []
    assert session.next_deadline() == GREETING_NS
    [ended] = session.handle_timer(GREETING_NS, WALL_MS)
    assert isinstance(ended, Ended)


# -- refusals: both sides, both values


def refused(primary: Hello, backup: Hello, code: CloseCode, *values: str) -> None:
    for seed in range(10):
        pair = TwoSessions(primary, backup, chance=random.Random(seed))
        pair.run_for(SECOND)
        for end in pair.ends:
            assert end.ended.code == code
            for value in values:
                assert value in end.ended.sentence
            assert not end.of(Opened)


def test_two_primaries_are_refused_on_both_sides() -> None:
    refused(PRIMARY, replace(BACKUP, mode=PRIMARY.mode), CloseCode.MODE, "line-4-a", "line-4-b", 'mode = "primary"')


def test_two_backups_are_refused_on_both_sides() -> None:
    refused(replace(PRIMARY, mode=BACKUP.mode), BACKUP, CloseCode.MODE, "line-4-a", "line-4-b", 'mode = "backup"')


def test_nodes_of_two_pairs_are_refused_on_both_sides_d6() -> None:
    refused(
        replace(PRIMARY, pair_id=b"\xaa" * 16), replace(BACKUP, pair_id=b"\xbb" * 16),
        CloseCode.WRONG_PAIR, "line-4-a", "aaaaaaaa", "line-4-b", "bbbbbbbb",
    )  # fmt: skip


def test_timers_that_contradict_each_other_are_refused_on_both_sides() -> None:
    refused(replace(PRIMARY, interval_ms=5000), BACKUP, CloseCode.TIMERS, "'line-4-b' waits 5000 ms", "every 5000 ms")
    refused(PRIMARY, replace(BACKUP, interval_ms=6000), CloseCode.TIMERS, "'line-4-a' waits 5000 ms", "every 6000 ms")
    refused(PRIMARY, replace(BACKUP, takeover_ms=999), CloseCode.TIMERS, "'line-4-b' waits 999 ms", "every 1000 ms")


@pytest.mark.parametrize(("offered", "there"), [((2, 3), "2 to 3"), ((0, 0), "0 to 0")])
def test_versions_without_a_common_one_are_refused_naming_both_ranges_s6(offered: tuple[int, int], there: str) -> None:
    session = a_session()
    session.data_to_send()
    [ended] = session.receive_data(framed(Authenticate(*offered, b"")), 0)
    assert isinstance(ended, Ended)
    assert ended.code == CloseCode.VERSION
    assert f"here 1 to 1, there {there}" in ended.sentence
    assert messages_in(session.data_to_send()) == [Close("version", ended.sentence)]


def test_a_newer_node_that_still_speaks_this_version_is_welcome_s6() -> None:
    assert a_session().receive_data(framed(Authenticate(1, 9, b"")), 0) == []


# -- heartbeats


@pytest.mark.parametrize(
    ("interval_ms", "takeover_ms"), [(1000, 5000), (1000, 1001), (4999, 5000), (29_000, 30_000), (49, 50), (10, 600_000)]
)
def test_every_configuration_that_is_admitted_keeps_the_link(interval_ms: int, takeover_ms: int) -> None:
    """However little the timeout exceeds the interval: frames leave fast enough for the peer's patience."""
    times = {"interval_ms": interval_ms, "timeout_ms": takeover_ms, "takeover_ms": takeover_ms}
    latency_ns = min(takeover_ms * MS * 9 // 10, GREETING_NS // 3)
    pair = TwoSessions(replace(PRIMARY, **times), replace(BACKUP, **times), latency_ns=latency_ns)
    pair.run_for(20 * takeover_ms * MS if takeover_ms < 100_000 else 3 * takeover_ms * MS)
    assert [[type(event) for event in end.events] for end in pair.ends] == [[Opened]] * 2


def beats(pair: TwoSessions) -> list[int]:
    return [at for at, message in pair.primary.sent if isinstance(message, Heartbeat)]


def gaps(times: list[int]) -> set[int]:
    return {later - earlier for earlier, later in zip(times, times[1:], strict=False)}


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


def silent(session: Session, until_ns: int) -> tuple[int, Ended | None]:
    """Calls the timer exactly when it is due; returns when that ended the session."""
    while (deadline_ns := session.next_deadline()) is not None and deadline_ns <= until_ns:
        for event in session.handle_timer(deadline_ns, WALL_MS):
            assert isinstance(event, Ended)
            return deadline_ns, event
    return until_ns, None


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
    for times in ({"timeout_ms": 3000}, {"takeover_ms": 3000}):
        session = Session(replace(BACKUP, **times), Credentials(b"", EXPORTER, True), 0)
        session.receive_data(framed(Authenticate(1, 1, b"")) + framed(PRIMARY), 0)
        assert silent(session, 9 * SECOND)[0] == 3 * SECOND


STALL_TIMES = st.tuples(st.sampled_from([(1000, 5000), (900, 1000), (49, 50), (4900, 5000)]), st.integers(0, 10**6))


@settings(max_examples=300)
@given(
    STALL_TIMES, STALL_TIMES, st.floats(0, 4), st.floats(0, 4), st.floats(0, 0.3), st.booleans()
)
def test_a_node_that_stalled_condemns_nobody_on_stale_evidence_p3(
    own: tuple[tuple[int, int], int], other: tuple[tuple[int, int], int],
    begins: float, lasts: float, latency: float, primary_stalls: bool,
) -> None:  # fmt: skip
    """The timer comes before the bytes that arrived meanwhile, and still the living peer is not declared dead."""
    ((interval, takeover), _), ((other_interval, other_takeover), _) = own, other
    if takeover <= other_interval or other_takeover <= interval:
        return
    primary = replace(PRIMARY, interval_ms=interval, timeout_ms=takeover, takeover_ms=takeover)
    backup = replace(BACKUP, interval_ms=other_interval, timeout_ms=other_takeover, takeover_ms=other_takeover)
    pair = TwoSessions(primary, backup, latency_ns=int(latency * min(takeover, other_takeover) * MS)).open()
    stalling, living = pair.ends if primary_stalls else pair.ends[::-1]
    patience_ns = (takeover if primary_stalls else other_takeover) * MS
    pair.run_for(int(begins * patience_ns))
    stalling.stalled_until_ns = pair.now_ns + int(lasts * patience_ns)
    pair.run_for(int(lasts * patience_ns) + patience_ns)
    assert [end for end in stalling.of(Ended) if isinstance(end, Ended) and end.cause is EndCause.SILENCE] == []
    assert living.session.last_received_ns > 0


def test_a_stall_of_3_seconds_that_ends_just_behind_the_deadline_condemns_nobody_p3() -> None:
    pair = TwoSessions().open()
    pair.run_for(2 * SECOND)
    pair.backup.stalled_until_ns = pair.now_ns + 5300 * MS
    pair.run_for(5300 * MS)
    assert pair.backup.of(Ended) == []
    assert pair.backup.session.state is State.OPEN


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
    pair.run_for(SECOND)
    smoothed_ns = pair.primary.session.round_trip_ns
    assert smoothed_ns is not None
    assert 20 * MS < smoothed_ns <= 40 * MS


@pytest.mark.parametrize("interval_ms", [1000, 20_000])
@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, -3_600_000])
def test_the_difference_of_the_wall_clocks_is_known_and_decides_nothing_p2(ahead_ms: int, interval_ms: int) -> None:
    times = {"interval_ms": interval_ms, "timeout_ms": 60_000, "takeover_ms": 60_000}
    primary = replace(PRIMARY, wall_clock_ms=WALL_MS + 1000, **times)
    backup = replace(BACKUP, wall_clock_ms=WALL_MS + 1000 + ahead_ms, **times)
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
    nonsense = Heartbeat(sent_ns=2**63 - 1, echo_ns=2**63 - 1, held_ns=2**63 - 1, wall_clock_ms=0, report=PRIMARY.report)
    assert session.receive_data(framed(nonsense), 1) == []
    assert session.round_trip_ns is None


# -- the roles' messages


@pytest.mark.parametrize("message", [each for each in MESSAGES if isinstance(each, Invite | Request | Release | Refusal)])
def test_messages_of_the_roles_arrive_as_they_were_told(message: Invite | Request | Release | Refusal) -> None:
    pair = TwoSessions(chance=random.Random(5)).open()
    pair.primary.session.tell(message)
    pair.flush()
    pair.run_for(MS)
    assert pair.backup.events[1:] == [Asked(message)]


def test_duplicated_heartbeats_and_reports_say_nothing_new_n12() -> None:
    session = an_open_session()
    data = framed(Heartbeat(1, 0, 0, 1, ACTIVE)) + framed(ReportChanged(ACTIVE))
    assert session.receive_data(data * 5, 0) == [PeerReported(ACTIVE)]
    assert session.state is State.OPEN


def test_order_is_kept() -> None:
    session = an_open_session()
    data = framed(ReportChanged(ACTIVE)) + framed(Release(3, False, "x")) + framed(ReportChanged(REPORT))
    assert session.receive_data(data, 0) == [
        PeerReported(ACTIVE),
        Asked(Release(3, False, "x")),
        PeerReported(REPORT),
    ]


# -- endings


def test_goodbye_ends_both_sides() -> None:
    pair = TwoSessions().open()
    pair.primary.session.say_goodbye("its agent was stopped")
    pair.flush()
    pair.run_for(SECOND)
    assert pair.backup.ended == Ended(EndCause.GOODBYE, "goodbye", "the other node stopped: its agent was stopped")
    assert pair.primary.session.state is State.CLOSED
    assert pair.primary.session.next_deadline() is None


def test_close_carries_its_code_and_sentence() -> None:
    pair = TwoSessions().open()
    pair.primary.session.leave(CloseCode.REPLACED, "a newer connection took its place")
    pair.flush()
    pair.run_for(SECOND)
    assert (pair.backup.ended.cause, pair.backup.ended.code) == (EndCause.REFUSED_BY_PEER, "replaced")
    assert "a newer connection took its place" in pair.backup.ended.sentence


def test_after_silence_the_last_words_can_still_be_said_once() -> None:
    session = an_open_session()
    silent(session, 9 * SECOND)
    session.data_to_send()
    session.leave(CloseCode.TAKEOVER, "active now")
    session.leave(CloseCode.SILENCE, "again")
    assert messages_in(session.data_to_send()) == [Close("takeover", "active now")]


@pytest.mark.parametrize("end", ["goodbye", "leave", "stream", "fault"])
def test_after_any_other_end_nothing_is_sent(end: str) -> None:
    session = an_open_session()
    if end == "goodbye":
        session.say_goodbye("x")
    elif end == "leave":
        session.leave(CloseCode.BUSY, "x")
    elif end == "stream":
        session.receive_end("the connection was reset")
    else:
        session.receive_data(b"\0\0\0\0", 0)
    session.data_to_send()
    session.leave(CloseCode.TAKEOVER, "y")
    session.say_goodbye("y")
    session.tell(Refusal("y", 0))
    session.publish(ACTIVE)
    session.probe(1)
    assert session.handle_timer(99 * SECOND, WALL_MS) == []
    assert session.receive_data(framed(Goodbye("x")), 0) == []
    assert session.receive_end("x") == []
    assert (session.data_to_send(), session.next_deadline()) == (b"", None)


def test_an_end_without_a_word_is_told_once() -> None:
    session = an_open_session()
    assert session.receive_end("the connection was reset") == [
        Ended(EndCause.CLOSED, "closed", "the connection was reset")
    ]
    assert session.receive_end("again") == []


@pytest.mark.parametrize("chunks", ["whole", "byte by byte"])
@pytest.mark.parametrize("trailing", [b"", b"\0\0\0\0", b"\xff" * 9, framed(ReportChanged(ACTIVE)), b"\0\0\0\x01\xc1"])
@pytest.mark.parametrize("last", [Goodbye("x"), Close("busy", "x")], ids=["goodbye", "close"])
def test_whatever_follows_the_last_word_counts_no_more(last: Message, trailing: bytes, chunks: str) -> None:
    session = an_open_session()
    data = framed(Release(3, False, "x")) + framed(last) + trailing
    parts = [data] if chunks == "whole" else [data[i : i + 1] for i in range(len(data))]
    events = [event for part in parts for event in session.receive_data(part, 0)]
    assert [type(event) for event in events] == [Asked, Ended]
    assert isinstance(events[-1], Ended)
    assert events[-1].cause in (EndCause.GOODBYE, EndCause.REFUSED_BY_PEER)


def test_a_fault_is_told_to_the_peer_and_ends_the_session() -> None:
    session = an_open_session()
    events = session.receive_data(framed(ReportChanged(ACTIVE)) + b"\xff\xff\xff\xff", 0)
    assert events[0] == PeerReported(ACTIVE)
    assert isinstance(events[1], Ended)
    assert (events[1].cause, events[1].code) == (EndCause.FAULT, "protocol")
    assert messages_in(session.data_to_send()) == [Close("protocol", events[1].sentence)]
    assert "4294967295" in events[1].sentence


# -- bounds


def test_a_peer_that_asks_and_does_not_read_is_closed_in_bounded_memory_n10() -> None:
    session = an_open_session()
    probes = framed(Probe(1)) * 1000
    tracemalloc.start()
    try:
        for _ in range(200):
            events = session.receive_data(probes, 0)
            if events:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    [ended] = events
    assert ended == Ended(EndCause.FAULT, "protocol", "the other node asks but does not read the answers")
    assert session.data_to_send() == b""
    assert peak < 4 * OUTGOING_BYTES_MAX


def test_what_this_node_says_unread_is_bounded_too_n10() -> None:
    session = an_open_session()
    for number in range(20_000):
        session.tell(Refusal("x" * 400, number))
    [ended] = session.handle_timer(1, WALL_MS)
    assert isinstance(ended, Ended)


# -- garbage


chunks_of_garbage = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.binary(min_size=1, max_size=60).map(encode_frame),
        any_message.map(framed),
        st.just(framed(Authenticate(1, 1, b""))),
        st.just(framed(PRIMARY)),
    ),
    max_size=12,
)


@given(chunks_of_garbage, st.booleans(), st.randoms(use_true_random=False))
def test_nothing_that_a_peer_sends_raises_anything(chunks: list[bytes], opened: bool, chance: random.Random) -> None:
    session = an_open_session() if opened else a_session(key=chance.choice((b"", KEY)))
    now_ns, ended = 0, False
    for chunk in chunks:
        now_ns += chance.choice((0, MS, SECOND, 7 * SECOND))
        events = session.receive_data(chunk, now_ns) + session.handle_timer(now_ns, chance.randrange(2**42))
        assert not (ended and events), "no event after the end"
        assert not any(isinstance(event, Ended) for event in events[:-1])
        ended = ended or (bool(events) and isinstance(events[-1], Ended))
        assert ended == (session.state is State.CLOSED)
        messages_in(session.data_to_send())


@given(st.binary(max_size=400), st.integers(0, 3))
def test_random_bytes_end_a_session_and_nothing_else(data: bytes, state: int) -> None:
    session = an_open_session() if state == 3 else a_session()
    if state == 2:
        session.receive_data(framed(Authenticate(1, 1, b"")), 0)
    whole = session.receive_data(data, 0)
    assert all(isinstance(event, Ended) for event in whole)
