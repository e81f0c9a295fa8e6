"""A bulk connection keeps the queue in front of the heartbeats short on a slow network, and opens on a fast one."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bulk_rate import RateLimit
from agent.core.bulk_window import (
    BASE_VALID_NS,
    CREDIT_DELAY_NS,
    CREDIT_EVERY_BYTES,
    IDLE_NS,
    SAMPLES_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    ReceiveWindow,
    SendWindow,
)
from agent.core.errors import PeerError

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


@dataclass
class Pipe:
    """A network of one queue, a sender that always has more, and a receiver that takes everything at once."""

    bytes_per_second: float
    one_way_ns: int
    now_ns: int = 0
    free_ns: int = 0  # when the queue is empty
    queued_ns_max: int = 0
    delivered: int = 0
    arrivals: list[tuple[int, int, int]] = field(default_factory=list)
    credit_at_ns: int | None = None
    credits: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.window = SendWindow(0)
        self.receiver = ReceiveWindow(0)

    def run(self, until_ns: int) -> None:
        while self.now_ns < until_ns:
            self.send_what_fits()
            self.step()

    def send_what_fits(self) -> None:
        while self.window.room_bytes >= min(self.window.part_bytes, self.window.window_bytes):
            count = min(self.window.part_bytes, 1 << 20)
            self.window.sent(count, self.now_ns)
            self.free_ns = max(self.free_ns, self.now_ns) + int(count * SECOND / self.bytes_per_second)
            self.queued_ns_max = max(self.queued_ns_max, self.free_ns - self.now_ns)
            heapq.heappush(self.arrivals, (self.free_ns + self.one_way_ns, self.window.sent_bytes, 0))
        self.window.blocked()

    def step(self) -> None:
        times = [each[0][0] for each in (self.arrivals, self.credits) if each]
        times += [self.credit_at_ns] if self.credit_at_ns is not None else []
        self.now_ns = min(times)
        if self.arrivals and self.arrivals[0][0] == self.now_ns:
            _, self.delivered, _ = heapq.heappop(self.arrivals)
            self.receiver.received_untrusted(self.delivered, 0, self.now_ns)
            if self.credit_at_ns is None:
                self.credit_at_ns = self.now_ns + CREDIT_DELAY_NS
        elif self.credits and self.credits[0][0] == self.now_ns:
            _, _, total, held_ns = heapq.heappop(self.credits)
            self.window.credited_untrusted(total, held_ns, self.now_ns)
        if self.credit_at_ns is not None and (
            self.now_ns >= self.credit_at_ns or self.receiver.owed_bytes >= CREDIT_EVERY_BYTES
        ):
            self.credit_at_ns = None
            heapq.heappush(
                self.credits, (self.now_ns + self.one_way_ns, self.delivered, *self.receiver.credit(self.now_ns))
            )


@pytest.mark.parametrize(("one_way_ms", "queued_ms_max"), [(0, 1000), (1, 1000), (30, 1000), (300, 1200)])
def test_at_10_kilobytes_a_second_never_more_than_about_a_second_is_queued(one_way_ms: int, queued_ms_max: int) -> None:
    pipe = Pipe(10_000, one_way_ms * MILLISECOND)
    pipe.run(600 * SECOND)
    assert pipe.queued_ns_max <= queued_ms_max * MILLISECOND
    assert pipe.delivered > 0.9 * 600 * 10_000, "and the network is used"


@pytest.mark.parametrize("kilobytes_per_second", [20, 50, 100, 500, 1_000, 5_000])
def test_the_queue_stays_near_its_target_at_other_speeds(kilobytes_per_second: int) -> None:
    pipe = Pipe(kilobytes_per_second * 1000, 10 * MILLISECOND)
    pipe.run(200 * SECOND)
    assert pipe.queued_ns_max <= 500 * MILLISECOND
    assert pipe.delivered > 0.9 * 200 * kilobytes_per_second * 1000


@pytest.mark.parametrize(("one_way_us", "within_ms"), [(50, 200), (5_000, 400), (50_000, 2_500)])
def test_a_fast_network_is_used_wholly_after_few_round_trips(one_way_us: int, within_ms: int) -> None:
    pipe = Pipe(1_000_000_000, one_way_us * 1000)
    pipe.run(within_ms * MILLISECOND)
    assert pipe.window.window_bytes == WINDOW_BYTES_MAX


def test_what_was_open_closes_when_the_network_becomes_slow_and_opens_again() -> None:
    pipe = Pipe(10_000_000, MILLISECOND)
    pipe.run(20 * SECOND)
    assert pipe.window.window_bytes > 500_000
    pipe.bytes_per_second = 20_000
    pipe.run(400 * SECOND)
    pipe.queued_ns_max = 0
    pipe.run(500 * SECOND)
    assert pipe.queued_ns_max <= 800 * MILLISECOND
    pipe.bytes_per_second = 10_000_000
    pipe.run(520 * SECOND)
    assert pipe.window.window_bytes > 500_000


def test_a_way_that_became_longer_is_learnt_and_not_taken_for_a_queue() -> None:
    pipe = Pipe(10_000_000, MILLISECOND)
    pipe.run(10 * SECOND)
    pipe.one_way_ns = 300 * MILLISECOND
    pipe.run(10 * SECOND + 3 * BASE_VALID_NS)
    assert pipe.window.window_bytes > 3_000_000, "600 ms at 10 MB/s are 6 MB"


def test_what_is_sent_rarely_does_not_open_the_window() -> None:
    window = SendWindow(0)
    for second in range(1, 1000):
        window.sent(1_000, second * SECOND)
        window.credited_untrusted(second * 1_000, 0, second * SECOND + MILLISECOND)
    assert window.window_bytes == WINDOW_BYTES_MIN


def test_after_a_long_pause_the_window_begins_anew() -> None:
    pipe = Pipe(1_000_000_000, MILLISECOND)
    pipe.run(SECOND)
    window = pipe.window
    window.credited_untrusted(window.sent_bytes, 0, SECOND)
    assert window.window_bytes == WINDOW_BYTES_MAX
    window.sent(1, SECOND + IDLE_NS)
    assert window.window_bytes == WINDOW_BYTES_MAX
    window.credited_untrusted(window.sent_bytes, 0, SECOND + IDLE_NS)
    window.sent(1, SECOND + 2 * IDLE_NS + 1)
    assert window.window_bytes == WINDOW_BYTES_MIN


def test_the_time_for_which_credit_was_held_back_is_no_delay_of_the_network() -> None:
    window = SendWindow(0)
    window.sent(1_000, 0)
    window.credited_untrusted(1_000, 300 * MILLISECOND, 301 * MILLISECOND)
    assert window.delay_ns == MILLISECOND


@pytest.mark.parametrize("total", [499, 1_001])
def test_credit_that_cannot_be_is_refused(total: int) -> None:
    window = SendWindow(0)
    window.sent(1_000, 0)
    window.credited_untrusted(500, 0, 1)
    with pytest.raises(PeerError, match="credit for"):
        window.credited_untrusted(total, 0, 2)


def test_the_memory_of_what_is_under_way_is_bounded() -> None:
    window = SendWindow(0)
    for at in range(5_000):
        window.sent(1, at)
    assert len(window._samples) == SAMPLES_MAX
    window.credited_untrusted(5_000, 0, 10_000)
    assert not window._samples


def test_the_rate_counts_only_while_the_network_was_what_limited() -> None:
    pipe = Pipe(1_000_000, MILLISECOND)
    pipe.run(20 * SECOND)
    assert pipe.window.bytes_per_second == pytest.approx(1_000_000, rel=0.1)
    idle = SendWindow(0)
    for tenth in range(1, 100):
        idle.sent(1_000, tenth * 100 * MILLISECOND)
        idle.credited_untrusted(tenth * 1_000, 0, tenth * 100 * MILLISECOND + MILLISECOND)
    assert idle.bytes_per_second == 0.0


@given(st.integers(0, 2**32))
def test_whatever_happens_nothing_beyond_the_window_is_granted(seed: int) -> None:
    chance = random.Random(seed)
    window, now_ns = SendWindow(0), 0
    for _ in range(200):
        now_ns += chance.choice((0, 1, MILLISECOND, 300 * MILLISECOND, 70 * SECOND))
        assert WINDOW_BYTES_MIN <= window.window_bytes <= WINDOW_BYTES_MAX
        if window.room_bytes and chance.random() < 0.6:
            window.sent(chance.randint(1, window.room_bytes), now_ns)
        else:
            total = chance.randint(window.credited_bytes, window.sent_bytes)
            window.credited_untrusted(total, chance.choice((0, MILLISECOND)), now_ns)
        assert window.under_way_bytes <= WINDOW_BYTES_MAX
    window.credited_untrusted(window.sent_bytes, 0, now_ns)
    assert window.room_bytes > 0, "with everything credited something may always be sent"


def test_credit_is_owed_for_what_was_taken_and_told_once() -> None:
    receiver = ReceiveWindow(0)
    receiver.received_untrusted(1_000, 400, 5)
    assert receiver.owed_bytes == 600
    assert receiver.credit(9) == (600, 4)
    assert receiver.owed_bytes == 0
    receiver.taken(0)
    assert receiver.credit(9) == (1_000, 4)


def test_part_of_a_frame_counts_as_taken_and_stays_so_when_the_frame_waits() -> None:
    receiver = ReceiveWindow(0)
    receiver.received_untrusted(900, 0, 1)
    assert receiver.credit(1) == (900, 0)
    receiver.received_untrusted(1_000, 1_000, 2)
    assert receiver.owed_bytes == 0


def test_more_than_any_window_allows_is_refused() -> None:
    receiver = ReceiveWindow(0)
    receiver.received_untrusted(WINDOW_BYTES_MAX, WINDOW_BYTES_MAX, 1)
    with pytest.raises(PeerError, match="beyond its credit"):
        receiver.received_untrusted(WINDOW_BYTES_MAX + 1, WINDOW_BYTES_MAX + 1, 2)


def test_a_rate_limit_holds_over_time_and_makes_up_for_short_pauses_only() -> None:
    limit = RateLimit(1_000_000, 0)
    now_ns = sent = 0
    while now_ns < 10 * SECOND:
        now_ns += limit.wait_ns(limit.part_bytes, now_ns)
        sent += limit.part_bytes
    assert sent == pytest.approx(10_000_000, rel=0.02)
    assert limit.wait_ns(1, now_ns + 3600 * SECOND) == 0
    burst = 0
    while limit.wait_ns(10_000, now_ns + 3600 * SECOND) == 0:
        burst += 10_000
    assert burst <= 60_000


def test_a_node_that_answers_late_because_it_is_busy_does_not_close_the_window_of_a_fast_network() -> None:
    pipe = Pipe(100_000_000, MILLISECOND)
    pipe.run(5 * SECOND)
    for _ in range(40):  # for half a second at a time nothing is taken in
        pipe.run(pipe.now_ns + 100 * MILLISECOND)
        stalled_until = pipe.now_ns + 500 * MILLISECOND
        pipe.arrivals = [(max(at, stalled_until), *rest) for at, *rest in pipe.arrivals]
        pipe.free_ns = max(pipe.free_ns, stalled_until)
    assert pipe.window.window_bytes > 1_000_000
