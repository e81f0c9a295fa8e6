"""What a round at the sink does to a tree, step by step, and what came of each step: plain values.

The journal of the index holds the steps, in any order; `applying` carries them out in the one that is safe. Knows no
disk and no index.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.core.tree_entries import Entry
from agent.replica.file_tree import Fingerprint


class StepKind(StrEnum):
    """What one step does. Kinds are carried out in this order, so that a place is clear before it is taken."""

    REMOVE = "remove"  # a file, a link, or a folder: a folder that still holds what no step removes stays
    MAKE_FOLDER = "make-folder"  # whatever else stands there gives way
    PUT_FILE = "put-file"  # the staged file takes the place of whatever stands there, at once
    ARCHIVE_STAGED = "archive-staged"  # the staged file, the other node's version, goes to the archive; nothing else
    MAKE_LINK = "make-link"  # whatever else stands there gives way
    ATTRIBUTES = "attributes"  # permission bits and time of what stands there already


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `path` is the entry's path in the tree, "" for the only file of a single-file tree."""

    kind: StepKind
    path: str
    entry: Entry | None = None  # what stands at `path` afterwards; of ARCHIVE_STAGED what is archived; of REMOVE None
    staged: str = ""  # name of the file in the staging folder: PUT_FILE and ARCHIVE_STAGED
    archive: bool = False  # what stands at `path` goes to the archive before it is replaced or removed
    expected: Fingerprint | None = None  # what stands at `path` when the step is planned; None: nothing does
    # Where `path` is or will be on disk, below the root with "/" between names, if that differs from `path`: a name
    # that exists may be spelled in another Unicode form. A new path below a folder of such a name needs it too.
    name_on_disk: str = ""
    reason: str = ""  # why it is archived, in a few words: part of the name of the archive's batch

    @property
    def place(self) -> str:
        """The path on disk, relative to the root."""
        return self.name_on_disk or self.path


_RANK = {kind: rank for rank, kind in enumerate(StepKind)}


def step_order(step: Step) -> tuple[int, int, str]:
    """Returns the key that sorts steps as they are carried out, for whoever shows them."""
    depth = step.place.count("/")
    return _RANK[step.kind], -depth if step.kind is StepKind.REMOVE else depth, step.path


@dataclass(frozen=True, slots=True)
class Applied:
    """A step that was carried out, now or before a crash: what the index shall hold for `path`.

    `entry` None: nothing stands there any more. `fingerprint` is of what was put there; if somebody changed it since,
    it is all zeros, so that the next scan finds a change.
    """

    path: str
    entry: Entry | None
    fingerprint: Fingerprint | None
    name_on_disk: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A step that could not be carried out: what stood at `path` still stands. `reason`: a clause, no period."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Archived:
    """A version that went to the archive: `item` is its name there (see `archive.Item`)."""

    path: str
    item: str
    reason: str


Outcome = Applied | Blocked | Archived
