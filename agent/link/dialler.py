"""The backup's side of making a connection: dials, again and again, and learns from how it fails.

When a link closes it is dialled again at once. If the primary's port then refuses, neither its agent nor its workload
runs any more, because the workload's guardian holds the listening socket until the workload is dead (PROTOCOL.md,
section 8). A connection that is taken and then reset is that guardian still at work: it is dialled again in a moment.
Knows nothing of sessions or roles.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import trio

from agent.core.errors import PeerError
from agent.link.identity import Identity
from agent.link.tls import TlsStream, client_stream
from agent.platform.clock import boottime_ns
from agent.platform.sockets import tune_link_socket

KERNEL_TIMEOUT_MS = 20_000
EAGER_NS = 1_000_000_000  # after a link closed, redial without the usual delay for so long
EAGER_PAUSES_S = (0.0, 0.001)  # the first two, then doubling
RESET_S = 0.003  # for a reset to arrive on an eager connection, before a TLS handshake is worth beginning
MILLISECONDS_PER_SECOND = 1000


class Outcome(Enum):
    """How one attempt to connect ended."""

    REFUSED = "refused"  # nothing listens there
    UNREACHABLE = "unreachable"
    NO_ANSWER = "no answer"  # taken and dropped, or silent
    REJECTED = "rejected"  # a certificate was not accepted, or it is no pair-agent
    ENDED = "ended"  # there was a connection, and it ended


@dataclass(frozen=True)
class Target:
    """Where the primary is."""

    host: str
    port: int
    connection_timeout_ms: int
    reconnect_delay_ms: int


class Dialler:
    """Keeps dialling one target."""

    def __init__(
        self,
        target: Target,
        identity: Callable[[], Identity],
        *,
        on_stream: Callable[[TlsStream, str], Awaitable[bool]],
        on_failed: Callable[[Outcome, str], None],
    ) -> None:
        """`on_stream(stream, address)` runs a verified connection and returns whether it ever became the link;
        `on_failed(outcome, sentence)` tells of every attempt that got no stream."""
        self._target = target
        self._identity = identity
        self._on_stream = on_stream
        self._on_failed = on_failed
        self.known_address: tuple[Any, ...] | None = None  # of the last connection: family and socket address

    async def run(self) -> None:
        """Dials until cancelled."""
        delay_s = self._target.reconnect_delay_ms / MILLISECONDS_PER_SECOND
        eager_until_ns = 0
        pause_s = EAGER_PAUSES_S[0]
        while True:
            began_s = trio.current_time()
            outcome, was_linked = await self._attempt(eager=boottime_ns() < eager_until_ns)
            if outcome is Outcome.ENDED and was_linked:
                eager_until_ns, pause_s = boottime_ns() + EAGER_NS, EAGER_PAUSES_S[0]
            elif outcome is Outcome.NO_ANSWER and boottime_ns() < eager_until_ns:
                await trio.sleep(pause_s)
                pause_s = min(max(2 * pause_s, EAGER_PAUSES_S[1]), delay_s)
            else:
                eager_until_ns = 0
                # From the beginning of the attempt: one that nobody answered has taken long enough, and whoever takes
                # over when nothing answers should have tried more than once.
                await trio.sleep_until(max(trio.current_time(), began_s + delay_s))

    async def _attempt(self, *, eager: bool) -> tuple[Outcome, bool]:
        timeout_s = self._target.connection_timeout_ms / MILLISECONDS_PER_SECOND
        where = f"{self._target.host} port {self._target.port}"
        stream: TlsStream | None = None
        connected: trio.socket.SocketType | None = None
        outcome, sentence = Outcome.NO_ANSWER, f"{where} did not answer within {self._target.connection_timeout_ms} ms"
        try:
            with trio.move_on_after(timeout_s):
                connected = await self._connect(eager=eager)
                if eager and await _is_dropped(connected):
                    raise ConnectionResetError
                stream = client_stream(trio.SocketStream(connected), self._identity())
                await stream.do_handshake()
                outcome = Outcome.ENDED
        except PeerError as error:
            outcome, sentence = Outcome.REJECTED, str(error)
        except ConnectionRefusedError:
            outcome, sentence = Outcome.REFUSED, f"{where} refuses connections: no agent runs there"
        except (trio.BrokenResourceError, OSError) as error:
            if connected is None and not isinstance(error, ConnectionResetError):
                outcome, sentence = Outcome.UNREACHABLE, f"{where} cannot be reached: {_reason(error)}"
            else:
                sentence = f"{where} took the connection and closed it again"
        if outcome is Outcome.ENDED and stream is not None:
            return outcome, await self._on_stream(stream, where)
        if connected is not None:
            connected.close()
        self._on_failed(outcome, sentence)
        return outcome, False

    async def _connect(self, *, eager: bool) -> trio.socket.SocketType:
        """Returns a connected socket. Raises ConnectionRefusedError only if every address refused, else OSError."""
        if eager and self.known_address is not None:
            addresses = [self.known_address]
        else:
            found = await trio.socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
            addresses = [(family, address) for family, _, _, _, address in found]
        failures: list[OSError] = []
        for family, address in addresses:
            connecting = trio.socket.socket(family, socket.SOCK_STREAM)
            try:
                tune_link_socket(connecting, KERNEL_TIMEOUT_MS)
                await connecting.connect(address)
                if _leads_to_itself(connecting):
                    raise ConnectionRefusedError
            except OSError as error:
                connecting.close()
                failures.append(error)
            except BaseException:
                connecting.close()
                raise
            else:
                self.known_address = (family, address)
                return connecting
        other = [error for error in failures if not isinstance(error, ConnectionRefusedError)]
        raise other[0] if other else failures[0]


async def _is_dropped(connected: trio.socket.SocketType) -> bool:
    """Waits a moment for the reset by which a guardian at work ends connections; a server speaks only when asked."""
    with trio.move_on_after(RESET_S):
        await trio.lowlevel.wait_readable(connected)
        return True
    return False


def _leads_to_itself(connected: trio.socket.SocketType) -> bool:
    """TCP lets a socket connect to itself when its own port is the one it dials and nobody listens."""
    try:
        return bool(connected.getsockname() == connected.getpeername())
    except OSError as error:
        raise ConnectionResetError("reset at once") from error  # there is no peer any more


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
