"""The one middleware: who may come in, what an error looks like, and what is counted."""

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import hdrs, web
from prometheus_client import Counter, Histogram

from streamapp.core.errors import Halt, StreamappError
from streamapp.gateway import operations, webhooks
from streamapp.gateway.confluent.errors import speaks_confluent, translated
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import RETRY_AFTER, ProblemError, problem_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CLIENT_LEFT = "499"  # nginx's code for it; nobody reads the answer
#: Addresses, and names that no DNS server decides about; HTTP/1.0 sends none.
_LOCAL_HOST = re.compile(
    r"(([A-Za-z0-9-]+\.)*localhost|[0-9]+(\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])?(:[0-9]*)?",
    re.IGNORECASE,
)
_log = logging.getLogger("streamapp.gateway")


class _Route(NamedTuple):
    label: str
    guarded: bool
    #: A webhook's signature says who it is, and a CloudEvents handshake asks before it has a token.
    by_token: bool
    seconds: Histogram


class Edge:
    """Runs round every handler; ``learn`` must be called when all routes are known."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._life = gateway.life
        self._now_s = gateway.clock.monotonic_s
        self._expected = f"Bearer {gateway.config.token}".encode() if gateway.config.token else b""
        self._unmatched = self._route("unmatched", guarded=False)
        self._routes: dict[web.AbstractRoute, _Route] = {}
        self._counters: dict[tuple[str, str, str], Counter] = {}

    def learn(self, app: web.Application) -> None:
        """Name the app's routes for metrics, and mark those that ask for a token."""
        for route in app.router.routes():
            path = route.resource.canonical if route.resource else "unmatched"
            by_token = path != webhooks.PATH and route.method != hdrs.METH_OPTIONS
            guarded = path not in operations.PATHS
            self._routes[route] = self._route(path, guarded=guarded, by_token=by_token)

    def _route(self, label: str, *, guarded: bool, by_token: bool = True) -> _Route:
        return _Route(label, guarded, by_token, self._gateway.metrics.http_seconds.labels(label))

    @web.middleware
    async def run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware."""
        route = self._routes.get(request.match_info.route, self._unmatched)
        started_s = self._now_s()
        self._life.enter()
        status = _CLIENT_LEFT
        try:
            try:
                if route.guarded:
                    self._admit(request, by_token=route.by_token)
                response = await handler(request)
            except ConnectionError:  # the client left: there is nobody to tell
                raise
            except Exception as error:  # noqa: BLE001  # the last one: a client gets no traceback
                problem = self._problem(request, route, error)
                if speaks_confluent(request.path):
                    problem = translated(error, problem, request.path)
                response = problem.response()
            if self._life.draining:
                response.force_close()
            status = str(response.status)
            return response
        finally:
            self._life.leave()
            route.seconds.observe(self._now_s() - started_s)
            self._count(route.label, request.method, status)

    def _problem(self, request: web.Request, route: _Route, error: Exception) -> ProblemError:
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, StreamappError):
            if isinstance(error, Halt):
                _log.critical("%s", error)
                self._life.fail(error)
            return problem_of(error)
        if isinstance(error, web.HTTPException):
            return _unrouted(request, error)
        _log.error("unexpected: %s %s", request.method, route.label, exc_info=error)
        return ProblemError(
            500, "gateway.internal", "the gateway made an error", "its log says which"
        )

    def _admit(self, request: web.Request, *, by_token: bool) -> None:
        if self._life.draining:
            raise ProblemError(
                503, "gateway.draining", "the gateway is stopping", "send it again", RETRY_AFTER
            )
        if self._expected and by_token:
            scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
            given = f"{scheme.title()} {credentials}".encode(errors="surrogateescape")
            if not hmac.compare_digest(given, self._expected):
                raise ProblemError(
                    401,
                    "request.token",
                    "the bearer token is missing or wrong",
                    "send Authorization: Bearer with the value of STREAMAPP_TOKEN",
                    {"WWW-Authenticate": 'Bearer realm="streamapp"'},
                )
        self._require_no_page(request, by_token=by_token)

    def _require_no_page(self, request: web.Request, *, by_token: bool) -> None:
        """A page in the user's browser must not reach a gateway on the user's machine.

        It may come from another site, or under a name of its own that leads here (DNS rebinding).
        """
        config = self._gateway.config
        host = request.headers.get("Host", "")
        if config.is_local and not config.token and by_token and not _LOCAL_HOST.fullmatch(host):
            raise ProblemError(
                403,
                "request.host",
                f"Host is {host[:120]!r}, no name of this machine",
                "use http://127.0.0.1, or set STREAMAPP_TOKEN",
            )
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise ProblemError(
                403, "request.origin", "browsers may not send from other sites", "use a client"
            )

    def _count(self, label: str, method: str, status: str) -> None:
        if method not in hdrs.METH_ALL:
            method = "other"  # the client's word must not become a label
        key = (label, method, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._gateway.metrics.http_requests.labels(*key)
        counter.inc()


def _unrouted(request: web.Request, error: web.HTTPException) -> ProblemError:
    """The router's own answers in our words."""
    if isinstance(error, web.HTTPNotFound):
        return ProblemError(
            404,
            "request.path",
            f"there is nothing at {request.path[:120]}",
            "POST to /ingest or /v1/events",
        )
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return ProblemError(
            405,
            "request.method",
            f"{request.method[:20]} is not allowed at {request.path[:120]}",
            f"use {allowed}",
            {"Allow": allowed},
        )
    return ProblemError(error.status, "request.http", error.reason)
