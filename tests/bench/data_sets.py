"""The data sets of the copying benchmarks, and the two folders that one trial works on.

A data set is what the source has `after` a change and what both sides had `before` it. Sources are made of hard links,
so that a trial begins with the data in the page cache and its end frees no inodes: ext4 takes no inode again within
minutes of its deletion, and looks at each of them for every new file, ten times slower. For the same reason a
destination of many files is moved away when a trial is over, and removed only at the end of the run.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

MIB = 1 << 20
CHANGED_BLOCK_BYTES = 64 * 1024
FILES_PER_FOLDER = 100
SMALL_FILE_BYTES = 4096
MANY_FILES = 100  # a tree of more is moved away instead of removed
LONG_AGO_NS = 1_000_000_000 * 10**9  # what stood before the change was last written long ago
OWN_NAMES = frozenset({".stfolder", ".pair-agent"})  # what a contender keeps of its own in a tree
_numbers = count(1)


@dataclass(frozen=True)
class DataSet:
    """`before` is None where the destination has nothing; `after` and `before` are folders on the disk."""

    name: str
    says: str
    before: Path | None
    after: Path

    @property
    def changed(self) -> bool:
        """False if source and destination are the same already."""
        return self.before != self.after

    @cached_property
    def files(self) -> dict[str, tuple[int, int]]:
        """Size in bytes and time of change in ns of each file, by its path in the tree."""
        return {path: facts(self.after / path) for path in files_in(self.after)}

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


class Stage:
    """Source and destination of one trial, filled with what both had before and written to the disk."""

    def __init__(self, data: DataSet, source: Path, destination: Path) -> None:
        """Makes both folders; their parents are there."""
        self.data, self.source, self.destination = data, source, destination
        self._next = source.with_name(f"{source.name}-next")
        for folder in (source, destination, self._next):
            folder.mkdir()
        if data.before is not None:
            shutil.copytree(data.before, source, copy_function=os.link, dirs_exist_ok=True)
            shutil.copytree(data.before, destination, dirs_exist_ok=True)
        if data.changed:
            shutil.copytree(data.after, self._next, copy_function=os.link, dirs_exist_ok=True)
        os.sync()

    def change(self) -> None:
        """Brings the source from what it was before to what it is after, by renames alone; no folder is replaced."""
        for item in list(self._next.iterdir()):
            os.replace(item, self.source / item.name)

    def looks_the_same(self) -> bool:
        """Tells whether the destination has every file of the source, by size and time of change."""
        try:
            return all(facts(self.destination / path) == expected for path, expected in self.data.files.items())
        except OSError:
            return False

    def difference(self) -> str:
        """Returns what the destination has otherwise than the data set, every byte compared; "" if nothing."""
        expected, found = set(self.data.files), set(files_in(self.destination))
        if expected != found:
            return f"other files than there should be, such as {min(expected ^ found)!r}"
        for path in sorted(expected):
            if not same_bytes(self.data.after / path, self.destination / path):
                return f"{path!r} has other contents"
        return ""

    def remove(self, trash: Path) -> None:
        """Removes both folders, or puts a destination of many files into `trash`, on the same file system."""
        shutil.rmtree(self._next)
        shutil.rmtree(self.source)
        if len(self.data.files) > MANY_FILES:
            trash.mkdir(exist_ok=True)
            os.replace(self.destination, trash / str(next(_numbers)))
        else:
            shutil.rmtree(self.destination)


def make_data_sets(folder: Path, names: frozenset[str], part: int) -> Iterator[DataSet]:
    """Makes the data sets of these names in turn, each of one `part`th of its size; removes what no later one needs."""
    big = 1024 * MIB // part
    if names & {"D1", "D3", "D5"}:
        yield from _of_one_file(folder, names, big)
    if "D4" in names:
        more = max(MIB, 4 * MIB // part)
        log = old_file(folder / "log", big // 2)
        says = f"{more // MIB} MiB appended to {big // 2 // MIB} MiB"
        yield from _edited("D4", says, log, folder, lambda path: append(path, more))
        shutil.rmtree(log)
    if names & {"D2", "D6"}:
        folders = 200 // part
        many = folder / "many"
        small_files(many, folders)
        says = f"{folders * FILES_PER_FOLDER} files of 4 KiB in {folders} folders"
        if "D2" in names:
            yield DataSet("D2", f"first copy of {says}", None, many)
        if "D6" in names:
            yield DataSet("D6", f"nothing changed in {says}", many, many)


def _of_one_file(folder: Path, names: frozenset[str], size: int) -> Iterator[DataSet]:
    one = old_file(folder / "one", size)
    if "D1" in names:
        yield DataSet("D1", f"first copy of one file of {size // MIB} MiB", None, one)
    if "D3" in names:
        yield from _edited("D3", "of the same file 1 % of its 64 KiB blocks changed", one, folder, change_blocks)
    if "D5" in names:
        yield from _edited("D5", "into the same file one byte inserted at its start", one, folder, insert_byte)
    shutil.rmtree(one)


def _edited(name: str, says: str, before: Path, folder: Path, edit: Callable[[Path], None]) -> Iterator[DataSet]:
    after = folder / name
    shutil.copytree(before, after)
    edit(after / "big")
    yield DataSet(name, says, before, after)
    shutil.rmtree(after)


def change_blocks(path: Path) -> None:
    """Overwrites 1 % of the file's 64 KiB blocks with other bytes."""
    blocks = path.stat().st_size // CHANGED_BLOCK_BYTES
    with path.open("r+b") as file:
        for block in sorted(random.sample(range(blocks), blocks // 100)):
            file.seek(block * CHANGED_BLOCK_BYTES)
            file.write(os.urandom(CHANGED_BLOCK_BYTES))


def insert_byte(path: Path) -> None:
    """Puts one byte before the file's first."""
    other = path.with_name("longer")
    with path.open("rb") as old, other.open("wb") as new:
        new.write(b"x")
        shutil.copyfileobj(old, new, MIB)
    other.replace(path)


def append(path: Path, size: int) -> None:
    """Adds so many random bytes."""
    with path.open("ab") as file:
        file.write(os.urandom(size))


def old_file(folder: Path, size: int) -> Path:
    """Makes a folder with one random file "big" that nobody has touched for long, and returns the folder."""
    random_file(folder / "big", size)
    os.utime(folder / "big", ns=(LONG_AGO_NS, LONG_AGO_NS))
    return folder


def random_file(path: Path, size: int) -> None:
    """Makes a file of so many bytes that nothing can compress, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(os.urandom(min(MIB, size - file.tell())))


def small_files(folder: Path, folders: int) -> None:
    """Makes folders of FILES_PER_FOLDER random files each."""
    for number in range(folders):
        (folder / f"{number:04d}").mkdir(parents=True)
        for file in range(FILES_PER_FOLDER):
            (folder / f"{number:04d}" / f"{file:03d}").write_bytes(os.urandom(SMALL_FILE_BYTES))


def files_in(folder: Path) -> Iterator[str]:
    """Yields the paths of all files of a tree, without what contenders keep there for themselves."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in OWN_NAMES]
        for name in files:
            yield os.path.relpath(os.path.join(place, name), folder)


def facts(path: Path) -> tuple[int, int]:
    """Returns size in bytes and time of change in ns."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def same_bytes(one: Path, other: Path) -> bool:
    """Compares two files; `filecmp` would remember its answer for a path as long as size and time stay the same."""
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(MIB):
            if chunk != second.read(MIB):
                return False
        return not second.read(1)


def flush(folder: Path) -> None:
    """Makes everything durable that is on the folder's file system (syncfs)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs", str(folder))
    finally:
        os.close(descriptor)
