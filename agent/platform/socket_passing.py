"""Hands an accepted socket to a child process: descriptors over a Unix socket, `share` on Windows.

The socket goes with a token of a few bytes that travels to the child by the way on which everything else does: `token
= giver.give(sock, child_pid)`, in the child `taker.take(token)`. Knows nothing of TLS.
"""

from __future__ import annotations

import socket
import sys

TOKEN_BYTES = 4

if sys.platform == "win32":

    class SocketGiver:
        """The agent's end; made before the child is started, one for each child."""

        @property
        def inherited(self) -> tuple[int, ...]:
            """Descriptors for the child's `pass_fds`; none on Windows."""
            return ()

        @property
        def argument(self) -> str:
            """What the child needs to make its SocketTaker; an argument of its command line."""
            return "-"

        def child_started(self) -> None:
            """Closes the child's end here, once the child has it."""

        def give(self, sock: socket.socket, child_pid: int) -> bytes | None:
            """Sends a duplicate of `sock` and returns its token; None if the child cannot take more. Never waits."""
            try:
                return sock.share(child_pid)
            except OSError:
                return None

        def close(self) -> None:
            """Lets go; sockets that nobody took are closed with the child."""

    class SocketTaker:
        """The child's end."""

        def __init__(self, argument: str) -> None:
            """`argument` is SocketGiver's."""

        def take(self, token: bytes) -> socket.socket | None:
            """Returns the socket given with this token, non-blocking; None if it got lost. Never waits."""
            try:
                taken = socket.fromshare(token)
            except OSError:
                return None
            taken.setblocking(False)
            return taken

        def close(self) -> None:
            """Lets go."""

else:
    import contextlib
    import os

    _DESCRIPTORS_AT_ONCE = 16

    class SocketGiver:
        """The agent's end; made before the child is started, one for each child."""

        def __init__(self) -> None:
            self._ours, self._childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._ours.setblocking(False)
            self._number = 0

        @property
        def inherited(self) -> tuple[int, ...]:
            """Descriptors for the child's `pass_fds`; none on Windows."""
            return (self._childs.fileno(),)

        @property
        def argument(self) -> str:
            """What the child needs to make its SocketTaker; an argument of its command line."""
            return str(self._childs.fileno())

        def child_started(self) -> None:
            """Closes the child's end here, once the child has it."""
            self._childs.close()

        def give(self, sock: socket.socket, child_pid: int) -> bytes | None:
            """Sends a duplicate of `sock` and returns its token; None if the child cannot take more. Never waits."""
            del child_pid
            self._number = (self._number + 1) % 2 ** (8 * TOKEN_BYTES)
            token = self._number.to_bytes(TOKEN_BYTES, "big")
            try:
                socket.send_fds(self._ours, [token], [sock.fileno()])
            except OSError:
                return None
            return token

        def close(self) -> None:
            """Lets go; sockets that nobody took are closed with the child."""
            self._ours.close()
            self._childs.close()

    class SocketTaker:
        """The child's end."""

        def __init__(self, argument: str) -> None:
            """`argument` is SocketGiver's."""
            self._side = socket.socket(fileno=int(argument))
            self._side.setblocking(False)
            self._side.set_inheritable(False)
            self._taken: dict[bytes, list[int]] = {}

        def take(self, token: bytes) -> socket.socket | None:
            """Returns the socket given with this token, non-blocking; None if it got lost. Never waits."""
            with contextlib.suppress(BlockingIOError):
                while token not in self._taken:
                    data, descriptors, _, _ = socket.recv_fds(self._side, TOKEN_BYTES, _DESCRIPTORS_AT_ONCE)
                    if not data:
                        break
                    self._taken[data] = descriptors
            descriptors = self._taken.pop(token, [])
            for passed_over in list(self._taken):  # given earlier, and never asked for
                for descriptor in self._taken.pop(passed_over):
                    os.close(descriptor)
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            if not descriptors:
                return None
            taken = socket.socket(fileno=descriptors[0])
            taken.setblocking(False)
            return taken

        def close(self) -> None:
            """Lets go."""
            self._side.close()
