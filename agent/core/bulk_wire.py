"""Reads and writes the messages of the bulk connection (`bulk_messages`); `decode_untrusted` admits nothing outside the
bounds, and unknown kinds decode to None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import msgpack

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
    SmallFile,
    Standing,
)
from agent.core.errors import PeerError
from agent.core.tree_entries import DIGEST_BYTES, Entry, EntryKind

REFUSED_PATH_CHARACTERS_MAX = 1024  # no path that a tree holds is longer

_NUMBERS = {shape: number for number, shape in KINDS.items()}


def encode(message: BulkMessage) -> bytes:
    """Returns the payload of `message`; sentences that are too long are cut, what is no text in them is replaced."""
    shape = type(message)
    values = [_WRITERS.get(kind, _as_it_is)(getattr(message, name)) for name, kind in _FIELDS[shape]]
    packed: bytes = msgpack.packb([_NUMBERS[shape], *values])
    return packed


def decode_untrusted(payload: bytes | memoryview) -> BulkMessage | None:
    """Returns the message in `payload`, or None when its kind is not known here. Raises PeerError for anything else."""
    try:
        value = msgpack.unpackb(
            payload,
            raw=False,
            use_list=True,
            max_str_len=PATH_BYTES_MAX,
            max_bin_len=BODY_BYTES_MAX,
            max_array_len=ENTRIES_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises a dozen unrelated types for hostile bytes
        raise PeerError(f"the other node sent a bulk frame that is no message: {type(error).__name__}") from error
    if not (isinstance(value, list) and value and type(value[0]) is int):
        raise PeerError("the other node sent a bulk frame that is not [kind, fields...]")
    shape = KINDS.get(value[0])
    if shape is None:
        return None
    readers = _READERS[shape]
    if len(value) <= len(readers):
        raise PeerError(f"the other node sent {shape.__name__} with too few fields")
    read: list[Any] = []
    for item, (name, reader) in zip(value[1:], readers, strict=False):  # a newer peer may say more
        try:
            read.append(reader(item))
        except (ValueError, TypeError, LookupError) as error:
            raise PeerError(f"the other node sent {shape.__name__} with a wrong {name}") from error
    return shape(*read)  # type: ignore[no-any-return]  # built from KINDS: a BulkMessage


def _as_it_is(value: Any) -> Any:
    return value


def _sentence_to_wire(value: str, characters_max: int = SENTENCE_CHARACTERS_MAX) -> str:
    return value[:characters_max].encode("utf-8", "replace").decode()


def _small_file_to_wire(file: SmallFile) -> list[Any]:
    return [_sentence_to_wire(file.problem), file.mtime_ns, file.mode, file.contents]


def _standing_to_wire(tree: Standing) -> list[Any]:
    name, problem = _sentence_to_wire(tree.name), _sentence_to_wire(tree.problem)
    return [name, tree.kind, tree.shape, tree.index, tree.files, tree.size, problem]


def _refusal_to_wire(refusal: tuple[str, str]) -> list[str]:
    path, reason = refusal
    return [_sentence_to_wire(path, REFUSED_PATH_CHARACTERS_MAX), _sentence_to_wire(reason)]


def _change_to_wire(change: Change) -> list[Any]:
    entry = change.entry
    if entry is None:
        return [change.path, change.changed]
    mode = -1 if entry.mode is None else entry.mode
    if entry.kind is EntryKind.FILE:
        return [change.path, change.changed, "file", entry.size, entry.mtime_ns, mode, entry.digest]
    return [change.path, change.changed, entry.kind.value, mode, entry.target]


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise ValueError
    return value


def _time(value: Any) -> int:
    if type(value) is not int or abs(value) > INTEGER_MAX:
        raise ValueError
    return value


def _permissions(value: Any) -> int:
    if type(value) is not int or not -1 <= value <= 0o7777:
        raise ValueError
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _sentence(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:SENTENCE_CHARACTERS_MAX])


def _path(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value  # judged by tree_names, which can say what is wrong with it


def _bytes_of(*lengths: int) -> Callable[[Any], bytes]:
    def read(value: Any) -> bytes:
        if type(value) is not bytes or (lengths and len(value) not in lengths):
            raise ValueError
        return value

    return read


_digest = _bytes_of(0, DIGEST_BYTES)


def _listed(read: Callable[[Any], Any], count_max: int) -> Callable[[Any], tuple[Any, ...]]:
    def read_all(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > count_max:
            raise ValueError
        return tuple(read(each) for each in value)

    return read_all


def _change(value: Any) -> Change:
    path, changed = _path(value[0]), _boolean(value[1])
    if len(value) == 2:
        return Change(path, None, changed)
    kind = EntryKind(value[2])
    if kind is EntryKind.FILE:
        size, mtime_ns, mode, digest = _number(value[3]), _time(value[4]), _permissions(value[5]), _digest(value[6])
        return Change(path, Entry(path, kind, size, mtime_ns, None if mode < 0 else mode, "", digest), changed)
    mode = _permissions(value[3])
    return Change(path, Entry(path, kind, 0, 0, None if mode < 0 else mode, _path(value[4])), changed)


def _standing(value: Any) -> Standing:
    name, kind, shape, index, files, size, problem = value[:7]
    if shape not in ("folder", "file", "missing"):
        raise ValueError
    return Standing(
        _sentence(name),
        _sentence(kind),
        shape,
        _bytes_of(0, 16)(index),
        _number(files),
        _number(size),
        _sentence(problem),
    )


def _small_file(value: Any) -> SmallFile:
    problem, mtime_ns, mode, contents = value[:4]
    if type(contents) is not bytes or len(contents) > SMALL_FILE_BYTES_MAX:
        raise ValueError
    return SmallFile("" if problem == "" else _sentence(problem), _time(mtime_ns), _permissions(mode), contents)


def _refusal(value: Any) -> tuple[str, str]:
    if type(value) is not list:
        raise ValueError
    return _path(value[0]), _sentence(value[1])


_BY_ANNOTATION: Mapping[str, Callable[[Any], Any]] = {
    "bool": _boolean,
    "Number": _number,
    "Token": _bytes_of(0, 16),
    "Digest": _digest,
    "Body": _bytes_of(),
    "Sentence": _sentence,
    "Path": _path,
    "Time": _time,
    "Permissions": _permissions,
    "Changed": _listed(_change, ENTRIES_MAX),
    "Trees": _listed(_standing, TREES_MAX),
    "Refusals": _listed(_refusal, ENTRIES_MAX),
    "SmallFiles": _listed(_small_file, ENTRIES_MAX),
    "Paths": _listed(_path, ENTRIES_MAX),
}
_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "Sentence": _sentence_to_wire,
    "Changed": lambda changes: [_change_to_wire(each) for each in changes],
    "Trees": lambda trees: [_standing_to_wire(each) for each in trees],
    "SmallFiles": lambda files: [_small_file_to_wire(each) for each in files],
    "Refusals": lambda refusals: [_refusal_to_wire(each) for each in refusals],
}
_FIELDS: Mapping[type[Any], list[tuple[str, str]]] = {
    shape: [(each.name, str(each.type)) for each in fields(shape)] for shape in KINDS.values()
}
_READERS: Mapping[type[Any], list[tuple[str, Callable[[Any], Any]]]] = {
    shape: [(each.name, _BY_ANNOTATION[str(each.type)]) for each in fields(shape)] for shape in KINDS.values()
}
