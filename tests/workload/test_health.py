"""Health is asked over TCP, HTTP and by commands, in bounded time, and what follows is a restart, then a handover."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from agent.config.model import Health, HealthKind, Workload, WorkloadKind
from agent.workload.events import WorkloadFailed, WorkloadRestarted, WorkloadStarted
from agent.workload.health import probe
from tests.workload.harness import PYTHON, running, workload

ANSWER = b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """Answers everybody with these bytes; None: says nothing."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1_000)
        if answer is None:
            await trio.sleep_forever()
        else:
            for byte in answer:
                await stream.send_all(bytes([byte]))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def ask(health: Health, **settings: object) -> str | None:
    finding = await probe(Workload(health=health, **settings), {})  # type: ignore[arg-type]  # checked by the dataclass
    assert finding.is_evidence
    return finding.problem


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ANSWER % 200, None),
        (ANSWER % 302, None),
        (ANSWER % 503, "answered with status 503"),
        (b"SSH-2.0-x\r\n", "answered with something that is not HTTP"),
        (b"", "answered with something that is not HTTP"),
        (b"HTTP/1.1", "answered with something that is not HTTP"),
        (None, "within 150 ms"),
    ],
)
def test_http_is_well_below_400_and_ill_otherwise(answer: bytes | None, says: str | None) -> None:
    async def main() -> None:
        async with server(answer) as port:
            url = f"http://127.0.0.1:{port}/health?x=1"
            problem = await ask(Health(HealthKind.HTTP, timeout=150 if answer is None else 5_000, url=url))
            if says is None:
                assert problem is None
            else:
                assert problem is not None
                assert says in problem

    trio.run(main)


def test_tcp_is_well_if_a_connection_comes_about() -> None:
    async def main() -> None:
        async with server(b"") as port:
            health = Health(HealthKind.TCP, timeout=5_000, address=f"127.0.0.1:{port}")
            assert await ask(health) is None
        assert "no connection to 127.0.0.1" in str(await ask(health))

    trio.run(main)


def test_a_command_is_well_if_it_ends_with_0_in_time() -> None:
    async def main() -> None:
        def command(source: str, timeout: int = 20_000) -> Health:
            return Health(HealthKind.COMMAND, timeout=timeout, command=(*PYTHON, source))

        assert await ask(command("")) is None
        assert await ask(command("raise SystemExit(2)")) == "the health command ended with exit code 2"
        hanging = await ask(command("import time; time.sleep(1000)", timeout=100))
        assert hanging == "the health command did not end within 100 ms and was killed"

    trio.run(main)


def test_start_commands_are_asked_by_their_status_command() -> None:
    async def main() -> None:
        health = Health(HealthKind.PROCESS, timeout=20_000)
        commands = WorkloadKind.COMMANDS
        assert await ask(health, kind=commands, status=(*PYTHON, "")) is None
        assert "the status command ended" in str(
            await ask(health, kind=commands, status=(*PYTHON, "raise SystemExit(3)"))
        )
        assert await ask(health, kind=commands) is None

    trio.run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="the workload is a shell script")
def test_p5_a_workload_that_hangs_is_restarted_then_handed_over(tmp_path: Path) -> None:
    async def main() -> None:
        well = tmp_path / "well"
        well.touch()
        health = Health(HealthKind.COMMAND, interval=30, timeout=5_000, failures=2, command=("test", "-e", str(well)))
        asked = workload(["sleep", "1000"], tmp_path, health=health)
        async with running(asked, tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadStarted)
            with trio.fail_after(10):
                while run.supervisor.status.healthy is None:  # noqa: ASYNC110  # the status is asked, it tells nobody
                    await trio.sleep(0.01)
            first = run.supervisor.status.pid
            well.unlink()
            restarted = await run.next(WorkloadRestarted)
            assert "2 health checks in a row failed: the health command ended with exit code 1" in restarted.reason
            assert run.supervisor.status.pid != first
            assert (await run.next(WorkloadFailed)).reason == restarted.reason

    trio.run(main)
