"""Health is asked over TCP, HTTP and by commands, in bounded time, and what follows is a restart, then a handover."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.config.model import Health, HealthKind, Workload, WorkloadKind
from agent.workload import health as checks
from agent.workload.events import WorkloadFailed, WorkloadRestarted, WorkloadStarted
from agent.workload.health import Finding, probe, watch
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
        (b"HTTP/1.1 20 OK\r\n", "answered with something that is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", "answered with something that is not HTTP"),
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


def test_a_status_of_thousands_of_digits_is_a_problem_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first part is short of the bound on an answer, so that the second one takes it beyond what int() reads.
    parts = [b"HTTP/1.1 " + b"9" * 4_000, b"9" * 3_900, b"\r\n\r\n"]

    async def open_scripted(host: str, port: int) -> trio.abc.Stream:
        near, _ = trio.testing.memory_stream_pair()

        async def say(part: bytes | None) -> bytes:
            return parts.pop(0) if parts else b""

        monkeypatch.setattr(near, "receive_some", say)
        return near

    monkeypatch.setattr(trio, "open_tcp_stream", open_scripted)

    async def main() -> None:
        problem = await ask(Health(HealthKind.HTTP, timeout=5_000, url="http://127.0.0.1/"))
        assert problem == "http://127.0.0.1/ answered with something that is not HTTP"

    trio.run(main)


def findings(
    monkeypatch: pytest.MonkeyPatch, outcomes: list[Finding | BaseException], *, expected: int
) -> list[str | None]:
    """Lets `watch` meet these outcomes of probes, one after the other; returns what it told."""
    told: list[str | None] = []

    async def scripted(workload: Workload, environment: Mapping[str, str]) -> Finding:
        await trio.lowlevel.checkpoint()
        if not outcomes:
            await trio.sleep_forever()
        outcome = outcomes.pop(0)
        if isinstance(outcome, Finding):
            return outcome
        raise outcome

    monkeypatch.setattr(checks, "probe", scripted)

    async def main() -> None:
        workload = Workload(health=Health(HealthKind.TCP, interval=1_000, address="127.0.0.1:1"))
        with trio.move_on_after(60):
            await watch(workload, dict, told.append)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(told) == expected
    return told


def test_no_exception_of_a_probe_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Finding | BaseException] = [
        ValueError("Exceeds the limit (4300 digits)"),
        ExceptionGroup("several", [KeyError("x"), ExceptionGroup("inner", [UnicodeError("label too long")])]),
        Finding(None),
    ]
    first, second, third = findings(monkeypatch, outcomes, expected=3)
    assert first == "the health check failed: ValueError: Exceeds the limit (4300 digits)"
    assert second == "the health check failed: KeyError: 'x'"
    assert third is None


def test_a_fault_beside_a_cancellation_does_not_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty_when_cancelled(workload: Workload, environment: Mapping[str, str]) -> Finding:
        async def fail_at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("on the way out")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError("the nursery ends by cancellation only")

    monkeypatch.setattr(checks, "probe", faulty_when_cancelled)

    async def main() -> None:
        workload = Workload(health=Health(HealthKind.TCP, interval=1_000, address="127.0.0.1:1"))
        with trio.move_on_after(60) as scope:
            await watch(workload, dict, lambda problem: None)
        assert scope.cancelled_caught

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@pytest.mark.parametrize("code", SHORTAGES)
@pytest.mark.parametrize("kind", [HealthKind.TCP, HealthKind.HTTP, HealthKind.COMMAND])
def test_what_the_agent_itself_lacks_is_no_evidence_against_the_workload(
    monkeypatch: pytest.MonkeyPatch, kind: HealthKind, code: int
) -> None:
    async def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    async def refuse_all_attempts(*arguments: object, **options: object) -> None:
        attempts = [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), OSError(code, os.strerror(code))]
        raise OSError("all attempts to connect failed") from ExceptionGroup("attempts", attempts)

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    health = Health(kind, timeout=5_000, address="127.0.0.1:1", url="http://127.0.0.1:1/", command=("true",))
    for opening in (refuse, refuse_all_attempts):
        monkeypatch.setattr(trio, "open_tcp_stream", opening)
        finding = trio.run(probe, Workload(health=health), {})
        assert finding.problem is not None
        assert not finding.is_evidence


@pytest.mark.parametrize("code", SHORTAGES)
def test_a_shortage_that_nobody_expected_does_not_count_either(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    group = ExceptionGroup("several", [OSError(code, os.strerror(code))])
    assert findings(monkeypatch, [group, Finding("ill")], expected=1) == ["ill"]


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
