"""Certificates, connections and misbehaving ends for the tests of the link's identity and TLS."""

from __future__ import annotations

import datetime
import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from agent.config.model import Trust
from agent.core.errors import PeerError
from agent.link.identity import Identity
from agent.link.tls import TlsStream, client_stream, server_stream

VIRTUAL_SECONDS_MAX = 1_000_000
NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Signed:
    """A certificate and the key that belongs to it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_certificate(
    name: str,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    signer: Signed | None = None,
    authority: bool = False,
    first_day: int = -1,
    last_day: int = 3650,
) -> Signed:
    """Returns a certificate and its key, a new one if none is given: self-signed, or signed by `signer`.

    The days count from today.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=first_day))
        .not_valid_after(NOW + datetime.timedelta(days=last_day))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return Signed(key, builder.sign(signer.key if signer else key, hashes.SHA256()))


def identity_of(own: Signed, *remote: Signed, trust: Trust = Trust.PINNED, enforce_validity: bool = False) -> Identity:
    """Returns an identity without the checks that loading one makes, so that tests can build wrong ones."""
    return Identity(own.certificate, own.key, tuple(each.certificate for each in remote), trust, enforce_validity)


@functools.cache
def nodes() -> tuple[Signed, Signed]:
    """Returns the certificates of the two nodes of a pair, the same in every test."""
    return make_certificate("backup"), make_certificate("primary")


def good_pair() -> tuple[Identity, Identity]:
    """Returns the identities of a dialling and a listening node that trust each other."""
    client, server = nodes()
    return identity_of(client, server), identity_of(server, client)


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test in virtual time that jumps on whenever everybody waits; whoever waits for ever fails."""

    @functools.wraps(test)
    def run(**arguments: object) -> None:
        async def bounded() -> None:
            with trio.fail_after(VIRTUAL_SECONDS_MAX):
                await test(**arguments)

        trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def streams(client: Identity, server: Identity) -> tuple[TlsStream, TlsStream]:
    """Returns both ends of one TLS connection in memory, before the handshake."""
    near, far = trio.testing.memory_stream_pair()
    return client_stream(near, client), server_stream(far, server)


async def handshakes(*ends: TlsStream) -> None:
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.do_handshake)


async def connected() -> tuple[TlsStream, TlsStream]:
    """Returns both ends, client first, of a connection that is ready."""
    client, server = streams(*good_pair())
    await handshakes(client, server)
    return client, server


async def outcome(stream: TlsStream) -> Exception | None:
    """Shakes hands and reads once, as a session does; returns what went wrong first, after closing the stream."""
    try:
        with trio.fail_after(60):
            await stream.do_handshake()
            await stream.receive_some()
    except (PeerError, trio.BrokenResourceError) as error:
        return error
    finally:
        await stream.aclose()
    return None


async def outcomes(client: TlsStream, server: TlsStream) -> tuple[Exception | None, Exception | None]:
    """Runs both ends until each has failed or was closed; returns what happened to the client and to the server."""
    found: dict[TlsStream, Exception | None] = {}

    async def run(stream: TlsStream) -> None:
        found[stream] = await outcome(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, client)
        nursery.start_soon(run, server)
    return found[client], found[server]


class RandomChunks(trio.abc.Stream):
    """A stream that delivers what it is given in pieces of random sizes after random virtual delays."""

    def __init__(self, stream: trio.abc.Stream, seed: int, *, piece_bytes_max: int) -> None:
        self._stream = stream
        self._random = random.Random(seed)
        self._piece_bytes_max = piece_bytes_max

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        while data:
            size = self._random.randint(1, self._piece_bytes_max)
            await trio.sleep(self._random.uniform(0, 1))
            await self._stream.send_all(data[:size])
            data = data[size:]

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep(self._random.uniform(0, 1))
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.sleep(self._random.uniform(0, 1))
        return await self._stream.receive_some(self._random.randint(1, self._piece_bytes_max))

    async def aclose(self) -> None:
        await self._stream.aclose()


class RawEnd:
    """The other end as plain pyOpenSSL with a context of the test's own: it can do what this product never does."""

    def __init__(self, stream: trio.abc.Stream, context: SSL.Context, *, server: bool = False) -> None:
        self.stream = stream
        self.connection = SSL.Connection(context, None)
        if server:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()

    def taken(self) -> bytes:
        """Returns the records that wait to be sent."""
        records = b""
        while True:
            try:
                records += self.connection.bio_read(1 << 20)
            except SSL.WantReadError:
                return records

    async def flush(self) -> None:
        if records := self.taken():
            await self.stream.send_all(records)

    async def fill(self) -> None:
        records = await self.stream.receive_some()
        if not records:
            raise trio.BrokenResourceError("the other end closed")
        self.connection.bio_write(bytes(records))

    async def do_handshake(self) -> None:
        while True:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                await self.flush()
                await self.fill()
            except SSL.Error:
                await self.flush()
                raise
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        self.connection.send(data)
        await self.flush()

    async def receive(self) -> bytes:
        """Returns data; raises OpenSSL.SSL.Error for alerts, ZeroReturnError for close_notify."""
        while True:
            try:
                return self.connection.recv(1 << 16)
            except SSL.WantReadError:
                await self.flush()
                await self.fill()


def raw_context(own: Signed | None = None, *, alpn: bytes | None = b"pair-agent/1", version: int = 0) -> SSL.Context:
    """Returns a context that accepts every certificate; it presents `own` and speaks only `version`, if given."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if version:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if alpn is not None:
        context.set_alpn_protos([alpn])
        context.set_alpn_select_callback(lambda _, offered: alpn)
    if own is not None:
        context.use_certificate(own.certificate)
        context.use_privatekey(own.key)
    return context


async def handshakes_with(client: RawEnd, server: TlsStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await client.do_handshake()


async def exchange_with_server(context: SSL.Context, identity: Identity) -> tuple[TlsStream, RawEnd]:
    """Returns both ends after one message of the server has been read, session tickets before it included."""
    near, far = trio.testing.memory_stream_pair()
    client, server = RawEnd(near, context), server_stream(far, identity)
    await handshakes_with(client, server)
    await server.send_all(b"x")
    assert await client.receive() == b"x"
    return server, client


async def server_against(context: SSL.Context, *, identity: Identity | None = None) -> Exception | None:
    """Returns what our server says about a plain client that goes as far as it is let."""
    near, far = trio.testing.memory_stream_pair()
    return await against(RawEnd(near, context), server_stream(far, identity or good_pair()[1]))


async def client_against(context: SSL.Context, *, identity: Identity | None = None) -> Exception | None:
    """Returns what our client says about a plain server that goes as far as it is let."""
    near, far = trio.testing.memory_stream_pair()
    return await against(RawEnd(near, context, server=True), client_stream(far, identity or good_pair()[0]))


async def against(raw: RawEnd, stream: TlsStream) -> Exception | None:
    async def play() -> None:
        try:
            await raw.do_handshake()
            await raw.receive()
        except (SSL.Error, trio.BrokenResourceError):
            await raw.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        error = await outcome(stream)
        await raw.stream.aclose()
        nursery.cancel_scope.cancel()
    return error
