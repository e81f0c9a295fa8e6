"""One round at the sink: what the source told is compared, fetched, made durable and put in place as one.

Until the apply is granted nothing of the tree is touched; from the journal's commit on, a crash anywhere ends in the
whole round (`agent.replica.recovery`). A round that fails before that leaves the tree as it was, and what it has staged
to the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio
from blake3 import blake3

from agent.config.model import TreeKind
from agent.core.block_signature import Signature
from agent.core.bulk_messages import GROWN, SMALL_FILE_BYTES_MAX, BulkMessage, Fetch, FetchSmall, Mark
from agent.core.errors import PairAgentError
from agent.core.tree_entries import Entry, EntryKind
from agent.core.tree_plan import Decision, Deed, PlanMode, Want
from agent.replica.applying import ArchiveError, apply
from agent.replica.archive import Archive
from agent.replica.file_tree import TreeRoot
from agent.replica.index import Row
from agent.replica.local_trees import LocalTree, LocalTrees
from agent.replica.obstacles import obstacles
from agent.replica.receiving import Got, Group, Receiver, Wanted
from agent.replica.sending import strong
from agent.replica.staging import ContentsDiffer, Staging
from agent.replica.steps import Applied, Archived, Blocked, Outcome, Step, StepKind

PAGE = 256
GROUP_FILES = 128  # small files that are asked for in one message
GROUP_BYTES = 1024 * 1024
AHEAD_FILES = 1024  # asked for before the first has arrived
AHEAD_BYTES = 64 * 1024 * 1024
SIGNATURE_BYTES_MIN = 32 * 1024  # smaller files are sent whole
READ_BYTES = 1024 * 1024


class StuckError(PairAgentError):
    """The tree is half way, and only carrying the journal out again can mend that."""


class Errands(Protocol):
    """What a round needs of the connection and the agent."""

    async def ask(self, fetch: Fetch, signature: list[bytes]) -> None:
        """Sends a Fetch, and after it the signature."""

    async def send(self, message: BulkMessage) -> None:
        """Appends a message."""

    async def flush(self) -> None:
        """Sends what was appended."""

    async def permit(self, incomplete: str) -> bool:
        """Asks the agent whether the trees may be changed now."""

    def permission_used(self) -> None:
        """Tells the agent that the apply has ended."""


@dataclass
class Result:
    """What came of a round."""

    changed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    refused_total: int = 0
    archived: list[Archived] = field(default_factory=list)
    archived_total: int = 0
    conflicts: list[str] = field(default_factory=list)
    conflicts_total: int = 0
    granted: bool = True

    def refuse(self, path: str, reason: str) -> None:
        """Notes what could not be brought over."""
        self.refused_total += 1
        if len(self.refused) < PAGE:
            self.refused.append((path, reason))

    def conflict(self, path: str) -> None:
        """Notes a path that both nodes wrote."""
        self.conflicts_total += 1
        if len(self.conflicts) < PAGE:
            self.conflicts.append(path)


@dataclass
class Progress:
    """How far the round is."""

    done_files: int = 0
    total_files: int = 0
    done_bytes: int = 0
    total_bytes: int = 0


class Round:
    """One round of one tree; see the module."""

    def __init__(
        self, local: LocalTrees, tree: LocalTree, archive: Archive, errands: Errands, numbers: Iterator[int]
    ) -> None:
        assert tree.root is not None
        self._local = local
        self._tree = tree
        self._root: TreeRoot = tree.root
        self._archive = archive
        self._errands = errands
        self._numbers = numbers
        self._staging = Staging(self._root, local.disk)
        self.receiver = Receiver(self._staging, self._note_got)
        self._steps: list[Step] = []
        self._names: list[str] = []
        self._small: list[Wanted] = []  # to be asked for in one message
        self._small_bytes = 0
        self._grown: set[str] = set()  # small files that are not small any more
        self._again: list[Step] = []  # to be asked for as big files
        self._room = trio.Event()
        self._ahead_bytes = 0
        self._places: dict[str, str] = {}  # of parent folders: path on disk
        self.result = Result()
        self.progress = Progress()

    async def run(self, mode: PlanMode, mark: Mark, incomplete: str) -> Result:
        """Carries the round out.

        Raises OSError when the disk fails or is full, PairAgentError for what else keeps the round from being begun;
        what was staged is kept.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.receiver.run)
                await self._plan(mode)
                nursery.cancel_scope.cancel()
            await self._keep_steps()
            await trio.to_thread.run_sync(self._staging.flush, self._names)
            if self._tree.kind is TreeKind.CONFIG and self.result.refused:
                path, reason = self.result.refused[0]
                raise PairAgentError(f"{path}: {reason}; a config tree changes as one, so nothing of it was changed")
            await self._put_in_place(mark, incomplete)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._leave()
            raise
        finally:
            self._staging.close()
        return self.result

    async def listing(self, mode: PlanMode, count_max: int) -> tuple[list[dict[str, object]], int, int]:
        """Returns what the round would do: the first `count_max`, how many in all, and how many bytes come over."""
        found: list[dict[str, object]] = []
        total = size = 0
        plan = self._local.index.plan(self._tree.name, mode)
        while page := await self._local.pages(plan, PAGE):
            for want, row, decision in page:
                if decision.deed in (Deed.NOTHING, Deed.ADOPT, Deed.KEEP):
                    continue
                total += 1
                fetched = decision.deed in (Deed.FETCH, Deed.CONFLICT) and want.entry is not None
                size += want.entry.size if fetched and want.entry is not None else 0
                if len(found) < count_max:
                    found.append(
                        {
                            "tree": self._tree.name,
                            "path": want.path,
                            "deed": _deed_word(decision.deed, row),
                            "bytes": want.entry.size if want.entry is not None else 0,
                            "archived": decision.archive,
                        }
                    )
        self._staging.close()
        return found, total, size

    # -- planning and asking

    async def _plan(self, mode: PlanMode) -> None:
        plan = self._local.index.plan(self._tree.name, mode)
        while page := await self._local.pages(plan, PAGE):
            for want, row, decision in page:
                await self._decided(want, row, decision)
            await self._keep_steps(at_least=PAGE)
            await self._errands.flush()
        await self._ask_small()
        await self._errands.flush()
        await self.receiver.drained()
        while self._again:
            again, self._again = self._again, []
            for step in again:
                await self._ask_big(Wanted(next(self._numbers), step), [])
            await self._errands.flush()
            await self.receiver.drained()

    async def _decided(self, want: Want, row: Row | None, decision: Decision) -> None:
        match decision.deed:
            case Deed.FETCH:
                if not await self._have(want, row, decision):
                    await self._fetch(want, row, decision)
                return
            case Deed.CONFLICT:
                if want.entry is not None and want.entry.kind is EntryKind.FILE:
                    await self._fetch(want, row, decision)
                else:
                    self.result.conflict(want.path)
                return
            case Deed.MAKE_FOLDER:
                kind = StepKind.MAKE_FOLDER
            case Deed.MAKE_LINK:
                kind = StepKind.MAKE_LINK
            case Deed.REMOVE:
                kind = StepKind.REMOVE
            case Deed.ATTRIBUTES:
                kind = StepKind.ATTRIBUTES
            case _:
                return
        entry = want.entry
        if entry is not None and kind is StepKind.ATTRIBUTES and row is not None:
            entry = _with_digest(entry, row.entry.digest)
        self._steps.append(await self._step(kind, want, row, decision, entry))
        if decision.archive and want.changed:
            self.result.conflict(want.path)

    async def _step(self, kind: StepKind, want: Want, row: Row | None, decision: Decision, entry: Entry | None) -> Step:
        return Step(
            kind,
            want.path,
            entry,
            archive=decision.archive,
            expected=None if row is None else row.fingerprint,
            name_on_disk=await self._place(want.path, row),
            reason=decision.reason,
        )

    async def _place(self, path: str, row: Row | None) -> str:
        if row is not None:
            return row.name_on_disk
        folder, slash, name = path.rpartition("/")
        if not slash:
            return path
        place = self._places.get(folder)
        if place is None:
            if len(self._places) > PAGE:
                self._places.clear()
            place = await self._local.in_index(self._local.index.place_of, self._tree.name, folder)
            self._places[folder] = place
        return f"{place}/{name}"

    async def _have(self, want: Want, row: Row | None, decision: Decision) -> bool:
        """Stages the contents from what lies on this disk already; False if they must come from the source."""
        entry = want.entry
        if entry is None or not entry.digest:
            return False
        index, name = self._local.index, self._tree.name
        staged = await self._local.in_index(index.staged, name, entry.digest)
        good = bool(staged) and await trio.to_thread.run_sync(self._staging.holds, staged, entry.digest)
        if good:
            step = await self._step(StepKind.PUT_FILE, want, row, decision, entry)
            self._note_staged(step, staged)
            return True
        for other in await self._local.in_index(index.by_digest, name, entry.digest):
            copied = await trio.to_thread.run_sync(self._copy, other, entry)
            if copied:
                step = await self._step(StepKind.PUT_FILE, want, row, decision, entry)
                self._note_staged(step, copied)
                return True
        return False

    def _copy(self, other: Row, entry: Entry) -> str:
        file = self._staging.open(entry.size)
        try:
            file.copy_from(self._root.disk_path(other.name_on_disk), 0, entry.size)
            return file.finish(entry.digest, mtime_ns=entry.mtime_ns, mode=entry.mode)
        except (ContentsDiffer, FileNotFoundError):
            file.abandon()  # that file was changed since: the source has the contents
            return ""
        except BaseException:
            file.abandon()
            raise

    def _note_staged(self, step: Step, name: str) -> None:
        self._steps.append(
            Step(step.kind, step.path, step.entry, name, step.archive, step.expected, step.name_on_disk, step.reason)
        )
        self._names.append(name)
        assert step.entry is not None
        self._done(step.entry.size)

    async def _fetch(self, want: Want, row: Row | None, decision: Decision) -> None:
        entry = want.entry
        assert entry is not None
        conflict = decision.deed is Deed.CONFLICT
        kind = StepKind.ARCHIVE_STAGED if conflict else StepKind.PUT_FILE
        step = await self._step(kind, want, row, decision, entry)
        if entry.size <= SMALL_FILE_BYTES_MAX and want.path not in self._grown:
            self._small.append(Wanted(0, step))
            self._small_bytes += entry.size
            if len(self._small) >= GROUP_FILES or self._small_bytes >= GROUP_BYTES:
                await self._ask_small()
            return
        wanted, pieces = Wanted(next(self._numbers), step), list[bytes]()
        if entry.size >= SIGNATURE_BYTES_MIN:
            wanted, pieces = await trio.to_thread.run_sync(self._signature, wanted, row, await self._partial(want.path))
        await self._ask_small()
        await self._ask_big(wanted, pieces)

    async def _ask_big(self, wanted: Wanted, signature: list[bytes]) -> None:
        entry = wanted.step.entry
        assert entry is not None
        await self._wait_for_room(entry.size)
        self.receiver.expect(wanted)
        size = sum(map(len, signature))
        await self._errands.ask(Fetch(wanted.number, self._tree.name, entry.path, entry.digest, size), signature)

    async def _ask_small(self) -> None:
        """Asks for the small files that were gathered."""
        if not self._small:
            return
        wanted, self._small = self._small, []
        size, self._small_bytes = self._small_bytes, 0
        await self._wait_for_room(size)
        group = Group(next(self._numbers), wanted)
        self.receiver.expect(group)
        await self._errands.send(FetchSmall(group.number, self._tree.name, tuple(each.step.path for each in wanted)))

    async def _wait_for_room(self, size: int) -> None:
        while self.receiver.outstanding >= AHEAD_FILES or (
            self._ahead_bytes + size > AHEAD_BYTES and self.receiver.outstanding
        ):
            await self._errands.flush()
            self._room = trio.Event()
            await self._room.wait()
        self._ahead_bytes += size

    async def _partial(self, path: str) -> str:
        """Returns the staged beginning of a file that was cut off, or nothing."""
        key = _partial_key(path)
        return await self._local.in_index(self._local.index.staged, self._tree.name, key)

    def _signature(self, wanted: Wanted, row: Row | None, partial: str) -> tuple[Wanted, list[bytes]]:
        """Reads the older version that there is and describes it for the source; in a thread."""
        old = ""
        if partial:
            old = self._staging.path(partial)
        elif row is not None and row.entry.kind is EntryKind.FILE and row.entry.size >= SIGNATURE_BYTES_MIN:
            old = self._root.disk_path(row.name_on_disk)
        if not old:
            return wanted, []
        try:
            with open(old, "rb", buffering=0) as file:
                size = file.seek(0, 2)
                file.seek(0)
                signature = Signature.of(iter(partial_read(file.read), b""), size, strong)
        except OSError:
            return wanted, []
        return Wanted(wanted.number, wanted.step, old, signature.size, partial), list(signature.to_wire())

    # -- what arrived

    def _note_got(self, arrived: list[Got]) -> None:
        for got in arrived:
            entry = got.wanted.step.entry
            assert entry is not None
            self._ahead_bytes -= entry.size
            self._done(entry.size)
            if got.step is None:
                if got.problem == GROWN and entry.path not in self._grown:
                    self._grown.add(entry.path)
                    self._again.append(got.wanted.step)
                    continue
                if got.problem != "it is gone":
                    self.result.refuse(entry.path, got.problem)
                continue
            if got.step.kind is StepKind.ARCHIVE_STAGED:
                self.result.conflict(entry.path)
            self._steps.append(got.step)
            self._names.append(got.step.staged)
        self._room.set()

    def _done(self, size: int) -> None:
        self.progress.done_files += 1
        self.progress.done_bytes += size

    async def _keep_steps(self, at_least: int = 1) -> None:
        if len(self._steps) >= at_least:
            steps, self._steps = self._steps, []
            self.result.changed += len(steps)
            await self._local.in_index(self._local.index.stage, self._tree.name, steps)

    # -- putting in place

    async def _put_in_place(self, mark: Mark, incomplete: str) -> None:
        index, name = self._local.index, self._tree.name
        position = (mark.index, mark.seq)
        if not self.result.changed:
            await self._local.in_index(index.finish_apply, name, [], position)
            return
        blocked = await self._local.in_index(lambda: list(obstacles(self._root, index.steps(name))))
        for each in blocked if self._tree.kind is TreeKind.CONFIG else ():
            self.result.refuse(each.path, each.reason)
            raise PairAgentError(f"{each.path}: {each.reason}; a config tree changes as one, so nothing was changed")
        if not await self._errands.permit(incomplete):
            self.result.granted = False
            return
        try:
            with trio.CancelScope(shield=True):  # what has begun is ended: it is short, and granted only once
                async with self._tree.lock:
                    await self._local.in_index(index.begin_apply, name, position)
                    await self._local.in_index(self._apply, position)
                    await trio.to_thread.run_sync(self._staging.clean)
                    self._tree.files, self._tree.size = await self._local.in_index(index.totals, name)
        finally:
            self._errands.permission_used()

    def _apply(self, position: tuple[bytes, int]) -> None:
        name = self._tree.name
        try:
            carry_out(self._local, name, self._root, self._staging, self._archive, position, self._note_outcome)
        except ArchiveError:
            self._local.index.drop_round(name)  # nothing was changed yet
            raise
        except OSError as error:
            raise StuckError(
                f"tree {name}: the disk failed while the changes were put in place: {error.strerror or error}; they are "
                "finished as soon as it works again"
            ) from error

    def _note_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, Blocked):
            self.result.refuse(outcome.path, outcome.reason)
        elif isinstance(outcome, Archived):
            self.result.archived_total += 1
            if len(self.result.archived) < PAGE:
                self.result.archived.append(outcome)

    async def _leave(self) -> None:
        """Keeps what was staged for the next round; the tree itself was not touched."""
        index, name = self._local.index, self._tree.name
        try:
            left = await trio.to_thread.run_sync(self.receiver.leave)
            if left is not None:
                wanted, partial = left
                await self._local.in_index(index.note_staged, name, partial, _partial_key(wanted.step.path))
            await self._keep_steps()
            if name not in await self._local.in_index(index.applying_trees):
                await self._local.in_index(index.drop_round, name)
        except OSError:
            return  # the disk failed; what is staged is found out of date, and removed, by the next round


def carry_out(
    local: LocalTrees,
    name: str,
    root: TreeRoot,
    staging: Staging,
    archive: Archive,
    position: tuple[bytes, int] | None,
    note: Callable[[Outcome], None],
) -> None:
    """Carries out the journal of a tree, now or after a crash, and moves the results into the index; in a thread.

    Raises OSError when the disk fails; the journal stays then.
    """
    index = local.index
    outcomes = apply(root, lambda: index.steps(name), staging, archive, local.disk)

    def results() -> Iterator[Applied]:
        for outcome in outcomes:
            note(outcome)
            if isinstance(outcome, Applied):
                yield outcome

    index.finish_apply(name, results(), position)


def partial_read(read: Callable[[int], bytes]) -> Callable[[], bytes]:
    """Returns `read` for pieces of one size."""
    return partial(read, READ_BYTES)


def _partial_key(path: str) -> bytes:
    """Under this key the staged beginning of a file is remembered, whose digest nobody knows."""
    key: bytes = blake3(b"partial:" + path.encode()).digest()
    return key


def _with_digest(entry: Entry, digest: bytes) -> Entry:
    return Entry(entry.path, entry.kind, entry.size, entry.mtime_ns, entry.mode, entry.target, entry.digest or digest)


def _deed_word(deed: Deed, row: Row | None) -> str:
    if deed is Deed.FETCH or deed is Deed.MAKE_FOLDER or deed is Deed.MAKE_LINK:
        return "create" if row is None else "replace"
    return {Deed.REMOVE: "remove", Deed.ATTRIBUTES: "attributes", Deed.CONFLICT: "conflict"}.get(deed, deed.value)
