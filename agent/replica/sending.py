"""Sends files to the sink: many small ones in one go, big ones in pieces, only what the sink lacks of them.

A file is read in a state that it really had (`agent.replica.contents`) or not at all. Reading and hashing are done in
threads, a few pieces ahead of sending. Knows nothing of why a file is wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio
from blake3 import blake3

from agent.core import block_match as blocks
from agent.core.block_signature import STRONG_BYTES, Signature, SignatureReader
from agent.core.bulk_messages import SMALL_FILE_BYTES_MAX, Begin, Copy, End, Fetch, File, Zeros
from agent.core.errors import PeerError
from agent.core.tree_entries import EntryKind
from agent.replica.contents import CHUNK_BYTES, Changed, StableReading, read_stable
from agent.replica.file_tree import Fingerprint
from agent.replica.index import Row
from agent.replica.local_trees import LocalTrees

if TYPE_CHECKING:
    from agent.replica.source import Outlet

BATCH_FILES = 128
BATCH_BYTES = 2 * 1024 * 1024
PIECES_AHEAD = 4
ATTEMPTS_S = 3.0  # for a file that changes while it is read
ATTEMPT_PAUSES_S = (0.02, 0.1, 0.4)
ZEROS = bytes(CHUNK_BYTES)
RESTLESS = "it changes all the time: no state of it could be read whole"

Digest = tuple[str, Fingerprint, bytes]


def strong(block: memoryview) -> bytes:
    """Returns what tells two blocks apart."""
    digest: bytes = blake3(block).digest(length=STRONG_BYTES)
    return digest


class FileSender:
    """Answers Fetch messages in their order; one task."""

    def __init__(self, outlet: Outlet, local: LocalTrees) -> None:
        self._outlet = outlet
        self._local = local
        self._digests: dict[str, list[Digest]] = {}

    async def run(self, fetches: trio.MemoryReceiveChannel[tuple[Fetch, bytes]]) -> None:
        """Serves until cancelled."""
        async for first in fetches:
            waiting = [first]
            while waiting:
                while len(waiting) < BATCH_FILES:
                    try:
                        waiting.append(fetches.receive_nowait())
                    except trio.WouldBlock:
                        break
                waiting = waiting[await self._answer(waiting) :]
            await self._note_digests()

    async def _answer(self, waiting: list[tuple[Fetch, bytes]]) -> int:
        """Answers some of the fetches that wait; returns how many."""
        small = []
        for fetch, signature in waiting:
            if signature:
                break
            small.append(fetch)
        if small:
            rows = await self._local.in_index(lambda: [self._row(fetch) for fetch in small])
            answers = await trio.to_thread.run_sync(self._read_small, small, rows)
            for answer in answers:
                await self._outlet.send(answer)
            if answers:
                await self._outlet.flush()
                return len(answers)
        await self._send_big(*waiting[0])
        return 1

    def _row(self, fetch: Fetch) -> Row | None:
        tree = self._local.trees.get(fetch.tree)
        row = None if tree is None or tree.root is None else self._local.index.row(fetch.tree, fetch.path)
        return None if row is None or row.gone or row.entry.kind is not EntryKind.FILE else row

    def _read_small(self, fetches: list[Fetch], rows: list[Row | None]) -> list[File]:
        """Reads small files up to the first that is not small; in a thread."""
        answers: list[File] = []
        total = 0
        for fetch, row in zip(fetches, rows, strict=True):
            if row is None:
                answers.append(File(fetch.number, "it is gone", 0, -1, b""))
                continue
            if row.entry.size > SMALL_FILE_BYTES_MAX:
                break
            answer = self._read_one_small(fetch, row)
            if answer is None:
                break  # it has grown
            answers.append(answer)
            total += len(answer.contents)
            if total > BATCH_BYTES:
                break
        return answers

    def _read_one_small(self, fetch: Fetch, row: Row) -> File | None:
        root = self._local.trees[fetch.tree].root
        assert root is not None
        deadline = time.monotonic() + ATTEMPTS_S
        attempt = 0
        while True:
            try:
                with read_stable(row.name_on_disk, within=root) as reading:
                    contents = b""
                    for chunk in reading:
                        contents += chunk
                        if len(contents) > SMALL_FILE_BYTES_MAX:
                            return None
                mode = -1 if row.entry.mode is None else row.entry.mode
                self._note(fetch, reading)
                return File(fetch.number, "", reading.fingerprint.mtime_ns, mode, contents)
            except Changed:
                if time.monotonic() > deadline:
                    return File(fetch.number, RESTLESS, 0, -1, b"")
                time.sleep(ATTEMPT_PAUSES_S[min(attempt, len(ATTEMPT_PAUSES_S) - 1)])
                attempt += 1
            except FileNotFoundError:
                return File(fetch.number, "it is gone", 0, -1, b"")
            except OSError as error:
                return File(fetch.number, f"it cannot be read: {error.strerror}", 0, -1, b"")

    def _note(self, fetch: Fetch, reading: StableReading) -> None:
        self._digests.setdefault(fetch.tree, []).append((fetch.path, reading.fingerprint, reading.digest))

    async def _note_digests(self) -> None:
        digests, self._digests = self._digests, {}
        for tree, read in digests.items():
            await self._local.in_index(self._local.index.note_digests, tree, read)

    # -- big files

    async def _send_big(self, fetch: Fetch, signature_bytes: bytes) -> None:
        row = await self._local.in_index(self._row, fetch)
        if row is None:
            await self._finish(End(fetch.number, "it is gone", 0, b"", 0, -1))
            return
        signature = None
        if signature_bytes:
            signature = SignatureReader(len(signature_bytes)).feed_untrusted(signature_bytes)
            if signature is None:
                raise PeerError("the other node sent half a signature")
        await self._outlet.send(Begin(fetch.number, row.entry.size))
        deadline = time.monotonic() + ATTEMPTS_S
        end = await self._stream(fetch, row, signature)
        while end.problem == RESTLESS and time.monotonic() < deadline:
            # What was sent of it is void; the sink is told, and the file is sent from its start.
            await trio.sleep(ATTEMPT_PAUSES_S[-1])
            await self._outlet.send(Begin(fetch.number, row.entry.size))
            end = await self._stream(fetch, row, signature)
        await self._finish(end)

    async def _finish(self, end: End) -> None:
        await self._outlet.send(end)
        await self._outlet.flush()

    async def _send_op(self, op: blocks.Op) -> None:
        match op:
            case blocks.Literal():
                await self._outlet.send_data(op.data)
            case blocks.Copy():
                await self._outlet.send(Copy(op.offset, op.length))
            case blocks.Zeros():
                await self._outlet.send(Zeros(op.length))

    async def _stream(self, fetch: Fetch, row: Row, signature: Signature | None) -> End:
        root = self._local.trees[fetch.tree].root
        assert root is not None
        ends: list[End] = []
        pieces, arriving = trio.open_memory_channel[list[blocks.Op]](PIECES_AHEAD)

        def read() -> None:
            try:
                with read_stable(row.name_on_disk, within=root) as reading:
                    for ops in _ops(reading, signature):
                        trio.from_thread.run(pieces.send, ops)
                mode = -1 if row.entry.mode is None else row.entry.mode
                fingerprint = reading.fingerprint
                self._note(fetch, reading)
                ends.append(End(fetch.number, "", fingerprint.size, reading.digest, fingerprint.mtime_ns, mode))
            except Changed:
                ends.append(End(fetch.number, RESTLESS, 0, b"", 0, -1))
            except FileNotFoundError:
                ends.append(End(fetch.number, "it is gone", 0, b"", 0, -1))
            except OSError as error:
                ends.append(End(fetch.number, f"it cannot be read: {error.strerror}", 0, b"", 0, -1))

        async def read_in_thread() -> None:
            async with pieces:
                await trio.to_thread.run_sync(read)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_in_thread)
            async for ops in arriving:
                for op in ops:
                    await self._send_op(op)
        return ends[0]


def _ops(reading: StableReading, signature: Signature | None) -> Iterator[list[blocks.Op]]:
    """Yields what makes the file out of the sink's older version, or out of nothing."""
    if signature is None:
        for chunk in reading:
            empty = not chunk[0] and chunk == (ZEROS if len(chunk) == CHUNK_BYTES else bytes(len(chunk)))
            yield [blocks.Zeros(len(chunk)) if empty else blocks.Literal(memoryview(chunk))]
        return
    matcher = blocks.Matcher(signature, strong)
    for chunk in reading:
        if ops := matcher.feed(chunk):
            yield ops
    if ops := matcher.finish():
        yield ops
