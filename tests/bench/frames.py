"""When data segments of the link passed the loopback interface, by the kernel's clock: how regular heartbeats are.

The kernel stamps each packet, so a watcher that runs late loses nothing. Only packets between two 127.0.0.1 addresses
and one port count; whoever must not be counted takes another address of 127.0.0.0/8. Linux, root.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from itertools import pairwise

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35  # <asm-generic/socket.h>
_PACKET_HOST = 0  # <linux/if_packet.h>: loopback shows every packet twice, out and in
_HEADERS_BYTES = 96
_BUFFER_BYTES = 16 * 1024 * 1024
_LOOPBACK = 0x7F000001
_TIMESPEC = struct.Struct("@ll")

_KEEP, _DROP = (0x06, 0, 0, _HEADERS_BYTES), (0x06, 0, 0, 0)


def _filter(client_port: int | None) -> list[tuple[int, int, int, int]]:
    """Classic BPF: source and destination 127.0.0.1, protocol TCP, one of the ports if one is given; keeps headers."""
    checks = [(0x20, 12, _LOOPBACK), (0x20, 16, _LOOPBACK), (0x30, 9, socket.IPPROTO_TCP)]
    last: list[tuple[int, int, int, int]] = []
    if client_port is not None:
        last = [(0xB1, 0, 0, 0), (0x48, 0, 0, 0), (0x15, 2, 0, client_port)]
        last += [(0x48, 0, 0, 2), (0x15, 0, 1, client_port)]
    program: list[tuple[int, int, int, int]] = []
    for number, (load, offset, wanted) in enumerate(checks):
        to_drop = 2 * (len(checks) - number - 1) + len(last) + 1
        program += [(load, 0, 0, offset), (0x15, 0, to_drop, wanted)]
    return [*program, *last, _KEEP, _DROP]


class LinkWatch:
    """Collects while it is entered; `gaps_ms` afterwards: the times between data segments, primary's and backup's."""

    def __init__(self, port: int, client_port: int | None = None) -> None:
        """Watches all connections to `port`, or only the one that comes from `client_port`."""
        self._port = port
        self._times_ns: dict[bool, list[int]] = {True: [], False: []}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        instructions = _filter(client_port)
        program = b"".join(struct.pack("HBBI", *each) for each in instructions)
        memory = ctypes.create_string_buffer(program)
        fprog = struct.pack("HL", len(instructions), ctypes.addressof(memory))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> LinkWatch:
        self._socket.bind(("lo", _ETH_P_IP))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    @property
    def gaps_ms(self) -> tuple[list[float], list[float]]:
        """The gaps of what the primary sent, and of what the backup sent."""
        primary, backup = (
            [(later - earlier) / 1e6 for earlier, later in pairwise(self._times_ns[from_primary])]
            for from_primary in (True, False)
        )
        return primary, backup

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                packet, ancillary, _, address = self._socket.recvmsg(_HEADERS_BYTES, 64)
            except TimeoutError:
                continue
            if address[2] == _PACKET_HOST:
                self._take(packet, ancillary)

    def _take(self, packet: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        ip_bytes = (packet[0] & 0x0F) * 4
        source, destination = struct.unpack_from("!HH", packet, ip_bytes)
        tcp_bytes = (packet[ip_bytes + 12] >> 4) * 4
        payload_bytes = struct.unpack_from("!H", packet, 2)[0] - ip_bytes - tcp_bytes
        if payload_bytes <= 0 or self._port not in (source, destination):
            return
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
                self._times_ns[source == self._port].append(seconds * 1_000_000_000 + nanoseconds)
