"""A session admits only the peer, in the right order, and tells both sides why not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.compatibility import CloseCode
from agent.core.frames import encode_frame
from agent.core.messages import (
    Authenticate,
    Close,
    Hello,
    Message,
)
from agent.core.session import (
    GREETING_NS,
    EndCause,
    Ended,
    Opened,
    State,
)
from tests.core.samples import BACKUP, MESSAGES, PRIMARY
from tests.core.two_sessions import (
    SECOND,
    WALL_MS,
    TwoSessions,
    a_session,
    an_open_session,
    framed,
    messages_in,
)

KEY = b"a strong pre-shared key"


# -- greeting


@given(st.integers(0, 2**32))
def test_two_nodes_open_however_their_bytes_are_chunked_n11(seed: int) -> None:
    pair = TwoSessions(keys=(KEY, KEY), chance=random.Random(seed)).open()
    assert [end.session.state for end in pair.ends] == [State.OPEN] * 2
    assert pair.primary.session.peer == replace(BACKUP, wall_clock_ms=pair.primary.session.peer.wall_clock_ms)  # type: ignore[union-attr]  # open
    assert [len(end.events) for end in pair.ends] == [1, 1]


@pytest.mark.parametrize(("own", "peer"), [(b"", b""), (b"i" * 16, b""), (b"", b"i" * 16), (b"i" * 16, b"i" * 16)])
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
