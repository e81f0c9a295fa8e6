"""The local HTTP API: routes to what the agent knows and does. No role rules, no sockets.

Every route states its access; whatever goes wrong in one becomes a problem answer without a traceback.
The routes below `/v1/` are the ones that programs may rely on; those without are for probes and people.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.admin import server
from agent.admin.access import Access, Gate
from agent.admin.arguments import (
    absolute_path,
    boolean,
    integer,
    moment,
    query_integer,
    query_texts,
    read_object,
    text,
)
from agent.admin.control import Action, Control
from agent.admin.events import EVENTS_KEPT
from agent.admin.problem import RefusedError, problem
from agent.config.model import Admin
from agent.core.errors import PairAgentError
from agent.core.vocabulary import Role
from agent.platform.sockets import open_listener

EVENT_WAIT_MS_MAX = 30_000
EVENT_READERS_MAX = 16  # that wait at a time
EVENT_RETRY_AFTER_S = 5
EVENTS_DEFAULT = 100
SEQUENCE_MAX = 2**63 - 1
TEST_COUNT_MAX = 100
TEST_COUNT_DEFAULT = 5
ARCHIVE_FILTERS = ("tree", "path", "since", "after")

_log = logging.getLogger("agent.admin")
_HTTP_VERSIONS = frozenset({"1.0", "1.1"})
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)

Handler = Callable[[Request], Awaitable[Response]]


def open_admin_listener(admin: Admin) -> list[socket.socket]:
    """Listening sockets for `[admin]`; raises PairAgentError, so call it before anything else starts."""
    try:
        return open_listener(admin.interface, admin.port)
    except PairAgentError as error:
        raise PairAgentError(f"[admin]: {error}") from error


async def serve_admin(
    control: Control,
    admin: Admin,
    token: str,
    *,
    listeners: Sequence[socket.socket] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves the API until cancelled, on `listeners` from `open_admin_listener`, or on its own (PairAgentError)."""
    if listeners is None:
        listeners = open_admin_listener(admin)
    await server.serve(
        application(control, Gate(interface=admin.interface, token=token)), listeners, task_status=task_status
    )


def application(control: Control, gate: Gate) -> ASGIApp:
    """The API as an ASGI application, for HTTP only."""
    endpoints = _Endpoints(control)
    routes = (
        _Route("/active", "GET", Access.PROBE, endpoints.active),
        _Route("/standby", "GET", Access.PROBE, endpoints.standby),
        _Route("/liveness", "GET", Access.PROBE, endpoints.liveness),
        _Route("/readiness", "GET", Access.READ, endpoints.readiness_probe),
        _Route("/status", "GET", Access.READ, endpoints.status),
        _Route("/v1/status", "GET", Access.READ, endpoints.status),
        _Route("/v1/readiness", "GET", Access.READ, endpoints.readiness),
        _Route("/v1/events", "GET", Access.READ, endpoints.events),
        _Route("/v1/failover", "POST", Access.ACT, endpoints.failover),
        _Route("/v1/failback", "POST", Access.ACT, endpoints.failback),
        _Route("/v1/maintenance", "POST", Access.ACT, endpoints.maintenance),
        _Route("/v1/test/heartbeat", "POST", Access.ACT, endpoints.test_heartbeat),
        _Route("/v1/test/sync", "POST", Access.ACT, endpoints.test_sync),
        _Route("/v1/sync", "POST", Access.ACT, endpoints.sync),
        _Route("/v1/sync/dry-run", "POST", Access.ACT, endpoints.sync_dry_run),
        # Names of files are nobody's business but the operator's, so looking at them needs the token too.
        _Route("/v1/archive", "GET", Access.ACT, endpoints.archive),
        _Route("/v1/archive/restore", "POST", Access.ACT, endpoints.archive_restore),
    )
    starlette = Starlette(
        routes=[Route(route.path, _guarded(route, gate), methods=[route.method]) for route in routes],
        exception_handlers={HTTPException: _http_problem},
    )
    # A redirect would be built from the Host header.
    starlette.router.redirect_slashes = False
    return _FrontDoor(starlette, gate)


@dataclass(frozen=True)
class _Route:
    path: str
    method: str
    access: Access
    handler: Handler


def _guarded(route: _Route, gate: Gate) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            gate.check_access(request, route.access)
            response = await route.handler(request)
        except RefusedError as refused:
            response = problem(refused.status, refused.sentence, headers=refused.headers)
        except ClientDisconnect:
            response = problem(HTTPStatus.BAD_REQUEST, "The body ended before it was whole, or is malformed.")
        except PairAgentError as error:
            response = problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:
            _log.exception("%s %s failed because of a fault in the agent.", route.method, route.path)
            response = problem(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault in the agent; its log has the details.")
        return response

    return handle


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        HTTPStatus.NOT_FOUND: "There is nothing at this path.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method.",
    }
    status = HTTPStatus(error.status_code)
    return problem(status, sentences.get(status, error.detail), headers=error.headers)


class _FrontDoor:
    """Checks version, Host and Origin before any route is looked at, and gives every answer the same headers."""

    def __init__(self, inner: ASGIApp, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            if scope["http_version"] not in _HTTP_VERSIONS:
                raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "This port speaks HTTP/1.1.")
            self._gate.check_origin(Request(scope))
        except RefusedError as refused:
            await problem(refused.status, refused.sentence)(scope, receive, send_with_headers)
            return
        await self._inner(scope, receive, send_with_headers)


class _Endpoints:
    """One method per route."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._readers_waiting = 0

    async def active(self, _request: Request) -> Response:
        return self._role_probe(Role.ACTIVE)

    async def standby(self, _request: Request) -> Response:
        return self._role_probe(Role.STANDBY)

    async def liveness(self, _request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def status(self, _request: Request) -> Response:
        return JSONResponse(self._control.status())

    async def readiness(self, _request: Request) -> Response:
        return JSONResponse(self._control.status()["readiness"])

    async def readiness_probe(self, _request: Request) -> Response:
        verdict = self._control.status()["readiness"]
        return JSONResponse(verdict, HTTPStatus.OK if verdict["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    async def events(self, request: Request) -> Response:
        """Without `after` the newest events; with it those that follow, waiting up to `wait_ms` for the first."""
        limit = query_integer(request, "limit", minimum=1, maximum=EVENTS_KEPT, default=EVENTS_DEFAULT)
        log = self._control.events()
        if "after" not in request.query_params:
            return JSONResponse([event.as_json() for event in log.newest(limit)])
        after = query_integer(request, "after", minimum=0, maximum=SEQUENCE_MAX, default=0)
        wait_ms = query_integer(request, "wait_ms", minimum=0, maximum=EVENT_WAIT_MS_MAX, default=0)
        # A number not given yet was lost in a crash before it reached the disk; its reader must not wait for ever.
        after = min(after, log.last_sequence)
        if wait_ms > 0 and after == log.last_sequence:
            await self._wait_for_events(request, after, wait_ms)
        return JSONResponse([event.as_json() for event in log.since(after, limit)])

    async def failover(self, request: Request) -> Response:
        await read_object(request, known=frozenset())
        return await self._act(Action.FAILOVER, {})

    async def failback(self, request: Request) -> Response:
        await read_object(request, known=frozenset())
        return await self._act(Action.FAILBACK, {})

    async def maintenance(self, request: Request) -> Response:
        arguments = await read_object(request, known=frozenset({"on"}))
        return await self._act(Action.MAINTENANCE, {"on": boolean(arguments, "on")})

    async def test_heartbeat(self, request: Request) -> Response:
        arguments = await read_object(request, known=frozenset({"count"}))
        count = integer(arguments, "count", minimum=1, maximum=TEST_COUNT_MAX, default=TEST_COUNT_DEFAULT)
        return await self._act(Action.TEST_HEARTBEAT, {"count": count})

    async def test_sync(self, request: Request) -> Response:
        await read_object(request, known=frozenset())
        return await self._act(Action.TEST_SYNC, {})

    async def sync(self, request: Request) -> Response:
        arguments = await read_object(request, known=frozenset({"full"}))
        return await self._act(Action.SYNC, {"full": boolean(arguments, "full", default=False)})

    async def sync_dry_run(self, request: Request) -> Response:
        await read_object(request, known=frozenset())
        return await self._act(Action.SYNC_DRY_RUN, {})

    async def archive(self, request: Request) -> Response:
        filters = query_texts(request, ARCHIVE_FILTERS)
        return await self._act(Action.ARCHIVE_LIST, {**filters, "since": moment("since", filters["since"])})

    async def archive_restore(self, request: Request) -> Response:
        arguments = await read_object(request, known=frozenset({"item", "to"}))
        wanted = {"item": text(arguments, "item"), "to": absolute_path(arguments, "to")}
        return await self._act(Action.ARCHIVE_RESTORE, wanted)

    async def _act(self, action: Action, arguments: dict[str, Any]) -> Response:
        answer = await self._control.act(action, arguments)
        if not answer.done:
            return problem(HTTPStatus.CONFLICT, answer.sentence, details={"details": dict(answer.details)})
        return JSONResponse({"sentence": answer.sentence, "details": dict(answer.details)})

    async def _wait_for_events(self, request: Request, after: int, wait_ms: int) -> None:
        if self._readers_waiting >= EVENT_READERS_MAX:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{EVENT_READERS_MAX} readers wait for events already; ask without wait_ms, or again later.",
                {"Retry-After": str(EVENT_RETRY_AFTER_S)},
            )
        self._readers_waiting += 1
        try:
            with trio.move_on_after(wait_ms / 1000) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_when_gone, request, scope)
                    await self._control.events().wait_for_more(after)
                    nursery.cancel_scope.cancel()
        finally:
            self._readers_waiting -= 1

    def _role_probe(self, wanted: Role) -> Response:
        role = Role(self._control.status()["role"])
        status = HTTPStatus.OK if role is wanted else HTTPStatus.SERVICE_UNAVAILABLE
        return PlainTextResponse(f"{role.value}\n", status)


async def _cancel_when_gone(request: Request, scope: trio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
