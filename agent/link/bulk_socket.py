"""A connected socket as the transport of a bulk connection: large transfers, few turns of the event loop.

trio's own SocketStream tells the kernel to wake a sender only when almost everything has left; that keeps latency low
and costs a turn of the loop for every few kilobytes. Here the window bounds what is under way, so the kernel may buffer
as it likes. For the same reason other tasks run after every TURN_BYTES, not at every call, unless a call has to wait.
Also plays back bytes that somebody else read from the socket first. Knows nothing of TLS.
"""

from __future__ import annotations

import contextlib
import socket

import trio

from agent.platform.sockets import tune_link_socket

KERNEL_TIMEOUT_MS = 60_000
TURN_BYTES = 1024 * 1024
NOTSENT_LOWAT_DEFAULT = 0  # the system's own, which is no limit


class BulkSocket(trio.abc.HalfCloseableStream):
    """One end of a TCP connection; it owns `sock`."""

    def __init__(self, sock: socket.socket, received: bytes = b"") -> None:
        """`sock` is connected; `received` are bytes from it that come before what is still to be read."""
        sock.setblocking(False)
        tune_link_socket(sock, KERNEL_TIMEOUT_MS)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_DEFAULT)
        self._sock = sock
        self._received = received
        self._bytes_in_turn = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream."""
        buffer = bytearray(64 * 1024 if max_bytes is None else max_bytes)
        return bytes(buffer[: await self.receive_into(memoryview(buffer))])

    async def receive_into(self, buffer: memoryview) -> int:
        """Like `receive_some`, but puts the bytes into `buffer` and returns how many they are."""
        if not buffer:
            raise ValueError("there must be room for at least 1 byte")
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._received:
            count = min(len(buffer), len(self._received))
            buffer[:count], self._received = self._received[:count], self._received[count:]
            await self._let_others_run(count)
            return count
        waited = False
        while True:
            self._check_open()
            try:
                count = self._sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                waited = True
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            else:
                if not waited:
                    await self._let_others_run(count)
                return count

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._let_others_run(len(data))
        with memoryview(data) as whole:
            sent = 0
            while sent < len(whole):
                self._check_open()
                try:
                    with whole[sent:] as rest:
                        sent += self._sock.send(rest)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                except OSError as error:
                    raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        self._check_open()
        await trio.lowlevel.wait_writable(self._sock)

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        self._check_open()
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()

    async def _let_others_run(self, count: int) -> None:
        self._bytes_in_turn += count
        if self._bytes_in_turn >= TURN_BYTES:
            self._bytes_in_turn = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_open(self) -> None:
        if self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this socket was closed here")
