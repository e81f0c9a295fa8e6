"""A folder of a test as a tree, and short ways to change it and to look at it."""

from __future__ import annotations

import os
from pathlib import Path

from agent.config.model import TreeKind
from agent.core.tree_entries import Entry, EntryKind
from agent.replica.file_tree import Fingerprint, Found, Refused, TreeRoot
from agent.replica.scanning import Scanner

TREE = "flows"
WRITTEN_NS = 1_700_000_000_123_456_700  # a time with a part of a second, that every file system can hold


def root_at(path: Path, *exclude: str, single_file: bool = False) -> TreeRoot:
    """Returns the root of a tree at `path`."""
    return TreeRoot(TREE, TreeKind.DATA, path, exclude, single_file)


def write(path: Path, contents: str = "contents", mtime_ns: int | None = WRITTEN_NS) -> Path:
    """Writes a file, folders included, and sets its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents.encode())
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def scan(root: TreeRoot, under: str = "") -> tuple[list[str], dict[str, str]]:
    """Returns the paths that a scan finds, in its order, and what it refuses with the reasons."""
    found: list[str] = []
    refused: dict[str, str] = {}
    for item in Scanner().scan(root, under):
        if isinstance(item, Refused):
            refused[item.path] = item.reason
        else:
            found.append(item.entry.path)
    return found, refused


def found_file(path: str, *, size: int = 1, mtime_ns: int = WRITTEN_NS, inode: int = 1, ctime_ns: int = 1) -> Found:
    """Returns what a scan would find of a file that nobody made."""
    entry = Entry(path, EntryKind.FILE, size, mtime_ns, 0o644)
    return Found(entry, Fingerprint(size, mtime_ns, inode, ctime_ns), path)


def found_folder(path: str, inode: int = 1000) -> Found:
    """Returns what a scan would find of a folder that nobody made."""
    return Found(Entry(path, EntryKind.FOLDER, mode=0o755), Fingerprint(0, 0, inode, 0), path)
