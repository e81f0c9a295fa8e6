"""What a tree consists of: entries, each a file, a folder or a link, by its path within the tree.

The same words on both nodes, in the index and on the wire. Knows nothing of disks: how an entry looks in a file system
is the business of `agent.replica`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DIGEST_BYTES = 32  # BLAKE3


class EntryKind(StrEnum):
    """What stands at a path."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"  # symbolic


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at `path`; an absent entry is told apart, as None beside its path.

    `path` is relative to the tree's root, UTF-8 NFC with "/" between names. The entry of a tree that is a single file
    has the path "". The root folder of a tree is no entry.
    """

    path: str
    kind: EntryKind
    size: int = 0  # bytes of a file
    mtime_ns: int = 0  # of a file, since 1970
    mode: int | None = None  # POSIX permission bits of a file or folder; None: the node it comes from has none
    target: str = ""  # of a link, as it is stored: relative, with "/"
    digest: bytes = b""  # BLAKE3 of a file's contents, DIGEST_BYTES; empty: not read yet

    def same_contents(self, other: Entry | None) -> bool:
        """True if both are known to hold the same, permission bits and times aside."""
        if other is None or self.kind is not other.kind:
            return False
        if self.kind is EntryKind.FILE:
            return bool(self.digest) and self.size == other.size and self.digest == other.digest
        return self.target == other.target

    def same_attributes(self, other: Entry) -> bool:
        """True if permission bits (where both know them) and time agree."""
        modes_agree = self.mode is None or other.mode is None or self.mode == other.mode
        return modes_agree and (self.kind is not EntryKind.FILE or self.mtime_ns == other.mtime_ns)
