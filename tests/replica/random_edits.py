"""Random edits of a folder: what a workload, or a person, does to a tree. No two write the same contents."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

NAMES = ("a", "b", "c", "d e", "é")
DEPTH_MAX = 3
FILES_MAX = 60


class Editor:
    """Edits the folder `top`; `number` counts what all editors of a test wrote."""

    def __init__(self, random: Random, number: list[int]) -> None:
        self._random = random
        self._number = number

    def edit(self, top: Path) -> None:
        """Does one thing somewhere below `top`."""
        what = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        getattr(self, f"_{what}")(top)

    def contents(self) -> bytes:
        """Returns contents that nobody wrote before."""
        self._number[0] += 1
        head = b"v%d " % self._number[0]
        size = self._random.choice((0, 0, 0, 20, 500, 500, 5000, 40_000, 70_000, 150_000))
        if self._random.random() < 0.01:
            size = 1_500_000
        if self._random.random() < 0.3:
            return head + bytes(size)
        return head + self._random.randbytes(size)

    def _somewhere(self, top: Path) -> Path:
        """Returns a path whose folder stands, or lets itself be made."""
        names = [self._random.choice(NAMES) for _ in range(self._random.randint(1, DEPTH_MAX))]
        path = top
        for name in names[:-1]:
            path /= name
            if path.is_symlink() or path.is_file():
                return path
            path.mkdir(exist_ok=True)
        return path / names[-1]

    def _something(self, top: Path, *kinds: str) -> Path | None:
        found = []
        for path in sorted(top.rglob("*")):
            if path.relative_to(top).parts[0] != ".pair-agent":
                kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
                if kind in kinds:
                    found.append(path)
        return self._random.choice(found) if found else None

    def _write(self, top: Path) -> None:
        path = self._somewhere(top)
        if path.is_symlink():
            path.unlink()
        if path.is_dir():
            if self._random.random() < 0.7:
                return
            shutil.rmtree(path)  # a folder becomes a file
        path.write_bytes(self.contents())

    def _modify(self, top: Path) -> None:
        path = self._something(top, "file")
        if path is None:
            return self._write(top)
        way = self._random.randrange(4)
        if way == 0:
            path.write_bytes(self.contents())
        elif way == 1:  # as careful programs do
            part = path.with_name("part")
            part.write_bytes(self.contents())
            part.replace(path)
        elif way == 2:
            with path.open("ab") as file:
                file.write(self.contents())
        else:
            with path.open("r+b") as file:  # in the middle, the size stays
                file.seek(max(0, path.stat().st_size // 2))
                file.write(self.contents()[:100])
        return None

    def _append_and_give_old_time(self, top: Path) -> None:
        path = self._something(top, "file")
        if path is not None:
            status = path.stat()
            path.write_bytes(self.contents())
            os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _touch(self, top: Path) -> None:
        path = self._something(top, "file")
        if path is not None:
            when = self._random.choice((1_000_000_000, 1_600_000_000_123_456_789, 1_700_000_000_000_000_000))
            os.utime(path, ns=(when, when))

    def _remove(self, top: Path) -> None:
        path = self._something(top, "file", "link", "folder")
        if path is not None:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _rename(self, top: Path) -> None:
        path, target = self._something(top, "file", "link", "folder"), self._somewhere(top)
        if path is None or target == path or path in target.parents or target in path.parents:
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        elif path.is_dir() and not path.is_symlink():
            target.unlink(missing_ok=True)
        if path.exists() or path.is_symlink():
            path.replace(target)

    def _copy(self, top: Path) -> None:
        path, target = self._something(top, "file"), self._somewhere(top)
        if path is not None and not os.path.lexists(target):
            shutil.copy2(path, target)

    def _make_folder(self, top: Path) -> None:
        path = self._somewhere(top)
        if path.is_file() and not path.is_symlink() and self._random.random() < 0.5:
            path.unlink()  # a file becomes a folder
        if not os.path.lexists(path):
            path.mkdir()
            for _ in range(self._random.randint(0, 3)):
                (path / self._random.choice(NAMES)).write_bytes(self.contents())

    def _link(self, top: Path) -> None:
        path = self._somewhere(top)
        if path.is_dir() and not path.is_symlink():
            return
        path.unlink(missing_ok=True)
        self._number[0] += 1
        path.symlink_to(f"target-{self._number[0]}")

    def _chmod(self, top: Path) -> None:
        path = self._something(top, "file", "folder")
        if path is not None:
            path.chmod(self._random.choice((0o755, 0o700, 0o750) if path.is_dir() else (0o644, 0o600, 0o755)))


_WEIGHTS = {
    "write": 6,
    "modify": 8,
    "append_and_give_old_time": 1,
    "touch": 1,
    "remove": 3,
    "rename": 4,
    "copy": 2,
    "make_folder": 3,
    "link": 2,
    "chmod": 2,
}
