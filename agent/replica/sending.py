"""Sends files to the sink: many small ones in one go, big ones in pieces, only what the sink lacks of them.

A file is read in a state that it really had (`agent.replica.contents`) or not at all. Reading and hashing are done in
threads, a few pieces ahead of sending. Knows nothing of why a file is wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import trio
from xxhash import xxh3_64_digest

from agent.core import block_match as blocks
from agent.core.block_signature import STRONG_BYTES, Signature, SignatureReader
from agent.core.bulk_messages import (
    GROWN,
    SMALL_FILE_BYTES_MAX,
    Begin,
    Copy,
    End,
    Fetch,
    FetchSmall,
    Files,
    SmallFile,
    Zeros,
)
from agent.core.errors import PeerError
from agent.core.tree_entries import EntryKind
from agent.replica.contents import CHUNK_BYTES, Changed, StableReading, read_stable
from agent.replica.file_tree import Fingerprint
from agent.replica.index import Row
from agent.replica.local_trees import LocalTrees

if TYPE_CHECKING:
    from agent.replica.source import Outlet

FILES_BYTES_MAX = 512 * 1024  # of the contents in one message
PIECES_AHEAD = 4
ATTEMPTS_S = 3.0  # for a file that changes while it is read
ATTEMPT_PAUSES_S = (0.02, 0.1, 0.4)
ZEROS = bytes(CHUNK_BYTES)
RESTLESS = "it changes all the time: no state of it could be read whole"

Digest = tuple[str, Fingerprint, bytes]


def strong(block: memoryview) -> bytes:
    """Returns what tells two blocks apart: XXH3, for it only proposes; the BLAKE3 of the whole file verifies."""
    return xxh3_64_digest(block)[:STRONG_BYTES]


class FileSender:
    """Answers Fetch messages in their order; one task."""

    def __init__(self, outlet: Outlet, local: LocalTrees) -> None:
        self._outlet = outlet
        self._local = local
        self._digests: dict[str, list[Digest]] = {}

    async def run(self, fetches: trio.MemoryReceiveChannel[tuple[Fetch | FetchSmall, bytes]]) -> None:
        """Serves until cancelled."""
        async for fetch, signature in fetches:
            if isinstance(fetch, FetchSmall):
                await self._send_small(fetch)
            else:
                await self._send_big(fetch, signature)
            await self._note_digests()

    # -- small files

    async def _send_small(self, fetch: FetchSmall) -> None:
        rows = await self._local.in_index(self._rows, fetch.tree, fetch.paths)
        done = 0
        while done < len(rows):
            answers = await trio.to_thread.run_sync(self._read_small, fetch.tree, rows[done:])
            await self._outlet.send(Files(fetch.number, tuple(answers)))
            await self._outlet.flush()
            done += len(answers)

    def _rows(self, name: str, paths: Sequence[str]) -> list[Row | None]:
        """Returns the rows of files that stand; in the index's thread."""
        tree = self._local.trees.get(name)
        if tree is None or tree.root is None:
            return [None] * len(paths)
        rows = [self._local.index.row(name, path) for path in paths]
        return [row if row and not row.gone and row.entry.kind is EntryKind.FILE else None for row in rows]

    def _read_small(self, tree: str, rows: Sequence[Row | None]) -> list[SmallFile]:
        """Reads as many of the files as make a good message; in a thread."""
        answers: list[SmallFile] = []
        total = 0
        for row in rows:
            answers.append(SmallFile("it is gone", 0, -1, b"") if row is None else self._read_one_small(tree, row))
            total += len(answers[-1].contents)
            if total > FILES_BYTES_MAX - SMALL_FILE_BYTES_MAX:
                break
        return answers

    def _read_one_small(self, tree: str, row: Row) -> SmallFile:
        root = self._local.trees[tree].root
        assert root is not None
        deadline = time.monotonic() + ATTEMPTS_S
        attempt = 0
        while True:
            try:
                with read_stable(row.name_on_disk, within=root) as reading:
                    if reading.fingerprint.size > SMALL_FILE_BYTES_MAX:
                        return SmallFile(GROWN, 0, -1, b"")
                    contents = b"".join(reading)
                self._note(tree, row.entry.path, reading)
                mode = -1 if row.entry.mode is None else row.entry.mode
                return SmallFile("", reading.fingerprint.mtime_ns, mode, contents)
            except Changed:
                if time.monotonic() > deadline:
                    return SmallFile(RESTLESS, 0, -1, b"")
                time.sleep(ATTEMPT_PAUSES_S[min(attempt, len(ATTEMPT_PAUSES_S) - 1)])
                attempt += 1
            except FileNotFoundError:
                return SmallFile("it is gone", 0, -1, b"")
            except OSError as error:
                return SmallFile(f"it cannot be read: {error.strerror}", 0, -1, b"")

    def _note(self, tree: str, path: str, reading: StableReading) -> None:
        self._digests.setdefault(tree, []).append((path, reading.fingerprint, reading.digest))

    async def _note_digests(self) -> None:
        digests, self._digests = self._digests, {}
        for tree, read in digests.items():
            await self._local.in_index(self._local.index.note_digests, tree, read)

    # -- big files

    async def _send_big(self, fetch: Fetch, signature_bytes: bytes) -> None:
        (row,) = await self._local.in_index(self._rows, fetch.tree, [fetch.path])
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
                self._note(fetch.tree, fetch.path, reading)
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
                await self._outlet.flush()  # the sink copies while the rest is read here
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
