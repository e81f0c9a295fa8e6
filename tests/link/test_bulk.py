"""A bulk connection comes about between the two nodes of one link only, and strangers stay cheap on the whole way."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
import trio.testing

from agent.core.bulk_frames import FrameType, frame_head
from agent.core.bulk_join import CODE_BINDING, JoinKeys, join_payload
from agent.core.errors import PeerError
from agent.link import bulk
from agent.link.bulk import (
    EXPORTER_LABEL,
    KEY_BYTES,
    BulkAcceptor,
    link_key,
    open_bulk_client,
    open_bulk_server,
)
from agent.link.bulk_stream import BulkStream
from agent.link.listener import HANDSHAKE_S, Places
from agent.link.tls import client_stream
from agent.link.tls_context import ALPN_BULK
from tests.link.bulk_material import received
from tests.link.bulk_primary import KEY, Primary, asked
from tests.link.tls_material import (
    connected,
    good_pair,
    identity_of,
    in_trio,
    make_certificate,
    nodes,
)


def test_a_bulk_connection_is_handed_over_joined_and_used_beside_the_link() -> None:
    client, server = good_pair()

    async def main() -> None:
        primary = Primary(server)
        async with primary.running():
            stream = await open_bulk_client("127.0.0.1", primary.port, client, KEY)
            assert stream.tls.alpn == "pair-agent-bulk/1"
            assert stream.tls.peer_certificate == server.certificate
            assert await asked(stream) == b"m:seen m:question"
            link = client_stream(await trio.open_tcp_stream("127.0.0.1", primary.port), client)
            await link.do_handshake()
            assert await link.receive_some() == b""
            await link.aclose()
        assert primary.handed_over == len(primary.joined) == 1
        assert primary.links == [b"pair-agent/1"]
        assert primary.refused == []

    trio.run(main)


@pytest.mark.parametrize("theirs", [b"o" * KEY_BYTES, None], ids=["another link", "no link"])
def test_who_belongs_to_another_link_is_refused_on_both_sides(theirs: bytes | None) -> None:
    client, server = good_pair()

    async def main() -> None:
        primary = Primary(server, theirs)
        async with primary.running():
            with pytest.raises((PeerError, trio.BrokenResourceError)) as caught:
                await open_bulk_client("127.0.0.1", primary.port, client, KEY)
            if theirs is not None:
                assert isinstance(caught.value, PeerError)
                assert caught.value.code == CODE_BINDING
                assert "present link" in str(caught.value)
                await primary.refused_one.wait()
        assert primary.joined == []

    trio.run(main)


def test_a_stranger_is_refused_by_the_worker_as_by_the_link() -> None:
    _, server = good_pair()
    stranger = make_certificate("stranger")

    async def main() -> None:
        primary = Primary(server)
        async with primary.running():
            with pytest.raises(PeerError) as caught:
                await open_bulk_client("127.0.0.1", primary.port, identity_of(stranger, nodes()[1]), KEY)
            assert caught.value.code == "certificate"
        assert primary.handed_over == 1
        assert primary.joined == []

    trio.run(main)


def test_a_wrong_primary_is_refused_by_the_backup() -> None:
    client, _ = good_pair()
    stranger = make_certificate("stranger")

    async def main() -> None:
        primary = Primary(identity_of(stranger, nodes()[0]))
        async with primary.running():
            with pytest.raises(PeerError) as caught:
                await open_bulk_client("127.0.0.1", primary.port, client, KEY)
            assert caught.value.code == "certificate"

    trio.run(main)


@in_trio
async def test_the_key_that_binds_is_the_links_and_both_ends_have_it() -> None:
    client, server = await connected()
    other, _ = await connected()
    assert link_key(client) == link_key(server)
    assert len(link_key(client)) == KEY_BYTES
    assert link_key(client) != link_key(other)


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (frame_head(FrameType.DATA, 4) + b"data", "sent data before it joined"),
        (frame_head(FrameType.MESSAGE, 3) + b"\x92\x02\x80", "something else before it joined"),
        (frame_head(FrameType.MESSAGE, 4) + b"\x92\x01\x80\xc0", "no msgpack"),
    ],
)
def test_whoever_does_not_begin_with_join_is_refused(says: bytes, sentence: str) -> None:
    client, server = good_pair()

    async def main() -> None:
        primary = Primary(server)
        async with primary.running():
            raw = client_stream(await trio.open_tcp_stream("127.0.0.1", primary.port), client, ALPN_BULK)
            await raw.do_handshake()
            await raw.send_all(says)
            while await raw.receive_some():
                pass  # its Join, why it leaves, and the end
            await raw.aclose()
            await primary.refused_one.wait()
        assert len(primary.refused) == 1
        assert sentence in primary.refused[0]
        assert primary.joined == []

    trio.run(main)


def test_a_join_of_another_connection_sent_again_is_refused() -> None:
    client, server = good_pair()

    async def main() -> None:
        primary = Primary(server)
        async with primary.running():
            first, second = [
                client_stream(await trio.open_tcp_stream("127.0.0.1", primary.port), client, ALPN_BULK)
                for _ in range(2)
            ]
            await first.do_handshake()
            await second.do_handshake()
            recorded = join_payload(JoinKeys(KEY, first.export_keying_material(EXPORTER_LABEL, KEY_BYTES), True))
            await second.send_all(frame_head(FrameType.MESSAGE, len(recorded)) + recorded)
            while await second.receive_some():
                pass
            await primary.refused_one.wait()
            await first.aclose()
            await second.aclose()
        assert "present link" in primary.refused[0]
        assert primary.joined == []

    trio.run(main)


def test_the_peer_joins_through_a_crowd_of_strangers_who_hold_on(monkeypatch: pytest.MonkeyPatch) -> None:
    places = 8
    monkeypatch.setattr(bulk, "HANDSHAKES_MAX", places)
    client, server = good_pair()

    async def main() -> None:
        primary = Primary(server)
        async with primary.running():
            crowd = []
            for _ in range(places + 3):
                raw = client_stream(await trio.open_tcp_stream("127.0.0.1", primary.port), client, ALPN_BULK)
                await raw.do_handshake()  # and no Join: no better than a stranger
                crowd.append(raw)
            stream = await open_bulk_client("127.0.0.1", primary.port, client, KEY)
            assert await asked(stream) == b"m:seen m:question"
            with contextlib.suppress(trio.BrokenResourceError):
                while await crowd[0].receive_some():
                    pass  # the oldest left
            for raw in crowd:
                await trio.aclose_forcefully(raw)
        assert len(primary.joined) == 1

    trio.run(main)


@in_trio
async def test_a_place_of_the_acceptor_is_held_for_a_bounded_time() -> None:
    began = trio.current_time()
    assert not await Places(1).occupy(trio.sleep_forever)
    assert trio.current_time() - began == HANDSHAKE_S


def test_without_a_link_or_not_running_sockets_are_closed_at_once() -> None:
    _, server = good_pair()

    async def main() -> None:
        acceptor = BulkAcceptor(lambda: server, lambda: None, on_stream=never, on_refused=lambda *_: None)
        async with trio.open_nursery() as nursery:
            for start in (False, True):
                if start:
                    nursery.start_soon(acceptor.run)
                    await trio.testing.wait_all_tasks_blocked()
                near, far = socket.socketpair()
                acceptor.take(far, b"", "somewhere")
                assert near.recv(1) == b""
                near.close()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def never(stream: BulkStream, address: str) -> None:
    raise AssertionError("nobody joined")


def test_nobody_there_is_an_ordinary_error() -> None:
    client, _ = good_pair()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError):  # noqa: PT011  the system's words differ
        trio.run(open_bulk_client, "127.0.0.1", port, client, KEY)


@in_trio
async def test_a_primary_that_does_not_answer_is_given_up() -> None:
    client, _ = good_pair()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(trio.TooSlowError):
        await open_bulk_client("127.0.0.1", silent.getsockname()[1], client, KEY)


def test_what_was_appended_arrives_before_the_close() -> None:
    client, server = good_pair()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            found: list[bytes] = []

            async def serve() -> None:
                accepted, _ = await trio.to_thread.run_sync(listening.accept)
                stream = await open_bulk_server(accepted, b"", server, KEY)
                async with trio.open_nursery() as within:
                    within.start_soon(stream.run)
                    found.extend(await received(stream))
                    await stream.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                stream = await open_bulk_client(*listening.getsockname(), client, KEY)
                nursery.start_soon(stream.run)
                for number in range(200):
                    await stream.send_data(bytes([number]) * 50_000)
                await stream.send_payload(b"end")
                await stream.aclose()
        assert found == [b"d:" + bytes([number]) * 50_000 for number in range(200)] + [b"m:end"]

    trio.run(main)
