"""Compares the trees of both nodes file by file: names and every byte. Blocks; knows nothing of who wrote what.

What the agents keep for themselves in a tree is left out, as it is in replication.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.core.tree_names import RESERVED_FOLDER


@dataclass(frozen=True)
class Comparison:
    """How many files, and bytes in them, stand on either node, and the paths that are not the same on both."""

    files: int
    size_bytes: int
    differing: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


def compare_trees(one: Path, other: Path) -> Comparison:
    """Compares two folders that may change meanwhile: what is gone when it is read differs. Raises OSError."""
    paths = sorted(_files(one) | _files(other))
    differing = []
    size = 0
    for path in paths:
        contents, others = _contents(one / path), _contents(other / path)
        size += len(contents or others or b"")
        if contents is None or contents != others:
            differing.append(path)
    return Comparison(len(paths), size, tuple(differing))


def _files(root: Path) -> set[str]:
    found = set()
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != RESERVED_FOLDER]
        found |= {os.path.relpath(os.path.join(place, name), root) for name in names}
    return found


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
