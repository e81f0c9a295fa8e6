"""Compresses pieces of data where the network is the slower part and it pays; bounds what a hostile piece can cost.

Knows nothing of streams and windows. Compression is zstd at its fastest level, a frame for every piece.
"""

from __future__ import annotations

import zstandard

from agent.core.bulk_frames import PIECE_BYTES_MAX
from agent.core.errors import PeerError

SLOW_BYTES_PER_SECOND = 40_000_000  # below, compressing begins
FAST_BYTES_PER_SECOND = 60_000_000  # above, it ends
PAYS_BELOW = 0.9  # of the original size
PIECE_BYTES_MIN = 512
SKIPPED_MAX = 64  # pieces sent as they are after some that did not shrink, until one is tried again

_LEVEL = 1


class Compression:
    """Decides for every piece, and learns from each."""

    def __init__(self) -> None:
        self.active = False
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True, write_checksum=False)
        self._skip = 0
        self._skip_next = 1

    def shrunk(self, data: memoryview, bytes_per_second: float) -> bytes | None:
        """Returns `data` compressed, None if it goes as it is; `bytes_per_second` of the network, 0.0: not known."""
        if bytes_per_second and bytes_per_second < SLOW_BYTES_PER_SECOND:
            self.active = True
        elif bytes_per_second > FAST_BYTES_PER_SECOND:
            self.active = False
        if not self.active or len(data) < PIECE_BYTES_MIN:
            return None
        if self._skip:
            self._skip -= 1
            return None
        compressed = self._compressor.compress(data)
        if len(compressed) >= PAYS_BELOW * len(data):
            self._skip, self._skip_next = self._skip_next, min(2 * self._skip_next, SKIPPED_MAX)
            return None
        self._skip_next = 1
        return compressed


class Decompression:
    """The other direction."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=PIECE_BYTES_MAX)

    def restored_untrusted(self, compressed: memoryview) -> bytes:
        """Returns the piece. Raises PeerError unless it is one zstd frame that says its size, 1 to PIECE_BYTES_MAX."""
        try:
            size = zstandard.get_frame_parameters(compressed).content_size
            if not 1 <= size <= PIECE_BYTES_MAX:
                raise PeerError(
                    f"the other node sent a compressed piece of {size} bytes; {PIECE_BYTES_MAX} are allowed"
                )
            restored = self._decompressor.decompress(compressed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise PeerError(f"the other node sent a compressed piece that cannot be restored: {error}") from error
        if len(restored) != size:
            raise PeerError("the other node sent a compressed piece of another size than it says")
        return restored
