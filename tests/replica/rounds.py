"""Rounds for the tests of staging, applying and archive: a tree before, the deeds, the tree after, what is archived."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.config.model import TreeKind
from agent.core.tree_entries import Entry, EntryKind
from agent.replica.applying import apply
from agent.replica.archive import Archive
from agent.replica.file_system import FileSystem
from agent.replica.file_tree import TreeRoot, fingerprint_of
from agent.replica.staging import Staging
from agent.replica.standing import Patience
from agent.replica.steps import Applied, Blocked, Outcome, Step, StepKind
from tests.replica.interrupted_disk import CountingDisk

OLD_NS = 1_600_000_000_000_000_000
NEW_NS = 1_700_000_000_000_000_000
TREE = "flows"

Tree = dict[str, str | bytes | None]  # path: bytes of a file, target of a link, None for a folder


@dataclass(frozen=True)
class Deed:
    """One step before it is staged. `contents`: of a file; `edited`: somebody changes it after the plan."""

    kind: StepKind
    path: str
    contents: bytes = b""
    target: str = ""
    mode: int | None = None
    archive: bool = False
    reason: str = ""
    edited: bytes | None = None


@dataclass(frozen=True)
class Scenario:
    """A round: `before` plus the deeds gives `after`; `archived` are the (path, contents or target) kept, each once."""

    name: str
    before: Tree
    deeds: tuple[Deed, ...]
    after: Tree
    archived: tuple[tuple[str, bytes | str], ...] = ()
    single_file: bool = False
    links: bool = field(init=False)

    def __post_init__(self) -> None:
        values = [*self.before.values(), *self.after.values()]
        object.__setattr__(self, "links", any(isinstance(value, str) for value in values))


class World:
    """A tree, an archive and a journal on a disk, as they are across restarts of the process."""

    def __init__(self, folder: Path, scenario: Scenario, kind: TreeKind = TreeKind.DATA) -> None:
        self.scenario = scenario
        self.folder = folder
        path = folder / "tree"
        self.archive_folder = folder / "state" / "archive"
        self.root = TreeRoot(TREE, kind, path / "app.conf" if scenario.single_file else path, (), scenario.single_file)
        self.top = path
        write_tree(self.root.path, scenario.before)
        self.journal: list[Step] | None = None
        self.applied: list[Outcome] = []
        self._plan = [self._step(deed) for deed in scenario.deeds]
        for deed in scenario.deeds:
            if deed.edited is not None:
                self.disk(deed.path).write_bytes(deed.edited)

    def disk(self, path: str) -> Path:
        return self.root.path / path if path else self.root.path

    def _step(self, deed: Deed) -> Step:
        entry: Entry | None = None
        path = self.disk(deed.path)
        if deed.kind is StepKind.MAKE_FOLDER or (deed.kind is StepKind.ATTRIBUTES and path.is_dir()):
            entry = Entry(deed.path, EntryKind.FOLDER, mode=deed.mode)
        elif deed.kind is StepKind.MAKE_LINK:
            entry = Entry(deed.path, EntryKind.LINK, target=deed.target)
        elif deed.kind is not StepKind.REMOVE:
            digest = blake3(deed.contents).digest()
            entry = Entry(deed.path, EntryKind.FILE, len(deed.contents), NEW_NS, deed.mode, "", digest)
        expected = fingerprint_of(path.lstat()) if path.is_symlink() or path.exists() else None
        return Step(deed.kind, deed.path, entry, "", deed.archive, expected, "", deed.reason)

    def archive(self, files: FileSystem) -> Archive:
        return Archive(self.archive_folder, now=lambda: 1_763_838_645.123, files=files)

    def run(self, files: FileSystem, at_journal: Callable[[], None] = lambda: None) -> list[Outcome]:
        """Stages, journals, applies and cleans, as a sink does."""
        staging = Staging(self.root, files)
        steps, names = [], []
        try:
            for step, deed in zip(self._plan, self.scenario.deeds, strict=True):
                if step.kind in (StepKind.PUT_FILE, StepKind.ARCHIVE_STAGED):
                    assert step.entry is not None
                    with staging.open(step.entry.size) as file:
                        file.write(deed.contents)
                        name = file.finish(step.entry.digest, mtime_ns=NEW_NS)
                    step = replace(step, staged=name)
                    names.append(name)
                steps.append(step)
            staging.flush(names)
            self.journal = steps
            at_journal()
            return self._carry_out(staging, files)
        finally:
            staging.close()

    def reboot(self, files: FileSystem | None = None) -> None:
        """What a new process does first: rolls forward what is journalled, then throws away what was staged."""
        files = files or CountingDisk()
        staging = Staging(self.root, files)
        if self.journal is not None:
            self._carry_out(staging, files)
        staging.clean()

    def _carry_out(self, staging: Staging, files: FileSystem) -> list[Outcome]:
        archive = self.archive(files)
        assert self.journal is not None
        journal = self.journal
        try:
            self.applied = list(apply(self.root, lambda: iter(journal), staging, archive, files, Patience(0.1)))
        finally:
            archive.close()
        self.journal = None
        staging.clean()
        return self.applied

    # -- what must hold

    def tree(self) -> Tree:
        return read_tree(self.root.path)

    def archived(self) -> Counter[tuple[str, bytes | str]]:
        archive = self.archive(FileSystem())
        found: Counter[tuple[str, bytes | str]] = Counter()
        for item in archive.list():
            path = self.archive_folder / item.name
            found[item.path, os.readlink(path) if item.kind is EntryKind.LINK else path.read_bytes()] += 1
        assert not any(batch.open for batch in archive.batches())
        return found

    def staging_left(self) -> list[str]:
        folder = (self.root.path.parent if self.root.single_file else self.root.path) / ".pair-agent"
        return [str(path) for path in folder.rglob("*")] if folder.exists() else []

    def check_new(self) -> None:
        """The round is whole, its archive too, and nothing else is left of it."""
        assert self.tree() == self.scenario.after
        assert self.archived() == Counter(self.scenario.archived)
        assert self.staging_left() == []
        for outcome in self.applied:
            assert not isinstance(outcome, Blocked)
            if isinstance(outcome, Applied) and outcome.entry is not None:
                status = self.disk(outcome.path).lstat()
                assert outcome.fingerprint == fingerprint_of(status)
                if outcome.entry.kind is EntryKind.FILE:
                    assert status.st_mtime_ns == outcome.entry.mtime_ns
                    if os.name == "posix" and outcome.entry.mode is not None:
                        assert stat.S_IMODE(status.st_mode) == outcome.entry.mode

    def check_old(self) -> None:
        """The round has not happened."""
        edited = {deed.path: deed.edited for deed in self.scenario.deeds if deed.edited is not None}
        assert self.tree() == {**self.scenario.before, **edited}
        assert self.staging_left() == []
        assert self.archived() == Counter()


def write_tree(root: Path, tree: Tree) -> None:
    """Makes what `tree` says, with OLD_NS as the time of each file; folders above come by themselves."""
    if "" not in tree:
        root.mkdir(parents=True, exist_ok=True)
    for path, value in tree.items():
        place = root / path if path else root
        place.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            place.mkdir(exist_ok=True)
        elif isinstance(value, str):
            place.symlink_to(value)
        else:
            place.write_bytes(value)
            os.utime(place, ns=(OLD_NS, OLD_NS))


def read_tree(root: Path) -> Tree:
    """Returns what stands in `root`, without the folder of the agent."""
    found: Tree = {}

    def look(path: Path, name: str) -> None:
        if path.is_symlink():
            found[name] = os.readlink(path).replace("\\", "/")
        elif path.is_dir():
            if name:
                found[name] = None
            for inner in sorted(path.iterdir()):
                if inner.name != ".pair-agent":
                    look(inner, f"{name}/{inner.name}" if name else inner.name)
        elif path.exists():
            found[name] = path.read_bytes()

    look(root, "")
    return found


def links_work() -> bool:
    """True if this account may make symbolic links here: Windows grants that to few."""
    if sys.platform != "win32":
        return True
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.symlink("target", os.path.join(folder, "link"))
        except OSError:
            return False
        return os.path.islink(os.path.join(folder, "link"))  # Wine 8 says it made one, and made none


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits, pipes or second roots")

_PUT, _MAKE, _REMOVE = StepKind.PUT_FILE, StepKind.MAKE_FOLDER, StepKind.REMOVE
_LINK, _KEEP, _DRESS = StepKind.MAKE_LINK, StepKind.ARCHIVE_STAGED, StepKind.ATTRIBUTES

SCENARIOS = (
    Scenario(
        "new files",
        {},
        (Deed(_MAKE, "a", mode=0o750), Deed(_PUT, "a/one", b"1"), Deed(_PUT, "two", b"2" * 9000, mode=0o600)),
        {"a": None, "a/one": b"1", "two": b"2" * 9000},
    ),
    Scenario(
        "replaced files",
        {"a": b"old a", "f": None, "f/b": b"old b"},
        (Deed(_PUT, "a", b"new a"), Deed(_PUT, "f/b", b"new b", mode=0o640)),
        {"a": b"new a", "f": None, "f/b": b"new b"},
    ),
    Scenario(
        "config tree with six files",
        {"main.conf": b"1", "conf.d": None, "conf.d/a": b"2", "conf.d/b": b"3", "conf.d/c": b"4", "users": b"5"},
        (
            Deed(_PUT, "main.conf", b"one", archive=True, reason="edited here"),
            Deed(_PUT, "conf.d/a", b"two"),
            Deed(_REMOVE, "conf.d/b"),
            Deed(_PUT, "conf.d/c", b"four"),
            Deed(_PUT, "conf.d/d", b"seven"),
            Deed(_REMOVE, "users", archive=True, reason="edited here"),
        ),
        {"main.conf": b"one", "conf.d": None, "conf.d/a": b"two", "conf.d/c": b"four", "conf.d/d": b"seven"},
        (("main.conf", b"1"), ("users", b"5")),
    ),
    Scenario(
        "folder replaced by file and reversed",
        {"x": None, "x/in": None, "x/in/deep": b"d", "x/left": b"unknown to the plan", "y": b"was a file"},
        (
            Deed(_REMOVE, "x/in/deep", archive=True, reason="overwrite"),
            Deed(_REMOVE, "x/in"),
            Deed(_PUT, "x", b"now a file", archive=True, reason="overwrite"),
            Deed(_MAKE, "y", archive=True, reason="overwrite"),
            Deed(_PUT, "y/inner", b"i"),
        ),
        {"x": b"now a file", "y": None, "y/inner": b"i"},
        (("x/in/deep", b"d"), ("x/left", b"unknown to the plan"), ("y", b"was a file")),
    ),
    Scenario(
        "nested folders removed",
        {"a": None, "a/b": None, "a/b/c": None, "a/b/c/f": b"f", "a/b/g": b"g", "a/e": None, "stays": b"s"},
        (
            Deed(_REMOVE, "a"),
            Deed(_REMOVE, "a/b"),
            Deed(_REMOVE, "a/b/c"),
            Deed(_REMOVE, "a/b/c/f"),
            Deed(_REMOVE, "a/b/g", archive=True, reason="edited here"),
            Deed(_REMOVE, "a/e"),
        ),
        {"stays": b"s"},
        (("a/b/g", b"g"),),
    ),
    Scenario(
        "links",
        {"r1": None, "r2": None, "cur": "r1", "f": b"f", "l": "r1", "d": None, "d/x": b"x", "gone": "r1"},
        (
            Deed(_LINK, "cur", target="r2"),
            Deed(_LINK, "new", target="r1"),
            Deed(_LINK, "f", target="r2", archive=True, reason="edited here"),
            Deed(_PUT, "l", b"a file now", archive=True, reason="edited here"),
            Deed(_REMOVE, "d/x"),
            Deed(_LINK, "d", target="r1"),
            Deed(_REMOVE, "gone"),
        ),
        {"r1": None, "r2": None, "cur": "r2", "new": "r1", "f": "r2", "l": b"a file now", "d": "r1"},
        (("f", b"f"), ("l", "r1")),
    ),
    Scenario(
        "edited after the plan",
        {"a": b"planned", "b": b"planned too", "c": b"as planned"},
        (
            Deed(_PUT, "a", b"new", edited=b"edited by hand"),
            Deed(_REMOVE, "b", edited=b"edited as well"),
            Deed(_PUT, "c", b"new c"),
            Deed(_PUT, "d", b"new d", edited=b"appeared"),
        ),
        {"a": b"new", "c": b"new c", "d": b"new d"},
        (("a", b"edited by hand"), ("b", b"edited as well"), ("d", b"appeared")),
    ),
    Scenario(
        "conflict",
        {"mine": b"mine", "f": None},
        (
            Deed(_KEEP, "mine", b"yours", reason="both changed"),
            Deed(_KEEP, "f/new", b"yours too", reason="both changed"),
            Deed(_PUT, "f/clean", b"c"),
        ),
        {"mine": b"mine", "f": None, "f/clean": b"c"},
        (("mine", b"yours"), ("f/new", b"yours too")),
    ),
    Scenario(
        "attributes",
        {"a": b"same", "f": None},
        (Deed(_DRESS, "a", b"same", mode=0o600), Deed(_DRESS, "f", mode=0o700)),
        {"a": b"same", "f": None},
    ),
    Scenario(
        "two versions of one path",
        {"p": b"local"},
        (
            Deed(_PUT, "p", b"source", archive=True, reason="conflict"),
            Deed(_KEEP, "p", b"the peer's of old", reason="conflict"),
        ),
        {"p": b"source"},
        (("p", b"local"), ("p", b"the peer's of old")),
    ),
    Scenario(
        "single file",
        {"": b"old"},
        (Deed(_PUT, "", b"new", archive=True, reason="edited here"),),
        {"": b"new"},
        (("", b"old"),),
        single_file=True,
    ),
)
