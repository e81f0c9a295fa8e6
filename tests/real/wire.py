"""A wire between two network namespaces that a test can spoil packet by packet: loss, delay, one way, both, or cut.

Each namespace has a TUN device; a thread of the test carries packets from one to the other. So nothing is needed of the
kernel beyond namespaces and TUN, and a fault begins at the instant it is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

PACKET_BYTES_MAX = 65_536
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


@dataclass
class Direction:
    """What happens to packets on their way one way; may be changed at any moment."""

    loss: float = 0.0  # probability
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    carried: int = 0
    _free_at: float = field(default=0.0, repr=False)

    def arrival(self, size: int, now: float, chance: random.Random) -> float | None:
        """Returns when a packet of `size` bytes arrives, None if it is lost."""
        if chance.random() < self.loss:
            return None
        if self.bytes_per_s is not None:
            self._free_at = max(self._free_at, now) + size / self.bytes_per_s
            if self._free_at - now > 2.0:
                return None  # the queue of a slow link is short
            now = self._free_at
        return now + self.delay_s


class Wire:
    """Two namespaces, `address_a` and `address_b`, and the wire between them; `to_b` and `to_a` are its directions."""

    address_a, address_b = "10.77.0.1", "10.77.0.2"

    def __init__(self, seed: int = 1) -> None:
        self.namespaces = tuple(f"pair-{os.getpid()}-{end}" for end in "ab")
        self.to_b, self.to_a = Direction(), Direction()
        self._chance = random.Random(seed)
        self._stop_reader, self._stop_writer = os.pipe()
        made: list[int] = []
        for name, own, other in zip(
            self.namespaces, (self.address_a, self.address_b), (self.address_b, self.address_a), strict=True
        ):
            _ip("netns", "add", name)
            made.append(_open_tun(name))
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", own, "peer", other, "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
        self._ends = made
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def prefix(self, end: int) -> list[str]:
        """Returns the words before a command that runs it at end 0 or 1."""
        return ["ip", "netns", "exec", self.namespaces[end]]

    def both(self, **changes: float | None) -> None:
        """Changes both directions alike."""
        for direction in (self.to_a, self.to_b):
            for name, value in changes.items():
                setattr(direction, name, value)

    def close(self) -> None:
        """Ends the wire and removes the namespaces."""
        os.write(self._stop_writer, b"x")
        self._thread.join()
        for descriptor in (*self._ends, self._stop_reader, self._stop_writer):
            os.close(descriptor)
        for name in self.namespaces:
            _ip("netns", "delete", name)

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        number = 0
        while True:
            now = time.monotonic()
            timeout = max(0.0, under_way[0][0] - now) if under_way else None
            readable, _, _ = select.select([*self._ends, self._stop_reader], [], [], timeout)
            if self._stop_reader in readable:
                return
            for end, direction in ((0, self.to_b), (1, self.to_a)):
                if self._ends[end] in readable:
                    packet = os.read(self._ends[end], PACKET_BYTES_MAX)
                    arrival = direction.arrival(len(packet), time.monotonic(), self._chance)
                    if arrival is not None:
                        number += 1
                        direction.carried += len(packet)
                        heapq.heappush(under_way, (arrival, number, 1 - end, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(under_way)
                with contextlib.suppress(OSError):  # the device's queue is full: a loss like any other
                    os.write(self._ends[end], packet)


@contextlib.contextmanager
def a_wire() -> Iterator[Wire]:
    """A wire, removed afterwards."""
    wire = Wire()
    try:
        yield wire
    finally:
        wire.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def socket_in(namespace: str) -> socket.socket:
    """Returns a new TCP socket that lives in `namespace`, for this process to use."""
    return _inside(namespace, socket.socket)


def _open_tun(namespace: str) -> int:
    def open_tun() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"wire", IFF_TUN | IFF_NO_PI))
        return tun

    return _inside(namespace, open_tun)


def _inside(namespace: str, make: Callable[[], T]) -> T:
    """Returns what `make` made inside `namespace`, in a thread of its own: a namespace is a property of a thread."""
    made: list[T] = []
    failures: list[OSError] = []

    def enter_and_make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(make())
        except OSError as error:
            failures.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return made[0]
