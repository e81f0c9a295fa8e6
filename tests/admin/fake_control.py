"""A node that only remembers what it was asked, and its HTTP API on a real loopback socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from agent.admin.api import open_admin_listener, serve_admin
from agent.admin.control import Action, Answer
from agent.admin.events import EventLog
from agent.config.model import Admin

TOKEN = "t" * 43
LARGE = {"padding": "x" * 16_000_000}  # more than the buffers of a connection hold


def sample_status(**changes: Any) -> dict[str, Any]:
    """A healthy pair, seen from the active primary."""
    status: dict[str, Any] = {
        "mode": "primary",
        "name": "line-4-a",
        "role": "active",
        "term": 42,
        "reason": "The backup connected and holds nothing newer.",
        "since": "2025-03-01T10:00:00.000Z",
        "service_level": 255,
        "redundancy": "PRIMARY_WITH_BACKUP",
        "link": {
            "state": "up",
            "address": "192.168.10.12:50412",
            "rtt_ms": 0.42,
            "since": "2025-03-01T10:00:00.000Z",
            "last_error": None,
        },
        "peer": {
            "name": "line-4-b",
            "mode": "backup",
            "role": "standby",
            "term": 41,
            "agent_version": "0.1.0",
            "workload_version": "4.1.0",
        },
        "workload": {"state": "running", "pid": 4711, "restarts": 0},
        "trees": [],
        "sync": {"state": "none", "direction": None, "done_bytes": 0, "total_bytes": 0},
        "readiness": {"ready": True, "reasons": []},
    }
    return {**status, **changes}


class WatchedLog(EventLog):
    """An event log that tells when a reader waits, and when it no longer does."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.waiting = trio.Event()
        self.released = trio.Event()

    async def wait_for_more(self, after: int) -> None:
        self.waiting.set()
        try:
            await super().wait_for_more(after)
        finally:
            self.released.set()


@dataclass
class FakeControl:
    """Answers with `status_now` and `answer`; `acted` holds what it was asked to do.

    `statuses` come before `status_now`, each once; `answers` before `answer`, by action.
    """

    log: WatchedLog
    status_now: dict[str, Any] = field(default_factory=sample_status)
    answer: Answer = field(default_factory=lambda: Answer(True, "Done as asked."))
    statuses: list[dict[str, Any]] = field(default_factory=list)
    answers: Mapping[Action, Answer] = field(default_factory=dict)
    fault: Exception | None = None
    acted: list[tuple[Action, dict[str, Any]]] = field(default_factory=list)
    on_act: Callable[[], object] = lambda: None

    def status(self) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return self.statuses.pop(0) if self.statuses else self.status_now

    def events(self) -> EventLog:
        return self.log

    async def act(self, action: Action, arguments: Mapping[str, Any]) -> Answer:
        self.acted.append((action, dict(arguments)))
        self.on_act()
        await trio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        return self.answers.get(action, self.answer)


@dataclass(frozen=True)
class Reply:
    """What came back for one request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def parse_reply(data: bytes) -> Reply:
    """A whole HTTP/1.1 answer, as sent before the connection was closed."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split(" ")[1]), headers, body)


@dataclass(frozen=True)
class Api:
    """A served API and the port it answers at."""

    control: FakeControl
    port: int

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """One request on a connection of its own; None as a header's value leaves the header out."""
        lines = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if token is not None:
            lines["Authorization"] = f"Bearer {token}"
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= headers or {}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return parse_reply(await self.exchange(head.encode("latin-1") + b"\r\n" + (body or b"")))

    async def exchange(self, data: bytes) -> bytes:
        """Sends raw bytes and returns all that comes back until the other end closes."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(data)
            received = bytearray()
            try:
                async for chunk in stream:
                    received += chunk
            except trio.BrokenResourceError:
                pass  # reset after the answer, because the request was not read to its end
            return bytes(received)


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    """Reads until `end` has come: head and body of an answer may arrive apart. Fails if the connection ends before."""
    received = b""
    while end not in received:
        part = bytes(await stream.receive_some())
        assert part, f"ended after {received!r}"
        received += part
    return received


def deaf_client(port: int) -> socket.socket:
    """Asks for the status and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


@asynccontextmanager
async def serving(tmp_path: Path, interface: str = "127.0.0.1", **fields: Any) -> AsyncIterator[Api]:
    """The API of a FakeControl on a free port."""
    control = FakeControl(WatchedLog(tmp_path / "events.jsonl"), **fields)
    admin = Admin(interface=interface, port=0)
    listeners = open_admin_listener(admin)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_admin(control, admin, TOKEN, listeners=listeners, task_status=task_status)
        )
        with trio.fail_after(20):
            yield Api(control, listeners[0].getsockname()[1])
        nursery.cancel_scope.cancel()


@contextmanager
def serving_in_thread(tmp_path: Path, token: str = TOKEN, port: int = 0, **fields: Any) -> Iterator[Api]:
    """The same for blocking callers: the event loop runs in a thread of its own."""
    control = FakeControl(WatchedLog(tmp_path / "events.jsonl"), **fields)
    admin = Admin(port=port)
    listeners = open_admin_listener(admin)
    api = Api(control, listeners[0].getsockname()[1])
    started = threading.Event()
    stop: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def run() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: serve_admin(control, admin, token, listeners=listeners, task_status=task_status)
                )
                stop.append((trio.lowlevel.current_trio_token(), scope))
                started.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert started.wait(20)
    try:
        yield api
    finally:
        loop, scope = stop[0]
        loop.run_sync_soon(scope.cancel)
        thread.join(20)
        assert not thread.is_alive()
