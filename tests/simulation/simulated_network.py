"""Simulated network between two nodes: TCP streams that keep order, datagrams that do not, and what can go wrong.

A lost segment delays everything behind it. What is sent while the way is blocked waits in the sender's kernel until the
way is open again, or the kernel gives up. A host that lost its power answers nothing; one that booted since answers
with a reset. The network knows nodes as 0 and 1, and not what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import Protocol

from tests.simulation.timeline import MILLISECOND, SECOND, Timeline

KERNEL_TIMEOUT_NS = 20 * SECOND
RETRANSMISSION_NS = 200 * MILLISECOND
RETRANSMISSIONS_MAX = 6


class Host(Protocol):
    """A node as the network sees it."""

    boots: int  # how often its kernel was started

    @property
    def powered(self) -> bool:
        """Whether its kernel runs."""

    def when_awake(self, action: Callable[[], None]) -> None:
        """Lets `action` happen now, or when the whole node is no longer frozen."""


class Ending(Enum):
    """How the last item of a stream tells its end."""

    CLOSED = "the other node closed the connection"
    RESET = "the connection was reset"


class Network:
    """The ways between two nodes; `blocked` holds the nodes whose packets are lost."""

    def __init__(self, timeline: Timeline, latency_ns: int, jitter_ns: int) -> None:
        self.timeline = timeline
        self.hosts: list[Host] = []
        self.latency_ns, self.jitter_ns, self.loss = latency_ns, jitter_ns, 0.0
        self.blocked: frozenset[int] = frozenset()
        self.blocked_since_ns = [0, 0]
        self.chunk_bytes_max = 64 * 1024  # of one read
        self.streams: list[Stream] = []

    def passes(self, sender: int) -> bool:
        """Whether packets of `sender` get through."""
        return sender not in self.blocked

    def delay_ns(self) -> int:
        """Returns how long the next segment takes, lost ones sent again included."""
        random, delay_ns = self.timeline.random, self.latency_ns
        if self.jitter_ns:
            delay_ns += random.randrange(self.jitter_ns)
        if self.loss:
            tries = 0
            while tries < RETRANSMISSIONS_MAX and random.random() < self.loss:
                delay_ns += RETRANSMISSION_NS << tries
                tries += 1
        return delay_ns

    def block(self, senders: frozenset[int]) -> None:
        """Loses every packet of these nodes from now on, and those of the others no more."""
        now_ns = self.timeline.now_ns
        opened = self.blocked - senders
        for at in senders - self.blocked:
            self.blocked_since_ns[at] = now_ns
        self.blocked = senders
        for stream in self.streams:
            for at in (0, 1):
                if stream.ends[at].held and (at in opened or (1 - at) in opened):
                    stream.resend(at, now_ns - self.blocked_since_ns[at if at in opened else 1 - at])

    def send_datagram(self, sender: int, deliver: Callable[[], None]) -> None:
        """Sends one datagram, which may be lost."""
        if self.passes(sender) and self.timeline.random.random() >= self.loss:
            delay_ns = self.latency_ns + (self.timeline.random.randrange(self.jitter_ns) if self.jitter_ns else 0)
            self.timeline.after(delay_ns, deliver)

    def forget_flows(self) -> None:
        """A box on the way forgets every connection: packets of those that are there now are lost for ever."""
        for stream in self.streams:
            stream.forgotten = True


class End:
    """One node's end of a stream, as its kernel keeps it."""

    def __init__(self, stream: Stream, at: int) -> None:
        self.stream, self.at = stream, at
        self.inbox = bytearray()
        self.ending: Ending | None = None  # after the bytes in the inbox
        self.closed = False  # by its own process
        self.notify: Callable[[], None] = lambda: None
        self.held: list[bytes | Ending] = []  # not acknowledged
        self.held_since_ns = 0
        self.last_arrival_ns = 0  # of what this end sent
        self.sent_bytes = 0
        self.cut_after_bytes: int | None = None  # the stream is reset when so much was sent
        self.boots = stream.network.hosts[at].boots

    @property
    def usable(self) -> bool:
        """Whether the kernel still takes bytes."""
        return not self.closed and self.ending is not Ending.RESET

    def export_keying_material(self, label: bytes, length: int) -> bytes:
        """Returns the same bytes on both ends, as TLS does."""
        return sha256(self.stream.secret + label).digest()[:length]

    def send(self, data: bytes) -> bool:
        """Hands bytes to the kernel; False: the connection is gone."""
        if not self.usable:
            return False
        limit = self.cut_after_bytes
        if limit is not None and self.sent_bytes + len(data) >= limit:
            self.cut_after_bytes = None
            if data := data[: limit - self.sent_bytes]:
                self.stream.transmit(self.at, data)
            self.stream.cut()
            return True
        self.sent_bytes += len(data)
        self.stream.transmit(self.at, data)
        return True

    def receive(self) -> bytes | Ending | None:
        """Returns what can be read now: bytes, the end, or None."""
        if self.inbox:
            network = self.stream.network
            size = min(len(self.inbox), network.chunk_bytes_max)
            data = bytes(self.inbox[:size])
            del self.inbox[:size]
            return data
        return self.ending

    def close(self, ending: Ending = Ending.CLOSED) -> None:
        """The process closes its end, or dies."""
        if not self.closed:
            self.closed = True
            if self.ending is not Ending.RESET:
                self.stream.transmit(self.at, ending)
            self.stream.forget_if_over()


class Stream:
    """One TCP connection."""

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.number = number
        self.secret = sha256(number.to_bytes(8, "big")).digest()
        self.forgotten = False
        self.ends = [End(self, 0), End(self, 1)]
        network.streams.append(self)

    def transmit(self, sender: int, item: bytes | Ending) -> None:
        """Sends an item; it arrives after all that was sent before."""
        end, network = self.ends[sender], self.network
        now_ns = network.timeline.now_ns
        # Without acknowledgements the kernel sends nothing new.
        if not self._flows(sender) or end.held or not network.passes(1 - sender):
            if not end.held:
                end.held_since_ns = now_ns
                network.timeline.after(KERNEL_TIMEOUT_NS, lambda: self._give_up(sender))
                if self._flows(sender):
                    self._travel(sender, item)  # the first segment gets through, its acknowledgement does not
                    item = b""
            end.held.append(item)
            return
        self._travel(sender, item)

    def _flows(self, sender: int) -> bool:
        return self.network.passes(sender) and not self.forgotten

    def _travel(self, sender: int, item: bytes | Ending) -> None:
        end, timeline = self.ends[sender], self.network.timeline
        arrival_ns = max(end.last_arrival_ns, timeline.now_ns + self.network.delay_ns())
        end.last_arrival_ns = arrival_ns
        host = self.network.hosts[1 - sender]
        timeline.after(arrival_ns - timeline.now_ns, lambda: host.when_awake(lambda: self._arrive(1 - sender, item)))

    def _arrive(self, at: int, item: bytes | Ending, retry_ns: int = RETRANSMISSION_NS) -> None:
        end, host = self.ends[at], self.network.hosts[at]
        if not host.powered:
            if not isinstance(item, Ending) and retry_ns < KERNEL_TIMEOUT_NS:
                self.network.timeline.after(retry_ns, lambda: self._arrive(at, item, 2 * retry_ns))
            return
        if end.closed or end.boots != host.boots:
            if item is not Ending.RESET and item is not Ending.CLOSED:
                self._reset_by_kernel(at)
            return
        if end.ending is Ending.RESET:
            return
        if isinstance(item, Ending):
            end.ending = item
            if item is Ending.RESET and self.network.timeline.random.random() < 0.5:
                end.inbox.clear()
        else:
            end.inbox += item
        end.notify()

    def _reset_by_kernel(self, sender: int) -> None:
        """The kernel of `sender` knows nothing of this connection and says so, if that gets through."""
        if self._flows(sender):
            self._travel(sender, Ending.RESET)

    def _give_up(self, sender: int) -> None:
        end, timeline = self.ends[sender], self.network.timeline
        if end.held and timeline.now_ns - end.held_since_ns >= KERNEL_TIMEOUT_NS:
            end.held.clear()
            if not end.closed and self.network.hosts[sender].powered and end.boots == self.network.hosts[sender].boots:
                end.ending = Ending.RESET
                end.notify()
            self.forget_if_over()

    def resend(self, sender: int, outage_ns: int) -> None:
        """The way is open again: what is held goes out at the next retransmission."""
        delay_ns = self.network.timeline.between(MILLISECOND, max(RETRANSMISSION_NS, outage_ns // 2))
        self.network.timeline.after(delay_ns, lambda: self._resend(sender))

    def _resend(self, sender: int) -> None:
        end = self.ends[sender]
        if self._flows(sender) and self.network.passes(1 - sender):
            held, end.held = end.held, []
            for item in held:
                self.transmit(sender, item)
            self.forget_if_over()

    def cut(self, *, both: bool = True) -> None:
        """Resets the connection on the way: what travels still arrives, then both ends, or one, learn of it."""
        for sender in (0, 1) if both else (self.network.timeline.random.randrange(2),):
            self.ends[sender].held.clear()
            self._travel(sender, Ending.RESET)

    def forget_if_over(self) -> None:
        """Drops the stream from the list of those that a fault can strike."""
        if all(end.closed and not end.held for end in self.ends) and self in self.network.streams:
            self.network.streams.remove(self)
