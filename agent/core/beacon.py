"""Beacons: datagrams beside the link, for when TCP can no longer speak (PROTOCOL.md, section 9).

Where packets are lost in one direction only, a TCP connection dies for both ends, and each end could take the other for
dead. A beacon needs no answer: whoever receives one knows that its sender lives, what it is, and whether it hears this
node. Pure: bytes in and out, time as an argument. Nothing is believed that does not carry the right code and a number
higher than every one before.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from hashlib import sha256

VERSION = 1
KEY_BYTES = 32
TAG_BYTES = 8
CODE_BYTES = 16
_BODY = struct.Struct(">8sBBQQ")  # tag, version, flags, number, term
BEACON_BYTES = _BODY.size + CODE_BYTES
_ACTIVE, _LINKED, _HEARS = 1, 2, 4


@dataclass(frozen=True)
class Beacon:
    """What a node says of itself in a datagram."""

    active: bool
    linked: bool  # it has a link; a beacon of a linked node only keeps the way open
    hears: bool  # it received a beacon from this node within its own takeover time
    term: int


@dataclass(frozen=True)
class BeaconKeys:
    """The keys of one TLS connection's beacons, 32 bytes each; `tag` tells its datagrams from those of another one."""

    sending: bytes
    receiving: bytes

    @property
    def tag(self) -> bytes:
        """The first bytes of every datagram, the same on both sides."""
        return sha256(b"".join(sorted((self.sending, self.receiving)))).digest()[:TAG_BYTES]


class BeaconCodec:
    """Writes and reads the beacons of one TLS connection."""

    def __init__(self, keys: BeaconKeys) -> None:
        self._keys = keys
        self._tag = keys.tag
        self._sent = 0
        self._received = 0

    def encode(self, beacon: Beacon) -> bytes:
        """Returns the next datagram, BEACON_BYTES long."""
        self._sent += 1
        flags = beacon.active * _ACTIVE | beacon.linked * _LINKED | beacon.hears * _HEARS
        body = _BODY.pack(self._tag, VERSION, flags, self._sent, beacon.term)
        return body + _code(self._keys.sending, body)

    def decode_untrusted(self, datagram: bytes) -> Beacon | None:
        """Returns what the peer says, or None for a datagram that is not its own, damaged, or not newer."""
        if len(datagram) != BEACON_BYTES:
            return None
        body, code = datagram[: _BODY.size], datagram[_BODY.size :]
        if not body.startswith(self._tag):  # cheap, for a flood
            return None
        if not hmac.compare_digest(code, _code(self._keys.receiving, body)):
            return None
        _, version, flags, number, term = _BODY.unpack(body)
        if version != VERSION or number <= self._received:
            return None
        self._received = number
        return Beacon(bool(flags & _ACTIVE), bool(flags & _LINKED), bool(flags & _HEARS), term)


def _code(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:CODE_BYTES]
