"""The link's TLS between Windows and Linux, each in both places; a stranger is refused on either system (S1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from agent.link.identity import generate_identity
from tests.wine import tls_end
from tests.wine.windows_python import WindowsPython, windows_path

pytestmark = pytest.mark.wine


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A folder with the credentials of three nodes."""
    for name in ("windows", "linux", "stranger"):
        key, certificate = generate_identity(name)
        (tmp_path / f"{name}.key").write_text(key, "ascii")
        (tmp_path / f"{name}.crt").write_text(certificate, "ascii")
    return tmp_path


def windows_listens(windows: WindowsPython, folder: Path, linux: str) -> tuple[dict[str, str], dict[str, str]]:
    """Lets Linux, as the node called `linux`, dial Windows; returns what Windows and what Linux saw."""
    arguments = ("listen", windows_path(folder), "windows")
    with windows.popen("-m", "tests.wine.tls_end", *arguments) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["port"]
            linux_saw = trio.run(tls_end.dial, tls_end.identity_from(folder, linux, "windows"), port)
            output, _ = process.communicate(timeout=tls_end.SECONDS_MAX)
        finally:
            process.kill()
    return json.loads(output), linux_saw


def windows_dials(windows: WindowsPython, folder: Path, linux: str) -> tuple[dict[str, str], dict[str, str]]:
    """Lets Windows dial Linux, which is the node called `linux`; returns what Windows and what Linux saw."""

    async def meet() -> tuple[str, dict[str, str]]:
        linux_saw: dict[str, str] = {}

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            linux_saw.update(await tls_end.listen(tls_end.identity_from(folder, linux, "windows"), task_status))

        with trio.fail_after(2 * tls_end.SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                port = await nursery.start(serve)
                arguments = ("-m", "tests.wine.tls_end", "dial", windows_path(folder), "windows", str(port))
                done = await trio.to_thread.run_sync(lambda: windows.run(*arguments))
        return done.stdout, linux_saw

    output, linux_saw = trio.run(meet)
    return json.loads(output), linux_saw


@pytest.mark.parametrize("meet", [windows_listens, windows_dials])
def test_windows_and_linux_share_a_verified_connection(windows: WindowsPython, credentials: Path, meet: object) -> None:
    (credentials / "remote.crt").write_bytes((credentials / "linux.crt").read_bytes())
    assert callable(meet)
    windows_saw, linux_saw = meet(windows, credentials, "linux")
    assert windows_saw["secret"] == linux_saw["secret"]
    assert windows_saw["peer"] != linux_saw["peer"]
    assert windows_saw["cipher"] == linux_saw["cipher"]


@pytest.mark.parametrize("meet", [windows_listens, windows_dials])
def test_windows_refuses_a_stranger(windows: WindowsPython, credentials: Path, meet: object) -> None:
    (credentials / "remote.crt").write_bytes((credentials / "linux.crt").read_bytes())
    assert callable(meet)
    windows_saw, linux_saw = meet(windows, credentials, "stranger")
    assert windows_saw["code"] == "certificate"
    assert linux_saw["code"] == "certificate"
