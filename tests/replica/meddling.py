"""Interferes with a round while it is put in place: somebody edits, holds a file, or the disk is full for a moment.

Edits are made between two calls of the disk, and never where the next call acts: between the look at what stands and
the call that replaces it lies an instant that no program can close.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.replica.random_edits import NAMES, Editor

if TYPE_CHECKING:
    from tests.replica.miniature_roles import Node

_ACTS_ON = {"replace": 1, "remove": 0, "link": 0, "make_folder": 0, "symlink": 1}  # which argument is in the tree


class Meddler:
    """Meddles in one way, until it chooses another."""

    def __init__(self, random: Random, editor: Editor) -> None:
        self._random = random
        self._editor = editor
        self._edits = 0.0
        self._full = 0.0
        self._held: str | None = None

    def choose(self) -> None:
        """Chooses what to do from now on."""
        self._edits = self._random.choice((0.0, 0.2, 0.5))
        self._full = self._random.choice((0.0, 0.0, 0.05))
        self._held = self._random.choice((None, *NAMES))

    def meanwhile(self, node: Node, name: str, arguments: tuple[object, ...]) -> None:
        """Called before each call that changes the node's disk; raises OSError instead of it."""
        staging = not node.changing
        if name == "write" and staging and self._random.random() < self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if name not in _ACTS_ON or staging:
            return
        path = Path(str(arguments[_ACTS_ON[name]]))
        if not path.is_relative_to(node.data):
            return
        parts = path.relative_to(node.data).parts
        if not parts or parts[0] == ".pair-agent":
            return
        if name in ("replace", "remove") and path.name == self._held:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if self._random.random() < self._edits:
            elsewhere = node.data / self._random.choice(NAMES)
            if elsewhere.name != parts[0] and elsewhere.is_dir() and not elsewhere.is_symlink():
                before = node.contents()
                self._editor.edit(elsewhere)
                node.ledger.tell(f"{node.name}: while a round is put in place:")
                node.ledger.edited(node.name, before, node.contents())
