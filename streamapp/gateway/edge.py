"""The one middleware: who may come in, what an error looks like, and what is counted."""

import logging
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs, web

from streamapp.core import metrics
from streamapp.core.errors import Halt, StreamappError
from streamapp.core.scopes import Verb
from streamapp.gateway import webhooks
from streamapp.gateway.access import Access
from streamapp.gateway.confluent.errors import speaks_confluent, translated
from streamapp.gateway.connections import BUSY, IDLE, Connection, may_stall, write_answer
from streamapp.gateway.cors import Cors
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import RETRY_AFTER, ProblemError, problem_of
from streamapp.gateway.rates import METER, Rates
from streamapp.gateway.scopes import GRANT, Rule, lacking, rule

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CLIENT_LEFT = 499  # nginx's code for it; nobody reads the answer
#: Addresses, and names that no DNS server decides about; HTTP/1.0 sends none.
_LOCAL_HOST = re.compile(
    r"(([A-Za-z0-9-]+\.)*localhost|[0-9]+(\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])?(:[0-9]*)?",
    re.IGNORECASE,
)
_log = logging.getLogger("streamapp.gateway")


class _Route(NamedTuple):
    label: str
    rule: Rule
    by_token: bool
    #: Whether it is closed to browsers of other sites, to many requests, and while we stop.
    guarded: bool
    counts: metrics.Route


class Edge:
    """Runs round every handler; ``learn`` must be called when all routes are known.

    Raises:
        Refuse: the token file cannot be used.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._life = gateway.life
        self._now_s = gateway.clock.monotonic_s
        self._access = Access(gateway.config, gateway.clock)
        self._cors = Cors(gateway.config.cors_origins)
        self._rates = Rates(gateway.config, self._now_s)
        self._has_cors, self._has_rates = bool(self._cors), bool(self._rates)
        self._is_local = gateway.config.is_local
        self._answer_s_max = gateway.config.answer_s_max
        self._unmatched = self._route("unmatched", Rule(Verb.OPEN), guarded=False)
        self._routes: dict[web.AbstractRoute, _Route] = {}

    def learn(self, app: web.Application) -> None:
        """Name the app's routes for metrics, and note what each takes."""
        for route in app.router.routes():
            path = route.resource.canonical if route.resource else "unmatched"
            takes = rule(route.method, path)
            if path == "/metrics":
                takes = Rule(Verb(self._gateway.config.metrics_scope))
            # Open ones are for probes and scrapers; a signature and a handshake come from anywhere.
            proven = path == webhooks.PATH or route.method == hdrs.METH_OPTIONS
            guarded = takes.verb is not Verb.OPEN or proven
            self._routes[route] = self._route(path, takes, guarded=guarded)
        if self._has_cors or self._has_rates:
            app.on_response_prepare.append(self._add_headers)

    def _route(self, label: str, takes: Rule, *, guarded: bool) -> _Route:
        counts = self._gateway.metrics.http.route(label)
        return _Route(label, takes, takes.verb is not Verb.OPEN, guarded, counts)

    @web.middleware
    async def run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware."""
        route = self._routes.get(request.match_info.route, self._unmatched)
        started_s = self._now_s()
        connection = request.protocol
        if type(connection) is Connection:
            connection.asking_s = BUSY
        self._life.enter()
        status = _CLIENT_LEFT
        try:
            response = await self._answer(request, route, handler)
            if self._life.draining:
                response.force_close()
            if may_stall(connection, response):
                await write_answer(request, response, self._answer_s_max)
            status = response.status
            return response
        finally:
            self._life.leave()
            if type(connection) is Connection:
                connection.asking_s = IDLE
            if self._has_rates and (meter := request.get(METER)) is not None:
                meter.count(request.content.total_bytes)
            # A client's word must not become a label.
            method = request.method if request.method in hdrs.METH_ALL else "other"
            route.counts.answered(method, status, self._now_s() - started_s)

    async def _answer(
        self, request: web.Request, route: _Route, handler: Handler
    ) -> web.StreamResponse:
        """The handler's answer, or the error's."""
        try:
            if self._has_cors and (preflight := self._cors.preflight(request)) is not None:
                return preflight
            if route.guarded:
                self._admit(request, route)
            return await handler(request)
        except ConnectionError:  # the client left: there is nobody to tell
            raise
        except Exception as error:  # noqa: BLE001  # the last one: a client gets no traceback
            problem = self._problem(request, route, error)
            if speaks_confluent(request.path):
                problem = translated(error, problem, request.path)
            return problem.response()

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

    def _admit(self, request: web.Request, route: _Route) -> None:
        if self._life.draining:
            raise ProblemError(
                503, "gateway.draining", "the gateway is stopping", "send it again", RETRY_AFTER
            )
        asked = route.by_token and self._access.asked
        name = self._identify(request) if asked else ""
        if self._has_rates:
            request[METER] = self._rates.take(name, request.remote or "")
        if asked and not request[GRANT].may(need := route.rule.need(request)):
            raise lacking(need)
        self._require_no_page(request, unproven=route.by_token and not asked)

    def _identify(self, request: web.Request) -> str:
        """Whose token it is."""
        try:
            grant = self._access.grant(request)
        except ProblemError:
            if self._has_rates:  # guesses are counted, too
                request[METER] = self._rates.take("", request.remote or "")
            raise
        request[GRANT] = grant
        return grant.name

    def _require_no_page(self, request: web.Request, *, unproven: bool) -> None:
        """A page in the user's browser must not reach a gateway on the user's machine.

        It may come from another site, or under a name of its own that leads here (DNS rebinding).
        """
        headers = request.headers
        host = headers.get("Host", "")
        if unproven and self._is_local and not _is_local_host(host):
            raise ProblemError(
                403,
                "request.host",
                f"Host is {host[:120]!r}, no name of this machine",
                "use http://127.0.0.1, or set STREAMAPP_TOKEN",
            )
        of_here = headers.get("Sec-Fetch-Site", "none") in {"none", "same-origin"}
        if not of_here and not self._cors.allows(request):
            raise ProblemError(
                403,
                "request.origin",
                "browsers may not send from other sites",
                "use a client, or name the site in STREAMAPP_CORS_ORIGINS",
            )

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Of every answer, when it begins."""
        if self._has_cors:
            response.headers.update(self._cors.headers(request))
        if (meter := request.get(METER)) is not None:
            response.headers.update(meter.headers())


@lru_cache(maxsize=64)
def _is_local_host(host: str) -> bool:
    return _LOCAL_HOST.fullmatch(host) is not None


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
