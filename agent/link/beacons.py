"""Sends and receives beacons over UDP, on the port number of the link: a slow one while linked, so that firewalls and
address translation keep the way open and the primary learns where the backup sends from; one every heartbeat interval
without a link.

Knows nothing of roles: what was heard without a link is told to the owner. Where UDP does not get through, nothing is
heard and nothing changes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from agent.core.beacon import BEACON_BYTES, KEY_BYTES, Beacon, BeaconCodec, BeaconKeys
from agent.link.tls import TlsStream
from agent.platform.clock import boottime_ns

log = logging.getLogger("agent.link")

KEY_LABELS = {True: b"EXPORTER-pair-agent-beacon-dialler", False: b"EXPORTER-pair-agent-beacon-listener"}
LINKED_INTERVAL_S = 2.0
PAUSE_AFTER_ERROR_S = 1.0
PAUSE_AFTER_STRANGER_S = 0.005


def beacon_keys(stream: TlsStream, *, dialled: bool) -> BeaconKeys:
    """Returns the keys for the beacons beside one connection; `dialled` on the side that opened it."""
    keys = {side: stream.export_keying_material(label, KEY_BYTES) for side, label in KEY_LABELS.items()}
    return BeaconKeys(sending=keys[dialled], receiving=keys[not dialled])


@dataclass(frozen=True)
class BeaconOwner:
    """Whom beacons ask and tell, in the trio thread."""

    describe: Callable[[], tuple[bool, bool, int]]  # active, linked, term
    heard: Callable[[Beacon], None]  # one that its sender sent without a link


class Beacons:
    """The beacons of one node; `begin` with every new link."""

    def __init__(self, owner: BeaconOwner, *, interval_ms: int, patience_ms: int) -> None:
        """`patience_ms` is for how long a beacon heard counts as hearing the peer."""
        self._owner = owner
        self._interval_s = interval_ms / 1000
        self._patience_ns = patience_ms * 1_000_000
        self._codec: BeaconCodec | None = None
        self._socket: trio.socket.SocketType | None = None
        self._peer_address: Any = None
        self._heard_ns: int | None = None
        self._hurry = trio.Event()

    def begin(self, keys: BeaconKeys) -> None:
        """Takes the keys of the connection that became the link."""
        self._codec = BeaconCodec(keys)
        self._heard_ns = None
        self.hurry()  # the primary learns from a beacon where to send its own

    def hurry(self) -> None:
        """Sends the next beacon now: the link has come or gone."""
        self._hurry.set()
        self._hurry = trio.Event()

    async def listen(self, interface_sockets: list[socket.socket]) -> None:
        """Serves a primary: one UDP socket beside each listening TCP socket; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            for tcp in interface_sockets:
                udp = trio.socket.socket(tcp.family, socket.SOCK_DGRAM)
                try:
                    if tcp.family == socket.AF_INET6:
                        only = tcp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
                    await udp.bind(tcp.getsockname())
                except OSError as error:
                    udp.close()
                    log.warning("no beacons: UDP port %d cannot be opened: %s", tcp.getsockname()[1], error.strerror)
                    continue
                nursery.start_soon(self._receive, udp)
            nursery.start_soon(self._send)

    async def dial(self, address: Callable[[], tuple[Any, ...] | None]) -> None:
        """Serves a backup: sends to the address of the last link, `(family, socket address)`; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, address)
            while (known := address()) is None:
                await self._hurry.wait()
            with trio.socket.socket(known[0], socket.SOCK_DGRAM) as udp:
                await udp.bind(("::" if known[0] == socket.AF_INET6 else "0.0.0.0", 0))
                self._socket = udp
                self.hurry()
                await self._receive(udp, learn=False)

    async def _receive(self, udp: trio.socket.SocketType, learn: bool = True) -> None:
        while True:
            try:
                datagram, address = await udp.recvfrom(BEACON_BYTES + 1)
            except OSError:
                # What came back for an earlier datagram (unreachable, refused) says nothing that beacons care for.
                await trio.sleep(self._interval_s)
                continue
            beacon = self._codec.decode_untrusted(datagram) if self._codec is not None else None
            if beacon is None:
                await trio.sleep(PAUSE_AFTER_STRANGER_S)  # a flood of them costs little
                continue
            self._heard_ns = boottime_ns()
            if learn:
                self._socket, self._peer_address = udp, address
            if not beacon.linked:
                self._owner.heard(beacon)

    async def _send(self, address: Callable[[], tuple[Any, ...] | None] = lambda: None) -> None:
        while True:
            if (known := address()) is not None:
                self._peer_address = known[1]
            active, linked, term = self._owner.describe()
            codec, udp = self._codec, self._socket
            if codec is not None and udp is not None and self._peer_address is not None:
                hears = self._heard_ns is not None and boottime_ns() - self._heard_ns < self._patience_ns
                try:
                    await udp.sendto(codec.encode(Beacon(active, linked, hears, term)), self._peer_address)
                except OSError:
                    await trio.sleep(PAUSE_AFTER_ERROR_S)
            with trio.move_on_after(LINKED_INTERVAL_S if linked else self._interval_s):
                await self._hurry.wait()
