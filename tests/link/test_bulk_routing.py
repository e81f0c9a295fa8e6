"""A connection goes to the link or to the worker by what its first message offers, and to nobody by halves."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
import trio.testing
from OpenSSL import SSL
from OpenSSL._util import lib

from agent.core.errors import PeerError
from agent.link.bulk import (
    open_bulk_server,
)
from agent.link.tls import BulkOffered, client_stream, server_stream
from agent.link.tls_context import ALPN_BULK
from tests.link.bulk_primary import KEY
from tests.link.tls_material import (
    RawEnd,
    good_pair,
    nodes,
    raw_context,
)


def test_without_a_worker_a_bulk_connection_is_refused_with_a_sentence() -> None:
    client, server = good_pair()

    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        dialling = client_stream(near, client, ALPN_BULK)
        listening = server_stream(far, server)
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                with pytest.raises(PeerError, match="did not offer ALPN pair-agent/1"):
                    await listening.do_handshake()
                await listening.aclose()

            nursery.start_soon(listen)
            with pytest.raises(PeerError, match="does not speak this product's protocol"):
                await dialling.do_handshake()
            await dialling.aclose()

    trio.run(main)


def test_a_link_client_is_refused_by_the_bulk_server() -> None:
    client, server = good_pair()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            link = client_stream(await trio.open_tcp_stream(*listening.getsockname()), client)
            accepted, _ = listening.accept()

            async def serve() -> None:
                with pytest.raises(PeerError, match="did not offer ALPN pair-agent-bulk/1"):
                    await open_bulk_server(accepted, b"", server, KEY)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                with pytest.raises(PeerError):
                    await link.do_handshake()
                await link.aclose()

    trio.run(main)


@pytest.mark.parametrize("piece_bytes", [1, 50, 1_000])
def test_a_hello_in_pieces_is_handed_over_whole(piece_bytes: int) -> None:
    client, server = good_pair()

    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        dialling = client_stream(near, client, ALPN_BULK)
        sent = bytearray()
        send_all = near.send_stream.send_all

        async def send_in_pieces(data: bytes | bytearray | memoryview) -> None:
            sent.extend(data)
            for start in range(0, len(data), piece_bytes):
                await send_all(bytes(data[start : start + piece_bytes]))
                await trio.lowlevel.checkpoint()

        near.send_stream.send_all = send_in_pieces
        listening = server_stream(far, server, tells_bulk=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialling.do_handshake)
            with pytest.raises(BulkOffered) as caught:
                await listening.do_handshake()
            assert caught.value.received == sent
            with pytest.raises(trio.WouldBlock):
                near.receive_stream._incoming.get_nowait()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_client_whose_first_key_share_does_not_fit_is_never_handed_over_half_way() -> None:
    # Then the server has answered (a retry request) before it asks for the protocol, or asks before it answers.
    context = raw_context(nodes()[0], alpn=ALPN_BULK)
    if lib.SSL_CTX_set1_curves_list(context._context, b"P-384:P-256") != 1:
        pytest.skip("this OpenSSL does not let a client choose its groups")
    _, server = good_pair()

    async def main() -> None:
        near, far = trio.testing.memory_stream_pair()
        answers: list[bytes] = []
        send_all = far.send_stream.send_all

        async def note(data: bytes | bytearray | memoryview) -> None:
            answers.append(bytes(data))
            await send_all(data)

        far.send_stream.send_all = note
        client, listening = RawEnd(near, context), server_stream(far, server, tells_bulk=True)
        async with trio.open_nursery() as nursery:

            async def dial() -> None:
                with contextlib.suppress(SSL.Error, trio.BrokenResourceError):
                    await client.do_handshake()

            nursery.start_soon(dial)
            with pytest.raises((BulkOffered, PeerError)) as caught:
                await listening.do_handshake()
            assert isinstance(caught.value, BulkOffered) == (not answers)
            await listening.aclose()
            nursery.cancel_scope.cancel()

    trio.run(main)
