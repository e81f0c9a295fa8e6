"""Frames on a byte stream: a length and a payload (PROTOCOL.md, section 2).

Knows nothing of what a payload means. Invariant: at most one incomplete frame of FRAME_BYTES_MAX and the chunk
that was just fed are ever held.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.core.errors import PeerError

LENGTH_BYTES = 4
FRAME_BYTES_MAX = 64 * 1024


def encode_frame(payload: bytes) -> bytes:
    """Returns `payload` with its length in front; the payload holds 1 to FRAME_BYTES_MAX bytes."""
    if not 0 < len(payload) <= FRAME_BYTES_MAX:
        raise AssertionError(f"a frame of {len(payload)} bytes was about to be sent")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a stream of bytes, in whatever chunks it comes, into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed_untrusted(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Takes the next bytes and returns the payloads that are now whole, in order.

        The iterator raises PeerError at a length of zero or above FRAME_BYTES_MAX, after the payloads before it and
        without waiting for more of that frame: so what a peer said does not depend on how its bytes were chunked.
        """
        self._buffer += data
        return self._cut()

    def _cut(self) -> Iterator[bytes]:
        start = 0
        try:
            while len(self._buffer) - start >= LENGTH_BYTES:
                length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "big")
                if not 0 < length <= FRAME_BYTES_MAX:
                    raise PeerError(
                        f"the other node sent a frame of {length} bytes; 1 to {FRAME_BYTES_MAX} are allowed"
                    )
                end = start + LENGTH_BYTES + length
                if end > len(self._buffer):
                    break
                payload = bytes(self._buffer[start + LENGTH_BYTES : end])
                start = end
                yield payload
        finally:
            del self._buffer[:start]
