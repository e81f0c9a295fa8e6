"""What a request brings, checked: the numbers of a query, the JSON object of a body. Everything is bounded.

Knows no route's meaning. A fault raises RefusedError with a sentence that names the parameter, what was found and what
is allowed.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import trio
from starlette.requests import Request

from agent.admin.problem import RefusedError

BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 10.0
_SHOWN_CHARACTERS = 40


def query_integer(request: Request, name: str, *, minimum: int, maximum: int, default: int) -> int:
    """The whole number `name` of the query string."""
    values = request.query_params.getlist(name)
    if not values:
        return default
    text = values[-1]
    if len(text) <= len(str(maximum)) and text.isascii() and text.isdigit() and minimum <= int(text) <= maximum:
        return int(text)
    raise RefusedError(
        HTTPStatus.BAD_REQUEST,
        f"{name} is {text[:_SHOWN_CHARACTERS]!r}; allowed is a whole number from {minimum} to {maximum}.",
    )


async def read_object(request: Request, *, known: frozenset[str]) -> dict[str, Any]:
    """The body as a JSON object with no other than the `known` keys; an empty body is an empty object."""
    body = await _read_body(request)
    if not body:
        return {}
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must have the content type application/json.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    unknown = sorted(set(value) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"Unknown key {unknown[0][:_SHOWN_CHARACTERS]!r}; allowed: {allowed}."
        )
    return value


def boolean(arguments: dict[str, Any], name: str) -> bool:
    """The required true or false `name`."""
    value = arguments.get(name)
    if isinstance(value, bool):
        return value
    raise RefusedError(HTTPStatus.BAD_REQUEST, f'The body must be {{"{name}": true}} or {{"{name}": false}}.')


def integer(arguments: dict[str, Any], name: str, *, minimum: int, maximum: int, default: int) -> int:
    """The optional whole number `name`."""
    value = arguments.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
        return value
    raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number from {minimum} to {maximum}.")


async def _read_body(request: Request) -> bytes:
    too_large = RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {BODY_BYTES_MAX} bytes.")
    declared = request.headers.get("content-length", "0")
    if len(declared) > len(str(BODY_BYTES_MAX)) or int(declared) > BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    try:
        with trio.fail_after(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise too_large
    except trio.TooSlowError as error:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_TIMEOUT_S:g} seconds."
        ) from error
    return bytes(body)
