"""Errors of the HTTP API as RFC 9457 problem details: a status, a title, and a sentence with the way out.

`type` is always "about:blank": the status code and the sentence say it all. No traceback and no secret gets in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class RefusedError(Exception):
    """A request that is not served; becomes a problem answer with `status` and `sentence`."""

    def __init__(self, status: HTTPStatus, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


def problem(
    status: int, sentence: str, *, headers: Mapping[str, str] | None = None, details: Mapping[str, Any] | None = None
) -> JSONResponse:
    """The answer for a request that was not done; `details` become members of their own (RFC 9457, section 3.2)."""
    members = {**(details or {}), "type": "about:blank", "title": _title(status), "status": status, "detail": sentence}
    return JSONResponse(members, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
