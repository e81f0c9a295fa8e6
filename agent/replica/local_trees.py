"""The trees of this node: what stands in them, kept in the index by scans and by the system's notifications.

Knows nothing of the other node. Invariants: the index is used by one thread at a time; a tree is not scanned while a
round is put in place there, or what the round writes would look like an edit.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import trio

from agent.config.model import Tree, TreeKind
from agent.core.errors import PairAgentError, TreeError
from agent.core.tree_entries import EntryKind
from agent.core.tree_names import RESERVED_FOLDER
from agent.replica.contents import Changed, digest_of
from agent.replica.file_system import FileSystem
from agent.replica.file_tree import Fingerprint, Refused, TreeRoot, tree_root
from agent.replica.index import Index, Update
from agent.replica.scanning import Scanner
from agent.replica.watching import Watcher

T = TypeVar("T")

SMALL_TREE_FILES = 2_000  # scanned whole where nothing may be missed, for it takes a few milliseconds
PAGE = 500
DOUBTED_FILES = 20  # that stood in a tree which is empty now
DIRTY_MAX = 1_000  # paths; more are the whole tree


@dataclass
class LocalTree:
    """One tree of this node while the worker runs."""

    name: str
    kind: TreeKind
    config: Tree
    root: TreeRoot | None = None  # None: nothing can be done with it now, `problem` says why
    problem: str = ""
    unusable: str = ""  # the same, unless nothing is here yet: no workload may start on what is left of it
    scanned: bool = False  # the index holds what stands there
    files: int = 0
    size: int = 0
    refused: list[Refused] = field(default_factory=list)
    refused_count: int = 0
    dirty: set[str] = field(default_factory=set)
    edited: set[str] = field(default_factory=set)  # what scans found changed; a sink has it replaced
    changed_at: float | None = None  # monotonic; the first change that the other node has not got
    changed: trio.Event = field(default_factory=trio.Event)  # something here changed, or its problem did
    lock: trio.Lock = field(default_factory=trio.Lock)  # scans, and rounds while they touch the tree

    def tell_changed(self) -> None:
        """Wakes whoever waits for a change."""
        changed, self.changed = self.changed, trio.Event()
        changed.set()


class _NothingYetError(TreeError):
    """Nothing stands where the tree shall be, and nothing ever did: the ordinary beginning of a sink."""


class LocalTrees:
    """All trees of this node; `run` keeps the index true."""

    def __init__(
        self,
        trees: list[Tree],
        index: Index,
        scan_interval_s: float,
        announce: Callable[..., None],
        watcher: Watcher | None = None,
        disk: FileSystem | None = None,
    ) -> None:
        """`announce(code, sentence, **fields)` takes events; `disk` carries out what changes the trees."""
        self.disk = disk if disk is not None else FileSystem()
        self._index = index
        self._scan_interval_s = scan_interval_s
        self._announce = announce
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(2)
        self._scanner = Scanner()
        self._watcher = watcher if watcher is not None else Watcher()
        self._dirty = trio.Event()
        self._rewatch = trio.CancelScope()  # cancelled when another folder is to be watched
        self.trees = {tree.name: LocalTree(tree.name, tree.kind, tree) for tree in trees}

    async def in_index(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs a method of the index in a thread."""
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._one_at_a_time)

    @property
    def index(self) -> Index:
        """The index; only through `in_index`."""
        return self._index

    async def pages(self, iterator: Iterator[T], size: int = PAGE) -> list[T]:
        """Returns the next items of an iterator over the index."""
        return await self.in_index(lambda: list(islice(iterator, size)))

    # -- scanning

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Scans every tree once, then watches; until cancelled."""
        for tree in self.trees.values():
            try:
                tree.root = await self._standing_root(tree)
                await self._doubt(tree)
            except _NothingYetError:
                continue
            except (TreeError, OSError) as error:
                self._note_problem(tree, str(error))
        task_status.started()
        for tree in self.trees.values():
            await self.scan(tree)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._follow_notifications)
            nursery.start_soon(self._scan_now_and_then)

    def place(self, tree: LocalTree, *, single_file: bool = False) -> TreeRoot:
        """Returns where the tree stands, or shall stand. Raises TreeError."""
        return tree_root(tree.config, single_file_if_absent=single_file)

    async def scan(
        self, tree: LocalTree, under: tuple[str, ...] = ("",), *, full: bool = False, believed: bool = False
    ) -> list[str]:
        """Brings the index up to date below these paths; returns the paths that changed, [""] for too many.

        `full`: all contents are read again. `believed`: an operator asked, so a tree that is empty now may be.
        A tree that cannot be scanned keeps its rows and gets a problem.
        """
        async with tree.lock:
            try:
                if "" not in under and await self._root_changed(tree):
                    under = ("",)
                if "" in under and not believed:
                    await self._doubt(tree)
                update = await self._scan(tree, under)
                if full and tree.root is not None:
                    update.changed += await self._read_again(tree, tree.root)
            except (TreeError, OSError) as error:
                self._note_problem(tree, str(error), quiet=isinstance(error, _NothingYetError))
                return []
            self._note_problem(tree, "")
            if update.changed or update.gone:
                tree.changed_at = tree.changed_at or time.monotonic()
            self._note_refused(tree, update, under)
            tree.edited |= set(update.paths[:DIRTY_MAX]) if update.changed + update.gone < DIRTY_MAX else {""}
            tree.files, tree.size = await self.in_index(self._index.totals, tree.name)
            fresh, tree.scanned = not tree.scanned, True
        if update.changed or update.gone or fresh:
            tree.tell_changed()
        return update.paths if len(update.paths) < DIRTY_MAX else [""]

    async def _doubt(self, tree: LocalTree) -> None:
        """Raises TreeError if what stands in the tree's place now may be another disk: nothing is mounted, say."""
        files, _ = await self.in_index(self._index.totals, tree.name)
        known = await self.in_index(self._index.root, tree.name)
        root = await trio.to_thread.run_sync(self.place, tree)
        if doubt := await trio.to_thread.run_sync(_doubt_of, root, known, files):
            raise TreeError(
                f"{root.path} {doubt}, and {files} files stood there: nothing is taken for deleted, because a disk may "
                "not be mounted, or the path be wrong; if it is meant so, run `pair-agent sync`"
            )

    async def require_same_root(self, tree: LocalTree) -> None:
        """Raises TreeError if another folder stands in the tree's place, and may not be meant to."""
        if await self._root_changed(tree):
            await self.scan(tree)
            if tree.problem:
                raise TreeError(tree.problem)

    async def _root_changed(self, tree: LocalTree) -> bool:
        if tree.root is None or tree.root.single_file:
            return False
        known = await self.in_index(self._index.root, tree.name)
        return bool(known) and await trio.to_thread.run_sync(_identity, tree.root) != known

    async def _standing_root(self, tree: LocalTree) -> TreeRoot:
        """Returns where the tree stands. Raises TreeError, OSError."""
        root = await trio.to_thread.run_sync(self.place, tree)
        if not await trio.to_thread.run_sync(root.path.exists):
            if tree.scanned or (await self.in_index(self._index.totals, tree.name))[0]:
                raise TreeError(f"{root.path} is gone: nothing is taken for deleted; bring it back, or mend the path")
            raise _NothingYetError(f"{root.path} does not exist yet; the first copy from the other node makes it")
        return root

    async def _scan(self, tree: LocalTree, under: tuple[str, ...]) -> Update:
        tree.root = root = await self._standing_root(tree)
        if "" in under and await self._root_changed(tree):
            await self.in_index(self._index.note_root, tree.name, "")
        total = Update(0, 0)
        for each in under:
            found = self._scanner.scan(root, each)
            update = await self.in_index(self._index.update, tree.name, found, each)
            total.changed += update.changed
            total.gone += update.gone
            total.paths.extend(update.paths)
            total.refused.extend(update.refused)
            total.refused_count += update.refused_count
        if "" in under and not await self.in_index(self._index.root, tree.name):
            await self.in_index(self._index.note_root, tree.name, await trio.to_thread.run_sync(_identity, root))
        return total

    async def _read_again(self, tree: LocalTree, root: TreeRoot) -> int:
        """Compares every file's contents with what the index holds; returns how many differ."""
        differing, seq = 0, 0
        while page := await self.in_index(self._index.changes_after, tree.name, seq, PAGE):
            seq = page[-1].seq
            files = [each.path for each in page if each.entry is not None and each.entry.kind is EntryKind.FILE]
            read = await trio.to_thread.run_sync(self._digests, tree.name, root, files, limiter=self._one_at_a_time)
            differing += await self.in_index(self._index.correct_digests, tree.name, read)
        return differing

    def _digests(self, tree: str, root: TreeRoot, paths: list[str]) -> list[tuple[str, Fingerprint, bytes]]:
        read = []
        for path in paths:
            row = self._index.row(tree, path)
            if row is None or row.gone:
                continue
            try:
                digest, fingerprint = digest_of(row.name_on_disk, within=root)
            except (Changed, OSError):
                continue  # it changes right now: a scan finds that
            read.append((path, fingerprint, digest))
        return read

    def _note_problem(self, tree: LocalTree, problem: str, *, quiet: bool = False) -> None:
        if problem and problem != tree.problem and not quiet:
            self._announce("tree-trouble", f"tree {tree.name}: {problem}", tree=tree.name)
        news, tree.problem = problem != tree.problem, problem
        tree.unusable = "" if quiet else problem
        if news:
            tree.tell_changed()

    def _note_refused(self, tree: LocalTree, update: Update, under: tuple[str, ...]) -> None:
        """Takes what scans below these paths refused in place of what earlier ones did there."""
        known = {each.path for each in tree.refused}
        for refused in update.refused:
            if refused.path not in known:
                shown = refused.path.encode("utf-8", "backslashreplace").decode()
                self._announce(
                    "name-refused", f"tree {tree.name}: {shown} is not replicated: {refused.reason}", tree=tree.name
                )
        looked_at, unlisted = set(under), tree.refused_count - len(tree.refused)
        listed = {each.path: each for each in tree.refused if not _is_below(each.path, looked_at)}
        if "" in looked_at:
            listed, unlisted = {}, 0
        unlisted += update.refused_count - len(update.refused)
        listed.update((each.path, each) for each in update.refused)
        tree.refused_count = unlisted + len(listed)
        tree.refused = list(listed.values())[:DIRTY_MAX]

    # -- notifications

    async def _watch(self) -> None:
        while True:
            self._rewatch = trio.CancelScope()
            with self._rewatch:
                roots = [tree.root for tree in self.trees.values() if tree.root is not None]
                await self._watcher.watch(roots, self._note_dirty, self._note_trouble)
                await trio.sleep_forever()

    def _note_dirty(self, name: str, paths: set[str]) -> None:
        tree = self.trees[name]
        tree.dirty |= paths
        if len(tree.dirty) > DIRTY_MAX or "" in tree.dirty:
            tree.dirty = {""}
        dirty, self._dirty = self._dirty, trio.Event()
        dirty.set()

    def _note_trouble(self, name: str, sentence: str) -> None:
        self._announce("tree-trouble", f"tree {name}: {sentence}", tree=name)

    async def _follow_notifications(self) -> None:
        while True:
            dirty = self._dirty
            if not await self._scan_dirty():
                await dirty.wait()

    async def _scan_dirty(self) -> bool:
        found = False
        for tree in self.trees.values():
            if tree.dirty:
                found = True
                paths, tree.dirty = tree.dirty, set()
                highest = (path for path in paths if not _is_below(path.rpartition("/")[0], paths))
                await self.scan(tree, tuple(sorted(highest)))
        return found

    async def _scan_now_and_then(self) -> None:
        while True:
            await trio.sleep(self._scan_interval_s)
            for tree in self.trees.values():
                await self.scan(tree)

    async def make_root(self, tree: LocalTree, *, single_file: bool, believed: bool = False) -> None:
        """Makes the place for a tree that was never here. Raises TreeError for one that is gone, OSError."""
        if tree.root is not None and not tree.problem:
            if not tree.scanned:
                await self.scan(tree, believed=believed)
            return
        root = await trio.to_thread.run_sync(partial(self.place, tree, single_file=single_file))
        if not await trio.to_thread.run_sync(root.path.exists):
            if (await self.in_index(self._index.totals, tree.name))[0]:
                raise TreeError(
                    f"{root.path} is gone; bring it back, or make an empty folder and run `pair-agent sync` to receive "
                    "everything anew"
                )
            folder = root.path.parent if root.single_file else root.path
            await trio.to_thread.run_sync(partial(folder.mkdir, parents=True, exist_ok=True))
        tree.root = root
        if root.single_file:
            tree.problem = ""
        else:
            await self.scan(tree, believed=believed)
        self._rewatch.cancel()

    async def settle(self, tree: LocalTree) -> None:
        """Returns when the index holds every change that was made before the call."""
        if await self._watcher.barrier() and tree.scanned and tree.files > SMALL_TREE_FILES:
            await self._scan_dirty()
        else:
            await self.scan(tree)
        if tree.problem:
            raise PairAgentError(f"tree {tree.name}: {tree.problem}")


def _identity(root: TreeRoot) -> str:
    """Returns which folder stands at the root; empty: none."""
    try:
        status = os.stat(root.path)
    except OSError:
        return ""
    return "" if root.single_file else f"{status.st_dev}:{status.st_ino}"


def _doubt_of(root: TreeRoot, known: str, files: int) -> str:
    """Returns what is odd about a root that held so many files, as a predicate; empty: nothing. Blocks."""
    if root.single_file:
        return "is a file now" if files > 1 else ""
    if not files or not root.path.is_dir():
        return ""
    if known and _identity(root) != known and not _holds_files(root.path, files // 2):
        return "is another folder than before, and most of it is missing"
    if files >= DOUBTED_FILES and not any(each.name != RESERVED_FOLDER for each in root.path.iterdir()):
        return "is empty"
    return ""


def _holds_files(folder: Path, count: int) -> bool:
    """Tells whether at least so many files, and one, stand in a folder."""
    for _, folders, names in os.walk(folder):
        with suppress(ValueError):
            folders.remove(RESERVED_FOLDER)
        count -= len(names)
        if count < 0:
            return True
    return False


def _is_below(path: str, folders: set[str]) -> bool:
    while path and path not in folders:
        path = path.rpartition("/")[0]
    return bool(path)


def free_bytes(tree: LocalTree) -> int:
    """Returns how many bytes are free where a tree stands; 0 if that cannot be told."""
    if tree.root is None:
        return 0
    try:
        return shutil.disk_usage(tree.root.path.parent if tree.root.single_file else tree.root.path).free
    except OSError:
        return 0
