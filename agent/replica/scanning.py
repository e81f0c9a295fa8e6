"""Looks at a tree on the disk and tells what stands in it: names, kinds, sizes and times, never contents.

Depth first, a folder before what is in it, each folder in the order of code points; so two scans can be merged without
holding either. Memory holds the names of the folders on the way down and of nothing else. Links are never followed.
What cannot be replicated is told by name with its reason, and the rest goes on. What could not be looked at is told
apart from what is not there: an unreadable folder is never an empty one, and a tree that is missing is an error.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from stat import S_ISREG
from typing import Final

import pathspec

from agent.core.errors import TreeError
from agent.core.tree_entries import Entry, EntryKind
from agent.core.tree_names import (
    DEPTH_MAX,
    PATH_BYTES_MAX,
    RESERVED_FOLDER,
    collision_key,
    normal_name,
    normal_target,
    refusal_of_link_untrusted,
    refusal_of_name,
    refusal_of_path_untrusted,
)
from agent.replica.file_tree import (
    FILE_MODE_BITS,
    FOLDER_MODE_BITS,
    Found,
    Refused,
    TreeRoot,
    fingerprint_of,
)
from agent.replica.open_folder import OpenFolder, is_junction

_FILE, _FOLDER = EntryKind.FILE, EntryKind.FOLDER  # looking up a member of an enum takes its time
_KEEPS_MODES: Final = sys.platform != "win32"
_Name = tuple[str, str, os.DirEntry[str]]  # normal, as on disk, and what the folder says of it; sorts by the first two


class _Level:
    """One folder on the way down: what is left of it, and which names are taken in it."""

    __slots__ = ("disk_prefix", "folder", "left", "prefix", "taken")

    def __init__(self, folder: OpenFolder, prefix: str, disk_prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix  # of a path in it: "" or ending in "/"
        self.disk_prefix = disk_prefix
        self.left: Iterator[_Name] = iter(())
        self.taken: dict[str, str] = {}  # collision key -> the name that has it


class Scanner:
    """Scans trees; keeps nothing of them but their compiled `exclude` patterns. For one thread at a time."""

    def __init__(self) -> None:
        self._excludes: dict[tuple[str, ...], pathspec.GitIgnoreSpec] = {}

    def scan(self, root: TreeRoot, under: str = "") -> Iterator[Found | Refused]:
        """Yields what stands at and below `under` ("" for the whole tree), in the order described above.

        Yields nothing if nothing that counts stands at `under`. Raises TreeError, also in the middle, if the root is
        missing, of another kind than `root` says, or cannot be read: then what was yielded says nothing of the rest.
        """
        return self._scan_file(root) if root.single_file else self._scan_folder(root, under)

    def excluded(self, root: TreeRoot, path: str, *, folder: bool) -> bool:
        """Tells whether the tree's patterns leave `path` (a folder, or not) out, by itself or by a folder above it."""
        patterns = self._patterns(root)
        if patterns is None or root.single_file:
            return False
        names = path.split("/")
        above = ("/".join(names[:depth]) + "/" for depth in range(1, len(names)))
        return any(patterns.match_file(each) for each in above) or patterns.match_file(path + "/" if folder else path)

    def _patterns(self, root: TreeRoot) -> pathspec.GitIgnoreSpec | None:
        if not root.exclude:
            return None
        if root.exclude not in self._excludes:
            try:
                self._excludes[root.exclude] = pathspec.GitIgnoreSpec.from_lines(root.exclude)
            except ValueError as error:
                raise TreeError(f'tree "{root.name}": `exclude` holds no gitignore pattern: {error}.') from error
        return self._excludes[root.exclude]

    def _scan_file(self, root: TreeRoot) -> Iterator[Found | Refused]:
        try:
            status = os.lstat(root.disk_path())
        except OSError as error:
            raise _unusable(root, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise TreeError(
                f'tree "{root.name}": {root.path} was a file, and is {_what(status)} now. Put the file back, or '
                "restart the agent if the tree is meant to change."
            )
        yield _found_file("", status, "")

    def _scan_folder(self, root: TreeRoot, under: str) -> Iterator[Found | Refused]:
        patterns = self._patterns(root)
        levels: list[_Level] = []
        try:
            try:
                levels.append(_Level(OpenFolder.open_root(root), "", ""))
                identity = levels[0].folder.own_status().st_ino
                names = _names(levels[0].folder)
            except OSError as error:
                raise _unusable(root, error) from error
            if under:
                yield from self._go_to(levels, names, under.split("/"), patterns)
            else:
                levels[0].left = iter(sorted(names))
            while levels:
                level, depth = levels[-1], len(levels)
                for name in level.left:
                    judged = self._judge(level, name, depth, patterns)
                    if judged is not None:
                        yield judged
                        if type(judged) is Found and judged.entry.kind is _FOLDER:
                            yield from self._enter(levels, name, judged)
                            if len(levels) > depth:
                                break
                else:
                    levels.pop().folder.close()
            self._require_same_root(root, identity)
        finally:
            for level in levels:
                level.folder.close()

    def _go_to(
        self, levels: list[_Level], names: Iterable[_Name], way: list[str], patterns: pathspec.GitIgnoreSpec | None
    ) -> Iterator[Found | Refused]:
        """Goes down along `way`, and yields what stands at its end; the folder there, if it is one, is entered."""
        for number, step in enumerate(way, start=1):
            # A name counts as it would in a scan of its whole folder, where another one may have taken it before.
            key = collision_key(step)
            for name in sorted(each for each in names if collision_key(each[0]) == key):
                judged = self._judge(levels[-1], name, number, patterns)
                if name[0] == step:
                    break
            else:
                return
            if judged is None:
                return
            if number == len(way) or (isinstance(judged, Refused) and judged.unreadable):
                yield judged
            if isinstance(judged, Refused) or judged.entry.kind is not EntryKind.FOLDER:
                return
            yield from self._enter(levels, name, judged)
            names, levels[-1].left = (levels[-1].left, iter(())) if number < len(way) else ((), levels[-1].left)

    def _enter(self, levels: list[_Level], name: _Name, found: Found) -> Iterator[Refused]:
        """Puts the folder `found` on top of `levels`; yields why it cannot be read, if so."""
        path = found.entry.path
        try:
            # Also "not found": it was there a moment ago. Whether it was removed or moved, the next scan will tell.
            level = _Level(levels[-1].folder.enter(name[1]), path + "/", found.name_on_disk + "/")
        except OSError as error:
            yield Refused(path, _why_unreadable(error), unreadable=True)
            return
        levels.append(level)
        try:
            level.left = iter(sorted(_names(level.folder)))
        except OSError as error:
            yield Refused(path, _why_unreadable(error), unreadable=True)

    def _judge(
        self, level: _Level, name: _Name, depth: int, patterns: pathspec.GitIgnoreSpec | None
    ) -> Found | Refused | None:
        """Returns what a name in a folder is; None if it does not count: ours, excluded, or gone meanwhile."""
        normal, on_disk, entry = name
        path = level.prefix + normal
        if depth == 1 and _is_own(normal):
            return None
        try:
            if patterns is not None:
                is_folder = entry.is_dir(follow_symlinks=False)
                if patterns.match_file(path + "/" if is_folder else path):
                    return None
            if (refusal := refusal_of_name(normal) or _refusal_of_place(path, depth)) is not None:
                return Refused(_printable(path), refusal)
            found = _found(level, on_disk, path, level.folder.entry_status(entry))
        except FileNotFoundError:
            return None
        except OSError as error:
            found = Refused(path, _why_unreadable(error), unreadable=True)
        if type(found) is Refused and not found.unreadable:
            return found
        key = collision_key(normal)
        if key in level.taken:
            return Refused(path, f'Windows takes its name for the same as "{level.taken[key]}", which is replicated')
        level.taken[key] = normal
        return found

    def _require_same_root(self, root: TreeRoot, identity: int) -> None:
        """Raises TreeError if another folder, or none, stands at the root since the scan began."""
        try:
            same = os.stat(root.disk_path()).st_ino == identity
        except OSError as error:
            raise _unusable(root, error) from error
        if not same:
            raise TreeError(f'tree "{root.name}": {root.path} was replaced while it was being read.')


def _names(folder: OpenFolder) -> Iterable[_Name]:
    return ((normal_name(entry.name), entry.name, entry) for entry in folder.entries())


def _found(level: _Level, on_disk: str, path: str, status: os.stat_result) -> Found | Refused:
    mode = status.st_mode
    if S_ISREG(mode):
        return _found_file(path, status, level.disk_prefix + on_disk)
    if stat.S_ISDIR(mode) and not is_junction(status):
        entry = Entry(path, EntryKind.FOLDER, mode=mode & FOLDER_MODE_BITS if _KEEPS_MODES else None)
    elif stat.S_ISLNK(mode):
        target = normal_target(_with_slashes(level.folder.link_target(on_disk)))
        refusal = refusal_of_link_untrusted(path, target)
        if refusal is not None:
            return Refused(path, refusal)
        entry = Entry(path, EntryKind.LINK, target=target)
    else:
        return Refused(path, f"it is {_what(status)}; only files, folders and symbolic links are replicated")
    return Found(entry, fingerprint_of(status), level.disk_prefix + on_disk)


def _found_file(path: str, status: os.stat_result, name_on_disk: str) -> Found:
    fingerprint = fingerprint_of(status)
    bits = status.st_mode & FILE_MODE_BITS if _KEEPS_MODES else None
    return Found(Entry(path, _FILE, fingerprint.size, fingerprint.mtime_ns, bits), fingerprint, name_on_disk)


def _with_slashes(target: str) -> str:
    if sys.platform == "win32":
        return target.removeprefix("\\\\?\\").replace("\\", "/")
    return target


def _is_own(normal: str) -> bool:
    """Tells whether a name in the root is the agent's own folder; what only resembles it is refused later."""
    return normal == RESERVED_FOLDER or (sys.platform == "win32" and collision_key(normal) == RESERVED_FOLDER)


def _refusal_of_place(path: str, depth: int) -> str | None:
    if depth == 1:
        return refusal_of_path_untrusted(path)  # knows what resembles the agent's own folder
    if depth > DEPTH_MAX:
        return f"it lies {depth} folders deep, and {DEPTH_MAX} are allowed"
    if len(path) > PATH_BYTES_MAX or (not path.isascii() and len(path.encode()) > PATH_BYTES_MAX):
        return f"its path is longer than {PATH_BYTES_MAX} bytes"
    return None


def _what(status: os.stat_result) -> str:
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return "a junction" if is_junction(status) else kinds.get(stat.S_IFMT(status.st_mode), "of an unknown kind")


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "it was moved, removed or replaced while it was being read"
    return f"it cannot be read: {error.strerror or error}"


def _unusable(root: TreeRoot, error: OSError) -> TreeError:
    """Returns the error for a root that is missing, of another kind, or unreadable; it is never an empty tree."""
    if isinstance(error, FileNotFoundError):
        what, way_out = "does not exist", "Put it back or make it anew; if it lies on another disk, mount that"
    elif isinstance(error, NotADirectoryError):
        what = "was a folder, and is none now"
        way_out = "Put the folder back, or restart the agent if the tree is meant to change"
    else:
        what, way_out = f"cannot be read: {error.strerror or error}", "Mend that"
    return TreeError(f'tree "{root.name}": {root.path} {what}. {way_out}; until then nothing of it is replicated.')


def _printable(path: str) -> str:
    """Returns a path that was refused in a form that can be written into a log and sent as UTF-8."""
    shown = (each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in path)
    return "".join(shown)
