"""Spreads the work of many handshakes over the turns of the event loop.

The cryptography of one handshake step takes about a millisecond. A flood of strangers would bring dozens of them into
one turn, and everything that is timed, heartbeats before all, would wait for them together. Knows nothing of TLS.
"""

from __future__ import annotations

import trio


class Turnstile:
    """Lets one through in each turn of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def pass_through(self) -> None:
        """Returns when it is the caller's turn."""
        async with self._lock:
            await trio.lowlevel.checkpoint()


class PacedStream(trio.abc.HalfCloseableStream):
    """A socket's stream whose receptions pass a turnstile, until it is let free."""

    def __init__(self, stream: trio.SocketStream, turnstile: Turnstile) -> None:
        self._stream = stream
        self._turnstile: Turnstile | None = turnstile

    def let_free(self) -> None:
        """From now on nothing is waited for beyond the socket."""
        self._turnstile = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        data = await self._stream.receive_some(max_bytes)
        if self._turnstile is not None:
            await self._turnstile.pass_through()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._stream.aclose()
