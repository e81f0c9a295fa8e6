"""Single changes within a tree: a file put in place, a link made, a folder made or removed, attributes given.

Knows how, not when or why: order, archive and idempotence are the business of `applying`. Collects which folders were
touched, for the one flush at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from agent.core.tree_entries import Entry
from agent.replica.archive_files import copy, is_same_version
from agent.replica.file_system import CAN_SYNC_ALL, FileSystem, below, make_folders, settable_time
from agent.replica.file_tree import FILE_MODE_BITS, FOLDER_MODE_BITS, TreeRoot
from agent.replica.obstacles import lock_on
from agent.replica.staging import Staging
from agent.replica.standing import Patience, Standing, is_folder, status_of
from agent.replica.steps import Step

FLUSH_EACH_MAX: Final = 8  # folders; for more, one flush of the whole file system is faster
LINK_NAME: Final = "link"  # in the staging folder, for a moment
ACROSS_PREFIX: Final = ".pair-agent-"  # beside a file on another disk than the root, for a moment
_OWNER_MAY_ALL: Final = stat.S_IWUSR | stat.S_IXUSR


class Placing:
    """Changes below one root; as a context manager it holds what the flush at the end needs."""

    def __init__(
        self, root: TreeRoot, standing: Standing, staging: Staging, files: FileSystem, patience: Patience
    ) -> None:
        self._standing = standing
        self._staging = staging
        self._files = files
        self._patience = patience
        self._top = os.path.dirname(standing.base) if root.single_file else standing.base
        self.has_root = os.path.isdir(self._top)
        self._touched: set[str] = set()
        self._descriptor: int | None = None  # open from before the first change, to be told of every loss
        self._owners: dict[str, tuple[int, int]] = {}  # of folders
        self._gives_owner = sys.platform != "win32" and os.geteuid() == 0

    def __enter__(self) -> Placing:
        if self.has_root:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        if sys.platform != "win32" and self._descriptor is None:
            self._descriptor = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def flush(self) -> None:
        """Returns when all that was changed is on the disk; raises OSError."""
        if len(self._touched) > FLUSH_EACH_MAX and CAN_SYNC_ALL and self._descriptor is not None:
            self._files.flush_all(self._descriptor)
            return
        for folder in sorted(self._touched):
            if os.path.isdir(folder):
                self._files.flush_folder(folder)

    def _touch(self, path: str) -> None:
        self._touched.add(path.rpartition(os.sep)[0])

    # -- folders

    def make_root(self) -> None:
        """Makes the folder that the tree lies in, if it is missing."""
        make_folders(self._files, self._top, self._touch)
        self._open()
        self.has_root = True

    def make_plain_folder(self, place: str) -> None:
        """Makes a folder whose own step has not come yet."""
        path = self._standing.path(place)
        self._files.make_folder(path)
        self._touch(path)
        self._give_owner(path, *self._owner_above(place))

    def make_folder(self, place: str, entry: Entry, status: os.stat_result | None) -> bool:
        """Makes the folder if `status` is None, and gives it its permission bits.

        Returns False if these come later, by `set_folder_mode`, because with them nobody could fill the folder.
        """
        if status is None:
            self.make_plain_folder(place)
        if sys.platform == "win32" or entry.mode is None:
            return True
        if ~entry.mode & _OWNER_MAY_ALL:
            return False
        self.set_folder_mode(place, entry)
        return True

    def set_folder_mode(self, place: str, entry: Entry) -> None:
        """Gives a folder its permission bits."""
        path = self._standing.path(place)
        status = os.lstat(path)
        if sys.platform == "win32" or entry.mode is None or not is_folder(status):
            return
        mode = entry.mode & FOLDER_MODE_BITS
        if stat.S_IMODE(status.st_mode) != mode:
            self._files.set_mode(path, mode)
            self._touched.add(path)

    def remove_folder(self, place: str) -> None:
        """Removes an empty folder; raises OSError if it is not empty."""
        path = self._standing.path(place)
        self._patience.call(self._files, path, self._files.remove_folder, path)
        self._owners.pop(place, None)
        self._touch(path)

    def remove_folder_if_empty(self, place: str) -> None:
        """Removes a folder unless something is in it."""
        with os.scandir(self._standing.path(place)) as entries:
            if next(entries, None) is not None:
                return
        self.remove_folder(place)

    def contents(self, place: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yields all that is below a folder, what is in a folder before the folder itself."""
        path = self._standing.path(place)
        for name in os.listdir(path):
            inner = f"{place}/{name}"
            status = status_of(below(path, name))
            if status is None:
                continue
            if is_folder(status):
                yield from self.contents(inner)
            yield inner, status

    # -- files and links

    def remove(self, place: str) -> None:
        """Removes a file or link."""
        path = self._standing.path(place)
        self._patience.call(self._files, path, self._files.remove, path)
        self._touch(path)

    def require_unlocked(self, place: str, status: os.stat_result) -> None:
        """Raises PermissionError if somebody has the file open so that it cannot be displaced; only on Windows.

        Asked before the archive gives it a second name, which could not be taken away again either.
        """
        if sys.platform == "win32":
            path = self._standing.path(place)

            def look() -> None:
                lock = lock_on(path, status)
                if lock:
                    raise PermissionError(errno.EACCES, lock, path)

            self._patience.call(self._files, path, look)

    def dress(
        self, place: str, staged: str, of_staged: os.stat_result, entry: Entry, standing: os.stat_result | None
    ) -> None:
        """Gives a staged file the owner, permission bits and time that it shall have at `place`.

        Owner and group are those of the file that stands there, else of the folder; permission bits those of the entry,
        else, if it comes from a node that has none, of the file that stands there.
        """
        replaced = standing if standing is not None and stat.S_ISREG(standing.st_mode) else None
        if sys.platform != "win32":
            if self._gives_owner:
                owner = (replaced.st_uid, replaced.st_gid) if replaced is not None else self._owner_above(place)
                if owner != (of_staged.st_uid, of_staged.st_gid):
                    self._give_owner(staged, *owner)
            mode = stat.S_IMODE(of_staged.st_mode)
            if entry.mode is not None:
                mode = entry.mode & FILE_MODE_BITS
            elif replaced is not None:
                mode = stat.S_IMODE(replaced.st_mode) & FILE_MODE_BITS
            if mode != stat.S_IMODE(of_staged.st_mode):
                self._files.set_mode(staged, mode)
        self._set_time(staged, of_staged, entry)

    def put(self, place: str, staged: str) -> None:
        """Puts a staged file in place in one instant."""
        path = self._standing.path(place)
        try:
            self._patience.call(self._files, path, self._files.replace, staged, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._put_across(staged, path)
        self._touch(path)

    def _put_across(self, staged: str, path: str) -> None:
        """The same where another disk is mounted below the root: by way of a copy beside the place."""
        part = os.path.join(os.path.dirname(path), ACROSS_PREFIX + os.path.basename(staged))
        copy(self._files, staged, os.lstat(staged), part)
        self._patience.call(self._files, path, self._files.replace, part, path)
        self._files.flush_folder(os.path.dirname(path))
        self._files.remove(staged)

    def was_put_across(self, place: str, status: os.stat_result, staged: str, of_staged: os.stat_result) -> bool:
        """True if what stands is the copy of the staged file, and only that was not removed before a crash."""
        return status.st_dev != of_staged.st_dev and is_same_version(
            self._standing.path(place), status, staged, of_staged
        )

    def is_link_of(self, step: Step, status: os.stat_result) -> bool:
        """True if the link that a step makes stands there."""
        if step.entry is None or not stat.S_ISLNK(status.st_mode):
            return False
        return os.readlink(self._standing.path(step.place)) == _native(step.entry.target)

    def make_link(self, place: str, target: str) -> None:
        """Makes a link where nothing stands."""
        path = self._standing.path(place)
        self._files.symlink(_native(target), path, to_folder=self._leads_to_folder(path, target))
        self._touch(path)

    def replace_by_link(self, place: str, target: str) -> None:
        """Puts a link in the place of a file or another link, in one instant where the system can."""
        path = self._standing.path(place)
        if sys.platform != "win32":
            self._staging.make_folder()
            part = self._staging.path(LINK_NAME)
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(part)
            self._files.symlink(target, part, to_folder=False)
            try:
                self._files.replace(part, path)
                self._touch(path)
                return
            except OSError as error:
                self._files.remove(part)
                if error.errno != errno.EXDEV:
                    raise
        self.remove(place)
        self.make_link(place, target)

    def _leads_to_folder(self, path: str, target: str) -> bool:
        return sys.platform == "win32" and os.path.isdir(os.path.join(os.path.dirname(path), _native(target)))

    # -- attributes

    def set_attributes(self, place: str, status: os.stat_result, entry: Entry) -> None:
        """Gives a file that stands the permission bits and the time of `entry`."""
        path = self._standing.path(place)
        if sys.platform != "win32" and entry.mode is not None:
            mode = entry.mode & FILE_MODE_BITS
            if mode != stat.S_IMODE(status.st_mode):
                self._files.set_mode(path, mode)
        self._set_time(path, status, entry)
        self._touch(path)

    def _set_time(self, path: str, status: os.stat_result, entry: Entry) -> None:
        mtime_ns = settable_time(entry.mtime_ns)
        if status.st_mtime_ns != mtime_ns:
            self._files.set_times(path, mtime_ns)

    def _owner_above(self, place: str) -> tuple[int, int]:
        folder = place.rpartition("/")[0]
        owner = self._owners.get(folder)
        if owner is None:
            try:
                status = os.stat(self._standing.path(folder) if place else self._top)
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
                return self._owner_above(folder)  # what only goes to the archive needs no folder here
            owner = self._owners[folder] = (status.st_uid, status.st_gid)
        return owner

    def _give_owner(self, path: str, user: int, group: int) -> None:
        if self._gives_owner:
            with contextlib.suppress(PermissionError):  # a container's root may not give files away
                self._files.set_owner(path, user, group)


if sys.platform == "win32":

    def _native(target: str) -> str:
        return target.replace("/", "\\")

else:

    def _native(target: str) -> str:
        return target
