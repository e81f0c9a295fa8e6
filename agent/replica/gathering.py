"""Gathers what a round needs, in staging: what to do is decided path by path, and contents that lie nowhere on this
disk are asked for, many at a time. Touches nothing of the tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio
from blake3 import blake3

from agent.core.block_signature import Signature
from agent.core.bulk_messages import GROWN, SMALL_FILE_BYTES_MAX, BulkMessage, Fetch, FetchSmall
from agent.core.tree_entries import Entry, EntryKind
from agent.core.tree_plan import Decision, Deed, PlanMode, Want
from agent.replica.archive import Archive
from agent.replica.contents import Changed, digest_of
from agent.replica.file_tree import TreeRoot
from agent.replica.index import Row
from agent.replica.local_trees import LocalTree, LocalTrees
from agent.replica.receiving import ALTERED, Got, Group, Receiver, Wanted
from agent.replica.sending import strong
from agent.replica.staging import ContentsDiffer, Staging
from agent.replica.standing import is_of_one_path
from agent.replica.steps import Archived, Step, StepKind

PAGE = 256
GROUP_FILES = 128  # small files that are asked for in one message
GROUP_BYTES = 1024 * 1024
AHEAD_FILES = 1024  # asked for before the first has arrived
AHEAD_BYTES = 64 * 1024 * 1024
SIGNATURE_BYTES_MIN = 32 * 1024  # smaller files are sent whole
READ_BYTES = 1024 * 1024
MOST_GOES = "most of the tree went"


_Here = dict[bytes, tuple[str, list[Row]]]  # digest: a staged file that should hold it, files that do


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
    blocked: set[str] = field(default_factory=set)  # of the refused those that stand in the way here, on this disk
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


class Gathering:
    """The first half of a round; see the module."""

    def __init__(
        self,
        local: LocalTrees,
        tree: LocalTree,
        root: TreeRoot,
        archive: Archive,
        errands: Errands,
        numbers: Iterator[int],
    ) -> None:
        self._local = local
        self._tree = tree
        self._root = root
        self._archive = archive
        self._errands = errands
        self._numbers = numbers
        self._staging = Staging(self._root, local.disk)
        self.receiver = Receiver(self._staging, self._note_got)
        self._steps: list[Step] = []
        self._names: set[str] = set()  # of the staged files that this round puts in place
        self._small: list[Wanted] = []  # to be asked for in one message
        self._small_bytes = 0
        self._again_paths: set[str] = set()  # asked for once more, as big files and whole
        self._again: list[Step] = []  # to be asked for as big files
        self._room = trio.Event()
        self._ahead_bytes = 0
        self._places: dict[str, str] = {}  # of parent folders: path on disk
        self._mode = PlanMode.MIRROR
        self.most_goes = False  # the source has fewer than half of the files that stand here
        self._both_wrote: set[str] = set()  # of the steps that are not kept yet
        self.result = Result()
        self.progress = Progress()

    # -- planning and asking

    async def _plan(self, mode: PlanMode) -> None:
        self._mode = mode
        plan = self._local.index.plan(self._tree.name, mode)
        while page := await self._local.pages(plan, PAGE):
            here = await self._local.in_index(self._look_up, page)
            for want, row, decision in page:
                await self._decided(want, row, decision, here)
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

    async def _decided(self, want: Want, row: Row | None, decision: Decision, here: _Here) -> None:
        match decision.deed:
            case Deed.FETCH:
                if not await self._have(want, row, decision, here):
                    await self._fetch(want, row, decision)
                return
            case Deed.CONFLICT:
                if want.entry is not None and want.entry.kind is EntryKind.FILE:
                    await self._fetch(want, row, decision)
                else:
                    await self._stage_link(want, row, decision)
                return
            case Deed.MAKE_FOLDER:
                kind = StepKind.MAKE_FOLDER
            case Deed.MAKE_LINK:
                kind = StepKind.MAKE_LINK
            case Deed.REMOVE:
                kind = StepKind.REMOVE
                if self.most_goes and not decision.archive and row is not None:
                    decision = replace(decision, archive=row.entry.kind is not EntryKind.FOLDER, reason=MOST_GOES)
            case Deed.ATTRIBUTES:
                kind = StepKind.ATTRIBUTES
            case _:
                return
        entry = want.entry
        if entry is not None and kind is StepKind.ATTRIBUTES and row is not None:
            entry = _with_digest(entry, row.entry.digest)
        self._steps.append(await self._step(kind, want, row, decision, entry))

    async def _step(self, kind: StepKind, want: Want, row: Row | None, decision: Decision, entry: Entry | None) -> Step:
        if decision.archive and want.changed and want.entry is not None and self._mode is not PlanMode.OVERWRITE:
            self._both_wrote.add(want.path)
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

    async def _have(self, want: Want, row: Row | None, decision: Decision, here: _Here) -> bool:
        """Stages the contents from what lies on this disk already; False if they must come from the source."""
        entry = want.entry
        if entry is None or entry.digest not in here:
            return False
        staged, others = here[entry.digest]
        free = bool(staged) and staged not in self._names  # of several files that are alike one takes what is staged
        good = free and await trio.to_thread.run_sync(self._staging.holds, staged, entry.digest)
        name = staged if good else ""
        for other in others:
            name = name or await trio.to_thread.run_sync(self._copy, other, entry)
        if name:
            self._note_staged(await self._step(StepKind.PUT_FILE, want, row, decision, entry), name)
        return bool(name)

    def _look_up(self, page: list[tuple[Want, Row | None, Decision]]) -> _Here:
        """Returns where the contents that a page of the plan wants lie on this disk; in the index's thread."""
        here: _Here = {}
        for want, _, decision in page:
            if decision.deed is Deed.FETCH and want.entry is not None and (digest := want.entry.digest):
                staged = self._local.index.staged(self._tree.name, digest)
                others = self._local.index.by_digest(self._tree.name, digest)
                if staged or others:
                    here[digest] = staged, others
        return here

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

    async def _stage_link(self, want: Want, row: Row | None, decision: Decision) -> None:
        """Stages a link of the other node that is to go to the archive."""
        assert want.entry is not None
        try:
            name = await trio.to_thread.run_sync(self._staging.link, want.entry.target)
        except OSError as error:
            if not is_of_one_path(error):
                raise
            self.result.refuse(want.path, f"its link cannot be made here: {error.strerror}")
            return
        self._steps.append(
            replace(await self._step(StepKind.ARCHIVE_STAGED, want, row, decision, want.entry), staged=name)
        )
        self._names.add(name)
        self.result.conflict(want.path)

    def _note_staged(self, step: Step, name: str) -> None:
        self._steps.append(replace(step, staged=name))
        self._names.add(name)
        assert step.entry is not None
        self._done(step.entry.size)

    async def _fetch(self, want: Want, row: Row | None, decision: Decision) -> None:
        entry = want.entry
        assert entry is not None
        conflict = decision.deed is Deed.CONFLICT
        kind = StepKind.ARCHIVE_STAGED if conflict else StepKind.PUT_FILE
        step = await self._step(kind, want, row, decision, entry)
        if entry.size <= SMALL_FILE_BYTES_MAX:
            self._small.append(Wanted(0, step))
            self._small_bytes += entry.size
            if len(self._small) >= GROUP_FILES or self._small_bytes >= GROUP_BYTES:
                await self._ask_small()
            return
        wanted, pieces = Wanted(next(self._numbers), step), list[bytes]()
        if entry.size >= SIGNATURE_BYTES_MIN:
            key = partial_key(want.path)  # of the staged beginning of a file that was cut off
            partial = await self._local.in_index(self._local.index.staged, self._tree.name, key)
            wanted, pieces = await trio.to_thread.run_sync(self._signature, wanted, row, partial)
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
            room = self._room = trio.Event()  # before the flush, during which all of it may arrive
            await self._errands.flush()
            await room.wait()
        self._ahead_bytes += size

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
                signature = Signature.of(iter(lambda: file.read(READ_BYTES), b""), size, strong)
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
                # A short digest of a block can collide: what was made of an older version is sent whole, once.
                if got.problem in (GROWN, ALTERED) and entry.path not in self._again_paths:
                    self._again_paths.add(entry.path)
                    self._again.append(got.wanted.step)
                    continue
                if got.problem != "it is gone":
                    self.result.refuse(entry.path, got.problem)
                continue
            if got.step.kind is StepKind.ARCHIVE_STAGED:
                self.result.conflict(entry.path)
            self._steps.append(got.step)
            self._names.add(got.step.staged)
        self._room.set()

    def _done(self, size: int) -> None:
        self.progress.done_files += 1
        self.progress.done_bytes += size

    async def _keep_steps(self, at_least: int = 1) -> None:
        if len(self._steps) >= at_least:
            steps, self._steps = self._steps, []
            self.result.changed += len(steps)
            if any(step.archive for step in steps):
                steps = await trio.to_thread.run_sync(lambda: [self._unless_alike(step) for step in steps])
            for step in steps:
                if step.path in self._both_wrote:
                    self._both_wrote.discard(step.path)
                    if step.archive:
                        self.result.conflict(step.path)
            await self._local.in_index(self._local.index.stage, self._tree.name, steps)

    def _unless_alike(self, step: Step) -> Step:
        """Returns `step`, or one that leaves a file where it is whose contents are the wanted ones; in a thread.

        Of files that neither node ever read, that shows only now; an archive of what nobody would miss helps nobody.
        """
        entry, expected = step.entry, step.expected
        if not step.archive or step.kind is not StepKind.PUT_FILE or entry is None or expected is None:
            return step
        if entry.size == expected.size:
            with suppress(Changed, OSError):  # what stands there gives way, and is archived first
                digest, _ = digest_of(step.place, expected, within=self._root)
                if digest == entry.digest:
                    return replace(step, kind=StepKind.ATTRIBUTES, staged="", archive=False, reason="")
        return step


def partial_key(path: str) -> bytes:
    """Under this key the staged beginning of a file is remembered, whose digest nobody knows."""
    key: bytes = blake3(b"partial:" + path.encode()).digest()
    return key


def _with_digest(entry: Entry, digest: bytes) -> Entry:
    return Entry(entry.path, entry.kind, entry.size, entry.mtime_ns, entry.mode, entry.target, entry.digest or digest)
