"""Only who knows the link's key, on this very connection and from this side, joins a bulk connection."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bulk_join import (
    CODE_BINDING,
    JOIN_BYTES_MAX,
    KIND_JOIN,
    JoinKeys,
    join_payload,
    judge_join_untrusted,
    part_payload,
)
from agent.core.errors import PeerError

LINK, OTHER_LINK = b"l" * 32, b"o" * 32
HERE, ELSEWHERE = b"h" * 32, b"e" * 32
DIALLER = JoinKeys(LINK, HERE, dialled=True)
LISTENER = JoinKeys(LINK, HERE, dialled=False)


def join(**changed: object) -> bytes:
    fields = {"version_min": 1, "version_max": 1, "proof": DIALLER.proof(by_dialler=True), **changed}
    return msgpack.packb([KIND_JOIN, {name: value for name, value in fields.items() if value is not ...}])


def test_both_sides_of_one_link_join() -> None:
    assert judge_join_untrusted(join_payload(DIALLER), LISTENER) == 1
    assert judge_join_untrusted(join_payload(LISTENER), DIALLER) == 1


@pytest.mark.parametrize(
    "other",
    [
        JoinKeys(OTHER_LINK, HERE, dialled=True),
        JoinKeys(LINK, ELSEWHERE, dialled=True),
        JoinKeys(LINK, HERE, dialled=False),
    ],
    ids=["another link", "another connection", "sent back"],
)
def test_a_proof_of_another_link_connection_or_side_is_refused(other: JoinKeys) -> None:
    with pytest.raises(PeerError, match="present link") as caught:
        judge_join_untrusted(join_payload(other), LISTENER)
    assert caught.value.code == CODE_BINDING


def test_versions_without_a_common_one_are_refused_with_both_ranges() -> None:
    with pytest.raises(PeerError, match="here 1 to 1, there 2 to 3") as caught:
        judge_join_untrusted(join(version_min=2, version_max=3), LISTENER)
    assert caught.value.code == "version"
    assert judge_join_untrusted(join(version_min=0, version_max=9), LISTENER) == 1


@pytest.mark.parametrize("name", ["version_min", "version_max", "proof"])
@pytest.mark.parametrize("value", [..., None, True, "1", -1, 1.0, b"", b"p" * 31, b"p" * 33, [1], {}])
def test_a_missing_or_wrong_field_is_refused(name: str, value: object) -> None:
    with pytest.raises(PeerError, match="missing or wrong field"):
        judge_join_untrusted(join(**{name: value}), LISTENER)


def test_an_unknown_field_is_no_fault() -> None:
    assert judge_join_untrusted(join(news=1), LISTENER) == 1


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (msgpack.packb([2, {}]), "something else before it joined"),
        (msgpack.packb([1, []]), r"not \[kind, fields\]"),
        (msgpack.packb([1]), r"not \[kind, fields\]"),
        (msgpack.packb([True, {}]), r"not \[kind, fields\]"),
        (b"\xc1", "no msgpack"),
        (b"\xdf\xff\xff\xff\xff", "no msgpack"),
        (bytes(JOIN_BYTES_MAX + 1), "4096 are allowed"),
    ],
)
def test_what_is_no_join_is_refused(payload: bytes, sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        judge_join_untrusted(payload, LISTENER)


@given(st.binary(max_size=60))
def test_garbage_raises_nothing_but_the_peers_error(payload: bytes) -> None:
    with contextlib.suppress(PeerError):
        judge_join_untrusted(payload, LISTENER)


def test_who_leaves_says_why_in_printable_words() -> None:
    left = part_payload(PeerError("no\x1b[2J room" + "!" * 2_000, code="busy"))
    with pytest.raises(PeerError, match=r"no\?\[2J room!") as caught:
        judge_join_untrusted(left, LISTENER)
    assert caught.value.code == "busy"
    assert len(str(caught.value)) < 600


def test_no_key_is_ever_shown() -> None:
    assert "lll" not in repr(DIALLER)
    assert "hhh" not in repr(DIALLER)
