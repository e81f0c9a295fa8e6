"""What an open session carries, how it ends, and that nothing sent by a peer does more than end it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.compatibility import CloseCode
from agent.core.frames import encode_frame
from agent.core.messages import (
    Authenticate,
    Close,
    Goodbye,
    Heartbeat,
    Invite,
    Message,
    Probe,
    Refusal,
    Release,
    ReportChanged,
    Request,
)
from agent.core.session import (
    OUTGOING_BYTES_MAX,
    Asked,
    EndCause,
    Ended,
    PeerReported,
    State,
)
from tests.core.samples import ACTIVE, MESSAGES, PRIMARY, REPORT, any_message
from tests.core.two_sessions import (
    MS,
    SECOND,
    WALL_MS,
    TwoSessions,
    a_session,
    an_open_session,
    framed,
    messages_in,
    silent,
)

KEY = b"a strong pre-shared key"


# -- the roles' messages


@pytest.mark.parametrize(
    "message", [each for each in MESSAGES if isinstance(each, Invite | Request | Release | Refusal)]
)
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


def test_silence_is_told_to_the_peer_which_may_hear_what_it_cannot_answer() -> None:
    session = an_open_session()
    _, ended = silent(session, 9 * SECOND)
    assert ended is not None
    session.leave(CloseCode.BUSY, "a second word")
    said = messages_in(session.data_to_send())
    assert said[-1] == Close("silence", ended.sentence)
    assert [message for message in said if isinstance(message, Close)] == said[-1:]


@pytest.mark.parametrize("end", ["goodbye", "leave", "abandon", "silence", "stream", "fault"])
def test_after_any_end_nothing_is_sent(end: str) -> None:
    session = an_open_session()
    if end == "goodbye":
        session.say_goodbye("x")
    elif end == "leave":
        session.leave(CloseCode.BUSY, "x")
    elif end == "abandon":
        session.abandon()
        assert session.data_to_send() == b""
    elif end == "silence":
        silent(session, 9 * SECOND)
    elif end == "stream":
        session.receive_end("the connection was reset")
    else:
        session.receive_data(b"\0\0\0\0", 0)
    session.data_to_send()
    session.leave(CloseCode.REPLACED, "y")
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


def test_a_peer_that_asks_and_does_not_read_is_closed_before_its_answers_pile_up_n10() -> None:
    session = an_open_session()
    chunk = framed(Probe(1)) * 1000
    chunks_max = 2 * OUTGOING_BYTES_MAX // len(chunk)
    events = next(events for _ in range(chunks_max) if (events := session.receive_data(chunk, 0)))
    [ended] = events
    assert ended == Ended(EndCause.FAULT, "protocol", "the other node asks but does not read the answers")
    assert session.data_to_send() == b""


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
