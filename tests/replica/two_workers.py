"""Two replica workers of a pair in one process: real indexes, disks, rounds; a connection in memory, roles by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from agent.config.model import Tree, TreeKind
from agent.core.errors import PeerError
from agent.core.tree_versions import TreeVersion
from agent.node.replica_session import Session
from agent.node.replica_work import Work
from agent.replica.archive import Archive
from agent.replica.index import Index
from agent.replica.worker_protocol import Stand
from tests.replica.interrupted_disk import Crash
from tests.replica.memory_connection import Connection, Spoil
from tests.replica.mortality import MortalDisk, Mortality, MortalTrees

FOLLOWING = Stand(True, False, False, False, 1, False, 1)
SERVING = Stand(False, False, True, True, 2, False, 1)
PATIENCE_S = 30.0


class QuietWatcher:
    """Notices nothing: tests scan."""

    async def watch(self, roots: object, on_dirty: object, on_trouble: object) -> None:
        await trio.sleep_forever()

    async def barrier(self) -> bool:
        return False


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that no event tells of."""
    if not await comes_true(condition, within_s=PATIENCE_S):
        raise trio.TooSlowError


async def comes_true(condition: Callable[[], object], *, within_s: float) -> bool:
    """Waits, for a while, for something that no event tells of; returns whether it came."""
    with trio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110  what is waited for is on a disk, or within what is tested
            await trio.sleep(0.005)
        return True
    return bool(condition())


def contents_of(folder: Path) -> dict[str, Any]:
    """Returns what stands in a folder: bytes of a file, target of a link, None for a folder."""
    while True:
        try:
            return _contents_of(folder)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue  # a round is putting something in place


def _contents_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] != ".pair-agent":
            link = path.is_symlink()
            found[name] = str(path.readlink()) if link else None if path.is_dir() else path.read_bytes()
    return found


@dataclass
class Worker:
    """One node's side: a tree in `folder`, at `place`, and what it told its agent."""

    folder: Path
    stand: Stand
    kind: TreeKind = TreeKind.DATA
    may_change: Callable[[str], bool] = lambda incomplete: True
    place: str = "data"
    makes_place: bool = True
    tree_name: str = "data"
    second_place: str = ""  # of a tree "second"
    told: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        if self.makes_place:
            self.data.mkdir(exist_ok=True)
        self.session: Session | None = None
        self.scope = trio.CancelScope()
        self.news = trio.Event()
        self.open()

    def open(self) -> None:
        """Begins a process: what is on the disk is what there is."""
        self.mortality = Mortality(self.folder / "state" / "index.db")
        disk = self.disk = MortalDisk(self.mortality)
        self.index = Index(self.folder / "state" / "index.db")
        trees = [Tree(self.tree_name, self.kind, self.data)]
        if self.second_place:
            trees.append(Tree("second", self.kind, self.folder / self.second_place))
        self.local = MortalTrees(trees, self.index, 3600.0, self.announce, QuietWatcher(), disk)  # type: ignore[arg-type]
        self.local.mortality = self.mortality
        self.archive = Archive(self.folder / "state" / "archive", files=disk)
        self.tree = self.local.trees[self.tree_name]

    async def crash(self, *, power_lost: bool = False) -> None:
        """Ends the process, at once if it has not died by itself; only `open` is left to call.

        `power_lost`: what the index had not made durable is lost; of the tree's files, nothing.
        """
        self.mortality.die()
        self.scope.cancel()
        await until(lambda: self.session is None)
        self.mortality.bury(self.index, power_lost=power_lost)

    def recover(self) -> None:
        """Carries out what a crash interrupted, as a worker does before it says that it is ready."""
        Work._recover(self)  # type: ignore[arg-type]  # of all that a Work is, it uses what a Worker has

    @property
    def data(self) -> Path:
        return self.folder / self.place

    def contents(self) -> dict[str, Any]:
        return contents_of(self.data)

    def archived(self) -> list[bytes]:
        batches = (self.folder / "state" / "archive").glob("*/data*/**/*")
        return sorted(path.read_bytes() for path in batches if path.is_file())

    async def changed(self) -> None:
        """Takes in what a test did to the tree."""
        for tree in self.local.trees.values():
            await self.local.scan(tree)

    async def until(self, *what: Any) -> None:
        """Waits until something was told."""
        with trio.fail_after(PATIENCE_S):
            while what not in [each[: len(what)] for each in self.told]:
                self.news = trio.Event()
                await self.news.wait()

    def sentences(self, code: str) -> list[str]:
        """Returns the events of one kind."""
        return [each[2] for each in self.told if each[:2] == ("event", code)]

    def _note(self, *what: Any) -> None:
        self.told.append(what)
        self.news.set()

    # -- SessionOwner

    async def permit(self, incomplete: str) -> bool:
        self._note("permit", incomplete)
        return self.may_change(incomplete)

    def permission_used(self) -> None:
        self._note("permission used")

    def complete(self, term: int, merged: bool) -> None:
        self._note("complete", term)
        self.stand = replace(self.stand, data_term=term, base_term=term, alone=merged, offered_term=0, overwrite=False)
        if self.session is not None:
            self.session.stand(self.stand)

    def followed(self, term: int) -> None:
        self._note("followed", term)
        self.stand = replace(self.stand, base_term=self.stand.data_term, alone=False, offered_term=0)

    async def offer(self, peer: TreeVersion) -> None:
        self.stand = replace(self.stand, offered_term=self.stand.data_term)

    def announce(self, code: str, sentence: str, **fields: object) -> None:
        self._note("event", code, sentence)

    def conflicted(self, count: int) -> None:
        self._note("conflicted", count)

    def config_applied(self, tree: str) -> None:
        self._note("config applied", tree)

    def restart_asked(self, *, full: bool) -> None:
        if self.session is not None:
            self.session.restart(full=full)

    async def answer(self, what: str) -> dict[str, Any]:
        return {"what": what}

    def close(self) -> None:
        self.index.close()


class Joined:
    """Two workers whose sessions run until the connection breaks or the block ends; `failures` says how they ended.

    `cut_after` and `spoil` are those of the connection. Leaves the workers as their processes would be: alive.
    """

    def __init__(self, one: Worker, other: Worker, *, cut_after: int | None = None, spoil: Spoil | None = None) -> None:
        self.workers = (one, other)
        self.connection = Connection(cut_after, spoil)
        self.failures: dict[int, BaseException] = {}
        self.over = trio.Event()

    async def __aenter__(self) -> Joined:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        for worker in self.workers:
            await worker.changed()
            worker.told.clear()
        self.begin(self._nursery)
        return self

    def begin(self, nursery: trio.Nursery) -> None:
        """Starts both sessions as they are."""
        for number, (worker, end) in enumerate(zip(self.workers, self.connection.ends, strict=True)):
            worker.session = Session(end, worker.local, worker.archive, worker, lambda worker=worker: worker.stand)  # type: ignore[arg-type,misc]
            worker.session.stand(worker.stand)
            worker.scope = trio.CancelScope()
            nursery.start_soon(self._run, number, worker, worker.session)

    async def _run(self, number: int, worker: Worker, session: Session) -> None:
        """As `Work` runs a session: what is wrong with the connection or the peer ends that alone."""
        try:
            with worker.scope:
                await session.run()
        except* (PeerError, OSError, trio.BrokenResourceError, trio.ClosedResourceError, Crash) as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            self.failures[number] = first
        finally:
            worker.session = None
            self.connection.break_off()
            if not any(each.session for each in self.workers):
                self.over.set()

    def received(self, worker: Worker) -> int:
        """Bytes that came to this worker."""
        return self.connection.ends[1 - self.workers.index(worker)].sent_bytes

    async def __aexit__(self, *_: Any) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
