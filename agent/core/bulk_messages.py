"""The messages of the bulk connection and their exact shape (PROTOCOL.md, section 11).

A payload is a msgpack array `[kind, fields...]`: positions, not names, because there are many of them and they are
small. `decode_untrusted` admits nothing outside the bounds below. Kind 1 is the Join of `agent.link.bulk`; unknown
kinds decode to None. Knows nothing of connections or disks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import msgpack

from agent.core.errors import PeerError
from agent.core.tree_entries import DIGEST_BYTES, Entry, EntryKind

ENTRIES_MAX = 256  # entries in one message
TREES_MAX = 64
SENTENCE_CHARACTERS_MAX = 500
PATH_BYTES_MAX = 4096  # what may be sent; what may be stored is less (tree_names)
BODY_BYTES_MAX = 512 * 1024
SMALL_FILE_BYTES_MAX = 64 * 1024  # travels within one message, with others
GROWN = "it has grown"  # the problem of a file that is not small any more
INTEGER_MAX = 2**63 - 1

Number: TypeAlias = int
Token: TypeAlias = bytes  # 16 bytes, or empty
Digest: TypeAlias = bytes  # 32 bytes, or empty
Body: TypeAlias = bytes
Sentence: TypeAlias = str
Path: TypeAlias = str
Time: TypeAlias = int  # nanoseconds since 1970, may be negative
Permissions: TypeAlias = int  # 0 to 0o7777; -1: unknown
Changed: TypeAlias = tuple["Change", ...]
Trees: TypeAlias = tuple["Standing", ...]
Refusals: TypeAlias = tuple[tuple[str, str], ...]
Paths: TypeAlias = tuple[str, ...]
SmallFiles: TypeAlias = tuple["SmallFile", ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What stands at a path of the source now: `entry`, or None for nothing; `changed`: written there since both last
    had the same."""

    path: str
    entry: Entry | None
    changed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """One tree as its node knows it: `shape` "folder", "file" or "missing"; `index` names its numbering of changes."""

    name: str
    kind: str
    shape: str
    index: bytes
    files: int
    size: int
    problem: str


@dataclass(frozen=True, slots=True)
class Hold:
    """First message of both sides: what they have, and the version of it (core/tree_versions)."""

    windows: bool
    data_term: Number
    alone: bool
    base_term: Number
    offered_term: Number
    trees: Trees


@dataclass(frozen=True, slots=True)
class Follow:
    """Sink: send what changed in this tree after `after` of the numbering `index` (empty: everything), then go on.
    `full`: read all contents again first. `number` is repeated in all that this brings about: what still comes of an
    earlier Follow does not count."""

    number: Number
    tree: Sentence
    index: Token
    after: Number
    full: bool


@dataclass(frozen=True, slots=True)
class Unfollow:
    """Sink: send no more changes of any tree."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Source: some of what stands in the tree; a Mark ends them."""

    number: Number
    tree: Sentence
    changes: Changed


@dataclass(frozen=True, slots=True)
class Mark:
    """Source: the changes of this tree are told up to `seq` of the numbering `index`. `whole`: they are all that
    stands there. `final`: answers nothing else will follow, for the workload is stopped (0: it goes on). The sink
    answers with Applied before the next changes come."""

    number: Number
    tree: Sentence
    index: Token
    seq: Number
    whole: bool
    final: Number
    term: Number
    files: Number
    size: Number


@dataclass(frozen=True, slots=True)
class Ask:
    """Sink: tell what stands at these paths now; Changes and a Mark follow."""

    tree: Sentence
    paths: Paths


@dataclass(frozen=True, slots=True)
class Applied:
    """Sink: everything up to `seq` is in place and durable, but what is refused. `final` as in the Mark."""

    number: Number
    tree: Sentence
    seq: Number
    final: Number
    refused: Refusals
    refused_total: Number
    free: Number  # bytes that are free where the tree stands


@dataclass(frozen=True, slots=True)
class Troubled:
    """Either: this tree cannot be brought over now; the sink tries again."""

    tree: Sentence
    sentence: Sentence
    final: Number


@dataclass(frozen=True, slots=True)
class Fetch:
    """Sink: send the contents of this file. `digest`: expected, empty for whatever it is now. `signature`: bytes of
    the signature of an older version, which follow as data."""

    number: Number
    tree: Sentence
    path: Path
    digest: Digest
    signature: Number


@dataclass(frozen=True, slots=True)
class FetchSmall:
    """Sink: send these files, each of at most SMALL_FILE_BYTES_MAX bytes, as they are now."""

    number: Number
    tree: Sentence
    paths: Paths


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A whole small file. `problem` not empty: it could not be read (GROWN: fetch it as a big one), and the rest means
    nothing."""

    problem: str
    mtime_ns: int
    mode: int
    contents: bytes


@dataclass(frozen=True, slots=True)
class Files:
    """Source: the next files of a FetchSmall, in its order."""

    number: Number
    files: SmallFiles


@dataclass(frozen=True, slots=True)
class Begin:
    """Source: a file of about this size follows as data, Copy and Zeros, until End."""

    number: Number
    size: Number


@dataclass(frozen=True, slots=True)
class Copy:
    """Source: these bytes of the sink's older version."""

    offset: Number
    length: Number


@dataclass(frozen=True, slots=True)
class Zeros:
    """Source: so many zero bytes."""

    length: Number


@dataclass(frozen=True, slots=True)
class End:
    """Source: the file is complete; or `problem`: what was sent of it is void."""

    number: Number
    problem: Sentence
    size: Number
    digest: Digest
    mtime_ns: Time
    mode: Permissions


@dataclass(frozen=True, slots=True)
class Progress:
    """Sink: how far the present round is."""

    done_files: Number
    total_files: Number
    done_bytes: Number
    total_bytes: Number


@dataclass(frozen=True, slots=True)
class Restart:
    """Either: an operator wants the trees compared anew; the sink follows again. `full`: by contents."""

    full: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Either: "dry-run" or "test", answered by Reply with the same number."""

    number: Number
    what: Sentence


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer: msgpack of plain values."""

    number: Number
    body: Body


BulkMessage: TypeAlias = (
    Hold
    | Follow
    | Unfollow
    | Changes
    | Mark
    | Ask
    | Applied
    | Troubled
    | Fetch
    | FetchSmall
    | Files
    | Begin
    | Copy
    | Zeros
    | End
    | Progress
    | Restart
    | Question
    | Reply
)

KINDS: Mapping[int, type[Any]] = {
    2: Hold,
    3: Follow,
    4: Unfollow,
    5: Changes,
    6: Mark,
    7: Ask,
    8: Applied,
    9: Troubled,
    10: Fetch,
    11: FetchSmall,
    12: Files,
    13: Begin,
    14: Copy,
    15: Zeros,
    16: End,
    17: Progress,
    18: Restart,
    19: Question,
    20: Reply,
}
_NUMBERS = {shape: number for number, shape in KINDS.items()}


def encode(message: BulkMessage) -> bytes:
    """Returns the payload of `message`."""
    shape = type(message)
    values = [_to_wire(getattr(message, name)) for name, _ in _READERS[shape]]
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
        except (ValueError, TypeError, IndexError) as error:
            raise PeerError(f"the other node sent {shape.__name__} with a wrong {name}") from error
    return shape(*read)  # type: ignore[no-any-return]  # built from KINDS: a BulkMessage


def _to_wire(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_wire(each) for each in value]
    if isinstance(value, Change):
        return _change_to_wire(value)
    if isinstance(value, SmallFile):
        return [value.problem, value.mtime_ns, value.mode, value.contents]
    if isinstance(value, Standing):
        return [value.name, value.kind, value.shape, value.index, value.files, value.size, value.problem]
    return value[:PATH_BYTES_MAX] if isinstance(value, str) else value


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
    return SmallFile(_sentence(problem) if problem else "", _time(mtime_ns), _permissions(mode), contents)


def _refusal(value: Any) -> tuple[str, str]:
    return _sentence(value[0]), _sentence(value[1])


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
_READERS: Mapping[type[Any], list[tuple[str, Callable[[Any], Any]]]] = {
    shape: [(each.name, _BY_ANNOTATION[str(each.type)]) for each in fields(shape)] for shape in KINDS.values()
}
