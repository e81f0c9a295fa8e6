"""The listener lets strangers fail cheaply: they take a bounded part of the descriptors, and the oldest one leaves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from agent.core.errors import PeerError
from agent.link import listener as link_listener
from agent.link.listener import HANDSHAKE_S, HANDSHAKES_MAX, SILENT_MAX, Listener, Places, places_within
from agent.link.tls import TlsStream, client_stream
from tests.link.tls_material import good_pair, in_trio

AGENT_NEEDS = 100  # descriptors
ADMIN_CLIENTS = 64


@pytest.mark.parametrize("limit", [256, 257, 300, 512, 739, 740, 741, 1024, 4096, 1_048_576])
def test_strangers_leave_descriptors_to_the_agent_and_to_its_admin_clients(limit: int) -> None:
    silent, handshakes = places_within(limit)
    assert silent + handshakes <= limit - AGENT_NEEDS - ADMIN_CLIENTS
    assert 0 < handshakes <= HANDSHAKES_MAX
    assert 0 < silent <= SILENT_MAX


def test_with_enough_descriptors_the_bounds_are_the_full_ones() -> None:
    assert places_within(None) == (SILENT_MAX, HANDSHAKES_MAX)
    assert places_within(1024) == (SILENT_MAX, HANDSHAKES_MAX)


def test_with_far_too_few_descriptors_a_peer_can_still_connect() -> None:
    for limit in (0, 20, 100, 164):
        silent, handshakes = places_within(limit)
        assert silent >= 4
        assert handshakes >= 4


class Occupants:
    """Starts work that never ends in the places under test, and notes in which order it came and went."""

    def __init__(self, places: Places, nursery: trio.Nursery) -> None:
        self._places = places
        self._nursery = nursery
        self.inside: list[str] = []
        self.stayed: dict[str, bool] = {}

    async def add(self, name: str, work: Callable[[], Awaitable[object]] = trio.sleep_forever) -> None:
        async def sit() -> None:
            self.inside.append(name)
            try:
                await work()
            finally:
                self.inside.remove(name)

        async def occupy() -> None:
            self.stayed[name] = await self._places.occupy(sit)

        self._nursery.start_soon(occupy)
        await trio.testing.wait_all_tasks_blocked()


@in_trio
async def test_where_places_are_short_the_oldest_leaves_and_the_newcomer_gets_in() -> None:
    async with trio.open_nursery() as nursery:
        occupants = Occupants(Places(2), nursery)
        done = trio.Event()
        await occupants.add("first", done.wait)
        await occupants.add("second")
        await occupants.add("third")
        assert occupants.inside == ["second", "third"]
        assert occupants.stayed == {"first": False}
        await occupants.add("fourth", done.wait)
        assert occupants.inside == ["third", "fourth"]
        done.set()
        await trio.testing.wait_all_tasks_blocked()
        assert occupants.stayed == {"first": False, "second": False, "fourth": True}
        await occupants.add("fifth")
        assert occupants.inside == ["third", "fifth"], "the place that became free was used first"
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_place_is_given_back_when_its_work_fails_or_takes_too_long() -> None:
    async def fail() -> None:
        raise PeerError("no certificate")

    places = Places(1)
    for _ in range(3):
        with pytest.raises(PeerError):
            await places.occupy(fail)
    began = trio.current_time()
    assert not await places.occupy(trio.sleep_forever)
    assert trio.current_time() - began == HANDSHAKE_S
    assert await places.occupy(trio.lowlevel.checkpoint)


@asynccontextmanager
async def listening(
    monkeypatch: pytest.MonkeyPatch, *, descriptors: int
) -> AsyncIterator[tuple[tuple[str, int], trio.MemoryReceiveChannel[str], list[str]]]:
    """A listener within a limit of `descriptors`: its address, who got through, and the sentences about others."""
    monkeypatch.setattr(link_listener, "descriptor_limit", lambda: descriptors)
    monkeypatch.setattr(link_listener, "HANDSHAKE_S", 1_000.0)  # nobody leaves because the time is over
    _, server = good_pair()
    arrived, arrivals = trio.open_memory_channel[str](10)
    refused: list[str] = []

    async def serve(stream: TlsStream, address: str) -> None:
        await arrived.send(address)
        await trio.aclose_forcefully(stream)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        subject = Listener(
            [sock], lambda: server, on_stream=serve, on_refused=lambda address, sentence: refused.append(sentence)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subject.run)
            with trio.fail_after(20):
                yield sock.getsockname(), arrivals, refused
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "half a hello"])
def test_the_peer_gets_through_a_crowd_of_strangers_who_hold_on(monkeypatch: pytest.MonkeyPatch, says: bytes) -> None:
    async def main() -> None:
        silent, handshakes = places_within(180)
        async with listening(monkeypatch, descriptors=180) as (address, arrivals, _):
            strangers = []
            for _ in range(silent + handshakes):
                stranger = await trio.open_tcp_stream(*address)
                strangers.append(stranger)
                if says:
                    await stranger.send_all(says)
            client, _ = good_pair()
            stream = client_stream(await trio.open_tcp_stream(*address), client)
            await stream.do_handshake()
            await arrivals.receive()
            with contextlib.suppress(trio.BrokenResourceError):
                assert await strangers[0].receive_some() == b"", "the oldest left"
            for stranger in strangers:
                await trio.aclose_forcefully(stranger)
            await trio.aclose_forcefully(stream)

    trio.run(main)
