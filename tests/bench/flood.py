"""500 strangers at once, again and again, until killed: run as a process of its own by the benchmark of strangers.

    python -m tests.bench.flood PORT

A third finishes TLS with certificates that nobody pinned, a third connects and says nothing, a third says garbage. All
come from their own loopback address. Prints a line with the number of connections of each kind when its input ends.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter

import trio

from agent.config.model import Certificates, Credential
from agent.core.errors import PeerError
from agent.link.identity import Identity, generate_identity, load_identity
from agent.link.tls import client_stream

STRANGERS = 500
STRANGER_ADDRESS = "127.0.0.9"
PATIENCE_S = 5.0
GARBAGE_BYTES = 300


def foreign_identity() -> Identity:
    """Returns a certificate of our own that trusts nobody who is there."""
    key, certificate = generate_identity("stranger")
    _, other = generate_identity("nobody")
    return load_identity(Certificates(Credential(certificate, None), Credential(key, None), Credential(other, None)))


async def handshake(transport: trio.SocketStream, identity: Identity) -> None:
    """Shows a foreign certificate and waits for what the other end says."""
    stream = client_stream(transport, identity)
    await stream.do_handshake()
    await stream.receive_some(1)


async def silent(transport: trio.SocketStream, _: Identity) -> None:
    """Says nothing and holds the connection."""
    await transport.receive_some(1)


async def garbage(transport: trio.SocketStream, _: Identity) -> None:
    """Says what is no TLS."""
    await transport.send_all(random.randbytes(GARBAGE_BYTES))
    await transport.receive_some(1)


KINDS = (handshake, silent, garbage)


async def stranger(port: int, number: int, identity: Identity, served: Counter[str]) -> None:
    """Comes again as soon as it is thrown out."""
    kind = KINDS[number % len(KINDS)]
    while True:
        own = trio.socket.socket()
        try:
            await own.bind((STRANGER_ADDRESS, 0))
            with trio.move_on_after(PATIENCE_S):
                await own.connect(("127.0.0.1", port))
                await kind(trio.SocketStream(own), identity)
        except (OSError, trio.BrokenResourceError, PeerError):
            pass  # refused, as it should be
        finally:
            own.close()
        served[kind.__name__] += 1
        await trio.lowlevel.checkpoint()


async def main(port: int) -> None:
    """Floods until standard input ends."""
    identity = foreign_identity()
    served: Counter[str] = Counter()
    async with trio.open_nursery() as nursery:
        for number in range(STRANGERS):
            nursery.start_soon(stranger, port, number, identity, served)
        await trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())).receive_some(1)
        nursery.cancel_scope.cancel()
    print(json.dumps(served))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
