"""Round every handler: which one it is, who may come in, what an error looks like, what is counted.

It stands in the place of aiohttp's ``Application._handle``: that asks the router, which makes and
freezes its answer anew, for each request, and each middleware is one more coroutine.
"""

import logging
import re
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import istr

from streamapp.core import metrics
from streamapp.core.errors import Halt, StreamappError
from streamapp.core.scopes import Verb
from streamapp.gateway import webhooks
from streamapp.gateway.access import Access
from streamapp.gateway.confluent.errors import speaks_confluent, translated
from streamapp.gateway.connections import BUSY, IDLE, Connection, may_stall, write_answer
from streamapp.gateway.cors import Cors
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import ProblemError, problem_of, stopping
from streamapp.gateway.rates import METER, Rates
from streamapp.gateway.reply import Answer
from streamapp.gateway.scopes import GRANT, Rule, lacking, rule

_CLIENT_LEFT = 499  # nginx's code for it; nobody reads the answer
#: Addresses, and names that no DNS server decides about; HTTP/1.0 sends none.
_LOCAL_HOST = re.compile(
    r"(([A-Za-z0-9-]+\.)*localhost|[0-9]+(\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])?(:[0-9]*)?",
    re.IGNORECASE,
)
#: As aiohttp's own names, hashed once and not at each look.
_FETCH_SITE = istr("Sec-Fetch-Site")
_log = logging.getLogger("streamapp.gateway")


class _Route(NamedTuple):
    label: str
    rule: Rule
    by_token: bool
    #: Whether it is closed to browsers of other sites, to many requests, and while we stop.
    guarded: bool
    counts: metrics.Route


class Edge:
    """Answers every request to an application, whose routes must all be known.

    Raises:
        Refuse: the token file cannot be used.
    """

    def __init__(self, gateway: Gateway, app: web.Application) -> None:
        self._gateway = gateway
        self._app = app
        self._life = gateway.life
        self._now_s = gateway.clock.monotonic_s
        self._access = Access(gateway.config, gateway.clock)
        self._cors = Cors(gateway.config.cors_origins)
        self._rates = Rates(gateway.config, self._now_s)
        self._has_cors, self._has_rates = bool(self._cors), bool(self._rates)
        self._adds_headers = self._has_cors or self._has_rates
        self._is_local = gateway.config.is_local
        self._answer_s_max = gateway.config.answer_s_max
        self._unmatched = self._route("unmatched", Rule(Verb.OPEN), guarded=False)
        self._routes: dict[web.AbstractRoute, _Route] = {}
        #: What the router says, by method and path as it is sent, where no path is a pattern.
        self._matches: dict[tuple[str, str], web.UrlMappingMatchInfo] = {}
        self._learn()

    def _learn(self) -> None:
        """Name the app's routes for metrics, and note what each takes."""
        app = self._app
        for route in app.router.routes():
            path = route.resource.canonical if route.resource else "unmatched"
            takes = rule(route.method, path)
            if path == "/metrics":
                takes = Rule(Verb(self._gateway.config.metrics_scope))
            # Open ones are for probes and scrapers; a signature and a handshake come from anywhere.
            proven = path == webhooks.PATH or route.method == hdrs.METH_OPTIONS
            guarded = takes.verb is not Verb.OPEN or proven
            self._routes[route] = self._route(path, takes, guarded=guarded)
            if isinstance(route.resource, web.PlainResource):
                match = self._taken(web.UrlMappingMatchInfo({}, route))
                self._matches.setdefault((route.method, path), match)
        if self._adds_headers:
            app.on_response_prepare.append(self._add_headers)

    def _taken(self, match: web.UrlMappingMatchInfo) -> web.UrlMappingMatchInfo:
        match.add_app(self._app)
        match.freeze()
        return match

    def _route(self, label: str, takes: Rule, *, guarded: bool) -> _Route:
        counts = self._gateway.metrics.http.route(label)
        return _Route(label, takes, takes.verb is not Verb.OPEN, guarded, counts)

    async def run(self, request: web.Request) -> web.StreamResponse:
        """The answer to a request: aiohttp's server calls this for each."""
        started_s = self._now_s()
        match = self._matches.get((request.method, request.raw_path))
        if match is None:
            match = self._taken(await self._app.router.resolve(request))
        request._match_info = match  # noqa: SLF001  # as Application does
        route = self._routes.get(match.route, self._unmatched)
        connection = request.protocol
        if type(connection) is Connection:
            connection.asking_s = BUSY
        self._life.enter()
        status = _CLIENT_LEFT
        try:
            response = await self._answer(request, route, match)
            if self._life.draining:
                response.force_close()
            if may_stall(connection, response):
                await write_answer(request, response, self._answer_s_max)
            elif type(response) is Answer and not self._adds_headers:
                response.write_whole(request)
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
        self, request: web.Request, route: _Route, match: web.UrlMappingMatchInfo
    ) -> web.StreamResponse:
        """The handler's answer, or the error's."""
        try:
            if self._has_cors and (preflight := self._cors.preflight(request)) is not None:
                return preflight
            if route.guarded:
                self._admit(request, route)
            if hdrs.EXPECT in request.headers:
                await match.expect_handler(request)
            return await match.handler(request)
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
            raise stopping()
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
        host = headers.get(hdrs.HOST, "")
        if unproven and self._is_local and not _is_local_host(host):
            raise ProblemError(
                403,
                "request.host",
                f"Host is {host[:120]!r}, no name of this machine",
                "use http://127.0.0.1, or set STREAMAPP_TOKEN",
            )
        of_here = headers.get(_FETCH_SITE, "none") in {"none", "same-origin"}
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


#: Of an application.
EDGE = web.AppKey("edge", Edge)


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
            "POST to /ingest or /v1/events; /docs lists all routes",
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
