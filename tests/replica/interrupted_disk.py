"""Disks that fail on order: at the n-th call the process dies, the power goes, or the call fails with an error.

Each is a FileSystem; it counts the calls that change something. Flushes are counted and not carried out: what a crash
of the process leaves does not depend on them, and what a loss of power leaves is modelled here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.replica.file_system import FileSystem

FLUSHES = ("flush", "flush_folder", "flush_all")
CHANGES = tuple(name for name in vars(FileSystem) if not name.startswith("_"))


class Crash(BaseException):
    """The process is dead: nothing of it may act any more."""


class CountingDisk(FileSystem):
    """Counts the calls and tells `before` of each: its name and arguments."""

    def __init__(self) -> None:
        self.calls = 0
        self.descriptors: set[int] = set()

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        """Called before each call; raises what shall happen instead."""

    def after(self, name: str, arguments: tuple[object, ...], result: object) -> None:
        """Called after each call."""


def _counted(name: str) -> Callable[..., object]:
    real = getattr(FileSystem, name)

    def call(self: CountingDisk, *arguments: object, **more: object) -> object:
        self.before(name, arguments)
        self.calls += 1
        result = None if name in FLUSHES else real(self, *arguments, **more)
        if name in ("create", "open"):
            self.descriptors.add(result)  # type: ignore[arg-type]  # these two return one
        elif name == "close":
            self.descriptors.remove(arguments[0])  # type: ignore[arg-type]  # and this one takes it
        self.after(name, arguments, result)
        return result

    return call


for _name in CHANGES:
    setattr(CountingDisk, _name, _counted(_name))


class CrashingDisk(CountingDisk):
    """Dies instead of its call number `at`, the first being 0, and lets nothing be done after; a write is torn."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at
        self._dead = False

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        if self._dead:
            raise Crash
        if self.calls == self._at:
            self._dead = True
            if name == "write":
                descriptor, data = arguments
                assert isinstance(descriptor, int)
                assert isinstance(data, bytes | memoryview)
                os.write(descriptor, data[: len(data) // 2])
            for descriptor in self.descriptors:  # as the system does when a process has died
                os.close(descriptor)
            raise Crash


class FailingDisk(CountingDisk):
    """Fails its call number `at` among those of the `kinds` with the error `number`, once; then it is well."""

    def __init__(self, at: int, number: int, kinds: tuple[str, ...] = CHANGES) -> None:
        super().__init__()
        self._at = at
        self._number = number
        self._kinds = kinds
        self._counted = 0
        self.failed: tuple[object, ...] | None = None  # name and arguments
        self.calls_made: list[tuple[object, ...]] = []

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        self.calls_made.append((name, *arguments))
        if name in self._kinds:
            self._counted += 1
            if self._counted == self._at + 1:
                self.failed = (name, *arguments)
                if name == "close":
                    os.close(arguments[0])  # type: ignore[arg-type]  # it is closed whatever it says
                raise OSError(self._number, os.strerror(self._number))


class PowerLossDisk(CrashingDisk):
    """Crashes at call `at`, and with the power goes what was not flushed.

    Two disks are modelled: `keeps_names`: every name is there, and files that were not flushed are empty; otherwise
    names are journalled in order, and all changes of names since the last flush of a folder are undone.
    """

    def __init__(self, at: int, keeps_names: bool, cellar: Path) -> None:
        super().__init__(at)
        self._keeps_names = keeps_names
        self._cellar = cellar  # what is undone comes back from here
        self._paths: dict[int, str] = {}  # of open descriptors
        self._dirty: set[int] = set()  # inodes of files whose contents were not flushed
        self._undo: list[Callable[[], None]] = []
        self._number = 0

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        super().before(name, arguments)
        self._pending: list[Callable[[], None]] = []  # counts only if the call succeeds
        target = arguments[1] if name in ("replace", "link", "symlink") else arguments[0]
        if name in ("replace", "remove") and os.path.lexists(str(target)):
            self._pending.append(self._kept(str(target)))
        if name in ("set_mode", "set_times"):
            assert isinstance(target, int | str)
            status = os.stat(target)
            path = self._paths[target] if isinstance(target, int) else target
            self._pending.append(lambda: _undress(path, status))

    def after(self, name: str, arguments: tuple[object, ...], result: object) -> None:
        first = arguments[0]
        last = str(arguments[1]) if len(arguments) > 1 else ""
        self._undo += self._pending
        if name in ("create", "open"):
            assert isinstance(result, int)
            self._paths[result] = str(first)
            if name == "create":
                self._dirty.add(os.fstat(result).st_ino)
                self._undo.append(lambda: Path(str(first)).unlink(missing_ok=True))
        elif name in ("write", "truncate"):
            assert isinstance(first, int)
            self._dirty.add(os.fstat(first).st_ino)
        elif name == "flush":
            assert isinstance(first, int)
            self._dirty.discard(os.fstat(first).st_ino)
        elif name == "flush_all":
            self._dirty.clear()
            self._undo.clear()
        elif name == "flush_folder":
            self._undo.clear()
        elif name == "replace":
            # Before what stood at the target comes back.
            self._undo.append(lambda: os.rename(last, str(first)))
        elif name in ("link", "symlink"):
            self._undo.append(lambda: os.unlink(last))
        elif name == "make_folder":
            self._undo.append(lambda: os.rmdir(str(first)))
        elif name == "remove_folder":
            self._undo.append(lambda: os.mkdir(str(first)))

    def lose(self, *roots: Path) -> None:
        """What the disk looks like when the power is back; `roots` are the folders that matter."""
        if not self._keeps_names:
            for undo in reversed(self._undo):
                undo()
        for root in roots:
            for folder, _, names in os.walk(root):
                for name in names:
                    path = os.path.join(folder, name)
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_ino in self._dirty:
                        os.truncate(path, 0)

    def _kept(self, target: str) -> Callable[[], None]:
        """Puts what stands at `target` aside; returns what brings it back."""
        self._number += 1
        aside = str(self._cellar / str(self._number))
        if os.path.islink(target):
            text = os.readlink(target)
            return lambda: os.symlink(text, target)
        os.link(target, aside)
        return lambda: os.rename(aside, target)


def _undress(path: str, status: os.stat_result) -> None:
    if os.path.lexists(path):
        os.chmod(path, stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
