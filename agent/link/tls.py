"""A TLS 1.3 connection between the two nodes, as a trio `Stream` over any other trio `Stream`.

Theory of operation
-------------------
`TlsBuffers` turns data into records and back in memory and never waits; this module moves the records. Three rules:

1. Between touching the buffers and awaiting nothing else may run, so every method computes first, then awaits one
   thing, then looks again. trio switches tasks only at an await.
2. One task may send and one may receive at the same time; a second one gets `trio.BusyResourceError`. Sending needs
   only the transport's sending half. Receiving rarely needs it too: TLS 1.3 has no renegotiation, but the other end may
   ask for new keys, and decrypting then leaves answers to be sent, which would pile up if nobody sent any data. The
   sending half therefore has a lock; whoever holds it sends everything that the buffers hold before it lets go.
   Records must reach the wire in the order in which they were made, for each has an implicit number.
3. A send that was interrupted has left half a record on the wire: nothing can be sent any more
   (`trio.BrokenResourceError`), but receiving goes on, because what is still to be read often says why. An interrupted
   receive loses nothing.

Who learns what, and when: each side judges the other's certificate inside the handshake. The client's half of a
TLS 1.3 handshake ends before the server has seen the client's certificate. So a server's `do_handshake` raises if the
client is refused, but a refused client's `do_handshake` returns, and its first `receive_some` raises `PeerError` with
the server's alert as a sentence. A client that only sends would learn no more than that the connection broke: read.

The server's session tickets (see `tls_context`) are made when the handshake ends, when nobody on the other side may be
reading; they are kept back and go out in front of the first data.

How it ends: `aclose` sends close_notify, and the other side reads b"". A connection that ends without it was cut off,
by a crash or by someone in between: `trio.BrokenResourceError`. Closing a TCP socket with unread bytes resets the
connection, which can destroy what was sent last, a goodbye or an alert; so `aclose` reads on, for a bounded time and
amount, until the other end closes as well.

Speed: AES-GCM records are good for 2**24.5 full ones under one key (RFC 8446, 5.5) and this library cannot change keys;
`renewal_due` tells when to open another connection instead, and beyond the bound nothing is sent any more.
"""

from __future__ import annotations

import contextlib
import enum
import operator
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import trio
from cryptography import x509

from agent.config.model import Trust
from agent.core.errors import PeerError
from agent.link.identity import Identity
from agent.link.tls_buffers import CHUNK_BYTES, TlsBuffers
from agent.link.tls_context import ALPN_LINK, BulkOffered, Side
from agent.link.turns import OneTask, SendingHalf

__all__ = ["BulkOffered", "TlsStream", "client_stream", "server_stream"]

RECEIVE_BYTES = 256 * 1024
BATCH_BYTES = CHUNK_BYTES  # encrypted before the transport is asked once
HANDSHAKE_RECEIVE_BYTES = 16 * 1024
FAREWELL_SECONDS = 1.0  # for close_notify or an alert to leave
LINGER_SECONDS = 0.5  # for the other end to close as well
LINGER_BYTES_MAX = 1024 * 1024
RECORDS_PER_KEY_MAX = 2**24
RECORDS_PER_KEY_LIMIT = 23_726_566  # 2**24.5
RECORD_BYTES_MAX = 16 * 1024


def client_stream(transport: trio.abc.Stream, identity: Identity, protocol: bytes = ALPN_LINK) -> TlsStream:
    """Returns the dialling end of TLS over `transport`, not yet shaken hands. Raises CredentialError."""
    return TlsStream(transport, identity, Side.CLIENT, protocol)


def server_stream(
    transport: trio.abc.Stream, identity: Identity, protocol: bytes = ALPN_LINK, *, tells_bulk: bool = False
) -> TlsStream:
    """Returns the listening end of TLS over `transport`, not yet shaken hands. Raises CredentialError.

    With `tells_bulk` the handshake raises BulkOffered, before anything is sent, if the client wants a bulk connection.
    """
    return TlsStream(transport, identity, Side.SERVER, protocol, tells_bulk=tells_bulk)


_Received = TypeVar("_Received", bytes, int)


@runtime_checkable
class FillingStream(Protocol):
    """A transport that can receive into given memory, instead of making new memory every time."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Like `receive_some`, but puts the bytes into `buffer` and returns how many they are."""


class _State(enum.Enum):
    NEW = "new"
    OPEN = "open"
    FAILED = "failed"  # the handshake did not end well
    CLOSED = "closed"


class TlsStream(trio.abc.Stream):
    """One end of the encrypted connection; `do_handshake` comes first, everything else follows trio's contract.

    Raises PeerError for whatever the other end does wrong, trio.BrokenResourceError for a connection that broke or was
    cut off, trio.ClosedResourceError after `aclose`, and never an error of the TLS library.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        identity: Identity,
        side: Side,
        protocol: bytes = ALPN_LINK,
        *,
        tells_bulk: bool = False,
    ) -> None:
        """Raises CredentialError if the identity's credentials cannot be used."""
        self._transport = transport
        self._filling = transport if isinstance(transport, FillingStream) else None
        self._side = side
        self._trust = identity.trust
        self._buffers = TlsBuffers(identity, side, protocol, tells_bulk=tells_bulk)
        self._state = _State.NEW
        self._farewell_sent = False
        self._held_back = b""  # the server's session tickets
        self._sending = OneTask("sending on")
        self._receiving = OneTask("receiving from")
        self._sending_half = SendingHalf()
        self._records_sent = 0

    async def do_handshake(self) -> None:
        """Shakes hands and judges the other end; once done, calling it again does nothing.

        Raises PeerError if the other end is refused, refuses, or does not speak this TLS (code "certificate" if it is
        about a certificate), trio.BrokenResourceError if the connection breaks. There is no deadline in here. After an
        error or a cancellation the stream is good for `aclose` only.
        """
        with self._sending, self._receiving:
            self._check_not_closed()
            if self._state is _State.OPEN:
                await trio.lowlevel.checkpoint()
                return
            if self._state is _State.FAILED:
                raise trio.BrokenResourceError("the TLS handshake failed before")
            self._state = _State.FAILED
            await self._shake_hands()
            self._check_not_closed()
            self._state = _State.OPEN

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and sends `data`; see trio.abc.SendStream. A cancelled send leaves the sending half broken."""
        await self.send_together(data)

    async def send_together(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Like `send_all` with one piece after the other, and asks the transport as rarely as if they were one."""
        with self._sending:
            self._check_can_send()
            if not any(len(piece) for piece in pieces):
                await trio.lowlevel.checkpoint()
                return
            await trio.lowlevel.checkpoint_if_cancelled()
            async with self._sending_half:
                self._check_can_send()
                room = BATCH_BYTES
                for piece in pieces:
                    with memoryview(piece) as given, given.cast("B") as view:
                        start = 0
                        while start < len(view):
                            with view[start : start + room] as chunk:
                                self._encrypt(chunk)
                                start, room = start + len(chunk), room - len(chunk)
                            if not room:
                                await self._send_records()
                                room = BATCH_BYTES
                await self._send_records()

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the transport takes data; see trio.abc.SendStream."""
        with self._sending:
            self._check_can_send()
            async with self._sending_half.lock:
                await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Returns some data, at most `max_bytes`, b"" once the other end has closed; see trio.abc.ReceiveStream.

        Raises trio.BrokenResourceError if the connection ended without that, so that data may be missing; PeerError
        with the reason if the other end broke off, such as a server that refused this node's certificate.
        """
        bytes_max = RECEIVE_BYTES if max_bytes is None else operator.index(max_bytes)
        if bytes_max < 1:
            raise ValueError("max_bytes must be at least 1")
        return await self._receive(lambda: self._buffers.decrypt(bytes_max), RECEIVE_BYTES)

    async def receive_into(self, buffer: memoryview) -> int:
        """Like `receive_some`, but puts the data into `buffer` and returns how many bytes they are, 0 for the end."""
        return await self._receive(lambda: self._buffers.decrypt_into(buffer), max(RECEIVE_BYTES, len(buffer)))

    async def _receive(self, decrypt: Callable[[], _Received], records_bytes: int) -> _Received:
        with self._receiving:
            self._check_open()
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while True:
                # Before decrypting, because once data is decrypted nothing may interrupt: it would be lost.
                waited = await self._answer() or waited
                if not self._buffers.needs_records:
                    try:
                        data = decrypt()
                    except PeerError:
                        await self._send_farewell()
                        raise
                    if data or self._buffers.closed_by_peer:
                        if not waited:
                            await trio.lowlevel.cancel_shielded_checkpoint()
                        return data
                waited = True
                if self._filling is not None:
                    count = await self._filling.receive_into(self._buffers.space(records_bytes))
                    self._check_open()
                    self._buffers.filled_untrusted(count)
                else:
                    records = await self._transport.receive_some(records_bytes)
                    count = len(records)
                    self._check_open()
                    self._buffers.feed_untrusted(records)
                if not count:
                    raise trio.BrokenResourceError("the connection was cut off: it ended without TLS close_notify")

    async def aclose(self) -> None:
        """Says close_notify and closes the transport: at once if cancelled, after FAREWELL_SECONDS plus LINGER_SECONDS
        at the latest if the other end does not take it. Tasks that use the stream get trio.ClosedResourceError.
        """
        if self._state is _State.CLOSED:
            await trio.lowlevel.checkpoint()
            return
        opened = self._state is _State.OPEN
        self._state = _State.CLOSED
        try:
            if opened:
                with contextlib.suppress(PeerError):
                    self._buffers.close()
                await self._send_farewell()
            if self._farewell_sent and not self._buffers.closed_by_peer:
                await self._linger()
        finally:
            await self._transport.aclose()

    @property
    def transport(self) -> trio.abc.Stream:
        """The stream underneath: for its addresses, not for reading or writing."""
        return self._transport

    @property
    def peer_certificate(self) -> x509.Certificate:
        """The other end's certificate, as it was judged; before the handshake trio.NeedHandshakeError, as all below."""
        self._check_shaken_hands()
        return self._buffers.peer_certificate

    @property
    def peer_verified(self) -> Trust:
        """How the other end was verified; `insecure` means that it was not."""
        self._check_shaken_hands()
        return self._trust

    @property
    def peer_warning(self) -> str | None:
        """A sentence for the log about an accepted certificate: expired but not enforced, or not checked at all."""
        self._check_shaken_hands()
        return self._buffers.warning

    @property
    def alpn(self) -> str:
        """The application protocol agreed on, such as `pair-agent/1`."""
        self._check_shaken_hands()
        return self._buffers.alpn

    @property
    def cipher(self) -> str:
        """The cipher suite, such as `TLS_AES_128_GCM_SHA256`."""
        self._check_shaken_hands()
        return self._buffers.cipher

    @property
    def group(self) -> str | None:
        """The key exchange group, such as `X25519MLKEM768`; None if the installed pyOpenSSL cannot tell."""
        self._check_shaken_hands()
        return self._buffers.group

    def export_keying_material(self, label: bytes, length: int) -> bytes:
        """Returns `length` bytes that both ends of this connection compute alike and nobody else (RFC 8446, 7.5)."""
        self._check_shaken_hands()
        return self._buffers.export_keying_material(label, length)

    @property
    def renewal_due(self) -> bool:
        """True once another connection should take over (RFC 8446, 5.5): after 256 GiB sent in full records."""
        return self._records_sent >= RECORDS_PER_KEY_MAX

    async def _shake_hands(self) -> None:
        while True:
            try:
                complete = self._buffers.advance_handshake()
            except PeerError:
                await self._send_farewell()
                raise
            if complete and self._side is Side.SERVER:
                self._held_back = bytes(self._buffers.take_records() or b"")
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            async with self._sending_half:
                await self._send_records()
            if complete:
                return
            records = await self._transport.receive_some(HANDSHAKE_RECEIVE_BYTES)
            self._check_not_closed()
            if not records:
                raise trio.BrokenResourceError("the connection ended during the TLS handshake")
            self._buffers.feed_untrusted(records)

    def _encrypt(self, chunk: memoryview) -> None:
        if self._records_sent >= RECORDS_PER_KEY_LIMIT:
            raise trio.BrokenResourceError("the keys of this TLS connection are used up; open another one")
        self._buffers.encrypt(chunk)
        self._records_sent += -(-len(chunk) // RECORD_BYTES_MAX)

    async def _send_records(self) -> None:
        """Sends everything that the buffers hold; the caller has the sending half."""
        if self._held_back:
            held_back, self._held_back = self._held_back, b""
            await self._transport.send_all(held_back)
        while (records := self._buffers.take_records()) is not None:
            await self._transport.send_all(records)

    async def _answer(self) -> bool:
        """Sends what earlier decrypting left to be sent, if anything; returns whether it waited."""
        if not self._buffers.has_records or self._sending_half.broken:
            return False
        with contextlib.suppress(trio.BrokenResourceError):
            async with self._sending_half:
                await self._send_records()
        self._check_open()
        return True

    async def _send_farewell(self) -> None:
        """Sends the last records, an alert, unless another task is in the middle of sending; bounded."""
        if self._sending_half.broken or self._sending_half.lock.locked():
            return
        with (
            trio.move_on_after(FAREWELL_SECONDS),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            async with self._sending_half:
                await self._send_records()
            self._farewell_sent = True

    async def _linger(self) -> None:
        """Discards what the other end still sends until it has closed; bounded in time and amount."""
        expected = trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError
        with trio.move_on_after(LINGER_SECONDS), contextlib.suppress(*expected):
            if isinstance(self._transport, trio.abc.HalfCloseableStream):
                await self._transport.send_eof()
            discarded = 0
            while discarded < LINGER_BYTES_MAX:
                records = await self._transport.receive_some(RECEIVE_BYTES)
                if not records:
                    return
                discarded += len(records)

    def _check_not_closed(self) -> None:
        if self._state is _State.CLOSED:
            raise trio.ClosedResourceError("this TLS stream was closed here")

    def _check_open(self) -> None:
        self._check_not_closed()
        if self._state is _State.NEW:
            raise trio.NeedHandshakeError("do_handshake() comes first")
        if self._state is _State.FAILED:
            raise trio.BrokenResourceError("the TLS handshake failed")

    def _check_can_send(self) -> None:
        self._check_open()
        if self._sending_half.broken:
            raise trio.BrokenResourceError("an earlier send on this TLS stream was interrupted or failed")

    def _check_shaken_hands(self) -> None:
        if self._state in (_State.NEW, _State.FAILED):
            raise trio.NeedHandshakeError("this is known after do_handshake()")
