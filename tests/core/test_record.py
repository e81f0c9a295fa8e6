"""What a node must know after a crash survives, and no term is ever used twice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.agreement import agreed_record
from agent.core.errors import StateError
from agent.core.messages import INTEGER_MAX, TEXT_CHARACTERS_MAX
from agent.core.record import (
    FORMAT_VERSION,
    INCOMPLETE_CHARACTERS_MAX,
    TERM_SLACK,
    Record,
    after_damage,
    decode_record_untrusted,
    encode_record,
    next_term,
)
from agent.core.vocabulary import Mode
from tests.core.samples import BACKUP, PRIMARY

SLOT_BYTES_MAX = 4000
FULL = Record(
    mode="primary",
    term=9,
    active_term=7,
    peer_active_term=8,
    released=True,
    term_lane=1,
    pair_id=b"i" * 16,
    peer_name="line-4-b",
    peer_takeover_ms=5000,
    hold=True,
    maintenance=True,
    maintenance_revision=3,
    damaged=True,
    data_term=7,
    data_alone=True,
    base_term=5,
    offered_term=7,
    incomplete="a first copy is not finished",
    overwrite_due=True,
)
SINCE_VERSION_2 = ("data_term", "data_alone", "base_term", "offered_term", "incomplete", "overwrite_due")


def stored(record: Record, **changes: Any) -> bytes:
    """Returns the bytes of a record with some stored values replaced, or left out where the change is `...`."""
    values = msgpack.unpackb(encode_record(record)) | changes
    data: bytes = msgpack.packb({name: value for name, value in values.items() if value is not ...})
    return data


any_record = st.builds(
    Record,
    mode=st.sampled_from(["", *(mode.value for mode in Mode)]),
    peer_name=st.text(max_size=TEXT_CHARACTERS_MAX),
    pair_id=st.sampled_from([b"", b"i" * 16]),
    term_lane=st.integers(0, 1),
    **{
        name: st.integers(0, INTEGER_MAX)
        for name in (
            *("term", "active_term", "peer_active_term", "peer_takeover_ms", "maintenance_revision"),
            *("data_term", "base_term", "offered_term"),
        )
    },
    incomplete=st.text(max_size=INCOMPLETE_CHARACTERS_MAX),
    **{
        name: st.booleans()
        for name in ("released", "hold", "maintenance", "mode_unproven", "damaged", "data_alone", "overwrite_due")
    },
)


def test_every_field_is_tried() -> None:
    untried = replace(FULL, mode_unproven=True)
    assert [each.name for each in fields(Record) if getattr(untried, each.name) == each.default] == []


@given(any_record)
def test_what_was_stored_is_read(record: Record) -> None:
    assert decode_record_untrusted(encode_record(record)) == record


def test_the_longest_record_fits_its_slot() -> None:
    highest = INTEGER_MAX + TERM_SLACK
    name = "\U0001f600" * TEXT_CHARACTERS_MAX
    terms = ("term", "active_term", "peer_active_term", "data_term", "base_term", "offered_term")
    longest = replace(
        FULL,
        peer_name=name,
        incomplete="\U0001f600" * INCOMPLETE_CHARACTERS_MAX,
        maintenance_revision=highest,
        **dict.fromkeys(terms, highest),
    )
    assert len(encode_record(longest)) <= SLOT_BYTES_MAX


def test_a_reason_with_bytes_that_are_no_text_can_be_stored() -> None:
    """A file name of Linux may hold such bytes; Python keeps them as lone surrogates."""
    record = replace(FULL, incomplete=b"caf\xe9 is locked".decode("utf-8", "surrogateescape"))
    assert decode_record_untrusted(encode_record(record)).incomplete == "caf? is locked"


def test_a_record_of_a_newer_version_is_refused_with_the_way_out_d8() -> None:
    with pytest.raises(StateError, match=rf"format {FORMAT_VERSION + 1}, this one knows {FORMAT_VERSION}\); install"):
        decode_record_untrusted(stored(FULL, version=FORMAT_VERSION + 1))


@pytest.mark.parametrize("version", [None, "1", 1.0, True, 0, -1, ...])
def test_a_record_without_a_version_is_none_d8(version: Any) -> None:
    with pytest.raises(StateError):
        decode_record_untrusted(stored(FULL, version=version))


@pytest.mark.parametrize("each", fields(Record), ids=lambda each: each.name)
def test_a_record_that_lacks_a_field_never_means_term_0_d8(each: Any) -> None:
    with pytest.raises(StateError, match="not whole"):
        decode_record_untrusted(stored(FULL, **{each.name: ...}))


@pytest.mark.parametrize("each", fields(Record), ids=lambda each: each.name)
def test_wrong_types_in_every_field_are_refused_d8(each: Any) -> None:
    values: tuple[Any, ...] = (None, 1.0, [], {}, 2, True, "x", b"x")
    for wrong in values:
        if type(wrong) is not type(each.default):
            with pytest.raises(StateError, match="wrong types"):
                decode_record_untrusted(stored(FULL, **{each.name: wrong}))


@pytest.mark.parametrize("changes", [{"term": -1}, {"active_term": -5}, {"term_lane": 2}, {"peer_takeover_ms": -1}])
def test_values_that_no_node_stores_are_refused_d8(changes: dict[str, int]) -> None:
    with pytest.raises(StateError, match="out of range"):
        decode_record_untrusted(stored(FULL, **changes))


# -- records of version 1, from before trees were replicated


def of_version_1(record: Record, **changes: Any) -> bytes:
    return stored(record, version=1, **dict.fromkeys(SINCE_VERSION_2, ...), **changes)


@given(any_record)
def test_a_record_of_version_1_is_read_and_has_no_history_of_trees(record: Record) -> None:
    without = {name: Record.__dataclass_fields__[name].default for name in SINCE_VERSION_2}
    assert decode_record_untrusted(of_version_1(record)) == replace(record, **without)


def test_a_record_of_version_1_wants_no_overwrite() -> None:
    assert not decode_record_untrusted(of_version_1(FULL)).wants_overwrite


@pytest.mark.parametrize("each", [f for f in fields(Record) if f.name not in SINCE_VERSION_2], ids=lambda f: f.name)
def test_a_record_of_version_1_that_lacks_a_field_never_means_term_0_d8(each: Any) -> None:
    with pytest.raises(StateError, match="not whole"):
        decode_record_untrusted(of_version_1(FULL, **{each.name: ...}))


def test_what_is_stored_next_is_of_the_present_version() -> None:
    read = decode_record_untrusted(of_version_1(FULL))
    assert msgpack.unpackb(encode_record(read))["version"] == FORMAT_VERSION


# -- who wants an overwrite


@pytest.mark.parametrize(
    ("record", "wants"),
    [
        (Record(), True),  # never paired
        (Record(pair_id=b"i" * 16), False),
        (Record(pair_id=b"i" * 16, mode_unproven=True), True),
        (Record(pair_id=b"i" * 16, overwrite_due=True), True),
        (Record(damaged=True), False),  # what it knew of the other node is lost, not never there
        (Record(damaged=True, pair_id=b"i" * 16), False),
    ],
)
def test_a_node_wants_an_overwrite_if_the_trees_have_nothing_in_common_that_it_could_know_of(
    record: Record, wants: bool
) -> None:
    assert record.wants_overwrite is wants


def test_a_record_lost_wholly_wants_no_overwrite_d8() -> None:
    for mode in Mode:
        assert not after_damage(None, mode.value, 0).wants_overwrite


# -- what is not whole


def test_a_field_that_a_later_release_added_is_left_alone() -> None:
    assert decode_record_untrusted(stored(FULL, since_a_later_release=[1, 2])) == FULL


@given(st.binary(max_size=300))
def test_garbage_raises_only_a_state_error_d8(payload: bytes) -> None:
    with pytest.raises(StateError):
        decode_record_untrusted(payload)


@given(st.integers(0, len(encode_record(FULL)) - 1), st.integers(0, 255))
def test_a_flipped_byte_raises_a_state_error_or_nothing(place: int, value: int) -> None:
    payload = bytearray(encode_record(FULL))
    payload[place] = value
    with suppress(StateError):
        decode_record_untrusted(bytes(payload))


@pytest.mark.parametrize("payload", [encode_record(FULL)[:n] for n in range(len(encode_record(FULL)))], ids=len)
def test_a_record_cut_anywhere_is_refused_d8(payload: bytes) -> None:
    with pytest.raises(StateError):
        decode_record_untrusted(payload)


# -- terms


@given(st.integers(0, INTEGER_MAX - 2), st.integers(0, 1))
def test_a_term_is_the_smallest_above_all_known_in_its_lane(term: int, lane: int) -> None:
    drawn = next_term(Record(term=term, term_lane=lane))
    assert term < drawn <= term + 2
    assert drawn % 2 == lane


@given(st.lists(st.sampled_from(["a", "b", "link", "crash a", "crash b", "lost a", "lost b"]), max_size=60))
def test_no_term_is_used_twice_in_any_partition_or_crash(happenings: list[str]) -> None:
    """`a`, `b`: the node activates; `crash`: it lost its newest entry, which was stored and not yet acted upon."""
    modes = {"a": Mode.PRIMARY, "b": Mode.BACKUP}
    nodes = {"a": Record(mode="primary", term_lane=1), "b": Record(mode="backup", term_lane=0)}
    used: list[int] = []
    for happening in happenings:
        what, _, name = happening.rpartition(" ")
        if happening == "link":
            hellos = {
                each: replace(
                    PRIMARY if each == "a" else BACKUP,
                    term_lane=record.term_lane,
                    report=replace(PRIMARY.report, term=record.term, active_term=record.active_term),
                )
                for each, record in nodes.items()
            }
            nodes = {
                each: agreed_record(nodes[each], hellos[other], b"i" * 16, own_mode=modes[each])
                for each, other in (("a", "b"), ("b", "a"))
            }
            assert {record.term_lane for record in nodes.values()} == {0, 1}
        elif what == "":
            if not nodes[name].damaged:
                term = next_term(nodes[name])
                nodes[name] = replace(nodes[name], term=term, active_term=term, released=False)
                used.append(term)
                assert used.count(term) == 1
        elif what == "crash":
            nodes[name] = after_damage(nodes[name], modes[name].value, 1 if name == "a" else 0)
        elif not any(record.damaged for record in nodes.values()):
            # Losing a record for good is survived if the other node knows the last term: it is told at every change.
            other = "b" if name == "a" else "a"
            nodes[other] = replace(nodes[other], term=max(record.term for record in nodes.values()))
            nodes[name] = after_damage(None, modes[name].value, 1 if name == "a" else 0)


def test_a_record_lost_wholly_is_not_taken_for_a_new_nodes_d8() -> None:
    assert after_damage(None, "primary", 1) == Record(mode="primary", term_lane=1, damaged=True)


def test_a_record_lost_in_its_newest_slot_skips_terms_d8() -> None:
    after = after_damage(replace(FULL, damaged=False), "primary", 1)
    assert after == replace(FULL, damaged=False, term=FULL.term + TERM_SLACK)
    assert next_term(after) > next_term(FULL)


@pytest.mark.parametrize(
    ("changes", "outdated"),
    [({}, False), ({"released": True}, True), ({"peer_active_term": 8}, True), ({"peer_active_term": 6}, False)],
)
def test_a_node_knows_that_the_other_was_active_after_it(changes: dict[str, Any], outdated: bool) -> None:
    assert replace(Record(term=9, active_term=7), **changes).outdated is outdated
