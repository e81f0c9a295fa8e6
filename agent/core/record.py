"""What a node must still know after a crash, and how a term is drawn.

The record is stored durably before anything that follows from it is sent or done. Knows nothing of files; the
edge stores `encode_record` in two alternating slots. A record that cannot be read is never taken for a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import msgpack

from agent.core.errors import StateError
from agent.core.tree_versions import TreeVersion

FORMAT_VERSION = 2
INCOMPLETE_CHARACTERS_MAX = 200  # so that the longest record fits the slot of its file
TERM_SLACK = 64  # terms skipped when a stored term may have been lost: more than one damaged slot can hide


@dataclass(frozen=True)
class Record:
    """The durable state of one node."""

    mode: str = ""  # the mode it last ran in; empty: never ran
    term: int = 0  # the highest term seen or used
    active_term: int = 0  # the term of its own last activation
    peer_active_term: int = 0  # the highest term in which the other node is known to have been active
    released: bool = False  # it gave the role away after active_term, so the other may have been active since
    term_lane: int = 0
    pair_id: bytes = b""
    peer_name: str = ""
    peer_takeover_ms: int = 0  # the other node's takeover time when last heard; 0: never heard
    hold: bool = False
    maintenance: bool = False
    maintenance_revision: int = 0
    mode_unproven: bool = False  # the mode was changed, and no link has confirmed since that the two nodes fit
    damaged: bool = False  # the stored record was lost: not eligible until the other node told its term
    data_term: int = 0  # the term under which the trees here were last written; 0: never brought together with a peer
    data_alone: bool = False  # that went on while the other node did not follow
    base_term: int = 0  # the term whose trees both nodes last had in common
    offered_term: int = 0  # whose trees the other node may have taken over, though it is not known that it did
    incomplete: str = ""  # why the trees here are half way between two states; empty: they are whole
    overwrite_due: bool = False  # the primary's trees are to replace the backup's, and that is not done yet

    @property
    def paired(self) -> bool:
        return bool(self.pair_id)

    @property
    def version(self) -> TreeVersion:
        """Which state the trees here are in, for comparing it with the other node's."""
        return TreeVersion(self.data_term, self.data_alone, self.base_term, self.offered_term)

    @property
    def wants_overwrite(self) -> bool:
        """True if the two nodes' trees have nothing in common that this node could know of."""
        return self.overwrite_due or self.mode_unproven or not (self.paired or self.damaged)

    @property
    def outdated(self) -> bool:
        """True if the other node is known, or must be assumed, to have been active after this one."""
        return self.released or self.peer_active_term > self.active_term


_SINCE_VERSION_2 = {"data_term", "data_alone", "base_term", "offered_term", "incomplete", "overwrite_due"}


def next_term(record: Record) -> int:
    """Returns the smallest term above every known one in the node's own lane, so that no term is used twice."""
    term = record.term + 1
    return term if term % 2 == record.term_lane else term + 1


def encode_record(record: Record) -> bytes:
    """Returns the bytes to store, below 4000. What is no Unicode, such as bytes in a path, becomes question marks."""
    packed: bytes = msgpack.packb(
        {"version": FORMAT_VERSION} | {f.name: getattr(record, f.name) for f in fields(record)},
        unicode_errors="replace",
    )
    return packed


def decode_record_untrusted(payload: bytes) -> Record:
    """Returns the stored record. Raises StateError when it was written by a newer version or is not a record."""
    try:
        stored: Any = msgpack.unpackb(payload, raw=False)
        version = stored.pop("version")
        if type(version) is not int:
            raise TypeError
    except Exception as error:  # msgpack raises many types for garbage
        raise StateError("the state file does not hold a record of pair-agent") from error
    if version > FORMAT_VERSION:
        raise StateError(
            f"the state file was written by a newer pair-agent (format {version}, this one knows {FORMAT_VERSION}); "
            "install that version again, or a newer one"
        )
    known = {f.name: type(f.default) for f in fields(Record)}
    values = {name: value for name, value in stored.items() if name in known}
    if any(type(value) is not known[name] for name, value in values.items()):
        raise StateError("the state file holds a record with wrong types")
    if version < 1 or known.keys() - values.keys() - (_SINCE_VERSION_2 if version < 2 else set()):
        raise StateError("the state file holds a record that is not whole")
    if any(type(value) is int and value < 0 for value in values.values()) or values.get("term_lane", 0) > 1:
        raise StateError("the state file holds a record with values out of range")
    return Record(**values)


def after_damage(record: Record | None, mode: str, lane: int) -> Record:
    """Returns the record to go on with when a stored one was lost wholly (None) or in its newest slot."""
    if record is None:
        return Record(mode=mode, term_lane=lane, damaged=True)
    return replace(record, term=record.term + TERM_SLACK)
