"""Hands an accepted socket to a child process: descriptors over a Unix socket, `share` on Windows.

The socket goes with a token of a few bytes that travels to the child by the way on which everything else does (the
lead's pipe): `token = giver.give(sock, child_pid)`, in the child `taker.take(token)`. Knows nothing of TLS.
"""

from __future__ import annotations

import socket


class SocketGiver:
    """The agent's end; made before the child is started, one for each child."""

    @property
    def inherited(self) -> tuple[int, ...]:
        """Descriptors for the child's `pass_fds`; none on Windows."""
        raise NotImplementedError

    @property
    def argument(self) -> str:
        """What the child needs to make its SocketTaker; an argument of its command line."""
        raise NotImplementedError

    def child_started(self) -> None:
        """Closes the child's end here, once the child has it."""
        raise NotImplementedError

    def give(self, sock: socket.socket, child_pid: int) -> bytes | None:
        """Sends a duplicate of `sock` and returns its token; None if the child cannot take more now. Never waits."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go; sockets that nobody took are closed with the child."""
        raise NotImplementedError


class SocketTaker:
    """The child's end."""

    def __init__(self, argument: str) -> None:
        """`argument` is SocketGiver's."""

    def take(self, token: bytes) -> socket.socket | None:
        """Returns the socket given with this token, non-blocking; None if it got lost. Never waits."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go."""
        raise NotImplementedError
