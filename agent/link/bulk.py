"""How a bulk connection comes about: dialled by the backup's worker, or handed over by the primary's agent, and bound
to the link (PROTOCOL.md, section 10).

Certificates are judged as on the link. Then both ends show that they know a key of the link, so that a bulk connection
belongs to one link and dies in meaning with it. Knows nothing of what is sent afterwards.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import trio

from agent.core.bulk_join import CODE_BINDING, JoinKeys, join_payload, judge_join_untrusted, part_payload
from agent.core.errors import PeerError
from agent.link.bulk_socket import BulkSocket
from agent.link.bulk_stream import BulkStream, Payload
from agent.link.identity import Identity
from agent.link.listener import HANDSHAKES_MAX, Places
from agent.link.tls import TlsStream, client_stream, server_stream
from agent.link.tls_context import ALPN_BULK

CONNECT_S = 10.0
BINDING_LABEL = b"EXPORTER-pair-agent-bulk-binding"  # on the link
EXPORTER_LABEL = b"EXPORTER-pair-agent-bulk"  # on the bulk connection
KEY_BYTES = 32


def link_key(stream: TlsStream) -> bytes:
    """Returns the secret that binds bulk connections to the link `stream`; both agents give it to their workers."""
    return stream.export_keying_material(BINDING_LABEL, KEY_BYTES)


async def open_bulk_client(host: str, port: int, identity: Identity, key: bytes) -> BulkStream:
    """Dials the primary and joins the link whose key is `key`.

    Raises PeerError if the other end is not who it should be, refuses or has another link (code "bulk-binding": get the
    present key and try again); OSError or trio.BrokenResourceError if there is no connection; trio.TooSlowError after
    CONNECT_S.
    """
    with trio.fail_after(CONNECT_S):
        sock = await _connected(host, port)
        return await _joined(client_stream(BulkSocket(sock), identity, ALPN_BULK), key, dialled=True)


async def open_bulk_server(accepted: socket.socket, received: bytes, identity: Identity, key: bytes) -> BulkStream:
    """Shakes hands on a socket that was handed over and joins; owns `accepted` from now on. No deadline in here.

    Raises PeerError and trio.BrokenResourceError as `open_bulk_client`.
    """
    try:
        transport = BulkSocket(accepted, received)
    except OSError as error:
        accepted.close()
        raise trio.BrokenResourceError(f"the connection broke: {error}") from error
    return await _joined(server_stream(transport, identity, ALPN_BULK), key, dialled=False)


class BulkAcceptor:
    """The worker's side of sockets that were handed over: strangers until they joined.

    So they are bounded as on the listener: HANDSHAKES_MAX at a time, where the oldest leaves for a newcomer, and each
    for HANDSHAKE_S, the join included. A flood slows the other node down and does not keep it out.
    """

    def __init__(
        self,
        identity: Callable[[], Identity],
        key: Callable[[], bytes | None],
        *,
        on_stream: Callable[[BulkStream, str], Awaitable[None]],
        on_refused: Callable[[str, str], None],
    ) -> None:
        """`key()` is the present link's, None: there is no link. `on_stream(stream, address)` uses a joined stream and
        runs its `run` beside; when it returns, the stream is closed. `on_refused(address, sentence)` tells of others.
        """
        self._identity = identity
        self._key = key
        self._on_stream = on_stream
        self._on_refused = on_refused
        self._places = Places(HANDSHAKES_MAX)
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serves what `take` is given, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def take(self, accepted: socket.socket, received: bytes, address: str) -> None:
        """Takes a socket from the agent, and all that was read from it; never waits. Without a link it is closed."""
        if self._nursery is None or self._key() is None:
            accepted.close()
            return
        self._nursery.start_soon(self._serve, accepted, received, address)

    async def _serve(self, accepted: socket.socket, received: bytes, address: str) -> None:
        joined: list[BulkStream] = []

        async def join() -> None:
            key = self._key()
            if key is None:
                raise PeerError("there is no link that this bulk connection could belong to", code=CODE_BINDING)
            joined.append(await open_bulk_server(accepted, received, self._identity(), key))

        with accepted:
            try:
                in_time = await self._places.occupy(join)
            except PeerError as error:
                self._on_refused(address, str(error))
                return
            except (trio.BrokenResourceError, OSError):
                return  # it went away
            if not joined:
                if not in_time:
                    self._on_refused(address, "the handshake of a bulk connection was not finished in time")
                return
            [stream] = joined
            try:
                await self._on_stream(stream, address)
            finally:
                with trio.CancelScope(shield=True):  # bounded by aclose itself
                    await stream.aclose()


async def _joined(tls: TlsStream, key: bytes, *, dialled: bool) -> BulkStream:
    """Shakes hands, exchanges Join and returns the stream; closes it if anything goes wrong."""
    try:
        await tls.do_handshake()
        keys = JoinKeys(key, tls.export_keying_material(EXPORTER_LABEL, KEY_BYTES), dialled)
        stream = BulkStream(tls)
        await stream.send_payload(join_payload(keys))
        await stream.flush()
        first = await stream.receive()
        if first is None:
            raise trio.BrokenResourceError("the other node closed the bulk connection before it joined")
        try:
            if not isinstance(first, Payload):
                raise PeerError("the other node sent data before it joined the bulk connection")
            judge_join_untrusted(first.payload, keys)
        except PeerError as error:
            await stream.send_payload(part_payload(error))
            await stream.flush()
            raise
    except BaseException:
        await tls.aclose()
        raise
    return stream


async def _connected(host: str, port: int) -> socket.socket:
    """Returns a connected socket. Raises OSError."""
    sock = (await trio.open_tcp_stream(host, port)).socket
    return socket.socket(fileno=sock.detach())
