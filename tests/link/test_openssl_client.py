"""OpenSSL's own command line as the other end of a real socket: an implementation that this project did not write."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from agent.core.errors import PeerError
from agent.link.identity import certificate_pem
from agent.link.tls import server_stream
from tests.link.tls_material import Signed, identity_of, make_certificate, nodes

pytestmark = pytest.mark.openssl

REAL_SECONDS_MAX = 30


@dataclass(frozen=True)
class Meeting:
    """What became of one connection: the client's transcript, what the server read, and what it refused with."""

    transcript: str
    received: bytes
    error: Exception | None


async def _meet(arguments: list[str]) -> Meeting:
    """Lets s_client dial a listening server of ours and say hello."""
    client, server = nodes()
    identity = identity_of(server, client)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    received, error = b"", None

    async def serve() -> None:
        nonlocal received, error
        stream = server_stream(await listener.accept(), identity)
        try:
            await stream.do_handshake()
            received = await stream.receive_some()
            await stream.send_all(b"hello from the server\n")
        except (PeerError, trio.BrokenResourceError) as caught:
            error = caught
        finally:
            await stream.aclose()

    with trio.fail_after(REAL_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            finished = await trio.run_process(
                ["openssl", "s_client", "-connect", address, "-alpn", "pair-agent/1", "-quiet", *arguments],
                stdin=b"hello from s_client\n",
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
    await listener.aclose()
    return Meeting(finished.stdout.decode(errors="replace"), received, error)


def meet(*arguments: str) -> Meeting:
    async def run() -> Meeting:
        return await _meet(list(arguments))

    return trio.run(run)


def files_of(signed: Signed, folder: Path) -> list[str]:
    """Writes a certificate and its key and returns s_client's arguments for them."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_text(certificate_pem(signed.certificate))
    key.write_bytes(
        signed.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return ["-cert", str(certificate), "-key", str(key)]


def assert_refused(meeting: Meeting, words: str) -> None:
    assert isinstance(meeting.error, PeerError)
    assert words in str(meeting.error)
    assert meeting.received == b""
    assert "hello from the server" not in meeting.transcript


def test_the_right_certificate_is_accepted(tmp_path: Path) -> None:
    meeting = meet(*files_of(nodes()[0], tmp_path))
    assert meeting.error is None
    assert meeting.received == b"hello from s_client\n"
    assert "hello from the server" in meeting.transcript


def test_no_certificate_is_refused() -> None:
    meeting = meet()
    assert_refused(meeting, "presented no certificate")
    assert "alert certificate required" in meeting.transcript


def test_a_foreign_certificate_is_refused(tmp_path: Path) -> None:
    meeting = meet(*files_of(make_certificate("stranger"), tmp_path))
    assert_refused(meeting, "refused certificate of 'stranger'")
    assert "alert" in meeting.transcript


def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    meeting = meet(*files_of(nodes()[0], tmp_path), "-tls1_2")
    assert_refused(meeting, "TLS 1.3")
    assert "alert protocol version" in meeting.transcript


def test_a_copy_of_the_servers_own_certificate_and_key_is_refused(tmp_path: Path) -> None:
    meeting = meet(*files_of(nodes()[1], tmp_path))
    assert_refused(meeting, "own certificate reflected")


def test_another_application_protocol_is_refused(tmp_path: Path) -> None:
    meeting = meet(*files_of(nodes()[0], tmp_path), "-alpn", "h2")
    assert_refused(meeting, "pair-agent/1")
