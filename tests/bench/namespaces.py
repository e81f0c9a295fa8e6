"""Two network namespaces behind a switch in a third, and faults whose instant is known exactly.

A cable that is cut silently: the switch's port leaves its bridge, so both nodes keep their carrier and frames vanish.
That is one ioctl, not a program that would have to be started first; and it is the kernel that carries the packets, so
that they cost the nodes what they cost in life. Linux, root.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import struct
import subprocess
import time

from tests.real.wire import socket_in

ADDRESSES = ("10.77.0.1", "10.77.0.2")

_SIOCGIFINDEX, _SIOCBRADDIF, _SIOCBRDELIF = 0x8933, 0x89A2, 0x89A3  # <linux/sockios.h>
_BURST_BYTES = 3_000  # two packets
_numbers = itertools.count(1)


class Network:
    """Nodes 0 and 1 with ADDRESSES, joined by a switch; `close` removes all of it."""

    def __init__(self) -> None:
        stem = f"pab-{os.getpid()}-{next(_numbers)}"
        self.names = (f"{stem}-a", f"{stem}-b")
        self._switch_name = f"{stem}-s"
        self._made: list[str] = []
        try:
            for name in (*self.names, self._switch_name):
                _ip("netns", "add", name)
                self._made.append(name)
                _ip("-n", name, "link", "set", "lo", "up")
            self._join()
        except BaseException:
            self._remove()
            raise
        self._control = socket_in(self._switch_name)

    def prefix(self, node: int) -> list[str]:
        """Returns the command that another one is started through to run on that node."""
        return ["ip", "netns", "exec", self.names[node]]

    def run_on(self, node: int, *arguments: str) -> None:
        """Runs `ip` on that node."""
        _ip("-n", self.names[node], *arguments)

    def carried_bytes(self) -> int:
        """Returns how many bytes have crossed between the nodes so far, both ways, Ethernet headers included."""
        command = ["ip", "-n", self.names[0], "-json", "-statistics", "link", "show", "eth0"]
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[0]["stats64"]
        return int(told["rx"]["bytes"]) + int(told["tx"]["bytes"])

    def slow_down(self, bytes_per_s: int, queue_s: float) -> None:
        """Lets the switch send no faster than that to a node; what would wait there longer than `queue_s` is lost."""
        for port in ("port0", "port1"):
            bucket = ["rate", f"{bytes_per_s}bps", "burst", f"{_BURST_BYTES}b", "latency", f"{round(queue_s * 1000)}ms"]
            _tc("-n", self._switch_name, "qdisc", "replace", "dev", port, "root", "tbf", *bucket)

    def speed_up(self) -> None:
        """Undoes `slow_down`."""
        for port in ("port0", "port1"):
            _tc("-n", self._switch_name, "qdisc", "delete", "dev", port, "root")

    def cut(self, node: int) -> int:
        """Cuts a node off without a sign of it; returns the clock just before, CLOCK_BOOTTIME in ns."""
        return self._change(_SIOCBRDELIF, node)

    def mend(self, node: int) -> int:
        """Undoes `cut`; returns the clock just before."""
        return self._change(_SIOCBRADDIF, node)

    def close(self) -> None:
        """Removes the namespaces."""
        self._control.close()
        self._remove()

    def _join(self) -> None:
        switch = self._switch_name
        _ip("-n", switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "br0", "up")
        for port, name, address in zip(("port0", "port1"), self.names, ADDRESSES, strict=True):
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", port, "master", "br0", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def _change(self, request: int, node: int) -> int:
        port = f"port{node}".encode()
        answer = fcntl.ioctl(self._control, _SIOCGIFINDEX, struct.pack("16si12x", port, 0))
        index = struct.unpack("16si12x", answer)[1]
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        fcntl.ioctl(self._control, request, struct.pack("16si12x", b"br0", index))
        return before_ns

    def _remove(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdout=subprocess.DEVNULL)


def _tc(*arguments: str) -> None:
    subprocess.run(["tc", *arguments], check=True, stdout=subprocess.DEVNULL)
