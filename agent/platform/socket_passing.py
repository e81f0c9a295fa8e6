"""Hands a connected socket to a child process: descriptors over a Unix socket, `share` on Windows.

With each socket goes a token, which the owner sends to the child over the pipe that it talks with anyway:

    agent    giver = SocketGiver(); start the child with giver.inherited and giver.argument; giver.child_started()
             token = giver.give(sock, child_pid)
    child    taker = SocketTaker(argument); sock = taker.take(token)

Nothing here waits. The giver keeps its own socket and may close it at once. Knows nothing of what the socket is for.
"""

from __future__ import annotations

import contextlib
import socket
import sys

if sys.platform == "win32":

    class SocketGiver:
        """The agent's end; one for each child."""

        inherited: tuple[int, ...] = ()
        argument = "share"

        def child_started(self) -> None:
            """Has nothing to do: the child inherits nothing."""

        def give(self, sock: socket.socket, child_pid: int) -> bytes | None:
            """Duplicates `sock` for the process `child_pid` and returns its token; None if that failed.

            It must be the process that takes: in a virtual environment Popen's is only its launcher.
            """
            try:
                return sock.share(child_pid)
            except OSError:
                return None

        def close(self) -> None:
            """Has nothing to do."""

    class SocketTaker:
        """The child's end."""

        def __init__(self, argument: str) -> None:
            """`argument` is the giver's."""

        def take(self, token: bytes) -> socket.socket | None:
            """Returns the socket given with this token, non-blocking; None if it got lost."""
            try:
                taken = socket.fromshare(token)
            except (OSError, ValueError):
                return None
            taken.setblocking(False)
            return taken

        def close(self) -> None:
            """Has nothing to do."""

else:
    import os

    _TOKEN_BYTES = 8

    class SocketGiver:
        """The agent's end; one for each child."""

        def __init__(self) -> None:
            """Raises OSError where descriptors are short."""
            self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._near.setblocking(False)
            self._number = 0
            self.inherited: tuple[int, ...] = (self._far.fileno(),)
            self.argument = str(self._far.fileno())

        def child_started(self) -> None:
            """Closes the child's end here, once the child has it, so that its death is noticed."""
            self._far.close()

        def give(self, sock: socket.socket, child_pid: int) -> bytes | None:
            """Sends a duplicate of `sock` and returns its token; None if the child takes no more now, or is dead."""
            token = (self._number + 1).to_bytes(_TOKEN_BYTES, "big")
            try:
                socket.send_fds(self._near, [token], [sock.fileno()], socket.MSG_DONTWAIT)
            except OSError:  # full, or too many descriptors on their way, or nobody there
                return None
            self._number += 1
            return token

        def close(self) -> None:
            """Lets go; what nobody took is closed with the child."""
            self._near.close()
            self._far.close()

    class SocketTaker:
        """The child's end."""

        def __init__(self, argument: str) -> None:
            """`argument` is the giver's."""
            self._far = socket.socket(fileno=int(argument))
            self._far.set_inheritable(False)
            self._far.setblocking(False)

        def take(self, token: bytes) -> socket.socket | None:
            """Returns the socket given with this token, non-blocking; None if it got lost. Closes all given before."""
            while True:
                try:
                    found, descriptors, _, _ = socket.recv_fds(self._far, _TOKEN_BYTES, 1)
                except OSError:
                    return None
                if not found:
                    return None  # the giver is gone
                if not descriptors:  # this process may have no more of them
                    if found == token:
                        return None
                    continue
                os.set_inheritable(descriptors[0], False)
                taken = socket.socket(fileno=descriptors[0])
                if found == token:
                    taken.setblocking(False)
                    return taken
                with contextlib.suppress(OSError):
                    taken.close()

        def close(self) -> None:
            """Lets go."""
            self._far.close()
