"""The messages of the bulk connection and their exact shape (PROTOCOL.md, section 11).

A payload is a msgpack array `[kind, fields...]`: positions, not names, because there are many of them and they are
small. `bulk_wire` reads and writes them. Kind 1 is the Join of `agent.link.bulk`. Knows neither connections nor disks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from agent.core.tree_entries import Entry

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


class Look(IntEnum):
    """How a node makes sure of what stands in a tree, before it tells or compares."""

    NONE = 0  # what notifications and earlier scans found is believed
    METADATA = 1  # names, kinds, sizes, times
    CONTENTS = 2  # every file is read again


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
    `look`: a Look at the disk that comes first. `number` is repeated in all that this brings about: what still comes
    of an earlier Follow does not count."""

    number: Number
    tree: Sentence
    index: Token
    after: Number
    look: Number


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
