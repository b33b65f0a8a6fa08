"""Every error answer: ``application/problem+json`` (RFC 9457) with our ``code`` and ``fix``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from streamapp.core.errors import Halt, Reject, Retry, StreamappError

#: Sent with every answer, in place of aiohttp's own, which names versions.
SERVER = {"Server": "streamapp"}
RETRY_AFTER = {"Retry-After": "1"}
#: Headers of an answer in JSON.
JSON = {**SERVER, "Content-Type": "application/json"}
_PROBLEM = {**SERVER, "Content-Type": "application/problem+json"}
_encode = msgspec.json.Encoder().encode


class ProblemError(Exception):
    """A request answered with an error: HTTP status, dotted code, what and why, the way out."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fix: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fix = fix
        self.headers = headers or {}

    def response(self) -> web.Response:
        """The answer.  ``error`` repeats ``detail`` for clients that know no RFC 9457."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "fix": self.fix,
            "error": self.message,
        }
        return web.Response(
            status=self.status, body=_encode(body), headers={**_PROBLEM, **self.headers}
        )


def stopping() -> ProblemError:
    """503: the gateway takes no more."""
    return ProblemError(
        503, "gateway.draining", "the gateway is stopping", "send it again", RETRY_AFTER
    )


def json_response(body: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=_encode(body), headers=JSON)


def problem_of(error: StreamappError) -> ProblemError:
    """What an error of ours means to an HTTP client.

    Only a Reject speaks of what the client sent.  The others speak of our insides, paths included:
    the client gets their code, the operator the message, in the log.
    """
    if isinstance(error, Reject):
        status = 413 if error.code.endswith(".too_large") else 400
        return ProblemError(status, error.code, error.message, error.fix)
    if isinstance(error, Halt):
        return ProblemError(
            500, error.code, "the gateway found a fault of its own and stops", "tell its operator"
        )
    if isinstance(error, Retry):
        what = "the log does not take events now"
        return ProblemError(503, error.code, what, "send it again, with the same id", RETRY_AFTER)
    what = "the gateway and its log are not set up alike"
    return ProblemError(503, error.code, what, "tell its operator", RETRY_AFTER)
