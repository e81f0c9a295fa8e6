"""What a sink does at one path so that it follows its source: a function of what it has and what it is to have.

The sink is the node that receives; the source is the node whose trees are followed. Knows nothing of disks, indexes or
transfers, and decides each path by itself, in any order: of the rest of the tree it is told only `Around`.

Invariants, for decisions that are carried out in the order below:

* MIRROR and OVERWRITE: the sink's tree equals the source's afterwards.
* In every mode, what was `local` at the sink stands in its place afterwards, or in the archive.
* MERGE: everything `local` at the sink stands as it stood; what the source changed at the same paths is in the archive.

The order, which is a contract with those who carry decisions out:

1. Copy to the archive whatever stands at a path with `archive`. A folder is never archived: each entry in it has a row
   and a decision of its own, and a folder that goes is gone at the source with all that was in it.
2. Remove, deepest first: what has the deed REMOVE, and what stands where another kind of entry is to come. By then a
   folder is empty, except for what was not decided about: excluded and refused names, files written a moment ago. If
   the folder only goes, it stays with these in it, and that is told. If something else is to stand there, these go to
   the archive.
3. Make folders, parents first. FETCH, MAKE_FOLDER and MAKE_LINK make folders that are missing above them, for in a
   MERGE a folder that was removed here may come back with what is new in it.
4. Put files and links in place, each at once: never a moment with half of one.
5. Set attributes, deepest first, also those of new folders: permission bits may forbid to put anything into a folder.

What becomes of the rows: NOTHING leaves the sink's row as it is; ADOPT leaves it too, but no longer `local`. KEEP and
CONFLICT make it `local`, and where there is none they note one of a removed entry, so that the other node is told when
the roles have turned. All others take the wanted entry over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.core.tree_entries import Entry, EntryKind


class PlanMode(StrEnum):
    """What becomes of the sink's own changes."""

    MIRROR = "mirror"  # they go to the archive
    OVERWRITE = "overwrite"  # so does all else that is replaced or removed
    MERGE = "merge"  # they stay: the sink is the primary, and both nodes wrote on their own


@dataclass(frozen=True, slots=True)
class Have:
    """The sink's row of a path. `entry` None: it was removed here, and the row remembers that."""

    entry: Entry | None
    local: bool  # changed here since both nodes last had the same, or never synchronised


@dataclass(frozen=True, slots=True)
class Want:
    """The source's row of a path. `entry` None: nothing is there."""

    path: str
    entry: Entry | None
    changed: bool  # `local` at the source


@dataclass(frozen=True, slots=True)
class Around:
    """What stands at the sink above and below a path, by its rows. Only MERGE asks, so the others may leave it out."""

    local_above: bool = False  # a local file or link stands where this path needs a folder
    local_below: bool = False  # something local stands in this folder, at any depth; removed entries do not count


class Deed(StrEnum):
    """What is to be done at a path."""

    NOTHING = "nothing"
    ADOPT = "adopt"  # both have the same: the row is not local any more
    ATTRIBUTES = "attributes"  # same contents: set permission bits and time
    FETCH = "fetch"  # a file's contents, from the source or from a file here that has them
    MAKE_FOLDER = "make folder"
    MAKE_LINK = "make link"
    REMOVE = "remove"
    KEEP = "keep"  # MERGE: the own version, or its absence, stays
    CONFLICT = "conflict"  # MERGE: so, and the source's file or link goes to the archive here


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do at a path. `archive`: the own version goes to the archive first. `reason`: why, if own work is met."""

    deed: Deed
    archive: bool = False
    reason: str = ""


NOTHING = Decision(Deed.NOTHING)
ADOPT = Decision(Deed.ADOPT)
ATTRIBUTES = Decision(Deed.ATTRIBUTES)
NOWHERE = Around()

_MAKING = {EntryKind.FILE: Deed.FETCH, EntryKind.FOLDER: Deed.MAKE_FOLDER, EntryKind.LINK: Deed.MAKE_LINK}


def decide(have: Have | None, want: Want, mode: PlanMode, around: Around = NOWHERE) -> Decision:
    """Returns what the sink does at the path of `want`. `have` None: it has no row of that path.

    Contents are the same only where both digests are known. One exception: if neither node changed the file since both
    had the same, size and time are believed and the source need not read it again. A file of the sink that was not read
    yet is fetched, so a sink reads its files of the wanted size before it plans.
    """
    own = have.entry if have is not None else None
    local = have is not None and have.local
    if mode is PlanMode.MERGE:
        if local:
            return _merged(own, want)
        if (clash := _clash(own, want, around)) is not None:
            return clash
    if want.entry is None:
        return _removed(own, local, mode)
    if own is None:
        return Decision(_MAKING[want.entry.kind])
    if _same(own, local, want):
        return _settled(own, want.entry, local)
    return _replaced(own, local, _MAKING[want.entry.kind], mode)


def _removed(own: Entry | None, local: bool, mode: PlanMode) -> Decision:
    if own is None:
        return ADOPT if local else NOTHING
    return _replaced(own, local, Deed.REMOVE, mode)


def _replaced(own: Entry, local: bool, deed: Deed, mode: PlanMode) -> Decision:
    if own.kind is EntryKind.FOLDER or not (local or mode is PlanMode.OVERWRITE):
        return Decision(deed)
    reason = "changed on this node only" if local else "overwritten as a whole"
    return Decision(deed, archive=True, reason=reason)


def _same(own: Entry, local: bool, want: Want) -> bool:
    """True if the sink's contents are the wanted ones."""
    wanted = want.entry
    if wanted is None or own.kind is not wanted.kind:
        return False
    if own.kind is EntryKind.FILE and not wanted.digest and own.digest:
        untouched = not local and not want.changed
        return untouched and own.size == wanted.size and own.mtime_ns == wanted.mtime_ns
    return own.same_contents(wanted)


def _settled(own: Entry, wanted: Entry, local: bool) -> Decision:
    """The contents are the same. A link has no attributes of its own: setting them would reach what it leads to."""
    if own.kind is not EntryKind.LINK and not own.same_attributes(wanted):
        return ATTRIBUTES
    return ADOPT if local else NOTHING


def _merged(own: Entry | None, want: Want) -> Decision:
    """MERGE, and this node changed or removed the entry: that stays, whatever the source did."""
    wanted = want.entry
    if own is None and wanted is None:
        return ADOPT
    if own is not None and wanted is not None and own.same_contents(wanted):
        return ADOPT if own.kind is EntryKind.LINK or own.same_attributes(wanted) else Decision(Deed.KEEP)
    if not want.changed:
        return Decision(Deed.KEEP)
    if wanted is None:
        return Decision(Deed.KEEP, reason="changed on this node, removed on the other")
    return _kept_against(wanted, "changed on both nodes" if own else "removed on this node, changed on the other")


def _clash(own: Entry | None, want: Want, around: Around) -> Decision | None:
    """MERGE, and this node did not touch the entry itself: what of its own work above or below stands in the way."""
    wanted = want.entry
    if wanted is not None and around.local_above:
        return _kept_against(wanted, "this node has a file in place of the folder above")
    if around.local_below and own is not None and own.kind is EntryKind.FOLDER:
        if wanted is None:
            return Decision(Deed.KEEP, reason="this node changed something in the folder")
        if wanted.kind is not EntryKind.FOLDER:
            return _kept_against(wanted, "this node changed something in the folder")
    return None


def _kept_against(wanted: Entry, reason: str) -> Decision:
    """The own version stays; the source's goes to the archive, except for a folder, which holds nothing itself."""
    return Decision(Deed.KEEP if wanted.kind is EntryKind.FOLDER else Deed.CONFLICT, reason=reason)
