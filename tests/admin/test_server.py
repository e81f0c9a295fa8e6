"""Places on the admin port are bounded, and nobody who holds one without asking keeps out who asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from agent.admin import http_connection, server
from agent.admin.codes import EventCode
from agent.admin.control import Action, Answer
from agent.cli.client import AgentClient, Target
from tests.admin.fake_control import LARGE, TOKEN, deaf_client, read_until, serving

ACTIVE = b"GET /active HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG_POLL = b"GET /v1/events?after=0&wait_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def is_over(stream: trio.SocketStream) -> bool:
    """Reads what is left; tells whether the agent ended the connection."""
    with trio.move_on_after(5):
        try:
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


def test_while_all_places_are_being_answered_a_newcomer_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)

    async def main() -> None:
        async with serving(tmp_path) as api, trio.open_nursery() as nursery:
            answered = trio.Event()

            async def ask() -> None:
                assert (await api.ask("GET", "/liveness")).status == 200
                answered.set()

            polls = [await trio.open_tcp_stream("127.0.0.1", api.port) for _ in range(2)]
            for stream in polls:
                await stream.send_all(LONG_POLL)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not answered.is_set()
            api.control.log.append(EventCode.LINK_DOWN, "The link is down.")
            await answered.wait()
            for stream in polls:
                await stream.aclose()

    trio.run(main)


@pytest.mark.parametrize("after_a_request", [False, True], ids=["new", "kept"])
def test_the_client_that_has_asked_nothing_for_longest_leaves_for_a_newcomer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_a_request: bool
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 1_000.0)

    async def ask_once(stream: trio.SocketStream) -> None:
        await stream.send_all(ACTIVE)
        await read_until(stream, b"\r\n\r\nactive\n")

    async def main() -> None:
        async with serving(tmp_path) as api:
            poll, first, second = [await trio.open_tcp_stream("127.0.0.1", api.port) for _ in range(3)]
            await poll.send_all(LONG_POLL)
            await api.control.log.waiting.wait()
            if after_a_request:
                await ask_once(second)
                await ask_once(first)
                first, second = second, first
            else:
                await first.send_all(ACTIVE[:-2])  # half a head is no head
            newcomer = await trio.open_tcp_stream("127.0.0.1", api.port)
            await ask_once(newcomer)
            assert await is_over(first)
            await ask_once(second)
            api.control.log.append(EventCode.LINK_DOWN, "The link is down.")
            await read_until(poll, b"The link is down.")
            for stream in (poll, first, second, newcomer):
                await stream.aclose()

    trio.run(main)


def test_clients_that_do_not_read_leave_for_a_newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(http_connection, "SEND_TIMEOUT_S", 1_000.0)

    async def main() -> None:
        async with serving(tmp_path, status_now=LARGE) as api:
            with deaf_client(api.port) as one, deaf_client(api.port) as other:
                for client in (one, other):
                    await trio.lowlevel.wait_readable(client)
                assert (await api.ask("GET", "/liveness")).status == 200

    trio.run(main)


def test_an_action_is_never_cut_off_for_a_newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)

    async def main() -> None:
        async with serving(tmp_path) as api, trio.open_nursery() as nursery:
            begun, may_end, answers = trio.Event(), trio.Event(), []

            async def act_slowly(action: Action, arguments: object) -> Answer:
                begun.set()
                await may_end.wait()
                return Answer(True, "Done.")

            monkeypatch.setattr(api.control, "act", act_slowly)

            async def act() -> None:
                answers.append((await api.ask("POST", "/v1/failover", token=TOKEN)).status)

            nursery.start_soon(act)
            await begun.wait()
            for _ in range(5):
                idle = await trio.open_tcp_stream("127.0.0.1", api.port)
                assert (await api.ask("GET", "/liveness")).status == 200
                await idle.aclose()
            may_end.set()
        assert answers == [200]

    trio.run(main)


def test_idle_clients_and_long_polls_keep_out_neither_load_balancer_nor_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 1_000.0)  # nobody leaves because the time is over

    async def main() -> None:
        async with serving(tmp_path) as api:
            crowd = []
            for said in [LONG_POLL] * server.CONNECTIONS_MAX + [b""] * server.CONNECTIONS_MAX:
                stream = await trio.open_tcp_stream("127.0.0.1", api.port)
                crowd.append(stream)
                if said:
                    await stream.send_all(said)
            with trio.fail_after(5):
                assert (await api.ask("GET", "/active")).status == 200
                client = AgentClient(Target(tmp_path / "agent.toml", "127.0.0.1", api.port, tmp_path))
                assert (await trio.to_thread.run_sync(client.get_object, "/v1/status"))["role"] == "active"
            for stream in crowd:
                await trio.aclose_forcefully(stream)

    trio.run(main)
