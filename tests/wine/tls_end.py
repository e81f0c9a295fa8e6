"""One end of a TLS connection of the link: run by Windows' Python as a program, and by the test itself on Linux.

    python -m tests.wine.tls_end listen|dial FOLDER NAME [PORT]

FOLDER holds NAME.key and NAME.crt, and remote.crt. What the end saw goes to standard output, a JSON object per line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from agent.core.errors import PeerError
from agent.link.identity import Identity, fingerprint, load_private_key_untrusted, read_certificates_untrusted
from agent.link.tls import TlsStream, client_stream, server_stream
from agent.platform.sockets import open_listener, tune_link_socket

SECONDS_MAX = 30
PAYLOAD = bytes(range(256)) * 2048
GREETING = b"!"
LABEL = b"EXPORTER-pair-agent-test"


def identity_from(folder: Path, name: str, remote: str) -> Identity:
    """Returns the credentials called `name` that trust the certificate called `remote`."""
    (own,) = read_certificates_untrusted((folder / f"{name}.crt").read_text("ascii"))
    trusted = tuple(read_certificates_untrusted((folder / f"{remote}.crt").read_text("ascii")))
    return Identity(own, load_private_key_untrusted((folder / f"{name}.key").read_text("ascii")), trusted)


async def listen(identity: Identity, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> dict[str, str]:
    """Serves one connection on a free port, which is the started value; returns what it saw."""
    (listening,) = open_listener("127.0.0.1", 0)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with listener:
        task_status.started(listening.getsockname()[1])
        transport = await listener.accept()
    return await _talk(server_stream(transport, identity), transport, speaks_first=False)


async def dial(identity: Identity, port: int) -> dict[str, str]:
    """Makes one connection to `port` of this machine; returns what it saw."""
    transport = await trio.open_tcp_stream("127.0.0.1", port)
    return await _talk(client_stream(transport, identity), transport, speaks_first=True)


async def _talk(stream: TlsStream, transport: trio.SocketStream, *, speaks_first: bool) -> dict[str, str]:
    tune_link_socket(transport.socket, user_timeout_ms=5_000)
    try:
        await stream.do_handshake()
        if speaks_first:
            await _send_and_receive(stream)
        else:
            await _echo(stream)
    except PeerError as error:
        return {"refused": str(error), "code": error.code}
    else:
        peer, secret = fingerprint(stream.peer_certificate), stream.export_keying_material(LABEL, 32).hex()
        return {"peer": peer, "secret": secret, "cipher": stream.cipher}
    finally:
        await stream.aclose()


async def _send_and_receive(stream: TlsStream) -> None:
    assert await stream.receive_some(1) == GREETING  # a client that was refused learns it when it reads
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, PAYLOAD)
        received = b""
        while len(received) < len(PAYLOAD):
            received += await stream.receive_some()
    assert received == PAYLOAD


async def _echo(stream: TlsStream) -> None:
    await stream.send_all(GREETING)
    async for data in stream:
        await stream.send_all(data)


async def _run_as_program(verb: str, folder: Path, name: str, port: int) -> None:
    identity = identity_from(folder, name, "remote")
    with trio.fail_after(SECONDS_MAX):
        if verb == "dial":
            _say(await dial(identity, port))
            return
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int]) -> None:
                _say(await listen(identity, task_status))

            _say({"port": await nursery.start(serve)})


def _say(what: dict[str, str]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    trio.run(_run_as_program, sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
