"""Receives the contents that a round asks for and stages them, in the order in which they were asked for.

One task writes, in threads, a bounded amount behind what arrives; a small file costs no thread of its own. What becomes
of a staged file is told as a `Step`; what could not be had, by name. Knows neither index nor journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import trio
from blake3 import blake3

from agent.core.bulk_messages import Begin, Copy, End, Files, SmallFile, Zeros
from agent.core.errors import PeerError
from agent.core.tree_entries import Entry
from agent.replica.staging import ContentsDiffer, StagedFile, Staging
from agent.replica.steps import Step

ALTERED = "it arrived other than it was sent"
PIECES_BEHIND = 8  # of at most a MiB each
PARTIAL_BYTES_MIN = 1024 * 1024  # of a file that was cut off: less is not worth going on with


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that was asked for; `step` lacks what arrives with the contents. `old`: the older version's path and
    size, which copies come from. `partial`: a staged file that `old` is and that is of no use afterwards."""

    number: int
    step: Step
    old: str = ""
    old_size: int = 0
    partial: str = ""


@dataclass(slots=True)
class Group:
    """Small files that were asked for in one message, less those that have arrived."""

    number: int
    wanted: list[Wanted]
    arrived: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """What became of one: the step with its staged file, or why there is none; `gone`: the file is no more."""

    wanted: Wanted
    step: Step | None
    digest: bytes = b""
    problem: str = ""


_Piece: TypeAlias = Begin | Copy | Zeros | End | memoryview
_Work: TypeAlias = list[tuple[Wanted, SmallFile]] | tuple[Wanted, _Piece, Callable[[], None]]


class Receiver:
    """Takes what arrives for one round; `run` beside it."""

    def __init__(self, staging: Staging, got: Callable[[list[Got]], None]) -> None:
        """`got` is called in the thread of trio."""
        self._staging = staging
        self._got = got
        self._expected: deque[Wanted | Group] = deque()
        self._outstanding = 0
        self._small: list[tuple[Wanted, SmallFile]] = []
        self._small_bytes = 0
        self._work, self._to_do = trio.open_memory_channel[_Work](PIECES_BEHIND)
        self._big: StagedFile | None = None
        self._idle = trio.Event()
        self._busy = 0
        self.received_bytes = 0

    def expect(self, wanted: Wanted | Group) -> None:
        """A Fetch was sent for this file, or a FetchSmall for these."""
        self._expected.append(wanted)
        self._outstanding += len(wanted.wanted) if isinstance(wanted, Group) else 1

    @property
    def outstanding(self) -> int:
        """How many files were asked for and did not arrive yet."""
        return self._outstanding

    @property
    def under_way_bytes(self) -> int:
        """How much there is of the big file that is arriving."""
        return 0 if self._big is None else self._big.size

    async def run(self) -> None:
        """Stages what arrives until cancelled. Raises OSError when the disk fails; what arrives later is let go."""
        try:
            async for work in self._to_do:
                try:
                    got = await trio.to_thread.run_sync(self._carry_out, work)
                finally:
                    _let_go(work)
                self._busy -= 1
                if got:
                    self._got(got)
                if not self._busy and not self._expected:
                    self._idle.set()
        finally:
            with suppress(trio.WouldBlock):
                while True:
                    _let_go(self._to_do.receive_nowait())
            self._to_do.close()

    async def drained(self) -> None:
        """Returns when everything that was asked for is staged or given up."""
        while self._expected or self._small or self._busy:
            await self._flush_small()
            if self._expected or self._busy:
                self._idle = trio.Event()
                await self._idle.wait()

    # -- what arrives

    async def files(self, files: Files) -> None:
        """Takes small files."""
        group = self._expected[0] if self._expected else None
        if not isinstance(group, Group) or group.number != files.number:
            raise PeerError("the other node sent files that were not asked for")
        if not 0 < len(files.files) <= len(group.wanted) - group.arrived:
            raise PeerError("the other node sent another number of files than was asked for")
        for file in files.files:
            self._small.append((group.wanted[group.arrived], file))
            group.arrived += 1
            self._small_bytes += len(file.contents)
        self.received_bytes += self._small_bytes
        self._outstanding -= len(files.files)
        if group.arrived == len(group.wanted):
            self._expected.popleft()
        await self._flush_small()

    async def begin(self, begin: Begin) -> None:
        """Takes the beginning of a big file, or its beginning anew."""
        await self._put((self._first(begin.number), begin, _nothing))

    async def data(self, view: memoryview, release: Callable[[], None]) -> None:
        """Takes a piece of the big file; `release` is called when `view` is not needed any more."""
        self.received_bytes += len(view)
        await self._put((self._first(), view, release))

    async def piece(self, piece: Copy | Zeros) -> None:
        """Takes a piece of the big file that is not sent as data."""
        await self._put((self._first(), piece, _nothing))

    async def end(self, end: End) -> None:
        """Takes the end of the big file."""
        wanted = self._first(end.number)
        self._expected.popleft()
        self._outstanding -= 1
        await self._put((wanted, end, _nothing))

    def _first(self, number: int | None = None) -> Wanted:
        """Returns the big file that is due; PeerError if it is not that one."""
        first = self._expected[0] if self._expected else None
        if not isinstance(first, Wanted) or number not in (None, first.number):
            raise PeerError("the other node sent a file that was not asked for")
        return first

    async def _flush_small(self) -> None:
        if self._small:
            small, self._small, self._small_bytes = self._small, [], 0
            await self._put(small)

    async def _put(self, work: _Work) -> None:
        self._busy += 1
        try:
            await self._work.send(work)
        except trio.BrokenResourceError:  # the round is given up, and the connection must not wait for it
            _let_go(work)

    # -- in a thread

    def _carry_out(self, work: _Work) -> list[Got]:
        if isinstance(work, list):
            return [self._stage_small(wanted, file) for wanted, file in work]
        wanted, what, _ = work
        if isinstance(what, Begin):
            self._begin(wanted, what)
        elif isinstance(what, End):
            return [self._end(wanted, what)]
        else:
            self._append(wanted, what)
        return []

    def _stage_small(self, wanted: Wanted, file: SmallFile) -> Got:
        if file.problem:
            return Got(wanted, None, problem=file.problem)
        digest = blake3(file.contents).digest()
        staged = self._staging.open(len(file.contents))
        mode = None if file.mode < 0 else file.mode
        try:
            staged.write(file.contents)
            name = staged.finish(digest, mtime_ns=file.mtime_ns, mode=mode)
        except BaseException:
            staged.abandon()
            raise
        return _got(wanted, name, digest, len(file.contents), file.mtime_ns, mode)

    def _begin(self, wanted: Wanted, begin: Begin) -> None:
        if self._big is not None:
            self._big.abandon()
        self._big = self._staging.open(begin.size)

    def _append(self, wanted: Wanted, piece: Copy | Zeros | memoryview) -> None:
        if self._big is None:
            raise PeerError("the other node sent data of a file that it did not begin")
        if isinstance(piece, memoryview):
            self._big.write(piece)
        elif isinstance(piece, Zeros):
            self._big.write_zeros(piece.length)
        elif wanted.old and piece.offset + piece.length <= wanted.old_size:
            self._big.copy_from(wanted.old, piece.offset, piece.length)
        else:
            raise PeerError("the other node sent a copy from outside of the older version")

    def _end(self, wanted: Wanted, end: End) -> Got:
        big, self._big = self._big, None
        if end.problem:
            if big is not None:
                big.abandon()
            return Got(wanted, None, problem=end.problem)
        if big is None:
            raise PeerError("the other node ended a file that it did not begin")
        mode = None if end.mode < 0 else end.mode
        try:
            name = big.finish(end.digest, mtime_ns=end.mtime_ns, mode=mode)
        except ContentsDiffer:
            return Got(wanted, None, problem=ALTERED)
        return _got(wanted, name, end.digest, end.size, end.mtime_ns, mode)

    @property
    def beginnings(self) -> list[str]:
        """The staged beginnings of the big files that did not arrive yet."""
        return [each.partial for each in self._expected if isinstance(each, Wanted) and each.partial]

    def leave(self, *, keep: bool) -> tuple[Wanted, str] | None:
        """After `run` has ended: closes a big file that was cut off; to `keep` it, returns it if it is much."""
        big, self._big = self._big, None
        first = self._expected[0] if self._expected else None
        if big is None:
            return None
        if keep and isinstance(first, Wanted):
            known = first.old_size if first.partial else 0  # the beginning that is there already
            if big.size >= max(PARTIAL_BYTES_MIN, known):
                return first, big.leave()
        big.abandon()
        return None


def _got(wanted: Wanted, name: str, digest: bytes, size: int, mtime_ns: int, mode: int | None) -> Got:
    before = wanted.step.entry
    assert before is not None
    entry = Entry(before.path, before.kind, size, mtime_ns, mode if mode is not None else before.mode, "", digest)
    return Got(wanted, replace(wanted.step, entry=entry, staged=name), digest)


def _let_go(work: _Work) -> None:
    """Says that the memory of a piece is not needed any more."""
    if not isinstance(work, list):
        work[2]()


def _nothing() -> None:
    """Releases nothing."""
