"""Ports are opened where agent.toml says, are shared with nobody, and a refusal names the port and the way out."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterator

import pytest

from agent.core.errors import PairAgentError
from agent.platform.sockets import open_listener, tune_link_socket


@contextlib.contextmanager
def listening(interface: str, port: int = 0) -> Iterator[list[socket.socket]]:
    listeners = open_listener(interface, port)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def port_of(listeners: list[socket.socket]) -> int:
    (port,) = {listener.getsockname()[1] for listener in listeners}
    assert isinstance(port, int)
    return port


@pytest.mark.parametrize("interface", ["0.0.0.0", "All interfaces", "127.0.0.1", "localhost"])
def test_an_interface_is_reached_over_ipv4(interface: str) -> None:
    with listening(interface) as listeners, socket.create_connection(("127.0.0.1", port_of(listeners)), timeout=5):
        pass


@needs_ipv6
@pytest.mark.parametrize("interface", ["::", "::1", "localhost"])
def test_an_interface_is_reached_over_ipv6(interface: str) -> None:
    with listening(interface) as listeners, socket.create_connection(("::1", port_of(listeners)), timeout=5):
        pass


@needs_ipv6
@pytest.mark.skipif(sys.platform == "win32", reason="dual stack is checked where the system is known to have it")
def test_the_unspecified_ipv6_address_is_reached_over_ipv4_too() -> None:
    with listening("::") as listeners, socket.create_connection(("127.0.0.1", port_of(listeners)), timeout=5):
        pass


def test_loopback_only_listens_on_no_other_address() -> None:
    with listening("localhost") as listeners:
        assert {listener.getsockname()[0] for listener in listeners} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_taken_port_is_named_with_the_way_out(interface: str) -> None:
    with listening("127.0.0.1") as holders:
        port = port_of(holders)
        with pytest.raises(PairAgentError) as refused:
            open_listener(interface, port)
        assert f"port {port}" in str(refused.value)
        assert "another port" in str(refused.value) or "is free" in str(refused.value)


def test_no_program_can_listen_beside_the_agent() -> None:
    def intrude(intruder: socket.socket, port: int) -> None:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        intruder.bind(("127.0.0.1", port))
        intruder.listen()

    with listening("127.0.0.1") as listeners, socket.socket() as intruder:
        with pytest.raises(OSError) as refused:  # noqa: PT011 - its text is the system's
            intrude(intruder, port_of(listeners))
        assert refused.value.errno in (errno.EADDRINUSE, errno.EACCES)


def test_a_port_is_free_again_at_once_although_old_connections_linger() -> None:
    with listening("127.0.0.1") as listeners:
        port = port_of(listeners)
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        accepted, _ = listeners[0].accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    with listening("127.0.0.1", port):
        pass


@pytest.mark.parametrize("interface", ["eth0", "", "300.1.1.1", "line-4-a.example", "\udcff", "a" * 500])
def test_an_interface_that_is_no_address_is_told_what_is_allowed(interface: str) -> None:
    with pytest.raises(PairAgentError, match="All interfaces"):
        open_listener(interface, 0)


def test_an_address_of_another_machine_is_told_where_to_look() -> None:
    with pytest.raises(PairAgentError, match="pair-agent interfaces"):
        open_listener("192.0.2.1", 0)


def test_a_link_socket_sends_without_delay_and_gives_up_in_time() -> None:
    with listening("127.0.0.1") as listeners, socket.create_connection(listeners[0].getsockname(), timeout=5) as client:
        tune_link_socket(client, user_timeout_ms=4_500)
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if sys.platform != "win32":
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 4_500
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
