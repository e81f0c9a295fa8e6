"""Every message has exactly the shape that PROTOCOL.md gives it, and nothing else is admitted."""

from __future__ import annotations

import random
import re
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import compatibility, damping, frames, lease, messages, record, role_ground, session
from agent.core.compatibility import CloseCode
from agent.core.errors import PeerError
from agent.core.frames import FRAME_BYTES_MAX, FrameDecoder
from agent.core.messages import (
    ENTRIES_MAX,
    SHAPES,
    TEXT_CHARACTERS_MAX,
    Close,
    Goodbye,
    Kind,
    Message,
    Report,
    ReportChanged,
    decode_untrusted,
    encode,
)
from agent.core.vocabulary import Mode, Role, WorkloadState
from tests.core.samples import MESSAGES, PRIMARY, REPORT, WRONG_BY_ANNOTATION, any_message, every_field

PROTOCOL = (Path(compatibility.__file__).parent / "PROTOCOL.md").read_text("utf-8")
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
BYTES_FOR_ANY_FRAME = 8 * 1024 * 1024


def wire(message: Message) -> tuple[int, dict[str, Any]]:
    """Returns kind and fields as a careful stranger would read them."""
    kind, values = msgpack.unpackb(encode(message))
    return kind, values


def packed(kind: Any, values: Any) -> bytes:
    data: bytes = msgpack.packb([kind, values])
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
def test_what_is_sent_arrives(message: Message) -> None:
    assert decode_untrusted(encode(message)) == message


def test_every_message_has_a_sample_and_a_number() -> None:
    assert [type(each) for each in MESSAGES] == [SHAPES[kind] for kind in Kind]


@every_message
def test_fields_travel_by_name_in_the_order_of_the_table(message: Message) -> None:
    kind, values = wire(message)
    assert SHAPES[Kind(kind)] is type(message)
    assert list(values) == [each.name for each in fields(message)]


def test_the_bytes_of_a_message_are_those_of_the_document() -> None:
    assert encode(Goodbye("bye")).hex(" ") == "92 09 81 a6 72 65 61 73 6f 6e a3 62 79 65"
    assert "92 09 81 a6 72 65 61 73 6f 6e a3 62 79 65" in PROTOCOL


# -- what is not


@pytest.mark.parametrize(
    ("message", "name", "annotation"), list(every_field()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_wrong_types_in_every_field_are_refused_by_name_s5(message: Message, name: str, annotation: str) -> None:
    kind, values = wire(message)
    for wrong in WRONG_BY_ANNOTATION[annotation]:
        assert name in fate(packed(kind, values | {name: wrong})), wrong


@pytest.mark.parametrize("each", fields(Report), ids=lambda each: each.name)
def test_wrong_types_in_every_field_of_a_report_are_refused_by_name_s5(each: Any) -> None:
    kind, values = wire(ReportChanged(REPORT))
    for wrong in WRONG_BY_ANNOTATION[each.type]:
        assert each.name in fate(packed(kind, {"report": values["report"] | {each.name: wrong}})), wrong


@every_message
def test_every_field_is_needed(message: Message) -> None:
    kind, values = wire(message)
    for name in values:
        rest = {key: value for key, value in values.items() if key != name}
        assert fate(packed(kind, rest)) == f"the other node sent {type(message).__name__} without {name}"


SAID_LATER = {"overwrite": False}  # fields that a node of an earlier release does not send, and what that means


@pytest.mark.parametrize("each", [each for each in fields(Report) if each.name not in SAID_LATER], ids=lambda e: e.name)
def test_every_field_of_a_report_is_needed(each: Any) -> None:
    kind, values = wire(ReportChanged(REPORT))
    report = {key: value for key, value in values["report"].items() if key != each.name}
    assert fate(packed(kind, {"report": report})) == f"the other node sent Report without {each.name}"


@pytest.mark.parametrize("name", SAID_LATER)
def test_a_field_that_an_earlier_release_does_not_send_has_a_meaning_where_it_is_missing_s6(name: str) -> None:
    kind, values = wire(ReportChanged(replace(REPORT, **{name: not SAID_LATER[name]})))
    del values["report"][name]
    assert decode_untrusted(packed(kind, values)) == ReportChanged(replace(REPORT, **{name: SAID_LATER[name]}))


@every_message
def test_unknown_fields_are_dropped_s6(message: Message) -> None:
    kind, values = wire(message)
    more = values | {"since_a_later_version": [1, {"x": None}], "another": 2.5}
    if "report" in values:
        more["report"] = {**values["report"], "since_a_later_version": True}
    assert decode_untrusted(packed(kind, more)) == message


@pytest.mark.parametrize("kind", [0, -1, max(Kind) + 1, 255, 2**31, 2**63, 2**64 - 1, -(2**63)])
def test_unknown_kinds_are_ignored_s6(kind: int) -> None:
    assert decode_untrusted(packed(kind, {})) is None
    assert decode_untrusted(packed(kind, {"anything": [1, 2, 3]})) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "x",
        [],
        [1],
        [3, {}, {}],
        {},
        {"kind": 3},
        [True, {}],
        [3.0, {}],
        ["3", {}],
        [3, []],
        [3, None],
        [[], {}],
    ],
    ids=repr,
)
def test_whatever_is_not_kind_and_fields_is_refused(value: Any) -> None:
    assert fate(msgpack.packb(value)) == "the other node sent a frame that is not [kind, fields]"


@every_message
def test_a_payload_cut_anywhere_or_with_bytes_behind_it_is_refused(message: Message) -> None:
    payload = encode(message)
    assert all(fate(payload[:length]) for length in range(len(payload)))
    assert fate(payload + b"\0")
    assert fate(payload + payload)


HOSTILE = {
    "nested arrays": b"\x91" * (FRAME_BYTES_MAX - 1) + b"\x90",
    "nested maps": b"\x81\xa1x" * (FRAME_BYTES_MAX // 3),
    "nested in a field": b"\x92\x63\x81\xa1x" + b"\x91" * 60_000 + b"\x90",
    "10 million empty maps": b"\xdd" + (10_000_000).to_bytes(4, "big") + b"\x80" * 60_000,
    "as many maps as a frame holds": b"\x92\x63\x81\xa1x" + (b"\xdc\x00\x40" + b"\x80" * 63) * 900,
    "an array said to hold 2^32-1": b"\xdd\xff\xff\xff\xff",
    "a map said to hold 2^32-1": b"\xdf\xff\xff\xff\xff",
    "an array with too many entries": msgpack.packb([99, {"x": [0] * (ENTRIES_MAX + 1)}]),
    "a map with too many entries": msgpack.packb([99, {str(n): n for n in range(ENTRIES_MAX + 1)}]),
    "a text said to hold 2^32-1": b"\x92\x63\x81\xa1x\xdb\xff\xff\xff\xff",
    "bytes said to hold 2^32-1": b"\x92\x63\x81\xa1x\xc6\xff\xff\xff\xff",
    "a long text in an unknown field": msgpack.packb([99, {"x": "y" * 3000}]),
    "keys that are numbers": msgpack.packb([99, {1: 2}]),
    "an unhashable key": b"\x92\x63\x81\x90\x01",
    "an extension type": b"\x92\x63\x81\xa1x\xc7\x04\x05abcd",
    "a timestamp": b"\x92\x63\x81\xa1x\xd6\xff\x00\x00\x00\x00",
    "an empty timestamp": b"\x92\x63\x81\xa1x\xc7\x00\xff",
    "text that is no UTF-8": b"\x92\x63\x81\xa1x\xa2\xff\xfe",
    "half a surrogate pair": b"\x92\x63\x81\xa1x\xa3\xed\xa0\x80",
    "the byte that msgpack never uses": b"\xc1",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_payloads_are_refused_in_bounded_memory_s5(payload: bytes) -> None:
    assert len(payload) <= FRAME_BYTES_MAX
    tracemalloc.start()
    try:
        sentence = fate(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "no msgpack within bounds" in sentence
    assert peak < BYTES_FOR_ANY_FRAME


def test_a_frame_of_10_million_empty_maps_is_refused_by_its_length_s5() -> None:
    payload = b"\xdd" + (10_000_000).to_bytes(4, "big") + b"\x80" * 10_000_000
    with pytest.raises(PeerError, match="10000005 bytes"):
        list(FrameDecoder().feed_untrusted(len(payload).to_bytes(4, "big")))


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_error_of_the_peer(payload: bytes) -> None:
    fate(payload)


@given(any_message, st.randoms(use_true_random=False))
def test_a_message_with_flipped_bytes_raises_only_the_error_of_the_peer(
    message: Message, chance: random.Random
) -> None:
    payload = bytearray(encode(message))
    for _ in range(chance.randrange(1, 4)):
        payload[chance.randrange(len(payload))] = chance.randrange(256)
    fate(bytes(payload))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_any_msgpack_value_raises_only_the_error_of_the_peer(value: Any) -> None:
    fate(msgpack.packb(value))
    for kind in Kind:
        fate(packed(int(kind), value))


# -- texts


def test_texts_too_long_are_cut_when_sent() -> None:
    long = "\U0001f600" * (TEXT_CHARACTERS_MAX + 7)
    assert decode_untrusted(encode(Goodbye(long))) == Goodbye(long[:TEXT_CHARACTERS_MAX])
    report = replace(REPORT, obstacle=long)
    assert decode_untrusted(encode(ReportChanged(report))) == ReportChanged(
        replace(report, obstacle=long[:TEXT_CHARACTERS_MAX])
    )


def test_the_longest_message_fits_a_frame() -> None:
    long = "\U0001f600" * TEXT_CHARACTERS_MAX
    hello = replace(
        PRIMARY, name=long, agent_version=long, workload_version=long, report=replace(REPORT, obstacle=long)
    )
    assert len(encode(hello)) < FRAME_BYTES_MAX // 4


def test_a_reason_with_bytes_that_are_no_text_can_be_told() -> None:
    """A file name of Linux may hold such bytes; Python keeps them as lone surrogates."""
    reason = b"cannot start /opt/caf\xe9".decode("utf-8", "surrogateescape")
    assert decode_untrusted(encode(Goodbye(reason))) == Goodbye("cannot start /opt/caf?")


def test_text_that_could_forge_a_line_of_the_log_is_made_harmless() -> None:
    assert decode_untrusted(encode(Close("c", "a\nb\x1b[2J\u202e\0"))) == Close("c", "a�b�[2J��")


# -- the document


def sections(level: str) -> dict[str, str]:
    """Returns the text under every heading of PROTOCOL.md of that level."""
    parts = re.split(rf"^{level} (.+)$", PROTOCOL, flags=re.MULTILINE)[1:]
    texts = (re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0] for text in parts[1::2])
    return dict(zip(parts[::2], texts, strict=True))


def rows(text: str) -> list[list[str]]:
    """Returns the cells of the first table in a text, without its head, backticks removed."""
    table: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            table.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
        elif table:
            break
    return table[2:]


DOCUMENTED_TYPES = {
    "int": "integer",
    "DurationMs": "duration",
    "Lane": "0 or 1",
    "Counter": "counter",
    "bool": "boolean",
    "str": "text",
    "Token": "16 bytes",
    "TokenOrEmpty": "0 or 16 bytes",
    "ProofOrEmpty": "0 or 32 bytes",
    "Mode": "mode",
    "Role": "role",
    "WorkloadState": "workload state",
    "Report": "report",
}


def test_the_document_names_exactly_the_messages() -> None:
    titles = [title for title in sections("###") if re.search(r"\(\d+\)$", title)]
    assert titles == [f"{SHAPES[kind].__name__} ({kind.value})" for kind in Kind]


@pytest.mark.parametrize("shape", [*SHAPES.values(), Report], ids=lambda each: each.__name__)
def test_the_document_names_exactly_the_fields(shape: type[Any]) -> None:
    text = next(text for title, text in sections("###").items() if title.split(" (")[0] == shape.__name__)
    documented = [(name, kind) for name, kind, *_ in rows(text)]
    assert documented == [(each.name, DOCUMENTED_TYPES[str(each.type)]) for each in fields(shape)]


def test_the_document_names_exactly_the_close_codes() -> None:
    assert [row[0] for row in rows(sections("###")["Codes of Close"])] == [code.value for code in CloseCode]


def test_the_document_names_exactly_the_words() -> None:
    words = {name: values.split(", ") for name, values in rows(sections("###")["Types"]) if name in ENUMS}
    assert words == {name: [each.value for each in enum] for name, enum in ENUMS.items()}


ENUMS: dict[str, Any] = {"mode": Mode, "role": Role, "workload state": WorkloadState}


def test_the_document_names_the_bounds_that_the_code_has() -> None:
    rooms = (frames, messages, compatibility, session, lease, damping, role_ground, record)
    bounds = rows(sections("###")["Numbers"])
    assert len(bounds) > 10
    for name, value, *_ in bounds:
        owner = next(room for room in rooms if hasattr(room, name))
        assert getattr(owner, name) == int(value.replace(" ", "")), name
