"""The tables of the index, and how a path, an entry and a step are written in them.

A path is stored as its key: "/" becomes U+0001, which no name may hold and which sorts before all that one may. So keys
in the order of their bytes are a tree in the order of a scan: a folder, then what is in it, then the next name; and
what lies below a folder is one range of keys.

A change of the tables takes a new VERSION and a migration from the version before.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from agent.core.tree_entries import Entry, EntryKind
from agent.replica.file_tree import Fingerprint
from agent.replica.steps import Step, StepKind

APPLICATION_ID: Final = 0x70616978  # "paix": tells the file from another program's
VERSION: Final = 1
MIGRATIONS: Final[dict[int, str]] = {}  # version -> SQL that makes the next one of it

SEPARATOR: Final = "\x01"
_BEYOND: Final = "\x02"

KIND_CODES: Final = {EntryKind.FILE: 0, EntryKind.FOLDER: 1, EntryKind.LINK: 2}
KINDS: Final = {code: kind for kind, code in KIND_CODES.items()}
FILE, FOLDER, LINK = (KIND_CODES[kind] for kind in (EntryKind.FILE, EntryKind.FOLDER, EntryKind.LINK))

TABLES: Final = f"""
CREATE TABLE file_state(
    lost INTEGER NOT NULL               -- an index before this one was lost, and nobody has taken note yet
);
CREATE TABLE tree(
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    index_id BLOB NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT 0,
    seq_reserved INTEGER NOT NULL,      -- no seq above it was ever given, even if what came after is lost
    feed_begins INTEGER NOT NULL DEFAULT 0,
    files INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    peer_index_id BLOB NOT NULL DEFAULT x'',
    peer_seq INTEGER NOT NULL DEFAULT 0,
    whole INTEGER NOT NULL DEFAULT 0,   -- of the round: `incoming` holds all that the source has
    applying INTEGER NOT NULL DEFAULT 0,
    round_index_id BLOB,                -- the peer position that the round leads to
    round_seq INTEGER,
    root TEXT NOT NULL DEFAULT ''       -- which folder the rows were read from: device and inode
);
CREATE TABLE entry(
    tree INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER,
    target TEXT NOT NULL,
    digest BLOB,
    seq INTEGER NOT NULL,
    local INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    disk_size INTEGER NOT NULL,
    disk_mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    name_on_disk TEXT,                  -- NULL: the path itself
    PRIMARY KEY(tree, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_by_seq ON entry(tree, seq);
CREATE INDEX entry_by_digest ON entry(tree, digest) WHERE digest IS NOT NULL AND gone = 0;
CREATE INDEX entry_by_inode ON entry(tree, inode) WHERE digest IS NOT NULL;
CREATE INDEX entry_undigested ON entry(tree, key) WHERE digest IS NULL AND gone = 0 AND kind = {FILE};
CREATE INDEX entry_local ON entry(tree, key) WHERE local = 1;
CREATE INDEX entry_gone ON entry(tree, seq) WHERE gone = 1;
CREATE TRIGGER entry_made AFTER INSERT ON entry WHEN new.gone = 0 AND new.kind = {FILE} BEGIN
    UPDATE tree SET files = files + 1, bytes = bytes + new.size WHERE number = new.tree;
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF kind, size, gone ON entry
WHEN old.kind <> new.kind OR old.size <> new.size OR old.gone <> new.gone BEGIN
    UPDATE tree SET
        files = files + (new.gone = 0 AND new.kind = {FILE}) - (old.gone = 0 AND old.kind = {FILE}),
        bytes = bytes + (new.gone = 0 AND new.kind = {FILE}) * new.size
                      - (old.gone = 0 AND old.kind = {FILE}) * old.size
    WHERE number = new.tree;
END;
CREATE TABLE incoming(                  -- what the source has, as far as the round tells
    tree INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind INTEGER,                       -- NULL: nothing stands there
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER,
    target TEXT NOT NULL,
    digest BLOB,
    changed INTEGER NOT NULL,
    outcome INTEGER NOT NULL DEFAULT 0, -- what `finish_apply` does to the row by itself
    own_seq INTEGER,                    -- of the row when that was decided; NULL: there was none
    PRIMARY KEY(tree, key)
) WITHOUT ROWID;
CREATE TABLE step(
    tree INTEGER NOT NULL,
    number INTEGER NOT NULL,
    step BLOB NOT NULL,
    PRIMARY KEY(tree, number)
) WITHOUT ROWID;
CREATE TABLE staged(
    tree INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY(tree, name)
) WITHOUT ROWID;
CREATE INDEX staged_by_digest ON staged(tree, digest);
"""

TABLES_OF_A_TREE: Final = ("entry", "incoming", "step", "staged")
ALL_TABLES: Final = ("file_state", "tree", *TABLES_OF_A_TREE)


def key_of(path: str) -> str:
    """Returns the key of a path."""
    return path.replace("/", SEPARATOR)


def path_of(key: str) -> str:
    """Returns the path of a key."""
    return key.replace(SEPARATOR, "/")


def below(key: str) -> tuple[str, str]:
    """Returns the keys between which, ends excluded, lies what is below a path; the path "" is not above any."""
    return key + SEPARATOR, key + _BEYOND


def entry_values(entry: Entry) -> tuple[int, int, int, int | None, str, bytes | None]:
    """Returns kind, size, mtime_ns, mode, target and digest as they are stored."""
    return KIND_CODES[entry.kind], entry.size, entry.mtime_ns, entry.mode, entry.target, entry.digest or None


def entry_from(path: str, kind: int, size: int, mtime_ns: int, mode: int | None, target: str, digest: Any) -> Entry:
    """Returns the entry that was stored with these values."""
    return Entry(path, KINDS[kind], size, mtime_ns, mode, target, digest or b"")


def pack_step(step: Step) -> bytes:
    """Returns a step as it is stored in the journal."""
    entry, expected = step.entry, step.expected
    fields: list[object] = [
        step.kind.value,
        step.path,
        None if entry is None else [entry.path, *entry_values(entry)],
        step.staged,
        step.archive,
        None if expected is None else [expected.size, expected.mtime_ns, expected.inode, expected.ctime_ns],
        step.name_on_disk,
        step.reason,
    ]
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_step(packed: bytes) -> Step:
    """Returns the step that was stored."""
    kind, path, entry, staged, archive, expected, name_on_disk, reason = msgpack.unpackb(packed)
    return Step(
        StepKind(kind),
        path,
        None if entry is None else entry_from(*entry),
        staged,
        archive,
        None if expected is None else Fingerprint(*expected),
        name_on_disk,
        reason,
    )
