"""How much a bulk connection may have under way, so that it never fills a queue in front of the heartbeats.

The receiver returns credit for what it took. `SendWindow` measures by it how long bytes are under way, and keeps that
near what the empty network needs: the idea of LEDBAT (RFC 6817), with growth that doubles because nobody else shares
this connection. `ReceiveWindow` says when credit is due. Both are fed with time; they know nothing of frames' contents.

Invariants: nothing is granted beyond the window; the window opens only to twice of what was seen to pass with little
delay, so a pause in sending never opens it; it never exceeds WINDOW_BYTES_MAX, which is what a receiver must hold.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agent.core.errors import PeerError

WINDOW_BYTES_MIN = 8 * 1024  # 0.8 s at 10 kB/s; also the first
WINDOW_BYTES_MAX = 16 * 1024 * 1024
PIECE_PARTS = 4  # a cut frame's parts are at most this part of the window, so that delay is seen in time
PART_BYTES_MIN = 2 * 1024
QUEUE_LOW_NS = 100_000_000  # beyond the empty network's delay: below, the window opens
QUEUE_HIGH_NS = 200_000_000  # above, it closes
BASE_SLACK_NS = 5_000_000  # a delay this close to the empty network's confirms it
BASE_VALID_NS = 60_000_000_000  # after so long unconfirmed the way is emptied once and measured again
IDLE_NS = 10_000_000_000  # after so long a pause the network may be another one
SAMPLES_MAX = 512
RATE_INTERVAL_NS = 250_000_000
PEAK_KEPT = 0.9  # of the highest rate, in each such time

CREDIT_EVERY_BYTES = 2 * 1024 * 1024  # credit is due at once after so much,
CREDIT_DELAY_NS = 5_000_000  # else after so long

_NANOSECONDS_PER_SECOND = 1_000_000_000


@dataclass(slots=True)
class _Sample:
    """Bytes that were sent together."""

    end: int  # position behind the last one
    sent_ns: int
    under_way: int  # when they were sent, they included


class SendWindow:
    """The sender's half."""

    def __init__(self, now_ns: int) -> None:
        self.window_bytes = WINDOW_BYTES_MIN
        self.sent_bytes = 0
        self.credited_bytes = 0
        self.delay_ns: int | None = None  # of the last credit
        self.bytes_per_second = 0.0  # while there was always more to send; 0.0: not known
        self._peak = 0.0  # the highest rate lately
        self._samples: deque[_Sample] = deque()
        self._base_ns: int | None = None
        self._base_confirmed_ns = now_ns
        self._emptying = False
        self._closed_until = 0  # one loss of half the window for each time that it was full
        self._last_ns = now_ns
        self._blocked = False
        self._mark: tuple[int, int] | None = None  # time and credit from which the rate counts

    @property
    def under_way_bytes(self) -> int:
        """Bytes sent and not credited."""
        return self.sent_bytes - self.credited_bytes

    @property
    def room_bytes(self) -> int:
        """Bytes that may be sent now."""
        return 0 if self._emptying else max(0, self.window_bytes - self.under_way_bytes)

    @property
    def part_bytes(self) -> int:
        """How much of a frame may be sent at once: a larger frame is cut."""
        return max(PART_BYTES_MIN, self.window_bytes // PIECE_PARTS)

    def blocked(self) -> None:
        """Says that there is something to send and no room, here or in the operating system."""
        self._blocked = True

    def sent(self, count: int, now_ns: int) -> None:
        """Takes that `count` bytes are being sent."""
        if not self.under_way_bytes:
            self._mark = (now_ns, self.credited_bytes)
            if now_ns - self._last_ns > IDLE_NS:
                self.window_bytes = WINDOW_BYTES_MIN
        self._last_ns = now_ns
        self.sent_bytes += count
        if self._base_ns is not None and now_ns - self._base_confirmed_ns > BASE_VALID_NS:
            self._emptying = True
        if len(self._samples) >= SAMPLES_MAX:
            last = self._samples[-1]
            last.end, last.under_way = self.sent_bytes, self.under_way_bytes
        else:
            self._samples.append(_Sample(self.sent_bytes, now_ns, self.under_way_bytes))

    def credited_untrusted(self, total: int, held_ns: int, now_ns: int) -> None:
        """Takes the other end's credit: it took `total` bytes, the last of them `held_ns` before it said so.

        Raises PeerError if that is less than before, or more than was sent.
        """
        if not self.credited_bytes <= total <= self.sent_bytes:
            raise PeerError(
                f"the other node gave credit for {total} bytes; {self.credited_bytes} to {self.sent_bytes} are possible"
            )
        if total == self.credited_bytes:
            return
        self.credited_bytes = total
        self._last_ns = now_ns
        sample = None
        while self._samples and self._samples[0].end <= total:
            sample = self._samples.popleft()
        if sample is not None:
            self._learn(sample, max(0, now_ns - sample.sent_ns - held_ns), now_ns)
        self._measure_rate(now_ns)
        if self._emptying and not self.under_way_bytes:
            self._emptying, self._base_ns = False, None

    def _learn(self, sample: _Sample, delay_ns: int, now_ns: int) -> None:
        self.delay_ns = delay_ns
        if self._base_ns is None or delay_ns < self._base_ns:
            self._base_ns = delay_ns
        if delay_ns <= self._base_ns + self._base_ns // 8 + BASE_SLACK_NS:
            self._base_confirmed_ns = now_ns
        queue_ns = delay_ns - self._base_ns
        if queue_ns < QUEUE_LOW_NS:
            self.window_bytes = max(self.window_bytes, min(2 * sample.under_way, WINDOW_BYTES_MAX))
        elif queue_ns > QUEUE_HIGH_NS and sample.end > self._closed_until:
            # What the network carried lately in the allowed delay fits: then it is a busy node that answers late.
            fits = int(self._peak * QUEUE_HIGH_NS / _NANOSECONDS_PER_SECOND)
            self.window_bytes = min(self.window_bytes, max(WINDOW_BYTES_MIN, self.window_bytes // 2, fits))
            self._closed_until = self.sent_bytes

    def _measure_rate(self, now_ns: int) -> None:
        if self._mark is None:
            return
        elapsed_ns = now_ns - self._mark[0]
        if elapsed_ns >= RATE_INTERVAL_NS:
            self._peak *= PEAK_KEPT ** (elapsed_ns / RATE_INTERVAL_NS)
            if self._blocked:
                found = (self.credited_bytes - self._mark[1]) * _NANOSECONDS_PER_SECOND / elapsed_ns
                self._peak = max(found, self._peak)
                self.bytes_per_second = (self.bytes_per_second + found) / 2 if self.bytes_per_second else found
            self._mark, self._blocked = (now_ns, self.credited_bytes), False
        if not self.under_way_bytes:
            self._mark = None


class ReceiveWindow:
    """The receiver's half: what it took, and what it said of it."""

    def __init__(self, now_ns: int) -> None:
        self.last_received_ns = now_ns
        self._received = 0
        self._taken = 0
        self._credited = 0

    def received_untrusted(self, counted_bytes: int, waiting_bytes: int, now_ns: int) -> None:
        """Takes how much came in all, and how much of that waits for someone to take it.

        Raises PeerError if the other end sent beyond what any window allows.
        """
        self.last_received_ns = now_ns
        self._received = counted_bytes
        self.taken(waiting_bytes)
        if counted_bytes - self._credited > WINDOW_BYTES_MAX:
            raise PeerError(
                f"the other node sent {counted_bytes - self._credited} bytes beyond its credit; "
                f"{WINDOW_BYTES_MAX} are allowed"
            )

    def taken(self, waiting_bytes: int) -> None:
        """Takes how much still waits."""
        self._taken = max(self._taken, self._received - waiting_bytes)

    @property
    def owed_bytes(self) -> int:
        """Bytes taken and not credited."""
        return self._taken - self._credited

    def credit(self, now_ns: int) -> tuple[int, int]:
        """Returns what to tell the other end: the total taken, and for how many nanoseconds the last one is here."""
        self._credited = self._taken
        return self._taken, now_ns - self.last_received_ns
