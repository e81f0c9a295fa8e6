"""Options and bind semantics of TCP sockets, where Windows and Linux differ.

A port that another program listens on is never shared, on either system; a port that only lingers after a restart is
used at once. Failures to listen become one sentence that names the address, the port and the way out.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import Protocol

from agent.core.errors import PairAgentError

LISTEN_BACKLOG = 128
EPHEMERAL_PORT_ATTEMPTS = 16
ALL_INTERFACES = "All interfaces"

_KEEPALIVE_PROBES_PER_TIMEOUT = 3

if sys.platform == "win32":
    # ws2ipdef.h, in seconds; the socket module names them on new Windows only.
    _KEEPALIVE_IDLE = 3
    _KEEPALIVE_INTERVAL = 17
    _MAXIMUM_RETRANSMISSION_TIME = 5
else:
    _KEEPALIVE_IDLE = socket.TCP_KEEPIDLE
    _KEEPALIVE_INTERVAL = socket.TCP_KEEPINTVL


class OptionSocket(Protocol):
    """What a socket must offer to be tuned: the standard library's and trio's both do."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def tune_link_socket(sock: OptionSocket, user_timeout_ms: int) -> None:
    """Prepares a connected TCP socket of the link: no delay, and a dead peer is noticed within `user_timeout_ms`.

    The kernel's timeout is a second net below the heartbeats, which decide: it frees a socket whose peer vanished while
    data was on its way, or while it was idle. Where the system lacks an option (Windows counts in whole seconds), the
    socket works without it.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole_seconds = max(1, -(-user_timeout_ms // 1000))
    probe_seconds = max(1, whole_seconds // _KEEPALIVE_PROBES_PER_TIMEOUT)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _KEEPALIVE_IDLE, probe_seconds)
        sock.setsockopt(socket.IPPROTO_TCP, _KEEPALIVE_INTERVAL, probe_seconds)
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            sock.setsockopt(socket.IPPROTO_TCP, _MAXIMUM_RETRANSMISSION_TIME, whole_seconds)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)


def open_listener(interface: str, port: int) -> list[socket.socket]:
    """Returns listening TCP sockets, all on one port, for an `interface` as written in agent.toml.

    `interface` is an address of this node, "localhost" (both loopback addresses, where IPv6 exists), "0.0.0.0" or "All
    interfaces" (every IPv4 address), or "::" (every address of either family, where the system can). Port 0 takes a
    free port. Raises PairAgentError with a sentence if the address is none of this node's or the port is not to be had.
    """
    if interface == "localhost":
        return _open_both_loopbacks(port)
    address = "0.0.0.0" if interface == ALL_INTERFACES else interface
    return [_listen(address, port)]


def _open_both_loopbacks(port: int) -> list[socket.socket]:
    for attempt in range(EPHEMERAL_PORT_ATTEMPTS):
        first = _listen("127.0.0.1", port)
        try:
            return [first, _listen("::1", first.getsockname()[1])] if _has_ipv6_loopback() else [first]
        except PairAgentError:
            first.close()
            # A free port of the one family may be taken in the other; only a port that nobody chose is tried again.
            if port != 0 or attempt == EPHEMERAL_PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _listen(address: str, port: int) -> socket.socket:
    """Returns one listening socket on a numeric `address`; raises PairAgentError."""
    try:
        candidates = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError) as error:
        raise PairAgentError(
            f'the interface "{address}" is not an address; allowed are an address of this node '
            '(see pair-agent interfaces), "localhost", "0.0.0.0", "::" and "All interfaces".'
        ) from error
    family, kind, protocol, _, target = candidates[0]
    listener = None
    try:
        listener = socket.socket(family, kind, protocol)
        if sys.platform == "win32":
            # SO_REUSEADDR would let two programs share the port there; this one is what keeps them out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            dual_stack = address == "::"
            with contextlib.suppress(OSError):
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual_stack else 1)
        listener.bind(target)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise PairAgentError(_why_not(address, port, error)) from error
    return listener


def _why_not(address: str, port: int, error: OSError) -> str:
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lookup = "netstat -ano" if sys.platform == "win32" else "ss -ltnp"
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is already in use ({shown}): stop the program that holds it ({lookup} shows it), "
            "or choose another port in agent.toml."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{address} is not an address of this node, so port {port} cannot be opened there; "
            "pair-agent interfaces lists its addresses."
        )
    if error.errno == errno.EACCES:
        return (
            f"port {port} may not be opened by this account ({shown}): it is reserved by the system or held "
            f"exclusively ({lookup} shows by whom). Choose a port from 1024 upwards that is free."
        )
    return f"port {port} cannot be opened ({shown}): {error.strerror}."
