"""A connected socket reaches a child process, on either system, and nothing waits when the child does not take it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.platform.socket_passing import SocketGiver, SocketTaker

CHILD = """
import os, socket, sys
from agent.platform.socket_passing import SocketTaker
taker = SocketTaker(sys.argv[1])
print(os.getpid(), flush=True)
for line in sys.stdin:
    taken = taker.take(bytes.fromhex(line))
    if taken is None:
        print("lost", flush=True)
        continue
    print("blocking" if taken.getblocking() else "taken", flush=True)
    taken.setblocking(True)
    taken.sendall(b"the child says: " + taken.recv(100))
    taken.close()
"""


@contextmanager
def child(giver: SocketGiver) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, giver.argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=giver.inherited,
    ) as process:
        giver.child_started()
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()
            giver.close()


def tell(process: subprocess.Popen[str], token: bytes) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(token.hex() + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection over the loopback interface, both ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as near:
        accepted, _ = listening.accept()
        with accepted:
            yield near, accepted


def test_a_child_goes_on_with_a_socket_that_the_parent_closes_at_once() -> None:
    giver = SocketGiver()
    with child(giver) as (process, pid):
        for _ in range(3):
            with connection() as (near, accepted):
                accepted.setblocking(False)
                token = giver.give(accepted, pid)
                assert token is not None
                accepted.close()
                near.sendall(b"hello")
                assert tell(process, token) == "taken"
                assert near.recv(100) == b"the child says: hello"
                assert near.recv(100) == b"", "no other copy keeps the connection open"


@pytest.mark.skipif(sys.platform == "win32", reason="there the token is the socket: none is in line before it")
def test_a_socket_whose_token_never_came_is_closed_by_the_next() -> None:
    giver = SocketGiver()
    taker = SocketTaker(str(os.dup(int(giver.argument))))
    with connection() as (lost, given_first), connection() as (near, given_second):
        assert giver.give(given_first, 0) is not None
        token = giver.give(given_second, 0)
        assert token is not None
        given_first.close()
        given_second.close()
        taken = taker.take(token)
        assert taken is not None
        with taken:
            taken.sendall(b"second")
            assert near.recv(100) == b"second"
        assert lost.recv(100) == b""
        assert taker.take(b"\0" * 8) is None, "nothing is there, and nobody waits for it"
    taker.close()
    giver.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are duplicated into the child, there is no line to fill")
def test_a_child_that_takes_nothing_never_makes_the_giver_wait() -> None:
    giver = SocketGiver()
    with connection() as (_, accepted):
        given = 0
        while giver.give(accepted, 0) is not None:
            given += 1
            assert given < 100_000
    assert given > 16
    giver.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a dead process that somebody still holds can be given to there")
def test_giving_to_a_dead_child_fails_without_an_error() -> None:
    giver = SocketGiver()
    with child(giver) as (process, pid):
        process.kill()
        process.wait()
        with connection() as (_, accepted):
            assert giver.give(accepted, pid) is None
