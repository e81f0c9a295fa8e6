"""What a request brings, checked: the numbers of a query, the JSON object of a body. Everything is bounded.

Knows no route's meaning. A fault raises RefusedError with a sentence that names the parameter, what was found and what
is allowed.
"""

from __future__ import annotations

import json
import os.path
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import trio
from starlette.requests import Request

from agent.admin.problem import RefusedError

BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 10.0
TEXT_CHARACTERS_MAX = 4096
_SHOWN_CHARACTERS = 40
_NO_TEXT = ("Cc", "Cs")  # control characters; halves of surrogate pairs, which no UTF-8 holds


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


def query_texts(request: Request, names: Iterable[str]) -> dict[str, str | None]:
    """The texts `names` of the query string, None for one that is not there; any other name is refused."""
    known = tuple(names)
    for name in request.query_params:
        if name not in known:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"Unknown parameter {name[:_SHOWN_CHARACTERS]!r}; allowed: {', '.join(known)}."
            )
    values = {name: request.query_params.getlist(name) for name in known}
    return {name: _checked_text(name, found[-1]) if found else None for name, found in values.items()}


def moment(name: str, value: str | None) -> str | None:
    """The time `name` in ISO 8601, as the same moment in UTC; without an offset it is UTC already."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST,
            f"{name} is {value[:_SHOWN_CHARACTERS]!r}; allowed is a time such as 2025-03-01T10:00:00Z.",
        ) from None
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def boolean(arguments: dict[str, Any], name: str, *, default: bool | None = None) -> bool:
    """The true or false `name`; required if there is no default."""
    value = arguments.get(name, default)
    if isinstance(value, bool):
        return value
    raise RefusedError(HTTPStatus.BAD_REQUEST, f'The body must be {{"{name}": true}} or {{"{name}": false}}.')


def integer(arguments: dict[str, Any], name: str, *, minimum: int, maximum: int, default: int) -> int:
    """The optional whole number `name`."""
    value = arguments.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
        return value
    raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number from {minimum} to {maximum}.")


def text(arguments: dict[str, Any], name: str) -> str:
    """The required text `name`: bounded, not empty, without control characters."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} must be a text.")
    return _checked_text(name, value)


def absolute_path(arguments: dict[str, Any], name: str) -> str | None:
    """The optional path `name`; it must be absolute, because the agent's current folder means nothing to a client."""
    if arguments.get(name) is None:
        return None
    value = text(arguments, name)
    if not os.path.isabs(value):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"{name} is {value[:_SHOWN_CHARACTERS]!r}; allowed is an absolute path."
        )
    return value


def _checked_text(name: str, value: str) -> str:
    # Names of files may hold what is not printable, such as a no-break space; a control character is no name.
    harmless = not any(unicodedata.category(character) in _NO_TEXT for character in value)
    if harmless and 0 < len(value) <= TEXT_CHARACTERS_MAX:
        return value
    raise RefusedError(
        HTTPStatus.BAD_REQUEST,
        f"{name} is {value[:_SHOWN_CHARACTERS]!r}; allowed are 1 to {TEXT_CHARACTERS_MAX} characters, none of them a "
        "control character.",
    )


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
