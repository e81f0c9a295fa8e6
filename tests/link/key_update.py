"""Forges TLS 1.3 records in the name of a real client, under its real keys: what no library offers to send.

RFC 8446: traffic keys 7.3, the next secret 7.2, records 5.2, KeyUpdate 4.6.3. Works for TLS_AES_128_GCM_SHA256.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"
APPLICATION_DATA, HANDSHAKE = 23, 22


class KeyUpdater:
    """Learns a client's secret from its key log and goes on writing in its place; the client itself must be silent."""

    def __init__(self) -> None:
        self._secret = b""
        self._sequence = 0

    def context(self, context: SSL.Context) -> SSL.Context:
        """Returns `context`, now telling its secrets."""
        context.set_keylog_callback(self._note)
        return context

    def _note(self, _: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.split()
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._secret = bytes.fromhex(secret.decode("ascii"))

    def record(self, content: bytes, *, inner_type: int) -> bytes:
        """Returns the next record of the client with this content."""
        plain = content + bytes([inner_type])
        header = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        iv = int.from_bytes(_expand(self._secret, b"iv", 12), "big")
        nonce = (iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + AESGCM(_expand(self._secret, b"key", 16)).encrypt(nonce, plain, header)

    def data(self, content: bytes) -> bytes:
        """Returns a record of application data."""
        return self.record(content, inner_type=APPLICATION_DATA)

    def key_update(self) -> bytes:
        """Returns a KeyUpdate that asks for one in return; what follows is under the next key."""
        record = self.record(KEY_UPDATE_REQUESTED, inner_type=HANDSHAKE)
        self._secret = _expand(self._secret, b"traffic upd", 32)
        self._sequence = 0
        return record


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446, 7.1)."""
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(full)]) + full + b"\x00"
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)
