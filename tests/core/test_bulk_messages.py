"""The messages of the bulk connection: what is sent arrives, and nothing outside the bounds is admitted."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import fields
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bulk_messages import (
    BODY_BYTES_MAX,
    ENTRIES_MAX,
    INTEGER_MAX,
    KINDS,
    PATH_BYTES_MAX,
    SENTENCE_CHARACTERS_MAX,
    SMALL_FILE_BYTES_MAX,
    TREES_MAX,
    BulkMessage,
    Change,
    Changes,
    Hold,
    Restart,
    SmallFile,
    Standing,
    Troubled,
    Unfollow,
)
from agent.core.bulk_wire import decode_untrusted, encode
from agent.core.errors import PeerError
from agent.core.tree_entries import DIGEST_BYTES, Entry, EntryKind

NUMBERS = {shape: number for number, shape in KINDS.items()}
JOIN = 1  # of agent.link.bulk
PAYLOAD_BYTES_MAX = 1024 * 1024
BYTES_FOR_ANY_PAYLOAD = 32 * 1024 * 1024
TOKEN, DIGEST = b"i" * 16, b"d" * DIGEST_BYTES
CHANGE = Change("a/b", Entry("a/b", EntryKind.FILE, 5, 7, 0o644, "", DIGEST), True)
STANDING = Standing("flows", "config", "folder", TOKEN, 3, 9, "")

# -- for every annotation of a field: what belongs there, and what does not

SAMPLES: dict[str, Any] = {
    "bool": True,
    "Number": 7,
    "Token": TOKEN,
    "Digest": DIGEST,
    "Body": b"contents",
    "Sentence": "flows",
    "Path": "a/b",
    "Time": -5,
    "Permissions": 0o640,
    "Changed": (CHANGE, Change("gone", None, False)),
    "Trees": (STANDING,),
    "Refusals": (("a/b", "it is a device"),),
    "SmallFiles": (SmallFile("", 5, 0o644, b"contents"), SmallFile("it is gone", 0, -1, b"")),
    "Paths": ("a", "a/b"),
}
_NEVER: tuple[Any, ...] = (None, 1.5, float("nan"), {})
_NO_TEXT: tuple[Any, ...] = (*_NEVER, 0, True, b"text", [], ["text"])
_NO_NUMBER: tuple[Any, ...] = (*_NEVER, "1", b"1", True, False, [], [1], -1, INTEGER_MAX + 1, 2**64 - 1)
_NO_BYTES: tuple[Any, ...] = (*_NEVER, 0, True, "x" * 16, [])
_NO_DIGEST: tuple[Any, ...] = (*_NO_BYTES, b"x", b"x" * (DIGEST_BYTES - 1), b"x" * (DIGEST_BYTES + 1))
_NO_PERMISSIONS: tuple[Any, ...] = (*_NEVER, "1", True, [], -2, 0o10000, INTEGER_MAX)
_NO_TIME: tuple[Any, ...] = (*_NEVER, "1", True, [], INTEGER_MAX + 1, -INTEGER_MAX - 1)
_NO_LIST: tuple[Any, ...] = (*_NEVER, 0, True, "ab", b"ab", "", b"")
_NO_ITEM: tuple[Any, ...] = (*_NEVER, 0, True, "ab", b"ab", "abcdefg", b"abcdefg", [])

FILE = ["a", True, "file", 5, 7, 0o644, DIGEST]
FOLDER = ["a", True, "folder", 0o755, ""]
SMALL = ["", 5, 0o644, b"contents"]
STOOD = ["flows", "config", "folder", TOKEN, 3, 9, ""]


def with_wrong(item: list[Any], *wrong: tuple[Any, ...]) -> list[list[Any]]:
    """Returns the item once for every wrong value of every place, and cut to every shorter length."""
    changed = [[*item[:n], each, *item[n + 1 :]] for n, values in enumerate(wrong) for each in values]
    return [*changed, *(item[:length] for length in range(len(item)) if length != 2 or item is SMALL or item is STOOD)]


_NO_KIND: tuple[Any, ...] = (*_NO_TEXT, "", "FILE", "device", b"file")
WRONG_CHANGES = [
    *with_wrong(FILE, _NO_TEXT, (*_NEVER, 0, 1), _NO_KIND, _NO_NUMBER, _NO_TIME, _NO_PERMISSIONS, _NO_DIGEST),
    *with_wrong(FOLDER, _NO_TEXT, (*_NEVER, 0, 1), _NO_KIND, _NO_PERMISSIONS, _NO_TEXT),
]
WRONG_STANDINGS = with_wrong(
    STOOD, _NO_TEXT, _NO_TEXT, (*_NO_TEXT, "", "device"), (*_NO_BYTES, b"x"), _NO_NUMBER, _NO_NUMBER, _NO_TEXT
)
WRONG_SMALL_FILES = with_wrong(
    SMALL, _NO_TEXT, _NO_TIME, _NO_PERMISSIONS, (*_NO_BYTES, b"x" * (SMALL_FILE_BYTES_MAX + 1))
)
WRONG: dict[str, list[Any]] = {
    "bool": [*_NEVER, 0, 1, "true", b"\x01", []],
    "Number": [*_NO_NUMBER],
    "Token": [*_NO_BYTES, b"x", b"x" * 15, b"x" * 17, b"x" * 32],
    "Digest": [*_NO_DIGEST],
    "Body": [*_NO_BYTES],
    "Sentence": [*_NO_TEXT],
    "Path": [*_NO_TEXT],
    "Time": [*_NO_TIME],
    "Permissions": [*_NO_PERMISSIONS],
    "Changed": [*_NO_LIST, *([each] for each in (*_NO_ITEM, *WRONG_CHANGES))],
    "Trees": [*_NO_LIST, *([each] for each in (*_NO_ITEM, *WRONG_STANDINGS)), [STOOD] * (TREES_MAX + 1)],
    "Refusals": [*_NO_LIST, *([each] for each in (*_NO_ITEM, ["a"], [0, "b"], ["a", None], ["a", b"b"]))],
    "SmallFiles": [*_NO_LIST, *([each] for each in (*_NO_ITEM, *WRONG_SMALL_FILES))],
    "Paths": [*_NO_LIST, *([each] for each in _NO_TEXT)],
}

_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_sentences = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=60)
_numbers = st.integers(0, INTEGER_MAX)
_times = st.integers(-INTEGER_MAX, INTEGER_MAX)
_modes = st.none() | st.integers(0, 0o7777)
_digests = st.sampled_from([b"", DIGEST])
_entries = st.one_of(
    st.builds(
        lambda path, size, mtime_ns, mode, digest: Entry(path, EntryKind.FILE, size, mtime_ns, mode, "", digest),
        *(_texts, _numbers, _times, _modes, _digests),
    ),
    st.builds(
        lambda path, kind, mode, target: Entry(path, kind, 0, 0, mode, target),
        *(_texts, st.sampled_from([EntryKind.FOLDER, EntryKind.LINK]), _modes, _texts),
    ),
)
_changes = st.builds(lambda entry, changed: Change(entry.path, entry, changed), _entries, st.booleans())
_gone = st.builds(Change, _texts, st.none(), st.booleans())
_tokens = st.sampled_from([b"", TOKEN])
_small_files = st.builds(SmallFile, _sentences, _times, st.integers(-1, 0o7777), st.binary(max_size=40))
_standings = st.builds(
    Standing,
    *(_sentences, _sentences, st.sampled_from(["folder", "file", "missing"]), _tokens, _numbers, _numbers, _sentences),
)
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "Number": _numbers,
    "Token": _tokens,
    "Digest": _digests,
    "Body": st.binary(max_size=60),
    "Sentence": _sentences,
    "Path": _texts,
    "Time": _times,
    "Permissions": st.integers(-1, 0o7777),
    "Changed": st.lists(_changes | _gone, max_size=4).map(tuple),
    "Trees": st.lists(_standings, max_size=3).map(tuple),
    "Refusals": st.lists(st.tuples(_sentences, _sentences), max_size=3).map(tuple),
    "SmallFiles": st.lists(_small_files, max_size=3).map(tuple),
    "Paths": st.lists(_texts, max_size=4).map(tuple),
}
any_message: st.SearchStrategy[BulkMessage] = st.one_of(
    [st.builds(shape, **{each.name: STRATEGIES[str(each.type)] for each in fields(shape)}) for shape in KINDS.values()]
)
MESSAGES: list[BulkMessage] = [
    shape(**{each.name: SAMPLES[str(each.type)] for each in fields(shape)}) for shape in KINDS.values()
]
FIELDS = [(message, n, each) for message in MESSAGES for n, each in enumerate(fields(message), 1)]
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
every_field = pytest.mark.parametrize(
    ("message", "place", "field"), FIELDS, ids=[f"{type(message).__name__}.{each.name}" for message, _, each in FIELDS]
)


def wire(message: BulkMessage) -> list[Any]:
    """Returns a message as a careful stranger would read it."""
    values: list[Any] = msgpack.unpackb(encode(message))
    return values


def packed(values: Any) -> bytes:
    data: bytes = msgpack.packb(values)
    return data


def fate(payload: bytes) -> str:
    """Returns the sentence with which a payload is refused, or nothing."""
    try:
        decode_untrusted(payload)
    except PeerError as error:
        return str(error)
    return ""


# -- what is admitted


@given(any_message)
def test_what_is_sent_arrives(message: BulkMessage) -> None:
    assert decode_untrusted(encode(message)) == message


@every_message
def test_every_message_can_be_read_from_a_view_of_a_buffer(message: BulkMessage) -> None:
    assert decode_untrusted(memoryview(encode(message))) == message


@every_message
def test_a_message_is_its_kind_and_its_fields_in_the_order_of_the_dataclass(message: BulkMessage) -> None:
    kind, *values = wire(message)
    assert KINDS[kind] is type(message)
    assert len(values) == len(fields(message))


def test_no_kind_is_that_of_the_join() -> None:
    assert JOIN not in KINDS
    assert len(set(KINDS.values())) == len(KINDS)


@every_message
def test_fields_that_a_newer_node_adds_are_dropped_s6(message: BulkMessage) -> None:
    assert decode_untrusted(packed([*wire(message), "more", [1, [2]], None])) == message


def test_what_a_newer_node_adds_to_an_item_of_a_list_is_dropped_s6() -> None:
    hold = Hold(*(SAMPLES[str(each.type)] for each in fields(Hold)))
    values = wire(hold)
    values[-1] = [[*values[-1][0], "more", 5]]
    assert decode_untrusted(packed(values)) == hold


@pytest.mark.parametrize("kind", [0, JOIN, -1, max(KINDS) + 1, 255, 2**63, 2**64 - 1, -(2**63)])
def test_unknown_kinds_are_none_s6(kind: int) -> None:
    assert decode_untrusted(packed([kind])) is None
    assert decode_untrusted(packed([kind, "anything", [1, 2]])) is None


@every_field
def test_the_bounds_themselves_are_admitted(message: BulkMessage, place: int, field: Any) -> None:
    widest: dict[str, list[Any]] = {
        "Number": [0, INTEGER_MAX],
        "Time": [-INTEGER_MAX, INTEGER_MAX],
        "Permissions": [-1, 0o7777],
        "Body": [b"", b"x" * BODY_BYTES_MAX],
        "Token": [b""],
        "Digest": [b""],
        "Path": ["", "x" * PATH_BYTES_MAX],
        "Changed": [[], [FILE] * ENTRIES_MAX],
        "Trees": [[], [STOOD] * TREES_MAX],
        "Refusals": [[], [["a", "b"]] * ENTRIES_MAX],
        "SmallFiles": [[], [["", 0, -1, b"x" * SMALL_FILE_BYTES_MAX]]],
        "Paths": [[], ["a"] * ENTRIES_MAX],
    }
    for value in widest.get(field.type, []):
        values = wire(message)
        values[place] = value
        assert fate(packed(values)) == ""


# -- what is not


@every_field
def test_wrong_types_and_bounds_in_every_field_are_refused_by_name_s5(
    message: BulkMessage, place: int, field: Any
) -> None:
    name = type(message).__name__
    for wrong in WRONG[field.type]:
        values = wire(message)
        values[place] = wrong
        assert fate(packed(values)) == f"the other node sent {name} with a wrong {field.name}", wrong


@every_field
def test_lists_beyond_their_bound_are_refused_s5(message: BulkMessage, place: int, field: Any) -> None:
    values = wire(message)
    if isinstance(values[place], list):
        values[place] = values[place][:1] * (ENTRIES_MAX + 1)
        assert fate(packed(values))


@every_message
def test_every_field_is_needed(message: BulkMessage) -> None:
    values = wire(message)
    for length in range(1, len(values)):
        assert fate(packed(values[:length])) == f"the other node sent {type(message).__name__} with too few fields"


@every_message
def test_a_payload_cut_anywhere_or_with_bytes_behind_it_is_refused(message: BulkMessage) -> None:
    payload = encode(message)
    assert all(fate(payload[:length]) for length in range(len(payload)))
    assert fate(payload + b"\0")
    assert fate(payload + payload)


@pytest.mark.parametrize("value", [None, 2, "x", b"x", [], {}, ["2"], [None], [True], [2.0], [[2]], [b"\2"]], ids=repr)
def test_whatever_is_not_a_list_that_begins_with_a_kind_is_refused(value: Any) -> None:
    assert fate(packed(value)) == "the other node sent a bulk frame that is not [kind, fields...]"


_IN_CHANGES = b"\x94" + bytes([NUMBERS[Changes]]) + b"\x01\xa1t"  # what follows is the list of changes
HOSTILE = {
    "nothing": b"",
    "nested arrays": b"\x91" * (PAYLOAD_BYTES_MAX - 1) + b"\x90",
    "nested in a field": _IN_CHANGES + b"\x91" * 60_000 + b"\x90",
    "10 million empty lists": b"\xdd" + (10_000_000).to_bytes(4, "big") + b"\x90" * 60_000,
    "as many lists as a payload holds": _IN_CHANGES + (b"\xdc\x01\x00" + b"\x90" * 255) * 4000,
    "an array said to hold 2^32-1": b"\xdd\xff\xff\xff\xff",
    "a map said to hold 2^32-1": b"\xdf\xff\xff\xff\xff",
    "a map with an entry": packed([99, {"a": 1}]),
    "an array with too many entries": packed([99, [0] * (ENTRIES_MAX + 1)]),
    "a text said to hold 2^32-1": b"\x92\x63\xdb\xff\xff\xff\xff",
    "bytes said to hold 2^32-1": b"\x92\x63\xc6\xff\xff\xff\xff",
    "too long a text": packed([99, "x" * (PATH_BYTES_MAX + 1)]),
    "too many bytes": packed([99, b"x" * (BODY_BYTES_MAX + 1)]),
    "an extension type": b"\x92\x63\xc7\x04\x05abcd",
    "a timestamp": b"\x92\x63\xd6\xff\x00\x00\x00\x00",
    "text that is no UTF-8": b"\x92\x63\xa2\xff\xfe",
    "half a surrogate pair": b"\x92\x63\xa3\xed\xa0\x80",
    "the byte that msgpack never uses": b"\xc1",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_payloads_are_refused_in_bounded_memory_s5(payload: bytes) -> None:
    tracemalloc.start()
    try:
        sentence = fate(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "a bulk frame that is no message" in sentence
    assert peak < BYTES_FOR_ANY_PAYLOAD


@pytest.mark.parametrize("item", [{}, [], "", "ab", b"ab", 0, None, msgpack.ExtType(5, b"")], ids=repr)
@every_message
def test_an_empty_or_foreign_item_in_a_list_raises_only_the_error_of_the_peer_s5(
    message: BulkMessage, item: Any
) -> None:
    for place, value in enumerate(wire(message)):
        if isinstance(value, list):
            values = wire(message)
            values[place] = [item]
            fate(packed(values))


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_error_of_the_peer(payload: bytes) -> None:
    fate(payload)


@given(any_message, st.randoms(use_true_random=False))
def test_a_message_with_flipped_bytes_raises_only_the_error_of_the_peer(
    message: BulkMessage, chance: random.Random
) -> None:
    payload = bytearray(encode(message))
    for _ in range(chance.randrange(1, 4)):
        payload[chance.randrange(len(payload))] = chance.randrange(256)
    fate(bytes(payload))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.binary(max_size=40),
    st.just({}),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=7), max_leaves=14)


@given(st.lists(values, max_size=9))
def test_any_fields_raise_only_the_error_of_the_peer(given_fields: list[Any]) -> None:
    for kind in KINDS:
        fate(packed([kind, *given_fields]))


# -- texts


@pytest.mark.parametrize("character", ["x", "é", "\u20ac", "\U0001f600"])
def test_sentences_too_long_are_cut_when_sent(character: str) -> None:
    long = character * 5000
    cut = character * SENTENCE_CHARACTERS_MAX
    assert decode_untrusted(encode(Troubled("flows", long, 0))) == Troubled("flows", cut, 0)


@every_field
def test_no_text_is_so_long_that_it_ends_the_connection(message: BulkMessage, place: int, field: Any) -> None:
    """Such sentences hold paths and the words of the operating system: nobody bounds them before."""
    long = "\U0001f600" * 2000
    with_long: dict[str, Any] = {
        "Sentence": long,
        "Trees": (Standing(long, "config", "folder", TOKEN, 0, 0, long),),
        "Refusals": ((long, long),),
        "SmallFiles": (SmallFile(long, 0, -1, b""),),
    }
    if field.type in with_long:
        others = {each.name: SAMPLES[str(each.type)] for each in fields(message)}
        assert fate(encode(type(message)(**others | {field.name: with_long[field.type]}))) == ""


def test_a_path_is_never_cut_to_another_one() -> None:
    path = "x" * (PATH_BYTES_MAX + 1)
    assert fate(encode(Changes(1, "flows", (Change(path, None, True),))))


def test_a_name_with_bytes_that_are_no_text_can_be_told_d13() -> None:
    """A file name of Linux may hold such bytes; it is refused for that, and the refusal names it."""
    sentence = b"caf\xe9 is not UTF-8".decode("utf-8", "surrogateescape")
    assert decode_untrusted(encode(Troubled("flows", sentence, 0))) == Troubled("flows", "caf? is not UTF-8", 0)


def test_text_that_could_forge_a_line_of_the_log_is_made_harmless() -> None:
    assert decode_untrusted(encode(Troubled("t", "a\nb\x1b[2J\u202e\0", 0))) == Troubled("t", "a�b�[2J��", 0)


def test_a_message_without_fields_is_its_kind_alone() -> None:
    assert encode(Unfollow()) == packed([NUMBERS[Unfollow]])
    assert decode_untrusted(packed([NUMBERS[Restart], True])) == Restart(True)
