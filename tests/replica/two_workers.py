"""Two replica workers of a pair in one process: real indexes, disks and rounds, a connection in memory, roles by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from agent.config.model import Tree, TreeKind
from agent.core.tree_versions import TreeVersion
from agent.link.bulk_stream import BulkStatistics, Payload
from agent.node.replica_session import Session
from agent.replica.archive import Archive
from agent.replica.index import Index
from agent.replica.local_trees import LocalTrees
from agent.replica.worker_protocol import Stand

FOLLOWING = Stand(True, False, False, False, 1, False, 1)
SERVING = Stand(False, False, True, True, 2, False, 1)


class QuietWatcher:
    """Notices nothing: tests scan."""

    async def watch(self, roots: object, on_dirty: object, on_trouble: object) -> None:
        await trio.sleep_forever()

    async def barrier(self) -> bool:
        return False


@dataclass
class MemoryData:
    view: memoryview

    def release(self) -> None:
        pass


class MemoryStream:
    """One end of a connection in memory, in the shape of BulkStream."""

    def __init__(self, out: trio.MemorySendChannel[Any], arriving: trio.MemoryReceiveChannel[Any]) -> None:
        self._out, self._arriving = out, arriving
        self.renewal_due = False
        self.sent_bytes = 0
        self.statistics = BulkStatistics(0, 0, 0, 0, False, 0.0, 0, None)

    async def run(self) -> None:
        await trio.sleep_forever()

    async def send_payload(self, payload: bytes) -> None:
        self.sent_bytes += len(payload)
        await self._out.send(Payload(payload))

    async def send_data(self, data: bytes | memoryview) -> None:
        self.sent_bytes += len(data)
        await self._out.send(MemoryData(memoryview(bytes(data))))

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Any:
        try:
            return await self._arriving.receive()
        except trio.EndOfChannel:
            return None

    async def aclose(self) -> None:
        self._out.close()


@dataclass
class Worker:
    """One node's side: trees in `folder`, and what it told its agent."""

    folder: Path
    stand: Stand
    kind: TreeKind = TreeKind.DATA
    may_change: Callable[[str], bool] = lambda incomplete: True
    told: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        (self.folder / "data").mkdir(exist_ok=True)
        self.index = Index(self.folder / "state" / "index.db")
        tree = Tree("data", self.kind, self.folder / "data")
        self.local = LocalTrees([tree], self.index, 3600.0, self.announce, QuietWatcher())  # type: ignore[arg-type]
        self.archive = Archive(self.folder / "state" / "archive", 0, 0)
        self.tree = self.local.trees["data"]
        self.session: Session | None = None
        self.news = trio.Event()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def contents(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(self.data.rglob("*")):
            name = path.relative_to(self.data).as_posix()
            if name.split("/")[0] != ".pair-agent":
                link = path.is_symlink()
                found[name] = str(path.readlink()) if link else None if path.is_dir() else path.read_bytes()
        return found

    def archived(self) -> list[bytes]:
        batches = (self.folder / "state" / "archive").glob("*/data/**/*")
        return sorted(path.read_bytes() for path in batches if path.is_file())

    async def changed(self) -> None:
        """Takes in what a test did to the tree."""
        await self.local.scan(self.tree)

    async def until(self, *what: Any) -> None:
        """Waits until something was told."""
        with trio.fail_after(20):
            while what not in [each[: len(what)] for each in self.told]:
                self.news = trio.Event()
                await self.news.wait()

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
            self.session.sink.restart(full=full)

    async def answer(self, what: str) -> dict[str, Any]:
        return {"what": what}

    def close(self) -> None:
        self.index.close()


class Joined:
    """Two workers whose sessions run; leave with `cut` or at the end of the block."""

    def __init__(self, one: Worker, other: Worker) -> None:
        self._workers = (one, other)

    async def __aenter__(self) -> Joined:
        there, here = trio.open_memory_channel[Any](64), trio.open_memory_channel[Any](64)
        ends = self._ends = MemoryStream(there[0], here[1]), MemoryStream(here[0], there[1])
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        for worker, end in zip(self._workers, ends, strict=True):
            await worker.changed()
            worker.told.clear()
            worker.session = Session(end, worker.local, worker.archive, worker, lambda worker=worker: worker.stand)  # type: ignore[arg-type,misc]
            worker.session.stand(worker.stand)
            self._nursery.start_soon(worker.session.run)
        return self

    def received(self, worker: Worker) -> int:
        """Bytes that came to this worker."""
        return self._ends[1 - self._workers.index(worker)].sent_bytes

    async def __aexit__(self, *_: Any) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
        for worker in self._workers:
            worker.session = None
