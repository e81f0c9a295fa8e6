"""A primary for the tests of the bulk connection: its listener and its worker, in one process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from agent.link.bulk import (
    KEY_BYTES,
    BulkAcceptor,
)
from agent.link.bulk_stream import BulkStream
from agent.link.identity import Identity
from agent.link.listener import Listener
from agent.link.tls import TlsStream
from tests.link.bulk_material import shown

KEY = b"k" * KEY_BYTES


@dataclass
class Primary:
    """An agent and its worker in one process: a listener that hands over, an acceptor that takes."""

    identity: Identity
    key: bytes | None = KEY
    port: int = 0
    joined: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    refused_one: trio.Event = field(default_factory=trio.Event)
    handed_over: int = 0
    links: list[bytes] = field(default_factory=list)

    def refuse(self, address: str, sentence: str) -> None:
        self.refused.append(sentence)
        self.refused_one.set()

    async def serve_bulk(self, stream: BulkStream, address: str) -> None:
        self.joined.append(address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run)
            while (item := await stream.receive()) is not None:
                await stream.send_payload(b"seen " + shown(item))
                await stream.flush()
            nursery.cancel_scope.cancel()

    async def serve_link(self, stream: TlsStream, address: str) -> None:
        self.links.append(stream.alpn.encode())
        await stream.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        acceptor = BulkAcceptor(
            lambda: self.identity,
            lambda: self.key,
            on_stream=self.serve_bulk,
            on_refused=self.refuse,
        )

        def hand_over(sock: socket.socket, received: bytes, address: str) -> None:
            self.handed_over += 1
            acceptor.take(sock, received, address)

        with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
            self.port = sock.getsockname()[1]
            listener = Listener(
                [sock],
                lambda: self.identity,
                on_stream=self.serve_link,
                on_refused=self.refuse,
                on_bulk=hand_over,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acceptor.run)
                nursery.start_soon(listener.run)
                with trio.fail_after(30):
                    yield
                nursery.cancel_scope.cancel()


async def asked(stream: BulkStream) -> bytes:
    """Runs a question and an answer over a stream, and closes it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.run)
        await stream.send_payload(b"question")
        await stream.flush()
        answer = shown(await stream.receive())
        await stream.aclose()
    return answer
